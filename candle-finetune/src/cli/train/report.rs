//! The report on a training, in its bundle.

use std::path::Path;

use candle_finetune::Settings;
use candle_finetune::bundle::RunRecord;
use candle_finetune::calibration::LabelledLogits;
use candle_finetune::dataset::{Dataset, Sample, SplitName};
use candle_finetune::evaluate::{ClassMap, evaluate};
use candle_finetune::extract::{Skipped, Unreadable};
use candle_finetune::finetuning::{FineTuned, FineTunedModel, Validation};
use candle_finetune::report::{Explainer, Fact, Measured, NetworkExplainer, PAGE, Report};
use candle_finetune::run_file::RunFile;
use candle_finetune::train::Metrics;
use candle_resnet::{Classifier, Model};

use super::log::parts;
use super::plan::shortened;
use super::status::percent;
use crate::cli::interrupt::Interrupt;
use crate::cli::progress::ImagePass;
use crate::cli::text::quoted;

/// Images that could not be read, of which each has a line.
const SKIPPED: usize = 20;

/// What was trained, and on what.
pub struct Run<'a> {
    pub model: &'a Model,
    pub dataset: &'a Dataset,
    pub settings: &'a Settings,
    pub record: &'a RunRecord,
    /// What was found of equal files.
    pub copies: &'a [String],
}

/// Images that were judged, and how.
struct JudgedImages {
    what: String,
    samples: Vec<Sample>,
    rows: Vec<usize>,
    logits: LabelledLogits,
    /// Whether the calibration was fitted on them.
    validates: bool,
}

