//! Turning the hue, by way of Pillow's HSV of 8 bits a channel.
//!
//! Equal to torchvision's `adjust_hue` on Pillow's images to the last bit, losses of the conversion included: a turn by 0
//! changes colours a little.

use super::image::{Image, Pixel};

impl Image {
    /// Turns the hue by `factor` of the circle, from −½ to ½.
    pub fn with_hue_turned(&self, factor: f64) -> Image {
        let turn = (factor * 255.0) as i32 as u8; // truncated, then modulo 256
        self.map(|pixel| {
            let [hue, saturation, value] = to_hsv(pixel);
            to_rgb([hue.wrapping_add(turn), saturation, value])
        })
    }
}

/// Rounded as Pillow's C does: some steps in f32, some in f64.
fn to_hsv(pixel: Pixel) -> [u8; 3] {
    let [red, green, blue] = pixel;
    let (lowest, highest) = (red.min(green).min(blue), red.max(green).max(blue));
    if lowest == highest {
        return [0, 0, highest];
    }
    let range = f32::from(highest - lowest);
    let saturation = range / f32::from(highest);
    let [r, g, b] = pixel.map(|level| f32::from(highest - level) / range);
    let sixths = if red == highest {
        b - g
    } else if green == highest {
        (2.0 + f64::from(r) - f64::from(b)) as f32
    } else {
        (4.0 + f64::from(g) - f64::from(r)) as f32
    };
    let hue = f64::from(sixths) / 6.0 + 1.0; // from 5/6 on and below 2
    let hue = if hue < 1.0 { hue } else { hue - 1.0 } as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, highest]
}

fn to_rgb([hue, saturation, value]: [u8; 3]) -> Pixel {
    if saturation == 0 {
        return [value; 3];
    }
    let sixths = f64::from(hue) * 6.0 / 255.0;
    let sector = sixths as u8;
    let rest = (sixths - f64::from(sector)) as f32;
    let saturation = (f64::from(saturation) / 255.0) as f32;
    let without = |share: f64| (f64::from(value) * (1.0 - share) + 0.5) as u8;
    let low = without(saturation.into());
    let falling = without((saturation * rest).into());
    let rising = without(f64::from(saturation) * (1.0 - f64::from(rest)));
    match sector % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}
