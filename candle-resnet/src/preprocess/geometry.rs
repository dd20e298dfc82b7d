//! Where the crop lies: the sizes and offsets of torchvision's `Resize(int)` and `CenterCrop(int)`.
//!
//! Pure arithmetic on sizes, one axis at a time; touches no pixel.

use std::ops::Range;

/// One axis of the transform, from the photo to the crop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axis {
    /// Pixels of the photo.
    pub source: u64,
    /// Pixels after the resize.
    pub resized: u64,
    /// The resized pixels that the crop shows; shorter than the crop where the crop is padded.
    pub window: Range<u64>,
    /// Zero pixels in front of the window.
    pub padding: usize,
}

impl Axis {
    fn new(source: u64, resized: u64, crop: usize) -> Self {
        let (window, padding) = center_crop(resized, crop as u64);
        Self { source, resized, window, padding: padding as usize }
    }

    /// All of the photo, resized to `side`.
    pub fn whole(source: usize, side: usize) -> Self {
        let resized = side as u64;
        Self { source: source as u64, resized, window: 0..resized, padding: 0 }
    }

    /// How many pixels of the crop come from the photo.
    pub fn len(&self) -> usize {
        (self.window.end - self.window.start) as usize
    }
}

/// The horizontal and the vertical axis for a photo of `width` × `height`.
pub(super) fn axes(width: usize, height: usize, resize: usize, crop: usize) -> (Axis, Axis) {
    let (width, height) = (width.max(1) as u64, height.max(1) as u64);
    let (resized_width, resized_height) = resized_size(width, height, resize.max(1) as u64);
    (Axis::new(width, resized_width, crop), Axis::new(height, resized_height, crop))
}

/// The shorter side becomes `resize`, the longer keeps the aspect ratio, truncated.
fn resized_size(width: u64, height: u64, resize: u64) -> (u64, u64) {
    let long = |long: u64, short: u64| (u128::from(resize) * u128::from(long) / u128::from(short)) as u64;
    if width <= height { (resize, long(height, width)) } else { (long(width, height), resize) }
}

/// The part of `0..size` that a centred crop shows, and the padding in front of it.
fn center_crop(size: u64, crop: u64) -> (Range<u64>, u64) {
    if size <= crop {
        return (0..size, (crop - size) / 2);
    }
    let start = half_to_even(size - crop);
    (start..start + crop, 0)
}

/// `round(n / 2)` as Python rounds: a half goes to the even neighbour.
fn half_to_even(n: u64) -> u64 {
    let half = n / 2;
    half + (n % 2) * (half % 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_round_to_even_as_in_python() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(half_to_even), [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn longer_side_is_truncated() {
        assert_eq!(resized_size(500, 375, 256), (341, 256)); // 341.33
        assert_eq!(resized_size(375, 500, 232), (232, 309)); // 309.33
        assert_eq!(resized_size(3, 2, 235), (352, 235)); // 352.5
        assert_eq!(resized_size(1, 1, 256), (256, 256));
    }

    #[test]
    fn small_images_are_padded_more_behind_than_in_front() {
        assert_eq!(center_crop(5, 10), (0..5, 2));
        assert_eq!(center_crop(10, 10), (0..10, 0));
        assert_eq!(center_crop(13, 10), (2..12, 0)); // 1.5 → 2
        assert_eq!(center_crop(11, 10), (0..10, 0)); // 0.5 → 0
    }

    proptest! {
        #[test]
        fn window_lies_inside_the_resized_image_and_fits_the_crop(
            width in 1usize..100_000, height in 1usize..100_000, resize in 1usize..2000, crop in 1usize..2000,
        ) {
            let (x, y) = axes(width, height, resize, crop);
            prop_assert_eq!(x.resized.min(y.resized), resize as u64);
            for axis in [x, y] {
                prop_assert!(axis.window.end <= axis.resized);
                prop_assert!(axis.padding + axis.len() <= crop);
                prop_assert_eq!(axis.len() as u64, axis.resized.min(crop as u64));
                let behind = axis.resized - axis.window.end;
                prop_assert!(axis.window.start.abs_diff(behind) <= 1, "off centre");
            }
        }
    }
}
