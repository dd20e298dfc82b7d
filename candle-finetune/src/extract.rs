//! Images → features: every image goes through a frozen network once, in as many views as asked for.
//!
//! Does not know what the network is; `reading` decodes one batch ahead of it.

use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;

use candle_core::{Device, Tensor};
use candle_resnet::FeatureExtractor;
use candle_resnet::preprocess::{Note, Preprocessing, check_photo_channels};

use crate::augment::Policy;
use crate::error::{Error, Result};
use crate::halving::halved_where_memory_is_short;
use crate::images::LabelledImages;
use crate::reading::{Augmenter, Pixels, Reader, Sight, View};
pub use crate::reading::{Skipped, Unreadable};
use crate::staging::Staging;

/// Which views of each image go through the network.
#[derive(Debug, Clone, Copy)]
pub enum Views<'a> {
    /// The image as it is.
    Plain,
    /// The image as it is, and augmented views behind it, numbered from 0.
    Augmented {
        /// How they are made.
        policy: &'a Policy,
        /// How many there are.
        count: usize,
        /// Decides what is drawn for them.
        seed: u64,
    },
}

impl Views<'_> {
    /// V: views of each image, itself included.
    pub fn count(self) -> usize {
        match self {
            Views::Plain => 1,
            Views::Augmented { count, .. } => 1 + count,
        }
    }

    /// All views of `images`, those of an image one after the other.
    fn sights(self, images: std::ops::Range<usize>) -> Vec<Sight> {
        let views =
            (0..self.count()).map(|view| view.checked_sub(1).map_or(View::Plain, |v| View::Augmented(v as u64)));
        images.flat_map(|image| views.clone().map(move |view| Sight { image, view })).collect()
    }
}

impl<'a> Views<'a> {
    fn augmenter(self) -> Option<Augmenter<'a>> {
        match self {
            Views::Plain => None,
            Views::Augmented { policy, seed, .. } => Some(Augmenter { policy, seed }),
        }
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

/// What happens on the way, for a progress bar and for stopping.
pub type ExtractObserver<'a> = dyn FnMut(usize) -> ControlFlow<()> + 'a;

/// Features of images that went through the network together.
#[derive(Debug)]
pub struct FeatureBatch {
    /// (n · V, D) f32 on the trunk's device, the views of an image one after the other; none where nothing could be read.
    pub features: Option<Tensor>,
    /// Index of each of the n images in what was asked for, ascending.
    pub kept: Vec<usize>,
    /// Images that could not be read, in the order of what was asked for.
    pub skipped: Vec<Skipped>,
    /// What is worth knowing of images that were read.
    pub notes: Vec<(String, Note)>,
}

impl FeatureBatch {
    /// Images of the batch, those that could not be read included.
    pub fn images(&self) -> usize {
        self.kept.len() + self.skipped.len()
    }

    /// Of each image, of which the first is number `first` of what was asked for: its row of the features, of which it has one, or why it
    /// has none.
    pub fn rows(self, first: usize) -> Vec<std::result::Result<usize, Skipped>> {
        let images = first..first + self.images();
        let (mut kept, mut skipped) = (self.kept.into_iter().zip(0..).peekable(), self.skipped.into_iter());
        let row = |image| match kept.next_if(|&(kept, _)| kept == image) {
            Some((_, row)) => Some(Ok(row)),
            None => skipped.next().map(Err),
        };
        images.filter_map(row).collect()
    }
}

/// Is given one batch after the other, and may stop the run.
pub type BatchObserver<'a> = dyn FnMut(FeatureBatch) -> Result<ControlFlow<()>> + 'a;

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
    let mut collected = Collected::default();
    extract_each(trunk, preprocessing, images, views, unreadable, &mut |batch| {
        let images = batch.images();
        collected.add(batch)?;
        Ok(observer(images))
    })?;
    collected.finish(trunk, views.count(), images, unreadable)
}

