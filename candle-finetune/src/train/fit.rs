//! Minibatch training of a head over epochs, with validation, early stop and refit.
//!
//! Neither reads files nor prints: each epoch is told to an observer, which may end the run.

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::Tensor;
use candle_resnet::dropout::Dropout;
use serde::{Deserialize, Serialize};

use super::error::{Result, TrainError};
use super::features::FeatureSet;
use super::gradients::Gradients;
use super::head::Head;
use super::loss::CrossEntropy;
use super::metrics::{Metrics, Tally};
use super::optimizer::{Optimizer, parameters};
use super::range_test::{Curve, RangeTest, Sweep};
use super::schedule::Schedule;
use super::settings::{HeadSettings, check_epochs};
use super::standardise::Standardiser;
use crate::random::shuffled;

/// What happened in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: usize,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Mean of the loss that was minimised (smoothed and weighted) over the training views, each before its step.
    pub train_loss: f64,
    /// Accuracy on the training views, each before its step; none where a tail trains.
    pub train_top1: Option<f64>,
    /// Plain cross-entropy on the validation images afterwards; none in a refit.
    pub val_loss: Option<f64>,
    /// Accuracy on the validation images afterwards; none in a refit.
    pub val_top1: Option<f64>,
    /// Wall time, validation included.
    pub seconds: f64,
}

/// Sees every epoch; [`ControlFlow::Break`] ends the run and keeps the best so far.
pub type Observer<'a> = dyn FnMut(&EpochRecord) -> ControlFlow<()> + 'a;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// The validation accuracy did not improve any more.
    Patience,
    /// The observer said so.
    Observer,
}

/// A trained head and how it came to be.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Takes raw features; that of the best epoch, or in a refit of the last.
    pub head: Head,
    /// The same as the last epoch left it.
    pub last: Head,
    /// Every epoch, in order; never empty.
    pub history: Vec<EpochRecord>,
    /// The epoch that `head` comes from, counted from 1.
    pub best_epoch: usize,
    /// The settings with derived values filled in.
    pub settings: HeadSettings,
    /// Why it ended.
    pub ended: Ended,
}

impl Trained {
    /// The record of the epoch that the head comes from.
    pub fn best(&self) -> &EpochRecord {
        &self.history[self.best_epoch - 1]
    }

    /// For how many epochs a refit should run: all of them, as the last ones at a low learning rate are the best; but if
    /// patience ended the run, as more epochs did harm, no more than the best.
    pub fn refit_epochs(&self) -> usize {
        match self.ended {
            Ended::Finished => self.settings.epochs,
            Ended::Patience | Ended::Observer => self.best_epoch,
        }
    }

    /// The head after so many epochs, where it is known: that of the best epoch, or of the last.
    pub fn head_after(&self, epochs: usize) -> Option<&Head> {
        match epochs {
            _ if epochs == self.best_epoch => Some(&self.head),
            _ if epochs == self.history.len() => Some(&self.last),
            _ => None,
        }
    }
}

/// Trains on every view of `train`, and keeps the head of the epoch that is best on the first views of `val`.
///
/// Best is the highest accuracy, then the lowest loss, then the earliest. Equal arguments give identical bits, whatever
/// the number of threads.
///
/// # Errors
/// Settings out of range, sets that are empty or do not go together, [`TrainError::Diverged`].
pub fn fit(
    train: &FeatureSet,
    val: &FeatureSet,
    settings: &HeadSettings,
    observer: &mut Observer<'_>,
) -> Result<Trained> {
    train.check_compatible(val)?;
    check_not_empty(val, "validate")?;
    let validation = Validation { features: val.plain()?, labels: val.labels() };
    Run::new(train, settings)?.train(settings.epochs, Some(&validation), observer)
}

/// Trains on every view of `all` for `epochs` epochs of the schedule that `settings` describe, without validation.
///
/// Meant for all training images once [`fit`] has shown on a part of them that the settings are good; see
/// [`Trained::refit_epochs`]. Beyond `settings.epochs` a learning rate that falls to 0 stays there.
///
/// # Errors
/// As [`fit`].
pub fn refit(all: &FeatureSet, settings: &HeadSettings, epochs: usize, observer: &mut Observer<'_>) -> Result<Trained> {
    check_epochs(epochs)?;
    Run::new(all, settings)?.train(epochs, None, observer)
}

/// The steps that [`fit`] would begin with, at the rates of a range test.
///
/// # Errors
/// As [`fit`], but that a loss which leaves the range of numbers ends the test; and as [`RangeTest::validate`].
pub fn range_test_head(train: &FeatureSet, settings: &HeadSettings, test: RangeTest) -> Result<Curve> {
    let mut sweep = Sweep::new(test)?;
    Run::new(train, settings)?.sweep(&mut sweep)?;
    Ok(sweep.into_curve())
}

