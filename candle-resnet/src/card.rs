//! Model cards: what belongs to one trained file rather than to its architecture.
//!
//! Describes one card; the [`Catalogue`](crate::catalogue::Catalogue) holds them all.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::preprocess::{Interpolation, Preprocessing};

/// One trained file for one architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// `architecture.tag`: `resnet50.tv2_in1k`.
    pub name: String,
    /// `resnet50`.
    pub architecture: String,
    /// Repository on the Hub: `timm/resnet50.tv2_in1k`; `None` where the file lies in the card's folder or is built into the
    /// program.
    pub repository: Option<String>,
    /// Branch, tag or commit of the repository; `None` for the main branch.
    pub revision: Option<String>,
    /// File in the repository or in the card's folder, or name of the one that is built in.
    pub file: String,
    /// Outputs of the classifier; 0 where the file holds none and offers features only.
    pub classes: usize,
    /// Names of the classes, where they are known.
    pub labels: Option<CardLabels>,
    /// Name of the first convolution: `conv1.0` where the stem is deep.
    pub first_conv: String,
    /// Name of the classifier.
    pub classifier: String,
    /// Side of the square that the weights are evaluated with, in pixels.
    pub input_size: usize,
    /// `input_size` over the side that the shorter side of a photo is resized to.
    pub crop_pct: f64,
    /// How a photo is resized.
    pub interpolation: Interpolation,
    /// Subtracted from each channel, of values in 0..1.
    pub mean: [f32; 3],
    /// Each channel is divided by it.
    pub std: [f32; 3],
    /// Parameters with the classifier, without running statistics.
    pub parameters: usize,
    /// Multiply-adds of convolutions, attentions and the classifier for one image of `input_size`.
    pub macs: u64,
    /// Licence of the weights, as SPDX names it in lower case.
    pub license: Option<String>,
    /// Where the weights come from.
    pub origin_url: Option<String>,
    /// Reported top-1 accuracy, a fraction: on ImageNet's validation images, unless the source names others.
    pub top1: Option<f64>,
    /// Who reported it.
    pub top1_source: Option<String>,
    /// How the weights were trained.
    pub training: Option<String>,
    /// Where a private card lies; `None` for those that ship with the program.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
}

/// The names of a card's classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected the name of a label set or a list of names")]
pub enum CardLabels {
    /// A [`LabelSet`](crate::labels::LabelSet), by its name.
    Set(String),
    /// Names of the card's own, in the order of the outputs.
    Names(Vec<String>),
}

impl ModelCard {
    /// The part of the name after the architecture: `tv2_in1k`.
    pub fn tag(&self) -> &str {
        self.name.strip_prefix(&self.architecture).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default()
    }

    /// Whether the weights are built into the program.
    pub fn is_embedded(&self) -> bool {
        self.repository.is_none() && self.folder.is_none()
    }

    /// Whether the licence forbids commercial use.
    pub fn is_non_commercial(&self) -> bool {
        self.license.as_deref().is_some_and(|license| license.contains("-nc"))
    }

    /// What happens to a photo before the network sees it.
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            resize: resize_side(self.input_size, self.crop_pct),
            crop: self.input_size,
            interpolation: self.interpolation,
            mean: self.mean,
            std: self.std,
        }
    }
}

/// The side that timm resizes a photo's shorter side to before it cuts `crop` pixels.
pub fn resize_side(crop: usize, crop_pct: f64) -> usize {
    (crop as f64 / crop_pct).floor() as usize
}

/// A fraction that [`resize_side`] turns back into `resize`, with as few decimals as do.
pub fn crop_fraction(crop: usize, resize: usize) -> f64 {
    let exact = crop as f64 / resize as f64;
    let rounded_down = |decimals: i32| {
        let unit = 10f64.powi(decimals);
        (exact * unit).floor() / unit
    };
    (1..=12).map(rounded_down).find(|&fraction| resize_side(crop, fraction) == resize).unwrap_or(exact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    #[test]
    fn second_weights_of_torchvision_are_resized_to_232() {
        let catalogue = Catalogue::built_in();
        let sides = |name: &str| {
            let preprocessing = catalogue.card(name).unwrap().preprocessing();
            (preprocessing.resize, preprocessing.crop)
        };
        assert_eq!(sides("resnet50.tv2_in1k"), (232, 224));
        assert_eq!(sides("resnet50.tv_in1k"), (256, 224));
    }

    #[test]
    fn crop_fractions_lead_back_to_the_resize() {
        for crop in [32, 160, 224, 288, 320] {
            for resize in crop..crop + 100 {
                assert_eq!(resize_side(crop, crop_fraction(crop, resize)), resize, "{crop} of {resize}");
            }
        }
        assert_eq!(crop_fraction(224, 256), 0.875);
        assert_eq!(crop_fraction(224, 232), 0.965);
    }
}