/// Computes the features of `images` and hands them on batch by batch, in order, while the next are read.
///
/// # Errors
/// As [`extract`], but that nothing readable is none; and those of `observer`.
pub fn extract_each(
    trunk: &dyn FeatureExtractor,
    preprocessing: &Preprocessing,
    images: &dyn LabelledImages,
    views: Views<'_>,
    unreadable: Unreadable,
    observer: &mut BatchObserver<'_>,
) -> Result<()> {
    let channels = trunk.in_channels();
    check_photo_channels(channels).map_err(candle_resnet::Error::from)?;
    let step = batch_size(preprocessing.crop, trunk.device()).div_ceil(views.count());
    let reader = Reader { images, preprocessing, channels, augmentation: views.augmenter(), unreadable };
    let batches = (0..images.len()).step_by(step).map(|start| views.sights(start..images.len().min(start + step)));
    reader.ahead(&Staging::towards(trunk.device()), batches, |pixels| {
        run_over(trunk, preprocessing.crop, pixels, observer)
    })
}

/// Images of `crop`² pixels that go through the network at once: as many pixels as eight of 224² on a CPU, whose caches
/// they should fit, and as 64 on a GPU, which wants work; at most 256 images, of which every view counts as one.
pub fn batch_size(crop: usize, device: &Device) -> usize {
    let images = if device.is_cpu() { 8 } else { 64 };
    (images * 224 * 224 / (crop * crop).max(1)).clamp(1, 256)
}

/// Batches whose features are brought back from a GPU together: it need not be waited for after each.
const BLOCK: usize = 16;

/// Features of one batch after the other.
#[derive(Default)]
pub(crate) struct Collected {
    features: Vec<f32>, // (N, V, D)
    /// Those behind that are on the device still.
    waiting: Vec<Tensor>,
    kept: Vec<usize>,
    skipped: Vec<Skipped>,
    notes: Vec<(String, Note)>,
}

/// Runs the network over every batch as it comes.
fn run_over(
    trunk: &dyn FeatureExtractor,
    crop: usize,
    batches: Receiver<Result<Pixels>>,
    observer: &mut BatchObserver<'_>,
) -> Result<()> {
    let mut stopped = false;
    for batch in batches {
        // Whoever stops while the last batch is computed loses nothing.
        if stopped {
            return Err(Error::Interrupted);
        }
        let mut batch = batch?;
        let images = batch.tensor(trunk.in_channels(), crop, trunk.device())?;
        let features = |images| halved_where_memory_is_short(&images, &mut |images| trunk.features(images));
        let features = images.map(features).transpose()?;
        let kept = batch.read_images().collect();
        stopped = observer(FeatureBatch { features, kept, skipped: batch.skipped, notes: batch.notes })?.is_break();
    }
    Ok(())
}

impl Collected {
    pub(crate) fn add(&mut self, batch: FeatureBatch) -> Result<()> {
        self.waiting.extend(batch.features);
        if self.waiting.iter().any(|features| features.device().is_cpu()) || self.waiting.len() == BLOCK {
            self.bring_back()?;
        }
        self.kept.extend(batch.kept);
        self.skipped.extend(batch.skipped);
        self.notes.extend(batch.notes);
        Ok(())
    }

    fn bring_back(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.features.extend(Tensor::cat(&self.waiting, 0)?.flatten_all()?.to_vec1::<f32>()?);
            self.waiting.clear();
        }
        Ok(())
    }

    /// Of images of so many values each.
    fn leave_out_non_finite(
        &mut self,
        values: usize,
        images: &dyn LabelledImages,
        unreadable: Unreadable,
    ) -> Result<()> {
        if all_finite(&self.features) {
            return Ok(());
        }
        let (all, features) = (std::mem::take(&mut self.kept), std::mem::take(&mut self.features));
        for (image, features) in all.into_iter().zip(features.chunks(values)) {
            if all_finite(features) {
                self.kept.push(image);
                self.features.extend(features);
                continue;
            }
            let skipped = Skipped::non_finite(images.name(image));
            if unreadable == Unreadable::Fatal {
                return Err(Error::Strict(skipped));
            }
            self.skipped.push(skipped);
        }
        Ok(())
    }

    /// All that `trunk` gave of so many `views` of each of `images`. Those of which it gave no numbers are as good as unreadable.
    ///
    /// # Errors
    /// [`Error::NoImages`] if none is left; [`Error::Strict`].
    pub(crate) fn finish(
        mut self,
        trunk: &dyn FeatureExtractor,
        views: usize,
        images: &dyn LabelledImages,
        unreadable: Unreadable,
    ) -> Result<Extracted> {
        self.bring_back()?;
        self.leave_out_non_finite(views * trunk.feature_width(), images, unreadable)?;
        if self.kept.is_empty() {
            return Err(Error::NoImages { skipped: self.skipped });
        }
        let shape = (self.kept.len(), views, trunk.feature_width());
        let features = Tensor::from_vec(self.features, shape, trunk.device())?;
        Ok(Extracted { features, kept: self.kept, skipped: self.skipped, notes: self.notes })
    }
}

