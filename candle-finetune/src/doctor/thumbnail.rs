//! A picture in 16×16 pixels, and how alike two of these are.
//!
//! Encoding a picture again, resizing it and making it brighter hardly change what is left of it there; likeness is the
//! correlation of pixels, over both pictures as they are and over one of them mirrored. Features of a network would not do: they are
//! made to be alike for other pictures of the same thing (docs/LOG.md has the figures).

use candle_resnet::preprocess::{Photo, Preprocessing};

/// Pixels of a side.
const SIDE: usize = 16;

/// Pixels of a side of the outline: means of 2×2 pixels.
const OUTLINE_SIDE: usize = SIDE / 2;

/// Values of each half of an outline.
pub(super) const HALF: usize = OUTLINE_SIDE * OUTLINE_SIDE / 2 * 3;

/// A picture whose pixels differ less than this from their channel's mean, in levels, root mean square, is flat: nothing tells it from others.
const FLAT: f32 = 2.0;

/// `(16, 16, 3)` bytes of a whole photo, whatever its proportions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thumbnail(Vec<u8>);

/// The coarse picture, each channel's mean 0 and all of length 1, in the parts that mirroring keeps and turns around: with s and a for them, the correlation of
/// two outlines is s·s' + a·a', and s·s' − a·a' where one of them is mirrored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outline {
    pub symmetric: [f32; HALF],
    pub antisymmetric: [f32; HALF],
}

impl Thumbnail {
    pub fn of(photo: &Photo) -> Thumbnail {
        Thumbnail(Preprocessing::imagenet(SIDE, SIDE).squashed(photo))
    }

    /// The correlation of the pixels of two pictures, or, if that is more, of one and the other's mirror image; 0 for flat ones.
    pub fn likeness(&self, other: &Thumbnail) -> f32 {
        let (Some(own), Some(others)) = (centred(self.values()), centred(other.values())) else {
            return 0.0;
        };
        let detail = dot(&own, &others).max(dot(&own, &mirror(&others)));
        // The same pattern in another colour is another picture.
        detail.min(self.colour_likeness(other))
    }

    /// The cosine of the mean colours.
    fn colour_likeness(&self, other: &Thumbnail) -> f32 {
        let (own, others) = (self.mean_colour(), other.mean_colour());
        dot(&own, &others) / (dot(&own, &own) * dot(&others, &others)).sqrt().max(1.0)
    }

    fn mean_colour(&self) -> [f32; 3] {
        let count = (self.0.len() / 3) as f32;
        std::array::from_fn(|channel| {
            self.0.iter().skip(channel).step_by(3).map(|&value| f32::from(value)).sum::<f32>() / count
        })
    }

    /// The outline; none where the picture is flat.
    pub fn outline(&self) -> Option<Outline> {
        let values = centred(self.coarse())?;
        let mut outline = Outline { symmetric: [0.0; HALF], antisymmetric: [0.0; HALF] };
        let mirrored = mirror(&values);
        // Each pair of values that mirroring exchanges is in one row's left half.
        let pairs = values.chunks_exact(3 * OUTLINE_SIDE).zip(mirrored.chunks_exact(3 * OUTLINE_SIDE));
        let pairs = pairs.flat_map(|(row, mirrored)| row.iter().zip(mirrored).take(3 * OUTLINE_SIDE / 2));
        for (index, (left, right)) in pairs.enumerate() {
            outline.symmetric[index] = (left + right) / 2f32.sqrt();
            outline.antisymmetric[index] = (left - right) / 2f32.sqrt();
        }
        Some(outline)
    }

    /// Whether all pixels are grey, give or take what lossy encoding does.
    pub fn is_grey(&self) -> bool {
        const ROUNDING: u8 = 2;
        self.0.chunks_exact(3).all(|pixel| pixel.iter().all(|value| value.abs_diff(pixel[0]) <= ROUNDING))
    }

    fn values(&self) -> Vec<f32> {
        self.0.iter().map(|&value| f32::from(value)).collect()
    }

    /// Means of 2×2 pixels.
    fn coarse(&self) -> Vec<f32> {
        let at = |row: usize, column: usize, channel: usize| f32::from(self.0[(row * SIDE + column) * 3 + channel]);
        let mean = |row, column, channel| {
            let square = [(0, 0), (0, 1), (1, 0), (1, 1)];
            square.map(|(down, right)| at(2 * row + down, 2 * column + right, channel)).iter().sum::<f32>() / 4.0
        };
        let places = (0..OUTLINE_SIDE).flat_map(|row| (0..OUTLINE_SIDE).map(move |column| (row, column)));
        places.flat_map(|(row, column)| (0..3).map(move |channel| mean(row, column, channel))).collect()
    }
}

/// The values less their channel's mean, all together of length 1; none where they hardly differ.
fn centred(mut values: Vec<f32>) -> Option<Vec<f32>> {
    let count = values.len() as f32;
    for channel in 0..3 {
        let mean = values.iter().skip(channel).step_by(3).sum::<f32>() / (count / 3.0);
        values.iter_mut().skip(channel).step_by(3).for_each(|value| *value -= mean);
    }
    let length = dot(&values, &values).sqrt();
    if length < FLAT * count.sqrt() {
        return None;
    }
    values.iter_mut().for_each(|value| *value /= length);
    Some(values)
}

/// A square picture of three channels, left and right exchanged.
fn mirror(values: &[f32]) -> Vec<f32> {
    let side = (values.len() / 3).isqrt();
    values.chunks_exact(3 * side).flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect()
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pixel: impl Fn(usize, usize) -> [u8; 3]) -> Thumbnail {
        let pixels = (0..32).flat_map(|y| (0..32).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
        Thumbnail::of(&Photo::from_rgb8(32, 32, pixels).unwrap())
    }

    /// Something without symmetry.
    fn blot(x: usize, y: usize) -> [u8; 3] {
        if x < 10 && y > x { [200, (8 * y).min(255) as u8, 30] } else { [20, 60, (6 * x) as u8] }
    }

    #[test]
    fn brightness_and_mirroring_change_no_likeness() {
        let original = picture(blot);
        let darker = picture(|x, y| blot(x, y).map(|value| value / 2));
        let mirrored = picture(|x, y| blot(31 - x, y));
        let upside_down = picture(|x, y| blot(x, 31 - y));
        assert!(original.likeness(&original) > 0.9999);
        assert!(original.likeness(&darker) > 0.999);
        assert!(original.likeness(&mirrored) > 0.9999);
        assert!(original.likeness(&upside_down) < 0.9);
    }

    #[test]
    fn halves_of_outlines_give_both_correlations() {
        let (one, other) = (picture(blot), picture(|x, y| blot(y, x)));
        let [a, b] = [&one, &other].map(|thumbnail| thumbnail.outline().unwrap());
        let [plain, turned] = [&other.coarse(), &mirror(&other.coarse())]
            .map(|values| dot(&centred(one.coarse()).unwrap(), &centred(values.clone()).unwrap()));
        let (same, opposite) = (dot(&a.symmetric, &b.symmetric), dot(&a.antisymmetric, &b.antisymmetric));
        assert!((same + opposite - plain).abs() < 1e-5 && (same - opposite - turned).abs() < 1e-5);
    }

    #[test]
    fn flat_pictures_are_like_nothing() {
        let flat = picture(|_, _| [90, 90, 91]);
        assert!(flat.outline().is_none());
        assert_eq!(flat.likeness(&flat), 0.0);
        assert!(flat.is_grey() && !picture(blot).is_grey());
    }
}
