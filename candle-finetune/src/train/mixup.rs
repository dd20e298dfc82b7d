//! Mixup and CutMix: every image of a batch takes in a part of another, and its target that part of the other's label.
//!
//! As timm's `Mixup` in its batch mode: one draw for a batch, in which image i is mixed with image N - 1 - i. Label smoothing is
//! left to [`CrossEntropy::soft_loss`](super::loss::CrossEntropy::soft_loss), which makes of these targets what timm does.
//! Sources: Zhang et al. 2018, Yun et al. 2019.

use std::ops::Range;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::error::{Result, TrainError};
use super::settings::check;
use crate::random::{below, chance, keyed_generator, symmetric_beta};

/// How strongly and how often batches are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mixup {
    /// The share of an image in itself is drawn from Beta(alpha, alpha); no Mixup at 0.
    pub mixup_alpha: f64,
    /// The same for CutMix; no CutMix at 0.
    pub cutmix_alpha: f64,
    /// Probability that a batch is mixed at all.
    pub prob: f64,
    /// Probability of CutMix in the place of Mixup, where both are on.
    pub switch_prob: f64,
}

/// timm's: Mixup alone, of every batch.
impl Default for Mixup {
    fn default() -> Self {
        Self { mixup_alpha: 1.0, cutmix_alpha: 0.0, prob: 1.0, switch_prob: 0.5 }
    }
}

impl Mixup {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first that is not.
    pub fn validate(&self) -> Result<()> {
        check("mixup-alpha", self.mixup_alpha, is_strength(self.mixup_alpha), "a number from 0 up")?;
        check("cutmix-alpha", self.cutmix_alpha, is_strength(self.cutmix_alpha), "a number from 0 up")?;
        let some = self.mixup_alpha > 0.0 || self.cutmix_alpha > 0.0;
        check("mixup-alpha", self.mixup_alpha, some, "above 0 where `cutmix-alpha` is 0")?;
        check("mixup-prob", self.prob, (0.0..=1.0).contains(&self.prob), "from 0 to 1")?;
        check("mixup-switch-prob", self.switch_prob, (0.0..=1.0).contains(&self.switch_prob), "from 0 to 1")
    }

    /// How the batch of a step is mixed, of images of `size` (height, width); depends on the arguments alone.
    pub fn draw(&self, seed: u64, epoch: u64, step: u64, size: (usize, usize)) -> Mix {
        let mut generator = keyed_generator(b"mixing..", [seed, epoch, step]);
        if !chance(&mut generator, self.prob) {
            return Mix::NONE;
        }
        let both = self.mixup_alpha > 0.0 && self.cutmix_alpha > 0.0;
        let cut = if both { chance(&mut generator, self.switch_prob) } else { self.cutmix_alpha > 0.0 };
        let lambda = symmetric_beta(&mut generator, if cut { self.cutmix_alpha } else { self.mixup_alpha });
        if !cut {
            return Mix::blend(lambda);
        }
        let centre = [size.0, size.1].map(|length| below(&mut generator, length as u64));
        Mix::paste(lambda, centre.into(), size)
    }
}

fn is_strength(alpha: f64) -> bool {
    alpha >= 0.0 && alpha.is_finite()
}

/// What is done to one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// The share of an image in itself, in [0, 1].
    lambda: f64,
    /// Rows and columns that come from the other image; the two are blended if none.
    area: Option<(Range<usize>, Range<usize>)>,
}

impl Mix {
    /// Nothing at all.
    pub const NONE: Mix = Mix { lambda: 1.0, area: None };

    /// Mixup: each image `lambda` of itself and the rest of the other.
    pub fn blend(lambda: f64) -> Mix {
        Mix { lambda, area: None }
    }

    /// CutMix: a rectangle of the image's proportions, about `1 - lambda` of its area, around `centre` (row, column) and cut off
    /// at the borders, comes from the other image; the share is corrected to the area.
    pub fn paste(lambda: f64, centre: (usize, usize), (height, width): (usize, usize)) -> Mix {
        let scale = (1.0 - lambda).sqrt();
        let range = |centre: usize, length: usize| {
            let cut = (length as f64 * scale) as usize;
            centre.saturating_sub(cut / 2)..(centre + cut.div_ceil(2)).min(length)
        };
        let (rows, columns) = (range(centre.0, height), range(centre.1, width));
        let lambda = 1.0 - (rows.len() * columns.len()) as f64 / (height * width) as f64;
        Mix { lambda, area: Some((rows, columns)) }
    }

    /// The share of an image in itself, in [0, 1].
    pub fn lambda(&self) -> f64 {
        self.lambda
    }

    /// Mixes a batch of images (N, C, H, W).
    ///
    /// # Errors
    /// If a rectangle was made for smaller images.
    pub fn images(&self, images: &Tensor) -> Result<Tensor> {
        if self.lambda == 1.0 {
            return Ok(images.clone());
        }
        let others = images.flip(&[0])?;
        let Some((rows, columns)) = &self.area else {
            return Ok(((images * self.lambda)? + (others * (1.0 - self.lambda))?)?);
        };
        let (count, channels, ..) = images.dims4()?;
        let part = others.narrow(2, rows.start, rows.len())?.narrow(3, columns.start, columns.len())?;
        Ok(images.slice_assign(&[0..count, 0..channels, rows.clone(), columns.clone()], &part)?)
    }

