//! Shearing, shifting and rotating: each pixel is the nearest one of the image, and black where that lies outside.
//!
//! Equal to Pillow's `transform` and `rotate` without interpolation to the last bit, for images of up to 16383 pixels a side:
//! Pillow takes another way beyond.

use super::image::Image;

/// Fractional bits of a position.
const FRACTION_BITS: u32 = 16;

/// Where a pixel of the result lies in the image: (a·x + b·y + c, d·x + e·y + f) for [a, b, c, d, e, f], from the corner of
/// the first pixel.
type Affine = [f64; 6];

impl Image {
    /// Shears along the rows, by `slope` columns a row, about the upper left corner.
    pub fn sheared_x(&self, slope: f64) -> Image {
        self.warped([1.0, slope, 0.0, 0.0, 1.0, 0.0])
    }

    /// Shears along the columns, by `slope` rows a column, about the upper left corner.
    pub fn sheared_y(&self, slope: f64) -> Image {
        self.warped([1.0, 0.0, 0.0, slope, 1.0, 0.0])
    }

    /// Rotates counter-clockwise about the centre.
    pub fn rotated(&self, degrees: f64) -> Image {
        let degrees = degrees.rem_euclid(360.0);
        if degrees == 0.0 {
            return self.clone();
        }
        if degrees == 180.0 {
            return self.mirrored().upside_down();
        }
        if self.width == self.height && degrees == 90.0 {
            return self.transposed().upside_down();
        }
        if self.width == self.height && degrees == 270.0 {
            return self.transposed().mirrored();
        }
        self.warped(self.rotation(degrees))
    }

    fn rotation(&self, degrees: f64) -> Affine {
        let angle = -degrees.to_radians();
        let (cos, sin, minus_sin) = (to_15_places(angle.cos()), to_15_places(angle.sin()), to_15_places(-angle.sin()));
        let (x, y) = (self.width as f64 / 2.0, self.height as f64 / 2.0);
        let c = cos * -x + sin * -y + x;
        let f = minus_sin * -x + cos * -y + y;
        [cos, sin, c, minus_sin, cos, f]
    }

    /// Rows become columns; for squares.
    fn transposed(&self) -> Image {
        let side = self.width;
        self.with((0..side * side).map(|index| self.pixels[index % side * side + index / side]).collect())
    }

    fn warped(&self, [a, b, c, d, e, f]: Affine) -> Image {
        let (c, f) = (c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5); // of a pixel's centre
        let [a, b, c, d, e, f] = [a, b, c, d, e, f].map(fixed_point);
        let source =
            |x: i64, y: i64| self.at((a * x + b * y + c) >> FRACTION_BITS, (d * x + e * y + f) >> FRACTION_BITS);
        let (width, height) = (self.width as i64, self.height as i64);
        self.with((0..height).flat_map(|y| (0..width).map(move |x| source(x, y))).collect())
    }
}

fn fixed_point(value: f64) -> i64 {
    (value * f64::from(1 << FRACTION_BITS) + 0.5).floor() as i64
}

/// Rounded to 15 decimal places, as Pillow does it to have exact right angles.
fn to_15_places(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}
