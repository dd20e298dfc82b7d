//! How far confidence is from accuracy.

use super::Answer;

/// Bins of confidence.
pub const BINS: usize = 15;

/// Answers whose confidence is in one bin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// How many there are.
    pub answers: usize,
    /// How many of them are right.
    pub right: usize,
    /// The sum of their confidences.
    pub confidence: f64,
}

impl Bin {
    /// Mean confidence less accuracy, times the number of answers.
    fn gap(&self) -> f64 {
        self.confidence - self.right as f64
    }
}

/// Answers in [`BINS`] bins of equal width, the least confident first. A confidence between two bins is in the lower one.
pub fn reliability(answers: &[Answer]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for answer in answers {
        let bin = &mut bins[bin(answer.confidence)];
        bin.answers += 1;
        bin.right += usize::from(answer.right);
        bin.confidence += answer.confidence;
    }
    bins
}

/// The expected calibration error: the distance between mean confidence and accuracy in each bin of [`reliability`], weighted by how
/// many answers are in it (Guo et al., 2017). 0 without answers.
pub fn expected_calibration_error(answers: &[Answer]) -> f64 {
    reliability(answers).iter().map(|bin| bin.gap().abs()).sum::<f64>() / answers.len().max(1) as f64
}

fn bin(confidence: f64) -> usize {
    ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(count: usize, right: usize, confidence: f64) -> Vec<Answer> {
        (0..count).map(|index| Answer { confidence, right: index < right }).collect()
    }

    #[test]
    fn within_a_bin_doubt_and_certainty_cancel_and_between_bins_they_add_up() {
        assert!(expected_calibration_error(&answers(10, 9, 0.9)) < 1e-12);
        let two_bins = [answers(10, 10, 0.9), answers(10, 8, 0.7)].concat();
        assert!((expected_calibration_error(&two_bins) - 0.1).abs() < 1e-12);
        let one_bin = [answers(10, 10, 0.9), answers(10, 8, 0.9)].concat();
        assert!(expected_calibration_error(&one_bin) < 1e-12);
    }

    #[test]
    fn edges_belong_to_the_lower_bin() {
        assert_eq!([0.0, 1.0 / 15.0, 0.0667, 14.0 / 15.0, 1.0].map(bin), [0, 0, 1, 13, 14]);
    }

    #[test]
    fn no_answers_are_no_error() {
        assert_eq!(expected_calibration_error(&[]), 0.0);
    }
}
