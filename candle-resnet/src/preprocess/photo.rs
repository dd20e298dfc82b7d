//! A decoded photo: RGB8 pixels, upright, and what is worth telling about the file they came from.

use std::fmt;

/// Pixels of one image: RGB, 8 bits a channel, row-major, already rotated as the file's EXIF asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    notes: Vec<Note>,
}

/// Something about a file that did not keep it from being read, but that its owner may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The file is an animation or holds several pages; only the first frame was used.
    FirstFrame {
        /// The file's format, as people write it: `GIF`.
        format: &'static str,
    },
    /// The name's extension belongs to another format than the content.
    Extension {
        /// The extension, as it was found.
        extension: String,
        /// The format of the content.
        format: &'static str,
    },
    /// The pixels were turned or mirrored as the EXIF orientation asks.
    Rotated {
        /// The EXIF value, 2 to 8.
        orientation: u8,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::FirstFrame { format } => write!(f, "animated {format}: only the first frame was used"),
            Note::Extension { extension, format } => write!(f, "is named .{extension} but is a {format}"),
            Note::Rotated { orientation } => write!(f, "turned upright (EXIF orientation {orientation})"),
        }
    }
}

impl Photo {
    /// A photo from pixels of one's own; `None` unless there are `width × height × 3` of them, and at least one pixel.
    pub fn from_rgb8(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let expected = width.checked_mul(height)?.checked_mul(3)?;
        (expected > 0 && pixels.len() == expected).then_some(Self { width, height, pixels, notes: Vec::new() })
    }

    pub(super) fn with_notes(self, notes: Vec<Note>) -> Self {
        Self { notes, ..self }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `(height, width, 3)` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// What is worth telling about the file; empty for most.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The notes alone.
    pub fn into_notes(self) -> Vec<Note> {
        self.notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_must_fill_the_size() {
        assert!(Photo::from_rgb8(2, 2, vec![0; 12]).is_some());
        assert!(Photo::from_rgb8(2, 2, vec![0; 11]).is_none());
        assert!(Photo::from_rgb8(0, 2, vec![]).is_none());
        assert!(Photo::from_rgb8(usize::MAX, 2, vec![]).is_none());
    }
}
