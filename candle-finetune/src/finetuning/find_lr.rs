//! A learning-rate range test of the training that settings describe: its first steps, at rates that rise.
//!
//! Starts from what that training starts from and takes its images in its order; keeps nothing of what it learns.

use std::ops::ControlFlow;

use candle_resnet::Model;

use super::course::Course;
use super::epochs::{Source, add};
use super::tail::{Frozen, Unfreezing};
use super::{Findings, Machine, Observer, Phase, Settings, head};
use crate::error::{Error, Result};
use crate::images::Splits;
use crate::maps::MapBatch;
use crate::train::TrainError;
use crate::train::range_test::{Curve, RangeTest, Sweep};
use crate::train::tail::TailTrainer;

/// What a range test shows.
#[derive(Debug)]
pub struct RangeTested {
    /// The losses; [`Curve::valley`] proposes a rate.
    pub curve: Curve,
    /// What reading the images brought to light.
    pub findings: Findings,
}

/// Runs a range test of what [`fine_tune_model`](super::fine_tune_model) would train; `model` stays as it is.
///
/// What decides the training decides the losses: settings, weights, images, and neither threads nor time. The learning rate, the
/// schedule and the number of epochs among the settings count for nothing. Checkpoints are neither read nor written.
///
/// # Errors
/// As `fine_tune_model`; settings of the test out of range; [`Error::Interrupted`] if the observer stops it;
/// [`TrainError::NonFiniteStart`](crate::train::TrainError::NonFiniteStart).
pub fn find_lr(
    model: &Model,
    machine: Machine<'_>,
    splits: &Splits<'_>,
    settings: &Settings,
    test: RangeTest,
    observer: &mut dyn Observer,
) -> Result<RangeTested> {
    settings.validate()?;
    let machine = Machine { checkpoints: None, ..machine };
    let sweep = Sweep::new(test)?;
    match &settings.tail {
        None => {
            let trunk = Frozen::new(model, machine).trunk(None)?;
            head::range_test(&trunk, &model.preprocessing, splits, settings, test, observer)
        }
        Some(tail) => Unfreezing::new(model, machine, splits, (settings, tail))?.range_test(sweep, observer),
    }
}

impl Unfreezing<'_> {
    fn range_test(&self, sweep: Sweep, observer: &mut dyn Observer) -> Result<RangeTested> {
        let architecture = &self.frozen.model.architecture;
        let first = self.tail.train_from.part(architecture)?;
        let entry = first.entry(architecture);
        let needs_trunk = self.tail.head_first || entry.is_some();
        let trunk = needs_trunk.then(|| self.frozen.trunk(None)).transpose()?;
        let below = trunk.clone().zip(entry);
        let mut findings = Findings::default();
        // The features of a head are made of the maps of all images.
        let kept = below.as_ref().filter(|_| self.tail.head_first);
        let plain = self.plain_maps(first, kept, (&mut findings, observer))?;
        let features = trunk.filter(|_| self.tail.head_first);
        let start = self.start(self.draw_head()?, features, plain.as_ref(), (&mut findings, observer))?;
        if start.fitted.as_ref().is_some_and(|fitted| fitted.interrupted) {
            return Err(Error::Interrupted);
        }
        let fit = start.fit();
        let course = self.course(&fit);
        let viewed;
        let maps = match &plain {
            Some(plain) => plain.sources.train(),
            None => {
                // Maps are worth keeping if all of them are asked for.
                let sees_all = sweep.left() >= course.steps();
                let place = if sees_all { self.place(first, below.as_ref())? } else { None };
                let (split, sights) = ((self.splits.train, below.as_ref()), course.all_sights(&fit));
                viewed = self.source(split, place.as_ref(), sights, (&mut findings, &mut *observer))?;
                &*viewed
            }
        };
        let train = Source { maps, images: self.splits.train, indices: fit };
        let trainer = self.trainer(first, &start.head, &train)?;
        Test { course, trainer, train, sweep, findings, classes: self.splits.classes.len() }.run(observer)
    }
}

/// A test of a tail.
struct Test<'a> {
    course: Course,
    trainer: TailTrainer,
    train: Source<'a>,
    sweep: Sweep,
    findings: Findings,
    classes: usize,
}

impl Test<'_> {
    fn run(mut self, observer: &mut dyn Observer) -> Result<RangeTested> {
        observer.begin(Phase::RangeTest, self.images());
        let mut epoch = 1;
        while self.epoch(epoch, observer)?.is_continue() {
            epoch += 1;
        }
        observer.end(Phase::RangeTest);
        Ok(RangeTested { curve: self.sweep.into_curve(), findings: self.findings })
    }

    /// Images that all steps see.
    fn images(&self) -> usize {
        let (steps, of_epoch) = (self.sweep.left(), self.course.steps());
        let of_step = self.course.settings.batch_size * self.course.settings.accumulate;
        let last = (steps % of_epoch * of_step).min(self.course.images_seen());
        steps / of_epoch * self.course.images_seen() + last
    }

    /// Steps of one epoch, as many as are left.
    fn epoch(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<ControlFlow<()>> {
        let Test { course, trainer, train, sweep, findings, classes } = self;
        let before = sweep.left();
        let mut batches = course.batches_of(epoch, &train.indices);
        batches.truncate(before.saturating_mul(course.settings.accumulate));
        let (mut batch, mut step) = (0, Mean::default());
        let flow = train.maps.each(batches, &mut |MapBatch { maps, sights, skipped, notes }| {
            if let Some(maps) = maps {
                let loss = add(trainer, (course, epoch, batch), &maps, &train.labels(&sights), *classes)?;
                step.add(loss, sights.len());
            }
            if course.ends_step(batch) {
                take_step(trainer, sweep, std::mem::take(&mut step))?;
            }
            batch += 1;
            observer.images(sights.len() + skipped.len());
            findings.add(skipped, notes);
            if observer.stop() {
                return Err(Error::Interrupted);
            }
            Ok(if sweep.left() > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if sweep.left() == before {
            return Err(Error::NoImages { skipped: std::mem::take(&mut findings.skipped) });
        }
        Ok(flow)
    }
}

/// The mean loss of a step's images.
#[derive(Default)]
struct Mean {
    sum: f64,
    images: usize,
}

impl Mean {
    fn add(&mut self, loss: f64, images: usize) {
        self.sum += loss * images as f64;
        self.images += images;
    }
}

/// Records a step and takes it, unless none of its images could be read.
fn take_step(trainer: &mut TailTrainer, sweep: &mut Sweep, Mean { sum, images }: Mean) -> Result<()> {
    let Some(lr) = sweep.rate().filter(|_| images > 0) else { return Ok(()) };
    sweep.record(sum / images as f64)?;
    match trainer.apply(lr) {
        Err(TrainError::NonFiniteGradient { .. } | TrainError::BeyondF16) => sweep.end(),
        taken => taken?,
    }
    Ok(())
}
