//! What may go wrong with maps on disk.

use std::io;
use std::path::{Path, PathBuf};

use indicatif::DecimalBytes;

/// Why maps cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum MapStoreError {
    /// The file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// They are more than the store may hold.
    #[error("the maps take {} and may take {}", DecimalBytes(*bytes), DecimalBytes(*limit))]
    Limit {
        /// What they take.
        bytes: u64,
        /// What they may take.
        limit: u64,
    },
    /// They are more than the disk has room for.
    #[error("{}: the maps take {}, and {} are free", folder.display(), DecimalBytes(*bytes), DecimalBytes(*free))]
    Space {
        /// The store.
        folder: PathBuf,
        /// What they take.
        bytes: u64,
        /// What there is, other maps taken away.
        free: u64,
    },
    /// The file is not what was written.
    #[error("{}: the file is damaged: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> MapStoreError {
    let path = path.to_path_buf();
    move |source| MapStoreError::Io { path, source }
}
