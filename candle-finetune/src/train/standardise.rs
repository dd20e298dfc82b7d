//! Mean and spread of features, and folding both into a linear layer.
//!
//! Standardised features train well at any reasonable learning rate; folded afterwards, the head takes raw features, so
//! that nothing of it remains in what is written.

use candle_core::{DType, Device, Result, Tensor};

/// Rows whose sums are taken at once, in f64 on the host.
const CHUNK: usize = 1024;

/// A spread below this part of the dimension's largest magnitude is rounding: the dimension counts as constant.
const CONSTANT: f64 = 1e-6;

/// x ↦ (x - mean) / std for each dimension; a constant dimension becomes 0 and, folded, gets weight 0.
#[derive(Clone, Debug)]
pub struct Standardiser {
    mean: Vec<f64>,
    inverse_std: Vec<f64>,
    /// `mean` and `inverse_std` as (1, D) f32 on the features' device.
    tensors: [Tensor; 2],
}

impl Standardiser {
    /// Measures `rows` (N, D), N ≥ 1; std is that of the population (divided by N).
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn measure(rows: &Tensor) -> Result<Self> {
        let (count, dimensions) = rows.dims2()?;
        let mean = scaled(&sum(rows, |rows| rows.sum(0))?, 1.0 / count as f64);
        let centre = row(&mean, DType::F64, &Device::Cpu)?;
        let squares = sum(rows, |rows| rows.broadcast_sub(&centre)?.sqr()?.sum(0))?;
        let inverse_std =
            mean.iter().zip(&squares).map(|(&mean, &square)| inverse(mean, (square / count as f64).sqrt()));
        let inverse_std: Vec<f64> = inverse_std.collect();
        debug_assert_eq!(inverse_std.len(), dimensions);
        let tensors = [row(&mean, DType::F32, rows.device())?, row(&inverse_std, DType::F32, rows.device())?];
        Ok(Self { mean, inverse_std, tensors })
    }

    /// Number of dimensions that are not constant, which is also the mean squared length of the standardised features.
    pub fn varying(&self) -> usize {
        self.inverse_std.iter().filter(|&&inverse| inverse > 0.0).count()
    }

    /// Standardised `features` (N, D).
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn apply(&self, features: &Tensor) -> Result<Tensor> {
        let [mean, inverse_std] = &self.tensors;
        features.broadcast_sub(mean)?.broadcast_mul(inverse_std)
    }

    /// The `weight` (C, D) and `bias` (C) that give on raw features what the given ones give on standardised features.
    ///
    /// W' = W / std and b' = b - W' · mean, in f64.
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn fold(&self, weight: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let (host, place) = (Device::Cpu, |tensor: Tensor| tensor.to_dtype(DType::F32)?.to_device(weight.device()));
        let inverse_std = row(&self.inverse_std, DType::F64, &host)?;
        let folded = weight.to_device(&host)?.to_dtype(DType::F64)?.broadcast_mul(&inverse_std)?;
        let shift = folded.broadcast_mul(&row(&self.mean, DType::F64, &host)?)?.sum(1)?;
        let bias = (bias.to_device(&host)?.to_dtype(DType::F64)? - shift)?;
        Ok((place(folded)?, place(bias)?))
    }
}

/// 1 / std, or 0 where the dimension is constant.
fn inverse(mean: f64, std: f64) -> f64 {
    if std > CONSTANT * mean.abs().max(f64::from(f32::MIN_POSITIVE)) { 1.0 / std } else { 0.0 }
}

fn scaled(values: &[f64], scale: f64) -> Vec<f64> {
    values.iter().map(|value| value * scale).collect()
}

/// (1, D).
fn row(values: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::from_slice(values, (1, values.len()), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

/// Sums `of_chunk`, which gives one value per dimension, over chunks of rows.
fn sum(rows: &Tensor, of_chunk: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<f64>> {
    let (count, dimensions) = rows.dims2()?;
    let mut total = Tensor::zeros(dimensions, DType::F64, &Device::Cpu)?;
    for start in (0..count).step_by(CHUNK) {
        let chunk = rows.narrow(0, start, CHUNK.min(count - start))?;
        total = (total + of_chunk(&chunk.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)?)?;
    }
    total.to_vec1()
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::random::generator;

    /// Reproducible numbers in [-1, 1).
    fn noise(shape: (usize, usize), seed: u64) -> Tensor {
        let mut generator = generator(seed, 0);
        let values = (0..shape.0 * shape.1).map(|_| generator.next_u32() as f32 * 2f32.powi(-31) - 1.0);
        Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
    }

    /// Like pooled activations: of different scales, with means about as large as the spread, one dimension constant.
    fn features() -> Tensor {
        let scale = Tensor::new(&[[0.01f32, 0.1, 1., 30., 0.]], &Device::Cpu).unwrap();
        let mean = Tensor::new(&[[0.02f32, 0.1, 0.7, 20., 0.7]], &Device::Cpu).unwrap();
        noise((3000, 5), 1).broadcast_mul(&scale).unwrap().broadcast_add(&mean).unwrap()
    }

    #[test]
    fn standardised_features_have_mean_0_and_std_1() {
        let rows = features();
        let standardised = Standardiser::measure(&rows).unwrap().apply(&rows).unwrap().to_dtype(DType::F64).unwrap();
        let mean = standardised.mean(0).unwrap().to_vec1::<f64>().unwrap();
        let square = standardised.sqr().unwrap().mean(0).unwrap().to_vec1::<f64>().unwrap();
        for (dimension, expected) in [1., 1., 1., 1., 0.].into_iter().enumerate() {
            assert!(mean[dimension].abs() < 1e-4, "{mean:?}");
            assert!((square[dimension] - expected).abs() < 1e-4, "{square:?}");
        }
    }

    #[test]
    fn constant_dimensions_do_not_count_and_get_no_weight() {
        let standardiser = Standardiser::measure(&features()).unwrap();
        assert_eq!(standardiser.varying(), 4);
        let (weight, _) =
            standardiser.fold(&noise((3, 5), 2), &Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert!(weight.to_vec2::<f32>().unwrap().iter().all(|row| row[4] == 0.0 && row[0] != 0.0));
    }

    #[test]
    fn a_single_row_is_constant_throughout() {
        assert_eq!(Standardiser::measure(&noise((1, 5), 3)).unwrap().varying(), 0);
    }

    #[test]
    fn folded_head_on_raw_features_equals_head_on_standardised_ones() {
        let (rows, weight, bias) = (features(), noise((3, 5), 4), noise((1, 3), 5).squeeze(0).unwrap());
        let standardiser = Standardiser::measure(&rows).unwrap();
        let linear = |x: &Tensor, w: &Tensor, b: &Tensor| x.matmul(&w.t().unwrap()).unwrap().broadcast_add(b).unwrap();
        let (folded_weight, folded_bias) = standardiser.fold(&weight, &bias).unwrap();
        let expected = linear(&standardiser.apply(&rows).unwrap(), &weight, &bias);
        let found = linear(&rows, &folded_weight, &folded_bias);
        let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let difference = largest(&(found - &expected).unwrap());
        assert!(difference < 1e-5 * largest(&expected), "{difference} of {}", largest(&expected));
    }
}
