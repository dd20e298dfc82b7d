//! Rows of components → RGB, in libjpeg's and, for CMYK, Pillow's integers.

use super::{
    frame::Frame,
    segments::Headers,
    upsample::{Scratch, Upsampling},
};
use crate::preprocess::vector::Kernel;

/// What the components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Color {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    /// CMY as YCbCr, and black.
    Ycck,
}

impl Color {
    /// As libjpeg guesses: the standard has no word on it.
    pub(super) fn of(frame: &Frame, headers: &Headers) -> Self {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (ids.as_slice(), headers.jfif, headers.adobe) {
            ([_], ..) => Self::Grey,
            ([_, _, _, _], _, None | Some(0)) => Self::Cmyk,
            ([_, _, _, _], ..) => Self::Ycck,
            (_, false, Some(0)) | (b"RGB", false, None) => Self::Rgb,
            _ => Self::YCbCr,
        }
    }
}

/// The whole image: a kernel that upsamples and converts row by row.
pub(super) struct Convert<'a> {
    pub frame: &'a Frame,
    pub color: Color,
}

impl Kernel for Convert<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn run(self) -> Vec<u8> {
        let Self { frame, color } = self;
        let upsampling: Vec<_> = frame.components.iter().map(|component| Upsampling::of(component, frame)).collect();
        let mut scratch: [Scratch; 4] = Default::default();
        let mut pixels = vec![0; frame.width * frame.height * 3];
        for (y, out) in pixels.chunks_exact_mut(frame.width * 3).enumerate() {
            let mut rows: [&[u8]; 4] = [&[]; 4];
            let parts = frame.components.iter().zip(&upsampling).zip(&mut scratch);
            for (row, ((component, upsampling), scratch)) in rows.iter_mut().zip(parts) {
                *row = upsampling.row(component, y, scratch);
            }
            color.convert(rows, out.as_chunks_mut().0);
        }
        pixels
    }
}

impl Color {
    #[inline(always)]
    fn convert(self, [a, b, c, d]: [&[u8]; 4], out: &mut [[u8; 3]]) {
        match self {
            Self::Grey => three(out, a, a, a, |grey, _, _| [grey; 3]),
            Self::Rgb => three(out, a, b, c, |red, green, blue| [red, green, blue]),
            Self::YCbCr => three(out, a, b, c, from_ycbcr),
            Self::Cmyk => {
                three(out, a, b, c, |cyan, magenta, yellow| [cyan, magenta, yellow]);
                darken(out, d);
            }
            Self::Ycck => {
                three(out, a, b, c, |y, cb, cr| from_ycbcr(y, cb, cr).map(|ink| 255 - ink));
                darken(out, d);
            }
        }
    }
}

/// Pixels that are converted at once, channel by channel, and only then interleaved: compilers vectorise that.
const LANES: usize = 32;

#[inline(always)]
fn three(out: &mut [[u8; 3]], a: &[u8], b: &[u8], c: &[u8], pixel: impl Fn(u8, u8, u8) -> [u8; 3]) {
    let [(a_chunks, a), (b_chunks, b), (c_chunks, c)] = [a, b, c].map(|row| row[..out.len()].as_chunks());
    let (out_chunks, out) = out.as_chunks_mut::<LANES>();
    for (((out, a), b), c) in out_chunks.iter_mut().zip(a_chunks).zip(b_chunks).zip(c_chunks) {
        chunk(out, a, b, c, &pixel);
    }
    for (((out, &a), &b), &c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *out = pixel(a, b, c);
    }
}

#[inline(always)]
fn chunk(
    out: &mut [[u8; 3]; LANES],
    a: &[u8; LANES],
    b: &[u8; LANES],
    c: &[u8; LANES],
    pixel: impl Fn(u8, u8, u8) -> [u8; 3],
) {
    let mut planes = [[0; LANES]; 3];
    for lane in 0..LANES {
        [planes[0][lane], planes[1][lane], planes[2][lane]] = pixel(a[lane], b[lane], c[lane]);
    }
    for (lane, out) in out.iter_mut().enumerate() {
        *out = [planes[0][lane], planes[1][lane], planes[2][lane]];
    }
}