/// Whether all of them are numbers; without an early end, which would keep the loop from being vectorised.
fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |finite, value| finite & value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::{Draw, augmented};
    use crate::images::ImageError;
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

    /// As `Means`, but that bright images leave the range of numbers.
    struct Overflowing;

    impl FeatureExtractor for Overflowing {
        fn feature_width(&self) -> usize {
            4
        }

        fn device(&self) -> &Device {
            &Device::Cpu
        }

        fn features(&self, images: &Tensor) -> candle_core::Result<Tensor> {
            let features = Means.features(images)?;
            features.broadcast_mul(&features.narrow(1, 0, 1)?.affine(1e38, 0.0)?.affine(4.0, 0.0)?)
        }
    }

    /// Images of one colour, every other one of black.
    struct Colours(usize);

    impl LabelledImages for Colours {
        fn len(&self) -> usize {
            self.0
        }

        fn label(&self, _: usize) -> usize {
            0
        }

        fn photo(&self, index: usize) -> std::result::Result<Photo, ImageError> {
            let value = if index.is_multiple_of(2) { 0 } else { 255 };
            Photo::from_rgb8(32, 32, vec![value; 32 * 32 * 3]).ok_or_else(|| "wrong size".into())
        }

        fn name(&self, index: usize) -> String {
            format!("image {index}")
        }
    }

    #[test]
    fn images_whose_features_are_no_numbers_are_skipped_and_named() {
        let extracted = |unreadable| {
            extract(&Overflowing, &plain(), &Colours(5), Views::Plain, unreadable, &mut |_| ControlFlow::Continue(()))
        };
        let found = extracted(Unreadable::Skipped).unwrap();
        assert_eq!((found.kept, found.features.dims()), (vec![0, 2, 4], &[3, 1, 4][..]));
        assert_eq!(found.features.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0; 12]);
        let reasons: Vec<String> = found.skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
        assert_eq!(reasons, [1, 3].map(|image| format!("image {image}: the network's outputs are not finite")));
        let strict = extracted(Unreadable::Fatal).map(|_| ()).unwrap_err();
        assert_eq!(strict.to_string(), "image 1: the network's outputs are not finite");
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

    #[test]
    fn every_image_of_a_batch_has_a_row_or_a_reason() {
        let mut first = 0;
        extract_each(&Means, &plain(), &Ramps(600), Views::Plain, Unreadable::Skipped, &mut |batch| {
            let images = batch.images();
            let rows = batch.rows(first);
            assert_eq!(rows.len(), images);
            let mut next = 0;
            for (image, row) in (first..).zip(rows) {
                match row {
                    Ok(row) => assert_eq!((row, image % 3 == 2), (next, false)),
                    Err(skipped) => assert_eq!(skipped.name, format!("image {image}")),
                }
                next += usize::from(image % 3 != 2);
            }
            first += images;
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(first, 600);
    }

    fn corners(images: usize, views: Views) -> Vec<Vec<f32>> {
        let mut observer = |_| ControlFlow::Continue(());
        let extracted = extract(&Means, &plain(), &Ramps(images), views, Unreadable::Skipped, &mut observer).unwrap();
        extracted.features.narrow(2, 3, 1).unwrap().squeeze(2).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn the_mirror_image_follows_the_image() {
        let corners = corners(2, Views::Augmented { policy: &Policy::mirror(), count: 1, seed: 0 });
        assert_eq!(corners, [[0.0, 248.0 / 255.0]; 2]);
    }

    #[test]
    fn views_are_those_of_their_image_whatever_is_read_beside_it() {
        let policy: Policy = "crop,flip,color".parse().unwrap();
        let views = Views::Augmented { policy: &policy, count: 5, seed: 9 };
        let all = corners(600, views);
        assert_eq!(all[..2], corners(2, views), "images 0 and 1");
        let image = 3; // the third that can be read
        let photo = Ramps(600).photo(image).unwrap();
        for (view, &found) in all[2][1..].iter().enumerate() {
            let draw = Draw { seed: 9, view: view as u64, image: image as u64 };
            assert_eq!(found, augmented(&photo, &plain(), 3, &policy, draw).unwrap()[0]);
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
