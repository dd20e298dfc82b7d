//! A tail over epochs: steps, measuring, and keeping the best.
//!
//! What a step leaves out is a function of seed and step, as what it sees is one of seed and epoch: neither threads nor an
//! interruption can change them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::course::Course;
use super::resuming::{Journal, Moment};
use super::start::Start;
use super::{Findings, Judged, Observer, Phase, Validation, check_classes};
use crate::calibration::{Calibration, LabelledLogits};
use crate::error::{Error, Result};
use crate::halving::halved_where_memory_is_short;
use crate::images::LabelledImages;
use crate::maps::{MapBatch, Maps};
use crate::reading::Sight;
use crate::train::loss::Targets;
use crate::train::metrics::Tally;
use crate::train::tail::{Snapshot, TailTrainer};
use crate::train::{EpochRecord, TrainError, better};

/// Images of a split, and where what the tail is given of them comes from.
pub(super) struct Source<'a> {
    pub(super) maps: &'a dyn Maps,
    pub(super) images: &'a dyn LabelledImages,
    /// Those that count.
    pub(super) indices: Vec<usize>,
}

impl Source<'_> {
    /// Images of each class.
    pub(super) fn class_counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &index in &self.indices {
            if let Some(count) = counts.get_mut(self.images.label(index)) {
                *count += 1;
            }
        }
        counts
    }

    pub(super) fn labels(&self, sights: &[Sight]) -> Vec<u32> {
        sights.iter().map(|sight| self.images.label(sight.image) as u32).collect()
    }
}

/// How far a training has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Progress {
    /// Every epoch that is over.
    pub(super) history: Vec<EpochRecord>,
    /// The best weights so far, where there is something to measure them by.
    pub(super) best: Option<Best>,
    /// The epoch that is not over.
    current: Partial,
}

impl Progress {
    /// Batches of the epoch that is not over.
    pub(super) fn batches(&self) -> usize {
        self.current.batches
    }
}

/// Weights that were measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Best {
    pub(super) val: Validation,
    /// How sure they may be.
    calibration: Option<Calibration>,
    /// What they said; a run that was stopped does not remember.
    #[serde(skip)]
    judged: Option<Judged>,
    /// Copies, under torchvision's names.
    #[serde(skip)]
    pub(super) tensors: BTreeMap<String, Tensor>,
}

impl Best {
    /// Weights of which nothing but the measures is known.
    pub(super) fn unasked(val: Validation, tensors: BTreeMap<String, Tensor>) -> Best {
        Best { val, calibration: None, judged: None, tensors }
    }
}

/// A part of an epoch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Partial {
    /// Batches that are done.
    batches: usize,
    /// Sum of the loss over images.
    loss: f64,
    images: usize,
    lr: f64,
    seconds: f64,
}

/// What is left of a training that ended.
pub(super) struct Ended {
    /// Every epoch.
    pub(super) history: Vec<EpochRecord>,
    /// Weights as they are to be delivered.
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// What they were measured to be.
    pub(super) val: Option<Validation>,
    /// How sure they may be.
    pub(super) calibration: Option<Calibration>,
    /// What they said of the validation images, where it is known.
    pub(super) judged: Option<Judged>,
    pub(super) interrupted: bool,
}

/// A tail that trains.
pub(super) struct Run<'a> {
    pub(super) course: Course,
    pub(super) trainer: TailTrainer,
    pub(super) train: Source<'a>,
    pub(super) val: Option<Source<'a>>,
    /// What to deliver where the first epoch is not finished. It is no rival of later epochs: it was chosen from many.
    pub(super) fallback: Option<Best>,
    pub(super) progress: Progress,
    pub(super) start: &'a Start,
    /// Where checkpoints go.
    pub(super) journal: Option<Journal<'a>>,
    pub(super) findings: &'a mut Findings,
    pub(super) classes: &'a [String],
}

