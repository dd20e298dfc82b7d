//! What a file is, from its first bytes; its name is not asked.

use image::ImageFormat;

use super::Reason;

/// Formats that are read, and the extensions that are theirs.
const READ: [(ImageFormat, &str, &[&str]); 7] = [
    (ImageFormat::Jpeg, "JPEG", &["jpg", "jpeg", "jpe", "jfif"]),
    (ImageFormat::Png, "PNG", &["png", "apng"]),
    (ImageFormat::Gif, "GIF", &["gif"]),
    (ImageFormat::WebP, "WebP", &["webp"]),
    (ImageFormat::Bmp, "BMP", &["bmp", "dib"]),
    (ImageFormat::Tiff, "TIFF", &["tif", "tiff"]),
    (ImageFormat::Pnm, "PNM", &["pbm", "pgm", "ppm", "pnm", "pam"]),
];

/// Image formats that are not read, by the bytes at an offset.
const UNSUPPORTED: [(usize, &[u8], &str); 14] = [
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF", "PDF"),
    (0, b"DDS ", "DDS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
];

/// Files that are no image at all, by their first bytes.
const OTHER: [(&[u8], &str); 8] = [
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
];

/// The format of `bytes`, if it is one that is read.
pub(super) fn format(bytes: &[u8]) -> Result<ImageFormat, Reason> {
    match image::guess_format(bytes) {
        Ok(format) if READ.iter().any(|(read, ..)| *read == format) => Ok(format),
        _ => Err(not_read(bytes)),
    }
}

/// The format's name, as people write it.
pub(super) fn name(format: ImageFormat) -> &'static str {
    READ.iter().find(|(read, ..)| *read == format).map_or("image", |(_, name, _)| name)
}

/// Whether a file of that format may have that extension. Extensions that no image format owns contradict nothing.
pub(super) fn extension_fits(extension: &str, format: ImageFormat) -> bool {
    let extension = extension.to_ascii_lowercase();
    let owner = READ.iter().find(|(.., extensions)| extensions.contains(&extension.as_str()));
    owner.is_none_or(|(owner, ..)| *owner == format)
}

fn not_read(bytes: &[u8]) -> Reason {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if bytes.is_empty() {
        return Reason::Empty;
    }
    if let Some((.., format)) = UNSUPPORTED.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        return Reason::Unsupported { format };
    }
    if let Some((_, found)) = OTHER.iter().find(|(magic, _)| at(0, magic)) {
        return Reason::NotAPhoto { found };
    }
    if at(4, b"ftyp") {
        return Reason::NotAPhoto { found: "an MP4 or QuickTime video" };
    }
    text(bytes).unwrap_or(Reason::Unknown)
}

/// SVG, HTML and other text; the beginning is enough to tell.
fn text(bytes: &[u8]) -> Option<Reason> {
    let head = &bytes[..bytes.len().min(1024)];
    let printable = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    if !head.iter().all(printable) {
        return None;
    }
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if head.contains("<svg") {
        Some(Reason::Unsupported { format: "SVG" })
    } else if head.contains("<html") || head.contains("<!doctype html") {
        Some(Reason::NotAPhoto { found: "a web page" })
    } else if head.starts_with("version https://git-lfs") {
        Some(Reason::NotAPhoto { found: "a Git LFS pointer" })
    } else {
        std::str::from_utf8(bytes).is_ok().then_some(Reason::NotAPhoto { found: "text" })
    }
}

/// Whether a WebP is shorter than its header says. Its EXIF stands at the end, so a cut could lose the rotation alone.
pub(super) fn webp_is_cut_off(bytes: &[u8]) -> bool {
    let Some(&[a, b, c, d]) = bytes.get(4..8) else {
        return true;
    };
    (bytes.len() as u64) < 8 + u64::from(u32::from_le_bytes([a, b, c, d]))
}

/// Whether a GIF holds a second image. Stops at what it does not understand; the decoder will complain about that.
pub(super) fn gif_is_animated(bytes: &[u8]) -> bool {
    const IMAGE: u8 = 0x2c;
    const EXTENSION: u8 = 0x21;
    let mut images = 0;
    let mut at = 13 + bytes.get(10).map_or(0, |&flags| color_table_bytes(flags));
    while let Some(&block) = bytes.get(at) {
        let data = match block {
            EXTENSION => at + 2,
            IMAGE => at + 11 + bytes.get(at + 9).map_or(0, |&flags| color_table_bytes(flags)),
            _ => break,
        };
        images += usize::from(block == IMAGE);
        at = after_sub_blocks(bytes, data);
    }
    images > 1
}

fn color_table_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// The offset behind a chain of sub-blocks, which an empty one ends.
fn after_sub_blocks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&length) = bytes.get(at) {
        at += 1 + usize::from(length);
        if length == 0 {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> String {
        format(bytes).unwrap_err().to_string()
    }

    #[test]
    fn formats_that_are_not_read_are_named() {
        assert_eq!(reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "HEIC is not supported");
        assert_eq!(reason(b"\0\0\0\x1cftypavif\0\0\0\0"), "AVIF is not supported");
        assert_eq!(reason(b"%PDF-1.7\n"), "PDF is not supported");
        assert_eq!(reason(b"<?xml version=\"1.0\"?>\n<svg xmlns=\"\"/>"), "SVG is not supported");
        assert_eq!(reason(b"\0\0\x01\0\x01\0\x10\x10"), "ICO is not supported");
    }

    #[test]
    fn what_is_no_image_is_named() {
        assert_eq!(reason(b""), "is empty (0 bytes)");
        assert_eq!(reason(b"a shopping list\n"), "is text, not a photo");
        assert_eq!(reason(b"<!DOCTYPE html><title>404</title>"), "is a web page, not a photo");
        assert_eq!(reason(b"PK\x03\x04\x14\0\0\0"), "is a zip archive, not a photo");
        assert_eq!(reason(b"\0\0\0\x18ftypmp42\0\0\0\0"), "is an MP4 or QuickTime video, not a photo");
        assert_eq!(reason(&[0, 159, 146, 150]), "is in no known image format");
    }

    #[test]
    fn extension_is_a_lie_only_where_another_format_owns_it() {
        assert!(extension_fits("JPG", ImageFormat::Jpeg));
        assert!(extension_fits("jfif", ImageFormat::Jpeg));
        assert!(extension_fits("photo", ImageFormat::Jpeg));
        assert!(!extension_fits("png", ImageFormat::Jpeg));
    }

    #[test]
    fn broken_gif_does_not_confuse_the_search_for_a_second_frame() {
        assert!(!gif_is_animated(b""));
        assert!(!gif_is_animated(b"GIF89a\x01\0\x01\0\x87\0\0"));
        assert!(!gif_is_animated(&[b"GIF89a\x01\0\x01\0\0\0\0".as_slice(), &[0x21; 40]].concat()));
    }
}
