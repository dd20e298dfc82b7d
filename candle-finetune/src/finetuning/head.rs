//! A new `fc` on features, with everything else frozen: the tutorial's case, and the start of a tail.

use std::ops::ControlFlow;

use candle_core::Tensor;
use candle_resnet::FeatureExtractor;
use candle_resnet::preprocess::Preprocessing;

use super::{
    Derived, Findings, FineTuned, Judged, Observer, Phase, RangeTested, Rates, Settings, Stage, TrainedWeights,
    Validation, assignments, check_classes,
};
use crate::augment::{Augmentation, ViewCount};
use crate::calibration::{Calibration, LabelledLogits};
use crate::dataset;
use crate::error::{Error, Result};
use crate::extract::{ExtractObserver, Extracted, Views, extract};
use crate::images::{LabelledImages, Splits};
use crate::maps::Onward;
use crate::neighbours::{Chosen, Index, Known};
use crate::reading::Unreadable;
use crate::train::range_test::RangeTest;
use crate::train::{self, Ended, EpochRecord, FeatureSet, Head, HeadSettings, Metrics, Trained};

/// Trains a new head on the images of `splits`, above a frozen `trunk` that wants them prepared by `preprocessing`.
///
/// # Errors
/// Settings out of range or of a tail, images that cannot be read where the settings are strict, a class that is left without
/// images, and [`Error::Interrupted`] if the observer stops the run before the first epoch.
pub fn fine_tune(
    trunk: &dyn FeatureExtractor,
    preprocessing: &Preprocessing,
    splits: &Splits<'_>,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<FineTuned> {
    settings.validate()?;
    if settings.tail.is_some() {
        return Err(Error::TailWithoutModel);
    }
    let views = settings.views();
    let mut reader = Reader { trunk, preprocessing, strict: settings.strict, findings: Findings::default() };
    let train = reader.features(Phase::TrainFeatures, splits.train, views, observer)?;
    let val =
        splits.val.map(|images| reader.features(Phase::ValFeatures, images, Views::Plain, observer)).transpose()?;
    check_classes(splits.train, &train.kept, &splits.classes)?;
    let parts = Parts::divide(&train, val.as_ref(), splits.classes.len(), settings)?;
    let mut trained = parts.train(settings, observer)?;
    let held_out = parts.held_out(&train);
    let calibration = trained.judged.as_ref().map(Calibration::fit);
    // Only now, when nothing is left to choose.
    let test = reader.test(&trained.head, splits, observer)?;
    Ok(FineTuned {
        classes: splits.classes.clone(),
        assignments: assignments(splits.train, &train.kept, &held_out),
        test,
        judged: trained.judged.take().map(|logits| Judged { images: val.map_or(held_out, |val| val.kept), logits }),
        findings: reader.findings,
        neighbours: Some(train.index(splits)?),
        trained: trained.into_weights(calibration)?,
    })
}

/// The first steps of that training, at rates that rise.
pub(super) fn range_test(
    trunk: &dyn FeatureExtractor,
    preprocessing: &Preprocessing,
    splits: &Splits<'_>,
    settings: &Settings,
    test: RangeTest,
    observer: &mut dyn Observer,
) -> Result<RangeTested> {
    let mut reader = Reader { trunk, preprocessing, strict: settings.strict, findings: Findings::default() };
    let train = reader.features(Phase::TrainFeatures, splits.train, settings.views(), observer)?;
    check_classes(splits.train, &train.kept, &splits.classes)?;
    let classes = splits.classes.len();
    let fit = match splits.val {
        Some(_) => train.set(classes)?,
        None => train.select(&train.hold_out(classes, settings).0, train.views()?, classes)?,
    };
    Ok(RangeTested { curve: train::range_test_head(&fit, &settings.head, test)?, findings: reader.findings })
}

impl Settings {
    /// Views of the training images.
    fn views(&self) -> Views<'_> {
        match &self.augmentation {
            Some(Augmentation { policy, views: ViewCount::Kept(count) }) => {
                Views::Augmented { policy, count: *count, seed: self.head.seed }
            }
            _ => Views::Plain,
        }
    }
}

/// Labelled features of one split.
pub(super) struct Part {
    features: Tensor, // (N, V, D)
    labels: Vec<u32>,
    /// Index of each image in its split.
    pub(super) kept: Vec<usize>,
}

impl Part {
    fn set(&self, classes: usize) -> Result<FeatureSet> {
        Ok(FeatureSet::new(&self.features, self.labels.clone(), classes)?)
    }

    /// The images of `splits` to train on, of which these are the features.
    fn index(&self, splits: &Splits<'_>) -> Result<Index> {
        let images = self.kept.iter().map(|&index| Known::of(splits.train, index)).collect();
        Index::new(&self.plain()?, images, splits.classes.clone())
    }

    /// The plain view of each image, (N, D).
    fn plain(&self) -> Result<Tensor> {
        Ok(self.features.narrow(1, 0, 1)?.squeeze(1)?)
    }

