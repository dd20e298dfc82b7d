//! A training of a tail as a checkpoint, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Findings;
use super::epochs::Progress;
use super::start::{Fitted, Start};
use crate::checkpoints::{Checkpoint, CheckpointError, Checkpoints, Position};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::train::state::{below, under};
use crate::train::tail::TailTrainer;

/// How much longer than writing a checkpoint it took to come to what it saves, where an epoch ends.
const WORTH: u32 = 20;

/// Writes checkpoints of a run, and finds what it left when it stopped.
pub(super) struct Journal<'a> {
    checkpoints: &'a Checkpoints,
    /// What the run is of.
    run: Key,
    /// When the last one was written.
    written: Instant,
    /// How long that took.
    took: Duration,
}

/// A run at one moment.
pub(super) struct Moment<'a> {
    pub(super) start: &'a Start,
    pub(super) progress: &'a Progress,
    pub(super) trainer: &'a TailTrainer,
    pub(super) findings: &'a Findings,
}

/// What a run left when it stopped.
pub(super) struct Left {
    pub(super) start: Start,
    pub(super) progress: Progress,
    /// Of the trainer.
    pub(super) state: BTreeMap<String, Tensor>,
    /// Names of images that could not be read.
    pub(super) skipped: BTreeSet<String>,
}

/// What a checkpoint says beside its tensors.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct State {
    run: String,
    skipped: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fitted: Option<Fitted>,
    progress: Progress,
}

impl<'a> Journal<'a> {
    /// Of the run that `run` is the digest of.
    pub(super) fn new(checkpoints: &'a Checkpoints, run: Key) -> Journal<'a> {
        Journal { checkpoints, run, written: Instant::now(), took: Duration::ZERO }
    }

    /// What the run left at its last checkpoint; nothing if there is none.
    ///
    /// # Errors
    /// [`CheckpointError::OtherRun`], and those of reading it.
    pub(super) fn left(&self, device: &Device) -> Result<Option<Left>> {
        let Some(Checkpoint { tensors, state }) = self.checkpoints.newest()? else { return Ok(None) };
        let folder = || self.checkpoints.folder().to_path_buf();
        let unreadable = |reason: String| CheckpointError::Unreadable { folder: folder(), reason };
        let state: State = toml::from_str(&state).map_err(|error| unreadable(error.to_string()))?;
        if state.run != self.run.to_string() {
            return Err(CheckpointError::OtherRun { folder: folder() }.into());
        }
        let State { skipped, fitted, mut progress, .. } = state;
        if let Some(best) = &mut progress.best {
            let to_device = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_device(device)?));
            best.tensors = below("best/", &tensors).into_iter().map(to_device).collect::<Result<_>>()?;
        }
        let start = Start::from_tensors(&below("start/", &tensors), fitted, device)?;
        let state = below("trainer/", &tensors);
        Ok(Some(Left { start, progress, state, skipped }))
    }

    /// Whether so much time went by that one should be written.
    pub(super) fn is_due(&self) -> bool {
        self.written.elapsed() >= self.checkpoints.every()
    }

    /// Whether one should be written now that an epoch is over: not where that would take long beside what it saves.
    pub(super) fn is_worth_it(&self) -> bool {
        self.is_due() || self.written.elapsed() >= self.took * WORTH
    }

    /// Writes one.
    ///
    /// # Errors
    /// [`CheckpointError::Write`], and those of copying tensors.
    pub(super) fn write(&mut self, Moment { start, progress, trainer, findings }: Moment<'_>) -> Result<()> {
        let begun = Instant::now();
        let state = State {
            run: self.run.to_string(),
            skipped: findings.skipped.iter().map(|skipped| skipped.name.clone()).collect(),
            fitted: start.fitted.clone(),
            progress: progress.clone(),
        };
        let best = progress.best.as_ref().map_or_else(BTreeMap::new, |best| under("best/", &best.tensors));
        let tensors = [under("start/", &start.tensors()?), best, under("trainer/", &trainer.state()?)];
        let tensors = tensors.into_iter().flatten().map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?)));
        let checkpoint = Checkpoint {
            tensors: tensors.collect::<Result<_>>()?,
            state: toml::to_string(&state).map_err(|error| Error::Candle(candle_core::Error::msg(error)))?,
        };
        let position = Position { epochs: progress.history.len(), batches: progress.batches() };
        self.checkpoints.write(position, &checkpoint)?;
        self.written = Instant::now();
        self.took = begun.elapsed();
        Ok(())
    }
}
