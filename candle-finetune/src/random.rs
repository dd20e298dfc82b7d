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

/// A number in [0, 1] from the distribution Beta(`alpha`, `alpha`), `alpha` above 0.
pub fn symmetric_beta(generator: &mut ChaCha8Rng, alpha: f64) -> f64 {
    if alpha <= 1.0 { beta_of_powers(generator, alpha) } else { beta_of_odds(generator, alpha) }
}

/// Jöhnk 1964: the share of one of two powers that together are at most 1; in logarithms, as small powers vanish.
fn beta_of_powers(generator: &mut ChaCha8Rng, alpha: f64) -> f64 {
    loop {
        let [x, y] = [(); 2].map(|()| (1.0 - unit(generator)).ln() / alpha);
        if x.exp() + y.exp() <= 1.0 {
            return 1.0 / (1.0 + (y - x).exp());
        }
    }
}

/// Cheng 1978, algorithm BB for two equal parameters above 1: odds proposed from a logistic distribution.
fn beta_of_odds(generator: &mut ChaCha8Rng, alpha: f64) -> f64 {
    let slope = alpha + alpha.sqrt();
    loop {
        let [u, v] = [(); 2].map(|()| 1.0 - unit(generator));
        let logit = (u / (1.0 - u)).ln() / alpha.sqrt();
        let odds = alpha * logit.exp();
        let bound = slope * logit - 4f64.ln() + 2.0 * alpha * (2.0 * alpha / (alpha + odds)).ln();
        if bound >= (u * u * v).ln() {
            return odds / (alpha + odds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beta_has_its_moments_at_any_strength() {
        const DRAWS: usize = 100_000;
        for alpha in [0.01, 0.2, 0.8, 1.0, 1.5, 4.0, 32.0] {
            let mut generator = keyed_generator(b"moments.", [0, 0, 0]);
            let draws: Vec<f64> = (0..DRAWS).map(|_| symmetric_beta(&mut generator, alpha)).collect();
            assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
            let moment = |power| draws.iter().map(|draw| (draw - 0.5).powi(power)).sum::<f64>() / DRAWS as f64;
            let variance = 0.25 / (2.0 * alpha + 1.0);
            let fourth = 3.0 * variance * variance * (2.0 * alpha + 1.0) / (2.0 * alpha + 3.0);
            // Five standard errors of the mean and of the variance; the fourth moment's own is below 1.2 times its value over √n.
            let root = (DRAWS as f64).sqrt();
            assert!(moment(1).abs() < 5.0 * variance.sqrt() / root, "{alpha}: mean {}", moment(1));
            let error = (fourth - variance * variance).max(0.0).sqrt() / root;
            assert!((moment(2) - variance).abs() < 5.0 * error + 1e-9, "{alpha}: variance {}", moment(2));
            assert!((moment(4) / fourth - 1.0).abs() < 0.05, "{alpha}: fourth moment {}", moment(4));
        }
    }

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
