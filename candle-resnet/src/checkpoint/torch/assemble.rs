//! Descriptions of tensors and the data of their storages → tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::Tensor;

use super::view::View;
use crate::checkpoint::Tensors;
use crate::checkpoint::budget::Budget;
use crate::checkpoint::element::ElementType;
use crate::checkpoint::error::{Problem, Shown};
use crate::checkpoint::pickle::{Object, Pickle, Storage, TensorParts};

/// Where the elements of storages come from.
pub(super) trait StorageData {
    /// The little-endian bytes of storage `key`, whose elements are of type `element`; None if the file has none.
    fn bytes(&mut self, key: &str, element: &ElementType) -> Result<Option<Cow<'_, [u8]>>, Problem>;
}

/// A tensor whose storage is known, but not yet read.
struct Planned<'a> {
    name: &'a str,
    parts: TensorParts,
    element: &'static ElementType,
    /// Offset and number of elements of the storage's own type, where only a part of it is meant.
    part: Option<(i64, i64)>,
}

/// Makes the tensors, one storage after another, so that only one of them is in memory beside its tensors.
pub(super) fn tensors<'a>(
    pickle: &Pickle<'a>,
    entries: BTreeMap<&'a str, TensorParts>,
    data: &mut impl StorageData,
    mut budget: Budget,
) -> Result<Tensors, Problem> {
    let mut tensors = Tensors::new();
    for (key, planned) in by_storage(pickle, entries)? {
        let Some(first) = planned.first() else { continue };
        let missing = || Problem::MissingStorage { tensor: Shown::text(first.name), storage: Shown::text(key) };
        let bytes = data.bytes(key, first.element)?.ok_or_else(missing)?;
        for plan in &planned {
            tensors.insert(plan.name.to_owned(), plan.tensor(pickle, key, &bytes, &mut budget)?);
        }
    }
    Ok(tensors)
}

type ByStorage<'a> = BTreeMap<&'a str, Vec<Planned<'a>>>;

fn by_storage<'a>(pickle: &Pickle<'a>, entries: BTreeMap<&'a str, TensorParts>) -> Result<ByStorage<'a>, Problem> {
    let mut planned = ByStorage::new();
    for (name, parts) in entries {
        let storage = storage(pickle, name, &parts)?;
        let element = parts.element.unwrap_or(storage.element);
        planned.entry(storage.key).or_default().push(Planned { name, parts, element, part: storage.part });
    }
    Ok(planned)
}

fn storage<'p, 'a>(pickle: &'p Pickle<'a>, name: &str, parts: &TensorParts) -> Result<&'p Storage<'a>, Problem> {
    match pickle.object(parts.storage) {
        Some(Object::Storage(storage)) => Ok(storage),
        _ => Err(Problem::malformed_tensor(name, "what should be its storage is none")),
    }
}

impl Planned<'_> {
    fn tensor(&self, pickle: &Pickle<'_>, key: &str, bytes: &[u8], budget: &mut Budget) -> Result<Tensor, Problem> {
        let malformed = |reason| Problem::malformed_tensor(self.name, reason);
        let view = View::of(pickle, &self.parts).map_err(malformed)?;
        let bytes =
            part_of(bytes, self.part, self.element.size).ok_or_else(|| malformed("its part is out of range"))?;
        let found = bytes.len() / self.element.size;
        if view.end > found {
            let (tensor, storage) = (Shown::text(self.name), Shown::text(key));
            return Err(Problem::ShortStorage { tensor, storage, wanted: view.end, found });
        }
        budget.spend(view.count.saturating_mul(self.element.size))?;
        self.element.tensor(self.name, &view.gather(bytes, self.element.size), &view.size)
    }
}

/// The bytes of `count` elements from `offset` on.
fn part_of(bytes: &[u8], part: Option<(i64, i64)>, size: usize) -> Option<&[u8]> {
    let Some((offset, count)) = part else {
        return Some(bytes);
    };
    let start = usize::try_from(offset).ok()?.checked_mul(size)?;
    let length = usize::try_from(count).ok()?.checked_mul(size)?;
    bytes.get(start..)?.get(..length)
}