    /// Views of each image.
    fn views(&self) -> Result<usize> {
        Ok(self.features.dim(1)?)
    }

    /// Rows of the images to train on, and of those that are held out.
    fn hold_out(&self, classes: usize, settings: &Settings) -> (Vec<usize>, Vec<usize>) {
        let labels: Vec<usize> = self.labels.iter().map(|&label| label as usize).collect();
        dataset::hold_out(&labels, classes, settings.val_fraction, settings.head.seed)
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
pub(super) struct Reader<'a> {
    pub(super) trunk: &'a dyn FeatureExtractor,
    pub(super) preprocessing: &'a Preprocessing,
    pub(super) strict: bool,
    pub(super) findings: Findings,
}

impl Reader<'_> {
    pub(super) fn features(
        &mut self,
        phase: Phase,
        images: &dyn LabelledImages,
        views: Views<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Part> {
        let unreadable = Unreadable::strictly(self.strict);
        let extracted = counted((phase, images.len()), observer, |count| {
            extract(self.trunk, self.preprocessing, images, views, unreadable, count)
        });
        Ok(self.keep(extracted?, images))
    }

    /// Features of all `images` as they are, whose maps go `onward`.
    pub(super) fn features_of_maps(
        &mut self,
        phase: Phase,
        images: &dyn LabelledImages,
        onward: Onward<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Part> {
        let all: Vec<usize> = (0..images.len()).collect();
        let unreadable = Unreadable::strictly(self.strict);
        let extracted = counted((phase, all.len()), observer, |count| onward.extract(images, &all, unreadable, count));
        Ok(self.keep(extracted?, images))
    }

    /// The training images by their features, or as many as an index holds, of their maps where these are kept; nothing where somebody
    /// stops, none can be read any more, or one cannot where that is fatal: that costs no training that is over.
    pub(super) fn index(
        &mut self,
        splits: &Splits<'_>,
        onward: Option<Onward<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Index>> {
        let chosen = Chosen::of(splits.train, self.trunk.feature_width());
        let (eye, classes) = ((self.trunk, self.preprocessing), splits.classes.clone());
        let indexed = counted((Phase::Index, chosen.len()), observer, |count| match onward {
            Some(onward) => {
                let extracted = onward.extract(&chosen, chosen.indices(), Unreadable::Skipped, count)?;
                Index::of_extracted(extracted, &chosen, classes)
            }
            None => Index::extract(eye, &chosen, classes, Unreadable::Skipped, count),
        });
        match indexed {
            Ok((index, findings)) => {
                self.findings.append(findings);
                Ok(Some(index))
            }
            Err(Error::Interrupted) => Ok(None),
            Err(Error::NoImages { skipped }) => {
                self.findings.add(skipped, Vec::new());
                Ok(None)
            }
            Err(Error::Strict(skipped)) => {
                self.findings.add(vec![skipped], Vec::new());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How well `head` does on the test images, where there are any and nobody stops.
    pub(super) fn test(
        &mut self,
        head: &Head,
        splits: &Splits<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Metrics>> {
        match splits.test.map(|images| self.features(Phase::TestFeatures, images, Views::Plain, observer)) {
            None | Some(Err(Error::Interrupted)) => Ok(None),
            Some(test) => Ok(Some(evaluate(head, &test?)?)),
        }
    }

    fn keep(&mut self, extracted: Extracted, images: &dyn LabelledImages) -> Part {
        let Extracted { features, kept, skipped, notes } = extracted;
        self.findings.add(skipped, notes);
        let labels = kept.iter().map(|&index| images.label(index) as u32).collect();
        Part { features, labels, kept }
    }
}

/// Tells the observer of every image that `pass` has done with.
fn counted<T>(
    (phase, images): (Phase, usize),
    observer: &mut dyn Observer,
    pass: impl FnOnce(&mut ExtractObserver<'_>) -> T,
) -> T {
    observer.begin(phase, images);
    let result = pass(&mut |count| {
        observer.images(count);
        if observer.stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    observer.end(phase);
    result
}

/// What each step of the training sees.
pub(super) struct Parts {
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
    pub(super) fn divide(train: &Part, val: Option<&Part>, classes: usize, settings: &Settings) -> Result<Parts> {
        let all = train.set(classes)?;
        if let Some(val) = val {
            return Ok(Parts { fit: all.clone(), val: Some(val.set(classes)?), all, held_out: Vec::new() });
        }
        let (rest, held_out) = train.hold_out(classes, settings);
        if held_out.is_empty() {
            return Ok(Parts { fit: all.clone(), val: None, all, held_out });
        }
        let fit = train.select(&rest, train.views()?, classes)?;
        let val = train.select(&held_out, 1, classes)?;
        Ok(Parts { fit, val: Some(val), all, held_out })
    }

    /// Index of each held-out image in its split, of which `train` are the features.
    pub(super) fn held_out(&self, train: &Part) -> Vec<usize> {
        self.held_out.iter().map(|&row| train.kept[row]).collect()
    }

    /// Trains a head as it is to be delivered.
    fn train(&self, settings: &Settings, observer: &mut dyn Observer) -> Result<TrainedHead> {
        let head = &settings.head;
        let fitted = self.fit(Phase::Fit, head, observer)?;
        let stopped = fitted.ended == Ended::Observer;
        if stopped || !settings.refit || self.held_out.is_empty() {
            let judged = self.judged(&fitted, fitted.best_epoch)?;
            return Ok(TrainedHead { judged, ..TrainedHead::fitted(fitted, self.val_images()) });
        }
        let epochs = fitted.refit_epochs();
        let judged = self.judged(&fitted, epochs)?;
        let refitted = run_epochs(Phase::Refit, epochs, observer, |o| train::refit(&self.all, head, epochs, o))?;
        Ok(TrainedHead { judged, ..TrainedHead::refitted(fitted, refitted, self.val_images()) })
    }

    /// What the head that was fitted in so many epochs says of the validation images, where there are any.
    fn judged(&self, fitted: &Trained, epochs: usize) -> Result<Option<LabelledLogits>> {
        let Some((val, head)) = self.val.as_ref().zip(fitted.head_after(epochs)) else { return Ok(None) };
        Ok(Some(LabelledLogits::new(&head.logits(&val.plain()?)?, val.labels())?))
    }

    /// Trains a head that is never asked about what is held out, for all epochs where nothing can be measured.
    pub(super) fn fit(&self, phase: Phase, head: &HeadSettings, observer: &mut dyn Observer) -> Result<Trained> {
        let epochs = head.epochs;
        if let Some(val) = &self.val {
            return run_epochs(phase, epochs, observer, |o| train::fit(&self.fit, val, head, o));
        }
        if head.patience.is_some() {
            return Err(Error::PatienceWithoutValidation);
        }
        run_epochs(phase, epochs, observer, |o| train::refit(&self.all, head, epochs, o))
    }

    pub(super) fn val_images(&self) -> usize {
        self.val.as_ref().map_or(0, FeatureSet::images)
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

/// A trained `fc` and its history.
struct TrainedHead {
    head: Head,
    /// The head's settings with derived values filled in.
    settings: HeadSettings,
    /// Epochs of the first training; measured on validation images where there are any.
    fit: Vec<EpochRecord>,
    /// Epochs of the last training on all training images; empty where there was none.
    refit: Vec<EpochRecord>,
    val: Option<Validation>,
    /// What `val` was measured by.
    judged: Option<LabelledLogits>,
    interrupted: bool,
}

impl TrainedHead {
    fn fitted(fitted: Trained, val_images: usize) -> TrainedHead {
        let epochs = fitted.best_epoch;
        TrainedHead::measured_after(epochs, fitted, val_images)
    }

    /// The head of `fitted`, measured by what it was after so many epochs.
    fn measured_after(epochs: usize, fitted: Trained, val_images: usize) -> TrainedHead {
        TrainedHead {
            interrupted: fitted.ended == Ended::Observer,
            val: validation(&fitted.history, epochs, val_images),
            head: fitted.head,
            settings: fitted.settings,
            fit: fitted.history,
            refit: Vec::new(),
            judged: None,
        }
    }

    /// The head of `refitted`, measured by what `fitted` was after as many epochs. A refit that was stopped is no better
    /// than what it started from.
    fn refitted(fitted: Trained, refitted: Trained, val_images: usize) -> TrainedHead {
        if refitted.ended == Ended::Observer {
            return TrainedHead { interrupted: true, ..TrainedHead::fitted(fitted, val_images) };
        }
        let base = TrainedHead::measured_after(refitted.history.len(), fitted, val_images);
        TrainedHead { head: refitted.head, settings: refitted.settings, refit: refitted.history, ..base }
    }

    fn into_weights(self, calibration: Option<Calibration>) -> Result<TrainedWeights> {
        let stages = [(Phase::Fit, self.fit), (Phase::Refit, self.refit)];
        let stages = stages.into_iter().filter(|(_, epochs)| !epochs.is_empty());
        Ok(TrainedWeights {
            tensors: candle_resnet::weights::tensors(self.head.var_map())?,
            derived: Derived { head: Some(Rates::of(self.settings.lr, self.settings.weight_decay)), tail: None },
            stages: stages.map(|(phase, epochs)| Stage { phase, epochs }).collect(),
            val: self.val,
            calibration,
            interrupted: self.interrupted,
        })
    }
}

pub(super) fn validation(history: &[EpochRecord], epoch: usize, images: usize) -> Option<Validation> {
    let record = history.iter().find(|record| record.epoch == epoch)?;
    Some(Validation { epoch, top1: record.val_top1?, loss: record.val_loss?, images })
}

fn evaluate(head: &Head, part: &Part) -> Result<Metrics> {
    Ok(head.evaluate(&part.plain()?, &part.labels)?)
}
