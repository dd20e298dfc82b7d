//! The form of before PyTorch 1.6: five pickles in a row, then the elements of every storage.
//!
//! Magic number, protocol version, facts about the machine that wrote it, the object, the keys of the storages in the
//! order of their data; then for each an `i64` count and its elements, little-endian on every machine.

use std::borrow::Cow;
use std::collections::HashMap;

use super::assemble::StorageData;
use crate::checkpoint::element::ElementType;
use crate::checkpoint::error::{Problem, Shown};
use crate::checkpoint::pickle::{self, Object, Pickle, Value};

const MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"; // 0x1950a86a20f9469cfc6c
const MAGIC_IN_DECIMAL: &[u8] = b"119547037146038801333356"; // as pickle protocol 1 spells it
const PROTOCOL: i64 = 1001;

/// Reads the pickle of the object that was saved.
pub(super) fn description(bytes: &[u8]) -> Result<Pickle<'_>, Problem> {
    let magic = pickle::parse(bytes, 0)?;
    if magic.root != Value::BigInt(MAGIC) && magic.root != Value::BigInt(MAGIC_IN_DECIMAL) {
        return Err(Problem::NotTorchSave);
    }
    let protocol = pickle::parse(bytes, magic.end)?;
    if protocol.root != Value::Int(PROTOCOL) {
        return Err(Problem::Protocol { found: found(protocol.root) });
    }
    let machine = pickle::parse(bytes, protocol.end)?;
    pickle::parse(bytes, machine.end)
}

fn found(version: Value<'_>) -> String {
    match version {
        Value::Int(version) => version.to_string(),
        _ => "something else than a number".to_owned(),
    }
}

/// Where the elements of every storage lie.
#[derive(Debug)]
pub(super) struct Storages<'a>(HashMap<&'a str, &'a [u8]>);

impl<'a> Storages<'a> {
    /// Reads the list of keys behind `description` and finds the data of each.
    pub(super) fn locate(bytes: &'a [u8], description: &Pickle<'a>) -> Result<Self, Problem> {
        let list = pickle::parse(bytes, description.end)?;
        let elements = element_types(description);
        let mut rest = Rest { bytes, at: list.end };
        let mut storages = HashMap::new();
        for key in keys(&list)? {
            let element = elements.get(key).ok_or_else(|| unused(key))?;
            storages.insert(key, rest.storage(key, element)?);
        }
        Ok(Self(storages))
    }
}

impl StorageData for Storages<'_> {
    fn bytes(&mut self, key: &str, _element: &ElementType) -> Result<Option<Cow<'_, [u8]>>, Problem> {
        Ok(self.0.get(key).map(|&data| Cow::Borrowed(data)))
    }
}

/// The element type under which each storage was saved: that of its first mention.
fn element_types<'a>(description: &Pickle<'a>) -> HashMap<&'a str, &'static ElementType> {
    let mut elements = HashMap::new();
    for object in description.objects() {
        if let Object::Storage(storage) = object {
            elements.entry(storage.key).or_insert(storage.element);
        }
    }
    elements
}

fn keys<'a>(list: &Pickle<'a>) -> Result<Vec<&'a str>, Problem> {
    let Some(Object::List(keys)) = list.behind(list.root) else {
        return Err(broken("expected a list of keys"));
    };
    let key = |key: &Value<'a>| match *key {
        Value::Str(key) => Ok(key),
        _ => Err(broken("a key is no string")),
    };
    keys.iter().map(key).collect()
}

fn broken(reason: impl Into<String>) -> Problem {
    Problem::StorageList { reason: reason.into() }
}

fn unused(key: &str) -> Problem {
    broken(format!("no tensor tells the element type of storage {}", Shown::text(key)))
}

/// What of the file is still to be read.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn storage(&mut self, key: &str, element: &ElementType) -> Result<&'a [u8], Problem> {
        let part = || format!("the data of storage {}", Shown::text(key));
        let count = self.take(8, part)?.first_chunk().map_or(0, |count| i64::from_le_bytes(*count));
        let wrong = || broken(format!("storage {} has {count} elements", Shown::text(key)));
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(element.size));
        self.take(bytes.ok_or_else(wrong)?, part)
    }

    fn take(&mut self, count: usize, part: impl FnOnce() -> String) -> Result<&'a [u8], Problem> {
        let end = self.at.saturating_add(count);
        let truncated = || Problem::Truncated { part: part(), end: end as u64, length: self.bytes.len() };
        let taken = self.bytes.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(taken)
    }
}
