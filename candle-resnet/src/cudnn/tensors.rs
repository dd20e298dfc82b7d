//! The values of tensors on a CUDA device.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{Layout, Result, Storage, StorageRef, Tensor, bail};

/// The values of a tensor, row-major.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Values<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Values<'a>> {
        let (storage, layout) = tensor.storage_and_layout();
        if !layout.is_contiguous() {
            bail!("a tensor of shape {:?} does not lie row-major", tensor.dims());
        }
        Ok(Values { storage, layout })
    }

    pub(crate) fn view<T: CudaDType>(&self) -> Result<CudaView<'_, T>> {
        let Storage::Cuda(storage) = &*self.storage else { bail!("expected a tensor on a CUDA device") };
        let start = self.layout.start_offset();
        Ok(storage.as_cuda_slice::<T>()?.slice(start..start + self.layout.shape().elem_count()))
    }
}

/// A tensor that holds `values`; untracked.
pub(crate) fn tensor<T: CudaDType>(values: CudaSlice<T>, shape: &[usize], device: &CudaDevice) -> Tensor {
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(values, device.clone()));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}
