//! Image augmentation for training, as torchvision and timm have it: photo → a view of it that is a little different.
//!
//! Every operation on pixels is equal to torchvision 0.29's on Pillow's images, to the last bit. What is drawn for a view is
//! a pure function of seed, view and image: neither threads nor what was drawn before can change it. The numbers are
//! not PyTorch's, their distribution is.
//!
//! ```
//! use candle_finetune::augment::{Draw, Policy, augmented};
//! use candle_resnet::preprocess::{Photo, Preprocessing};
//!
//! let photo = Photo::from_rgb8(300, 200, vec![90; 300 * 200 * 3]).ok_or("not 300×200 pixels")?;
//! let policy: Policy = "crop=0.25:1,flip,randaugment=2:9,erase=0.25".parse()?;
//! let draw = Draw { seed: 0, view: 7, image: 42 };
//! let input = augmented(&photo, &Preprocessing::imagenet(256, 224), 3, &policy, draw)?;
//! assert_eq!(input.len(), 3 * 224 * 224);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod area;
mod enhance;
mod error;
mod hue;
mod image;
mod levels;
mod operation;
mod policy;
mod steps;
mod text;
mod views;
mod warp;

use candle_resnet::preprocess::{Photo, Preprocessing, PreprocessingError};
use serde::{Deserialize, Serialize};

pub use error::AugmentError;
pub use policy::{AreaRange, Automatic, ColorJitter, Erasing, Framing, Policy, Range};
pub use views::ViewCount;

use crate::random::{chance, view_generator};

/// Augmented views of each image that are trained on: by a head beside the image itself, by a whole network in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// What happens to each view.
    pub policy: Policy,
    /// How many there are.
    pub views: ViewCount,
}

impl Augmentation {
    /// The mirror image.
    pub fn mirror() -> Augmentation {
        Augmentation { policy: Policy::mirror(), views: ViewCount::Kept(1) }
    }

    /// Whether every number is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<(), AugmentError> {
        match self.views {
            ViewCount::Kept(views) if !(1..=error::MAX_VIEWS).contains(&views) => Err(AugmentError::Views(views)),
            _ => self.policy.validate(),
        }
    }
}

/// Which view of which image: all that its randomness depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The run's seed.
    pub seed: u64,
    /// The view's number, or the epoch's.
    pub view: u64,
    /// The image's index.
    pub image: u64,
}

/// A view of `photo` as the input of a network of `channels` channels: `(channels, crop, crop)`, normalised.
///
/// # Errors
/// If photos cannot have that many channels.
pub fn augmented(
    photo: &Photo,
    preprocessing: &Preprocessing,
    channels: usize,
    policy: &Policy,
    draw: Draw,
) -> Result<Vec<f32>, PreprocessingError> {
    let mut planes = vec![0.0; channels * preprocessing.crop * preprocessing.crop];
    write_augmented(photo, preprocessing, channels, (policy, draw), &mut planes)?;
    Ok(planes)
}

/// [`augmented`], written to `planes`.
pub(crate) fn write_augmented(
    photo: &Photo,
    preprocessing: &Preprocessing,
    channels: usize,
    (policy, draw): (&Policy, Draw),
    planes: &mut [f32],
) -> Result<(), PreprocessingError> {
    let photo = photo.for_channels(channels)?;
    let random = &mut view_generator(draw.seed, draw.view, draw.image);
    let mut image = policy.framing.apply(&photo, preprocessing, random);
    if chance(random, policy.flip) {
        image = image.mirrored();
    }
    if chance(random, policy.vflip) {
        image = image.upside_down();
    }
    if let Some(automatic) = &policy.automatic {
        image = automatic.apply(image, random);
    }
    if let Some(color) = &policy.color {
        image = color.apply(image, random);
    }
    preprocessing.write_planes(image.bytes(), planes);
    if let Some(erase) = &policy.erase {
        erase.apply(planes, preprocessing.crop, random);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
