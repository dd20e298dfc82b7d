//! Dropout: a random part of the features is zero in each step, and the others are scaled so that their expectation
//! stays.
//!
//! Source: Srivastava et al. 2014. The features are those of the network, before they are standardised, as in
//! `torch.nn.Dropout` before `fc`.

use candle_core::Tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::error::Result;
use crate::random::generator;

/// Epochs take the streams from 0 on, initial weights the last.
const STREAM: u64 = u64::MAX - 1;

/// Decides which features of which row are zero, from a seed.
pub(super) struct Dropout {
    rate: f64,
    generator: ChaCha8Rng,
}

impl Dropout {
    /// Zeroes the part `rate` of the features, above 0 and below 1; nothing to do for 0.
    pub(super) fn new(rate: f64, seed: u64) -> Option<Dropout> {
        (rate > 0.0).then(|| Dropout { rate, generator: generator(seed, STREAM) })
    }

    /// (N, D) → (N, D)
    pub(super) fn apply(&mut self, features: &Tensor) -> Result<Tensor> {
        let mask = Tensor::from_vec(self.factors(features.elem_count()), features.dims(), features.device())?;
        Ok((features * mask)?)
    }

    fn factors(&mut self, count: usize) -> Vec<f32> {
        let threshold = self.rate * 2f64.powi(32);
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        (0..count).map(|_| if f64::from(self.generator.next_u32()) < threshold { 0.0 } else { kept }).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn expectation_is_kept() {
        let features = Tensor::ones((100, 100), DType::F32, &Device::Cpu).unwrap();
        let dropped = Dropout::new(0.2, 3).unwrap().apply(&features).unwrap();
        let values = dropped.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|&value| value == 0.0 || value == 1.25));
        // Binomial(10000, 4/5): mean 8000, standard deviation 40.
        let kept = values.iter().filter(|&&value| value > 0.0).count();
        assert!((7800..8200).contains(&kept), "{kept}");
    }

    #[test]
    fn every_step_has_a_mask_of_its_own_and_every_seed_its_own_masks() {
        let mut dropout = Dropout::new(0.5, 1).unwrap();
        let (first, second) = (dropout.factors(64), dropout.factors(64));
        assert_ne!(first, second);
        assert_eq!(Dropout::new(0.5, 1).unwrap().factors(64), first);
        assert_ne!(Dropout::new(0.5, 2).unwrap().factors(64), first);
    }

    #[test]
    fn no_rate_is_no_dropout() {
        assert!(Dropout::new(0.0, 1).is_none());
    }
}
