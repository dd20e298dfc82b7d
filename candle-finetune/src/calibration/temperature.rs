//! The temperature that makes labels likeliest: one number, by safeguarded Newton steps in f64.
//!
//! In β = 1/T the loss is convex: its slope is the mean of E[z] − z_label, its curvature the mean variance of z, both under
//! softmax(βz).

use std::ops::RangeInclusive;

use candle_resnet::config::TEMPERATURES;

use super::LabelledLogits;

/// Temperatures that are looked at; no others count as ours.
pub const RANGE: RangeInclusive<f64> = TEMPERATURES;

/// Newton steps at most; ten are enough unless logits are strange.
const STEPS: usize = 200;

/// The temperature with the least cross-entropy, within [`RANGE`].
///
/// One image more than there are counts as of every class alike (the rule of succession): where few images are all right, the best
/// temperature without it would be 0. 1 where logits say nothing.
pub fn fit_temperature(logits: &LabelledLogits) -> f64 {
    let (mut low, mut high) = (1.0 / RANGE.end(), 1.0 / RANGE.start());
    let mut inverse = 1.0;
    for _ in 0..STEPS {
        let (slope, curvature) = derivatives(logits, inverse);
        if slope > 0.0 {
            high = inverse;
        } else if slope < 0.0 {
            low = inverse;
        } else {
            break; // at the minimum, or nothing to learn, or not a number
        }
        let newton = inverse - slope / curvature;
        let next = if low < newton && newton < high { newton } else { (low * high).sqrt() };
        let done = (next - inverse).abs() <= 1e-14 * inverse;
        inverse = next;
        if done {
            break;
        }
    }
    (1.0 / inverse).clamp(*RANGE.start(), *RANGE.end()) // A rounding may leave them.
}

/// Slope and curvature of the mean cross-entropy in the inverse temperature.
fn derivatives(logits: &LabelledLogits, inverse: f64) -> (f64, f64) {
    let images = logits.images() as f64;
    let spread = 1.0 / (images + 1.0);
    let (mut slope, mut curvature) = (0.0, 0.0);
    for (row, label) in logits.rows() {
        let Moments { mean, variance, plain_mean } = moments(row, inverse);
        let target = (1.0 - spread) * f64::from(row[label]) + spread * plain_mean;
        slope += mean - target;
        curvature += variance;
    }
    (slope / images, curvature / images)
}

struct Moments {
    /// Under softmax.
    mean: f64,
    /// Under softmax.
    variance: f64,
    /// Every class alike.
    plain_mean: f64,
}

fn moments(logits: &[f32], inverse: f64) -> Moments {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let (mut weight, mut first, mut second, mut plain) = (0.0, 0.0, 0.0, 0.0);
    for &logit in logits {
        let below = f64::from(logit) - largest;
        let share = (inverse * below).exp();
        weight += share;
        first += share * below;
        second += share * below * below;
        plain += below;
    }
    let mean = first / weight;
    Moments {
        mean: largest + mean,
        variance: second / weight - mean * mean,
        plain_mean: largest + plain / logits.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn temperature(logits: &[[f32; 2]], labels: &[u32]) -> f64 {
        let logits = Tensor::from_vec(logits.concat(), (logits.len(), 2), &Device::Cpu).unwrap();
        fit_temperature(&LabelledLogits::new(&logits, labels).unwrap())
    }

    #[test]
    fn right_in_three_of_four_means_three_quarters() {
        // With one image more that is of both classes: (3 + 1/2) / 5 = 0.7 = softmax of z / T.
        let expected = 6.0 / (0.7f64 / 0.3).ln();
        let found = temperature(&[[6., 0.]; 4], &[0, 0, 0, 1]);
        assert!((found - expected).abs() < 1e-9 * expected, "{found}, expected {expected}");
    }

    #[test]
    fn few_images_that_are_all_right_make_nobody_certain() {
        let expected = 6.0 / (0.9f64 / 0.1).ln(); // (4 + 1/2) / 5
        assert!((temperature(&[[6., 0.]; 4], &[0; 4]) - expected).abs() < 1e-9 * expected);
    }

    #[test]
    fn logits_that_say_nothing_stay_as_they_are() {
        assert_eq!(temperature(&[[2., 2.]; 3], &[0, 1, 1]), 1.0);
        assert_eq!(temperature(&[], &[]), 1.0);
        assert_eq!(temperature(&[[f32::NAN, 0.]], &[0]), 1.0);
    }

    #[test]
    fn worse_than_chance_ends_at_the_largest_temperature() {
        let found = temperature(&[[5., 0.]; 9], &[1; 9]);
        assert!((found / RANGE.end() - 1.0).abs() < 1e-6, "{found}");
    }

    #[test]
    fn scaled_logits_have_a_scaled_temperature() {
        let rows = [[3., 1.], [0.5, 2.], [1., -1.], [2., 2.5]];
        let labels = [0, 1, 0, 0];
        let base = temperature(&rows, &labels);
        for factor in [0.01f32, 50.0] {
            let scaled = rows.map(|row| row.map(|value| value * factor));
            let found = temperature(&scaled, &labels) / f64::from(factor);
            assert!((found / base - 1.0).abs() < 1e-5, "{found} and {base}");
        }
    }
}
