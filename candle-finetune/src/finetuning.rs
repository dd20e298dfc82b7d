//! Fine-tuning from end to end: a model and a data set → a new head, with everything else frozen.
//!
//! Pretrained weights stay in the model's `VarMap`; the head has one of its own, and only that one trains. Each image, and
//! each augmented view of it, goes through the frozen trunk once, and every epoch trains on the features of all of them.

use std::ops::ControlFlow;

use candle_core::Tensor;
use candle_resnet::FeatureExtractor;
use candle_resnet::preprocess::{Note, Preprocessing};
use serde::{Deserialize, Serialize};

use crate::augment::Augmentation;
use crate::dataset;
use crate::error::{Error, Result};
use crate::extract::{Extracted, Skipped, Unreadable, Views, extract};
use crate::images::{LabelledImages, Splits};
use crate::train::{self, Ended, EpochRecord, FeatureSet, Head, HeadSettings, Metrics, Trained};

/// How to fine-tune.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// How the head is trained.
    pub head: HeadSettings,
    /// Part of the training images that is held out where there is no validation split, from 0 up and below 1.
    pub val_fraction: f64,
    /// Whether the head is trained once more on all training images, held-out ones included, once settings are chosen.
    pub refit: bool,
    /// Whether an image that cannot be read ends the run.
    pub strict: bool,
    /// Views of each training image that are trained on as well, made once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<Augmentation>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { head: HeadSettings::default(), val_fraction: 0.2, refit: true, strict: false, augmentation: None }
    }
}

/// A part of the run that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Features of the training images.
    TrainFeatures,
    /// Features of the validation images.
    ValFeatures,
    /// Features of the test images.
    TestFeatures,
    /// Epochs that are measured on the validation images.
    Fit,
    /// Epochs on all training images.
    Refit,
}

/// Is told what happens, and may stop it.
pub trait Observer {
    /// A phase of `total` images or epochs begins.
    fn begin(&mut self, phase: Phase, total: usize);
    /// So many images more went through the trunk.
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
    /// The new head and how it came to be.
    pub trained: TrainedHead,
    /// What the final head reaches on the test images.
    pub test: Option<Metrics>,
    /// Where each training image went.
    pub assignments: Vec<Assignment>,
    /// What reading the images brought to light.
    pub findings: Findings,
}

/// What reading images brought to light.
#[derive(Debug, Default)]
pub struct Findings {
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// What is worth knowing of images that were read: name and note.
    pub notes: Vec<(String, Note)>,
}

/// A trained `fc` and its history.
#[derive(Debug)]
pub struct TrainedHead {
    /// The new `fc`, on raw features.
    pub head: Head,
    /// The head's settings with derived values filled in.
    pub settings: HeadSettings,
    /// Epochs of the first training; measured on validation images where there are any.
    pub fit: Vec<EpochRecord>,
    /// Epochs of the last training on all training images; empty where there was none.
    pub refit: Vec<EpochRecord>,
    /// What was measured on validation images; `None` without them.
    pub val: Option<Validation>,
    /// Whether someone stopped the training; the head is then the best so far.
    pub interrupted: bool,
}

/// How good a head was on images that it had not learned from, after as many epochs as the one that is delivered.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// Trains a new head on the images of `splits`, above a frozen `trunk` that wants them prepared by `preprocessing`.
///
/// # Errors
/// Settings out of range, images that cannot be read where the settings are strict, a class that is left without
/// images, and [`Error::Interrupted`] if the observer stops the run before the first epoch.
pub fn fine_tune(
    trunk: &dyn FeatureExtractor,
    preprocessing: &Preprocessing,
    splits: &Splits<'_>,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<FineTuned> {
    settings.validate()?;
    let views = settings.views();
    let mut reader = Reader { trunk, preprocessing, strict: settings.strict, findings: Findings::default() };
    let train = reader.features(Phase::TrainFeatures, splits.train, views, observer)?;
    let val =
        splits.val.map(|images| reader.features(Phase::ValFeatures, images, Views::Plain, observer)).transpose()?;
    check_classes(&train, &splits.classes)?;
    let parts = Parts::divide(&train, val.as_ref(), splits.classes.len(), settings)?;
    let trained = parts.train(settings, observer)?;

    // Only now, when nothing is left to choose.
    let test = match splits.test.map(|images| reader.features(Phase::TestFeatures, images, Views::Plain, observer)) {
        None | Some(Err(Error::Interrupted)) => None,
        Some(test) => Some(evaluate(&trained.head, &test?)?),
    };
    Ok(FineTuned {
        classes: splits.classes.clone(),
        assignments: assignments(splits.train, &train, &parts.held_out),
        test,
        findings: reader.findings,
        trained,
    })
}

