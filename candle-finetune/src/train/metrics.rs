//! Accuracy and loss from logits and labels, on the host.
//!
//! Pure: same numbers in, same numbers out, whatever the device or the number of threads.

use candle_core::{DType, Tensor};
use serde::Serialize;

use super::error::{Result, TrainError};

/// How well logits agree with labels; accuracies are fractions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Metrics {
    /// Fraction whose label has the largest logit.
    pub top1: f64,
    /// Fraction whose label is among the five largest logits (among all, where there are fewer classes).
    pub top5: f64,
    /// Mean cross-entropy in nats, without smoothing or weights.
    pub loss: f64,
    /// Number of images.
    pub images: usize,
}

/// Sums over images, from which [`Metrics`] are the means; batches may come one after another.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    top1: usize,
    top5: usize,
    loss: f64,
    images: usize,
}

impl Tally {
    /// Adds a batch: `logits` (N, C) and N `labels`.
    ///
    /// # Errors
    /// [`TrainError::LabelCount`] if they differ in number, [`TrainError::Label`] for a label that is not below C.
    pub fn add(&mut self, logits: &Tensor, labels: &[u32]) -> Result<()> {
        let rows = logits.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if rows.len() != labels.len() {
            return Err(TrainError::LabelCount { labels: labels.len(), images: rows.len() });
        }
        for (row, &label) in rows.iter().zip(labels) {
            let own = row.get(label as usize).copied().ok_or(TrainError::Label {
                index: self.images,
                label,
                classes: row.len(),
            })?;
            self.add_image(row, own, label as usize);
        }
        Ok(())
    }

    fn add_image(&mut self, logits: &[f32], own: f32, label: usize) {
        let rank = rank(logits, own, label);
        self.top1 += usize::from(rank < 1);
        self.top5 += usize::from(rank < 5);
        self.loss += log_sum_exp(logits) - f64::from(own);
        self.images += 1;
    }

    /// The means; all 0 before the first image.
    pub fn metrics(&self) -> Metrics {
        let images = self.images.max(1) as f64;
        Metrics {
            top1: self.top1 as f64 / images,
            top5: self.top5 as f64 / images,
            loss: self.loss / images,
            images: self.images,
        }
    }
}

/// [`Metrics`] of one batch of `logits` (N, C).
///
/// # Errors
/// As [`Tally::add`].
pub fn metrics(logits: &Tensor, labels: &[u32]) -> Result<Metrics> {
    let mut tally = Tally::default();
    tally.add(logits, labels)?;
    Ok(tally.metrics())
}

/// How many classes come before the label: those with a larger logit, and equal ones with a lower index.
///
/// What is not a number comes before everything, and a label whose own logit is not a number comes after everything.
fn rank(logits: &[f32], own: f32, label: usize) -> usize {
    if own.is_nan() {
        return usize::MAX;
    }
    let ahead = |(class, &logit): (usize, &f32)| logit.is_nan() || logit > own || (logit == own && class < label);
    logits.iter().enumerate().filter(|&entry| ahead(entry)).count()
}

/// ln Σ exp(logit), safe against overflow.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    largest + sum.ln()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn of<const N: usize>(rows: &[[f32; 6]; N], labels: &[u32]) -> Metrics {
        metrics(&Tensor::new(rows, &Device::Cpu).unwrap(), labels).unwrap()
    }

    #[test]
    fn the_largest_is_top_1_and_the_last_of_six_is_not_top_5() {
        let row = [5., 4., 3., 2., 1., 0.];
        let found = of(&[row, row, row, row], &[0, 1, 4, 5]);
        assert_eq!((found.top1, found.top5, found.images), (0.25, 0.75, 4));
    }

    #[test]
    fn of_equal_logits_the_lowest_class_wins() {
        let row = [1.; 6];
        assert_eq!(of(&[row, row], &[0, 1]).top1, 0.5);
        assert_eq!(of(&[row, row], &[4, 5]).top5, 0.5);
    }

    #[test]
    fn what_is_not_a_number_is_never_right() {
        let found = of(&[[f32::NAN; 6], [f32::NAN, 1., 0., 0., 0., 0.]], &[0, 1]);
        assert_eq!((found.top1, found.top5), (0.0, 0.5));
        assert!(found.loss.is_nan());
        let two = Tensor::new(&[[f32::NAN, f32::NAN]], &Device::Cpu).unwrap();
        assert_eq!(metrics(&two, &[1]).unwrap().top5, 0.0, "not even where every class is among the five");
    }

    #[test]
    fn loss_is_the_mean_negative_log_likelihood() {
        // softmax of [ln 3, 0]: 3/4, 1/4
        let logits = Tensor::new(&[[3f32.ln(), 0.], [3f32.ln(), 0.]], &Device::Cpu).unwrap();
        let found = metrics(&logits, &[0, 1]).unwrap();
        assert!((found.loss - 0.5 * ((4.0f64 / 3.0).ln() + 4.0f64.ln())).abs() < 1e-7);
        assert_eq!(found.top5, 1.0);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let found = of(&[[3e38, 0., 0., 0., 0., 0.]], &[0]);
        assert_eq!((found.loss, found.top1), (0.0, 1.0));
    }

    #[test]
    fn batches_add_up_to_the_whole() {
        let rows = Tensor::new(&[[1f32, 2.], [3., 1.], [0., 5.]], &Device::Cpu).unwrap();
        let mut tally = Tally::default();
        tally.add(&rows.narrow(0, 0, 2).unwrap(), &[1, 1]).unwrap();
        tally.add(&rows.narrow(0, 2, 1).unwrap(), &[1]).unwrap();
        assert_eq!(tally.metrics(), metrics(&rows, &[1, 1, 1]).unwrap());
    }

    #[test]
    fn labels_that_do_not_fit_are_named() {
        let logits = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(metrics(&logits, &[0]), Err(TrainError::LabelCount { labels: 1, images: 2 })));
        assert!(matches!(metrics(&logits, &[0, 3]), Err(TrainError::Label { index: 1, label: 3, classes: 3 })));
    }
}
