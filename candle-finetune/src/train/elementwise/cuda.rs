//! What is done to many tensors at once on an NVIDIA GPU: the kernels of `kernels.cu`, each started once for all.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaView, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::{DType, Layout, Result, Storage, StorageRef, Tensor, Var, bail};

use super::{Memory, Move, Rule};

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// What candle knows the kernels as.
const MODULE: &str = "candle_finetune";

/// Tensors of a launch.
const MOST: usize = 48;

/// What a kernel has to do with a tensor: it is a variable or a gradient, belongs to one, or is remembered of one.
const ROLES: usize = 4;

/// Numbers that a rule has.
const CONSTANTS: usize = 8;

/// Threads of a block.
const THREADS: usize = 256;

/// Numbers that a block takes.
const NUMBERS: usize = 4 * THREADS;

/// The tensors of a launch, as a kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    roles: [[u64; MOST]; ROLES],
    constants: [[f32; CONSTANTS]; MOST],
    counts: [u32; MOST],
    first_blocks: [u32; MOST],
    tensors: u32,
}

// SAFETY: numbers alone, laid out as in C.
unsafe impl DeviceRepr for Table {}

/// As in `kernels.cu`. CUDA takes 4096 bytes of arguments, of which there is one more.
const _: () = assert!(size_of::<Table>() == 3464);

/// A kernel, and the numbers of a rule that it takes.
pub(in crate::train) struct Kernel {
    pub(in crate::train) name: &'static str,
    pub(in crate::train) constants: Vec<f32>,
}

/// Tensors of one size, in their roles, and the numbers of a rule.
struct Entry<'a> {
    roles: Vec<&'a Tensor>,
    constants: Vec<f32>,
}

/// Makes the moves that a kernel can make; gives the others.
pub(super) fn step<R: Rule<N>, const N: usize>(moves: Vec<Move<'_, R, N>>) -> Result<Vec<Move<'_, R, N>>> {
    let (ours, others): (Vec<_>, Vec<_>) = moves.into_iter().partition(|step| in_one_pass(step.var));
    let Some(first) = ours.first() else { return Ok(others) };
    let (device, name) = (first.var.device().as_cuda_device()?, first.rule.kernel().name);
    let contiguous = ours.iter().map(|step| step.other.contiguous()).collect::<Result<Vec<_>>>()?;
    let mut entries = Vec::new();
    for (Move { var, memory, rule, .. }, other) in ours.iter().zip(&contiguous) {
        let Memory::Tensors(memory) = &**memory else { bail!("what is remembered is not on the device") };
        let roles = [var.as_tensor(), other].into_iter().chain(memory).collect();
        entries.push(Entry { roles, constants: rule.kernel().constants });
    }
    let function = kernel(device, name)?;
    for entries in entries.chunks(MOST) {
        launch(device, &function, entries, None::<&CudaView<'_, f32>>)?;
    }
    Ok(others)
}

/// Whether a step on `var` is one pass of a kernel.
fn in_one_pass(var: &Var) -> bool {
    var.device().is_cuda() && var.dtype() == DType::F32
}

/// The device of `tensors`, where kernels take all of them: in f32 on a GPU.
pub(in crate::train) fn device<'a>(tensors: &[&'a Tensor]) -> Option<&'a CudaDevice> {
    let fits = |tensor: &&Tensor| tensor.device().is_cuda() && tensor.dtype() == DType::F32 && tensor.is_contiguous();
    tensors.first().filter(|_| tensors.iter().all(fits))?.device().as_cuda_device().ok()
}

/// Divides tensors by `scale`, in place; whether all of what comes out is finite.
pub(in crate::train) fn unscale(device: &CudaDevice, tensors: &[&Tensor], scale: f64) -> Result<bool> {
    let overflow = device.alloc_zeros::<f32>(1)?;
    let function = kernel(device, "unscale")?;
    for tensors in tensors.chunks(MOST) {
        launch(device, &function, &each_alone(tensors, &[(1.0 / scale) as f32]), Some(&overflow.slice(..)))?;
    }
    Ok(device.clone_dtoh(&overflow)? == [0.0])
}

