//! Image file → normalised tensor, as torchvision's evaluation transform does it.
//!
//! Knows nothing of networks and model cards: sizes, filter and statistics come in as a [`Preprocessing`].
//! The resize is Pillow's, bit for bit, and so are the decoded pixels of JPEG and of lossless formats. Lossy WebP comes
//! from another decoder and differs by a few levels.

mod channels;
mod decode;
mod encoding;
mod error;
mod geometry;
mod jpeg;
mod photo;
mod resample;
mod sniff;
mod vector;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub(crate) use channels::decimal;
pub use channels::{check_photo_channels, luma};
pub use decode::{MAX_DECODED_BYTES, MAX_FILE_BYTES, decode, decode_bytes, read};
pub use encoding::{Encoding, encoding};
pub use error::{PhotoError, PreprocessingError, Reason};
pub use photo::{Area, Note, Photo};

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The largest `resize` and `crop` that [`Preprocessing::validate`] lets through, in pixels.
pub const MAX_SIDE: usize = 8192;

/// The filter of the resize, named as timm's and torchvision's configurations name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Pillow's `BILINEAR`: a triangle, widened when shrinking.
    Bilinear,
    /// Pillow's `BICUBIC`: Keys' cubic with a = −1/2, widened when shrinking.
    Bicubic,
}

/// What turns a photo into a network's input: resize, centre crop, normalise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// The shorter side after the resize, in pixels.
    pub resize: usize,
    /// The side of the central square that is kept, in pixels. What lies beyond the image is black.
    pub crop: usize,
    /// The filter of the resize.
    pub interpolation: Interpolation,
    /// Subtracted from each channel (red, green, blue) of a pixel in 0..=1.
    pub mean: [f32; 3],
    /// Each channel is divided by it after that.
    pub std: [f32; 3],
}

impl Preprocessing {
    /// ImageNet's statistics and a bilinear resize: torchvision's transform for its first weights is `imagenet(256, 224)`.
    pub const fn imagenet(resize: usize, crop: usize) -> Self {
        Self { resize, crop, interpolation: Interpolation::Bilinear, mean: IMAGENET_MEAN, std: IMAGENET_STD }
    }

    /// 32×32 images as they are, with ImageNet's statistics.
    pub const fn cifar() -> Self {
        Self::imagenet(32, 32)
    }

    /// Refuses what cannot be meant; worth a call on settings that come from a file.
    ///
    /// # Errors
    /// A side of zero or beyond [`MAX_SIDE`], a mean that is not finite, a standard deviation that is not positive.
    pub fn validate(&self) -> Result<(), PreprocessingError> {
        check_side("resize", self.resize)?;
        check_side("crop", self.crop)?;
        if let Some(&found) = self.mean.iter().find(|mean| !mean.is_finite()) {
            return Err(PreprocessingError::Mean { found });
        }
        match self.std.iter().find(|&&std| !(std.is_finite() && std > 0.0)) {
            Some(&found) => Err(PreprocessingError::Std { found }),
            None => Ok(()),
        }
    }

    /// The photo as `(3, crop, crop)`, row-major: `(pixel / 255 - mean) / std`.
    pub fn apply(&self, photo: &Photo) -> Vec<f32> {
        self.normalise(&self.pixels(photo))
    }

    /// The photo as `(crop, crop, 3)` bytes: what [`apply`](Self::apply) normalises.
    pub fn pixels(&self, photo: &Photo) -> Vec<u8> {
        let (x, y) = geometry::axes(photo.width(), photo.height(), self.resize, self.crop);
        if self.crop == 0 {
            return Vec::new();
        }
        let window = resample::resample(photo.pixels(), &x, &y, self.interpolation);
        pad(window, &x, &y, self.crop)
    }

    /// The whole photo as `(crop, crop, 3)` bytes, whatever its proportions: torchvision's `resize` to a square.
    pub fn squashed(&self, photo: &Photo) -> Vec<u8> {
        if self.crop == 0 {
            return Vec::new();
        }
        let [x, y] = [photo.width(), photo.height()].map(|side| geometry::Axis::whole(side, self.crop));
        resample::resample(photo.pixels(), &x, &y, self.interpolation)
    }

    /// `(crop, crop, 3)` bytes → `(3, crop, crop)`, `(pixel / 255 - mean) / std` in f32 as PyTorch rounds it.
    ///
    /// Takes any number of pixels, so that flipped or otherwise changed views can go through it too.
    pub fn normalise(&self, pixels: &[u8]) -> Vec<f32> {
        self.planes(pixels, 3)
    }

    /// [`decode`], then [`apply`](Self::apply); with what is worth telling about the file.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn load(&self, path: &Path) -> Result<(Vec<f32>, Vec<Note>), PhotoError> {
        let photo = decode(path)?;
        Ok((self.apply(&photo), photo.into_notes()))
    }

    /// What each of the 256 levels of a channel becomes.
    fn levels(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|level| (level as f32 / 255.0 - self.mean[channel]) / self.std[channel])
    }
}

