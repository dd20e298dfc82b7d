//! Why a photo, or the settings to prepare it, cannot be used.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{MAX_DECODED_BYTES, MAX_FILE_BYTES, MAX_SIDE};

/// A photo that cannot be used: which, and why.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct PhotoError {
    /// The file, as it was asked for.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a photo.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing has that name.
    #[error("no such file")]
    Missing,
    /// A symbolic link whose target is gone.
    #[error("broken link to {}", target.display())]
    BrokenLink {
        /// Where the link points.
        target: PathBuf,
    },
    /// A folder where a file was expected.
    #[error("is a folder, not a photo")]
    Folder,
    /// A pipe, socket or device.
    #[error("is not a regular file")]
    NotRegular,
    /// The system does not let us read it.
    #[error("permission denied")]
    PermissionDenied,
    /// Any other failure to read it.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// A file of no bytes.
    #[error("is empty (0 bytes)")]
    Empty,
    /// A file too large to be a photo.
    #[error("holds {found} bytes, more than the {MAX_FILE_BYTES} that a photo may have")]
    FileTooLarge {
        /// Bytes of the file.
        found: u64,
    },
    /// A known format that is not read.
    #[error("{format} is not supported")]
    Unsupported {
        /// The format, as people write it: `HEIC`.
        format: &'static str,
    },
    /// Recognisably something else than an image.
    #[error("is {found}, not a photo")]
    NotAPhoto {
        /// What it is, with its article.
        found: &'static str,
    },
    /// Bytes that no image format begins with.
    #[error("is in no known image format")]
    Unknown,
    /// Pixels that would not fit into the memory set aside for them; found in the header, before any were decoded.
    #[error("{width}×{height} pixels take {bytes} bytes decoded, more than the limit of {MAX_DECODED_BYTES}")]
    TooManyPixels {
        /// Pixels in a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Bytes of the decoded image.
        bytes: u64,
    },
    /// The file ends before its image does.
    #[error("truncated {format}")]
    Truncated {
        /// The format, as people write it.
        format: &'static str,
    },
    /// The content contradicts its format, or uses a part of it that is not read.
    #[error("cannot decode this {format}: {detail}")]
    Undecodable {
        /// The format, as people write it.
        format: &'static str,
        /// The decoder's own words.
        detail: String,
    },
}

impl PhotoError {
    /// The way out, in one line, where there is one.
    pub fn hint(&self) -> Option<String> {
        self.reason.hint()
    }
}

impl Reason {
    /// The way out, in one line, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Reason::Folder => "name the photos in it",
            Reason::PermissionDenied => "check the file's owner and mode",
            Reason::Unsupported { .. } => "convert it to JPEG or PNG",
            Reason::TooManyPixels { .. } => "scale it down; networks see a few hundred pixels a side",
            Reason::Truncated { .. } => "copy or download it again",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Settings that no photo can be prepared with.
#[derive(Debug, Error, PartialEq)]
pub enum PreprocessingError {
    /// A side of nothing, or one beyond all use.
    #[error("`{name}` is {found}, expected 1 to {MAX_SIDE} pixels")]
    Side {
        /// `resize` or `crop`.
        name: &'static str,
        /// The value.
        found: usize,
    },
    /// A mean that is infinite or not a number.
    #[error("`mean` holds {found}, expected finite numbers")]
    Mean {
        /// The value.
        found: f32,
    },
    /// A standard deviation that cannot be divided by.
    #[error("`std` holds {found}, expected finite numbers above 0")]
    Std {
        /// The value.
        found: f32,
    },
    /// A network whose images are no photos.
    #[error("a photo has 3 channels, or 1 in grey, and the network takes {found}")]
    Channels {
        /// Channels that the network takes.
        found: usize,
    },
}

impl PreprocessingError {
    /// The way out, in one line.
    pub fn hint(&self) -> Option<String> {
        if let PreprocessingError::Channels { .. } = self {
            return Some("images of other channels go through the library, as tensors".to_owned());
        }
        Some("ImageNet's are resize 256, crop 224, mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]".to_owned())
    }
}
