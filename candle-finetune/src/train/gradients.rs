//! Gradients under the names of their parameters, wherever they were computed.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, Storage, Tensor, backprop::GradStore};
use candle_nn::VarMap;
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::elementwise::unscale_on_cuda;
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
        if let Some(device) = self.0.values().next().map(Tensor::device).filter(|device| device.is_cuda()) {
            return Ok(unscale_on_cuda(self.0.values(), scale, &device.clone())?);
        }
        self.scale(1.0 / scale)?;
        match self.norm() {
            Err(TrainError::NonFiniteGradient { .. }) => Ok(false),
            norm => norm.map(|_| true),
        }
    }

    /// The Euclidean norm of all of them as one vector; on the CPU summed in f64.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteGradient`] if it is infinite or not a number.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for (name, gradient) in &self.0 {
            let squares = sum_of_squares(gradient)?;
            if !squares.is_finite() {
                return Err(TrainError::NonFiniteGradient { name: name.clone() });
            }
            sum += squares;
        }
        Ok(sum.sqrt())
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
mod tests {
    use candle_core::Device;
    use candle_nn::Init;
    use rayon::ThreadPoolBuilder;

    use super::*;

    fn gradients<const N: usize>(named: [(&str, &[f32]); N]) -> Gradients {
        let tensor = |values| Tensor::new(values, &Device::Cpu).unwrap();
        named.into_iter().map(|(name, values)| (name.into(), tensor(values))).collect()
    }

    fn values(gradients: &Gradients) -> Vec<(&str, Vec<f32>)> {
        gradients.iter().map(|(name, gradient)| (name, gradient.to_vec1().unwrap())).collect()
    }

    #[test]
    fn gradients_of_a_map_have_its_names_and_leave_out_what_the_loss_does_not_see() {
        let map = VarMap::new();
        let variable = |name| map.get(1, name, Init::Const(3.0), DType::F32, &Device::Cpu).unwrap();
        let [a, b, _] = ["a", "b", "unseen"].map(variable);
        let loss = (a.sqr().unwrap() + (b * 5.0).unwrap()).unwrap();
        let gradients = Gradients::of(&loss.backward().unwrap(), &map);
        assert_eq!(values(&gradients), [("a", vec![6.0]), ("b", vec![5.0])]);
    }

    #[test]
    fn parts_of_a_batch_add_up() {
        let mut sum = gradients([("a", &[1.0, 2.0]), ("b", &[3.0])]);
        sum.add(&gradients([("a", &[10.0, 20.0]), ("c", &[4.0])])).unwrap();
        sum.scale(0.5).unwrap();
        assert_eq!(values(&sum), [("a", vec![5.5, 11.0]), ("b", vec![1.5]), ("c", vec![2.0])]);
        let error = sum.add(&gradients([("a", &[1.0])])).unwrap_err();
        assert_eq!(error.to_string(), "tensor `a` has shape [1], expected [2]");
    }

    #[test]
    fn a_norm_below_the_highest_changes_nothing() {
        let mut clipped = gradients([("a", &[3.0]), ("b", &[4.0])]);
        assert_eq!(clipped.clip_norm(5.1).unwrap(), 5.0);
        assert_eq!(values(&clipped), [("a", vec![3.0]), ("b", vec![4.0])]);
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_named_and_nothing_is_scaled() {
        for broken in [f32::NAN, f32::INFINITY] {
            let mut clipped = gradients([("a", &[3.0]), ("b", &[4.0, broken])]);
            let error = clipped.clip_norm(1.0).unwrap_err();
            assert_eq!(error.to_string(), "the gradient of `b` is not finite");
            assert_eq!(values(&clipped)[0], ("a", vec![3.0]));
        }
    }

    #[test]
    fn unscaled_gradients_are_divided_and_told_where_they_are_not_finite() {
        let mut scaled = gradients([("a", &[3.0, -8.0]), ("b", &[4.0])]);
        assert!(scaled.unscale(4.0).unwrap());
        assert_eq!(values(&scaled), [("a", vec![0.75, -2.0]), ("b", vec![1.0])]);
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(!gradients([("a", &[3.0]), ("b", &[4.0, broken])]).unscale(4.0).unwrap());
        }
    }

    #[test]
    fn norms_are_summed_in_f64_with_any_number_of_threads() {
        // In f32 the square of 1e30 is infinite.
        assert_eq!(gradients([("a", &[1e30, 0.0])]).norm().unwrap(), f64::from(1e30f32));
        let values: Vec<f32> = (1..100_000).map(|index| 1.0 / index as f32).collect();
        let exact = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let gradients = gradients([("a", &values)]);
        let with_threads = |threads| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gradients.norm().unwrap())
        };
        assert_eq!(with_threads(1), with_threads(3));
        assert!((with_threads(1) - exact).abs() < 1e-12);
    }

    #[test]
    fn other_kinds_of_numbers_have_the_same_norm() {
        let plain = gradients([("a", &[3.0, 0.0, 4.0])]);
        for dtype in [DType::F64, DType::BF16] {
            let gradient = plain.get("a").unwrap().to_dtype(dtype).unwrap();
            assert_eq!(Gradients::from_iter([("a".into(), gradient)]).norm().unwrap(), 5.0);
        }
    }
}
