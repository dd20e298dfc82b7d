//! Checkpoints of one run: files in a folder, of which the newest that can be read is where the run goes on.
//!
//! Knows nothing of training: a checkpoint is tensors by name and a text. Files are written under another name, brought to the disk and
//! renamed, so that one that can be found is whole; older ones go only after that.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use tempfile::Builder;

use crate::error::safetensors_io;
use crate::key::Key;

/// How many are kept.
const KEPT: usize = 3;

/// Ends the names of the files.
const SUFFIX: &str = ".checkpoint.safetensors";

/// Begins the names of files and folders that are being written in the folder: what a killed run left of them is taken away.
pub const UNFINISHED: &str = ".unfinished-";

/// Where the text is in a file's metadata.
const STATE: &str = "state";

/// Where the digest of everything else is.
const DIGEST: &str = "digest";

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A checkpoint was not written; those before it are as they were.
    #[error("{}: the checkpoint cannot be written: {source}", path.display())]
    Write {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder cannot be read.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// None of the checkpoints can be read.
    #[error("{}: no checkpoint can be read; the newest: {reason}", folder.display())]
    Unreadable {
        /// Where they are.
        folder: PathBuf,
        /// What is wrong with the newest.
        reason: String,
    },
    /// It belongs to another run.
    #[error("{}: its checkpoints are of a run with other settings, images, classes or weights", folder.display())]
    OtherRun {
        /// Where they are.
        folder: PathBuf,
    },
}

impl CheckpointError {
    /// The way out, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            CheckpointError::Write { path, .. } => {
                let folder = path.parent().unwrap_or(Path::new("."));
                Some(match folder.is_dir() {
                    true => {
                        format!("make room and go on from the last one: finetune train --resume {}", folder.display())
                    }
                    false => "make room and begin anew".into(), // It goes where there is none to go on from.
                })
            }
            CheckpointError::Folder { .. } => None,
            CheckpointError::Unreadable { folder, .. } => {
                Some(format!("begin anew: finetune train --config {}", folder.join("run.toml").display()))
            }
            CheckpointError::OtherRun { .. } => Some("give --resume without other settings, on unchanged data".into()),
        }
    }
}

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    every: Duration,
}

/// How far a run had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Epochs that are over.
    pub epochs: usize,
    /// Batches of the next one that are done.
    pub batches: usize,
}

/// A run at one moment.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// By name.
    pub tensors: BTreeMap<String, Tensor>,
    /// All else.
    pub state: String,
}

impl Checkpoints {
    /// Those in `folder`, which is made when it is needed; one is due after `every`, beside those at the end of epochs.
    pub fn new(folder: impl Into<PathBuf>, every: Duration) -> Checkpoints {
        Checkpoints { folder: folder.into(), every }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The time after which one is due.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Adds one; the oldest go once it is safe.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; nothing older is lost.
    pub fn write(&self, position: Position, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let path = self.folder.join(position.file_name());
        self.write_file(&path, checkpoint).map_err(|source| CheckpointError::Write { path, source })?;
        self.prune();
        Ok(())
    }

    /// The newest that can be read; `None` where there are none. Newer ones that cannot are told of.
    ///
    /// # Errors
    /// [`CheckpointError::Unreadable`] if there are some and none can be read; [`CheckpointError::Folder`].
    pub fn newest(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        let mut newest = None;
        for path in self.files()?.iter().rev() {
            match Checkpoint::read(path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(reason) => {
                    let reason = format!("{}: {reason}", path.display());
                    tracing::warn!("{reason}; trying the one before it");
                    newest.get_or_insert(reason);
                }
            }
        }
        newest.map_or(Ok(None), |reason| Err(CheckpointError::Unreadable { folder: self.folder.clone(), reason }))
    }

    /// Takes all of them away, but for what cannot be.
    pub fn remove_all(&self) {
        for path in self.files().unwrap_or_default() {
            let _ = fs::remove_file(path);
        }
        self.sweep();
    }

    /// Epochs that were over at the newest.
    pub fn epochs(&self) -> usize {
        let newest = self.files().ok().and_then(|files| files.into_iter().next_back());
        newest.and_then(|path| Position::epochs_of(&path)).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files().is_ok_and(|files| files.is_empty())
    }

    fn write_file(&self, path: &Path, Checkpoint { tensors, state }: &Checkpoint) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let digest = digest_of(tensors, state).map_err(std::io::Error::other)?;
        let metadata = HashMap::from([(STATE.to_string(), state.clone()), (DIGEST.to_string(), digest)]);
        // In a folder of its own: safetensors writes further files beside what it is asked for.
        let place = Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder)?;
        let file = place.path().join("checkpoint");
        safetensors::serialize_to_file(tensors, Some(metadata), &file).map_err(safetensors_io)?;
        File::open(&file)?.sync_all()?;
        fs::rename(&file, path)
    }

    /// Takes away what is older than those that are kept.
    fn prune(&self) {
        let files = self.files().unwrap_or_default();
        for path in files.iter().take(files.len().saturating_sub(KEPT)) {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!("{}: {error}", path.display());
            }
        }
        self.sweep();
    }

    /// Takes away what killed runs left half written.
    fn sweep(&self) {
        for path in self.names(|name| name.starts_with(UNFINISHED)).unwrap_or_default() {
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }

    /// Whole ones, the oldest first.
    fn files(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut files = self.names(|name| name.ends_with(SUFFIX) && !name.starts_with(UNFINISHED))?;
        files.sort();
        Ok(files)
    }

    fn names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, CheckpointError> {
        let failed = |source| CheckpointError::Folder { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if wanted(&name) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }
}

impl Position {
    fn epochs_of(path: &Path) -> Option<usize> {
        path.file_name()?.to_str()?.strip_prefix("epoch-")?.split('-').next()?.parse().ok()
    }

    /// Sorts as positions do.
    fn file_name(self) -> String {
        format!("epoch-{:06}-batch-{:09}{SUFFIX}", self.epochs, self.batches)
    }
}

impl Checkpoint {
    /// Reads a file; the error says what is wrong with it.
    fn read(path: &Path) -> Result<Checkpoint, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| format!("damaged: {error}"))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        let tensors: BTreeMap<String, Tensor> =
            tensors.map_err(|error| format!("damaged: {error}"))?.into_iter().collect();
        let state = metadata.get(STATE).cloned().unwrap_or_default();
        let digest = digest_of(&tensors, &state).map_err(|error| error.to_string())?;
        if metadata.get(DIGEST) != Some(&digest) {
            return Err("damaged: its contents are not what was written".into());
        }
        Ok(Checkpoint { tensors, state })
    }
}

