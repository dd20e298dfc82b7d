//! How sure a model may be, and from where on it answers.

use std::path::Path;

use anyhow::bail;
use candle_core::Tensor;
use candle_finetune::calibration::{Selection, stored};
use candle_resnet::{Classifier, Model};

use super::row::Found;
use crate::cli::common::ModelArguments;
use crate::cli::text::{percent, quoted};

/// What is an answer.
pub struct Confidence {
    /// From where on answers are given, and the part of wrong ones that was asked for.
    pub selection: Option<(Selection, f64)>,
}

impl Confidence {
    /// That of a bundle, here or on the Hub, and of other models as they are.
    ///
    /// # Errors
    /// If an error rate is to be kept, and nothing is known of the model or it is never sure enough.
    pub fn new(arguments: &ModelArguments, model: &Model, max_error: Option<f64>) -> anyhow::Result<Confidence> {
        let Some(max_error) = max_error else { return Ok(Confidence { selection: None }) };
        let name = &arguments.model;
        let calibrate =
            arguments.bundle(model).map(|_| format!("finetune eval DIR --model {} --calibrate", quoted(name)));
        let folder = model.provenance.config.as_deref().and_then(Path::parent);
        let Some(calibration) = folder.map(stored::read).transpose()?.flatten() else {
            let way_out = match calibrate {
                Some(command) => format!("measure it on photos that it has not learned from: {command}"),
                None => "train a bundle from it with `finetune train`, which measures it on validation images".into(),
            };
            bail!("`{name}` was not calibrated: nothing is known of how often it is wrong\nhint: {way_out}");
        };
        let Some(selection) = calibration.risk_coverage.select(max_error) else {
            let images = calibration.risk_coverage.images();
            let further =
                calibrate.map_or(String::new(), |command| format!(", or calibrate on more photos: {command}"));
            bail!(
                "`{name}` is never sure enough for {} of wrong answers, as far as its {images} validation images show\n\
                 hint: allow more{further}",
                percent(max_error)
            );
        };
        Ok(Confidence { selection: Some((selection, max_error)) })
    }

    /// The likeliest labels of an image's logits (classes), and whether that is an answer.
    pub fn rank(&self, classifier: &Classifier, logits: &Tensor, top: usize) -> candle_finetune::Result<Found> {
        let predictions = classifier.rank(logits, top)?;
        let best = predictions.first().map_or(0.0, |best| f64::from(best.probability));
        Ok(Found { predictions, sure: self.is_sure(best) })
    }

    /// Whether a likeliest label of this probability is an answer; `None` where all are.
    pub fn is_sure(&self, best: f64) -> Option<bool> {
        self.selection.map(|(selection, _)| best >= selection.threshold)
    }
}
