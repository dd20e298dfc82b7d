//! Labelled images from anywhere: what fine-tuning asks of a data set.
//!
//! [`Sample`]s of a scanned folder are one; implement [`LabelledImages`] for data of your own.

use std::fs;
use std::sync::OnceLock;

use candle_resnet::preprocess::{self, Photo};
use sha2::{Digest, Sha256};

use crate::dataset::{Dataset, Sample, SplitName};

/// Why an image could not be had.
pub type ImageError = Box<dyn std::error::Error + Send + Sync>;

/// Images with one label each, read by several threads at once.
///
/// A data set of one's own, here drawn rather than read:
///
/// ```
/// use candle_core::Device;
/// use candle_finetune::images::ImageError;
/// use candle_finetune::{LabelledImages, Settings, Splits, fine_tune};
/// use candle_resnet::Model;
/// use candle_resnet::preprocess::Photo;
///
/// struct Shades;
///
/// impl LabelledImages for Shades {
///     fn len(&self) -> usize {
///         20
///     }
///
///     fn label(&self, index: usize) -> usize {
///         index % 2
///     }
///
///     fn photo(&self, index: usize) -> Result<Photo, ImageError> {
///         let grey = if self.label(index) == 0 { 40 } else { 200 } + index as u8;
///         Photo::from_rgb8(32, 32, vec![grey; 32 * 32 * 3]).ok_or_else(|| "not 32×32 pixels".into())
///     }
///
///     fn name(&self, index: usize) -> String {
///         format!("shade {index}")
///     }
/// }
///
/// let model = Model::fresh("resnet20_cifar", 0)?;
/// let trunk = model.trunk(&Device::Cpu)?;
/// let splits = Splits { classes: vec!["dark".into(), "light".into()], train: &Shades, val: None, test: None };
/// let tuned = fine_tune(&trunk, &model.preprocessing, &splits, &Settings::default(), &mut ())?;
/// assert_eq!(tuned.trained.val.map(|val| val.top1), Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait LabelledImages: Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The label of an image, below the number of classes.
    fn label(&self, index: usize) -> usize;

    /// Reads an image.
    ///
    /// # Errors
    /// If it cannot be read; it is then skipped and reported, or ends the run where the settings are strict.
    fn photo(&self, index: usize) -> Result<Photo, ImageError>;

    /// What messages and records call an image: its path.
    fn name(&self, index: usize) -> String;

    /// A digest of what is read: what was computed of an image is kept under it. That of the pixels where nothing better is known.
    fn digest(&self, index: usize) -> [u8; 32] {
        match self.photo(index) {
            Ok(photo) => digest_of_pixels(&photo),
            Err(error) => Sha256::digest(error.to_string()).into(),
        }
    }
}

fn digest_of_pixels(photo: &Photo) -> [u8; 32] {
    let size = [photo.width(), photo.height()].map(|side| (side as u64).to_le_bytes()).concat();
    Sha256::new().chain_update(size).chain_update(photo.pixels()).finalize().into()
}

/// Files of a scanned folder.
impl LabelledImages for Vec<Sample> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn label(&self, index: usize) -> usize {
        self.as_slice().label(index)
    }

    fn photo(&self, index: usize) -> Result<Photo, ImageError> {
        self.as_slice().photo(index)
    }

    fn name(&self, index: usize) -> String {
        self.as_slice().name(index)
    }

    fn digest(&self, index: usize) -> [u8; 32] {
        self.as_slice().digest(index)
    }
}

/// Files of a scanned folder.
impl LabelledImages for &[Sample] {
    fn len(&self) -> usize {
        <[Sample]>::len(self)
    }

    fn label(&self, index: usize) -> usize {
        self[index].label
    }

    fn photo(&self, index: usize) -> Result<Photo, ImageError> {
        Ok(preprocess::decode(&self[index].path)?)
    }

    fn name(&self, index: usize) -> String {
        self[index].path.display().to_string()
    }

    fn digest(&self, index: usize) -> [u8; 32] {
        match fs::read(&self[index].path) {
            Ok(bytes) => Sha256::digest(bytes).into(),
            Err(error) => Sha256::digest(error.to_string()).into(),
        }
    }
}

/// Images whose contents are read for a digest once, however often that is asked for.
pub(crate) struct Digested<'a> {
    images: &'a dyn LabelledImages,
    digests: Vec<OnceLock<[u8; 32]>>,
}

impl<'a> Digested<'a> {
    pub(crate) fn new(images: &'a dyn LabelledImages) -> Digested<'a> {
        Digested { images, digests: vec![OnceLock::new(); images.len()] }
    }
}

impl LabelledImages for Digested<'_> {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn label(&self, index: usize) -> usize {
        self.images.label(index)
    }

    fn photo(&self, index: usize) -> Result<Photo, ImageError> {
        self.images.photo(index)
    }

    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }

    fn digest(&self, index: usize) -> [u8; 32] {
        *self.digests[index].get_or_init(|| self.images.digest(index))
    }
}

/// A data set as fine-tuning sees it.
pub struct Splits<'a> {
    /// Names of the classes, in the order of the labels.
    pub classes: Vec<String>,
    /// What trains.
    pub train: &'a dyn LabelledImages,
    /// What chooses the epoch; without it a part of `train` is held out.
    pub val: Option<&'a dyn LabelledImages>,
    /// What chooses nothing and is only measured at the end.
    pub test: Option<&'a dyn LabelledImages>,
}

impl<'a> Splits<'a> {
    /// The splits of a scanned folder. One without images counts as absent.
    pub fn of(dataset: &'a Dataset) -> Splits<'a> {
        static NOTHING: Vec<Sample> = Vec::new();
        let split = |name| dataset.splits.get(&name).filter(|samples| !samples.is_empty());
        let images = |samples: &'a Vec<Sample>| samples as &'a dyn LabelledImages;
        Splits {
            classes: dataset.classes.clone(),
            train: split(SplitName::Train).unwrap_or(&NOTHING),
            val: split(SplitName::Val).map(images),
            test: split(SplitName::Test).map(images),
        }
    }
}
