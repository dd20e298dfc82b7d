//! Everything that can go wrong between a folder of photos and a bundle.

use std::path::PathBuf;

use indicatif::DecimalBytes;

use crate::augment::AugmentError;
use crate::checkpoints::CheckpointError;
use crate::dataset::DatasetError;
use crate::doctor::EqualFiles;
use crate::extract::Skipped;
use crate::map_store::MapStoreError;
use crate::neighbours::NeighboursError;
use crate::train::TrainError;

/// What went wrong; [`Error::hint`] gives the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is no data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] candle_resnet::Error),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Maps cannot be kept on disk.
    #[error(transparent)]
    MapStore(#[from] MapStoreError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An index of neighbours cannot be written or read.
    #[error(transparent)]
    Neighbours(#[from] NeighboursError),
    /// An augmentation that cannot be.
    #[error(transparent)]
    Augment(#[from] AugmentError),
    /// candle refused: shapes, devices or memory.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// An image could not be read and the run is strict.
    #[error("{}", .0.reason)]
    Strict(Skipped),
    /// None of the images could be read.
    #[error("none of the {} images could be read; the first: {}", .skipped.len(), first_reason(.skipped))]
    NoImages {
        /// All of them.
        skipped: Vec<Skipped>,
    },
    /// A class lost all its training images because they could not be read.
    #[error("class `{0}` has no training image that could be read")]
    EmptyClass(String),
    /// The same file in more than one part of the data set.
    #[error("images in more than one of train, val and test: {0}")]
    Leaks(EqualFiles),
    /// A fraction for validation that leaves nothing on one side.
    #[error("`val-fraction` is {0}, expected from 0 up and below 1")]
    ValFraction(f64),
    /// Patience waits for a better validation accuracy, and there are no validation images.
    #[error("`patience` needs validation images, and there are none")]
    PatienceWithoutValidation,
    /// A head trains on views that are made once.
    #[error("`views` is fresh, and a head trains on views that are made once")]
    FreshViewsForHead,
    /// A tail needs the network's weights, and only its features are at hand.
    #[error("the settings train a tail, and only a head was asked for")]
    TailWithoutModel,
    /// A data set's classes are not the model's.
    #[error("the model does not know {} of the classes: {}", .unknown.len(), first(.unknown))]
    UnknownClasses {
        /// Classes of the data set that no output stands for.
        unknown: Vec<String>,
        /// Names that the model knows.
        known: Vec<String>,
    },
    /// As many classes as the model has, or fewer, but nobody named the outputs.
    #[error("the data set has {dataset} classes, the model has {model} outputs without names")]
    UnnamedClasses {
        /// Classes of the data set.
        dataset: usize,
        /// Outputs of the model.
        model: usize,
    },
    /// The folder to write to is there already.
    #[error("{0}: exists already")]
    Exists(PathBuf),
    /// The disk is too full for a bundle.
    #[error(
        "{}: the bundle takes about {}, and {} are free: {source}",
        target.display(),
        DecimalBytes(*bytes),
        DecimalBytes(*free)
    )]
    NoRoom {
        /// The bundle.
        target: PathBuf,
        /// What it takes, about.
        bytes: u64,
        /// What its disk has.
        free: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bundle that was written beside its place and cannot have its name.
    #[error("{cause}; what this run made is in {kept}")]
    Unpublished {
        /// What is in the way.
        cause: Box<Error>,
        /// Where the bundle is.
        kept: PathBuf,
    },
    /// A bundle that cannot be written beside its place, as on a full disk, and lies in the system's folder for temporary files.
    #[error("{cause}; what this run made is in {kept}")]
    Elsewhere {
        /// What is in the way.
        cause: Box<Error>,
        /// Where the bundle is.
        kept: PathBuf,
    },
    /// A file that was not read or written.
    #[error("{path}: {}", what_the_system_said(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A `run.toml` that says what no run can be asked to do.
    #[error("{path}: {}", .reason.trim_end())]
    RunFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A class that a network does not have.
    #[error("no class {class}: the network has {known}")]
    ExplainedClass {
        /// What was asked for.
        class: usize,
        /// Classes of the network, numbered from 0.
        known: usize,
    },
    /// A bundle whose calibration cannot be read.
    #[error("{path}: `calibration`: {reason}")]
    Calibration {
        /// Its `config.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Someone asked to stop before anything was worth keeping.
    #[error("interrupted")]
    Interrupted,
}

/// The system's reason, without the path that the crate `tempfile` adds to it: it drew the last part, and nobody asked for that.
fn what_the_system_said(error: &std::io::Error) -> String {
    let text = error.to_string();
    let end = error.get_ref().and_then(|_| text.find(" at path \""));
    text[..end.unwrap_or(text.len())].to_owned()
}

fn first_reason(skipped: &[Skipped]) -> String {
    skipped.first().map_or_else(String::new, |first| first.reason.to_string())
}

impl Error {
    /// The way out, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Dataset(error) => error.hint(),
            Error::Model(error) => error.hint(),
            Error::Train(error) => error.hint(),
            Error::Checkpoint(error) => error.hint(),
            Error::Neighbours(error) => error.hint(),
            Error::Strict(_) => Some("without --strict such images are skipped and counted".into()),
            Error::EmptyClass(_) => Some("repair its images or take the folder away".into()),
            Error::Leaks(_) => Some(
                "`finetune doctor` lists them; keep each in one part, or train all the same with --allow-leaks".into(),
            ),
            Error::UnknownClasses { known, .. } => Some(format!("it knows: {}", first(known))),
            Error::UnnamedClasses { .. } => Some("evaluate on as many class folders as the model has outputs".into()),
            Error::Exists(_) => Some("choose another name, or replace what is there with --overwrite".into()),
            Error::RunFile { .. } => Some("`finetune train` writes such a file, `run.toml`, into a bundle".into()),
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("check owner and mode, or choose another place".into())
            }
            Error::NoRoom { .. } => Some("make room, or choose an --out on another disk".into()),
            Error::Unpublished { .. } => {
                Some("give that folder another name or place, and it is a bundle as any other".into())
            }
            Error::Elsewhere { .. } => Some(
                "move that folder to where it is to stay: it is a bundle as any other, and temporary files do not last"
                    .into(),
            ),
            Error::PatienceWithoutValidation => {
                Some("hold a part of the training images out, or leave patience away".into())
            }
            Error::FreshViewsForHead => {
                Some("give a number of views, or train more than the head with --train-from".into())
            }
            Error::TailWithoutModel => Some("call `fine_tune_model`, or leave `tail` out of the settings".into()),
            _ => None,
        }
    }
}

/// The first names of many.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ") + more
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the file of an input or output error.
pub(crate) fn io_error(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { path, source }
}

/// What the system said, where that is the cause.
pub(crate) fn safetensors_io(error: safetensors::SafeTensorError) -> std::io::Error {
    match error {
        safetensors::SafeTensorError::IoError(error) => error,
        other => std::io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_no_temporary_file() {
        let error = tempfile::tempdir_in("gone").map_err(io_error("gone")).unwrap_err().to_string();
        assert!(error.starts_with("gone: ") && !error.contains(".tmp"), "{error}");
        let error = io_error("full")(std::io::ErrorKind::StorageFull.into()).to_string();
        assert!(error.starts_with("full: ") && error.len() > "full: ".len(), "{error}");
    }

    #[test]
    fn many_names_are_shortened() {
        let names: Vec<String> = (0..12).map(|index| index.to_string()).collect();
        assert_eq!(first(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …");
        assert_eq!(first(&names[..2]), "0, 1");
    }
}
