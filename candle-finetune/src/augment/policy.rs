//! Which augmentations a view goes through: their settings, and the text that names them.
//!
//! The order is timm's whatever the text's is: crop, flips, RandAugment or TrivialAugment, colour jitter, normalisation,
//! erasing. Numbers that are left out are torchvision's, where it has a default.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use super::area::AreaRange;
use super::error::AugmentError;
use super::text;

/// What happens to a view of an image.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    /// The part of the photo that is seen.
    pub framing: Framing,
    /// How likely left becomes right.
    pub flip: f64,
    /// How likely top becomes bottom.
    pub vflip: f64,
    /// Operations chosen at random.
    pub automatic: Option<Automatic>,
    /// Changes of colour.
    pub color: Option<ColorJitter>,
    /// A part that is hidden.
    pub erase: Option<Erasing>,
}

/// The part of a photo that is seen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Framing {
    /// The middle, as in evaluation.
    #[default]
    Center,
    /// Any part, resized: torchvision's `RandomResizedCrop`.
    ResizedCrop(AreaRange),
    /// The middle, shifted in both directions by up to so many pixels; black comes in: torchvision's `RandomCrop` with a
    /// padding, after the transform of evaluation.
    PaddedCrop {
        /// Pixels.
        padding: u16,
    },
}

/// Operations that are chosen at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Automatic {
    /// torchvision's `RandAugment`.
    RandAugment {
        /// How many, one after the other.
        operations: u8,
        /// How strong, from 0 to 30.
        magnitude: u8,
    },
    /// torchvision's `TrivialAugmentWide`.
    TrivialWide,
}

/// How far colours may change: torchvision's `ColorJitter`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColorJitter {
    /// How far the factor of the brightness may be from 1.
    pub brightness: f64,
    /// How far the factor of the contrast may be from 1.
    pub contrast: f64,
    /// How far the factor of the saturation may be from 1.
    pub saturation: f64,
    /// How far the hue may turn, as a part of the circle, up to ½.
    pub hue: f64,
}

/// A part that is hidden behind the mean colour: torchvision's `RandomErasing`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Erasing {
    /// How likely that is.
    pub probability: f64,
    /// Size and shape.
    pub area: AreaRange,
}

/// From one number to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lower.
    pub low: f64,
    /// The higher.
    pub high: f64,
}

impl Policy {
    /// The mirror image, always.
    pub fn mirror() -> Policy {
        Policy { flip: 1.0, ..Policy::default() }
    }

    /// Refuses numbers that cannot be meant, and a policy that changes nothing.
    ///
    /// # Errors
    /// The first of them.
    pub fn validate(&self) -> Result<(), AugmentError> {
        if *self == Policy::default() {
            return Err(AugmentError::Empty);
        }
        check("flip", "probability", self.flip, 0.0, 1.0)?;
        check("vflip", "probability", self.vflip, 0.0, 1.0)?;
        if let Framing::ResizedCrop(area) = &self.framing {
            area.validate("crop")?;
        }
        if let Some(Automatic::RandAugment { magnitude, .. }) = self.automatic {
            check("randaugment", "magnitude", magnitude.into(), 0.0, super::operation::STRONGEST.into())?;
        }
        if let Some(ColorJitter { brightness, contrast, saturation, hue }) = self.color {
            for (what, jitter) in [("brightness", brightness), ("contrast", contrast), ("saturation", saturation)] {
                check("color", what, jitter, 0.0, 100.0)?;
            }
            check("color", "hue", hue, 0.0, 0.5)?;
        }
        if let Some(erase) = &self.erase {
            check("erase", "probability", erase.probability, 0.0, 1.0)?;
            erase.area.validate("erase")?;
        }
        Ok(())
    }
}

impl AreaRange {
    fn validate(&self, step: &'static str) -> Result<(), AugmentError> {
        check(step, "smallest area", self.scale.low, 0.0, 1.0)?;
        check(step, "largest area", self.scale.high, self.scale.low, 1.0)?;
        check(step, "lowest ratio", self.ratio.low, 0.001, 1000.0)?;
        check(step, "highest ratio", self.ratio.high, self.ratio.low, 1000.0)
    }
}

pub(super) fn check(
    step: &'static str,
    what: &'static str,
    found: f64,
    low: f64,
    high: f64,
) -> Result<(), AugmentError> {
    if (low..=high).contains(&found) { Ok(()) } else { Err(AugmentError::Number { step, what, found, low, high }) }
}

impl FromStr for Policy {
    type Err = AugmentError;

    fn from_str(text: &str) -> Result<Policy, AugmentError> {
        let policy = text::parse(text)?;
        policy.validate()?;
        Ok(policy)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::print(self))
    }
}

impl TryFrom<String> for Policy {
    type Error = AugmentError;

    fn try_from(text: String) -> Result<Policy, AugmentError> {
        text.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> String {
        policy.to_string()
    }
}
