//! Stochastic depth: residual branches that are left out at random while a network trains.
//!
//! Evaluation knows nothing of it. Source: Huang et al. 2016 (arXiv 1603.09382), as timm's `drop_path`: each image has
//! branches of its own, those that stay are scaled so that the expectation does not change, and the rate grows linearly
//! from the first block, which is never left out, to the last.

use candle_core::{Result, Tensor};

use crate::dropout::Factors;

/// Decides which branches are left out, from a seed: equal seeds and equal calls leave out the same.
#[derive(Debug, Clone)]
pub struct StochasticDepth {
    rate: f64,
    factors: Factors,
}

impl StochasticDepth {
    /// Leaves out the last block's branch for `rate` of the images, from 0 up and below 1.
    ///
    /// # Errors
    /// If `rate` is out of range.
    pub fn new(rate: f64, seed: u64) -> Result<StochasticDepth> {
        if !(0.0..1.0).contains(&rate) {
            candle_core::bail!("the rate of stochastic depth is {rate}, expected from 0 up and below 1");
        }
        Ok(StochasticDepth { rate, factors: Factors::new(seed, 0) })
    }

    /// Leaves out nothing.
    pub fn none() -> StochasticDepth {
        StochasticDepth { rate: 0.0, factors: Factors::new(0, 0) }
    }

    /// Makes what is left out next depend on the seed and `step` alone, whatever was left out before.
    pub fn at_step(&mut self, step: u64) {
        self.factors.restart(step);
    }

    /// For which part of the images the branch of block `block` of `blocks` is left out.
    pub fn rate_of(&self, block: usize, blocks: usize) -> f64 {
        match blocks {
            0 | 1 => 0.0,
            _ => self.rate * block as f64 / (blocks - 1) as f64,
        }
    }

    /// What the branch of block `block` of `blocks` counts for each of `images` images: 0 where it is left out, else what makes up
    /// for that. `None` where it always counts.
    pub(crate) fn factors(&mut self, images: usize, block: usize, blocks: usize) -> Option<Vec<f32>> {
        let rate = self.rate_of(block, blocks);
        (rate > 0.0).then(|| self.factors.draw(images, rate))
    }

    /// The branch of block `block` of `blocks`, left out for some images; (N, C, H, W) → (N, C, H, W).
    pub(crate) fn pass(&mut self, branch: Tensor, block: usize, blocks: usize) -> Result<Tensor> {
        let images = branch.dim(0)?;
        let Some(factors) = self.factors(images, block, blocks) else { return Ok(branch) };
        let factors = Tensor::from_vec(factors, (images, 1, 1, 1), branch.device())?;
        branch.broadcast_mul(&factors.to_dtype(branch.dtype())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rates_that_leave_nothing_are_refused() {
        assert!(StochasticDepth::new(1.0, 0).is_err() && StochasticDepth::new(f64::NAN, 0).is_err());
        assert_eq!(StochasticDepth::new(0.5, 0).unwrap().rate_of(0, 1), 0.0);
    }

    #[test]
    fn expectation_is_kept_and_an_image_has_all_of_a_branch_or_none() {
        let mut depth = StochasticDepth::new(0.25, 7).unwrap();
        let branch = Tensor::ones((10_000, 1, 1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let passed = depth.pass(branch, 9, 10).unwrap();
        let pixels: Vec<Vec<f32>> = passed.flatten_from(1).unwrap().to_vec2().unwrap();
        assert!(pixels.iter().all(|image| image[0] == image[1] && (image[0] == 0.0 || image[0] == 4.0 / 3.0)));
        // Binomial(10000, 3/4): mean 7500, standard deviation 43.
        let kept = pixels.iter().filter(|image| image[0] > 0.0).count();
        assert!((7300..7700).contains(&kept), "{kept}");
    }

    #[test]
    fn the_seed_decides() {
        let factors = |seed| StochasticDepth::new(0.5, seed).unwrap().factors.draw(64, 0.5);
        assert_eq!(factors(1), factors(1));
        assert_ne!(factors(1), factors(2));
    }

    #[test]
    fn a_step_leaves_out_the_same_whatever_came_before() {
        let mut depth = StochasticDepth::new(0.5, 1).unwrap();
        let mut at = |step| {
            depth.at_step(step);
            depth.factors.draw(64, 0.5)
        };
        let (first, second) = (at(1), at(2));
        assert_ne!(first, second);
        assert_eq!(at(1), first);
    }
}