impl Settings {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<()> {
        self.head.validate()?;
        self.augmentation.as_ref().map_or(Ok(()), Augmentation::validate)?;
        if (0.0..1.0).contains(&self.val_fraction) { Ok(()) } else { Err(Error::ValFraction(self.val_fraction)) }
    }

    /// Views of the training images.
    fn views(&self) -> Views<'_> {
        match &self.augmentation {
            None => Views::Plain,
            Some(augmentation) => Views::Augmented { augmentation, seed: self.head.seed },
        }
    }
}

/// Labelled features of one split.
struct Part {
    features: Tensor, // (N, V, D)
    labels: Vec<u32>,
    /// Index of each image in its split.
    kept: Vec<usize>,
}

impl Part {
    fn set(&self, classes: usize) -> Result<FeatureSet> {
        Ok(FeatureSet::new(&self.features, self.labels.clone(), classes)?)
    }

    /// The images at `rows` with their first `views` views.
    fn select(&self, rows: &[usize], views: usize, classes: usize) -> Result<FeatureSet> {
        let indices: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let indices = Tensor::from_vec(indices, rows.len(), self.features.device())?;
        let features = self.features.index_select(&indices, 0)?.narrow(1, 0, views)?;
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        Ok(FeatureSet::new(&features, labels, classes)?)
    }
}

/// Sends splits through the trunk and keeps what is to be reported.
struct Reader<'a> {
    trunk: &'a dyn FeatureExtractor,
    preprocessing: &'a Preprocessing,
    strict: bool,
    findings: Findings,
}

