//! Random rectangles of a random size and shape, for cropping and erasing.
//!
//! Source: Szegedy et al. 2015, Zhong et al. 2017, as torchvision's `RandomResizedCrop` and `RandomErasing` draw them.

use candle_resnet::preprocess::Area;
use rand_chacha::ChaCha8Rng;

use super::policy::Range;
use crate::random::{below, uniform};

/// How often a rectangle that does not fit is drawn anew.
const TRIES: usize = 10;

/// The size and the shape of rectangles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AreaRange {
    /// Area as a part of the image's.
    pub scale: Range,
    /// Width over height in a crop, height over width in what is erased; its logarithm is uniform.
    pub ratio: Range,
}

impl AreaRange {
    /// What is cropped out of an image of `width` × `height`. Where none of ten rectangles fits, the largest in the middle
    /// whose shape is allowed.
    pub(super) fn crop(&self, width: usize, height: usize, random: &mut ChaCha8Rng) -> Area {
        let fits = |&(w, h): &(usize, usize)| (1..=width).contains(&w) && (1..=height).contains(&h);
        let drawn = (0..TRIES).map(|_| self.sides(width, height, random)).find(fits);
        match drawn {
            Some((w, h)) => place(w, h, width, height, random),
            None => self.middle(width, height),
        }
    }

    /// What is erased from an image of `width` × `height`; `None` where none of ten rectangles fits.
    pub(super) fn erased(&self, width: usize, height: usize, random: &mut ChaCha8Rng) -> Option<Area> {
        let fits = |&(h, w): &(usize, usize)| w < width && h < height;
        let (h, w) = (0..TRIES).map(|_| self.sides(width, height, random)).find(fits)?;
        Some(place(w, h, width, height, random))
    }

    /// Two sides, the first over the second of a ratio that is allowed.
    fn sides(&self, width: usize, height: usize, random: &mut ChaCha8Rng) -> (usize, usize) {
        let area = (width * height) as f64 * self.scale.draw(random);
        let ratio = uniform(random, self.ratio.low.ln(), self.ratio.high.ln()).exp();
        (rounded((area * ratio).sqrt()), rounded((area / ratio).sqrt()))
    }

    fn middle(&self, width: usize, height: usize) -> Area {
        let Range { low, high } = self.ratio;
        let found = width as f64 / height as f64;
        let (w, h) = if found < low {
            (width, rounded(width as f64 / low).clamp(1, height))
        } else if found > high {
            (rounded(height as f64 * high).clamp(1, width), height)
        } else {
            (width, height)
        };
        Area { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
    }
}

/// Half to even, as Python rounds.
fn rounded(side: f64) -> usize {
    side.round_ties_even() as usize
}

/// A rectangle of `w` × `h` anywhere in an image of `width` × `height`.
fn place(w: usize, h: usize, width: usize, height: usize, random: &mut ChaCha8Rng) -> Area {
    let top = below(random, (height - h) as u64 + 1);
    let left = below(random, (width - w) as u64 + 1);
    Area { left, top, width: w, height: h }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::view_generator;

    #[test]
    fn strips_are_cropped_in_the_middle_as_torchvision_crops_them() {
        // torchvision 0.29: RandomResizedCrop.get_params of 3×1000 and 1000×3 pixels.
        let ranges = AreaRange { scale: Range { low: 0.5, high: 1.0 }, ratio: Range { low: 0.75, high: 4.0 / 3.0 } };
        let mut random = view_generator(0, 0, 0);
        let tall = ranges.crop(3, 1000, &mut random);
        assert_eq!(tall, Area { left: 0, top: 498, width: 3, height: 4 });
        let wide = ranges.crop(1000, 3, &mut random);
        assert_eq!(wide, Area { left: 498, top: 0, width: 4, height: 3 });
    }

    #[test]
    fn nothing_is_erased_where_nothing_fits() {
        let whole = AreaRange { scale: Range { low: 1.0, high: 1.0 }, ratio: Range { low: 1.0, high: 1.0 } };
        assert_eq!(whole.erased(10, 10, &mut view_generator(0, 0, 0)), None);
    }
}
