//! Images → features: decoding and preprocessing in parallel, one batch ahead of the network.
//!
//! Never holds more than three batches of pixels. Does not know what the network is.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use candle_core::{Device, Tensor};
use candle_resnet::FeatureExtractor;
use candle_resnet::preprocess::{Note, Preprocessing, check_photo_channels};
use rayon::prelude::*;

use crate::augment::{Augmentation, Draw, augmented};
use crate::error::{Error, Result};
use crate::images::{ImageError, LabelledImages};

/// Which views of each image go through the network.
#[derive(Debug, Clone, Copy)]
pub enum Views<'a> {
    /// The image as it is.
    Plain,
    /// The image as it is, and augmented views behind it, numbered from 0.
    Augmented {
        /// How many, and how they are made.
        augmentation: &'a Augmentation,
        /// Decides what is drawn for them.
        seed: u64,
    },
}

impl Views<'_> {
    /// V: views of each image, itself included.
    pub fn count(self) -> usize {
        match self {
            Views::Plain => 1,
            Views::Augmented { augmentation, .. } => 1 + augmentation.views,
        }
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

/// Features of the images that could be read.
#[derive(Debug)]
pub struct Extracted {
    /// (N, V, D) f32 on the trunk's device, the plain view first.
    pub features: Tensor,
    /// Index of each of the N images in what was asked for, ascending.
    pub kept: Vec<usize>,
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// What is worth knowing of images that were read.
    pub notes: Vec<(String, Note)>,
}

/// An image that could not be read.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// What the reader said; names the image as well.
    pub reason: ImageError,
}

/// What happens on the way, for a progress bar and for stopping.
pub type ExtractObserver<'a> = dyn FnMut(usize) -> ControlFlow<()> + 'a;

/// Computes the features of `images`.
///
/// `observer` is told how many images each batch had and may stop the run. [`batch_size`] bounds memory.
///
/// # Errors
/// [`Error::Interrupted`] if the observer stopped it, [`Error::Strict`] at the first unreadable image where these are
/// fatal, [`Error::NoImages`] if none could be read, a trunk that takes neither colours nor grey, and what candle says.
pub fn extract(
    trunk: &dyn FeatureExtractor,
    preprocessing: &Preprocessing,
    images: &dyn LabelledImages,
    views: Views<'_>,
    unreadable: Unreadable,
    observer: &mut ExtractObserver<'_>,
) -> Result<Extracted> {
    let channels = trunk.in_channels();
    check_photo_channels(channels).map_err(candle_resnet::Error::from)?;
    let step = batch_size(preprocessing.crop, trunk.device()).div_ceil(views.count());
    let reader = Reader { images, preprocessing, channels, views };
    let (sender, receiver) = sync_channel(1);
    let collected = std::thread::scope(|scope| {
        scope.spawn(move || reader.read_batches(step, &sender));
        collect(trunk, preprocessing.crop, receiver, unreadable, observer)
    })?;
    collected.finish(trunk, views)
}

/// Images of `crop`² pixels that go through the network at once: as many pixels as eight of 224² on a CPU, whose caches
/// they should fit, and as 64 on a GPU, which wants work; at most 256 images, of which every view counts as one.
pub fn batch_size(crop: usize, device: &Device) -> usize {
    let images = if device.is_cpu() { 8 } else { 64 };
    (images * 224 * 224 / (crop * crop).max(1)).clamp(1, 256)
}

/// Images that were read together, ready for the network.
#[derive(Default)]
struct Batch {
    pixels: Vec<f32>, // (n, V, C, crop, crop)
    kept: Vec<usize>,
    skipped: Vec<Skipped>,
    notes: Vec<(String, Note)>,
}

impl Batch {
    fn images(&self) -> usize {
        self.kept.len() + self.skipped.len()
    }
}

/// Turns images into pixels.
struct Reader<'a> {
    images: &'a dyn LabelledImages,
    preprocessing: &'a Preprocessing,
    /// C: channels that the trunk takes.
    channels: usize,
    views: Views<'a>,
}

