//! An activation map over what the network saw of a photo.

use candle_resnet::preprocess::{Photo, Preprocessing, PreprocessingError};
use candle_resnet::{Classifier, FeatureExtractor};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::ActivationMap;
use crate::error::Result;

/// Fewest pixels of a side of a picture: smaller ones are enlarged, so that people see something.
const SMALLEST_SIDE: u32 = 224;

/// Matplotlib's `inferno` (Smith and van der Walt 2015) at 0, 1/8, …, 1: brighter is always more, in grey and to the colour-blind too.
const COLOURS: [[u8; 3]; 9] = [
    [0, 0, 4],
    [33, 12, 74],
    [87, 16, 110],
    [138, 34, 106],
    [188, 55, 84],
    [228, 90, 49],
    [249, 142, 9],
    [249, 203, 53],
    [252, 255, 164],
];

/// White pixels between two pictures.
const GAP: u32 = 8;

/// How much of the colour is seen; the rest is the photo.
const OPACITY: f32 = 0.5;

/// The square that the network is given of a photo, as bytes; each pixel is enlarged to a square where it is small, to
/// at least 224 pixels a side.
///
/// # Errors
/// If the network takes neither colours nor grey.
pub fn seen_by(classifier: &Classifier, photo: &Photo) -> Result<RgbImage> {
    let shown = square(classifier.preprocessing(), photo, classifier.trunk().in_channels());
    Ok(enlarged(&shown.map_err(candle_resnet::Error::from)?))
}

/// The square that a network of so many channels is given of a photo.
///
/// # Errors
/// If it takes neither colours nor grey.
pub(crate) fn square(
    preprocessing: &Preprocessing,
    photo: &Photo,
    channels: usize,
) -> std::result::Result<RgbImage, PreprocessingError> {
    let (side, pixels) = (preprocessing.crop as u32, preprocessing.pixels(&*photo.for_channels(channels)?));
    Ok(RgbImage::from_fn(side, side, |x, y| {
        let first = 3 * (y * side + x) as usize;
        Rgb([pixels[first], pixels[first + 1], pixels[first + 2]])
    }))
}

/// A square with each pixel enlarged to a square where it is small, to at least 224 pixels a side.
pub fn enlarged(picture: &RgbImage) -> RgbImage {
    let side = picture.width().max(1);
    let times = SMALLEST_SIDE.div_ceil(side);
    imageops::resize(picture, times * side, times * picture.height(), FilterType::Nearest)
}

