//! The saved object → the dictionary of tensors in it.

use std::collections::BTreeMap;

use crate::checkpoint::error::{Problem, Shown};
use crate::checkpoint::pickle::{Object, Pickle, TensorParts, Value};

/// Keys under which timm's and torchvision's scripts put an average of the weights, beside the weights of the last step. It is what
/// they evaluate, and what timm's `create_model(checkpoint_path=…)` loads.
const AVERAGES: [&str; 2] = ["state_dict_ema", "model_ema"];

/// Keys under which an object of Python's is a whole network.
const MODULES: [&str; 3] = ["model", "net", "network"];

/// Keys under which training scripts put the weights, the most telling first.
const NESTS: [&str; 6] = ["state_dict", "model", "model_state_dict", "net", "network", "weights"];

/// How many nests are opened, one in the other.
const DEPTH: usize = 4;

/// How many names a message lists.
const LISTED: usize = 8;

type Entries<'a> = [(Value<'a>, Value<'a>)];

/// Finds the tensors by name: those of a nested dictionary under one of the usual keys, or of the object itself, or of the only
/// dictionary of tensors in it.
///
/// The nested one comes first because training scripts put tensors of their own beside it: the best accuracy, an epoch.
///
/// # Errors
/// If the object is no dictionary, or if neither it nor what it has under the usual keys holds a tensor, and under other keys there
/// are none or several such dictionaries.
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

/// The dictionary of the network in a checkpoint: an average, else the one under the first of the usual keys that leads to tensors,
/// else the only dictionary of tensors. An average that is taken in the place of weights is told.
fn nested<'p, 'a>(pickle: &'p Pickle<'a>, entries: &Entries<'a>) -> Option<&'p Entries<'a>> {
    let under = |key: &&'static str| Some((*key, dictionary_of_tensors(pickle, value_of(entries, key)?)?));
    let (average, usual) = (AVERAGES.iter().find_map(under), NESTS.iter().find_map(under));
    let average = match (average, usual) {
        (Some((average, averages)), Some((usual, weights))) if size(pickle, averages) < size(pickle, weights) => {
            tracing::warn!(
                "of the checkpoint's weights `{usual}` is taken; the average, `{average}`, has fewer tensors"
            );
            None
        }
        (Some((average, averages)), Some((usual, _))) => {
            tracing::warn!("of the checkpoint's weights the average is taken, `{average}`; `{usual}` is left aside");
            Some((average, averages))
        }
        (average, _) => average,
    };
    let named = average.or(usual).map(|(_, inner)| inner);
    named.or_else(|| only_nested(pickle, entries))
}

/// The only dictionary of tensors in one that holds no tensor itself.
fn only_nested<'p, 'a>(pickle: &'p Pickle<'a>, entries: &Entries<'a>) -> Option<&'p Entries<'a>> {
    let holds_network = MODULES.iter().any(|key| foreign(pickle, entries, key).is_some());
    if holds_tensors(pickle, entries) || holds_network {
        return None;
    }
    let holding = |&(_, value): &(Value<'a>, Value<'a>)| match pickle.behind(value) {
        Some(Object::Dict(inner)) if holds_tensors(pickle, inner) => Some(inner.as_slice()),
        _ => None,
    };
    let mut nests = entries.iter().filter_map(holding);
    nests.next().filter(|_| nests.next().is_none())
}

fn dictionary_of_tensors<'p, 'a>(pickle: &'p Pickle<'a>, value: Value<'a>) -> Option<&'p Entries<'a>> {
    match pickle.behind(value) {
        Some(Object::Dict(inner)) if leads_to_tensors(pickle, inner) => Some(inner),
        _ => None,
    }
}

fn leads_to_tensors<'a>(pickle: &Pickle<'a>, entries: &Entries<'a>) -> bool {
    holds_tensors(pickle, entries) || NESTS.iter().any(|nest| value_of(entries, nest).is_some())
}

fn holds_tensors<'a>(pickle: &Pickle<'a>, entries: &Entries<'a>) -> bool {
    entries.iter().any(|&(_, value)| matches!(pickle.behind(value), Some(Object::Tensor(_))))
}

/// Tensors of the network that these entries are, or lead to, but for batch norms' counters, which not every average has.
fn size<'p, 'a>(pickle: &'p Pickle<'a>, mut entries: &'p Entries<'a>) -> usize {
    for _ in 0..DEPTH {
        let inner = |nest: &&str| dictionary_of_tensors(pickle, value_of(entries, nest)?);
        let Some(inner) = NESTS.iter().find_map(inner) else { break };
        entries = inner;
    }
    let is_counter = |key: Value<'a>| matches!(key, Value::Str(name) if name.ends_with("num_batches_tracked"));
    let counts = |&&(key, value): &&(Value<'a>, Value<'a>)| {
        matches!(pickle.behind(value), Some(Object::Tensor(_))) && !is_counter(key)
    };
    entries.iter().filter(counts).count()
}

/// A dictionary without tensors may hold a whole network under one of the usual keys.
fn without_tensors<'a>(pickle: &Pickle<'a>, entries: &Entries<'a>) -> Problem {
    let network = NESTS.iter().find_map(|nest| foreign(pickle, entries, nest));
    network.unwrap_or_else(|| Problem::NoTensors { keys: names(entries) })
}

/// What is said of an object of Python's under a key.
fn foreign<'a>(pickle: &Pickle<'a>, entries: &Entries<'a>, key: &str) -> Option<Problem> {
    match pickle.behind(value_of(entries, key)?) {
        Some(Object::Foreign { module, name }) => Some(whole_object(module, name)),
        _ => None,
    }
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
