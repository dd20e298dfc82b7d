//! Fractions that were counted, with what they may be of the images that were not.

/// z of 95 % of a normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A fraction with the interval that holds the true one in 95 % of cases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// What was counted, from 0 to 1.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Rate {
    /// `hits` of `all`, with Wilson's interval ("Probable inference, the law of succession, and statistical inference", 1927); nothing of
    /// nothing.
    pub fn of(hits: usize, all: usize) -> Option<Rate> {
        if all == 0 {
            return None;
        }
        let (hits, all) = (hits as f64, all as f64);
        let (value, square) = (hits / all, Z * Z);
        let centre = (hits + square / 2.0) / (all + square);
        let half = Z / (all + square) * (hits * (1.0 - value) + square / 4.0).sqrt();
        Some(Rate { value, low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
    }

    /// F1 of a class: the harmonic mean of precision and recall, from images of the class that were right, and all that are of it or
    /// were taken for it.
    ///
    /// F1 = 2J/(1 + J), where J = right/either is a plain fraction; its interval is that of J, sent through the same function, which rises.
    pub fn f1(right: usize, either: usize) -> Option<Rate> {
        let f1 = |jaccard: f64| 2.0 * jaccard / (1.0 + jaccard);
        Rate::of(right, either).map(|Rate { value, low, high }| Rate { value: f1(value), low: f1(low), high: f1(high) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(rate: Option<Rate>, expected: [f64; 3]) -> bool {
        rate.is_some_and(|Rate { value, low, high }| {
            [value, low, high].iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 5e-7)
        })
    }

    /// Values of statsmodels 0.15's `proportion_confint(method="wilson")`.
    #[test]
    fn intervals_are_those_of_wilson() {
        assert!(near(Rate::of(8, 10), [0.8, 0.490162, 0.943318]));
        assert!(near(Rate::of(0, 10), [0.0, 0.0, 0.277533]));
        assert!(near(Rate::of(925, 1000), [0.925, 0.906999, 0.939748]));
        assert_eq!(Rate::of(0, 0), None);
    }

    #[test]
    fn f1_is_the_harmonic_mean_of_precision_and_recall() {
        // 6 right, 8 of the class, 9 taken for it: precision 6/9, recall 6/8.
        let (precision, recall) = (6.0 / 9.0, 6.0 / 8.0);
        let f1 = Rate::f1(6, 8 + 9 - 6).unwrap();
        assert!((f1.value - 2.0 * precision * recall / (precision + recall)).abs() < 1e-12);
        assert!(f1.low < f1.value && f1.value < f1.high);
    }
}
