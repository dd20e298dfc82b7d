//! The values of a network's variables, read where they lie.

use std::collections::HashMap;

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};

/// Every tensor of a network by its name, f32 on the CPU.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a>(pub(super) &'a HashMap<String, Tensor>);

impl<'a> Variables<'a> {
    pub(super) fn tensor(&self, name: &str) -> Result<&'a Tensor> {
        let tensor = self.0.get(name);
        tensor.ok_or_else(|| candle_core::Error::msg(format!("the weights hold no tensor `{name}`")))
    }

    /// Hands out the values of a tensor.
    pub(super) fn with<T>(&self, name: &str, work: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
        with_values(self.tensor(name)?, work)
    }

    /// A copy of a tensor's values.
    pub(super) fn singles(&self, name: &str) -> Result<Vec<f32>> {
        self.with(name, |values| Ok(values.to_vec()))
    }

    /// The same in f64.
    pub(super) fn doubles(&self, name: &str) -> Result<Vec<f64>> {
        self.with(name, |values| Ok(values.iter().copied().map(f64::from).collect()))
    }
}

/// Hands out the values of a tensor, row-major.
pub(super) fn with_values<T>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => work(&values[layout.start_offset()..][..layout.shape().elem_count()]),
        _ => bail!("expected f32 on the CPU, not {:?} on {:?}", tensor.dtype(), tensor.device().location()),
    }
}
