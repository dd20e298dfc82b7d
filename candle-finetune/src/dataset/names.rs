//! What the name of a file or folder says about it.

use std::{borrow::Cow, path::Path};

use icu_normalizer::ComposingNormalizerBorrowed;

use super::SplitName;

/// Extensions of formats that are read, in lower case.
const IMAGES: [&str; 13] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "tif", "tiff", "webp", "pbm", "pgm", "ppm", "pnm"];

/// Extensions of image formats that are not read, in lower case.
const UNSUPPORTED: [&str; 22] = [
    "heic", "heif", "avif", "jxl", "jp2", "j2k", "svg", "pdf", "psd", "ico", "tga", "exr", "hdr", "dds", "raw", "dng",
    "cr2", "cr3", "nef", "arw", "orf", "rw2",
];

/// Extensions of archives in which datasets come, in lower case.
const ARCHIVES: [&str; 8] = ["zip", "tar", "tgz", "gz", "bz2", "xz", "7z", "rar"];

/// Files and folders that systems and tools leave behind, in lower case. Those that begin with a dot are hidden anyway.
const CLUTTER: [&str; 4] = ["__macosx", "thumbs.db", "desktop.ini", "$recycle.bin"];

/// What a file in a class folder is, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Gif,
    Unsupported,
    Other,
}

pub(super) fn kind(path: &Path) -> Kind {
    let extension = extension(path);
    match extension.as_str() {
        "gif" => Kind::Gif,
        known if IMAGES.contains(&known) => Kind::Image,
        known if UNSUPPORTED.contains(&known) => Kind::Unsupported,
        _ => Kind::Other,
    }
}

pub(super) fn is_archive(path: &Path) -> bool {
    ARCHIVES.contains(&extension(path).as_str())
}

pub(super) fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.starts_with('.') || CLUTTER.contains(&name.as_str())
}

/// The split that a folder of that name holds, if it is a split's name.
pub(super) fn split(name: &str) -> Option<SplitName> {
    match name.to_lowercase().as_str() {
        "train" | "training" => Some(SplitName::Train),
        "val" | "valid" | "validation" => Some(SplitName::Val),
        "test" | "testing" => Some(SplitName::Test),
        _ => None,
    }
}

/// The name in Unicode's form NFC: an accent and its letter are one character, where file systems and archives may make two of them.
pub(crate) fn composed(name: &str) -> Cow<'_, str> {
    ComposingNormalizerBorrowed::new_nfc().normalize(name)
}

/// What two names share that differ in case, or in how accents are written, alone.
pub(super) fn likeness(name: &str) -> String {
    composed(&name.to_lowercase()).into_owned()
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_count_in_any_case() {
        for name in ["a.jpg", "a.JPEG", "a.b.Png", "ä ö.webp", "a.jfif", "a.pnm"] {
            assert_eq!(kind(Path::new(name)), Kind::Image, "{name}");
        }
        assert_eq!(kind(Path::new("a.GIF")), Kind::Gif);
        assert_eq!(kind(Path::new("IMG_0001.HEIC")), Kind::Unsupported);
        for name in ["notes.txt", "jpg", "a.jpg.part", "a."] {
            assert_eq!(kind(Path::new(name)), Kind::Other, "{name}");
        }
    }

    #[test]
    fn clutter_is_hidden() {
        for name in [".DS_Store", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "desktop.ini", "._photo.jpg"] {
            assert!(is_hidden(Path::new("cats").join(name).as_path()), "{name}");
        }
        assert!(!is_hidden(Path::new(".hidden/cats")));
    }

    #[test]
    fn names_that_look_the_same_are_alike() {
        assert_eq!(composed("cafe\u{301}"), "caf\u{e9}");
        assert_eq!(likeness("E\u{301}cole"), likeness("\u{e9}cole"));
        assert_ne!(likeness("ecole"), likeness("\u{e9}cole"));
    }

    #[test]
    fn splits_are_known_by_their_whole_name() {
        assert_eq!(split("Training"), Some(SplitName::Train));
        assert_eq!(split("VALID"), Some(SplitName::Val));
        assert_eq!(split("test"), Some(SplitName::Test));
        assert_eq!(split("test set"), None);
        assert_eq!(split("trains"), None);
    }
}
