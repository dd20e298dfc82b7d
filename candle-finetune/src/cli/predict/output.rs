//! Where rows go, and what a run that was broken off left there.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use candle_finetune::{Error, Result};
use serde_json::Value;

use super::Arguments;
use super::row::{Form, Row, Sheet};
use super::summary::{Counts, Verdict};

/// Rows on their way out, and how many of each kind there were, kept ones included.
pub struct Output {
    pub sheet: Sheet,
    pub counts: Counts,
    writer: Box<dyn Write>,
    /// For messages.
    place: PathBuf,
}

impl Output {
    /// Opens what the arguments name, and gives those of `photos` that have no row there yet.
    pub fn open(sheet: Sheet, arguments: &Arguments, photos: Vec<PathBuf>) -> anyhow::Result<(Output, Vec<PathBuf>)> {
        let Some(path) = &arguments.output else {
            let writer = Box::new(BufWriter::new(io::stdout()));
            return Ok((Output::begin(sheet, writer, Path::new("stdout"))?, photos));
        };
        if path.exists() && arguments.resume {
            return Output::resume(sheet, path, photos);
        }
        if path.exists() && !arguments.overwrite {
            bail!(
                "{}: exists already\nhint: go on with it by --resume, or replace it with --overwrite",
                path.display()
            );
        }
        let file = File::create(path).map_err(|source| Error::Io { path: path.clone(), source })?;
        Ok((Output::begin(sheet, Box::new(BufWriter::new(file)), path)?, photos))
    }

    fn begin(sheet: Sheet, mut writer: Box<dyn Write>, place: &Path) -> anyhow::Result<Output> {
        writer.write_all(sheet.header()?.as_bytes())?;
        Ok(Output { sheet, counts: Counts::default(), writer, place: place.into() })
    }

    /// Cuts what is no whole row and goes on behind it.
    fn resume(sheet: Sheet, path: &Path, photos: Vec<PathBuf>) -> anyhow::Result<(Output, Vec<PathBuf>)> {
        let named = |source| Error::Io { path: path.into(), source };
        let text = std::fs::read(path).map_err(named)?;
        let whole = whole_rows(sheet.form, &text);
        let kept = kept_rows(&sheet, &text[..whole])
            .and_then(|kept| check_begun(&sheet, whole == 0, &text[whole..]).map(|()| kept))
            .map_err(|error| anyhow!("{}: cannot go on: {error}\nhint: replace it with --overwrite", path.display()))?;
        let mut file = OpenOptions::new().write(true).open(path).map_err(named)?;
        file.set_len(whole as u64).map_err(named)?;
        file.seek(io::SeekFrom::End(0)).map_err(named)?;
        let writer: Box<dyn Write> = Box::new(BufWriter::new(file));
        let mut output = match whole {
            0 => Output::begin(sheet, writer, path)?,
            _ => Output { sheet, counts: Counts::default(), writer, place: path.into() },
        };
        kept.iter().for_each(|(_, verdict)| output.counts.add(*verdict));
        let left = without(photos, kept.into_iter().map(|(path, _)| path));
        say!("{} rows kept, {} photos left", output.counts.photos, left.len());
        Ok((output, left))
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

/// `photos` without those that are `done`, each as often as it is.
fn without(photos: Vec<PathBuf>, done: impl Iterator<Item = String>) -> Vec<PathBuf> {
    let mut times: HashMap<String, usize> = HashMap::new();
    done.for_each(|path| *times.entry(path).or_default() += 1);
    let is_left = |photo: &PathBuf| match times.get_mut(photo.to_string_lossy().as_ref()) {
        Some(times) if *times > 0 => {
            *times -= 1;
            false
        }
        _ => true,
    };
    photos.into_iter().filter(is_left).collect()
}

/// How many bytes of `text` are rows with their end. A line break within quotes ends no row of a table.
fn whole_rows(form: Form, text: &[u8]) -> usize {
    let (mut quoted, mut whole) = (false, 0);
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            b'"' if form == Form::Csv => quoted = !quoted,
            b'\n' if !quoted => whole = index + 1,
            _ => {}
        }
    }
    whole
}

/// Refuses to cut off what cannot be the beginning of a row, or of a table where it is the `first` line.
fn check_begun(sheet: &Sheet, first: bool, tail: &[u8]) -> anyhow::Result<()> {
    const OBJECT: &[u8] = b"{\"path\":";
    let begun = match sheet.form {
        Form::Csv if first => sheet.header()?.as_bytes().starts_with(tail),
        Form::Csv => true, // the columns are those of this command
        Form::Jsonl | Form::Text => tail.starts_with(OBJECT) || OBJECT.starts_with(tail),
    };
    if !begun {
        bail!("its last line is no row of predictions");
    }
    Ok(())
}

/// Path and verdict of each row.
fn kept_rows(sheet: &Sheet, text: &[u8]) -> anyhow::Result<Vec<(String, Verdict)>> {
    if sheet.form == Form::Csv {
        return kept_cells(sheet, text);
    }
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let row = |(index, line)| {
        kept_object(line).map_err(|error| anyhow!("line {} is no row of predictions: {error}", index + 1))
    };
    lines.enumerate().map(row).collect()
}

fn kept_object(line: &[u8]) -> anyhow::Result<(String, Verdict)> {
    let row: Value = serde_json::from_slice(line)?;
    let path = row["path"].as_str().ok_or_else(|| anyhow!("it has no `path`"))?;
    let verdict = match row.get("error") {
        Some(_) => Verdict::Unreadable,
        None => Verdict::Read { sure: row["sure"].as_bool(), right: row["right"].as_bool() },
    };
    Ok((path.to_string(), verdict))
}

fn kept_cells(sheet: &Sheet, text: &[u8]) -> anyhow::Result<Vec<(String, Verdict)>> {
    let (mut reader, columns) = (csv::Reader::from_reader(text), sheet.columns());
    if !text.is_empty() && *reader.headers()? != columns {
        bail!("its columns are not {}", columns.join(","));
    }
    let place = |name: &str| columns.iter().position(|column| column == name);
    let (sure, right, error) = (place("sure"), place("right"), place("error"));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let cell = |place: Option<usize>| place.and_then(|place| record.get(place)).unwrap_or_default();
        let verdict = match cell(error) {
            "" => Verdict::Read { sure: cell(sure).parse().ok(), right: cell(right).parse().ok() },
            _ => Verdict::Unreadable,
        };
        rows.push((cell(Some(0)).to_string(), verdict));
    }
    Ok(rows)
}