fn digest_of(tensors: &BTreeMap<String, Tensor>, state: &str) -> candle_core::Result<String> {
    let mut key = Key::new("checkpoint 1").with(STATE, state.as_bytes());
    for (name, tensor) in tensors {
        key = key.with_tensor(name, tensor)?;
    }
    Ok(key.to_string())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn checkpoint(value: f32) -> Checkpoint {
        let tensor = Tensor::new(&[value, -value], &Device::Cpu).unwrap();
        Checkpoint { tensors: [("a".to_string(), tensor)].into(), state: format!("value = {value}") }
    }

    fn in_folder() -> (TempDir, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path().join("run"), Duration::ZERO);
        (folder, checkpoints)
    }

    fn write(checkpoints: &Checkpoints, epochs: usize, batches: usize) {
        let position = Position { epochs, batches };
        checkpoints.write(position, &checkpoint(epochs as f32 + batches as f32 / 16.0)).unwrap();
    }

    fn newest(checkpoints: &Checkpoints) -> Option<String> {
        checkpoints.newest().unwrap().map(|checkpoint| checkpoint.state)
    }

    #[test]
    fn the_newest_by_epoch_and_batch_is_found_whatever_was_written_last() {
        let (_folder, checkpoints) = in_folder();
        assert_eq!((newest(&checkpoints), checkpoints.epochs()), (None, 0));
        write(&checkpoints, 10, 0);
        assert_eq!(checkpoints.epochs(), 10);
        write(&checkpoints, 9, 1);
        write(&checkpoints, 2, 15);
        let found = checkpoints.newest().unwrap().unwrap();
        assert_eq!(found.state, "value = 10");
        assert_eq!(found.tensors["a"].to_vec1::<f32>().unwrap(), [10.0, -10.0]);
    }

    #[test]
    fn the_last_few_are_kept_and_what_a_killed_run_left_goes() {
        let (_folder, checkpoints) = in_folder();
        fs::create_dir_all(checkpoints.folder()).unwrap();
        fs::write(checkpoints.folder().join(format!("{UNFINISHED}abc")), "half").unwrap();
        fs::create_dir(checkpoints.folder().join(format!("{UNFINISHED}def"))).unwrap();
        fs::write(checkpoints.folder().join(format!("{UNFINISHED}def/checkpoint")), "half").unwrap();
        fs::write(checkpoints.folder().join("notes.txt"), "mine").unwrap();
        (1..6).for_each(|epochs| write(&checkpoints, epochs, 0));
        let names = |count| fs::read_dir(checkpoints.folder()).unwrap().count() == count;
        assert!(names(KEPT + 1));
        assert_eq!(newest(&checkpoints).unwrap(), "value = 5");
        checkpoints.remove_all();
        assert!(checkpoints.is_empty() && names(1), "what is not ours stays");
    }

    #[test]
    fn a_damaged_one_gives_way_to_the_one_before_it() {
        let (_folder, checkpoints) = in_folder();
        (1..4).for_each(|epochs| write(&checkpoints, epochs, 0));
        let path = |epochs| checkpoints.folder().join(Position { epochs, batches: 0 }.file_name());
        let mut bytes = fs::read(path(3)).unwrap();
        *bytes.last_mut().unwrap() ^= 1; // the sign of a number
        fs::write(path(3), &bytes).unwrap();
        assert_eq!(newest(&checkpoints).unwrap(), "value = 2");
        fs::write(path(2), &bytes[..bytes.len() - 3]).unwrap();
        fs::write(path(1), "").unwrap();
        let error = checkpoints.newest().unwrap_err();
        assert!(matches!(&error, CheckpointError::Unreadable { reason, .. }
            if reason.contains("epoch-000003") && reason.contains("not what was written")));
        assert!(error.hint().unwrap().contains("--config"));
    }

    #[test]
    fn one_that_cannot_be_written_names_its_file_and_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let name = "epoch-000001-batch-000000000.checkpoint.safetensors";
        fs::write(folder.path().join("file"), "in the way").unwrap();
        fs::create_dir_all(folder.path().join("run").join(name)).unwrap();
        for (run, way_out) in [("run", "finetune train --resume "), ("file", "begin anew")] {
            let checkpoints = Checkpoints::new(folder.path().join(run), Duration::ZERO);
            let error = checkpoints.write(Position { epochs: 1, batches: 0 }, &checkpoint(1.0)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.hint().unwrap().contains(way_out), "{error}");
        }
    }
}
