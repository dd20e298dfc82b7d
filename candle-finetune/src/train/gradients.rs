//! Gradients under the names of their parameters, wherever they were computed.

use std::collections::BTreeMap;

#[cfg(feature = "cuda")]
use candle_core::CudaDevice;
use candle_core::{CpuStorage, DType, Storage, Tensor, backprop::GradStore};
use candle_nn::VarMap;
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::elementwise::cuda;
use super::error::{Result, TrainError};
use super::state::check_shape;

/// Numbers whose squares are summed before anything else is added: of a fixed size, so that threads change no bit.
const CHUNK: usize = 1 << 15;

/// Sums that are kept side by side.
const LANES: usize = 16;

/// A gradient for each of some parameters.
#[derive(Clone, Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor>);

impl Gradients {
    /// Those that candle's autograd found for the variables of `map`, without the graph that they came from: whoever keeps them,
    /// or momentum made of them, would keep it alive.
    pub fn of(found: &GradStore, map: &VarMap) -> Gradients {
        let variables = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        variables.iter().filter_map(|(name, var)| Some((name.clone(), found.get(var)?.detach()))).collect()
    }

    /// These and others.
    pub fn with(mut self, others: impl IntoIterator<Item = (String, Tensor)>) -> Gradients {
        self.0.extend(others);
        self
    }

    /// That of the parameter `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// All, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    /// Adds the gradients of a further part of a batch; a parameter that has none in one of the two has that of the other.
    ///
    /// # Errors
    /// [`TrainError::TensorShape`] if two of one parameter differ in shape.
    pub fn add(&mut self, other: &Gradients) -> Result<()> {
        for (name, further) in &other.0 {
            let sum = match self.0.get(name) {
                Some(gradient) => {
                    check_shape(name, further, gradient.dims())?;
                    (gradient + further)?
                }
                None => further.clone(),
            };
            self.0.insert(name.clone(), sum);
        }
        Ok(())
    }

    /// The mean of these, which are of `images` images, and of `other`, of `further` ones.
    ///
    /// # Errors
    /// As [`add`](Gradients::add).
    pub fn mean_with(mut self, images: usize, mut other: Gradients, further: usize) -> Result<Gradients> {
        let all = (images + further).max(1) as f64;
        self.scale(images as f64 / all)?;
        other.scale(further as f64 / all)?;
        self.add(&other)?;
        Ok(self)
    }

    /// Multiplies every gradient by `factor`.
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for gradient in self.0.values_mut() {
            *gradient = (&*gradient * factor)?;
        }
        Ok(())
    }

    /// Divides every gradient by `scale`, in place; whether all of them are finite then.
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub(super) fn unscale(&mut self, scale: f64) -> Result<bool> {
        #[cfg(feature = "cuda")]
        if let Some((device, tensors)) = self.on_cuda() {
            return Ok(cuda::unscale(device, &tensors, scale)?);
        }
        self.scale(1.0 / scale)?;
        match self.norm() {
            Err(TrainError::NonFiniteGradient { .. }) => Ok(false),
            norm => norm.map(|_| true),
        }
    }

    /// The Euclidean norm of all of them as one vector; on the CPU, and in f32 on NVIDIA GPUs, summed in f64.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteGradient`] if it is infinite or not a number.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for (name, squares) in self.0.keys().zip(self.sums_of_squares()?) {
            if !squares.is_finite() {
                return Err(TrainError::NonFiniteGradient { name: name.clone() });
            }
            sum += squares;
        }
        Ok(sum.sqrt())
    }

    /// Of each one's numbers.
    fn sums_of_squares(&self) -> candle_core::Result<Vec<f64>> {
        #[cfg(feature = "cuda")]
        if let Some((device, tensors)) = self.on_cuda() {
            return cuda::sums_of_squares(device, &tensors);
        }
        self.0.values().map(sum_of_squares).collect()
    }

    /// Where kernels take all of them at once: them, and the device.
    #[cfg(feature = "cuda")]
    fn on_cuda(&self) -> Option<(&CudaDevice, Vec<&Tensor>)> {
        let tensors: Vec<&Tensor> = self.0.values().collect();
        Some((cuda::device(&tensors)?, tensors))
    }

    /// Scales all of them down together if their norm is above `max_norm`, as `torch.nn.utils.clip_grad_norm_` does; gives the
    /// norm before.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteGradient`], and then nothing is scaled.
    pub fn clip_norm(&mut self, max_norm: f64) -> Result<f64> {
        let norm = self.norm()?;
        let factor = max_norm / (norm + 1e-6);
        if factor < 1.0 {
            self.scale(factor)?;
        }
        Ok(norm)
    }
}

fn sum_of_squares(gradient: &Tensor) -> candle_core::Result<f64> {
    let gradient = gradient.contiguous()?;
    let (storage, layout) = gradient.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
        let sums: Vec<f64> = values[start..end].par_chunks(CHUNK).map(sum_of_squares_in_f64).collect();
        return Ok(sums.into_iter().sum());
    }
    drop(storage);
    let sum = gradient.sqr()?.sum_all()?;
    match sum.dtype() {
        DType::F64 => sum.to_scalar(),
        _ => Ok(f64::from(sum.to_dtype(DType::F32)?.to_scalar::<f32>()?)), // not every device has f64
    }
}

/// In lanes, so that the processor need not wait for one sum to be done.
fn sum_of_squares_in_f64(values: &[f32]) -> f64 {
    let square = |&value: &f32| f64::from(value) * f64::from(value);
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, value)| *lane += square(value));
    }
    lanes.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>()
}

impl FromIterator<(String, Tensor)> for Gradients {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(named: I) -> Gradients {
        Gradients(named.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