    /// Mixes the labels of a batch: probabilities (N, `classes`).
    ///
    /// # Errors
    /// [`TrainError::Label`] for a label not below `classes`.
    pub fn targets(&self, labels: &[u32], classes: usize, device: &Device) -> Result<Tensor> {
        let mut targets = vec![0.0; labels.len() * classes];
        let pairs = labels.iter().zip(labels.iter().rev());
        for ((index, row), (&own, &other)) in targets.chunks_mut(classes.max(1)).enumerate().zip(pairs) {
            for (label, share) in [(own, self.lambda), (other, 1.0 - self.lambda)] {
                let target = row.get_mut(label as usize).ok_or(TrainError::Label { index, label, classes })?;
                *target += share as f32;
            }
        }
        Ok(Tensor::from_vec(targets, (labels.len(), classes), device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Mixup = Mixup { mixup_alpha: 0.8, cutmix_alpha: 1.0, prob: 0.75, switch_prob: 0.4 };

    #[test]
    fn a_draw_depends_on_seed_epoch_and_step_alone() {
        let draw = |seed, epoch, step| BOTH.draw(seed, epoch, step, (32, 32));
        let both = |draws: [Mix; 2]| draws[0] == draws[1];
        assert!((0..20).all(|step| both([draw(1, 2, step), draw(1, 2, step)])));
        assert!(!(0..20).all(|step| both([draw(1, 2, step), draw(1, 3, step)])));
        assert!(!(0..20).all(|step| both([draw(1, 2, step), draw(2, 2, step)])));
        assert!(!(0..20).all(|step| both([draw(1, 2, step), draw(1, 2, step + 1)])));
    }

    #[test]
    fn batches_are_mixed_as_often_and_in_the_way_that_is_asked_for() {
        let draws: Vec<Mix> = (0..10_000).map(|step| BOTH.draw(0, 0, step, (224, 224))).collect();
        let (cut, whole): (Vec<&Mix>, Vec<&Mix>) = draws.iter().partition(|mix| mix.area.is_some());
        let blended: Vec<f64> = whole.iter().map(|mix| mix.lambda).filter(|&lambda| lambda < 1.0).collect();
        // Binomials of 10,000 with p = 0.75 · 0.4 and 0.75 · 0.6: standard deviations 46 and 50.
        assert!(
            (2770..3230).contains(&cut.len()) && (4250..4750).contains(&blended.len()),
            "{}, {}",
            cut.len(),
            blended.len()
        );
        // Beta(0.8, 0.8) has the variance 1/10.4; its mean over 4500 a standard error of 0.0046.
        let mean = blended.iter().sum::<f64>() / blended.len() as f64;
        assert!((mean - 0.5).abs() < 0.025, "{mean}");
        let only = |mixup: Mixup| (0..100).map(move |step| mixup.draw(0, 0, step, (8, 8)));
        assert!(only(Mixup::default()).all(|mix| mix.area.is_none() && mix.lambda < 1.0));
        assert!(only(Mixup { mixup_alpha: 0.0, ..BOTH }).any(|mix| mix.area.is_some()));
        assert!(only(Mixup { prob: 0.0, ..BOTH }).all(|mix| mix == Mix::NONE));
    }

    #[test]
    fn nothing_is_done_to_images_and_labels_where_nothing_is_drawn() {
        let images = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((3, 2, 2, 2)).unwrap();
        let flat = |images: &Tensor| images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(&Mix::NONE.images(&images).unwrap()), flat(&images));
        let empty = Mix::paste(0.99, (1, 1), (2, 2));
        assert_eq!((empty.lambda(), flat(&empty.images(&images).unwrap())), (1.0, flat(&images)));
        let targets = Mix::NONE.targets(&[1, 0, 1], 2, &Device::Cpu).unwrap();
        assert_eq!(targets.to_vec2::<f32>().unwrap(), [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]);
    }

    #[test]
    fn an_odd_batch_keeps_its_middle_and_a_label_of_no_class_is_named() {
        let mix = Mix::blend(0.75);
        let targets = mix.targets(&[0, 1, 1], 2, &Device::Cpu).unwrap();
        assert_eq!(targets.to_vec2::<f32>().unwrap(), [[0.75, 0.25], [0.0, 1.0], [0.25, 0.75]]);
        let error = mix.targets(&[0, 1, 2], 2, &Device::Cpu).unwrap_err();
        assert!(matches!(error, TrainError::Label { label: 2, classes: 2, .. }), "{error}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        BOTH.validate().unwrap();
        let table = [
            ("mixup-alpha", Mixup { mixup_alpha: -1.0, ..BOTH }),
            ("mixup-alpha", Mixup { mixup_alpha: 0.0, ..Mixup::default() }),
            ("cutmix-alpha", Mixup { cutmix_alpha: f64::NAN, ..BOTH }),
            ("mixup-prob", Mixup { prob: 1.1, ..BOTH }),
            ("mixup-switch-prob", Mixup { switch_prob: -0.1, ..BOTH }),
        ];
        for (expected, mixup) in table {
            assert!(
                matches!(mixup.validate(), Err(TrainError::Setting { name, .. }) if name == expected),
                "{expected}"
            );
        }
    }
}
