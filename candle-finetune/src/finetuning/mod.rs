//! Fine-tuning from end to end: a model and a data set → new weights for the parts that train, with the others frozen.
//!
//! Pretrained weights stay in the model's `VarMap`; what trains has one of its own, and only that one trains. [`fine_tune`]
//! trains a new `fc` on features, for which each image, and each augmented view of it, goes through the frozen trunk once.
//! [`fine_tune_model`] trains the parts behind a boundary as well, on maps there. [`find_lr`] tries learning rates for either. This module
//! says what they take and make.

mod batch;
mod caching;
mod course;
mod epochs;
mod estimate;
mod find_lr;
mod head;
mod identity;
mod plan;
mod resuming;
mod sources;
mod start;
mod tail;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use candle_resnet::preprocess::Note;
use candle_resnet::{Classifier, Model, Trunk};
use serde::{Deserialize, Serialize};

use crate::augment::{Augmentation, ViewCount};
use crate::calibration::{Calibration, LabelledLogits};
use crate::error::{Error, Result};
use crate::images::LabelledImages;
use crate::neighbours::Index;
use crate::reading::Skipped;
use crate::train::tail::TailSettings;
use crate::train::{EpochRecord, HeadSettings, Metrics};

pub use batch::fitting_batch_size;
pub use estimate::Estimate;
pub use find_lr::{RangeTested, find_lr};
pub use head::fine_tune;
pub use plan::{PartPlan, part_plans};
pub use tail::{Machine, fine_tune_model};

/// How to fine-tune.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Part of the training images that is held out where there is no validation split, from 0 up and below 1.
    pub val_fraction: f64,
    /// Whether a head is trained once more on all training images, held-out ones included, once settings are chosen; a
    /// tail never is.
    pub refit: bool,
    /// Whether an image that cannot be read ends the run.
    pub strict: bool,
    /// Views of each training image: made once for a head, which is trained on the image as it is as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<Augmentation>,
    /// How the head is trained. Its seed decides all that is random in a run.
    pub head: HeadSettings,
    /// How the parts before it are trained; they stay frozen if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<TailSettings>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            val_fraction: 0.2,
            refit: true,
            strict: false,
            augmentation: None,
            head: HeadSettings::default(),
            tail: None,
        }
    }
}

impl Settings {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<()> {
        self.head.validate()?;
        self.tail.as_ref().map_or(Ok(()), TailSettings::validate)?;
        self.augmentation.as_ref().map_or(Ok(()), Augmentation::validate)?;
        let fresh = self.augmentation.as_ref().is_some_and(|augmentation| augmentation.views == ViewCount::Fresh);
        if fresh && self.tail.is_none() {
            return Err(Error::FreshViewsForHead);
        }
        if (0.0..1.0).contains(&self.val_fraction) { Ok(()) } else { Err(Error::ValFraction(self.val_fraction)) }
    }

    /// Part of the features that is zero in each step.
    pub fn drop_rate(&self) -> f64 {
        self.tail.as_ref().map_or(self.head.drop_rate, |tail| tail.drop_rate)
    }
}

/// A part of the run that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Features of the training images.
    TrainFeatures,
    /// Features of the validation images.
    ValFeatures,
    /// Features of the test images.
    TestFeatures,
    /// Epochs of the head that a tail starts from.
    Head,
    /// Maps that are kept on disk, of images to train on or to validate with.
    Maps,
    /// Epochs that are measured on the validation images.
    Fit,
    /// Images of one of these epochs, of training and of validation, where a tail trains.
    Epoch,
    /// Epochs of a head on all training images.
    Refit,
    /// Images that the steps of a tail's range test see.
    RangeTest,
    /// Training images by what the delivered weights make of them, where a tail trained.
    Index,
}

/// Is told what happens, and may stop it.
pub trait Observer {
    /// What is to come will take so much, where a trial could tell.
    fn estimate(&mut self, _: &Estimate) {}
    /// The run goes on where it was stopped: after these epochs, and so many batches of the next one.
    fn resumed(&mut self, _epochs: &[EpochRecord], _batches: usize) {}
    /// A phase of `total` images or epochs begins.
    fn begin(&mut self, phase: Phase, total: usize);
    /// So many images more are done with.
    fn images(&mut self, count: usize);
    /// An epoch is over.
    fn epoch(&mut self, phase: Phase, record: &EpochRecord);
    /// The phase is over.
    fn end(&mut self, phase: Phase);
    /// Whether to stop: before the first epoch nothing is kept, later the best so far.
    fn stop(&self) -> bool {
        false
    }
}

/// No display, no stop.
impl Observer for () {
    fn begin(&mut self, _: Phase, _: usize) {}
    fn images(&mut self, _: usize) {}
    fn epoch(&mut self, _: Phase, _: &EpochRecord) {}
    fn end(&mut self, _: Phase) {}
}

/// Where an image of the training split went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Name of the image.
    pub image: String,
    /// Its label.
    pub label: usize,
    /// Whether it was held out for validation.
    pub held_out: bool,
}

/// What fine-tuning makes.
#[derive(Debug)]
pub struct FineTuned {
    /// Names of the classes, in the order of the outputs.
    pub classes: Vec<String>,
    /// The new weights and how they came to be.
    pub trained: TrainedWeights,
    /// What the final weights reach on the test images.
    pub test: Option<Metrics>,
    /// What was said of validation images, or of those that were held out: by a head before it was trained on them too, or by the tail that
    /// is delivered. Of a run that went on after it was stopped it may be missing.
    pub judged: Option<Judged>,
    /// Where each training image went.
    pub assignments: Vec<Assignment>,
    /// What reading the images brought to light.
    pub findings: Findings,
    /// The training images, held-out ones among them, by their features in the delivered network: of a head as they were trained on, of a
    /// tail by one more pass over as many as an index holds, which a run that was stopped goes without.
    pub neighbours: Option<Index>,
}

