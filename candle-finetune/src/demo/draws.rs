//! Random numbers as drawing needs them.

use rand_chacha::ChaCha8Rng;

use crate::random::{below, uniform};

/// A number from `low` up to `high`.
pub(super) fn between(generator: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    uniform(generator, low.into(), high.into()) as f32
}

/// A whole number from `low` to `high`.
pub(super) fn count(generator: &mut ChaCha8Rng, low: usize, high: usize) -> usize {
    low + below(generator, (high - low) as u64 + 1)
}
