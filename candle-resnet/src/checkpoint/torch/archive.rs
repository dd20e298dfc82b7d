//! The zip form: `NAME/data.pkl`, `NAME/data/KEY` for every storage, and `NAME/byteorder`.
//!
//! PyTorch stores its entries as they are; deflated ones (a file that was unpacked and packed again) are read, too.
//! Checksums are verified, which PyTorch does not do.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::assemble::StorageData;
use crate::checkpoint::budget::Budget;
use crate::checkpoint::element::{ElementType, swap_bytes};
use crate::checkpoint::error::{Problem, Shown};

const PICKLE: &str = "data.pkl";

/// The entries of one checkpoint.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// What stands before `data.pkl` in its name.
    prefix: String,
    big_endian: bool,
    budget: Budget,
}

impl<'a> Archive<'a> {
    /// Reads the archive's directory.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Problem> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken("its directory".to_owned(), &error))?;
        let prefix = pickle_prefix(&zip).ok_or(Problem::NoPickle)?;
        let mut archive = Self { zip, prefix, big_endian: false, budget: Budget::for_file(bytes.len()) };
        archive.big_endian = archive.read_byte_order()?;
        Ok(archive)
    }

    /// The pickle that describes the tensors.
    pub(super) fn pickle(&mut self) -> Result<Vec<u8>, Problem> {
        self.entry(PICKLE)?.ok_or(Problem::NoPickle)
    }

    fn read_byte_order(&mut self) -> Result<bool, Problem> {
        match self.entry("byteorder")?.as_deref() {
            None | Some(b"little") => Ok(false),
            Some(b"big") => Ok(true),
            Some(found) => Err(Problem::ByteOrder { found: Shown::bytes(found) }),
        }
    }

    /// The content of one entry, or None if there is none of this name.
    fn entry(&mut self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let name = format!("{}{name}", self.prefix);
        let Some(index) = self.zip.index_for_name(&name) else {
            return Ok(None);
        };
        let part = || format!("entry {}", Shown::text(&name));
        let entry = self.zip.by_index(index).map_err(|error| broken(part(), &error))?;
        // The declared size is not believed: reading stops where the budget ends.
        let allowed = self.budget.left();
        let expected = usize::try_from(entry.size()).unwrap_or(usize::MAX).min(allowed);
        let mut content = Vec::with_capacity(expected);
        let read = entry.take(allowed as u64 + 1).read_to_end(&mut content);
        self.budget.spend(content.len())?;
        read.map_err(|error| broken(part(), &ZipError::Io(error)))?;
        Ok(Some(content))
    }
}

impl StorageData for Archive<'_> {
    fn bytes(&mut self, key: &str, element: &ElementType) -> Result<Option<Cow<'_, [u8]>>, Problem> {
        let content = self.entry(&format!("data/{key}"))?;
        let swap = if self.big_endian { swap_bytes } else { |data, _| data };
        Ok(content.map(|content| Cow::Owned(swap(content, element.size))))
    }
}

/// The folder that holds `data.pkl`, at the top or one level below.
fn pickle_prefix(zip: &ZipArchive<Cursor<&[u8]>>) -> Option<String> {
    let is_folder = |prefix: &String| prefix.is_empty() || prefix.find('/') == Some(prefix.len() - 1);
    let mut names = zip.file_names().flatten();
    names.find_map(|name| name.strip_suffix(PICKLE).map(str::to_owned).filter(is_folder))
}

fn broken(part: String, error: &ZipError) -> Problem {
    Problem::Zip { part, reason: error.to_string() }
}
