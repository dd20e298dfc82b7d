//! Weights in cuDNN's order, and gradients in that of the network: the kernels of `weights.cu`, each started once for many convolutions.

use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaView, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};

use super::launch::{Launcher, THREADS, check};
use crate::cudnn::Number;

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/weights.ptx"));

/// Convolutions of a launch.
const MOST: usize = 96;

/// Numbers that a block takes.
const NUMBERS: usize = 4 * THREADS;

/// (out, in / groups, taps) of a convolution.
pub(super) type WeightShape = [usize; 3];

/// The weights of a launch, as a kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    from: [u64; MOST],
    to: [u64; MOST],
    counts: [u32; MOST],
    inputs: [u32; MOST],
    taps: [u32; MOST],
    first_blocks: [u32; MOST],
    tensors: u32,
}

// SAFETY: numbers alone, laid out as in C.
unsafe impl DeviceRepr for Table {}

/// As in `weights.cu`. CUDA takes 4096 bytes of arguments.
const _: () = assert!(size_of::<Table>() == 3080);

impl Launcher {
    /// Each (out, in, taps) → (out, taps, in).
    pub(super) fn pack_weights<T: Number>(
        &self,
        weights: &[(CudaView<'_, f32>, WeightShape)],
    ) -> Result<Vec<CudaSlice<T>>> {
        let function = self.weights_kernel::<T>("pack_weights")?;
        self.rearrange(&function, weights)
    }

    /// Each (out, taps, in) → (out, in, taps).
    pub(super) fn unpack_weights<T: Number>(
        &self,
        weights: &[(CudaSlice<T>, WeightShape)],
    ) -> Result<Vec<CudaSlice<f32>>> {
        let function = self.weights_kernel::<T>("unpack_weights")?;
        self.rearrange(&function, weights)
    }

    fn rearrange<From, To: DeviceRepr>(
        &self,
        function: &CudaFunction,
        weights: &[(impl DevicePtr<From>, WeightShape)],
    ) -> Result<Vec<CudaSlice<To>>> {
        let mut rearranged = Vec::with_capacity(weights.len());
        for weights in weights.chunks(MOST) {
            rearranged.extend(self.rearrange_once(function, weights)?);
        }
        Ok(rearranged)
    }

    /// At most [`MOST`].
    fn rearrange_once<From, To: DeviceRepr>(
        &self,
        function: &CudaFunction,
        weights: &[(impl DevicePtr<From>, WeightShape)],
    ) -> Result<Vec<CudaSlice<To>>> {
        let lengths: Vec<_> = weights.iter().map(|(from, shape)| (from.len(), shape.iter().product())).collect();
        check(&lengths)?;
        let to = lengths.iter().map(|&(length, _)| self.uninitialised(length)).collect::<Result<Vec<_>>>()?;
        let shapes: Vec<_> = weights.iter().map(|&(_, shape)| shape).collect();
        // With what has to last until the start.
        let read: Vec<_> = weights.iter().map(|(from, _)| from.device_ptr(&self.stream)).collect();
        let written: Vec<_> = to.iter().map(|to| to.device_ptr(&self.stream)).collect();
        let pointers = read.iter().zip(&written).map(|((from, _), (to, _))| (*from, *to));
        let (table, blocks) = table(&shapes, pointers)?;

        let mut launch = self.stream.launch_builder(function);
        launch.arg(&table);
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the slices are as long as what was checked says; those that are written to are new.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        drop((read, written));
        Ok(to)
    }

    fn weights_kernel<T: Number>(&self, name: &str) -> Result<CudaFunction> {
        let name = format!("{name}_{}", T::DTYPE.as_str());
        Ok(self.device.get_or_load_custom_func(&name, "candle_resnet_weights", KERNELS)?.into_cuda_function())
    }
}

/// The table of weights of such shapes, with where each lies and goes to, and the number of blocks for all.
fn table(shapes: &[WeightShape], pointers: impl Iterator<Item = (u64, u64)>) -> Result<(Table, u32)> {
    let none = [0; MOST];
    let (from, to) = ([0; MOST], [0; MOST]);
    let tensors = u32::try_from(shapes.len())?;
    let mut table = Table { from, to, counts: none, inputs: none, taps: none, first_blocks: none, tensors };
    let mut blocks = 0;
    for (index, (&[outputs, inputs, taps], (from, to))) in shapes.iter().zip(pointers).enumerate() {
        let count = outputs * inputs * taps;
        (table.from[index], table.to[index]) = (from, to);
        table.counts[index] = u32::try_from(count)?;
        (table.inputs[index], table.taps[index]) = (u32::try_from(inputs)?, u32::try_from(taps)?);
        table.first_blocks[index] = u32::try_from(blocks)?;
        blocks += count.div_ceil(NUMBERS);
    }
    Ok((table, u32::try_from(blocks)?))
}
