//! Logits with labels, on the host, and what follows from them at a temperature.

use candle_core::{DType, Tensor};

use super::Answer;
use crate::train::TrainError;

/// What a model says of one image at a temperature, beside its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The class that it is.
    pub label: usize,
    /// The class of the largest probability; of equal ones the first.
    pub answer: usize,
    /// The largest probability.
    pub confidence: f64,
    /// −ln of the label's probability.
    pub loss: f64,
}

impl Judgement {
    /// Whether the answer is the label.
    pub fn is_right(&self) -> bool {
        self.answer == self.label
    }
}

/// Logits of N images over C classes, with a label for each image.
#[derive(Debug, Clone, Default)]
pub struct LabelledLogits {
    values: Vec<f32>, // (N, C)
    labels: Vec<u32>,
    classes: usize,
}

impl LabelledLogits {
    /// `logits` (N, C) and N `labels`.
    ///
    /// # Errors
    /// [`TrainError::LabelCount`] if they differ in number, [`TrainError::Label`] for a label that is not below C.
    pub fn new(logits: &Tensor, labels: &[u32]) -> Result<LabelledLogits, TrainError> {
        let (images, classes) = logits.dims2()?;
        if labels.len() != images {
            return Err(TrainError::LabelCount { labels: labels.len(), images });
        }
        if let Some(index) = labels.iter().position(|&label| label as usize >= classes) {
            return Err(TrainError::Label { index, label: labels[index], classes });
        }
        let values = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(LabelledLogits { values, labels: labels.to_vec(), classes })
    }

    /// Adds those of further images, over as many classes.
    pub fn append(&mut self, more: LabelledLogits) {
        self.values.extend(more.values);
        self.labels.extend(more.labels);
        self.classes = more.classes;
    }

    /// N.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Logits and label of each image.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.values.chunks_exact(self.classes.max(1)).zip(self.labels.iter().map(|&label| label as usize))
    }

    /// What the model says of each image when its logits are divided by `temperature`.
    pub fn judgements(&self, temperature: f64) -> Vec<Judgement> {
        self.rows().map(|(logits, label)| judgement(logits, label, temperature)).collect()
    }

    /// The same, as far as it tells how sure it may be.
    pub fn answers(&self, temperature: f64) -> Vec<Answer> {
        self.judgements(temperature).iter().map(Answer::from).collect()
    }

    /// Mean cross-entropy in nats when logits are divided by `temperature`.
    pub fn loss(&self, temperature: f64) -> f64 {
        let sum: f64 = self.rows().map(|(logits, label)| -log_probability(logits, label, temperature)).sum();
        sum / self.images().max(1) as f64
    }
}

fn judgement(logits: &[f32], label: usize, temperature: f64) -> Judgement {
    let first_largest = |best: usize, class: usize| if logits[class] > logits[best] { class } else { best };
    let answer = (0..logits.len()).fold(0, first_largest);
    let confidence = log_probability(logits, answer, temperature).exp();
    Judgement { label, answer, confidence, loss: -log_probability(logits, label, temperature) }
}

/// ln softmax(logits / temperature) of one class, safe against overflow.
fn log_probability(logits: &[f32], class: usize, temperature: f64) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let below = |logit: f32| (f64::from(logit) - largest) / temperature;
    let sum: f64 = logits.iter().map(|&logit| below(logit).exp()).sum();
    below(logits[class]) - sum.ln()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn answers_are_the_largest_softmax_at_the_temperature() {
        // softmax of [ln 9, 0] / 2: 3/4, 1/4
        let logits = Tensor::new(&[[9f32.ln(), 0.], [0., 9f32.ln()]], &Device::Cpu).unwrap();
        let logits = LabelledLogits::new(&logits, &[0, 0]).unwrap();
        for (temperature, confidence) in [(1.0, 0.9), (2.0, 0.75)] {
            let answers = logits.answers(temperature);
            assert_eq!([answers[0].right, answers[1].right], [true, false]);
            assert!(answers.iter().all(|answer| (answer.confidence - confidence).abs() < 1e-7));
            let loss = -0.5 * (confidence.ln() + (1.0 - confidence).ln());
            assert!((logits.loss(temperature) - loss).abs() < 1e-7);
        }
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let logits = Tensor::new(&[[3e38f32, 0.]], &Device::Cpu).unwrap();
        let answers = LabelledLogits::new(&logits, &[0]).unwrap().answers(0.001);
        assert_eq!(answers, [Answer { confidence: 1.0, right: true }]);
    }

    #[test]
    fn labels_that_do_not_fit_are_named() {
        let logits = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let error = |labels: &[u32]| LabelledLogits::new(&logits, labels).unwrap_err();
        assert!(matches!(error(&[0]), TrainError::LabelCount { labels: 1, images: 2 }));
        assert!(matches!(error(&[0, 3]), TrainError::Label { index: 1, label: 3, classes: 3 }));
    }
}
