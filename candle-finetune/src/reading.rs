//! Photos → pixels: decoded, augmented and normalised in parallel, one batch ahead of whoever uses them.
//!
//! Each view is written to its place in the batch. Never holds more than three batches. Knows no network; what a view shows depends on
//! what it is asked for alone, not on threads.

use std::sync::mpsc::{Receiver, sync_channel};

use candle_core::{Device, Tensor};
use candle_resnet::preprocess::{Note, Photo, Preprocessing};
use rayon::prelude::*;

use crate::augment::{Draw, Policy, write_augmented};
use crate::error::{Error, Result};
use crate::images::{ImageError, LabelledImages};
use crate::staging::{Room, Staging};

/// How an image is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// As in evaluation.
    Plain,
    /// Augmented; the number decides what is drawn.
    Augmented(u64),
}

/// An image of a data set, seen in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sight {
    /// Index of the image.
    pub image: usize,
    /// How it is seen.
    pub view: View,
}

impl Sight {
    /// An image as it is.
    pub(crate) fn plain(image: usize) -> Sight {
        Sight { image, view: View::Plain }
    }
}

/// What becomes of an image that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is left out and reported.
    Skipped,
    /// It ends the run.
    Fatal,
}

impl Unreadable {
    /// [`Unreadable::Fatal`] if `strict`.
    pub fn strictly(strict: bool) -> Unreadable {
        if strict { Unreadable::Fatal } else { Unreadable::Skipped }
    }
}

/// An image that could not be read, or that the network makes no numbers of.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// What the reader said; names the image as well.
    pub reason: ImageError,
}

impl Skipped {
    /// One that takes the network beyond the range of numbers.
    pub fn non_finite(name: String) -> Skipped {
        let reason = format!("{name}: the network's outputs are not finite").into();
        Skipped { name, reason }
    }
}

/// Does `work` on `items`, one after the other, in a thread of its own and one ahead of `use_them`, until all are done or nobody listens.
pub(crate) fn ahead<I, R: Send, T>(
    items: impl Iterator<Item = I> + Send,
    work: impl Fn(I) -> R + Send,
    use_them: impl FnOnce(Receiver<R>) -> T,
) -> T {
    let (sender, receiver) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut done = items.map(work);
            while done.next().is_some_and(|done| sender.send(done).is_ok()) {}
        });
        use_them(receiver)
    })
}

/// Makes pixels of images.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) images: &'a dyn LabelledImages,
    pub(crate) preprocessing: &'a Preprocessing,
    /// C: channels that the network takes.
    pub(crate) channels: usize,
    /// How augmented views are made.
    pub(crate) augmentation: Option<Augmenter<'a>>,
    pub(crate) unreadable: Unreadable,
}

/// What augmented views depend on beside image and number.
#[derive(Clone, Copy)]
pub(crate) struct Augmenter<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) seed: u64,
}

/// Sights that were read together.
#[derive(Default)]
pub(crate) struct Pixels {
    /// (N, C, crop, crop)
    pub(crate) values: Room,
    /// The N sights that could be read, in the order that they were asked for.
    pub(crate) sights: Vec<Sight>,
    /// Images that could not be read.
    pub(crate) skipped: Vec<Skipped>,
    /// What is worth knowing of images that were read.
    pub(crate) notes: Vec<(String, Note)>,
}

impl<'a> Reader<'a> {
    /// Reads `batches` one ahead and sends them on their way by `staging`, while `use_them` uses those that are ready.
    ///
    /// # Errors
    /// Those of `use_them`.
    pub(crate) fn ahead<T>(
        &self,
        staging: &Staging,
        batches: impl Iterator<Item = Vec<Sight>> + Send,
        use_them: impl FnOnce(Receiver<Result<Pixels>>) -> T,
    ) -> T {
        let read = |batch: Vec<Sight>| {
            let mut pixels = self.read_into(&batch, staging.room(batch.len() * self.view_values()))?;
            pixels.values.send()?;
            Ok(pixels)
        };
        ahead(batches, read, use_them)
    }

    /// Reads `sights`; those of one image that follow one another share its decoding.
    ///
    /// # Errors
    /// [`Error::Strict`] if an image cannot be read and that is fatal.
    pub(crate) fn read(&self, sights: &[Sight]) -> Result<Pixels> {
        self.read_into(sights, Room::of(sights.len() * self.view_values()))
    }

