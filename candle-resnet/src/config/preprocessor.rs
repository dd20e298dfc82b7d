//! transformers' `preprocessor_config.json`: what happens to a photo.
//!
//! Sources: `transformers/models/convnext/image_processing_convnext.py`, which is what ResNets have, and the processors
//! that resize the shorter side and cut the centre (`BitImageProcessor`, `CLIPImageProcessor`). Where half of what is cut
//! off is no whole pixel, transformers rounds down; this crate rounds to even, as torchvision does.

use serde::Deserialize;

use super::{ConfigError, bad_value, deviation, from_json, statistic};
use crate::card::resize_side;
use crate::preprocess::{Interpolation, Preprocessing};

#[derive(Deserialize)]
struct RawPreprocessor {
    #[serde(alias = "feature_extractor_type")]
    image_processor_type: Option<String>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    size: Option<Size>,
    crop_size: Option<Size>,
    crop_pct: Option<f64>,
    /// Pillow's number of a filter.
    resample: Option<u8>,
    rescale_factor: Option<f64>,
    image_mean: Option<Statistic>,
    image_std: Option<Statistic>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(untagged)]
enum Size {
    /// Of the shorter side, or of a square.
    Side(usize),
    Shortest {
        shortest_edge: usize,
    },
    Fixed {
        height: usize,
        width: usize,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Statistic {
    One(f64),
    Each(Vec<f64>),
}

/// ConvNextImageProcessor's.
const DEFAULT_CROP_PCT: f64 = 224.0 / 256.0;

/// From this size on ConvNextImageProcessor squashes the whole photo into the square.
const SQUASHED_FROM: usize = 384;

/// Largest side of an input, in pixels; a wrong number must not ask for unbounded memory.
const LARGEST_SIDE: usize = 4096;

pub(super) fn parse(text: &str, channels: usize) -> Result<Preprocessing, ConfigError> {
    let raw: RawPreprocessor = from_json(text)?;
    raw.refuse_other_steps()?;
    let (resize, crop) = raw.sides()?;
    let (mean, std) = raw.statistics()?;
    Ok(Preprocessing { resize, crop, interpolation: raw.interpolation()?, mean, std }.for_channels(channels))
}

impl RawPreprocessor {
    fn refuse_other_steps(&self) -> Result<(), ConfigError> {
        if self.do_resize == Some(false) {
            return Err(bad_value("do_resize", false, "true"));
        }
        if self.do_rescale == Some(false) {
            return Err(bad_value("do_rescale", false, "true"));
        }
        match self.rescale_factor {
            Some(factor) if (factor * 255.0 - 1.0).abs() > 1e-6 => Err(bad_value("rescale_factor", factor, "1/255")),
            _ => Ok(()),
        }
    }

    /// What the shorter side is resized to, and the side of the square that is cut out.
    fn sides(&self) -> Result<(usize, usize), ConfigError> {
        let size = self.size.ok_or(ConfigError::Missing("size"))?;
        let shorter = match size {
            Size::Side(side) | Size::Shortest { shortest_edge: side } => side,
            Size::Fixed { .. } => return Err(bad_value("size", format!("{size:?}"), "the size of the shortest edge")),
        };
        let (resize, crop) =
            if self.is_convnext() { self.cropped_by_fraction(shorter)? } else { (shorter, self.crop()?) };
        if !(1..=LARGEST_SIDE).contains(&crop) || !(crop..100 * crop).contains(&resize) {
            return Err(bad_value("size", format!("{resize}, cut to {crop}"), "a cut of 1 to 4096 pixels out of more"));
        }
        Ok((resize, crop))
    }

    /// The processor that transformers gives ResNets.
    fn is_convnext(&self) -> bool {
        self.image_processor_type.as_deref().is_none_or(|name| name.starts_with("ConvNext"))
    }

    fn cropped_by_fraction(&self, crop: usize) -> Result<(usize, usize), ConfigError> {
        let crop_pct = self.crop_pct.unwrap_or(DEFAULT_CROP_PCT);
        if crop >= SQUASHED_FROM {
            return Err(bad_value("size", crop, "less than 384: from there on photos are squashed into a square"));
        }
        if !(crop_pct > 0.01 && crop_pct <= 1.0) {
            return Err(bad_value("crop_pct", crop_pct, "a fraction above 0.01 and at most 1"));
        }
        Ok((resize_side(crop, crop_pct), crop))
    }

    fn crop(&self) -> Result<usize, ConfigError> {
        let expected = "a square that is cut out of the centre";
        match self.crop_size.filter(|_| self.do_center_crop != Some(false)) {
            Some(Size::Side(side)) => Ok(side),
            Some(Size::Fixed { height, width }) if height == width => Ok(height),
            other => Err(bad_value("crop_size", format!("{other:?}"), expected)),
        }
    }

    fn interpolation(&self) -> Result<Interpolation, ConfigError> {
        match self.resample.ok_or(ConfigError::Missing("resample"))? {
            2 => Ok(Interpolation::Bilinear),
            3 => Ok(Interpolation::Bicubic),
            other => Err(bad_value("resample", other, "2 (bilinear) or 3 (bicubic)")),
        }
    }

    fn statistics(&self) -> Result<([f32; 3], [f32; 3]), ConfigError> {
        if self.do_normalize == Some(false) {
            return Ok(([0.0; 3], [1.0; 3]));
        }
        let mean = self.image_mean.as_ref().ok_or(ConfigError::Missing("image_mean"))?;
        let std = self.image_std.as_ref().ok_or(ConfigError::Missing("image_std"))?;
        Ok((statistic("image_mean", mean.values())?, deviation("image_std", std.values())?))
    }
}

impl Statistic {
    fn values(&self) -> &[f64] {
        match self {
            Statistic::One(value) => std::slice::from_ref(value),
            Statistic::Each(values) => values,
        }
    }
}
