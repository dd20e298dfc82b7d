//! What can be wrong with a weights file, and the way out.

use std::fmt;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;

use super::format::ForeignFile;
use super::pickle::PickleProblem;

/// A weights file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("weights `{}`: {problem}", path.display())]
pub struct CheckpointError {
    path: PathBuf,
    problem: Problem,
}

impl CheckpointError {
    pub(crate) fn new(path: &Path, problem: Problem) -> Self {
        Self { path: path.to_owned(), problem }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The way out in one line, where there is one.
    pub fn hint(&self) -> Option<String> {
        self.problem.hint()
    }
}

/// What is wrong with a weights file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The operating system could not read it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The path leads to a folder.
    #[error("is a folder, expected a file")]
    Folder,
    /// The path leads to a pipe, a socket or a device.
    #[error("is no regular file")]
    NotAFile,
    /// It has no bytes.
    #[error("is empty")]
    Empty,
    /// There is no memory for its content.
    #[error("has {bytes} bytes, more than can be held in memory")]
    LargerThanMemory {
        /// The file's size.
        bytes: u64,
    },
    /// It is a file of another known kind.
    #[error("is {}, not weights", .0.description())]
    Foreign(ForeignFile),
    /// Its first bytes belong to no known format.
    #[error("is no known weights format: it begins with {start}")]
    Unknown {
        /// The first bytes.
        start: Shown,
    },
    /// It is in PyTorch's first form, a tar archive.
    #[error("is a tar archive, the form of before PyTorch 0.1.10, which is not supported")]
    TarForm,
    /// Its data end too early.
    #[error("is truncated: {part} ends at byte {end}, the file at byte {length}")]
    Truncated {
        /// Which part.
        part: String,
        /// Where that part would end.
        end: u64,
        /// Where the file ends.
        length: usize,
    },
    /// Its safetensors header is wrong.
    #[error("is broken safetensors: {0}")]
    Safetensors(#[from] SafeTensorError),
    /// Its zip structure is wrong, or a checksum does not match.
    #[error("is a broken zip archive: {part}: {reason}")]
    Zip {
        /// The directory or the entry that cannot be read.
        part: String,
        /// What the zip reader says.
        reason: String,
    },
    /// It is a zip archive of something else.
    #[error("is a zip archive without `data.pkl`, so not written by torch.save")]
    NoPickle,
    /// Its `byteorder` entry is neither `little` nor `big`.
    #[error("has byte order {found}, expected `little` or `big`")]
    ByteOrder {
        /// What the entry says.
        found: Shown,
    },
    /// Its pickle is wrong.
    #[error("is a broken pickle at byte {at}: {problem}")]
    Pickle {
        /// Position in the file, or in `data.pkl` of a zip archive.
        at: usize,
        /// What is wrong there.
        problem: PickleProblem,
    },
    /// It is a pickle that `torch.save` did not write.
    #[error("is a pickle without torch.save's magic number")]
    NotTorchSave,
    /// Its protocol version is not 1001.
    #[error("has torch.save protocol {found}, expected 1001")]
    Protocol {
        /// What stands in its place.
        found: String,
    },
    /// The list of storages does not match the tensors.
    #[error("has a broken list of storages: {reason}")]
    StorageList {
        /// What is wrong with it.
        reason: String,
    },
    /// It is a TorchScript program.
    #[error("is a TorchScript program ({class}), expected a dictionary of tensors")]
    TorchScript {
        /// The program's class.
        class: Shown,
    },
    /// It is a whole pickled object, perhaps a network, rather than tensors by name.
    #[error("holds an object of {class}, expected a dictionary of tensors")]
    WholeObject {
        /// The object's class or the function that makes it.
        class: Shown,
    },
    /// What it holds is no dictionary.
    #[error("holds {found}, expected a dictionary of tensors")]
    NotADictionary {
        /// The kind of thing found.
        found: &'static str,
    },
    /// It holds no tensor where weights are looked for.
    #[error("holds no tensors by name{}", listed(keys))]
    NoTensors {
        /// The first names it does hold.
        keys: Vec<Shown>,
    },
    /// A tensor is described wrongly.
    #[error("tensor {tensor}: {reason}")]
    MalformedTensor {
        /// Its name.
        tensor: Shown,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A tensor has elements that no weight has.
    #[error("tensor {tensor} has elements of type {found}, which are not supported")]
    UnsupportedElement {
        /// Its name.
        tensor: Shown,
        /// Its element type, or how it is made.
        found: Shown,
    },
    /// A tensor's data are not there.
    #[error("tensor {tensor} wants storage {storage}, which the file does not have")]
    MissingStorage {
        /// Its name.
        tensor: Shown,
        /// The storage it wants.
        storage: Shown,
    },
    /// A tensor reaches beyond its data.
    #[error("tensor {tensor} wants {wanted} elements of storage {storage}, which has {found}")]
    ShortStorage {
        /// Its name.
        tensor: Shown,
        /// The storage it wants.
        storage: Shown,
        /// How many elements that would need.
        wanted: usize,
        /// How many elements there are.
        found: usize,
    },
    /// It unpacks to far more than it is.
    #[error("holds more than {limit} bytes of data, four times its own size")]
    TooMuchData {
        /// The most that is read from a file of this size.
        limit: usize,
    },
    /// candle refused a tensor.
    #[error("{0}")]
    Candle(#[from] candle_core::Error),
}

impl Problem {
    /// The way out in one line, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Foreign(found) => found.hint(),
            Self::Folder => "give the weights file in it, often `model.safetensors`",
            Self::Empty
            | Self::Truncated { .. }
            | Self::Pickle { problem: PickleProblem::Truncated, .. }
            | Self::Safetensors(SafeTensorError::MetadataIncompleteBuffer) => {
                "the download may have been cut off: fetch the file again"
            }
            Self::Zip { .. } => "the file is damaged or was cut off: fetch it again",
            Self::NoPickle | Self::NotTorchSave | Self::Unknown { .. } => {
                "weights are read from safetensors files and from what torch.save writes"
            }
            Self::TarForm => "load it with PyTorch and save it again with torch.save",
            Self::WholeObject { .. }
            | Self::TorchScript { .. }
            | Self::NotADictionary { .. }
            | Self::NoTensors { .. } => {
                "load it with PyTorch and save only the weights: torch.save(model.state_dict(), …)"
            }
            Self::TooMuchData { .. } => "if you trust the file, load it with PyTorch and save contiguous copies",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    pub(super) fn malformed_tensor(tensor: &str, reason: &'static str) -> Self {
        Self::MalformedTensor { tensor: Shown::text(tensor), reason }
    }

    pub(super) fn unsupported_element(tensor: &str, found: &str) -> Self {
        Self::UnsupportedElement { tensor: Shown::text(tensor), found: Shown::text(found) }
    }
}

fn listed(keys: &[Shown]) -> String {
    if keys.is_empty() {
        return String::new();
    }
    let keys: Vec<_> = keys.iter().map(Shown::to_string).collect();
    format!("; it has {}", keys.join(", "))
}

/// A piece of a file as it may be put into a message: quoted, escaped and at most 80 characters long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    const LONGEST: usize = 80;

    pub(super) fn text(text: &str) -> Self {
        Self::escaped(text.chars().flat_map(char::escape_debug), text.len())
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        let start = bytes.get(..Self::LONGEST).unwrap_or(bytes);
        Self::text(&String::from_utf8_lossy(start))
    }

    fn escaped(mut characters: impl Iterator<Item = char>, length: usize) -> Self {
        let mut shown = String::with_capacity(length.min(Self::LONGEST));
        shown.extend(characters.by_ref().take(Self::LONGEST));
        if characters.next().is_some() {
            shown.push('…');
        }
        Self(shown)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_messages_are_escaped_and_cut() {
        assert_eq!(Shown::text("a\u{1b}[31m").to_string(), r"`a\u{1b}[31m`");
        assert_eq!(Shown::text(&"x".repeat(100)).to_string().chars().count(), 83);
    }

    #[test]
    fn the_message_names_the_file() {
        let error = CheckpointError::new(Path::new("a.pth"), Problem::Empty);
        assert_eq!(error.to_string(), "weights `a.pth`: is empty");
        assert!(error.hint().is_some_and(|hint| hint.contains("fetch")));
    }
}