fn check_side(name: &'static str, found: usize) -> Result<(), PreprocessingError> {
    if (1..=MAX_SIDE).contains(&found) { Ok(()) } else { Err(PreprocessingError::Side { name, found }) }
}

/// Puts the window into a black square of side `crop`.
fn pad(window: Vec<u8>, x: &geometry::Axis, y: &geometry::Axis, crop: usize) -> Vec<u8> {
    if x.len() == crop && y.len() == crop {
        return window;
    }
    let mut square = vec![0; crop * crop * 3];
    let rows = square.chunks_exact_mut(crop * 3).skip(y.padding);
    for (row, filled) in rows.zip(window.chunks_exact(x.len() * 3)) {
        row[x.padding * 3..][..filled.len()].copy_from_slice(filled);
    }
    square
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, level: u8) -> Photo {
        Photo::from_rgb8(width, height, vec![level; width * height * 3]).unwrap()
    }

    #[test]
    fn flat_photo_stays_flat_whatever_its_shape() {
        for (width, height) in [(1, 1), (1, 5000), (5000, 1), (31, 33), (32, 32), (640, 480)] {
            for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
                let recipe = Preprocessing { interpolation, ..Preprocessing::imagenet(32, 32) };
                assert_eq!(recipe.pixels(&grey(width, height, 77)), vec![77; 32 * 32 * 3], "{width}×{height}");
            }
        }
    }

    #[test]
    fn squashing_a_square_is_resizing_it() {
        let pixels = (0..40 * 40 * 3).map(|index| (index * 7 % 251) as u8).collect();
        let photo = Photo::from_rgb8(40, 40, pixels).unwrap();
        let recipe = Preprocessing::imagenet(24, 24);
        assert_eq!(recipe.squashed(&photo), recipe.pixels(&photo));
        assert_eq!(recipe.squashed(&grey(1, 60_000, 5)), vec![5; 24 * 24 * 3]);
        assert!(Preprocessing::imagenet(0, 0).squashed(&photo).is_empty());
    }

    #[test]
    fn absurdly_long_photo_needs_no_memory_for_what_is_cropped_away() {
        // The resized image would be 8192 × 491,520,000 pixels.
        let recipe = Preprocessing::imagenet(MAX_SIDE, 8);
        assert_eq!(recipe.pixels(&grey(1, 60_000, 5)), vec![5; 8 * 8 * 3]);
    }

    #[test]
    fn crop_beyond_the_image_is_black() {
        let pixels = Preprocessing::imagenet(2, 5).pixels(&grey(2, 2, 9));
        let row = |filled| if filled { [0, 9, 9, 0, 0] } else { [0; 5] };
        let expected = [false, true, true, false, false].map(row).concat();
        assert_eq!(pixels, expected.iter().flat_map(|&level| [level; 3]).collect::<Vec<_>>());
    }

    #[test]
    fn tensor_is_planar_and_normalised() {
        let photo = Photo::from_rgb8(2, 1, vec![0, 51, 102, 255, 204, 153]).unwrap();
        let recipe = Preprocessing { mean: [0.0, 0.2, 0.5], std: [1.0, 2.0, 0.5], ..Preprocessing::imagenet(1, 1) };
        let planes = recipe.normalise(photo.pixels());
        let expected = [0.0, 1.0, 0.0, 0.3, -0.2, 0.2];
        assert!(planes.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{planes:?}");
    }

    #[test]
    fn empty_crop_gives_no_pixels_and_is_refused_by_validate() {
        let recipe = Preprocessing::imagenet(0, 0);
        assert!(recipe.apply(&grey(3, 3, 1)).is_empty());
        assert_eq!(recipe.validate().unwrap_err().to_string(), "`resize` is 0, expected 1 to 8192 pixels");
    }

    #[test]
    fn statistics_that_cannot_normalise_are_refused() {
        let zero = Preprocessing { std: [1.0, 0.0, 1.0], ..Preprocessing::cifar() };
        assert!(matches!(zero.validate(), Err(PreprocessingError::Std { found: 0.0 })));
        let nan = Preprocessing { mean: [f32::NAN; 3], ..Preprocessing::cifar() };
        assert!(matches!(nan.validate(), Err(PreprocessingError::Mean { .. })));
        assert!(Preprocessing::imagenet(256, 224).validate().is_ok());
    }

    #[test]
    fn settings_survive_json_and_name_the_filter_as_timm_does() {
        let recipe = Preprocessing { interpolation: Interpolation::Bicubic, ..Preprocessing::imagenet(235, 224) };
        let json = serde_json::to_string(&recipe).unwrap();
        assert!(json.contains(r#""interpolation":"bicubic""#), "{json}");
        assert_eq!(serde_json::from_str::<Preprocessing>(&json).unwrap(), recipe);
    }
}