impl Run<'_> {
    /// Writes the report on what was `delivered` into its `bundle`.
    pub fn report(&self, delivered: &FineTunedModel, bundle: &Path, interrupt: Interrupt) -> anyhow::Result<()> {
        let tuned = &delivered.tuned;
        let classifier = delivered.classifier(self.model)?;
        let judged = match (self.judged_in_training(tuned), &classifier) {
            (None, Some(classifier)) => self.judged_anew(tuned, classifier, interrupt)?,
            (judged, _) => judged,
        };
        let read = |name: &str| candle_resnet::preprocess::decode(Path::new(name)).ok();
        let index = tuned.neighbours.as_ref();
        let explainer = classifier.as_ref().map(|classifier| NetworkExplainer { classifier, index, read: &read });
        let class = |class: usize| self.dataset.classes[class].clone();
        let measured = judged.as_ref().map(|judged| Measured {
            what: judged.what.clone(),
            images: &judged.samples,
            judged: &judged.rows,
            logits: &judged.logits,
            temperature: tuned.trained.calibration.as_ref().map(|calibration| calibration.temperature),
            calibrated_here: judged.validates,
            preprocessing: &self.model.preprocessing,
            channels: self.model.architecture.in_channels,
            explainer: explainer.as_ref().map(|explainer| explainer as &dyn Explainer),
            class: &class,
        });
        let report = Report {
            title: format!("{} on {}", self.record.model, self.data()),
            lead: lead(tuned),
            facts: self.facts(tuned),
            parts: parts(self.model, self.dataset, self.settings)?,
            stages: &tuned.trained.stages,
            settings: Some(
                RunFile::new(self.record, &self.model.preprocessing, self.settings, &tuned.trained.derived).to_toml(),
            ),
            measured,
            notes: self.notes(tuned),
            commands: commands(bundle, &self.record.data),
        };
        Ok(report.write(&bundle.join(PAGE))?)
    }

    /// What was said of images that were not learned from while weights were chosen.
    fn judged_in_training(&self, tuned: &FineTuned) -> Option<JudgedImages> {
        let judged = tuned.judged.as_ref()?;
        let (split, what) = match self.dataset.split(SplitName::Val) {
            [] => (SplitName::Train, "held out of the training images"),
            _ => (SplitName::Val, "of the validation split"),
        };
        let before = if tuned.was_refitted() { ", asked before the head was refitted on them too" } else { "" };
        Some(JudgedImages {
            what: format!("{} images {what}{before}", judged.images.len()),
            samples: self.dataset.split(split).to_vec(),
            rows: judged.images.clone(),
            logits: judged.logits.clone(),
            validates: true,
        })
    }

    /// What the delivered weights say of images that they have not learned from: validation images, or else those of the test. Nothing
    /// where there are none, or somebody wants an end.
    fn judged_anew(
        &self,
        tuned: &FineTuned,
        classifier: &Classifier,
        interrupt: Interrupt,
    ) -> anyhow::Result<Option<JudgedImages>> {
        let held_out = tuned.assignments.iter().filter(|assignment| assignment.held_out);
        let held_out: Vec<Sample> =
            held_out.map(|held| Sample { path: held.image.clone().into(), label: held.label }).collect();
        let [val, test] = [SplitName::Val, SplitName::Test].map(|split| self.dataset.split(split).to_vec());
        let choices = [
            (val, true, "of the validation split"),
            (held_out, true, "held out of the training images"),
            (test, false, "of the test split"),
        ];
        let choice = choices.into_iter().find(|(samples, ..)| !samples.is_empty());
        let Some((samples, validates, what)) = choice.filter(|_| !tuned.trained.interrupted) else { return Ok(None) };
        let map = ClassMap::identity(self.dataset.classes.len());
        let pass = ImagePass::new(samples.len(), interrupt);
        let evaluation = pass.run(|observer| evaluate(classifier, &samples, &map, Unreadable::Skipped, observer))?;
        let rows = evaluation.extracted.kept;
        let what = format!("{} images {what}", rows.len());
        Ok(Some(JudgedImages { what, samples, rows, logits: evaluation.logits, validates }))
    }

    fn data(&self) -> String {
        self.record.data.file_name().unwrap_or(self.record.data.as_os_str()).to_string_lossy().into_owned()
    }

    fn facts(&self, tuned: &FineTuned) -> Vec<Fact> {
        let images = |split| self.dataset.split(split).len();
        let held_out = tuned.assignments.iter().filter(|assignment| assignment.held_out).count();
        let crop = self.model.preprocessing.crop;
        let trained = match &self.settings.tail {
            None => "fc alone".into(),
            Some(tail) => format!("from {} on, as far as below", tail.train_from),
        };
        let facts = [
            ("data", self.record.data.display().to_string()),
            ("classes", format!("{}: {}", self.dataset.classes.len(), shortened(&self.dataset.classes))),
            (
                "images",
                format!(
                    "{} to train, {held_out} of them held out; {} to validate, {} to test",
                    images(SplitName::Train),
                    images(SplitName::Val),
                    images(SplitName::Test)
                ),
            ),
            ("model", format!("{}, {crop}×{crop} pixels", self.model.provenance.model)),
            ("trained", trained),
            ("views", self.settings.augmentation.as_ref().map_or(String::new(), |views| views.policy.to_string())),
            ("device", format!("{}, {}", self.record.device, self.record.precision)),
        ];
        let fact = |(name, value): (&str, String)| Fact { name: name.into(), value };
        facts.into_iter().filter(|(_, value)| !value.is_empty()).map(fact).collect()
    }

    /// What was found of folders, copies and files.
    fn notes(&self, tuned: &FineTuned) -> Vec<String> {
        let folders = self.dataset.findings.iter().map(ToString::to_string);
        folders.chain(self.copies.iter().cloned()).chain(skipped_lines(&tuned.findings.skipped)).collect()
    }
}

/// Images that could not be read, a line for each of the first.
pub fn skipped_lines(skipped: &[Skipped]) -> Vec<String> {
    let shown = skipped.iter().take(SKIPPED).map(|skipped| format!("not read: {}", skipped.reason));
    let more = skipped.len().saturating_sub(SKIPPED);
    shown.chain((more > 0).then(|| format!("{more} more images could not be read"))).collect()
}

/// What the numbers in large letters do not say.
fn lead(tuned: &FineTuned) -> Vec<String> {
    let stopped =
        tuned.trained.interrupted.then(|| "The training was stopped early; this is the best until then.".into());
    let val = tuned.trained.val.map(|Validation { epoch, top1, images, .. }| match epoch {
        0 => format!("Validation of the head alone: top-1 {} of {images} images.", percent(top1)),
        _ => format!("Validation after epoch {epoch}: top-1 {} of {images} images.", percent(top1)),
    });
    let test = tuned.test.map(|Metrics { top1, images, loss, .. }| {
        format!("Test, which chose nothing: top-1 {} of {images} images, loss {loss:.4}.", percent(top1))
    });
    stopped.into_iter().chain(val).chain(test).collect()
}

fn commands(bundle: &Path, data: &Path) -> Vec<String> {
    let [bundle, data] = [bundle, data].map(|path| quoted(&path.to_string_lossy()));
    vec![
        format!("finetune train --config {bundle}/run.toml"),
        format!("finetune eval {data} --model {bundle}"),
        format!("finetune predict PHOTO --model {bundle}"),
    ]
}