    /// Values of a view, (C, crop, crop).
    fn view_values(&self) -> usize {
        self.channels * self.preprocessing.crop * self.preprocessing.crop
    }

    /// [`read`](Reader::read) with room for all `sights`.
    fn read_into(&self, sights: &[Sight], mut room: Room) -> Result<Pixels> {
        let images: Vec<&[Sight]> = sights.chunk_by(|a, b| a.image == b.image).collect();
        let places = places(room.values_mut()?, images.iter().map(|sights| sights.len() * self.view_values()));
        let read: Vec<_> =
            images.into_par_iter().zip(places).map(|(sights, place)| (sights, self.views(sights, place))).collect();
        let (mut pixels, mut is_read) = (Pixels::default(), Vec::new());
        for (sights, notes) in read {
            let name = || self.images.name(sights[0].image);
            is_read.extend(sights.iter().map(|_| notes.is_ok()));
            match (notes, self.unreadable) {
                (Ok(notes), _) => {
                    pixels.sights.extend(sights);
                    pixels.notes.extend(notes.into_iter().map(|note| (name(), note)));
                }
                (Err(reason), Unreadable::Skipped) => pixels.skipped.push(Skipped { name: name(), reason }),
                (Err(reason), Unreadable::Fatal) => return Err(Error::Strict(Skipped { name: name(), reason })),
            }
        }
        close_gaps(room.values_mut()?, self.view_values(), &is_read);
        room.truncate(pixels.sights.len() * self.view_values());
        pixels.values = room;
        Ok(pixels)
    }

    /// Writes the views of one image, one after the other; gives what is worth knowing of it.
    fn views(&self, sights: &[Sight], place: &mut [f32]) -> std::result::Result<Vec<Note>, ImageError> {
        let photo = self.images.photo(sights[0].image)?;
        let places = place.par_chunks_mut(self.view_values().max(1));
        sights.into_par_iter().zip(places).try_for_each(|(&sight, place)| self.view(&photo, sight, place))?;
        Ok(photo.into_notes())
    }

    fn view(&self, photo: &Photo, sight: Sight, place: &mut [f32]) -> std::result::Result<(), ImageError> {
        match (sight.view, self.augmentation) {
            (View::Augmented(view), Some(Augmenter { policy, seed })) => {
                let draw = Draw { seed, view, image: sight.image as u64 };
                Ok(write_augmented(photo, self.preprocessing, self.channels, (policy, draw), place)?)
            }
            _ => Ok(self.preprocessing.write_input(photo, self.channels, place)?),
        }
    }
}

/// Parts of `values` of such lengths, one after the other.
fn places(values: &mut [f32], lengths: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    // Room is made for all of them.
    let mut rest = values;
    lengths.map(|length| rest.split_off_mut(..length).unwrap_or_default()).collect()
}

/// Moves what was read, of views of `size` values each, to the front.
fn close_gaps(values: &mut [f32], size: usize, is_read: &[bool]) {
    let read = is_read.iter().enumerate().filter(|(_, is_read)| **is_read);
    for (to, (from, _)) in read.enumerate().filter(|(to, (from, _))| to != from) {
        values.copy_within(from * size..(from + 1) * size, to * size);
    }
}

impl Pixels {
    /// Each image that was read.
    pub(crate) fn read_images(&self) -> impl Iterator<Item = usize> {
        self.sights.chunk_by(|a, b| a.image == b.image).map(|sights| sights[0].image)
    }

    /// The pixels as a tensor (N, `channels`, `crop`, `crop`) on `device`; none where nothing could be read.
    ///
    /// # Errors
    /// If the device has no room.
    pub(crate) fn tensor(&mut self, channels: usize, crop: usize, device: &Device) -> Result<Option<Tensor>> {
        if self.sights.is_empty() {
            return Ok(None);
        }
        let shape = (self.sights.len(), channels, crop, crop);
        Ok(Some(std::mem::take(&mut self.values).tensor(shape, device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_moves_to_the_front_in_its_order() {
        let mut values: Vec<f32> = (0..10).map(|value| value as f32).collect();
        close_gaps(&mut values, 2, &[true, false, true, false, true]);
        assert_eq!(values[..6], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0]);
        close_gaps(&mut values, 2, &[false; 5]);
        assert_eq!(values[..2], [0.0, 1.0]);
    }
}
