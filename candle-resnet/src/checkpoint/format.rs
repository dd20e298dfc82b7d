//! The first bytes of a file → its format.
//!
//! Names are never looked at: `.bin` and `.pt` say nothing, and a download may be an error page.

use super::error::{Problem, Shown};

/// How many bytes [`recognise`] looks at.
pub(super) const PREFIX: usize = 512;

/// How many bytes of an unknown file a message shows.
const SHOWN: usize = 16;

const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// Formats that hold weights this reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Safetensors,
    TorchZip,
    TorchLegacy,
}

/// A kind of file that people take for a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignFile {
    /// A web page or another XML document, usually an error that was saved as the file.
    WebPage,
    /// The text that git keeps in place of a large file.
    GitLfsPointer,
    /// JSON, such as `config.json` or the index of sharded weights.
    Json,
    /// An ONNX graph.
    Onnx,
    /// A TensorFlow `saved_model.pb`.
    TensorFlow,
    /// A TensorFlow Lite model.
    TensorFlowLite,
    /// HDF5, which Keras writes as `.h5`.
    Hdf5,
    /// A numpy array.
    Numpy,
    /// GGUF or GGML weights.
    Gguf,
    /// Data compressed by gzip, bzip2, xz or zstd.
    Compressed,
    /// A picture.
    Picture,
}

impl ForeignFile {
    /// What the file is, as a noun phrase.
    pub fn description(self) -> &'static str {
        match self {
            Self::WebPage => "a web page",
            Self::GitLfsPointer => "a git-lfs pointer",
            Self::Json => "a JSON file",
            Self::Onnx => "an ONNX graph",
            Self::TensorFlow => "a TensorFlow saved model",
            Self::TensorFlowLite => "a TensorFlow Lite model",
            Self::Hdf5 => "an HDF5 file (Keras)",
            Self::Numpy => "a numpy array",
            Self::Gguf => "a GGUF file",
            Self::Compressed => "a compressed file",
            Self::Picture => "a picture",
        }
    }

    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::WebPage => "the server sent a page in place of the file: open the address in a browser to see why",
            Self::GitLfsPointer => "fetch the file itself: `git lfs pull`",
            Self::Json => "give the weights beside it, often `model.safetensors`",
            Self::Compressed => "decompress it first",
            Self::Picture => "the weights file and a picture may have changed places",
            _ => "convert it to safetensors with the framework that wrote it",
        }
    }
}

/// Tells a file's format from its first bytes; [`PREFIX`] of them are enough.
pub(super) fn recognise(start: &[u8]) -> Result<Format, Problem> {
    if start.is_empty() {
        return Err(Problem::Empty);
    }
    if start.get(TAR_MAGIC) == Some(b"ustar") {
        return Err(Problem::TarForm);
    }
    if let Some(format) = known(start) {
        return Ok(format);
    }
    Err(match foreign(start) {
        Some(found) => Problem::Foreign(found),
        None => Problem::Unknown { start: Shown::bytes(start.get(..SHOWN).unwrap_or(start)) },
    })
}

fn known(start: &[u8]) -> Option<Format> {
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        Some(Format::TorchZip)
    } else if matches!(start, [0x80, 1..=5, ..]) || start.starts_with(b"L119547037146038801333356L") {
        Some(Format::TorchLegacy)
    } else if start.get(8) == Some(&b'{') && start.get(7) == Some(&0) {
        Some(Format::Safetensors) // a header below 2^56 bytes; its own reader checks the rest
    } else {
        None
    }
}

#[rustfmt::skip]
const MAGIC: &[(&[u8], ForeignFile)] = &[
    (b"version https://git-lfs", ForeignFile::GitLfsPointer),
    (b"\x89HDF\r\n\x1a\n", ForeignFile::Hdf5),
    (b"\x93NUMPY", ForeignFile::Numpy),
    (b"GGUF", ForeignFile::Gguf),
    (b"\x1f\x8b", ForeignFile::Compressed),
    (b"BZh", ForeignFile::Compressed),
    (b"\xfd7zXZ", ForeignFile::Compressed),
    (b"\x28\xb5\x2f\xfd", ForeignFile::Compressed),
    (b"\xff\xd8\xff", ForeignFile::Picture),
    (b"\x89PNG", ForeignFile::Picture),
];

fn foreign(start: &[u8]) -> Option<ForeignFile> {
    let magic = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|&(_, found)| found);
    magic.or_else(|| text(start)).or_else(|| flat_or_protocol_buffer(start))
}

fn text(start: &[u8]) -> Option<ForeignFile> {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    match text {
        [b'<', b'!' | b'?' | b'h' | b'H', ..] => Some(ForeignFile::WebPage),
        [b'{', ..] => Some(ForeignFile::Json),
        _ => None,
    }
}

/// Neither ONNX nor TensorFlow has a magic number: their first field is a small version, and few fields can follow.
fn flat_or_protocol_buffer(start: &[u8]) -> Option<ForeignFile> {
    match start {
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some(ForeignFile::TensorFlowLite),
        [0x08, 1, 0x12, ..] => Some(ForeignFile::TensorFlow),
        [0x08, 1..=20, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => Some(ForeignFile::Onnx),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(start: &[u8]) -> ForeignFile {
        match recognise(start) {
            Err(Problem::Foreign(found)) => found,
            other => panic!("{start:?} is {other:?}"),
        }
    }

    #[test]
    fn files_that_people_take_for_weights_are_called_by_name() {
        assert_eq!(found(b"\n<!DOCTYPE html>"), ForeignFile::WebPage);
        assert_eq!(found(b"<?xml version=\"1.0\"?><Error>"), ForeignFile::WebPage);
        assert_eq!(found(b"version https://git-lfs.github.com/spec/v1\n"), ForeignFile::GitLfsPointer);
        assert_eq!(found(b"{\"architecture\": \"resnet18\"}"), ForeignFile::Json);
        assert_eq!(found(b"\x08\x07\x12\x07pytorch"), ForeignFile::Onnx);
        assert_eq!(found(b"\x08\x01\x12\xff"), ForeignFile::TensorFlow);
        assert_eq!(found(b"\x1c\0\0\0TFL3"), ForeignFile::TensorFlowLite);
        assert_eq!(found(b"\x89HDF\r\n\x1a\n\0"), ForeignFile::Hdf5);
        assert_eq!(found(b"\x93NUMPY\x01"), ForeignFile::Numpy);
        assert_eq!(found(b"GGUF\x03"), ForeignFile::Gguf);
        assert_eq!(found(b"\x1f\x8b\x08"), ForeignFile::Compressed);
        assert_eq!(found(b"\x89PNG\r\n"), ForeignFile::Picture);
    }

    #[test]
    fn unknown_bytes_are_shown() {
        let problem = recognise(b"[section]\0 = more than sixteen bytes").unwrap_err();
        assert_eq!(problem.to_string(), r"is no known weights format: it begins with `[section]\0 = mor`");
    }

    #[test]
    fn an_empty_file_is_called_empty() {
        assert!(matches!(recognise(b""), Err(Problem::Empty)));
    }

    #[test]
    fn weights_are_known_by_their_first_bytes() {
        assert_eq!(recognise(b"PK\x03\x04").unwrap(), Format::TorchZip);
        assert_eq!(recognise(b"\x80\x02\x8a\x0a").unwrap(), Format::TorchLegacy);
        assert_eq!(recognise(b"\x40\0\0\0\0\0\0\0{\"").unwrap(), Format::Safetensors);
    }
}