impl FineTuned {
    /// Whether the weights were trained once more on all training images after they were measured.
    pub fn was_refitted(&self) -> bool {
        self.trained.stages.iter().any(|stage| stage.phase == Phase::Refit)
    }
}

/// What fine-tuning makes of a model.
#[derive(Debug)]
pub struct FineTunedModel {
    /// The new weights, and all that is known of them.
    pub tuned: FineTuned,
    /// The frozen trunk below the new head, as it was compiled; none of a tail that was stopped, where there is no test.
    pub trunk: Option<Trunk>,
}

impl FineTunedModel {
    /// The delivered network as a classifier, compiled already and as sure as its bundle, where there is a trunk; `model` is what was
    /// fine-tuned.
    ///
    /// # Errors
    /// If the head is not among the tensors, or the device has no room.
    pub fn classifier(&self, model: &Model) -> Result<Option<Classifier>> {
        let Some(trunk) = self.trunk.clone() else { return Ok(None) };
        let TrainedWeights { tensors, calibration, .. } = &self.tuned.trained;
        let temperature = calibration.as_ref().map_or(1.0, |calibration| calibration.temperature);
        let classifier = Classifier::with_trunk(model, trunk, tensors, self.tuned.classes.clone())?;
        Ok(Some(classifier.with_temperature(temperature)))
    }
}

/// What was said of images that were not learned from.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Index of each image in the validation split, or in the training split where there is none.
    pub images: Vec<usize>,
    /// Logits of the images, beside their labels.
    pub logits: LabelledLogits,
}

/// New weights and their history.
#[derive(Debug)]
pub struct TrainedWeights {
    /// Every tensor that training may have changed, running statistics included, under torchvision's names.
    pub tensors: BTreeMap<String, Tensor>,
    /// What followed from the settings.
    pub derived: Derived,
    /// What was trained, one after the other.
    pub stages: Vec<Stage>,
    /// What was measured on validation images; `None` without them.
    pub val: Option<Validation>,
    /// How sure they may be, measured on the same images; `None` also where a training was stopped before its first epoch.
    pub calibration: Option<Calibration>,
    /// Whether someone stopped the training; the weights are then the best so far.
    pub interrupted: bool,
}

/// Epochs of one phase.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Which.
    pub phase: Phase,
    /// Every epoch; never empty.
    pub epochs: Vec<EpochRecord>,
}

/// Rates where the settings left them out, and as they were given where not.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Derived {
    /// Those of the head, where one was trained on features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Rates>,
    /// Those of the tail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<Rates>,
}

/// What a training ran at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rates {
    /// The highest learning rate.
    pub lr: f64,
    /// Pull of the weights towards 0.
    pub weight_decay: f64,
}

impl Rates {
    fn of(lr: Option<f64>, weight_decay: Option<f64>) -> Rates {
        Rates { lr: lr.unwrap_or(0.0), weight_decay: weight_decay.unwrap_or(0.0) }
    }
}

/// How good weights were on images that they had not learned from, after as many epochs as those that are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Validation {
    /// Epochs before the measurement.
    pub epoch: usize,
    /// Accuracy, a fraction.
    pub top1: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Validation images.
    pub images: usize,
}

impl Validation {
    fn new(epoch: usize, Metrics { top1, loss, images, .. }: Metrics) -> Validation {
        Validation { epoch, top1, loss, images }
    }
}

/// What reading images brought to light, once for each image.
#[derive(Debug, Default)]
pub struct Findings {
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// What is worth knowing of images that were read: name and note. Where maps are found on disk nobody reads the images.
    pub notes: Vec<(String, Note)>,
    /// Names of images that are skipped, and of those that have notes: one may have notes and be skipped later.
    known: [BTreeSet<String>; 2],
}

impl Findings {
    /// Those of images that were read.
    pub fn new(skipped: Vec<Skipped>, notes: Vec<(String, Note)>) -> Findings {
        let mut findings = Findings::default();
        findings.add(skipped, notes);
        findings
    }

    fn append(&mut self, other: Findings) {
        self.add(other.skipped, other.notes);
    }

    /// Adds what was found of images, unless it was found before.
    fn add(&mut self, skipped: Vec<Skipped>, notes: Vec<(String, Note)>) {
        let [known, noted] = &mut self.known;
        let new: Vec<_> = skipped.into_iter().filter(|skipped| !known.contains(&skipped.name)).collect();
        let notes: Vec<_> = notes.into_iter().filter(|(name, _)| !noted.contains(name)).collect();
        known.extend(new.iter().map(|skipped| skipped.name.clone()));
        noted.extend(notes.iter().map(|(name, _)| name.clone()));
        self.skipped.extend(new);
        self.notes.extend(notes);
    }
}

/// Refuses classes of which none of the `kept` images is.
fn check_classes(images: &dyn LabelledImages, kept: &[usize], classes: &[String]) -> Result<()> {
    let present: BTreeSet<usize> = kept.iter().map(|&index| images.label(index)).collect();
    let empty = (0..classes.len()).find(|class| !present.contains(class));
    empty.map_or(Ok(()), |class| Err(Error::EmptyClass(classes[class].clone())))
}

fn assignments(images: &dyn LabelledImages, kept: &[usize], held_out: &[usize]) -> Vec<Assignment> {
    let held_out: BTreeSet<usize> = held_out.iter().copied().collect();
    let assignment = |&index: &usize| Assignment {
        image: images.name(index),
        label: images.label(index),
        held_out: held_out.contains(&index),
    };
    kept.iter().map(assignment).collect()
}
