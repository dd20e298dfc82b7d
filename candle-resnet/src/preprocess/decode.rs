//! Image file → [`Photo`]: the first frame, upright, as RGB8.
//!
//! The format is told from the content. Colour becomes RGB as Pillow's `convert("RGB")` has it: grey is replicated,
//! alpha dropped without blending, a palette looked up. Of 16 bits the upper 8 are kept, as Pillow does for colour
//! (16-bit grey it clips at 255, which makes nearly every such image white; that is not copied). ICC profiles are not
//! applied, nor does torchvision.

use std::{
    fs,
    io::{self, Cursor, Read},
    path::Path,
};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::{png::PngDecoder, webp::WebPDecoder},
    error::UnsupportedErrorKind,
    metadata::Orientation,
};

use super::{Note, Photo, PhotoError, Reason, jpeg, sniff};

/// The largest decoded image, in bytes: 179 million RGB pixels, which is also where Pillow stops.
pub const MAX_DECODED_BYTES: u64 = 512 << 20;

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// Reads a photo.
///
/// # Errors
/// The file cannot be read, is no image or of a format that is not supported, is damaged or cut off, or would
/// take more than [`MAX_DECODED_BYTES`]. The error names the path and the reason.
pub fn decode(path: &Path) -> Result<Photo, PhotoError> {
    decode_bytes(&read(path)?, path)
}

/// Decodes the content of an image file; `path` names it in errors, and its extension is compared with the content.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(bytes: &[u8], path: &Path) -> Result<Photo, PhotoError> {
    let named = |reason| PhotoError { path: path.to_owned(), reason };
    let format = sniff::format(bytes).map_err(named)?;
    let (photo, mut notes) = decode_as(format, bytes).map_err(named)?;
    notes.extend(extension_note(path, format));
    Ok(photo.with_notes(notes))
}

/// The whole file. A pipe or device is not opened: that could wait, or read, for ever.
///
/// # Errors
/// The file cannot be read, or holds more than [`MAX_FILE_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>, PhotoError> {
    read_regular(path).map_err(|reason| PhotoError { path: path.to_owned(), reason })
}

fn read_regular(path: &Path) -> Result<Vec<u8>, Reason> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if metadata.is_dir() {
        return Err(Reason::Folder);
    }
    if !metadata.is_file() {
        return Err(Reason::NotRegular);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Reason::FileTooLarge { found: metadata.len() });
    }
    let file = fs::File::open(path).map_err(|error| unreadable(path, error))?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => Reason::BrokenLink { target },
            Err(_) => Reason::Missing,
        },
        io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
        _ => Reason::Io(error),
    }
}

fn extension_note(path: &Path, format: ImageFormat) -> Option<Note> {
    let extension = path.extension()?.to_str()?;
    let lie = !sniff::extension_fits(extension, format);
    lie.then(|| Note::Extension { extension: extension.to_owned(), format: sniff::name(format) })
}

fn decode_as(format: ImageFormat, bytes: &[u8]) -> Result<(Photo, Vec<Note>), Reason> {
    let fail = |error| refused(format, error);
    let source = Cursor::new(bytes);
    match format {
        ImageFormat::Jpeg => {
            let (width, height, pixels, orientation) = jpeg::decode(bytes)?;
            finish(width, height, pixels, orientation, Vec::new())
        }
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(source, limits()).map_err(fail)?;
            let animated = decoder.is_apng().map_err(fail)?;
            first_frame(decoder, format, animated)
        }
        ImageFormat::WebP if sniff::webp_is_cut_off(bytes) => Err(Reason::Truncated { format: "WebP" }),
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(source).map_err(fail)?;
            let animated = decoder.has_animation();
            first_frame(decoder, format, animated)
        }
        _ => {
            let animated = format == ImageFormat::Gif && sniff::gif_is_animated(bytes);
            let mut reader = ImageReader::with_format(source, format);
            reader.limits(limits());
            first_frame(reader.into_decoder().map_err(fail)?, format, animated)
        }
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

/// Refuses sizes whose pixels would not fit, before any memory is taken for them.
pub(super) fn check_size(width: u64, height: u64, bytes_per_pixel: u64) -> Result<(), Reason> {
    let bytes = width.saturating_mul(height).saturating_mul(bytes_per_pixel);
    if bytes > MAX_DECODED_BYTES { Err(Reason::TooManyPixels { width, height, bytes }) } else { Ok(()) }
}

