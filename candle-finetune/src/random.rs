//! Seeded random orders and draws: in which order an epoch visits the samples, which of them are held out, how an image is
//! augmented.
//!
//! Pure functions of numbers, seed and stream: no state to save, and no dependence on threads or on what ran before.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator for one purpose (`stream`) of one run (`seed`); streams do not overlap.
pub fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    generator
}

/// A generator for one view of one image of one run; different arguments give unrelated numbers.
pub fn view_generator(seed: u64, view: u64, image: u64) -> ChaCha8Rng {
    keyed_generator(b"augment.", [seed, view, image])
}

/// A generator for one `purpose` and what three numbers say about it; different arguments give unrelated numbers.
pub fn keyed_generator(purpose: &[u8; 8], numbers: [u64; 3]) -> ChaCha8Rng {
    let [first, second, third] = numbers;
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([first, second, third, u64::from_le_bytes(*purpose)]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// `0..count` in an order that depends on `seed` and `stream` (an epoch, a class) alone.
pub fn shuffled(count: u32, seed: u64, stream: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    shuffle(&mut generator(seed, stream), &mut order);
    order
}

/// Puts items in any order, each equally likely.
///
/// Fisher-Yates, written out because rand does not promise that its own shuffle gives the same order in its next version.
pub fn shuffle<T>(generator: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(generator, last as u64 + 1));
    }
}

/// A number from `low` up to `high`.
pub fn uniform(generator: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(generator)
}

/// Whether something of that probability happens; always for 1, never for 0.
pub fn chance(generator: &mut ChaCha8Rng, probability: f64) -> bool {
    unit(generator) < probability
}

/// A number from 0 up and below 1, in steps of 2⁻⁵³.
fn unit(generator: &mut ChaCha8Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 * 2f64.powi(-53)
}

/// A number in `0..bound`, `bound` ≤ 2³²; its bias is below 2⁻³².
pub fn below(generator: &mut ChaCha8Rng, bound: u64) -> usize {
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
    fn every_view_of_every_image_has_numbers_of_its_own() {
        let first = |seed, view, image| view_generator(seed, view, image).next_u64();
        let all = (0..8).flat_map(|n| [(n, 3, 5), (3, n, 5), (5, 3, n)]);
        let mut found: Vec<u64> = all.map(|(seed, view, image)| first(seed, view, image)).collect();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 8 * 3 - 2, "(3, 3, 5) comes twice, and so does (5, 3, 5)");
    }

    #[test]
    fn certain_and_impossible_are_so() {
        let mut generator = view_generator(0, 0, 0);
        assert!((0..1000).all(|_| chance(&mut generator, 1.0) && !chance(&mut generator, 0.0)));
        // Binomial(10000, 1/4): mean 2500, standard deviation 43.
        let quarter = (0..10_000).filter(|_| chance(&mut generator, 0.25)).count();
        assert!((2290..2710).contains(&quarter), "{quarter}");
    }

    #[test]
    fn nothing_and_one_are_fine() {
        assert!(shuffled(0, 0, 0).is_empty());
        assert_eq!(shuffled(1, 0, 0), [0]);
    }
}
