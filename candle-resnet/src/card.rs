//! Model cards: what belongs to one trained file rather than to its architecture.
//!
//! Describes one card; the [`Catalogue`](crate::catalogue::Catalogue) holds them all.

use serde::Deserialize;

use crate::preprocess::{Interpolation, Preprocessing};

/// One trained file for one architecture.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// `architecture.tag`: `resnet50.tv2_in1k`.
    pub name: String,
    /// `resnet50`.
    pub architecture: String,
    /// Repository on the Hub: `timm/resnet50.tv2_in1k`.
    pub repository: String,
    /// Branch, tag or commit of the repository; `None` for the main branch.
    pub revision: Option<String>,
    /// File in the repository.
    pub file: String,
    /// Outputs of the classifier; 0 where the file holds none and offers features only.
    pub classes: usize,
    /// Name of the [`LabelSet`](crate::labels::LabelSet), where the classes are known.
    pub labels: Option<String>,
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
    /// Reported top-1 accuracy on ImageNet's validation images, a fraction.
    pub top1: Option<f64>,
    /// Who reported it.
    pub top1_source: Option<String>,
}

impl ModelCard {
    /// The part of the name after the architecture: `tv2_in1k`.
    pub fn tag(&self) -> &str {
        self.name.strip_prefix(&self.architecture).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default()
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
    use crate::architecture::Architecture;
    use crate::blueprint::Blueprint;
    use crate::catalogue::Catalogue;
    use crate::labels::LabelSet;

    #[test]
    fn cards_name_known_things() {
        for card in Catalogue::built_in().cards() {
            let labels = card.labels.as_deref().map(|labels| LabelSet::named(labels).unwrap());
            assert_eq!(labels.map_or(0, |labels| labels.names.len()), card.classes, "{}", card.name);
            card.preprocessing().validate().unwrap();
        }
    }

    #[test]
    fn cards_agree_with_their_networks() {
        for card in Catalogue::built_in().cards() {
            let blueprint = Blueprint::of(Architecture::named(&card.architecture).unwrap());
            assert_eq!(blueprint.stem.convs[0].conv, card.first_conv, "{}", card.name);
            assert_eq!(card.classifier, "fc", "{}", card.name);
            assert_eq!(blueprint.parameter_count(card.classes), card.parameters, "{}", card.name);
            assert_eq!(blueprint.multiply_adds(card.classes, card.input_size), card.macs, "{}", card.name);
        }
    }

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
