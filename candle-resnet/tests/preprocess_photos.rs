//! Every way a photo can be stored, and every way a file can fail to be one.
//!
//! `data/photos` was written by `scripts/make_photos.py`, which also recorded what Pillow shows for each file.

use std::{collections::BTreeMap, fs, path::PathBuf};

use candle_resnet::preprocess::{Note, Photo, PhotoError, Preprocessing, Reason, decode, decode_bytes};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    photos: BTreeMap<String, Shown>,
}

#[derive(Deserialize)]
struct Shown {
    width: usize,
    height: usize,
    rgb: String,
}

impl Shown {
    fn pixels(&self) -> Vec<u8> {
        (0..self.rgb.len()).step_by(2).map(|at| u8::from_str_radix(&self.rgb[at..at + 2], 16).unwrap()).collect()
    }
}

fn photos() -> BTreeMap<String, Shown> {
    let expected: Expected = serde_json::from_str(include_str!("data/photos/expected.json")).unwrap();
    assert!(expected.photos.len() > 40);
    expected.photos
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/photos").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn open(name: &str) -> Photo {
    decode(&path(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn failure(bytes: &[u8]) -> PhotoError {
    decode_bytes(bytes, "photo".as_ref()).expect_err("decoded")
}

/// In levels. Lossy WebP goes through another inverse transform than Pillow's.
fn tolerance(name: &str) -> u8 {
    match name {
        "lossy.webp" => 5,
        "cmyk.tiff" => 1,
        _ => 0,
    }
}

#[test]
fn every_kind_of_photo_looks_as_in_pillow() {
    for (name, shown) in photos() {
        let photo = open(&name);
        assert_eq!((photo.width(), photo.height()), (shown.width, shown.height), "{name}");
        let differences = photo.pixels().iter().zip(shown.pixels()).map(|(found, expected)| found.abs_diff(expected));
        let largest = differences.max().unwrap();
        println!("{name}: {largest}");
        assert!(largest <= tolerance(&name), "{name}: {largest} levels");
    }
}

#[test]
fn animations_give_their_first_frame_with_a_word() {
    for (name, format) in [("animated.gif", "GIF"), ("animated.webp", "WebP"), ("animated.png", "PNG")] {
        assert_eq!(open(name).notes(), [Note::FirstFrame { format }], "{name}");
    }
    for name in ["still.gif", "transparent.gif", "lossless.webp", "grey.png"] {
        assert!(open(name).notes().is_empty(), "{name}");
    }
    assert_eq!(open("animated.gif").notes()[0].to_string(), "animated GIF: only the first frame was used");
}

#[test]
fn exif_rotation_is_applied_in_every_format_and_told() {
    assert!(open("exif_1.jpg").notes().is_empty());
    for orientation in 2..=8 {
        assert_eq!(open(&format!("exif_{orientation}.jpg")).notes(), [Note::Rotated { orientation }]);
    }
    for name in ["exif_6.png", "exif_6.webp", "exif_6.tiff"] {
        assert_eq!((open(name).width(), open(name).height()), (13, 20), "{name}");
        assert_eq!(open(name).notes(), [Note::Rotated { orientation: 6 }], "{name}");
    }
}

#[test]
fn content_decides_over_the_extension_and_the_lie_is_told() {
    let photo = decode_bytes(&bytes("still.gif"), "holiday.JPG".as_ref()).unwrap();
    assert_eq!(photo.pixels(), open("still.gif").pixels());
    assert_eq!(photo.notes(), [Note::Extension { extension: "JPG".to_owned(), format: "GIF" }]);
    assert_eq!(photo.notes()[0].to_string(), "is named .JPG but is a GIF");
    assert!(decode_bytes(&bytes("rgb.jpg"), "no_extension".as_ref()).unwrap().notes().is_empty());
}

#[test]
fn photos_cut_off_are_refused_unless_what_is_left_is_the_whole_first_frame() {
    for name in photos().keys() {
        let whole = bytes(name);
        for cut in 0..whole.len() {
            let Ok(photo) = decode_bytes(&whole[..cut], name.as_ref()) else {
                continue;
            };
            assert!(cut > whole.len() / 3, "{name} cut at {cut} of {}", whole.len());
            let same = photo.pixels() == open(name).pixels();
            assert!(same, "{name} cut at {cut} of {}", whole.len());
        }
    }
}

#[test]
fn jpeg_cut_off_in_its_data_says_so() {
    for name in ["rgb.jpg", "subsampled.jpg", "progressive.jpg", "cmyk.jpg"] {
        let whole = bytes(name);
        let error = failure(&whole[..whole.len() - 60]);
        assert_eq!(error.to_string(), "photo: truncated JPEG", "{name}");
        assert_eq!(error.hint().unwrap(), "copy or download it again");
    }
}

#[test]
fn jpeg_whose_data_end_early_is_truncated_even_with_an_end_marker() {
    for name in ["texture_full.jpg", "texture_both.jpg", "grey.jpg", "texture_full_progressive.jpg"] {
        let whole = bytes(name);
        let cut = [&whole[..whole.len() - 60], &[0xff, 0xd9]].concat();
        assert_eq!(failure(&cut).to_string(), "photo: truncated JPEG", "{name}");
    }
}

#[test]
fn jpeg_without_one_of_its_scans_is_refused() {
    let whole = bytes("scan_by_scan.jpg");
    let last = whole.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let without = [&whole[..last], &[0xff, 0xd9]].concat();
    assert_eq!(failure(&without).to_string(), "photo: cannot decode this JPEG: component 3 has no coded data");
}

#[test]
fn jpeg_with_restart_markers_out_of_order_is_refused() {
    let mut swapped = bytes("restarts.jpg");
    let first = swapped.windows(2).position(|pair| pair == [0xff, 0xd0]).unwrap();
    swapped[first + 1] = 0xd5;
    let reason = "photo: cannot decode this JPEG: restart marker 0xd0 is missing, found 0xd5";
    assert_eq!(failure(&swapped).to_string(), reason);
}

#[test]
fn jpeg_with_impossible_codes_is_refused_rather_than_filled_with_grey() {
    for name in ["rgb.jpg", "grey.jpg", "subsampled.jpg", "cmyk.jpg"] {
        let mut damaged = bytes(name);
        let scan = damaged.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        let ones = [0xff, 0x00].repeat(4); // No code consists of ones alone.
        let middle = (scan + damaged.len()) / 2;
        damaged.splice(middle..middle + ones.len(), ones);
        let reason = failure(&damaged).reason;
        assert!(matches!(reason, Reason::Undecodable { format: "JPEG", .. }), "{name}: {reason}");
    }
}

#[test]
fn no_damage_makes_a_decoder_panic() {
    let mut state = 0x2545_f491u32;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    for name in photos().keys() {
        let whole = bytes(name);
        for _ in 0..200 {
            let mut damaged = whole.clone();
            for _ in 0..=random(4) {
                let at = random(damaged.len());
                damaged[at] = random(256) as u8;
            }
            damaged.truncate(damaged.len() - random(3) * random(damaged.len()) / 3);
            if let Ok(photo) = decode_bytes(&damaged, name.as_ref()) {
                assert_eq!(Preprocessing::imagenet(8, 8).apply(&photo).len(), 3 * 8 * 8);
            }
        }
    }
}

/// A PNG header, its checksum right, that claims any size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = bytes("rgba.png");
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
    };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn header_of_30000_by_30000_pixels_is_refused_before_memory_is_taken() {
    let error = failure(&png_header(30_000, 30_000));
    assert!(matches!(error.reason, Reason::TooManyPixels { width: 30_000, height: 30_000, .. }), "{error}");
    assert!(error.hint().unwrap().contains("scale it down"));

    let mut jpeg = bytes("rgb.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    assert!(matches!(failure(&jpeg).reason, Reason::TooManyPixels { width: 30_000, height: 30_000, .. }));

    let mut gif = bytes("still.gif");
    gif[6..10].copy_from_slice(&[0x30, 0x75, 0x30, 0x75]);
    assert!(matches!(failure(&gif).reason, Reason::TooManyPixels { .. }), "{}", failure(&gif));

    let bitmap = [&bytes("rgb.bmp")[..18], &30_000u32.to_le_bytes(), &30_000u32.to_le_bytes(), &bytes("rgb.bmp")[26..]];
    assert!(matches!(failure(&bitmap.concat()).reason, Reason::TooManyPixels { .. }));
    assert!(matches!(failure(b"P6 30000 30000 255\n").reason, Reason::TooManyPixels { .. }));
}

#[test]
fn one_pixel_is_enough() {
    let photo = decode_bytes(b"P6 1 1 255\n\x01\x02\x03", "dot.ppm".as_ref()).unwrap();
    let pixels = Preprocessing::imagenet(256, 224).pixels(&photo);
    assert!(pixels.len() == 224 * 224 * 3 && pixels.chunks_exact(3).all(|pixel| pixel == [1, 2, 3]));
}

#[test]
fn files_that_hold_no_photo_say_what_they_hold() {
    assert_eq!(failure(b"").to_string(), "photo: is empty (0 bytes)");
    assert_eq!(failure("Grüße aus dem Urlaub".as_bytes()).to_string(), "photo: is text, not a photo");
    let heic = failure(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    assert_eq!(heic.to_string(), "photo: HEIC is not supported");
    assert_eq!(heic.hint().unwrap(), "convert it to JPEG or PNG");
}

#[test]
fn paths_that_are_no_readable_file_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let reason = |path: PathBuf| decode(&path).unwrap_err().to_string().replace(&format!("{}: ", path.display()), "");
    assert_eq!(reason(folder.path().to_owned()), "is a folder, not a photo");
    assert_eq!(reason(folder.path().join("gone.jpg")), "no such file");
    #[cfg(unix)]
    {
        let link = folder.path().join("link.jpg");
        std::os::unix::fs::symlink("target.jpg", &link).unwrap();
        assert_eq!(reason(link), "broken link to target.jpg");
        assert_eq!(reason("/dev/null".into()), "is not a regular file");
    }
}

#[test]
fn names_with_spaces_and_other_scripts_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("Ameise auf Blüte 蟻 🐜.jpg");
    fs::write(&photo, bytes("rgb.jpg")).unwrap();
    let (tensor, notes) = Preprocessing::imagenet(16, 16).load(&photo).unwrap();
    assert_eq!((tensor.len(), notes.len()), (3 * 16 * 16, 0));
}
