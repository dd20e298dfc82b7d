//! Dropout: a random part of the pooled features is zero in each training step, and the others are scaled so that their
//! expectation stays.
//!
//! Source: Srivastava et al. 2014; as `torch.nn.Dropout` before `fc`.

use candle_core::{Result, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Stream of random numbers of the first step; those of later steps lie below it.
const STREAM: u64 = u64::MAX - 1;

/// Decides which features of which image are zero, from a seed.
#[derive(Debug, Clone)]
pub struct Dropout {
    rate: f64,
    factors: Factors,
}

impl Dropout {
    /// Zeroes the part `rate` of the features, from 0 up and below 1.
    ///
    /// # Errors
    /// If `rate` is out of range.
    pub fn new(rate: f64, seed: u64) -> Result<Dropout> {
        if !(0.0..1.0).contains(&rate) {
            candle_core::bail!("the rate of dropout is {rate}, expected from 0 up and below 1");
        }
        Ok(Dropout { rate, factors: Factors::new(seed, STREAM) })
    }

    /// Zeroes nothing.
    pub fn none() -> Dropout {
        Dropout { rate: 0.0, factors: Factors::new(0, STREAM) }
    }

    /// Makes what is zero next depend on the seed and `step` alone, whatever was zero before.
    pub fn at_step(&mut self, step: u64) {
        self.factors.restart(STREAM - step);
    }

    /// (N, D) → (N, D)
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn apply(&mut self, features: &Tensor) -> Result<Tensor> {
        if self.rate == 0.0 {
            return Ok(features.clone());
        }
        let factors = self.factors.draw(features.elem_count(), self.rate);
        let factors = Tensor::from_vec(factors, features.dims(), features.device())?;
        features * factors.to_dtype(features.dtype())?
    }
}

/// Random factors: 0 for what is left out, and what keeps the expectation for the rest.
#[derive(Debug, Clone)]
pub(crate) struct Factors(ChaCha8Rng);

impl Factors {
    pub(crate) fn new(seed: u64, stream: u64) -> Factors {
        let mut factors = Factors(ChaCha8Rng::seed_from_u64(seed));
        factors.restart(stream);
        factors
    }

    /// Goes on at the start of another stream of random numbers.
    pub(crate) fn restart(&mut self, stream: u64) {
        self.0.set_stream(stream);
        self.0.set_word_pos(0);
    }

    /// `count` factors, 0 with a probability of `rate`, which is below 1.
    pub(crate) fn draw(&mut self, count: usize, rate: f64) -> Vec<f32> {
        let threshold = rate * 2f64.powi(32);
        let kept = (1.0 / (1.0 - rate)) as f32;
        (0..count).map(|_| if f64::from(self.0.next_u32()) < threshold { 0.0 } else { kept }).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn dropped(dropout: &mut Dropout) -> Vec<f32> {
        let features = Tensor::ones((100, 100), DType::F32, &Device::Cpu).unwrap();
        dropout.apply(&features).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn expectation_is_kept() {
        let values = dropped(&mut Dropout::new(0.2, 3).unwrap());
        assert!(values.iter().all(|&value| value == 0.0 || value == 1.25));
        // Binomial(10000, 4/5): mean 8000, standard deviation 40.
        let kept = values.iter().filter(|&&value| value > 0.0).count();
        assert!((7800..8200).contains(&kept), "{kept}");
    }

    #[test]
    fn every_step_has_a_mask_of_its_own_and_every_seed_its_own_masks() {
        let mut dropout = Dropout::new(0.5, 1).unwrap();
        let (first, second) = (dropped(&mut dropout), dropped(&mut dropout));
        assert_ne!(first, second);
        assert_eq!(dropped(&mut Dropout::new(0.5, 1).unwrap()), first);
        assert_ne!(dropped(&mut Dropout::new(0.5, 2).unwrap()), first);
        dropout.at_step(1);
        assert_ne!(dropped(&mut dropout), first);
        dropout.at_step(0);
        assert_eq!(dropped(&mut dropout), first, "whatever came before");
    }

    #[test]
    fn no_rate_is_no_dropout_and_all_is_refused() {
        assert!(dropped(&mut Dropout::none()).iter().all(|&value| value == 1.0));
        assert!(Dropout::new(1.0, 1).is_err() && Dropout::new(f64::NAN, 1).is_err());
    }
}
