//! A decoded photo: RGB8 pixels, upright, and what is worth telling about the file they came from.

use std::fmt;

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Columns left of it.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    /// Its columns.
    pub width: usize,
    /// Its rows.
    pub height: usize,
}

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

    /// A part of the photo, without its notes; `None` where that is empty or reaches beyond the photo.
    pub fn cropped(&self, area: Area) -> Option<Self> {
        let right = area.left.checked_add(area.width).filter(|&right| right <= self.width)?;
        let bottom = area.top.checked_add(area.height).filter(|&bottom| bottom <= self.height)?;
        let rows = self.pixels.chunks_exact(self.width * 3).take(bottom).skip(area.top);
        let pixels = rows.flat_map(|row| &row[area.left * 3..right * 3]).copied().collect();
        Self::from_rgb8(area.width, area.height, pixels)
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

    #[test]
    fn a_part_keeps_its_pixels_and_lies_within_the_photo() {
        let photo = Photo::from_rgb8(4, 3, (0..36).collect()).unwrap();
        let cropped = |left, top, width, height| photo.cropped(Area { left, top, width, height });
        let part = cropped(1, 1, 2, 2).unwrap();
        assert_eq!((part.width(), part.height()), (2, 2));
        assert_eq!(part.pixels(), [15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32]);
        assert_eq!(cropped(0, 0, 4, 3).unwrap(), photo);
        for (left, top, width, height) in
            [(1, 0, 4, 3), (0, 1, 4, 3), (4, 0, 0, 3), (0, 0, 4, 0), (usize::MAX, 0, 1, 1)]
        {
            assert_eq!(cropped(left, top, width, height), None);
        }
    }
}