impl Reader<'_> {
    fn features(
        &mut self,
        phase: Phase,
        images: &dyn LabelledImages,
        views: Views<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Part> {
        observer.begin(phase, images.len());
        let mut count = |count| {
            observer.images(count);
            if observer.stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let unreadable = Unreadable::strictly(self.strict);
        let extracted = extract(self.trunk, self.preprocessing, images, views, unreadable, &mut count);
        observer.end(phase);
        Ok(self.keep(extracted?, images))
    }

    fn keep(&mut self, extracted: Extracted, images: &dyn LabelledImages) -> Part {
        let Extracted { features, kept, skipped, notes } = extracted;
        self.findings.skipped.extend(skipped);
        self.findings.notes.extend(notes);
        let labels = kept.iter().map(|&index| images.label(index) as u32).collect();
        Part { features, labels, kept }
    }
}

/// Refuses classes that lost all their images.
fn check_classes(train: &Part, classes: &[String]) -> Result<()> {
    let empty = (0..classes.len()).find(|&class| !train.labels.contains(&(class as u32)));
    empty.map_or(Ok(()), |class| Err(Error::EmptyClass(classes[class].clone())))
}

/// What each step of the training sees.
struct Parts {
    /// Trains while settings are chosen.
    fit: FeatureSet,
    /// Chooses them.
    val: Option<FeatureSet>,
    /// All training images.
    all: FeatureSet,
    /// Rows of the training features that were held out.
    held_out: Vec<usize>,
}

impl Parts {
    fn divide(train: &Part, val: Option<&Part>, classes: usize, settings: &Settings) -> Result<Parts> {
        let all = train.set(classes)?;
        if let Some(val) = val {
            return Ok(Parts { fit: all.clone(), val: Some(val.set(classes)?), all, held_out: Vec::new() });
        }
        let labels: Vec<usize> = train.labels.iter().map(|&label| label as usize).collect();
        let (rest, held_out) = dataset::hold_out(&labels, classes, settings.val_fraction, settings.head.seed);
        if held_out.is_empty() {
            return Ok(Parts { fit: all.clone(), val: None, all, held_out });
        }
        let fit = train.select(&rest, all.views(), classes)?;
        let val = train.select(&held_out, 1, classes)?;
        Ok(Parts { fit, val: Some(val), all, held_out })
    }

    fn train(&self, settings: &Settings, observer: &mut dyn Observer) -> Result<TrainedHead> {
        let head = &settings.head;
        let Some(val) = &self.val else { return self.train_unmeasured(head, observer) };
        let fitted = run_epochs(Phase::Fit, head.epochs, observer, |o| train::fit(&self.fit, val, head, o))?;
        let stopped = fitted.ended == Ended::Observer;
        if stopped || !settings.refit || self.held_out.is_empty() {
            let epochs = fitted.best_epoch;
            return Ok(TrainedHead::fitted(fitted, epochs, val.images()));
        }
        let epochs = fitted.refit_epochs();
        let refitted = run_epochs(Phase::Refit, epochs, observer, |o| train::refit(&self.all, head, epochs, o))?;
        Ok(TrainedHead::refitted(fitted, refitted, val.images()))
    }

    /// Trains for all epochs where nothing can be measured.
    fn train_unmeasured(&self, head: &HeadSettings, observer: &mut dyn Observer) -> Result<TrainedHead> {
        if head.patience.is_some() {
            return Err(Error::PatienceWithoutValidation);
        }
        let epochs = head.epochs;
        let trained = run_epochs(Phase::Fit, epochs, observer, |o| train::refit(&self.all, head, epochs, o))?;
        Ok(TrainedHead::fitted(trained, epochs, 0))
    }
}

/// Tells the observer of every epoch that `training` runs.
fn run_epochs(
    phase: Phase,
    epochs: usize,
    observer: &mut dyn Observer,
    training: impl FnOnce(&mut train::Observer<'_>) -> train::Result<Trained>,
) -> Result<Trained> {
    observer.begin(phase, epochs);
    let trained = training(&mut |record| {
        observer.epoch(phase, record);
        if observer.stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    observer.end(phase);
    Ok(trained)
}

impl TrainedHead {
    /// The head of `fitted`, which was trained for `epochs` epochs.
    fn fitted(fitted: Trained, epochs: usize, val_images: usize) -> TrainedHead {
        TrainedHead {
            interrupted: fitted.ended == Ended::Observer,
            val: validation(&fitted.history, epochs, val_images),
            head: fitted.head,
            settings: fitted.settings,
            fit: fitted.history,
            refit: Vec::new(),
        }
    }

    /// The head of `refitted`, measured by what `fitted` was after as many epochs. A refit that was stopped is no better
    /// than what it started from.
    fn refitted(fitted: Trained, refitted: Trained, val_images: usize) -> TrainedHead {
        if refitted.ended == Ended::Observer {
            let epochs = fitted.best_epoch;
            return TrainedHead { interrupted: true, ..TrainedHead::fitted(fitted, epochs, val_images) };
        }
        let epochs = refitted.history.len();
        let base = TrainedHead::fitted(fitted, epochs, val_images);
        TrainedHead { head: refitted.head, settings: refitted.settings, refit: refitted.history, ..base }
    }
}

fn validation(history: &[EpochRecord], epoch: usize, images: usize) -> Option<Validation> {
    let record = history.iter().find(|record| record.epoch == epoch)?;
    Some(Validation { epoch, top1: record.val_top1?, loss: record.val_loss?, images })
}

fn evaluate(head: &Head, part: &Part) -> Result<Metrics> {
    let plain = part.features.narrow(1, 0, 1)?.squeeze(1)?; // (N, V, D) → (N, D)
    Ok(head.evaluate(&plain, &part.labels)?)
}

fn assignments(images: &dyn LabelledImages, train: &Part, held_out: &[usize]) -> Vec<Assignment> {
    let held_out: std::collections::BTreeSet<usize> = held_out.iter().copied().collect();
    let rows = train.kept.iter().enumerate();
    rows.map(|(row, &index)| Assignment {
        image: images.name(index),
        label: images.label(index),
        held_out: held_out.contains(&row),
    })
    .collect()
}