fn first_frame(
    mut decoder: impl ImageDecoder,
    format: ImageFormat,
    animated: bool,
) -> Result<(Photo, Vec<Note>), Reason> {
    let fail = |error| refused(format, error);
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into(), decoder.color_type().bytes_per_pixel().into())?;
    decoder.set_limits(limits()).map_err(fail)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(fail)?;
    let notes = animated.then(|| Note::FirstFrame { format: sniff::name(format) });
    finish(width as usize, height as usize, rgb8(image), orientation, notes.into_iter().collect())
}

fn refused(format: ImageFormat, error: ImageError) -> Reason {
    let format = sniff::name(format);
    match error {
        ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => Reason::Truncated { format },
        ImageError::Unsupported(error) => Reason::Undecodable { format, detail: unsupported(error.kind()) },
        error => Reason::Undecodable { format, detail: error.to_string() },
    }
}

fn unsupported(kind: UnsupportedErrorKind) -> String {
    match kind {
        UnsupportedErrorKind::Color(color) => format!("the colour type {color:?} is not supported"),
        UnsupportedErrorKind::GenericFeature(feature) => format!("{feature} is not supported"),
        _ => "a feature it uses is not supported".to_owned(),
    }
}

fn rgb8(image: DynamicImage) -> Vec<u8> {
    const UPPER_HALF: fn(u16) -> u8 = |value| (value >> 8) as u8;
    match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => image.pixels().flat_map(|&image::Rgba([r, g, b, _])| [r, g, b]).collect(),
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|&image::Luma([grey])| [grey; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|&image::LumaA([grey, _])| [grey; 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(UPPER_HALF).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|&image::Rgba([r, g, b, _])| [r, g, b].map(UPPER_HALF)).collect()
        }
        DynamicImage::ImageLuma16(image) => {
            image.pixels().flat_map(|&image::Luma([grey])| [UPPER_HALF(grey); 3]).collect()
        }
        DynamicImage::ImageLumaA16(image) => {
            image.pixels().flat_map(|&image::LumaA([grey, _])| [UPPER_HALF(grey); 3]).collect()
        }
        other => other.into_rgb8().into_raw(),
    }
}

/// Turns the pixels upright.
fn finish(
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    orientation: Orientation,
    mut notes: Vec<Note>,
) -> Result<(Photo, Vec<Note>), Reason> {
    let damaged = || Reason::Undecodable { format: "image", detail: "pixels do not fill the size".to_owned() };
    if orientation == Orientation::NoTransforms {
        let photo = Photo::from_rgb8(width, height, pixels).ok_or_else(damaged)?;
        return Ok((photo, notes));
    }
    notes.push(Note::Rotated { orientation: orientation.to_exif() });
    let image = image::RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(damaged)?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let photo = Photo::from_rgb8(width, height, image.into_rgb8().into_raw()).ok_or_else(damaged)?;
    Ok((photo, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_refused_from_where_pillow_refuses_them() {
        assert!(check_size(178_956_970, 1, 3).is_ok());
        let reason = check_size(30_000, 30_000, 3).unwrap_err().to_string();
        assert_eq!(reason, "30000×30000 pixels take 2700000000 bytes decoded, more than the limit of 536870912");
        assert!(check_size(u64::MAX, u64::MAX, 8).is_err());
    }

    #[test]
    fn permission_and_other_system_errors_are_told_apart() {
        let reason = |kind| unreadable(Path::new("no-such-photo"), io::Error::from(kind));
        assert!(matches!(reason(io::ErrorKind::PermissionDenied), Reason::PermissionDenied));
        assert!(matches!(reason(io::ErrorKind::NotFound), Reason::Missing));
        assert!(matches!(reason(io::ErrorKind::Interrupted), Reason::Io(_)));
    }

    #[test]
    fn sixteen_bits_keep_their_upper_half() {
        let image =
            image::ImageBuffer::from_raw(2, 1, vec![0x00ffu16, 0xab00, 0xffff, 0x0100, 0x7fff, 0x8000]).unwrap();
        assert_eq!(rgb8(DynamicImage::ImageRgb16(image)), [0x00, 0xab, 0xff, 0x01, 0x7f, 0x80]);
    }
}
