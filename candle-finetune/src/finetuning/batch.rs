//! How many images a training step has room for on a GPU.

use candle_core::{DType, Tensor};
use candle_resnet::Model;
use candle_resnet::device_memory::{capacity, is_out_of_memory, peak};

use super::epochs::Source;
use super::tail::{Frozen, Unfreezing};
use super::{Machine, Settings};
use crate::error::Result;
use crate::images::Splits;
use crate::train::TrainError;

/// Images beyond which steps become no faster, and what is learned in an epoch less.
const MOST: usize = 256;

/// Steps that an epoch is to have.
const STEPS: usize = 8;

/// The smallest batch that is tried: a batch norm may need two images.
const LEAST: usize = 2;

/// Images of a batch where memory does not limit them, nor larger batches make steps faster.
const ON_A_CPU: usize = 32;

/// Part of the memory that a step may take; copies of the best weights and batches that are read ahead want some, too.
const SHARE: f64 = 0.9;

/// Moves weights that are not used afterwards.
const LR: f64 = 1e-6;

/// The most images of a batch, a power of two, with which [`fine_tune_model`](super::fine_tune_model) has room on the machine's device:
/// up to 256, and so few that an epoch has eight steps. Found by steps on images of one colour, neither mixed nor accumulated. On a CPU, and
/// for a head, up to 32.
///
/// # Errors
/// As `fine_tune_model`; [`TrainError::OutOfMemory`] if there is room for no batch at all.
pub fn fitting_batch_size(
    model: &Model,
    machine: Machine<'_>,
    splits: &Splits<'_>,
    settings: &Settings,
) -> Result<usize> {
    settings.validate()?;
    let held_out = if splits.val.is_some() { 0.0 } else { settings.val_fraction };
    let images = (splits.train.len() as f64 * (1.0 - held_out)) as usize;
    let most = power_of_two(images / STEPS).min(MOST);
    let Some(tail) = &settings.tail else { return Ok(most.min(ON_A_CPU)) };
    if capacity(machine.device)?.is_none() {
        return Ok(most.min(ON_A_CPU));
    }
    let machine = Machine { maps: None, checkpoints: None, ..machine };
    Unfreezing::new(model, machine, splits, (settings, tail))?.fitting_batch_size(most)
}

/// The largest that is not above `images`, and at least [`LEAST`].
fn power_of_two(images: usize) -> usize {
    images.checked_ilog2().map_or(0, |power| 1 << power).max(LEAST)
}

impl Unfreezing<'_> {
    /// Up to `most` images.
    fn fitting_batch_size(&self, most: usize) -> Result<usize> {
        let Frozen { model, device, .. } = self.frozen;
        let first = self.tail.train_from.part(&model.architecture)?;
        let entry = first.entry(&model.architecture);
        let trunk = entry.is_some().then(|| self.frozen.trunk(None)).transpose()?;
        let start = self.draw_head()?;
        let maps = self.maps(self.splits.train, trunk.zip(entry).as_ref());
        let source = Source { maps: &maps, images: self.splits.train, indices: start.fit() };
        let mut trainer = self.trainer(first, &start.head, &source)?;
        let (channels, crop) = (model.architecture.in_channels, model.preprocessing.crop);
        let map = maps.of(&Tensor::zeros((1, channels, crop, crop), DType::F32, device)?)?;
        let mut step = |images| {
            let (stepped, peak) = peak(device, || {
                let batch = map.repeat((images, 1, 1, 1))?;
                trainer.step(&batch, &vec![0; images], LR)
            })?;
            match stepped {
                Err(TrainError::OutOfMemory { .. }) => Ok(None),
                Err(TrainError::Tensor(error)) if is_out_of_memory(&error) => Ok(None),
                stepped => stepped.map(|_| peak).map_err(Into::into),
            }
        };
        step(LEAST)?; // libraries take memory of their own when they are used first
        let room = capacity(device)?.map_or(0, |capacity| (SHARE * capacity as f64) as u64);
        largest(most, room, &mut step)
    }
}

/// The largest batch up to `most` that takes no more than `room`, doubled from [`LEAST`] on. `step` says how much a batch takes, or that it
/// failed for lack of room; it is not asked where the batches before say that it would.
fn largest(most: usize, room: u64, step: &mut dyn FnMut(usize) -> Result<Option<u64>>) -> Result<usize> {
    let (mut fits, mut taken) = (None, Vec::new());
    let mut images = LEAST;
    while images <= most && expected(&taken) <= room {
        let Some(peak) = step(images)?.filter(|&peak| peak <= room) else { break };
        taken.push(peak);
        fits = Some(images);
        images *= 2;
    }
    fits.ok_or_else(|| TrainError::OutOfMemory { images: LEAST, room: None }.into())
}

/// What twice the last batch takes at least, where batches were doubled: it grows with images in a straight line.
fn expected(taken: &[u64]) -> u64 {
    match taken {
        [.., before, last] => last + 2 * last.saturating_sub(*before),
        [last] => *last, // part of it may grow, or all of it
        [] => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest batch where there is room for `room`, and a batch takes 100 and 10 for each image; and which were tried.
    fn found(most: usize, room: u64) -> (Option<usize>, Vec<usize>) {
        let mut tried = Vec::new();
        let found = largest(most, room, &mut |images| {
            tried.push(images);
            Ok((images <= 64).then_some(100 + 10 * images as u64))
        });
        (found.ok(), tried)
    }

    #[test]
    fn the_largest_batch_that_fits_is_found_without_trying_larger_ones() {
        assert_eq!(found(256, 500), (Some(32), vec![2, 4, 8, 16, 32]));
        assert_eq!(found(256, 230), (Some(8), vec![2, 4, 8]));
        assert_eq!(found(16, 10_000), (Some(16), vec![2, 4, 8, 16]));
        assert_eq!(found(256, 100), (None, vec![2]));
    }

    #[test]
    fn a_batch_that_fails_for_lack_of_room_is_the_end() {
        assert_eq!(found(256, 10_000), (Some(64), vec![2, 4, 8, 16, 32, 64, 128]));
    }

    #[test]
    fn batches_are_powers_of_two() {
        assert_eq!([0, 1, 2, 3, 30, 32, 1000].map(power_of_two), [2, 2, 2, 2, 16, 32, 512]);
    }
}
