//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Result, io_error};

/// Writes `content` to `path` in the place of what is there.
///
/// # Errors
/// If the file cannot be opened, and what was there stays; if it cannot be written whole, and no half of it stays.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(io_error(path))?;
    file.write_all(content).map_err(|error| {
        if path.is_file() {
            let _ = fs::remove_file(path);
        }
        io_error(path)(error)
    })
}
