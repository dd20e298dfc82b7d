//! A rule in one pass on an NVIDIA GPU: the kernels of `kernels.cu`.

use candle_core::cuda_backend::CudaStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaView, LaunchConfig, PushKernelArg};
use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Result, Storage, StorageRef, Tensor, Var, bail};

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// What candle knows the kernels as.
const MODULE: &str = "candle_finetune";

/// Threads of a block.
const THREADS: u32 = 256;

/// A kernel, and the numbers of a rule that it takes.
pub(in crate::train) struct Kernel {
    pub(in crate::train) name: &'static str,
    pub(in crate::train) constants: Vec<f32>,
}

/// Whether a step on `var` is one pass of a kernel.
pub(super) fn in_one_pass(var: &Var) -> bool {
    var.device().is_cuda() && var.dtype() == DType::F32
}

/// Moves every number of `var`, given that of `other`, and what is remembered in `memory`, in place.
pub(super) fn step(var: &Var, other: &Tensor, memory: &[Tensor], kernel: &Kernel) -> Result<()> {
    var.inplace_op2(&other.contiguous()?, &OnePass { memory, kernel })
}

struct OnePass<'a> {
    memory: &'a [Tensor],
    kernel: &'a Kernel,
}

impl InplaceOp2 for OnePass<'_> {
    fn name(&self) -> &'static str {
        self.kernel.name
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("the kernel `{}` runs on CUDA devices alone", self.kernel.name)
    }

    fn cuda_fwd(
        &self,
        value: &mut CudaStorage,
        value_layout: &Layout,
        other: &CudaStorage,
        other_layout: &Layout,
    ) -> Result<()> {
        let device = value.device.clone();
        let function = device.get_or_load_custom_func(self.kernel.name, MODULE, KERNELS)?;
        let memory: Vec<_> = self.memory.iter().map(Tensor::storage_and_layout).collect();
        let memory: Vec<_> = memory.iter().map(remembered).collect::<Result<_>>()?;
        let value = numbers(value, value_layout)?;
        let other = numbers(other, other_layout)?;
        let count = value.len();
        if other.len() != count || memory.iter().any(|part| part.len() != count) {
            bail!("`{}` was given tensors of different sizes", self.kernel.name);
        }
        let count = u32::try_from(count)?;
        let mut launch = function.builder();
        launch.arg(&value).arg(&other).arg(&count);
        memory.iter().for_each(|part| _ = launch.arg(part));
        self.kernel.constants.iter().for_each(|constant| _ = launch.arg(constant));
        // SAFETY: the kernel touches `count` numbers of each slice. It writes to the variable, which is lent to be changed, and to what is
        // remembered, which nobody else has; whatever reads them waits on the same stream.
        unsafe { launch.launch(one_each(count)) }.map_err(candle_core::Error::wrap)?;
        Ok(())
    }
}

/// Divides tensors in f32 by `scale`, in place; whether all of what comes out is finite.
pub(in crate::train) fn unscale<'a>(
    tensors: impl Iterator<Item = &'a Tensor>,
    scale: f64,
    device: &Device,
) -> Result<bool> {
    let overflow = Tensor::zeros(1, DType::F32, device)?;
    for tensor in tensors {
        tensor.inplace_op2(&overflow, &Unscale { factor: (1.0 / scale) as f32 })?;
    }
    Ok(overflow.to_vec1::<f32>()? == [0.0])
}

/// Multiplies a tensor, and sets another to 1 where something is not finite.
struct Unscale {
    factor: f32,
}

impl InplaceOp2 for Unscale {
    fn name(&self) -> &'static str {
        "unscale"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("the kernel `{}` runs on CUDA devices alone", self.name())
    }

    fn cuda_fwd(
        &self,
        value: &mut CudaStorage,
        value_layout: &Layout,
        overflow: &CudaStorage,
        overflow_layout: &Layout,
    ) -> Result<()> {
        let function = value.device.get_or_load_custom_func(self.name(), MODULE, KERNELS)?;
        let (value, overflow) = (numbers(value, value_layout)?, numbers(overflow, overflow_layout)?);
        let count = u32::try_from(value.len())?;
        let mut launch = function.builder();
        launch.arg(&value).arg(&count).arg(&self.factor).arg(&overflow);
        // SAFETY: the kernel touches `count` numbers of the tensor, which is lent to be changed, and the one number that the caller made
        // for it; whatever reads them waits on the same stream.
        unsafe { launch.launch(one_each(count)) }.map_err(candle_core::Error::wrap)?;
        Ok(())
    }
}

/// A thread for each number.
fn one_each(count: u32) -> LaunchConfig {
    let grid_dim = (count.div_ceil(THREADS).max(1), 1, 1);
    LaunchConfig { grid_dim, block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

fn remembered<'a>((storage, layout): &'a (StorageRef<'_>, &Layout)) -> Result<CudaView<'a, f32>> {
    let Storage::Cuda(storage) = &**storage else { bail!("what is remembered is not on the device") };
    numbers(storage, layout)
}

fn numbers<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, f32>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a contiguous tensor was expected") };
    Ok(storage.as_cuda_slice::<f32>()?.slice(start..end))
}
