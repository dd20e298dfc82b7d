//! Photos → pixels: decoded, augmented and normalised in parallel, one batch ahead of whoever uses them.
//!
//! Never holds more than three batches. Knows no network; what a view shows depends on what it is asked for alone, not on
//! threads.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use candle_core::{Device, Tensor};
use candle_resnet::preprocess::{Note, Photo, Preprocessing};
use rayon::prelude::*;

use crate::augment::{Draw, Policy, augmented};
use crate::error::{Error, Result};
use crate::images::{ImageError, LabelledImages};

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

/// An image that could not be read.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// What the reader said; names the image as well.
    pub reason: ImageError,
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
    pub(crate) values: Vec<f32>, // (N, C, crop, crop)
    /// The N sights that could be read, in the order that they were asked for.
    pub(crate) sights: Vec<Sight>,
    /// Images that could not be read.
    pub(crate) skipped: Vec<Skipped>,
    /// What is worth knowing of images that were read.
    pub(crate) notes: Vec<(String, Note)>,
}

impl<'a> Reader<'a> {
    /// Reads `batches` in a thread of its own, while `use_them` uses those that are ready.
    ///
    /// # Errors
    /// Those of `use_them`.
    pub(crate) fn ahead<T>(
        &self,
        batches: impl Iterator<Item = Vec<Sight>> + Send,
        use_them: impl FnOnce(Receiver<Result<Pixels>>) -> T,
    ) -> T {
        let (sender, receiver) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || self.send_all(batches, &sender));
            use_them(receiver)
        })
    }

    /// Reads batch after batch until all are sent or nobody listens any more.
    fn send_all(&self, batches: impl Iterator<Item = Vec<Sight>>, sender: &SyncSender<Result<Pixels>>) {
        for batch in batches {
            if sender.send(self.read(&batch)).is_err() {
                return;
            }
        }
    }

    /// Reads `sights`; those of one image that follow one another share its decoding.
    ///
    /// # Errors
    /// [`Error::Strict`] if an image cannot be read and that is fatal.
    pub(crate) fn read(&self, sights: &[Sight]) -> Result<Pixels> {
        let images: Vec<&[Sight]> = sights.chunk_by(|a, b| a.image == b.image).collect();
        let read: Vec<_> = images.into_par_iter().map(|sights| (sights, self.views(sights))).collect();
        let (mut pixels, mut all) = (Pixels::default(), Vec::new());
        for (sights, views) in read {
            let name = || self.images.name(sights[0].image);
            match (views, self.unreadable) {
                (Ok((values, notes)), _) => {
                    all.push(values);
                    pixels.sights.extend(sights);
                    pixels.notes.extend(notes.into_iter().map(|note| (name(), note)));
                }
                (Err(reason), Unreadable::Skipped) => pixels.skipped.push(Skipped { name: name(), reason }),
                (Err(reason), Unreadable::Fatal) => return Err(Error::Strict(Skipped { name: name(), reason })),
            }
        }
        pixels.values = joined(&all);
        Ok(pixels)
    }

    /// Views of one image, one after the other, and what is worth knowing of it.
    fn views(&self, sights: &[Sight]) -> std::result::Result<(Vec<f32>, Vec<Note>), ImageError> {
        let photo = self.images.photo(sights[0].image)?;
        let views: std::result::Result<Vec<_>, _> =
            sights.into_par_iter().map(|&sight| self.view(&photo, sight)).collect();
        Ok((views?.concat(), photo.into_notes()))
    }

    fn view(&self, photo: &Photo, sight: Sight) -> std::result::Result<Vec<f32>, ImageError> {
        match (sight.view, self.augmentation) {
            (View::Augmented(view), Some(Augmenter { policy, seed })) => {
                let draw = Draw { seed, view, image: sight.image as u64 };
                Ok(augmented(photo, self.preprocessing, self.channels, policy, draw)?)
            }
            _ => Ok(self.preprocessing.input(photo, self.channels)?),
        }
    }
}

/// One after the other. Threads share the copying, and with it the system's work of making memory for a large batch.
fn joined(parts: &[Vec<f32>]) -> Vec<f32> {
    let mut all = vec![0.0; parts.iter().map(Vec::len).sum()];
    let (mut places, mut rest) = (Vec::new(), all.as_mut_slice());
    for part in parts {
        let (place, behind) = rest.split_at_mut(part.len());
        places.push(place);
        rest = behind;
    }
    places.into_par_iter().zip(parts).for_each(|(place, part)| place.copy_from_slice(part));
    all
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
        Ok(Some(Tensor::from_vec(std::mem::take(&mut self.values), shape, &Device::Cpu)?.to_device(device)?))
    }
}
