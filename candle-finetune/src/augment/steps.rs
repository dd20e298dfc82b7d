//! The steps of a policy: what each draws, and what it does with an image.

use candle_resnet::preprocess::{Photo, Preprocessing};
use rand_chacha::ChaCha8Rng;

use super::image::{Image, erase};
use super::operation::{self, Ranges, STRONGEST};
use super::policy::{Automatic, ColorJitter, Erasing, Framing, Range};
use crate::random::{below, chance, uniform};

impl Framing {
    /// The part of `photo` that the network sees.
    pub(super) fn apply(&self, photo: &Photo, preprocessing: &Preprocessing, random: &mut ChaCha8Rng) -> Image {
        let side = preprocessing.crop;
        match self {
            Framing::Center => Image::square(side, &preprocessing.pixels(photo)),
            Framing::ResizedCrop(ranges) => {
                let area = ranges.crop(photo.width(), photo.height(), random);
                let part = photo.cropped(area);
                Image::square(side, &preprocessing.squashed(part.as_ref().unwrap_or(photo)))
            }
            Framing::PaddedCrop { padding } => {
                let mut shift = || below(random, 2 * u64::from(*padding) + 1) as i64 - i64::from(*padding);
                let (down, right) = (shift(), shift());
                Image::square(side, &preprocessing.pixels(photo)).shifted(right, down)
            }
        }
    }
}

impl Automatic {
    pub(super) fn apply(&self, image: Image, random: &mut ChaCha8Rng) -> Image {
        match *self {
            Automatic::RandAugment { operations, magnitude } => {
                (0..operations).fold(image, |image, _| step(&Ranges::RAND_AUGMENT, |_| magnitude, &image, random))
            }
            Automatic::TrivialWide => {
                let any = |random: &mut ChaCha8Rng| below(random, u64::from(STRONGEST) + 1) as u8;
                step(&Ranges::TRIVIAL_WIDE, any, &image, random)
            }
        }
    }
}

fn step(
    ranges: &Ranges,
    magnitude: impl FnOnce(&mut ChaCha8Rng) -> u8,
    image: &Image,
    random: &mut ChaCha8Rng,
) -> Image {
    let (operation, strength) = operation::draw(ranges, magnitude, image, random);
    operation.apply(image, strength)
}

/// A change of colour and its factor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Brightness(f64),
    Contrast(f64),
    Saturation(f64),
    Hue(f64),
}

impl ColorJitter {
    pub(super) fn apply(&self, image: Image, random: &mut ChaCha8Rng) -> Image {
        self.draw(random).into_iter().fold(image, |image, change| match change {
            Change::Brightness(factor) => image.brightened(factor),
            Change::Contrast(factor) => image.contrasted(factor),
            Change::Saturation(factor) => image.saturated(factor),
            Change::Hue(0.0) => image, // the way to HSV and back would change it
            Change::Hue(factor) => image.with_hue_turned(factor),
        })
    }

    /// All four, in any order.
    fn draw(&self, random: &mut ChaCha8Rng) -> [Change; 4] {
        let mut around_one = |jitter: f64| uniform(random, (1.0 - jitter).max(0.0), 1.0 + jitter);
        let mut changes = [
            Change::Brightness(around_one(self.brightness)),
            Change::Contrast(around_one(self.contrast)),
            Change::Saturation(around_one(self.saturation)),
            Change::Hue(uniform(random, -self.hue, self.hue)),
        ];
        for last in (1..changes.len()).rev() {
            changes.swap(last, below(random, last as u64 + 1));
        }
        changes
    }
}

impl Erasing {
    /// Planes `(C, side, side)` after normalisation: what is erased becomes the mean colour, 0.
    pub(super) fn apply(&self, planes: &mut [f32], side: usize, random: &mut ChaCha8Rng) {
        if !chance(random, self.probability) {
            return;
        }
        if let Some(area) = self.area.erased(side, side, random) {
            erase(planes, side, area);
        }
    }
}

impl Range {
    /// Any number of it.
    pub(super) fn draw(&self, random: &mut ChaCha8Rng) -> f64 {
        uniform(random, self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::view_generator;

    #[test]
    fn colours_change_in_every_order_and_by_every_factor_alike() {
        const DRAWS: usize = 48_000;
        let jitter = ColorJitter { brightness: 0.4, contrast: 2.0, saturation: 0.4, hue: 0.1 };
        let mut random = view_generator(0, 0, 0);
        let mut orders = std::collections::BTreeMap::new();
        let mut tenths = [[0; 10]; 4];
        for _ in 0..DRAWS {
            let places = jitter.draw(&mut random).map(|change| match change {
                Change::Brightness(factor) => (0, (factor - 0.6) / 0.8),
                Change::Contrast(factor) => (1, factor / 3.0), // from 0, not from −1
                Change::Saturation(factor) => (2, (factor - 0.6) / 0.8),
                Change::Hue(factor) => (3, (factor + 0.1) / 0.2),
            });
            places.iter().for_each(|&(change, place)| tenths[change][(place * 10.0) as usize] += 1);
            *orders.entry(places.map(|(change, _)| change)).or_insert(0) += 1;
        }
        // Binomial(48000, 1/24): mean 2000, standard deviation 44; (48000, 1/10): mean 4800, standard deviation 66.
        assert_eq!(orders.len(), 24);
        assert!(orders.values().all(|&count| (1780..2220).contains(&count)), "{orders:?}");
        assert!(tenths.as_flattened().iter().all(|&count| (4470..5130).contains(&count)), "{tenths:?}");
    }
}
