//! The pixels of one built-in photo beside those that torchvision's transform makes of it.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::preprocess::{Interpolation, PhotoError, Preprocessing, decode_bytes};

const PHOTO: &[u8] = include_bytes!(concat!(env!("MODELS"), "/references/photo.png"));
const REFERENCES: &str = include_str!(concat!(env!("MODELS"), "/references/pixels.jsonl"));

/// What torchvision's evaluation transform makes of the built-in photo.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PixelReference {
    resize: usize,
    crop: usize,
    interpolation: Interpolation,
    mean: [f32; 3],
    std: [f32; 3],
    pixels_sha256: String,
    input_sha256: String,
    /// Rows, and columns, whose pixels are given.
    grid: Vec<usize>,
    /// Row by row, red, green and blue, hexadecimal.
    pixels: String,
}

/// How far the pixels are from a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixelDifference {
    /// Whether every pixel is the reference's.
    pub pixels_equal: bool,
    /// Whether the normalised tensor is the reference's to the last bit; `None` where the reference has other statistics.
    pub input_equal: Option<bool>,
    /// The largest difference at the grid of pixels that the reference holds, in levels of 255.
    pub largest: u8,
}

impl PixelDifference {
    /// Whether all that could be compared is equal.
    pub fn passes(&self) -> bool {
        self.pixels_equal && self.input_equal != Some(false)
    }
}

#[derive(Deserialize)]
struct Versions {
    program: String,
}

impl PixelReference {
    /// Every reference that ships with the program.
    pub fn built_in() -> Vec<PixelReference> {
        // The file is built into the program, and a test parses it.
        REFERENCES.lines().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The reference for a preprocessing; failing that, one that differs in mean and standard deviation only.
    pub fn of(preprocessing: &Preprocessing) -> Option<PixelReference> {
        let references = PixelReference::built_in();
        let found = references.iter().find(|reference| reference.preprocessing() == *preprocessing);
        found.or_else(|| references.iter().find(|reference| reference.cuts_alike(preprocessing))).cloned()
    }

    /// The programs and versions that made the references.
    pub fn program() -> String {
        let versions = REFERENCES.lines().next().and_then(|line| serde_json::from_str(line).ok());
        versions.map_or_else(String::new, |Versions { program }| program)
    }

    /// The preprocessing that it is a reference for.
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            resize: self.resize,
            crop: self.crop,
            interpolation: self.interpolation,
            mean: self.mean,
            std: self.std,
        }
    }

    fn cuts_alike(&self, other: &Preprocessing) -> bool {
        (self.resize, self.crop, self.interpolation) == (other.resize, other.crop, other.interpolation)
    }

    /// Puts the built-in photo through `preprocessing` and compares.
    ///
    /// # Errors
    /// If the photo cannot be decoded.
    pub fn compare(&self, preprocessing: &Preprocessing) -> Result<PixelDifference, PhotoError> {
        let pixels = preprocessing.pixels(&decode_bytes(PHOTO, "the built-in photo".as_ref())?);
        let input = || preprocessing.normalise(&pixels).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        let same_statistics = self.preprocessing() == *preprocessing;
        Ok(PixelDifference {
            pixels_equal: sha256(&pixels) == self.pixels_sha256,
            input_equal: same_statistics.then(|| sha256(&input()) == self.input_sha256),
            largest: self.largest_difference(&pixels),
        })
    }

    fn largest_difference(&self, pixels: &[u8]) -> u8 {
        let places = self.grid.iter().flat_map(|row| self.grid.iter().map(move |column| row * self.crop + column));
        let ours = places.flat_map(|place| (0..3).map(move |channel| pixels.get(3 * place + channel)));
        let theirs = self.pixels.as_bytes().chunks_exact(2).map(hexadecimal);
        let differences = ours.zip(theirs).map(|(ours, theirs)| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.abs_diff(theirs),
            _ => u8::MAX,
        });
        differences.max().unwrap_or(u8::MAX)
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::ARCHITECTURES;
    use crate::catalogue::Catalogue;

    #[test]
    fn every_cards_preprocessing_has_a_reference() {
        assert_eq!(PixelReference::built_in().len(), REFERENCES.lines().count() - 1);
        assert_eq!(PixelReference::program(), "torchvision 0.29.2, Pillow 13.0.0");
        let cards = Catalogue::built_in();
        let cards = cards.cards().iter().map(|card| card.preprocessing());
        for preprocessing in cards.chain(ARCHITECTURES.iter().map(|architecture| architecture.default_preprocessing()))
        {
            let reference = PixelReference::of(&preprocessing).unwrap_or_else(|| panic!("{preprocessing:?}"));
            assert_eq!(reference.preprocessing(), preprocessing);
        }
    }

    #[test]
    fn other_statistics_leave_the_pixels_comparable() {
        let preprocessing = Preprocessing { mean: [0.1, 0.2, 0.3], ..Preprocessing::imagenet(256, 224) };
        let difference = PixelReference::of(&preprocessing).unwrap().compare(&preprocessing).unwrap();
        assert_eq!(difference, PixelDifference { pixels_equal: true, input_equal: None, largest: 0 });
        assert!(difference.passes());
        assert_eq!(PixelReference::of(&Preprocessing::imagenet(257, 224)), None);
    }

    #[test]
    fn another_filter_fails() {
        let bilinear = Preprocessing::imagenet(256, 224);
        let bicubic = Preprocessing { interpolation: Interpolation::Bicubic, ..bilinear.clone() };
        let difference = PixelReference::of(&bilinear).unwrap().compare(&bicubic).unwrap();
        assert!(!difference.passes() && !difference.pixels_equal && difference.largest > 5, "{difference:?}");
    }

    #[test]
    fn another_mean_fails() {
        let bilinear = Preprocessing::imagenet(256, 224);
        let mut reference = PixelReference::of(&bilinear).unwrap();
        reference.input_sha256 = "0".repeat(64);
        let difference = reference.compare(&bilinear).unwrap();
        assert_eq!(difference, PixelDifference { pixels_equal: true, input_equal: Some(false), largest: 0 });
        assert!(!difference.passes());
    }
}
