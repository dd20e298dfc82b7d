//! Operations that replace each level by another: what a pixel becomes does not depend on where it lies.
//!
//! Equal to Pillow's `ImageOps` to the last bit.

use super::image::Image;

/// What each level of one channel becomes.
type Table = [u8; 256];

impl Image {
    /// Keeps the upper `bits` bits of each level.
    pub fn posterized(&self, bits: u32) -> Image {
        let mask = 0xff_u8.checked_shl(8_u32.saturating_sub(bits)).unwrap_or(0);
        self.looked_up(&[table(|level| level & mask); 3])
    }

    /// Turns levels from `threshold` on into their negative.
    pub fn solarized(&self, threshold: f64) -> Image {
        self.looked_up(&[table(|level| if f64::from(level) < threshold { level } else { 255 - level }); 3])
    }

    /// Stretches the levels of each channel so that they reach from 0 to 255.
    pub fn autocontrasted(&self) -> Image {
        self.looked_up(&self.histograms().map(|histogram| stretch(&histogram)))
    }

    /// Spreads the levels of each channel so that each range of them has about as many pixels.
    pub fn equalized(&self) -> Image {
        self.looked_up(&self.histograms().map(|histogram| equalise(&histogram)))
    }

    /// What each level of each channel becomes in `tables`.
    pub fn looked_up(&self, [red, green, blue]: &[Table; 3]) -> Image {
        self.map(|[r, g, b]| [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)]])
    }

    /// How many pixels have each level, by channel.
    fn histograms(&self) -> [[usize; 256]; 3] {
        let mut histograms = [[0; 256]; 3];
        for pixel in &self.pixels {
            for (histogram, &level) in histograms.iter_mut().zip(pixel) {
                histogram[usize::from(level)] += 1;
            }
        }
        histograms
    }
}

/// The table of a function.
pub(super) fn table(function: impl Fn(u8) -> u8) -> Table {
    std::array::from_fn(|level| function(level as u8))
}

fn stretch(histogram: &[usize; 256]) -> Table {
    let lowest = histogram.iter().position(|&count| count > 0).unwrap_or(0);
    let highest = histogram.iter().rposition(|&count| count > 0).unwrap_or(0);
    if highest <= lowest {
        return table(|level| level);
    }
    let scale = 255.0 / (highest - lowest) as f64;
    let offset = -(lowest as f64) * scale;
    table(|level| (f64::from(level) * scale + offset) as u8)
}

fn equalise(histogram: &[usize; 256]) -> Table {
    let highest = histogram.iter().rfind(|&&count| count > 0).unwrap_or(&0);
    let step = (histogram.iter().sum::<usize>() - highest) / 255;
    if step == 0 {
        return table(|level| level);
    }
    let mut below = step / 2;
    let mut table = [0; 256];
    for (new, count) in table.iter_mut().zip(histogram) {
        *new = (below / step).min(255) as u8;
        below += count;
    }
    table
}
