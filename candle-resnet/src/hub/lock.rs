//! One process or thread at a time downloads a blob; the others wait for it.
//!
//! A lock on the same file as `huggingface_hub` takes, released by the system even if its holder crashes. Correctness
//! does not hang on it: where a file system has no locks, two downloads may disturb each other, which the checksum
//! then shows.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::DownloadProgress;
use super::error::{HubError, io};
use super::layout::create_parent;

/// Held until dropped.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock, telling `progress` if it is not free.
    pub(super) fn acquire(path: &Path, progress: &dyn DownloadProgress) -> Result<Self, HubError> {
        create_parent(path)?;
        let file = open(path).map_err(io("opening the lock", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.waiting(path);
                file.lock().map_err(io("waiting for the lock", path))?;
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!("going on without the lock `{}`: {error}", path.display());
            }
        }
        Ok(Self { _file: file })
    }

    /// The lock if nobody holds it.
    pub(super) fn try_acquire(path: &Path) -> Option<Self> {
        let file = open(path).ok()?;
        file.try_lock().is_ok().then_some(Self { _file: file })
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}
