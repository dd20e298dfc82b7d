//! Seeded random orders: in which an epoch visits the samples, which of them are held out.
//!
//! Pure functions of number, seed and stream: no state to save, and no dependence on threads or on what ran before.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator for one purpose (`stream`) of one run (`seed`); streams do not overlap.
pub fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    generator
}

/// `0..count` in an order that depends on `seed` and `stream` (an epoch, a class) alone.
///
/// Fisher-Yates, written out because rand does not promise that its own shuffle gives the same order in its next version.
pub fn shuffled(count: u32, seed: u64, stream: u64) -> Vec<u32> {
    let mut generator = generator(seed, stream);
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, below(&mut generator, last as u64 + 1));
    }
    order
}

/// A number in `0..bound`, `bound` ≤ 2³²; its bias is below 2⁻³².
fn below(generator: &mut ChaCha8Rng, bound: u64) -> usize {
    ((u128::from(generator.next_u64()) * u128::from(bound)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_comes_once() {
        let mut order = shuffled(1000, 7, 3);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }

    #[test]
    fn order_depends_on_seed_and_epoch_alone() {
        assert_eq!(shuffled(100, 1, 2), shuffled(100, 1, 2));
        assert_ne!(shuffled(100, 1, 2), shuffled(100, 1, 3));
        assert_ne!(shuffled(100, 1, 2), shuffled(100, 2, 2));
    }

    #[test]
    fn every_position_is_equally_likely() {
        let mut firsts = [0; 5];
        for epoch in 0..5000 {
            firsts[shuffled(5, 0, epoch)[0] as usize] += 1;
        }
        // Binomial(5000, 1/5): mean 1000, standard deviation 28.
        assert!(firsts.iter().all(|&n| (860..1140).contains(&n)), "{firsts:?}");
    }

    #[test]
    fn nothing_and_one_are_fine() {
        assert!(shuffled(0, 0, 0).is_empty());
        assert_eq!(shuffled(1, 0, 0), [0]);
    }
}
