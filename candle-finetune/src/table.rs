//! Rows → a CSV file with a line of headings.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::error::{Result, io_error};

/// Writes `rows`, whose fields name the columns.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write_rows(path: &Path, rows: impl Iterator<Item = impl Serialize>) -> Result<()> {
    let write = || -> csv::Result<()> {
        let mut writer = csv::Writer::from_path(path)?;
        for row in rows {
            writer.serialize(row)?;
        }
        Ok(writer.flush()?)
    };
    write().map_err(|error| io_error(path)(csv_io(error)))
}

/// What the system said, where that is the cause.
fn csv_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
