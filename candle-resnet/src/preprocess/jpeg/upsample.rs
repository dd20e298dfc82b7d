//! Components at a lower resolution than the image → rows at the image's.
//!
//! Where chroma is halved, libjpeg interpolates: a sample counts three times, its nearer neighbour once, in each direction
//! ("fancy upsampling"). What is left to choose, and decides the last bit, is which way halves are rounded: alternately
//! from sample to sample. Other ratios repeat samples, and so do images of which a halved row has two samples or less.

use super::frame::{Component, Frame};

/// How a component's rows become the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upsampling {
    /// It has the image's resolution.
    None,
    /// Half the columns.
    Across,
    /// Half the rows.
    Down,
    /// Half of both.
    Both,
    /// Each sample fills a rectangle.
    Repeat { across: usize, down: usize },
}

/// What is added before fractional bits are dropped, for even and odd samples.
type Bias = [u16; 2];

const ACROSS: (u32, Bias) = (2, [1, 2]);
const DOWN: (u32, Bias) = (2, [1, 2]);
const BOTH: (u32, Bias) = (4, [8, 7]);

impl Upsampling {
    pub(super) fn of(component: &Component, frame: &Frame) -> Self {
        let ratio = (frame.across / component.across, frame.down / component.down);
        match ratio {
            (1, 1) => Self::None,
            (2, 1) if component.width > 2 => Self::Across,
            (1, 2) => Self::Down,
            (2, 2) if component.width > 2 => Self::Both,
            (across, down) => Self::Repeat { across, down },
        }
    }

    /// Row `y` of the image; it may be longer than the image is wide. `scratch` may hold it.
    #[inline(always)]
    pub(super) fn row<'a>(self, component: &'a Component, y: usize, scratch: &'a mut Scratch) -> &'a [u8] {
        match self {
            Self::None => return component.row(y),
            Self::Across => {
                scratch.sums.clear();
                scratch.sums.extend(component.row(y).iter().map(|&sample| u16::from(sample)));
                widen(&scratch.sums, ACROSS, &mut scratch.row);
            }
            Self::Down => {
                let (shift, bias) = DOWN;
                scratch.add_rows(component, y);
                scratch.row.clear();
                scratch.row.extend(scratch.sums.iter().map(|sum| ((sum + bias[y % 2]) >> shift) as u8));
            }
            Self::Both => {
                scratch.add_rows(component, y);
                widen(&scratch.sums, BOTH, &mut scratch.row);
            }
            Self::Repeat { across, down } => {
                let samples = component.row(y / down);
                scratch.row.clear();
                scratch.row.extend(samples.iter().flat_map(|&sample| std::iter::repeat_n(sample, across)));
            }
        }
        &scratch.row
    }
}

/// Memory for one row of one component.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    row: Vec<u8>,
    sums: Vec<u16>,
}

impl Scratch {
    /// Three times the row that covers row `y` of the image, and once its nearer neighbour; at the edge, itself.
    #[inline(always)]
    fn add_rows(&mut self, component: &Component, y: usize) {
        let near = y / 2;
        let far = [near.saturating_sub(1), (near + 1).min(component.height - 1)][y % 2];
        let pairs = component.row(near).iter().zip(component.row(far));
        self.sums.clear();
        self.sums.extend(pairs.map(|(&near, &far)| 3 * u16::from(near) + u16::from(far)));
    }
}

/// Two samples from each of `sums`: three times itself, and once the left or the right one; at the edge, itself.
#[inline(always)]
fn widen(sums: &[u16], (shift, [left_bias, right_bias]): (u32, Bias), row: &mut Vec<u8>) {
    let (Some(&first), Some(&last)) = (sums.first(), sums.last()) else {
        return row.clear();
    };
    let left = |sum: u16, left: u16| ((3 * sum + left + left_bias) >> shift) as u8;
    let right = |sum: u16, right: u16| ((3 * sum + right + right_bias) >> shift) as u8;
    row.resize(2 * sums.len(), 0);
    let (pairs, _) = row.as_chunks_mut::<2>();
    let edge = sums.len() - 1;
    pairs[0] = [left(first, first), right(first, sums[edge.min(1)])];
    pairs[edge] = [left(last, sums[edge.saturating_sub(1)]), right(last, last)];
    if let Some(inner) = pairs.get_mut(1..edge) {
        for (pair, ((&before, &sum), &behind)) in inner.iter_mut().zip(sums.iter().zip(&sums[1..]).zip(&sums[2..])) {
            *pair = [left(sum, before), right(sum, behind)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widened(sums: &[u16], scale: (u32, Bias)) -> Vec<u8> {
        let mut row = vec![9; 3];
        widen(sums, scale, &mut row);
        row
    }

    #[test]
    fn halves_are_rounded_alternately() {
        // 3/4 of one and 1/4 of the other: 2.5 becomes 2 on the left and 3 on the right.
        assert_eq!(widened(&[0, 10, 0], ACROSS), [0, 3, 7, 8, 2, 0]);
        assert_eq!(widened(&[0, 40, 0], BOTH), [0, 2, 8, 7, 3, 0]);
    }

    #[test]
    fn rows_of_one_and_two_samples_have_no_inside() {
        assert_eq!(widened(&[7], ACROSS), [7, 7]);
        assert_eq!(widened(&[0, 100], ACROSS), [0, 25, 75, 100]);
        assert!(widened(&[], ACROSS).is_empty());
    }

    /// Two components: one at full resolution, and one with these sampling factors.
    fn halved(width: u8, factors: u8) -> Frame {
        Frame::new(0xc0, &[8, 0, 8, 0, width, 3, 1, 0x22, 0, 2, factors, 0, 3, 0x11, 0]).unwrap()
    }

    #[test]
    fn narrow_images_and_odd_ratios_repeat_samples() {
        let of = |width, factors| {
            let frame = halved(width, factors);
            Upsampling::of(&frame.components[1], &frame)
        };
        assert_eq!(of(5, 0x22), Upsampling::None);
        assert_eq!(of(5, 0x11), Upsampling::Both);
        assert_eq!(of(4, 0x11), Upsampling::Repeat { across: 2, down: 2 });
        assert_eq!(of(5, 0x12), Upsampling::Across);
        assert_eq!(of(4, 0x12), Upsampling::Repeat { across: 2, down: 1 });
        assert_eq!(of(1, 0x21), Upsampling::Down);
    }
}
