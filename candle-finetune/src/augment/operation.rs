//! The operations that RandAugment and TrivialAugment choose from, and how strong they are.
//!
//! Source: Cubuk et al. 2020, Müller and Hutter 2021, with torchvision's ranges and defaults: 31 magnitudes, pixels not
//! interpolated, black where nothing lies.

use rand_chacha::ChaCha8Rng;

use super::image::Image;
use crate::random::{below, chance};

/// The highest magnitude; 0 is the lowest.
pub(super) const STRONGEST: u8 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

/// How far each operation goes at the highest magnitude.
pub(super) struct Ranges {
    shear: f64,
    translation: Translation,
    degrees: f64,
    /// Of brightness, colour, contrast and sharpness: how far the factor is from 1.
    enhancement: f64,
    /// Bits that posterising takes away.
    bits: f64,
}

enum Translation {
    Fraction(f64),
    Pixels(f64),
}

impl Ranges {
    pub const RAND_AUGMENT: Ranges = Ranges {
        shear: 0.3,
        translation: Translation::Fraction(150.0 / 331.0),
        degrees: 30.0,
        enhancement: 0.9,
        bits: 4.0,
    };

    pub const TRIVIAL_WIDE: Ranges =
        Ranges { shear: 0.99, translation: Translation::Pixels(32.0), degrees: 135.0, enhancement: 0.99, bits: 6.0 };

    /// What `operation` is told at `magnitude`, at most [`STRONGEST`], for an image of `width` × `height`.
    pub fn strength(&self, operation: Operation, magnitude: u8, width: usize, height: usize) -> f64 {
        use Operation::*;
        let up_to = |end: f64| linspace(0.0, end, magnitude);
        match operation {
            Identity | AutoContrast | Equalize => 0.0,
            ShearX | ShearY => up_to(self.shear),
            TranslateX => up_to(self.translation.of(width)),
            TranslateY => up_to(self.translation.of(height)),
            Rotate => up_to(self.degrees),
            Brightness | Color | Contrast | Sharpness => up_to(self.enhancement),
            Posterize => 8.0 - (f64::from(magnitude) / (f64::from(STRONGEST) / self.bits)).round_ties_even(),
            Solarize => linspace(255.0, 0.0, magnitude),
        }
    }
}

impl Translation {
    fn of(&self, side: usize) -> f64 {
        match self {
            Translation::Fraction(fraction) => fraction * side as f64,
            Translation::Pixels(pixels) => *pixels,
        }
    }
}

/// One of 31 numbers from `start` to `end`, rounded as `torch.linspace` rounds it: counted from the nearer end, once.
fn linspace(start: f64, end: f64, index: u8) -> f64 {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / f32::from(STRONGEST);
    let value = if index < STRONGEST.div_ceil(2) {
        step.mul_add(index.into(), start)
    } else {
        (-step).mul_add((STRONGEST - index).into(), end)
    };
    f64::from(value)
}

impl Operation {
    pub const ALL: [Operation; 14] = [
        Operation::Identity,
        Operation::ShearX,
        Operation::ShearY,
        Operation::TranslateX,
        Operation::TranslateY,
        Operation::Rotate,
        Operation::Brightness,
        Operation::Color,
        Operation::Contrast,
        Operation::Sharpness,
        Operation::Posterize,
        Operation::Solarize,
        Operation::AutoContrast,
        Operation::Equalize,
    ];

    /// Whether the opposite is as good: left and right, brighter and darker.
    fn is_signed(self) -> bool {
        use Operation::*;
        !matches!(self, Identity | Posterize | Solarize | AutoContrast | Equalize)
    }

    pub fn apply(self, image: &Image, strength: f64) -> Image {
        match self {
            Operation::Identity => image.clone(),
            Operation::ShearX => image.sheared_x(strength),
            Operation::ShearY => image.sheared_y(strength),
            Operation::TranslateX => image.shifted(-strength as i64, 0),
            Operation::TranslateY => image.shifted(0, -strength as i64),
            Operation::Rotate => image.rotated(strength),
            Operation::Brightness => image.brightened(1.0 + strength),
            Operation::Color => image.saturated(1.0 + strength),
            Operation::Contrast => image.contrasted(1.0 + strength),
            Operation::Sharpness => image.sharpened(1.0 + strength),
            Operation::Posterize => image.posterized(strength as u32),
            Operation::Solarize => image.solarized(strength),
            Operation::AutoContrast => image.autocontrasted(),
            Operation::Equalize => image.equalized(),
        }
    }
}

/// Which operation, and how strong it is.
pub(super) fn draw(
    ranges: &Ranges,
    magnitude: impl FnOnce(&mut ChaCha8Rng) -> u8,
    image: &Image,
    random: &mut ChaCha8Rng,
) -> (Operation, f64) {
    let operation = Operation::ALL[below(random, Operation::ALL.len() as u64)];
    let magnitude = magnitude(random).min(STRONGEST);
    let strength = ranges.strength(operation, magnitude, image.width, image.height);
    let negative = operation.is_signed() && chance(random, 0.5);
    (operation, if negative { -strength } else { strength })
}