fn check_not_empty(set: &FeatureSet, purpose: &'static str) -> Result<()> {
    if set.images() == 0 || set.classes() == 0 || set.dimensions() == 0 {
        return Err(TrainError::Empty { purpose });
    }
    Ok(())
}

struct Validation<'a> {
    features: Tensor,
    labels: &'a [u32],
}

/// The epoch whose head did best on the validation images so far; none before the first.
#[derive(Default)]
struct Best(Option<(usize, Head, Metrics)>);

impl Best {
    /// Takes `head` if it is better, by accuracy and then by loss, than what is kept.
    fn offer(&mut self, epoch: usize, head: Head, metrics: Metrics) {
        let result = |metrics: &Metrics| (metrics.top1, metrics.loss);
        let is_better = |(_, _, kept): &(usize, Head, Metrics)| better(result(&metrics), result(kept));
        if self.0.as_ref().is_none_or(is_better) {
            self.0 = Some((epoch, head, metrics));
        }
    }

    /// Epochs since the best one.
    fn age(&self, epoch: usize) -> usize {
        self.0.as_ref().map_or(0, |(best, ..)| epoch - best)
    }
}

/// Whether one validation result, accuracy and loss, is better than another; a loss that is not a number is never better.
pub(crate) fn better((top1, loss): (f64, f64), (other_top1, other_loss): (f64, f64)) -> bool {
    top1 > other_top1 || (top1 == other_top1 && loss < other_loss)
}

/// The epoch that is best on validation images, as [`fit`] reckons; none where nothing was measured.
pub fn best(history: &[EpochRecord]) -> Option<&EpochRecord> {
    let measured = |record: &EpochRecord| record.val_top1.zip(record.val_loss);
    history.iter().filter(|record| measured(record).is_some()).reduce(|best, record| {
        let is_better = measured(record).zip(measured(best)).is_some_and(|(new, old)| better(new, old));
        if is_better { record } else { best }
    })
}

/// Everything that stays or advances while one head trains.
struct Run<'a> {
    train: &'a FeatureSet,
    settings: HeadSettings,
    dropout: Dropout,
    standardiser: Option<Standardiser>,
    loss: CrossEntropy,
    schedule: Schedule,
    head: Head,
    optimizer: Box<dyn Optimizer>,
}

impl<'a> Run<'a> {
    fn new(train: &'a FeatureSet, settings: &HeadSettings) -> Result<Self> {
        settings.validate()?;
        check_not_empty(train, "train")?;
        let standardiser = settings.standardise.then(|| Standardiser::measure(train.rows())).transpose()?;
        let length = mean_squared_length(train, standardiser.as_ref())?;
        let settings = settings.resolved(train.images(), train.classes(), length);
        let loss = settings.loss(&train.class_counts())?;
        let head = Head::new(train.classes(), train.dimensions(), settings.seed, train.rows().device())?;
        let optimizer = build_optimizer(&head, &settings)?;
        let schedule = schedule(&settings, steps_per_epoch(train, &settings));
        let dropout = Dropout::new(settings.drop_rate, settings.seed)?;
        Ok(Self { train, settings, dropout, standardiser, loss, schedule, head, optimizer })
    }

    fn train(
        mut self,
        epochs: usize,
        validation: Option<&Validation<'_>>,
        observer: &mut Observer<'_>,
    ) -> Result<Trained> {
        let (mut history, mut best) = (Vec::new(), Best::default());
        let mut ended = Ended::Finished;
        for epoch in 1..=epochs {
            let record = self.validated_epoch(epoch, validation, &mut best)?;
            history.push(record);
            if observer(&record).is_break() {
                ended = Ended::Observer;
                break;
            }
            if epoch < epochs && self.is_out_of_patience(best.age(epoch)) {
                ended = Ended::Patience;
                break;
            }
        }
        let last = self.folded_head()?;
        let (best_epoch, head) = match best.0 {
            Some((epoch, head, _)) => (epoch, head),
            None => (history.len(), last.clone()),
        };
        Ok(Trained { head, last, history, best_epoch, settings: self.settings, ended })
    }

    fn is_out_of_patience(&self, waited: usize) -> bool {
        self.settings.patience.is_some_and(|patience| waited >= patience)
    }