/// The sum of the squares of each tensor's numbers, in f64.
pub(in crate::train) fn sums_of_squares(device: &CudaDevice, tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let blocks: Vec<usize> = tensors.iter().map(|tensor| blocks(tensor.elem_count())).collect();
    let sums = device.alloc_zeros::<f64>(blocks.iter().sum())?;
    let function = kernel(device, "sum_of_squares")?;
    let mut before = 0;
    for (tensors, blocks) in tensors.chunks(MOST).zip(blocks.chunks(MOST)) {
        launch(device, &function, &each_alone(tensors, &[]), Some(&sums.slice(before..)))?;
        before += blocks.iter().sum::<usize>();
    }
    let mut sums = device.clone_dtoh(&sums)?.into_iter();
    Ok(blocks.iter().map(|&blocks| sums.by_ref().take(blocks).sum()).collect())
}

/// Tensors that a kernel takes nothing else beside, with the same numbers for each.
fn each_alone<'a>(tensors: &[&'a Tensor], constants: &[f32]) -> Vec<Entry<'a>> {
    tensors.iter().map(|tensor| Entry { roles: vec![*tensor], constants: constants.to_vec() }).collect()
}

fn kernel(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    Ok(device.get_or_load_custom_func(name, MODULE, KERNELS)?.into_cuda_function())
}

/// Starts a kernel once for all `entries`, at most [`MOST`].
fn launch<T>(
    device: &CudaDevice,
    function: &CudaFunction,
    entries: &[Entry<'_>],
    further: Option<&CudaView<'_, T>>,
) -> Result<()> {
    let stream = device.cuda_stream();
    let roles = entries.iter().flat_map(|entry| &entry.roles);
    let storages: Vec<_> = roles.map(|role| role.storage_and_layout()).collect();
    let views = storages.iter().map(numbers).collect::<Result<Vec<_>>>()?;
    let pointers: Vec<_> = views.iter().map(|view| view.device_ptr(&stream)).collect(); // with what has to last until the start
    let (table, blocks) = table(entries, pointers.iter().map(|(pointer, _)| *pointer))?;

    let mut launch = stream.launch_builder(function);
    launch.arg(&table);
    further.into_iter().for_each(|further| _ = launch.arg(further));
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the kernel touches as many numbers of each tensor as the table says. It writes to variables and gradients, which are lent to be
    // changed, to what is remembered, which nobody else has, and to what the caller made for it; whatever reads them waits on the same stream.
    unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
    Ok(())
}

/// The table of `entries`, with where the tensors of one after the other lie, and the number of blocks for all.
fn table(entries: &[Entry<'_>], mut pointers: impl Iterator<Item = u64>) -> Result<(Table, u32)> {
    let mut table = Table {
        roles: [[0; MOST]; ROLES],
        constants: [[0.0; CONSTANTS]; MOST],
        counts: [0; MOST],
        first_blocks: [0; MOST],
        tensors: u32::try_from(entries.len())?,
    };
    let mut all_blocks = 0;
    for (index, Entry { roles, constants }) in entries.iter().enumerate() {
        let count = roles[0].elem_count();
        if roles.iter().any(|role| role.elem_count() != count) {
            bail!("a kernel was given tensors of different sizes");
        }
        for (role, pointer) in pointers.by_ref().take(roles.len()).enumerate() {
            table.roles[role][index] = pointer;
        }
        table.constants[index][..constants.len()].copy_from_slice(constants);
        table.counts[index] = u32::try_from(count)?;
        table.first_blocks[index] = u32::try_from(all_blocks)?;
        all_blocks += blocks(count);
    }
    Ok((table, u32::try_from(all_blocks)?))
}

/// That take so many numbers; an empty tensor has one, too.
fn blocks(count: usize) -> usize {
    count.div_ceil(NUMBERS).max(1)
}

fn numbers<'a>((storage, layout): &'a (StorageRef<'_>, &Layout)) -> Result<CudaView<'a, f32>> {
    let Storage::Cuda(storage) = &**storage else { bail!("a tensor is not on the device") };
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a contiguous tensor was expected") };
    Ok(storage.as_cuda_slice::<f32>()?.slice(start..end))
}