impl ActivationMap {
    /// The map in colours over `picture`, stretched to its size: dark where nothing speaks for the class, bright where most does.
    pub fn paint_over(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = picture.dimensions();
        let mut painted = picture.clone();
        for (x, y, pixel) in painted.enumerate_pixels_mut() {
            let value = self.at((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
            *pixel = blend(*pixel, colour(value));
        }
        painted
    }

    /// `picture`, and beside it the map over it.
    pub fn panel(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = picture.dimensions();
        let mut panel = RgbImage::from_pixel(2 * width + GAP, height, Rgb([255; 3]));
        imageops::replace(&mut panel, picture, 0, 0);
        imageops::replace(&mut panel, &self.paint_over(picture), (width + GAP).into(), 0);
        panel
    }

    /// The value at a place from (0, 0), the upper left corner, to (1, 1): linear between the middles of pixels, and that of the nearest
    /// beyond them.
    fn at(&self, x: f32, y: f32) -> f32 {
        let (left, right, x) = neighbours(x, self.width);
        let (upper, lower, y) = neighbours(y, self.height);
        let row = |row: usize| {
            let value = |column: usize| self.values.get(row * self.width + column).copied().unwrap_or(0.0);
            between(value(left), value(right), x)
        };
        between(row(upper), row(lower), y)
    }
}

/// The pixels of a row of `count` whose middles are before and behind a place from 0 to 1, and how far it is from the first to the second.
fn neighbours(place: f32, count: usize) -> (usize, usize, f32) {
    let last = count.saturating_sub(1);
    let place = (place * count as f32 - 0.5).clamp(0.0, last as f32);
    let first = place as usize;
    (first, (first + 1).min(last), place - first as f32)
}

fn between(from: f32, to: f32, part: f32) -> f32 {
    from + (to - from) * part
}

/// The colour of a value from 0 to 1.
fn colour(value: f32) -> [f32; 3] {
    let place = value.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let first = (place as usize).min(COLOURS.len() - 2);
    let (from, to) = (COLOURS[first], COLOURS[first + 1]);
    std::array::from_fn(|channel| between(from[channel].into(), to[channel].into(), place - first as f32))
}

/// Rounds by adding a half: `f32::round` is a library call on processors of the oldest kind that is compiled for, and took half of the time.
fn blend(photo: Rgb<u8>, colour: [f32; 3]) -> Rgb<u8> {
    Rgb(std::array::from_fn(|channel| (between(photo.0[channel].into(), colour[channel], OPACITY) + 0.5) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORNERS: [f32; 4] = [0.0, 1.0, 0.5, 0.25];

    fn map() -> ActivationMap {
        ActivationMap { width: 2, height: 2, values: CORNERS.to_vec() }
    }

    #[test]
    fn values_are_linear_between_the_middles_of_pixels() {
        let map = map();
        assert_eq!([map.at(0.25, 0.25), map.at(0.75, 0.25), map.at(0.25, 0.75), map.at(0.75, 0.75)], CORNERS);
        assert_eq!(map.at(0.5, 0.25), 0.5);
        assert_eq!(map.at(0.5, 0.5), 1.75 / 4.0);
        assert_eq!([map.at(0.0, 0.0), map.at(1.0, 0.0), map.at(0.0, 1.0), map.at(1.0, 1.0)], CORNERS);
    }

    #[test]
    fn more_is_always_brighter() {
        let luma = |value| colour(value).iter().zip([0.2126, 0.7152, 0.0722]).map(|(c, w)| c * w).sum::<f32>();
        let brightness: Vec<f32> = (0..=100).map(|percent| luma(percent as f32 / 100.0)).collect();
        assert!(brightness.is_sorted_by(|less, more| less < more), "{brightness:?}");
        assert_eq!(colour(1.0), [252.0, 255.0, 164.0]);
    }

    #[test]
    fn a_picture_keeps_its_size_and_is_brightest_where_most_speaks() {
        let painted = map().paint_over(&RgbImage::from_pixel(30, 20, Rgb([100; 3])));
        assert_eq!(painted.dimensions(), (30, 20));
        assert_eq!(painted.get_pixel(29, 0).0, blend(Rgb([100; 3]), colour(1.0)).0);
        assert_eq!(painted.get_pixel(0, 0).0, [50, 50, 52]);
    }

    #[test]
    fn a_panel_is_the_picture_and_the_map_over_it() {
        let picture = RgbImage::from_pixel(30, 20, Rgb([100; 3]));
        let panel = map().panel(&picture);
        assert_eq!(panel.dimensions(), (68, 20));
        assert_eq!([panel.get_pixel(29, 0).0, panel.get_pixel(30, 0).0], [[100; 3], [255; 3]]);
        assert_eq!(panel.get_pixel(67, 0), map().paint_over(&picture).get_pixel(29, 0));
    }

    #[test]
    fn small_pictures_are_enlarged_pixel_by_pixel() {
        let small = RgbImage::from_fn(32, 32, |x, y| Rgb([x as u8, y as u8, 0]));
        let large = enlarged(&small);
        assert_eq!(large.dimensions(), (224, 224));
        assert_eq!([large.get_pixel(6, 0).0, large.get_pixel(7, 13).0], [[0, 0, 0], [1, 1, 0]]);
        assert_eq!(enlarged(&RgbImage::new(250, 250)).dimensions(), (250, 250));
    }
}
