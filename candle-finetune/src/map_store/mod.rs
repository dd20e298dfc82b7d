//! Maps at a boundary, kept on disk from epoch to epoch and from run to run.
//!
//! A file for each combination of what maps depend on; its name is the digest of all that. Files are written beside their place and
//! renamed, so that one that can be found is whole. Together they stay below a limit: the ones that were not used for the longest
//! time go first.

mod error;
mod file;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use error::MapStoreError;
pub use file::{MapShape, MapWriter, StoredMaps};

use error::io_error;

use crate::key::Key;

/// Ends the names of its files.
const SUFFIX: &str = ".maps.safetensors";

/// A folder of maps.
#[derive(Debug, Clone)]
pub struct MapStore {
    folder: PathBuf,
    limit: u64,
}

impl MapStore {
    /// The store in `folder`, which is made when it is needed, of at most `limit` bytes.
    pub fn new(folder: impl Into<PathBuf>, limit: u64) -> MapStore {
        MapStore { folder: folder.into(), limit }
    }

    /// The folder of the current user: `$XDG_CACHE_HOME/finetune/maps`, or `~/.cache/finetune/maps`; `None` where neither is known.
    pub fn default_folder() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let caches = set("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
        caches.map(|caches| caches.join("finetune").join("maps"))
    }

    /// The maps that `key` stands for, if they are there. A file that cannot be read is taken away with a warning: maps can be
    /// computed again.
    pub fn find(&self, key: &Key) -> Option<StoredMaps> {
        let path = self.path(key);
        match StoredMaps::open(&path) {
            Ok(maps) => {
                // For the order in which files go; a store that cannot be written to serves all the same.
                let _ =
                    fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(maps)
            }
            Err(MapStoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!("{error}; computing them again");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Whether there are maps of this shape that `key` stands for, which is asked for only where a file is as long: it takes time.
    pub fn holds(&self, shape: MapShape, key: impl FnOnce() -> Key) -> bool {
        let (files, length) = (self.files().unwrap_or_default(), shape.file_length());
        files.iter().any(|file| file.bytes == length) && self.path(&key()).is_file()
    }

    /// Whether there is room for such maps beside so many `bytes` of others that stay, if all else in the store goes. Makes the store's folder;
    /// where that or the disk cannot be looked at, there is none.
    pub fn has_room(&self, shape: MapShape, bytes: u64) -> bool {
        let all = shape.bytes().saturating_add(bytes);
        self.room(shape.bytes()).is_ok_and(|room| all <= room.held + room.free)
    }

    /// Makes room for maps and begins to write them.
    ///
    /// # Errors
    /// [`MapStoreError::Limit`] and [`MapStoreError::Space`] where they would not fit, before anything is removed or written;
    /// [`MapStoreError::Io`].
    pub fn create(&self, key: &Key, shape: MapShape) -> Result<MapWriter, MapStoreError> {
        let bytes = shape.bytes();
        let Room { files, held, free } = self.room(bytes)?;
        let mut excess = (held + bytes).saturating_sub(self.limit).max(bytes.saturating_sub(free));
        for file in files {
            if excess == 0 {
                break;
            }
            fs::remove_file(&file.path).map_err(io_error(&file.path))?;
            excess = excess.saturating_sub(file.bytes);
        }
        MapWriter::create(self.path(key), shape)
    }

    /// What there is, where it is enough for maps of so many `bytes`.
    fn room(&self, bytes: u64) -> Result<Room, MapStoreError> {
        if bytes > self.limit {
            return Err(MapStoreError::Limit { bytes, limit: self.limit });
        }
        fs::create_dir_all(&self.folder).map_err(io_error(&self.folder))?;
        let files = self.files()?;
        let free = fs4::available_space(&self.folder).map_err(io_error(&self.folder))?;
        let held = files.iter().map(|file| file.bytes).sum();
        if bytes > free + held {
            return Err(MapStoreError::Space { folder: self.folder.clone(), bytes, free: free + held });
        }
        Ok(Room { files, held, free })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{key}{SUFFIX}"))
    }

    /// Its files, the one that was not used for the longest time first.
    fn files(&self) -> Result<Vec<StoreFile>, MapStoreError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io_error(&self.folder))? {
            let path = entry.map_err(io_error(&self.folder))?.path();
            if is_ours(&path) {
                let metadata = path.metadata().map_err(io_error(&path))?;
                let used = metadata.modified().map_err(io_error(&path))?;
                files.push(StoreFile { used, bytes: metadata.len(), path });
            }
        }
        files.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        Ok(files)
    }
}

/// What a store has on its disk.
struct Room {
    /// The one that was not used for the longest time first.
    files: Vec<StoreFile>,
    /// Bytes of them.
    held: u64,
    /// Bytes that nobody has.
    free: u64,
}

struct StoreFile {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX))
}