impl Reader<'_> {
    /// Reads batch after batch until all are sent or nobody listens any more.
    fn read_batches(&self, step: usize, sender: &SyncSender<Batch>) {
        for start in (0..self.images.len()).step_by(step) {
            let end = self.images.len().min(start + step);
            if sender.send(self.read_batch(start..end)).is_err() {
                return;
            }
        }
    }

    fn read_batch(&self, indices: std::ops::Range<usize>) -> Batch {
        let photos: Vec<_> = indices.into_par_iter().map(|index| (index, self.read(index))).collect();
        let mut batch = Batch::default();
        for (index, photo) in photos {
            match photo {
                Ok((pixels, notes)) => {
                    batch.pixels.extend(pixels);
                    batch.kept.push(index);
                    batch.notes.extend(notes.into_iter().map(|note| (self.images.name(index), note)));
                }
                Err(reason) => batch.skipped.push(Skipped { name: self.images.name(index), reason }),
            }
        }
        batch
    }

    /// One image's views, one after the other, and what is worth knowing of it.
    fn read(&self, index: usize) -> std::result::Result<(Vec<f32>, Vec<Note>), ImageError> {
        let photo = self.images.photo(index)?;
        let mut pixels = self.preprocessing.input(&photo, self.channels)?;
        if let Views::Augmented { augmentation: Augmentation { policy, views }, seed } = self.views {
            let view = |view| {
                let draw = Draw { seed, view: view as u64, image: index as u64 };
                augmented(&photo, self.preprocessing, self.channels, policy, draw)
            };
            let augmented: std::result::Result<Vec<_>, _> = (0..*views).into_par_iter().map(view).collect();
            pixels.extend(augmented?.concat());
        }
        Ok((pixels, photo.into_notes()))
    }
}

#[derive(Default)]
struct Collected {
    features: Vec<f32>, // (N, V, D)
    kept: Vec<usize>,
    skipped: Vec<Skipped>,
    notes: Vec<(String, Note)>,
}

/// Runs the network over every batch as it comes.
fn collect(
    trunk: &dyn FeatureExtractor,
    crop: usize,
    batches: Receiver<Batch>,
    unreadable: Unreadable,
    observer: &mut ExtractObserver<'_>,
) -> Result<Collected> {
    let mut collected = Collected::default();
    let mut stopped = false;
    for mut batch in batches {
        // Whoever stops while the last batch is computed loses nothing.
        if stopped {
            return Err(Error::Interrupted);
        }
        if unreadable == Unreadable::Fatal && !batch.skipped.is_empty() {
            return Err(Error::Strict(batch.skipped.swap_remove(0)));
        }
        let images = batch.images();
        collected.features.extend(batch_features(trunk, crop, batch.pixels)?);
        collected.kept.extend(batch.kept);
        collected.skipped.extend(batch.skipped);
        collected.notes.extend(batch.notes);
        stopped = observer(images).is_break();
    }
    Ok(collected)
}

fn batch_features(trunk: &dyn FeatureExtractor, crop: usize, pixels: Vec<f32>) -> Result<Vec<f32>> {
    if pixels.is_empty() {
        return Ok(Vec::new());
    }
    let channels = trunk.in_channels();
    let views = pixels.len() / (channels * crop * crop);
    let images = Tensor::from_vec(pixels, (views, channels, crop, crop), &Device::Cpu)?.to_device(trunk.device())?;
    Ok(trunk.features(&images)?.flatten_all()?.to_vec1()?)
}

