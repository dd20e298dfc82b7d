//! JPEG, with missing data as an error.
//!
//! The `image` crate runs zune-jpeg leniently: of a file that was cut off, or whose codes make no sense from some point
//! on, the rest decodes as plain grey. Such a picture must not train anything, so the decoder is run here directly,
//! strict about the coded data and lenient about oddities between the headers, as libjpeg is.
//!
//! Pillow accepts a few files that this refuses: those that lack the end marker alone, and those with impossible codes,
//! which it shows with false colours. Damage that still reads as codes, and data that end early with an end marker
//! behind them, go unnoticed here and there.
//!
//! CMYK and YCCK are read as Adobe writes them (inverted), whether or not Adobe did, as Pillow does.

use image::metadata::Orientation;
use zune_jpeg::{
    JpegDecoder,
    errors::DecodeErrors,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{Reason, decode::check_size};

/// `(width, height, RGB8 pixels, orientation)`.
pub(super) fn decode(bytes: &[u8]) -> Result<(usize, usize, Vec<u8>, Orientation), Reason> {
    if !has_end_marker(bytes) {
        return Err(Reason::Truncated { format: "JPEG" });
    }
    let lenient = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), lenient);
    decoder.decode_headers().map_err(undecodable)?;
    let (width, height) = decoder.dimensions().ok_or(Reason::Truncated { format: "JPEG" })?;
    check_size(width as u64, height as u64, 3)?;
    decoder.set_options(lenient.set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB));
    let pixels = decoder.decode().map_err(undecodable)?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    Ok((width, height, pixels, orientation.unwrap_or(Orientation::NoTransforms)))
}

fn undecodable(error: DecodeErrors) -> Reason {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => Reason::Truncated { format: "JPEG" },
        error => Reason::Undecodable { format: "JPEG", detail: format!("{error:?}") },
    }
}

/// Whether an end-of-image marker follows the start of the coded data. Thumbnails inside headers do not count.
fn has_end_marker(bytes: &[u8]) -> bool {
    let start = start_of_scan(bytes).unwrap_or(bytes.len());
    bytes[start..].windows(2).rev().any(|pair| pair == [0xff, 0xd9])
}

/// The offset of the first scan: segments carry their length, so headers are stepped over.
fn start_of_scan(bytes: &[u8]) -> Option<usize> {
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        at += bytes.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        match *bytes.get(at)? {
            START_OF_SCAN => return Some(at),
            // Stuffing and markers that stand alone.
            0x00 | 0x01 | 0xd0..=0xd9 => at += 1,
            _ => at += 1 + usize::from(u16::from_be_bytes([*bytes.get(at + 1)?, *bytes.get(at + 2)?])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_marker_of_a_thumbnail_does_not_count() {
        let header = [0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9, 0xff, 0xda, 0, 2];
        assert!(!has_end_marker(&header));
        assert!(has_end_marker(&[header.as_slice(), &[1, 2, 0xff, 0xd9]].concat()));
        assert!(has_end_marker(&[header.as_slice(), &[1, 2, 0xff, 0xd9, 0, 0]].concat()), "padding behind the end");
    }

    #[test]
    fn walk_over_headers_ends_at_any_cut() {
        let header = [0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9, 0xff, 0xff, 0xda, 0, 2];
        assert_eq!(start_of_scan(&header), Some(12));
        for cut in 0..header.len() {
            let expected = (cut > 12).then_some(12);
            assert_eq!(start_of_scan(&header[..cut]), expected, "cut at {cut}");
        }
    }
}