/// JFIF's matrix in 16 fractional bits; green's two terms are rounded together.
#[inline(always)]
fn from_ycbcr(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let [y, cb, cr] = [i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128];
    let red = y + ((91881 * cr + HALF) >> 16);
    let green = y + ((HALF - 22554 * cb - 46802 * cr) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}

/// Inks as Adobe stores them, 255 for none, turned into light: each times black, divided by 255 as Pillow rounds it.
#[inline(always)]
fn darken(pixels: &mut [[u8; 3]], black: &[u8]) {
    for (pixel, &black) in pixels.iter_mut().zip(black) {
        *pixel = pixel.map(|ink| black - over_255(u16::from(255 - ink) * u16::from(black)) as u8);
    }
}

/// Rounds to nearest; for products of two bytes.
#[inline(always)]
fn over_255(product: u16) -> u16 {
    let product = u32::from(product) + 128;
    (((product >> 8) + product) >> 8) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ycbcr_is_jfifs_matrix_within_rounding() {
        for (y, cb, cr) in (0..=255).step_by(5).flat_map(|y| (0..=255).map(move |c| (y, c, 255 - c / 3 * 2))) {
            let [luma, blue, red] = [f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0];
            let expected = [luma + 1.402 * red, luma - 0.344_14 * blue - 0.714_14 * red, luma + 1.772 * blue];
            for (found, expected) in from_ycbcr(y, cb, cr).into_iter().zip(expected) {
                assert!((f64::from(found) - expected.clamp(0.0, 255.0)).abs() < 0.51, "{y} {cb} {cr}");
            }
        }
    }

    #[test]
    fn division_by_255_rounds_to_nearest() {
        for product in (0..=255).flat_map(|a: u16| (0..=255).map(move |b| a * b)) {
            assert_eq!(f64::from(over_255(product)), (f64::from(product) / 255.0).round());
        }
    }

    #[test]
    fn rows_of_any_width_are_converted_to_their_end() {
        for width in [1, 31, 32, 33, 64, 95] {
            let channel = |factor: usize| (0..width + 1).map(|x| (x * factor) as u8).collect::<Vec<_>>();
            let rows = [3, 5, 7].map(channel);
            let mut out = vec![[0; 3]; width];
            Color::Rgb.convert([&rows[0], &rows[1], &rows[2], &[]], &mut out);
            assert!(out.iter().enumerate().all(|(x, pixel)| *pixel == [3, 5, 7].map(|factor| (x * factor) as u8)));
        }
    }

    #[test]
    fn color_is_told_as_libjpeg_tells_it() {
        let color = |ids: &[u8], jfif, adobe| {
            let mut segment = vec![8, 0, 8, 0, 8, ids.len() as u8];
            ids.iter().for_each(|&id| segment.extend([id, 0x11, 0]));
            let frame = Frame::new(0xc0, &segment).unwrap();
            let mut headers = Headers::default();
            (headers.jfif, headers.adobe) = (jfif, adobe);
            Color::of(&frame, &headers)
        };
        assert_eq!(color(b"\x01", false, None), Color::Grey);
        assert_eq!(color(b"\x01\x02\x03", false, None), Color::YCbCr);
        assert_eq!(color(b"\x01\x02\x03", false, Some(0)), Color::Rgb);
        assert_eq!(color(b"\x01\x02\x03", true, Some(0)), Color::YCbCr);
        assert_eq!(color(b"RGB", false, None), Color::Rgb);
        assert_eq!(color(b"RGB", true, None), Color::YCbCr);
        assert_eq!(color(b"RGB", false, Some(1)), Color::YCbCr);
        assert_eq!(color(b"\x01\x02\x03\x04", true, None), Color::Cmyk);
        assert_eq!(color(b"\x01\x02\x03\x04", false, Some(2)), Color::Ycck);
    }
}
