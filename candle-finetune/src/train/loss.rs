//! Cross-entropy with label smoothing and class weights, as `torch.nn.functional.cross_entropy` defines it.
//!
//! Both only change the target: with smoothing ε, C classes and weights w, the target of an image with label y is
//! `(1 - ε) · w_y` at y plus `ε / C · w_c` at every class c, and the mean divides by Σ w_y over the batch. Targets that are
//! probabilities p themselves become `(1 - ε) · w_c · p_c + ε / C · w_c`, and the mean divides by N.

use candle_core::{D, Device, Tensor};

use super::error::{Result, TrainError};

/// The loss for a fixed set of classes.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    smoothing: f64,
    weights: Vec<f64>,
}

/// What the images of a batch are.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// Of one class each.
    Labels(&'a [u32]),
    /// Of each class with a probability, (N, C).
    Probabilities(&'a Tensor),
}

impl CrossEntropy {
    /// Without smoothing, all `classes` weigh 1.
    pub fn new(classes: usize) -> Self {
        Self { smoothing: 0.0, weights: vec![1.0; classes] }
    }

    /// Spreads a part `smoothing`, in [0, 1], of each target evenly over all classes (Szegedy et al. 2016).
    pub fn with_smoothing(self, smoothing: f64) -> Self {
        Self { smoothing, ..self }
    }

    /// One positive weight per class.
    pub fn with_weights(self, weights: Vec<f64>) -> Self {
        Self { weights, ..self }
    }

    /// As [`loss`](CrossEntropy::loss) or [`soft_loss`](CrossEntropy::soft_loss).
    ///
    /// # Errors
    /// As theirs.
    pub fn of(&self, logits: &Tensor, targets: Targets<'_>) -> Result<Tensor> {
        match targets {
            Targets::Labels(labels) => self.loss(logits, labels),
            Targets::Probabilities(targets) => self.soft_loss(logits, targets),
        }
    }

    /// The weighted mean over the batch, a scalar that carries gradients to `logits` (N, C).
    ///
    /// # Errors
    /// [`TrainError::Shape`] if `logits` do not have N rows and C columns, [`TrainError::Label`] for a label not below C.
    pub fn loss(&self, logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
        self.check_logits(logits, labels.len(), "labels")?;
        let targets = Tensor::from_vec(self.targets(labels)?, logits.dims(), logits.device())?;
        let total: f64 = labels.iter().filter_map(|&label| self.weights.get(label as usize)).sum();
        Ok(against(logits, &targets, total)?)
    }

    /// As [`loss`](CrossEntropy::loss), with a probability of each class as the target of each image, (N, C).
    ///
    /// # Errors
    /// [`TrainError::Shape`] if `logits` or `targets` do not have N rows and C columns.
    pub fn soft_loss(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (images, classes) = targets.dims2()?;
        self.check_logits(logits, images, "targets")?;
        if classes != self.weights.len() {
            let expected = format!("{} classes", self.weights.len());
            return Err(TrainError::Shape { what: "targets", found: targets.dims().to_vec(), expected });
        }
        let weights = Tensor::new(self.weights.as_slice(), &Device::Cpu)?.to_dtype(targets.dtype())?; // Metal has no f64
        let weights = weights.to_device(targets.device())?;
        let smoothed = targets.affine(1.0 - self.smoothing, self.smoothing / classes as f64)?;
        Ok(against(logits, &smoothed.broadcast_mul(&weights)?, images as f64)?)
    }

    fn check_logits(&self, logits: &Tensor, images: usize, what: &str) -> Result<()> {
        let classes = self.weights.len();
        if logits.dims() == [images, classes] {
            return Ok(());
        }
        let expected = format!("{images} {what} × {classes} classes");
        Err(TrainError::Shape { what: "logits", found: logits.dims().to_vec(), expected })
    }

    /// Row-major (N, C) targets.
    fn targets(&self, labels: &[u32]) -> Result<Vec<f32>> {
        let classes = self.weights.len();
        let spread = self.weights.iter().map(|weight| (self.smoothing / classes as f64 * weight) as f32);
        let mut targets: Vec<f32> = spread.cycle().take(labels.len() * classes).collect();
        for (index, (row, &label)) in targets.chunks_mut(classes).zip(labels).enumerate() {
            let (Some(target), Some(weight)) = (row.get_mut(label as usize), self.weights.get(label as usize)) else {
                return Err(TrainError::Label { index, label, classes });
            };
            *target += ((1.0 - self.smoothing) * weight) as f32;
        }
        Ok(targets)
    }
}

/// Weights in inverse proportion to how often a class occurs, of mean 1 over the images: N / (C · Nᶜ).
///
/// A class that does not occur counts as if it occurred once.
pub fn balanced(counts: &[usize]) -> Vec<f64> {
    let images: usize = counts.iter().sum();
    counts.iter().map(|&count| images as f64 / (counts.len() * count.max(1)) as f64).collect()
}

/// -Σ targets · ln softmax over batch and classes, divided by `total`.
fn against(logits: &Tensor, targets: &Tensor, total: f64) -> candle_core::Result<Tensor> {
    (log_softmax(logits)? * targets.to_dtype(logits.dtype())?)?.sum_all()? * (-1.0 / total)
}

/// ln softmax over the last dimension; the shift by the maximum is a constant for the gradient.
fn log_softmax(logits: &Tensor) -> candle_core::Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// Probabilities 1/2, 1/4, 1/4 and 1/8, 1/8, 3/4 as logits.
    fn logits() -> Tensor {
        let rows = [[0.5f64, 0.25, 0.25], [0.125, 0.125, 0.75]].map(|row| row.map(f64::ln));
        Tensor::new(&rows, &Device::Cpu).unwrap()
    }

    fn loss(cross_entropy: &CrossEntropy, labels: &[u32]) -> f64 {
        cross_entropy.loss(&logits(), labels).unwrap().to_scalar::<f64>().unwrap()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-7, "{found} != {expected}");
    }

    #[test]
    fn plain_loss_is_the_mean_negative_log_likelihood() {
        close(loss(&CrossEntropy::new(3), &[0, 2]), (2f64.ln() + (4.0 / 3.0f64).ln()) / 2.0);
    }

    #[test]
    fn weighted_loss_divides_by_the_weights_of_the_labels() {
        let weighted = CrossEntropy::new(3).with_weights(vec![1.0, 5.0, 3.0]);
        close(loss(&weighted, &[0, 2]), (2f64.ln() + 3.0 * (4.0 / 3.0f64).ln()) / 4.0);
    }

    #[test]
    fn smoothing_mixes_in_the_mean_over_classes() {
        let (ln2, third) = (2f64.ln(), (4.0 / 3.0f64).ln());
        let uniform = [(ln2 + 2.0 * 2.0 * ln2) / 3.0, (2.0 * 3.0 * ln2 + third) / 3.0];
        let expected = 0.7 * (ln2 + third) / 2.0 + 0.3 * (uniform[0] + uniform[1]) / 2.0;
        close(loss(&CrossEntropy::new(3).with_smoothing(0.3), &[0, 2]), expected);
    }

    #[test]
    fn smoothing_weighs_every_class_but_still_divides_by_the_labels() {
        let (ln2, third) = (2f64.ln(), (4.0 / 3.0f64).ln());
        // weights 1, 5, 3 on the classes of each image, divided by C and by the labels' 1 + 3
        let uniform = [ln2 + 5.0 * 2.0 * ln2 + 3.0 * 2.0 * ln2, 3.0 * ln2 + 5.0 * 3.0 * ln2 + 3.0 * third];
        let expected = 0.7 * (ln2 + 3.0 * third) / 4.0 + 0.3 * (uniform[0] + uniform[1]) / 3.0 / 4.0;
        close(loss(&CrossEntropy::new(3).with_weights(vec![1.0, 5.0, 3.0]).with_smoothing(0.3), &[0, 2]), expected);
    }

    #[test]
    fn certain_targets_are_labels() {
        let certain = Tensor::new(&[[1f32, 0., 0.], [0., 0., 1.]], &Device::Cpu).unwrap();
        let plain = CrossEntropy::new(3);
        for cross_entropy in [plain.clone(), plain.with_smoothing(0.3)] {
            let soft = cross_entropy.soft_loss(&logits(), &certain).unwrap().to_scalar().unwrap();
            close(soft, loss(&cross_entropy, &[0, 2]));
        }
    }

    #[test]
    fn targets_that_do_not_fit_are_named() {
        let targets = |shape| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = |shape| CrossEntropy::new(3).soft_loss(&logits(), &targets(shape)).unwrap_err();
        assert!(matches!(error((1, 3)), TrainError::Shape { what: "logits", .. }));
        assert!(matches!(error((2, 4)), TrainError::Shape { what: "targets", .. }));
    }

    #[test]
    fn gradient_is_softmax_minus_target() {
        let logits = Var::from_tensor(&logits()).unwrap();
        let gradients = CrossEntropy::new(3).loss(&logits, &[0, 2]).unwrap().backward().unwrap();
        let found = gradients.get(&logits).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let expected = [-0.5, 0.25, 0.25, 0.125, 0.125, -0.25].map(|x| x / 2.0);
        found.into_iter().zip(expected).for_each(|(found, expected)| close(found, expected));
    }

    #[test]
    fn huge_logits_stay_finite() {
        let logits = Tensor::new(&[[3e38f32, -3e37]], &Device::Cpu).unwrap();
        let loss = CrossEntropy::new(2).loss(&logits, &[0]).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn balanced_weights_have_mean_one_over_the_images() {
        assert_eq!(balanced(&[30, 10, 0]), [40.0 / 90.0, 40.0 / 30.0, 40.0 / 3.0]);
    }

    #[test]
    fn labels_and_logits_that_do_not_fit_are_named() {
        let cross_entropy = CrossEntropy::new(3);
        assert!(matches!(cross_entropy.loss(&logits(), &[0, 3]), Err(TrainError::Label { index: 1, label: 3, .. })));
        assert!(matches!(cross_entropy.loss(&logits(), &[0]), Err(TrainError::Shape { what: "logits", .. })));
        assert!(matches!(CrossEntropy::new(4).loss(&logits(), &[0, 1]), Err(TrainError::Shape { .. })));
    }
}
