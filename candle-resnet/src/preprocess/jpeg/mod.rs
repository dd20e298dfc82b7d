//! JPEG → RGB, in every bit as Pillow (libjpeg-turbo) decodes it.
//!
//! The format leaves open how a transform is rounded, and altogether how chroma of half the resolution is spread over
//! pixels. Decoders choose differently, by up to nine levels at edges, which a network can see. This one makes libjpeg's
//! choices ([`idct`], [`upsample`], [`color`]).
//!
//! It shows no picture that it cannot vouch for. Coded data that end early or hold a code that does not exist are an error,
//! where other decoders fill the rest with grey; so is a missing end marker. Damage that still reads as codes goes
//! unnoticed. Not read: arithmetic and lossless coding, 12 bits a sample. Of a progressive image whose last scans were
//! never written, libjpeg smooths the blocks, and this does not.
//!
//! CMYK and YCCK are read as Adobe writes them (inverted), whether or not Adobe did, as Pillow does.
//!
//! Source of the format: ITU-T T.81.

mod color;
mod fault;
mod frame;
mod huffman;
mod idct;
mod scan;
mod segments;
mod standard;
mod upsample;

use image::metadata::Orientation;

use super::{Reason, decode::check_size, vector::dispatch};
use color::{Color, Convert};
use fault::Fault;
use frame::Frame;
use huffman::Bits;
use scan::{Decode, Scan};
use segments::{Headers, Reader, marker};

/// More scans than any encoder writes. Each may be a few bytes that touch every block, so their number bounds the time.
const MAX_SCANS: usize = 500;

/// `(width, height, RGB8 pixels, orientation)`.
pub(super) fn decode(bytes: &[u8]) -> Result<(usize, usize, Vec<u8>, Orientation), Reason> {
    let (frame, headers) = read(bytes)?;
    let pixels = dispatch(Convert { frame: &frame, color: Color::of(&frame, &headers) });
    let orientation = headers.exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    Ok((frame.width, frame.height, pixels, orientation))
}

/// Components of the first frame, by its header; none where there is no frame.
pub(super) fn components(bytes: &[u8]) -> Option<u8> {
    let mut reader = Reader::new(bytes);
    loop {
        match reader.marker().ok()? {
            marker::BASELINE | marker::EXTENDED | marker::PROGRESSIVE => return reader.segment().ok()?.get(5).copied(),
            marker::END_OF_IMAGE | marker::START_OF_SCAN => return None,
            code if marker::stands_alone(code) => {}
            _ => drop(reader.segment().ok()?),
        }
    }
}

/// Reads up to the end marker: all samples, and what the headers say.
fn read(bytes: &[u8]) -> Result<(Frame, Headers<'_>), Reason> {
    let mut reader = Reader::new(bytes);
    let mut headers = Headers::default();
    let mut frame = None;
    let mut scans = 0;
    loop {
        match reader.marker()? {
            marker::END_OF_IMAGE => break,
            code @ (marker::BASELINE | marker::EXTENDED | marker::PROGRESSIVE) => {
                let new = start(code, reader.segment()?)?;
                if frame.replace(new).is_some() {
                    Err(Fault::SecondFrame)?;
                }
            }
            marker::START_OF_SCAN => {
                scans += 1;
                let frame = frame.as_mut().ok_or(Fault::NoFrame)?;
                let scan = headers.scan(reader.segment()?, frame)?;
                reader = read_scan(reader, frame, &scan, scans)?;
            }
            code if marker::stands_alone(code) => {}
            code => {
                refuse_coding(code)?;
                headers.read(code, reader.segment()?)?;
            }
        }
    }
    let mut frame = frame.ok_or(Fault::NoImage)?;
    frame.finish()?;
    Ok((frame, headers))
}

fn start(code: u8, segment: &[u8]) -> Result<Frame, Reason> {
    let frame = Frame::new(code, segment)?;
    check_size(frame.width as u64, frame.height as u64, 3)?;
    Ok(frame)
}

/// Decodes what follows the header of the scan with that number; returns the reader behind it.
fn read_scan<'a>(reader: Reader<'a>, frame: &mut Frame, scan: &Scan, number: usize) -> Result<Reader<'a>, Fault> {
    if number > MAX_SCANS {
        return Err(Fault::TooManyScans);
    }
    let mut bits = Bits::new(reader);
    dispatch(Decode { frame, scan, bits: &mut bits })?;
    Ok(bits.into_reader())
}

/// Kinds of images that are not read, by the marker of their header.
fn refuse_coding(code: u8) -> Result<(), Fault> {
    match code {
        0xc3 | 0xc7 | 0xcb | 0xcf => Err(Fault::Coding("lossless coding")),
        0xc5 | 0xc6 | 0xcd | 0xce => Err(Fault::Coding("hierarchical coding")),
        0xc9 | 0xca => Err(Fault::Coding("arithmetic coding")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn files_without_an_image_say_what_they_lack() {
        assert_eq!(failure(&[0xff, 0xd8, 0xff, 0xd9]), "cannot decode this JPEG: it holds no image");
        assert_eq!(failure(&[0xff, 0xd8, 0xff]), "truncated JPEG");
        let scan = [0xff, 0xd8, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0];
        assert_eq!(failure(&scan), "cannot decode this JPEG: coded data come before the header of the image");
    }

    #[test]
    fn codings_that_are_not_read_are_named() {
        let frame = |code| failure(&[0xff, 0xd8, 0xff, code, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0]);
        assert_eq!(frame(0xc9), "cannot decode this JPEG: arithmetic coding is not supported");
        assert_eq!(frame(0xc3), "cannot decode this JPEG: lossless coding is not supported");
        assert_eq!(frame(0xc5), "cannot decode this JPEG: hierarchical coding is not supported");
    }

    #[test]
    fn end_marker_of_a_thumbnail_does_not_count() {
        let header = [0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
        assert_eq!(failure(&header), "truncated JPEG");
    }

    #[test]
    fn scans_are_counted_because_each_may_cost_more_than_its_bytes() {
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67];
        bytes.extend([0; 65]);
        bytes.extend([0xff, 0xc2, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0]);
        let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0x00, 0b1010_1111];
        bytes.extend(scan.repeat(MAX_SCANS + 1));
        assert_eq!(failure(&bytes), "cannot decode this JPEG: it has more than 500 scans");
    }
}