    /// One epoch and, where there is a validation part, what the head that would be delivered reaches on it.
    fn validated_epoch(
        &mut self,
        epoch: usize,
        validation: Option<&Validation<'_>>,
        best: &mut Best,
    ) -> Result<EpochRecord> {
        let start = Instant::now();
        let mut record = self.epoch(epoch)?;
        if let Some(validation) = validation {
            let head = self.folded_head()?;
            let metrics = head.evaluate(&validation.features, validation.labels)?;
            (record.val_loss, record.val_top1) = (Some(metrics.loss), Some(metrics.top1));
            best.offer(epoch, head, metrics);
        }
        record.seconds = start.elapsed().as_secs_f64();
        Ok(record)
    }

    /// A copy of the head that takes raw features.
    fn folded_head(&self) -> Result<Head> {
        let (weight, bias) = (self.head.weight().as_detached_tensor(), self.head.bias().as_detached_tensor());
        match &self.standardiser {
            Some(standardiser) => {
                let (weight, bias) = standardiser.fold(&weight, &bias)?;
                Head::from_tensors(&weight, &bias)
            }
            None => Head::from_tensors(&weight, &bias),
        }
    }

    /// One pass over the training views; validation is still missing from the record.
    fn epoch(&mut self, epoch: usize) -> Result<EpochRecord> {
        let order = self.order(epoch)?;
        let first_step = (epoch - 1) * steps_per_epoch(self.train, &self.settings);
        let (mut loss_sum, mut tally, mut lr) = (0.0, Tally::default(), 0.0);
        for (step, rows) in order.chunks(self.settings.batch_size).enumerate() {
            lr = self.schedule.at(first_step + step);
            let loss = self.step(rows, lr, &mut tally)?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { loss, epoch, step: step + 1, lr });
            }
            loss_sum += loss * rows.len() as f64;
        }
        Ok(EpochRecord {
            epoch,
            lr,
            train_loss: loss_sum / order.len() as f64,
            train_top1: Some(tally.metrics().top1),
            val_loss: None,
            val_top1: None,
            seconds: 0.0,
        })
    }

    /// The views in the order in which an epoch sees them.
    fn order(&self, epoch: usize) -> Result<Vec<u32>> {
        Ok(shuffled(self.train.rows().dim(0)? as u32, self.settings.seed, epoch as u64))
    }

    /// The steps of as many epochs as a range test takes.
    fn sweep(&mut self, sweep: &mut Sweep) -> Result<()> {
        for epoch in 1.. {
            for rows in self.order(epoch)?.chunks(self.settings.batch_size) {
                let Some(lr) = sweep.rate() else { return Ok(()) };
                sweep.record(self.step(rows, lr, &mut Tally::default())?)?;
            }
        }
        Ok(())
    }

    /// One step on the views `rows`; gives the loss before it.
    fn step(&mut self, rows: &[u32], lr: f64, tally: &mut Tally) -> Result<f64> {
        let (mut features, labels) = self.train.batch(rows)?;
        features = self.dropout.apply(&features)?;
        if let Some(standardiser) = &self.standardiser {
            features = standardiser.apply(&features)?;
        }
        let logits = self.head.forward(&features)?;
        let loss = self.loss.loss(&logits, &labels)?;
        self.optimizer.step(&Gradients::of(&loss.backward()?, self.head.var_map()), lr)?;
        tally.add(&logits.detach(), &labels)?;
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}

/// The mean of ‖x‖² over the rows that the head trains on.
fn mean_squared_length(train: &FeatureSet, standardiser: Option<&Standardiser>) -> Result<f64> {
    match standardiser {
        Some(standardiser) => Ok(standardiser.varying() as f64),
        None => Ok(f64::from(train.rows().sqr()?.sum(1)?.mean(0)?.to_scalar::<f32>()?)),
    }
}

/// Biases do not decay: pulling them to 0 would pull the classes' frequencies to equality.
fn build_optimizer(head: &Head, settings: &HeadSettings) -> Result<Box<dyn Optimizer>> {
    let mut parameters = parameters(head.var_map(), settings.weight_decay.unwrap_or(0.0));
    for parameter in &mut parameters {
        if parameter.name.ends_with("bias") {
            parameter.weight_decay = 0.0;
        }
    }
    settings.optimizer.build(parameters)
}

fn steps_per_epoch(train: &FeatureSet, settings: &HeadSettings) -> usize {
    (train.images() * train.views()).div_ceil(settings.batch_size)
}

fn schedule(settings: &HeadSettings, steps_per_epoch: usize) -> Schedule {
    Schedule {
        shape: settings.schedule,
        peak: settings.lr.unwrap_or(0.0),
        warmup: settings.warmup_epochs.saturating_mul(steps_per_epoch),
        steps: settings.epochs.saturating_mul(steps_per_epoch),
        steps_per_epoch,
    }
}

#[cfg(test)]
mod tests;
