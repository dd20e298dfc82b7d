//! The folder of a run that is not over: `NAME.unfinished` beside its bundle, with its `run.toml` and its checkpoints.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use candle_finetune::checkpoints::{Checkpoints, UNFINISHED};
use candle_finetune::run_file::RunFile;
use tempfile::Builder;

use crate::cli::text::quoted;

/// Ends its name.
const SUFFIX: &str = ".unfinished";

/// What the run was asked to do, in it.
const RUN_FILE: &str = "run.toml";

/// A file that is in it where the run may replace what has its bundle's name: it was asked to, or it wrote that.
const REPLACES: &str = "replaces";

/// A file that whoever trains the run holds a lock on.
const LOCK: &str = "lock";

/// A run's folder, which no other process trains in.
pub struct Unfinished {
    checkpoints: Checkpoints,
    _lock: File,
}

impl Unfinished {
    /// The folder of a run that begins and will write the bundle `target`. A bundle there, and a run that was stopped, are in the way
    /// unless it `replaces` them.
    pub fn begin(target: &Path, run: &RunFile, every: Duration, replaces: bool) -> anyhow::Result<Unfinished> {
        let folder = folder_of(target);
        if is_taken(target) && !replaces {
            lock(&folder)?; // Who holds it is at work.
            let path = quoted(&folder.to_string_lossy());
            bail!(
                "{path}: holds a run that was stopped\nhint: go on with it by --resume {path}, or begin anew with --overwrite"
            );
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let unfinished = Unfinished { _lock: lock(&folder)?, checkpoints: Checkpoints::new(&folder, every) };
        unfinished.checkpoints.remove_all();
        match replaces {
            true => unfinished.allow_replacing(),
            false => drop(fs::remove_file(folder.join(REPLACES))),
        }
        write(run, &folder).with_context(|| folder.display().to_string())?;
        Ok(unfinished)
    }

    /// The folder of a run that goes on.
    pub fn resume(folder: &Path, every: Duration) -> anyhow::Result<Unfinished> {
        Ok(Unfinished { checkpoints: Checkpoints::new(folder, every), _lock: lock(folder)? })
    }

    /// Lets the run replace what has its bundle's name, also when it goes on. Where the file cannot be written it is refused then.
    pub fn allow_replacing(&self) {
        let _ = fs::write(self.checkpoints.folder().join(REPLACES), "");
    }

    /// Where the run writes its state.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Ends the process's work on the run. The folder goes, unless the run can still go on from what it holds; then this gives it.
    pub fn close(self, goes_on: bool) -> Option<PathBuf> {
        let folder = self.checkpoints.folder();
        if goes_on && !self.checkpoints.is_empty() {
            return Some(folder.into());
        }
        self.checkpoints.remove_all();
        let _ = [RUN_FILE, REPLACES, LOCK].map(|name| fs::remove_file(folder.join(name)));
        let _ = fs::remove_dir(folder); // Where something else is in it, it stays.
        None
    }
}

/// Writes what a run was asked to do to its folder.
fn write(run: &RunFile, folder: &Path) -> std::io::Result<()> {
    let mut file = Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(run.to_toml().as_bytes())?;
    file.persist(folder.join(RUN_FILE))?;
    Ok(())
}

/// What says what the stopped run in `folder` was asked to do.
pub fn run_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join(RUN_FILE);
    if !path.is_file() {
        bail!("{}: holds no stopped run", folder.display());
    }
    target_of(folder).map(|_| path)
}

/// Whether the stopped run in `folder` may replace what has its bundle's name.
pub fn may_replace(folder: &Path) -> bool {
    folder.join(REPLACES).exists()
}

/// Whether a run that will write the bundle `target` was stopped and can go on, or is at work.
pub fn is_taken(target: &Path) -> bool {
    let folder = folder_of(target);
    let at_work = || folder.join(LOCK).exists() && lock(&folder).is_err();
    !Checkpoints::new(&folder, Duration::MAX).is_empty() || at_work()
}

/// The bundle that the run in `folder` will write.
pub fn target_of(folder: &Path) -> anyhow::Result<PathBuf> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.as_deref().and_then(|name| name.strip_suffix(SUFFIX)).filter(|name| !name.is_empty());
    let name = name.with_context(|| format!("{}: not a folder NAME{SUFFIX} of a stopped run", folder.display()))?;
    Ok(folder.with_file_name(name))
}

fn folder_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().map_or_else(OsString::new, OsString::from);
    name.push(SUFFIX);
    target.with_file_name(name)
}

/// Keeps other processes out, until the file is closed.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(LOCK);
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("{}: another process is training this run", folder.display()),
        // Where files cannot be locked, two processes are kept apart by nobody.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
    }
}
