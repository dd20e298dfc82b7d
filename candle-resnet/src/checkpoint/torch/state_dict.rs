//! The saved object → the dictionary of tensors in it.

use std::collections::BTreeMap;

use crate::checkpoint::error::{Problem, Shown};
use crate::checkpoint::pickle::{Object, Pickle, TensorParts, Value};

/// Keys under which training scripts put the weights, the most telling first.
const NESTS: [&str; 6] = ["state_dict", "model", "model_state_dict", "net", "network", "weights"];

/// How many nests are opened, one in the other.
const DEPTH: usize = 4;

/// How many names a message lists.
const LISTED: usize = 8;

type Entries<'a> = [(Value<'a>, Value<'a>)];

/// Finds the tensors by name: those of a nested dictionary under one of the usual keys, or of the object itself.
///
/// The nested one comes first because training scripts put tensors of their own beside it: the best accuracy, an epoch.
///
/// # Errors
/// If the object is no dictionary, or if neither it nor what it has under the usual keys holds a tensor.
pub(super) fn find<'a>(pickle: &Pickle<'a>) -> Result<BTreeMap<&'a str, TensorParts>, Problem> {
    let mut entries = dictionary(pickle, pickle.root)?;
    for _ in 0..DEPTH {
        match nested(pickle, entries) {
            Some(inner) => entries = inner,
            None => break,
        }
    }
    let tensors = tensors(pickle, entries)?;
    if tensors.is_empty() { Err(without_tensors(pickle, entries)) } else { Ok(tensors) }
}

/// The dictionary under the first of the usual keys that leads to tensors.
fn nested<'p, 'a>(pickle: &'p Pickle<'a>, entries: &Entries<'a>) -> Option<&'p Entries<'a>> {
    let inner = |nest: &&str| match pickle.behind(value_of(entries, nest)?) {
        Some(Object::Dict(inner)) if leads_to_tensors(pickle, inner) => Some(inner.as_slice()),
        _ => None,
    };
    NESTS.iter().find_map(inner)
}

fn leads_to_tensors<'a>(pickle: &Pickle<'a>, entries: &Entries<'a>) -> bool {
    let is_tensor = |&(_, value): &(Value<'a>, Value<'a>)| matches!(pickle.behind(value), Some(Object::Tensor(_)));
    entries.iter().any(is_tensor) || NESTS.iter().any(|nest| value_of(entries, nest).is_some())
}

/// A dictionary without tensors may hold a whole network under one of the usual keys.
fn without_tensors<'a>(pickle: &Pickle<'a>, entries: &Entries<'a>) -> Problem {
    let network = |nest: &&str| match pickle.behind(value_of(entries, nest)?) {
        Some(Object::Foreign { module, name }) => Some(whole_object(module, name)),
        _ => None,
    };
    NESTS.iter().find_map(network).unwrap_or_else(|| Problem::NoTensors { keys: names(entries) })
}

fn dictionary<'p, 'a>(pickle: &'p Pickle<'a>, value: Value<'a>) -> Result<&'p Entries<'a>, Problem> {
    match pickle.behind(value) {
        Some(Object::Dict(entries)) => Ok(entries),
        Some(Object::Foreign { module, name }) => Err(whole_object(module, name)),
        Some(Object::Tuple(_) | Object::List(_)) => Err(Problem::NotADictionary { found: "a list" }),
        Some(Object::Tensor(_)) => Err(Problem::NotADictionary { found: "one tensor without a name" }),
        Some(Object::Storage(_)) => Err(Problem::NotADictionary { found: "elements without a shape" }),
        None => Err(Problem::NotADictionary { found: "a single value" }),
    }
}

fn whole_object(module: &str, name: &str) -> Problem {
    let class = Shown::text(&format!("{module}.{name}"));
    if module == "__torch__" || module.starts_with("__torch__.") {
        Problem::TorchScript { class }
    } else {
        Problem::WholeObject { class }
    }
}

fn tensors<'a>(pickle: &Pickle<'a>, entries: &Entries<'a>) -> Result<BTreeMap<&'a str, TensorParts>, Problem> {
    let mut tensors = BTreeMap::new();
    for &(key, value) in entries {
        if let (Value::Str(name), Some(object)) = (key, pickle.behind(value)) {
            tensors.extend(tensor(name, object)?.map(|parts| (name, parts)));
        }
    }
    Ok(tensors)
}

/// A tensor, or None for whatever else may lie beside weights; a tensor of a kind that is not read is an error.
fn tensor(name: &str, object: &Object<'_>) -> Result<Option<TensorParts>, Problem> {
    match object {
        Object::Tensor(parts) => Ok(Some(*parts)),
        Object::Foreign { module: "torch._utils", name: function } if function.starts_with("_rebuild_") => {
            Err(Problem::unsupported_element(name, function))
        }
        _ => Ok(None),
    }
}

fn value_of<'a>(entries: &Entries<'a>, wanted: &str) -> Option<Value<'a>> {
    entries.iter().rev().find(|(key, _)| *key == Value::Str(wanted)).map(|&(_, value)| value)
}

fn names(entries: &Entries<'_>) -> Vec<Shown> {
    let name = |(key, _): &(Value<'_>, Value<'_>)| match key {
        Value::Str(name) => Some(Shown::text(name)),
        _ => None,
    };
    entries.iter().filter_map(name).take(LISTED).collect()
}
