//! How an image file stores its pixels: format and colour mode, from its header alone.
//!
//! Decodes nothing, so that it also tells of files whose pixels are damaged.

use std::io::Cursor;

use image::codecs::{png::PngDecoder, webp::WebPDecoder};
use image::{ExtendedColorType, ImageDecoder, ImageFormat, ImageReader};

use super::{jpeg, sniff};

/// What a file's header says of its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Encoding {
    /// The format, as people write it: `JPEG`.
    pub format: &'static str,
    /// The colour mode in words: `RGB`, `grey`, `RGB with alpha`; `other` for rare ones.
    pub mode: &'static str,
}

/// Colour modes by name.
const MODES: [(ExtendedColorType, &str); 14] = [
    (ExtendedColorType::L1, "1-bit grey"),
    (ExtendedColorType::L2, "2-bit grey"),
    (ExtendedColorType::L4, "4-bit grey"),
    (ExtendedColorType::L8, "grey"),
    (ExtendedColorType::La8, "grey with alpha"),
    (ExtendedColorType::Rgb8, "RGB"),
    (ExtendedColorType::Rgba8, "RGB with alpha"),
    (ExtendedColorType::L16, "16-bit grey"),
    (ExtendedColorType::La16, "16-bit grey with alpha"),
    (ExtendedColorType::Rgb16, "16-bit RGB"),
    (ExtendedColorType::Rgba16, "16-bit RGB with alpha"),
    (ExtendedColorType::Rgb32F, "32-bit RGB"),
    (ExtendedColorType::Cmyk8, "CMYK"),
    (ExtendedColorType::Cmyk16, "16-bit CMYK"),
];

/// The encoding of `bytes`, the content of an image file; none where no header of a format that is read can be found.
pub fn encoding(bytes: &[u8]) -> Option<Encoding> {
    let format = sniff::format(bytes).ok()?;
    Some(Encoding { format: sniff::name(format), mode: mode(format, bytes)? })
}

fn mode(format: ImageFormat, bytes: &[u8]) -> Option<&'static str> {
    let source = Cursor::new(bytes);
    let color = match format {
        ImageFormat::Jpeg => return jpeg_mode(jpeg::components(bytes)?),
        ImageFormat::Png => PngDecoder::new(source).ok()?.original_color_type(),
        ImageFormat::WebP => WebPDecoder::new(source).ok()?.original_color_type(),
        _ => ImageReader::with_format(source, format).into_decoder().ok()?.original_color_type(),
    };
    let known = MODES.iter().find(|(mode, _)| *mode == color);
    Some(known.map_or("other", |(_, name)| name))
}

fn jpeg_mode(components: u8) -> Option<&'static str> {
    match components {
        1 => Some("grey"),
        3 => Some("RGB"),
        4 => Some("CMYK"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn of(name: &str) -> Option<(&'static str, &'static str)> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/photos").join(name);
        encoding(&fs::read(path).unwrap()).map(|encoding| (encoding.format, encoding.mode))
    }

    #[test]
    fn formats_and_modes_are_those_of_the_header() {
        assert_eq!(of("cmyk.jpg"), Some(("JPEG", "CMYK")));
        assert_eq!(of("exif_6.jpg"), Some(("JPEG", "RGB")));
        assert_eq!(of("grey.png"), Some(("PNG", "grey")));
        assert_eq!(of("grey_alpha_16_bit.png"), Some(("PNG", "16-bit grey with alpha")));
        assert_eq!(of("rgba_16_bit.png"), Some(("PNG", "16-bit RGB with alpha")));
    }

    #[test]
    fn what_is_no_image_has_none() {
        assert_eq!(encoding(b""), None);
        assert_eq!(encoding(b"a letter"), None);
        assert_eq!(encoding(b"\xff\xd8\xff"), None, "a JPEG without a frame");
    }
}
