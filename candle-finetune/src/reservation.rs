//! Room on a disk that is taken before it is needed, in files without a name. Knows nothing of what will be written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use fs4::FileExt;

/// Room for files, which can be given back one by one; what is left of it goes with the process.
#[derive(Debug, Default)]
pub(crate) struct Reservation(BTreeMap<&'static str, File>);

impl Reservation {
    /// Takes room on the disk of `folder` for `files` of these names and bytes. Where none can be taken though the disk has it, as on some
    /// file systems, there is none for that file.
    ///
    /// # Errors
    /// If the disk, or what the user may have of it, is too full.
    pub(crate) fn of(folder: &Path, files: &[(&'static str, u64)]) -> io::Result<Reservation> {
        let mut reserved = BTreeMap::new();
        for &(name, bytes) in files {
            match file_of(folder, bytes) {
                Ok(file) => drop(reserved.insert(name, file)),
                Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    return Err(error);
                }
                Err(error) => tracing::debug!("{}: no room is reserved for {name}: {error}", folder.display()),
            }
        }
        Ok(Reservation(reserved))
    }

    /// Gives back the room of one file.
    pub(crate) fn give_back(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// A file without a name that takes `bytes` of the disk.
fn file_of(folder: &Path, bytes: u64) -> io::Result<File> {
    if bytes > longest_file() {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let file = tempfile::tempfile_in(folder)?;
    FileExt::allocate(&file, bytes)?;
    Ok(file)
}

/// Bytes of the longest file that the process may write. Whoever asks for more is ended by a signal.
#[cfg(unix)]
fn longest_file() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: it writes to `limit` and nowhere else.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

#[cfg(not(unix))]
fn longest_file() -> u64 {
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_room_can_be_taken_there_is_none_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Reservation::of(&folder.path().join("missing"), &[("a", 1)]).unwrap();
        assert!(missing.0.is_empty());
        drop(Reservation::of(folder.path(), &[("a", 4096), ("b", 1)]).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
