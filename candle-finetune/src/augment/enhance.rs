//! Brightness, contrast, colour and sharpness: each is a blend of the image with one that lacks it.
//!
//! A factor of 0 is the image without, 1 the image as it is, and beyond 1 more of it. Equal to Pillow's `ImageEnhance` to
//! the last bit.

use candle_resnet::preprocess::luma;

use super::image::{Image, Pixel};
use super::levels::table;

/// The weight of a pixel when it is smoothed; its eight neighbours have 1.
const CENTER: u32 = 5;

impl Image {
    /// Between black and the image.
    pub fn brightened(&self, factor: f64) -> Image {
        self.looked_up(&[table(|level| blend(0, level, factor as f32)); 3])
    }

    /// Between the mean of its grey and the image.
    pub fn contrasted(&self, factor: f64) -> Image {
        let mean = self.mean_grey();
        self.looked_up(&[table(|level| blend(mean, level, factor as f32)); 3])
    }

    /// Between its grey and the image.
    pub fn saturated(&self, factor: f64) -> Image {
        self.map(|pixel| blend_pixel([luma(pixel); 3], pixel, factor as f32))
    }

    /// Between the image smoothed and the image.
    pub fn sharpened(&self, factor: f64) -> Image {
        let smooth = self.smoothed();
        let pairs = smooth.pixels.iter().zip(&self.pixels);
        self.with(pairs.map(|(&smooth, &pixel)| blend_pixel(smooth, pixel, factor as f32)).collect())
    }

    fn mean_grey(&self) -> u8 {
        let sum: u64 = self.pixels.iter().map(|&pixel| u64::from(luma(pixel))).sum();
        (sum as f64 / self.pixels.len() as f64 + 0.5) as u8
    }

    /// A weighted mean over 3×3 pixels, Pillow's `SMOOTH`; pixels at the border stay.
    fn smoothed(&self) -> Image {
        let mut smooth = self.clone();
        let rows: Vec<&[Pixel]> = self.rows().collect();
        let inner = smooth.pixels.chunks_exact_mut(self.width.max(1)).skip(1);
        for (row, around) in inner.zip(rows.windows(3)) {
            let columns = around[0].windows(3).zip(around[1].windows(3)).zip(around[2].windows(3));
            for (pixel, ((above, beside), below)) in row.iter_mut().skip(1).zip(columns) {
                *pixel = weighted_mean([above, beside, below]);
            }
        }
        smooth
    }
}

/// The mean of 3×3 pixels.
fn weighted_mean(rows: [&[Pixel]; 3]) -> Pixel {
    std::array::from_fn(|channel| {
        let sum: u32 = rows.iter().copied().flatten().map(|pixel| u32::from(pixel[channel])).sum();
        let sum = sum + (CENTER - 1) * u32::from(rows[1][1][channel]);
        ((2 * sum + CENTER + 8) / (2 * (CENTER + 8))) as u8 // rounded; no mean lies half-way
    })
}

fn blend_pixel(base: Pixel, pixel: Pixel, factor: f32) -> Pixel {
    std::array::from_fn(|channel| blend(base[channel], pixel[channel], factor))
}

/// Pillow's `Image.blend`: truncated, and clipped to 0 and 255.
fn blend(base: u8, level: u8, factor: f32) -> u8 {
    let (base, level) = (f32::from(base), f32::from(level));
    (base + factor * (level - base)) as u8
}
