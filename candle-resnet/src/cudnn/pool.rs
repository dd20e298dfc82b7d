//! The max-pool of the frozen form.

use candle_core::cuda_backend::cudarc::cudnn::{CudnnError, PoolingDescriptor, PoolingForward, sys};
use candle_core::{Device, Result, Tensor, bail};

use super::number::with_number;
use super::{Number, PROPAGATE, Values, Window, channels_last, map, tensor, with_library};

/// A 3×3 max-pool of maps (N, C, H, W) with a border of one pixel.
pub(crate) fn max_pool(x: &Tensor, stride: usize) -> Result<Tensor> {
    let window = Window { size: 3, stride, padding: 1, dilation: 1, groups: 1 };
    let x = channels_last(x, x.dtype())?;
    with_number!(x.dtype(), T => pooled::<T>(&x, window))?.permute((0, 3, 1, 2))
}

/// (N, H, W, C) → (N, H', W', C)
fn pooled<T: Number>(x: &Tensor, window: Window) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let out = [images, window.output(height), window.output(width), channels];
    let Device::Cuda(device) = x.device() else { bail!("cuDNN computes on CUDA devices alone") };
    let (from, x) = ([images, height, width, channels], Values::of(x)?);
    // SAFETY: cuDNN writes all of it.
    let mut y = unsafe { device.alloc::<T>(out.iter().product())? };
    with_library(device, |library| {
        let cudnn = &library.cudnn;
        let x = x.view::<T>()?;
        let prepared = || -> std::result::Result<_, CudnnError> {
            let [size, stride, padding] = [window.size, window.stride, window.padding].map(|value| [value as i32; 2]);
            let mode = sys::cudnnPoolingMode_t::CUDNN_POOLING_MAX;
            let pooling: PoolingDescriptor<f32> = cudnn.create_poolingnd(&size, &padding, &stride, mode, PROPAGATE)?;
            Ok((pooling, map::<T>(cudnn, from)?, map::<T>(cudnn, out)?))
        };
        let (pooling, x_map, y_map) = prepared().map_err(candle_core::Error::wrap)?;
        let forward = PoolingForward { pooling: &pooling, x: &x_map, y: &y_map };
        // SAFETY: the descriptors say what lies in the slices.
        unsafe { forward.launch((T::ONE, T::ZERO), &x, &mut y) }.map_err(candle_core::Error::wrap)
    })?;
    Ok(tensor(y, &out, device))
}