impl Run<'_> {
    /// Trains to the end, or until the observer stops or patience ends.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if there is nothing worth keeping yet, [`TrainError::Diverged`], and those of images and maps.
    pub(super) fn run(mut self, observer: &mut dyn Observer) -> Result<Ended> {
        observer.begin(Phase::Fit, self.course.settings.epochs);
        if self.progress.history.is_empty() && self.progress.batches() == 0 {
            self.write_checkpoint()?;
        }
        let mut stopped = false;
        while !stopped && self.progress.history.len() < self.course.settings.epochs && !self.is_out_of_patience() {
            observer.begin(Phase::Epoch, self.images_of_an_epoch());
            let record = self.epoch(observer)?;
            observer.end(Phase::Epoch);
            let Some(record) = record else {
                self.write_checkpoint()?;
                stopped = true;
                break;
            };
            self.progress.history.push(record);
            observer.epoch(Phase::Fit, &record);
            stopped = observer.stop();
            if stopped || self.journal.as_ref().is_some_and(Journal::is_worth_it) {
                self.write_checkpoint()?;
            }
        }
        observer.end(Phase::Fit);
        self.finish(stopped)
    }

    fn finish(self, interrupted: bool) -> Result<Ended> {
        let Progress { history, best, .. } = self.progress;
        let unlearned = history.is_empty();
        let ended = |tensors| Ended { history, tensors, val: None, calibration: None, judged: None, interrupted };
        match best.or(self.fallback.filter(|_| unlearned)) {
            Some(Best { val, calibration, judged, tensors }) => {
                Ok(Ended { val: Some(val), calibration, judged, ..ended(tensors) })
            }
            None if unlearned => Err(Error::Interrupted),
            None => Ok(ended(self.trainer.snapshot()?.tensors().clone())),
        }
    }

    fn images_of_an_epoch(&self) -> usize {
        self.course.images_seen() + self.val.as_ref().map_or(0, |val| val.indices.len())
    }

    fn is_out_of_patience(&self) -> bool {
        let best = self.progress.best.as_ref().map_or(0, |best| best.val.epoch);
        let waited = self.progress.history.len() - best;
        self.val.is_some() && self.course.settings.patience.is_some_and(|patience| waited >= patience)
    }

    /// What remains of an epoch, and what its weights reach; nothing if the observer stops it.
    fn epoch(&mut self, observer: &mut dyn Observer) -> Result<Option<EpochRecord>> {
        let epoch = self.progress.history.len() + 1;
        if self.train_epoch(epoch, observer)?.is_break() {
            return Ok(None);
        }
        let Partial { loss, images, lr, seconds, .. } = self.progress.current;
        self.check_read(images)?;
        let start = Instant::now();
        let mut record = EpochRecord {
            epoch,
            lr,
            train_loss: loss / images as f64,
            train_top1: None,
            val_loss: None,
            val_top1: None,
            seconds,
        };
        if self.val.is_some() {
            let Some(val) = self.measure(epoch, observer)? else { return Ok(None) };
            (record.val_loss, record.val_top1) = (Some(val.loss), Some(val.top1));
        }
        record.seconds += start.elapsed().as_secs_f64();
        self.progress.current = Partial::default();
        Ok(Some(record))
    }

    /// Refuses a class, or all of them, none of whose images could be read, once an epoch of `images` images is over.
    fn check_read(&mut self, images: usize) -> Result<()> {
        if images == 0 {
            return Err(Error::NoImages { skipped: std::mem::take(&mut self.findings.skipped) });
        }
        if self.findings.skipped.is_empty() {
            return Ok(());
        }
        let skipped: BTreeSet<&str> = self.findings.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
        let read = |&&index: &&usize| !skipped.contains(self.train.images.name(index).as_str());
        let read: Vec<usize> = self.train.indices.iter().filter(read).copied().collect();
        check_classes(self.train.images, &read, self.classes)
    }

    /// The steps of an epoch that are still to do.
    fn train_epoch(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<ControlFlow<()>> {
        let (schedule, course) = (self.course.schedule(), &self.course);
        let mut batches = course.batches_of(epoch, &self.train.indices);
        batches.drain(..self.progress.batches());
        let (trainer, train, classes) = (&mut self.trainer, &self.train, self.classes.len());
        let (progress, findings) = (&mut self.progress, &mut *self.findings);
        let (start, before) = (Instant::now(), progress.current.seconds);
        train.maps.each(batches, &mut |MapBatch { maps, sights, skipped, notes }| {
            let current = &mut progress.current;
            let batch = current.batches;
            current.batches += 1;
            current.lr = schedule.at(course.step_of(epoch, batch));
            if let Some(maps) = maps {
                let loss = add(trainer, (course, epoch, batch), &maps, &train.labels(&sights), classes)?;
                if !loss.is_finite() {
                    return Err(TrainError::Diverged { loss, epoch, step: current.batches, lr: current.lr }.into());
                }
                current.loss += loss * sights.len() as f64;
                current.images += sights.len();
            }
            let ends_step = course.ends_step(batch);
            if ends_step {
                trainer.apply(current.lr)?;
            }
            current.seconds = before + start.elapsed().as_secs_f64();
            observer.images(sights.len() + skipped.len());
            findings.add(skipped, notes);
            if let Some(journal) = self.journal.as_mut().filter(|journal| ends_step && journal.is_due()) {
                journal.write(Moment { start: self.start, progress, trainer, findings })?;
            }
            // Within a step nothing can be saved.
            Ok(if ends_step && observer.stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    fn write_checkpoint(&mut self) -> Result<()> {
        let Run { start, progress, trainer, findings, journal, .. } = self;
        match journal {
            Some(journal) => journal.write(Moment { start, progress, trainer, findings }),
            None => Ok(()),
        }
    }

    /// Measures the tail as it is after `epoch` and keeps it if it is the best; nothing if the observer stops.
    fn measure(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<Option<Validation>> {
        let Some(val) = &self.val else { return Ok(None) };
        let tail = self.trainer.snapshot()?;
        let form = (&mut self.trainer, &tail);
        let Some(measured) = measured(form, val, self.course.settings.batch_size, self.findings, observer)? else {
            return Ok(None);
        };
        let val = Validation::new(epoch, measured.tally.metrics());
        if self.progress.best.as_ref().is_none_or(|best| better((val.top1, val.loss), (best.val.top1, best.val.loss))) {
            let calibration = Some(Calibration::fit(&measured.judged.logits));
            let (judged, tensors) = (Some(measured.judged), tail.tensors().clone());
            self.progress.best = Some(Best { val, calibration, judged, tensors });
        }
        Ok(Some(val))
    }
}

/// Adds the batch `batch` of an epoch to the trainer's next step, mixed where it is to be; gives its loss.
pub(super) fn add(
    trainer: &mut TailTrainer,
    (course, epoch, batch): (&Course, usize, usize),
    maps: &Tensor,
    labels: &[u32],
    classes: usize,
) -> Result<f64> {
    trainer.at_step(((epoch - 1) * course.batches() + batch) as u64);
    let (_, _, height, width) = maps.dims4()?;
    let Some(mix) = course.mix(epoch, batch, (height, width)) else {
        return Ok(trainer.add(maps, Targets::Labels(labels))?);
    };
    let targets = mix.targets(labels, classes, maps.device())?;
    Ok(trainer.add(&mix.images(maps)?, Targets::Probabilities(&targets))?)
}

/// What a tail says of validation images.
#[derive(Default)]
struct Measured {
    tally: Tally,
    judged: Judged,
}

/// Asks `tail`, which `trainer` trains, about the images of `source` as they are; nothing if the observer stops.
fn measured(
    (trainer, tail): (&mut TailTrainer, &Snapshot),
    source: &Source<'_>,
    batch_size: usize,
    findings: &mut Findings,
    observer: &mut dyn Observer,
) -> Result<Option<Measured>> {
    let plain = |images: &[usize]| images.iter().map(|&image| Sight::plain(image)).collect();
    let batches = source.indices.chunks(batch_size).map(plain).collect();
    let mut measured = Measured::default();
    let flow = source.maps.each(batches, &mut |MapBatch { maps, sights, skipped, notes }| {
        if let Some(maps) = maps {
            let labels = source.labels(&sights);
            let logits = halved_where_memory_is_short(&maps, &mut |maps| trainer.logits(tail, maps))?;
            measured.tally.add(&logits, &labels)?;
            measured.judged.images.extend(sights.iter().map(|sight| sight.image));
            measured.judged.logits.append(LabelledLogits::new(&logits, &labels)?);
        }
        observer.images(sights.len() + skipped.len());
        findings.add(skipped, notes);
        Ok(if observer.stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(flow.is_continue().then_some(measured))
}