impl Collected {
    fn finish(self, trunk: &dyn FeatureExtractor, views: Views<'_>) -> Result<Extracted> {
        if self.kept.is_empty() {
            return Err(Error::NoImages { skipped: self.skipped });
        }
        let shape = (self.kept.len(), views.count(), trunk.feature_width());
        let features = Tensor::from_vec(self.features, shape, trunk.device())?;
        Ok(Extracted { features, kept: self.kept, skipped: self.skipped, notes: self.notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_resnet::preprocess::Photo;

    /// Puts out each channel's mean and the upper left value.
    struct Means;

    impl FeatureExtractor for Means {
        fn feature_width(&self) -> usize {
            4
        }

        fn device(&self) -> &Device {
            &Device::Cpu
        }

        fn features(&self, images: &Tensor) -> candle_core::Result<Tensor> {
            let means = images.mean((2, 3))?;
            let corner = images.narrow(1, 0, 1)?.narrow(2, 0, 1)?.narrow(3, 0, 1)?.reshape(((), 1))?;
            Tensor::cat(&[means, corner], 1)
        }
    }

    /// Images whose first row runs from dark to bright; every third cannot be read.
    struct Ramps(usize);

    impl LabelledImages for Ramps {
        fn len(&self) -> usize {
            self.0
        }

        fn label(&self, index: usize) -> usize {
            index % 2
        }

        fn photo(&self, index: usize) -> std::result::Result<Photo, ImageError> {
            if index % 3 == 2 {
                return Err("not an image".into());
            }
            let pixels = (0..32 * 32 * 3).map(|value| ((value / 3) % 32 * 8) as u8).collect();
            Photo::from_rgb8(32, 32, pixels).ok_or_else(|| "wrong size".into())
        }

        fn name(&self, index: usize) -> String {
            format!("image {index}")
        }
    }

    fn plain() -> Preprocessing {
        Preprocessing { mean: [0.0; 3], std: [1.0; 3], ..Preprocessing::cifar() }
    }

    #[test]
    fn images_that_cannot_be_read_are_skipped_and_named() {
        let mut seen = 0;
        let mut observer = |images| {
            seen += images;
            ControlFlow::Continue(())
        };
        let extracted =
            extract(&Means, &plain(), &Ramps(600), Views::Plain, Unreadable::Skipped, &mut observer).unwrap();
        assert_eq!(seen, 600);
        assert_eq!(extracted.features.dims(), [400, 1, 4]);
        assert_eq!(extracted.kept[..4], [0, 1, 3, 4]);
        assert_eq!(extracted.skipped.len(), 200);
        assert_eq!(extracted.skipped[1].name, "image 5");
    }

    fn corners(images: usize, views: Views) -> Vec<Vec<f32>> {
        let mut observer = |_| ControlFlow::Continue(());
        let extracted = extract(&Means, &plain(), &Ramps(images), views, Unreadable::Skipped, &mut observer).unwrap();
        extracted.features.narrow(2, 3, 1).unwrap().squeeze(2).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn the_mirror_image_follows_the_image() {
        let mirror = Augmentation::mirror();
        let corners = corners(2, Views::Augmented { augmentation: &mirror, seed: 0 });
        assert_eq!(corners, [[0.0, 248.0 / 255.0]; 2]);
    }

    #[test]
    fn views_are_those_of_their_image_whatever_is_read_beside_it() {
        let augmentation = Augmentation { policy: "crop,flip,color".parse().unwrap(), views: 5 };
        let views = Views::Augmented { augmentation: &augmentation, seed: 9 };
        let all = corners(600, views);
        assert_eq!(all[..2], corners(2, views), "images 0 and 1");
        let image = 3; // the third that can be read
        let photo = Ramps(600).photo(image).unwrap();
        for (view, &found) in all[2][1..].iter().enumerate() {
            let draw = Draw { seed: 9, view: view as u64, image: image as u64 };
            assert_eq!(found, augmented(&photo, &plain(), 3, &augmentation.policy, draw).unwrap()[0]);
        }
        assert_ne!(all[0][1..], all[1][1..]);
    }

    #[test]
    fn an_observer_stops_the_run() {
        let result = extract(&Means, &plain(), &Ramps(10_000), Views::Plain, Unreadable::Skipped, &mut |_| {
            ControlFlow::Break(())
        });
        assert!(matches!(result, Err(Error::Interrupted)));
    }

    #[test]
    fn a_fatal_image_ends_the_run_where_it_is() {
        let mut seen = 0;
        let mut observer = |images| {
            seen += images;
            ControlFlow::Continue(())
        };
        let result = extract(&Means, &plain(), &Ramps(10_000), Views::Plain, Unreadable::Fatal, &mut observer);
        assert!(matches!(result, Err(Error::Strict(skipped)) if skipped.name == "image 2"));
        assert_eq!(seen, 0);
    }

    #[test]
    fn nothing_readable_is_an_error() {
        struct Broken;
        impl LabelledImages for Broken {
            fn len(&self) -> usize {
                1
            }
            fn label(&self, _: usize) -> usize {
                0
            }
            fn photo(&self, _: usize) -> std::result::Result<Photo, ImageError> {
                Err("empty file".into())
            }
            fn name(&self, _: usize) -> String {
                "a.jpg".into()
            }
        }
        let result =
            extract(&Means, &plain(), &Broken, Views::Plain, Unreadable::Skipped, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(Error::NoImages { skipped }) if skipped.len() == 1));
    }

    #[test]
    fn batches_hold_about_as_many_pixels_whatever_the_size() {
        assert_eq!([32, 224, 448, 4000].map(|crop| batch_size(crop, &Device::Cpu)), [256, 8, 2, 1]);
    }
}
