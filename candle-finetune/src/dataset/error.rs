//! Why a folder of photos cannot be used.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{
    SplitName,
    finding::{FORMS, quoted},
    names,
};

/// What is wrong with a folder of photos. Found before any image is opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// Nothing has that name.
    #[error("{}: no such folder", path.display())]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },
    /// A file where a folder was expected.
    #[error("{}: is a file, expected a folder of photos", path.display())]
    NotAFolder {
        /// What was asked for.
        path: PathBuf,
    },
    /// The system does not let us read a folder, or see what one of its entries is.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The folder or the entry.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No images anywhere.
    #[error("{}: holds no images", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },
    /// Images where class folders are expected.
    #[error("{}: holds {count} images but no class folders", path.display())]
    NoClassFolders {
        /// The folder.
        path: PathBuf,
        /// How many images lie in it.
        count: usize,
    },
    /// A class that cannot be learned.
    #[error("{}: class folder holds no images{}", path.display(), beside(*others))]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
        /// Files in it that are no images, or of a format that is not supported.
        others: usize,
    },
    /// A split's folder without class folders and without images.
    #[error("{}: holds no class folders, expected one per class", path.display())]
    EmptySplit {
        /// The split's folder.
        path: PathBuf,
    },
    /// Two folders for one split, such as `val` and `valid`.
    #[error("{} and {}: both are {split} folders, expected one", first.display(), second.display())]
    TwoFoldersForOneSplit {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The split.
        split: SplitName,
    },
    /// Classes that no training image shows.
    #[error("{}: the {split} part has classes that train lacks: {}", path.display(), quoted(unknown))]
    UnknownClasses {
        /// The dataset.
        path: PathBuf,
        /// `val` or `test`.
        split: SplitName,
        /// The classes in question.
        unknown: Vec<String>,
        /// The classes of `train`.
        known: Vec<String>,
    },
    /// A class name that no text file could hold.
    #[error("{}: the folder's name is not UTF-8", path.display())]
    NotUtf8 {
        /// The folder.
        path: PathBuf,
    },
    /// A class name that breaks lines or moves a cursor wherever it is printed.
    #[error("{:?}: the folder's name holds control characters", path)]
    ControlCharacters {
        /// The folder.
        path: PathBuf,
    },
    /// A dataset with nothing to learn from.
    #[error("{}: has no training images, only {}", path.display(), list(found))]
    NoTraining {
        /// The dataset.
        path: PathBuf,
        /// The splits that it has.
        found: Vec<SplitName>,
    },
    /// A dataset with nothing to tell apart.
    #[error("{}: holds one class only, `{class}`; training needs two or more", path.display())]
    OneClass {
        /// The dataset.
        path: PathBuf,
        /// The class.
        class: String,
        /// Folders inside the class folder.
        inner: Vec<String>,
    },
}

fn beside(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" that can be read, only {others} other files") }
}

fn list(splits: &[SplitName]) -> String {
    splits.iter().map(SplitName::to_string).collect::<Vec<_>>().join(" and ")
}

impl DatasetError {
    /// The way out, in one line.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            DatasetError::NotAFolder { path } if names::is_archive(path) => {
                "unpack the archive and name the folder".to_owned()
            }
            DatasetError::Missing { .. } | DatasetError::NotAFolder { .. } => {
                "name a folder that holds one folder of photos per class".to_owned()
            }
            DatasetError::Unreadable { .. } => "check the owner and the mode of the folder, or take it away".to_owned(),
            DatasetError::NoImages { .. } | DatasetError::NoClassFolders { .. } | DatasetError::EmptySplit { .. } => {
                "sort the photos into one folder per class, named as the class".to_owned()
            }
            DatasetError::EmptyClass { others: 0, .. } => "put photos into it, or remove the folder".to_owned(),
            DatasetError::EmptyClass { .. } => "convert its images to JPEG or PNG, or remove the folder".to_owned(),
            DatasetError::TwoFoldersForOneSplit { .. } => "merge the two".to_owned(),
            DatasetError::UnknownClasses { unknown, known, .. } => unknown_classes_hint(unknown, known),
            DatasetError::NotUtf8 { .. } | DatasetError::ControlCharacters { .. } => {
                "rename the folder: its name becomes a label".to_owned()
            }
            DatasetError::NoTraining { .. } => "put the photos to learn from into a folder `train`".to_owned(),
            DatasetError::OneClass { path, class, inner } if inner.len() > 1 => {
                format!("did you mean {}?", path.join(class).display())
            }
            DatasetError::OneClass { .. } => "add a folder of photos that show something else".to_owned(),
        };
        Some(hint)
    }
}

fn unknown_classes_hint(unknown: &[String], known: &[String]) -> String {
    let twin = |name: &String| known.iter().find(|known| names::likeness(known) == names::likeness(name));
    match unknown.iter().find_map(|name| Some((name, twin(name)?))) {
        Some((name, twin)) if names::composed(name) == names::composed(twin) => {
            format!(
                "train writes `{name}` in other characters that look the same ({FORMS}): give both folders one name"
            )
        }
        Some((name, twin)) => format!("train calls it `{twin}`, not `{name}`: names must agree in case too"),
        None => format!("train has {}", quoted(known)),
    }
}
