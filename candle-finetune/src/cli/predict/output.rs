//! Where rows go.

use std::fs::{OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_finetune::{Error, Result};

use super::Arguments;
use super::kept::Kept;
use super::row::{Row, Sheet};
use super::summary::Counts;

/// Refuses, before the work, a file that is there and may be neither replaced nor gone on with.
pub fn check_may_write(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.output {
        Some(path) if path.exists() && !arguments.overwrite && !arguments.resume => {
            bail!("{}: exists already\nhint: go on with it by --resume, or replace it with --overwrite", path.display())
        }
        _ => Ok(()),
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
    /// Opens what the arguments name, behind the rows that are kept; anything else behind them is cut off.
    pub fn open(sheet: Sheet, arguments: &Arguments, kept: Option<&Kept>) -> anyhow::Result<Output> {
        let Some(path) = &arguments.output else {
            return Output::begin(sheet, Box::new(BufWriter::new(io::stdout())), Path::new("stdout"));
        };
        let named = |source| Error::Io { path: path.clone(), source };
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(named)?;
        // Released with the file; where a file system has no locks, two runs may disturb each other.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            bail!("{}: another run is writing to it", path.display());
        }
        // A pipe has no length.
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            file.set_len(kept.map_or(0, |kept| kept.bytes as u64)).map_err(named)?;
        }
        let Some(kept) = kept.filter(|kept| kept.bytes > 0) else {
            return Output::begin(sheet, Box::new(BufWriter::new(file)), path);
        };
        file.seek(io::SeekFrom::End(0)).map_err(named)?;
        let mut counts = Counts::default();
        kept.rows.iter().for_each(|row| counts.add(row.verdict));
        Ok(Output { sheet, counts, writer: Box::new(BufWriter::new(file)), place: path.clone() })
    }

    fn begin(sheet: Sheet, mut writer: Box<dyn Write>, place: &Path) -> anyhow::Result<Output> {
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
