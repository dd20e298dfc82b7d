//! A network's variables, read where they lie on the device.

use std::collections::HashMap;

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{Layout, Result, Storage, StorageRef, Tensor, bail};

/// Every tensor of a network by its name, f32 on the device.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a>(pub(super) &'a HashMap<String, Tensor>);

impl<'a> Variables<'a> {
    /// The values of the tensor `name`.
    pub(super) fn get(&self, name: &str) -> Result<Values<'a>> {
        let tensor = self.0.get(name);
        Values::of(tensor.ok_or_else(|| candle_core::Error::msg(format!("the weights hold no tensor `{name}`")))?)
    }
}

/// The values of a tensor, row-major.
pub(super) struct Values<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Values<'a> {
    pub(super) fn of(tensor: &'a Tensor) -> Result<Values<'a>> {
        let (storage, layout) = tensor.storage_and_layout();
        if !layout.is_contiguous() {
            bail!("a tensor of shape {:?} does not lie row-major", tensor.dims());
        }
        Ok(Values { storage, layout })
    }

    pub(super) fn view(&self) -> Result<CudaView<'_, f32>> {
        let Storage::Cuda(storage) = &*self.storage else { bail!("expected a tensor on a CUDA device") };
        let start = self.layout.start_offset();
        Ok(storage.as_cuda_slice::<f32>()?.slice(start..start + self.layout.shape().elem_count()))
    }
}

/// A tensor that holds `values`.
pub(super) fn tensor(values: CudaSlice<f32>, shape: &[usize], device: &CudaDevice) -> Tensor {
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(values, device.clone()));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}
