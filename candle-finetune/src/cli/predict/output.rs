//! Where rows go.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use candle_finetune::{Error, Result};
use tempfile::TempPath;

use super::Arguments;
use super::kept::Kept;
use super::row::{Row, Sheet};
use super::summary::Counts;
use crate::cli::common::{check_names_a_file, is_special};
use crate::cli::stdout;

/// Refuses, before the work, what is no file's name, and a file that is there and may be neither replaced nor gone on with.
pub fn check_may_write(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(path) = &arguments.output else { return Ok(()) };
    check_names_a_file(path)?;
    if arguments.resume && is_special(path) {
        bail!("{}: is no file, and keeps no rows to go on behind", path.display());
    }
    if path.exists() && !may_go_into(path, arguments) {
        return Err(exists(path));
    }
    Ok(())
}

/// Whether rows may be written to what is there; in a device or a pipe nothing is lost.
fn may_go_into(path: &Path, arguments: &Arguments) -> bool {
    arguments.overwrite || arguments.resume || is_special(path)
}

fn exists(path: &Path) -> anyhow::Error {
    anyhow!("{}: exists already\nhint: go on with it by --resume, or replace it with --overwrite", path.display())
}

/// The file that rows go to, as it was found; no other run writes to it.
pub struct OutputFile {
    /// Where this run made the file: it goes again if the run ends before its rows begin, while it is locked.
    fresh: Option<TempPath>,
    file: File,
    path: PathBuf,
}

impl OutputFile {
    /// Opens the file `path` as the arguments allow, and locks it.
    pub fn open(path: &Path, arguments: &Arguments) -> anyhow::Result<OutputFile> {
        let named = |source| Error::Io { path: path.into(), source };
        let mut options = OpenOptions::new();
        options.read(arguments.resume).write(true);
        let (file, is_new) = match options.clone().create_new(true).open(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(named(error).into()),
            Err(_) if !may_go_into(path, arguments) => return Err(exists(path)),
            Err(_) => (options.create(true).truncate(false).open(path).map_err(named)?, false),
        };
        // Released with the file; where a file system has no locks, two runs may disturb each other.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            bail!("{}: another run is writing to it", path.display());
        }
        let fresh = is_new.then(|| TempPath::try_from_path(path)).transpose().map_err(named)?;
        Ok(OutputFile { fresh, file, path: path.into() })
    }

    /// For messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was none before.
    pub fn is_new(&self) -> bool {
        self.fresh.is_some()
    }

    /// All that it holds.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let read = self.file.read_to_end(&mut content);
        read.map(|_| content).map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// The file from the end of its first `bytes` on; anything else behind them is cut off.
    fn behind(self, bytes: usize) -> io::Result<File> {
        let OutputFile { fresh, mut file, .. } = self;
        fresh.map(TempPath::keep).transpose()?;
        // A pipe has no length.
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            file.set_len(bytes as u64)?;
            file.seek(io::SeekFrom::End(0))?;
        }
        Ok(file)
    }
}

/// Rows on their way out, and how many of each kind there were, kept ones included.
pub struct Output {
    pub sheet: Sheet,
    pub counts: Counts,
    writer: Box<dyn Write>,
    /// For messages.
    place: PathBuf,
}

impl Output {
    /// Begins to write to `file`, or to stdout, behind the rows that are kept.
    pub fn begin(sheet: Sheet, file: Option<OutputFile>, kept: Option<&Kept>) -> anyhow::Result<Output> {
        let Some(file) = file else {
            return Output::with_header(sheet, Box::new(BufWriter::new(io::stdout())), Path::new(stdout::NAME));
        };
        let path = file.path.clone();
        let file = file.behind(kept.map_or(0, |kept| kept.bytes));
        let writer = Box::new(BufWriter::new(file.map_err(|source| Error::Io { path: path.clone(), source })?));
        let Some(kept) = kept.filter(|kept| kept.bytes > 0) else {
            return Output::with_header(sheet, writer, &path);
        };
        let mut counts = Counts::default();
        kept.rows.iter().for_each(|row| counts.add(row.verdict));
        Ok(Output { sheet, counts, writer, place: path })
    }

    fn with_header(sheet: Sheet, mut writer: Box<dyn Write>, place: &Path) -> anyhow::Result<Output> {
        writer.write_all(sheet.header()?.as_bytes())?;
        Ok(Output { sheet, counts: Counts::default(), writer, place: place.into() })
    }

    /// Writes a row and counts it.
    pub fn write(&mut self, row: Row) -> Result<()> {
        let line = self.sheet.row(&row).map_err(io::Error::from);
        let written = line.and_then(|line| self.writer.write_all(line.as_bytes()));
        self.counts.add(row.verdict());
        written.map_err(|source| self.error(source))
    }

    /// Hands on what was written.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Io { path: self.place.clone(), source }
    }
}
