//! The image that operations change: RGB, 8 bits a channel.

use candle_resnet::preprocess::Area;

/// Red, green and blue.
pub(super) type Pixel = [u8; 3];

/// An image of any size, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<Pixel>,
}

impl Image {
    /// A square from `(side, side, 3)` bytes.
    pub fn square(side: usize, bytes: &[u8]) -> Image {
        Image { width: side, height: side, pixels: bytes.as_chunks().0.to_vec() }
    }

    /// `(height, width, 3)` bytes.
    pub fn bytes(&self) -> &[u8] {
        self.pixels.as_flattened()
    }

    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &[Pixel]> {
        self.pixels.chunks_exact(self.width.max(1))
    }

    /// An image of the same size whose pixels are `pixel` of this one's.
    pub fn map(&self, pixel: impl Fn(Pixel) -> Pixel) -> Image {
        self.with(self.pixels.iter().map(|&old| pixel(old)).collect())
    }

    /// An image of the same size.
    pub fn with(&self, pixels: Vec<Pixel>) -> Image {
        Image { pixels, ..*self }
    }

    /// Left becomes right.
    pub fn mirrored(&self) -> Image {
        self.with(self.rows().flat_map(|row| row.iter().rev()).copied().collect())
    }

    /// Top becomes bottom.
    pub fn upside_down(&self) -> Image {
        self.with(self.rows().rev().flatten().copied().collect())
    }

    /// What lies `right` and `down` of each pixel; black where that is outside.
    pub fn shifted(&self, right: i64, down: i64) -> Image {
        let (width, height) = (self.width as i64, self.height as i64);
        let source = |x: i64, y: i64| self.at(x.saturating_add(right), y.saturating_add(down));
        self.with((0..height).flat_map(|y| (0..width).map(move |x| source(x, y))).collect())
    }

    /// The pixel at (x, y); black outside.
    #[inline]
    pub fn at(&self, x: i64, y: i64) -> Pixel {
        let inside = (0..self.width as i64).contains(&x) && (0..self.height as i64).contains(&y);
        if inside { self.pixels[y as usize * self.width + x as usize] } else { [0; 3] }
    }
}

/// Sets the values of `area` in each of the planes `(C, side, side)` to 0: torchvision's `erase`.
pub(super) fn erase(planes: &mut [f32], side: usize, area: Area) {
    for plane in planes.chunks_exact_mut((side * side).max(1)) {
        for row in plane.chunks_exact_mut(side).skip(area.top).take(area.height) {
            row[area.left..area.left + area.width].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_area_is_erased_in_every_plane() {
        let mut planes = vec![1.0; 2 * 4 * 4];
        erase(&mut planes, 4, Area { left: 1, top: 2, width: 3, height: 1 });
        let erased: Vec<usize> = (0..32).filter(|&index| planes[index] == 0.0).collect();
        assert_eq!(erased, [9, 10, 11, 25, 26, 27]);
    }
}
