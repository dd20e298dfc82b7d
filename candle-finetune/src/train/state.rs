//! Tensors by name, as a checkpoint holds them: taking them out again, and what can be wrong with them.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::error::{Result, TrainError};

/// The tensor `name` of `state`.
pub(crate) fn present<'a>(state: &'a BTreeMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    state.get(name).ok_or_else(|| TrainError::MissingTensor { name: name.into() })
}

/// The tensor `name` of `state`, which must have this shape.
pub(super) fn named<'a>(state: &'a BTreeMap<String, Tensor>, name: &str, shape: &[usize]) -> Result<&'a Tensor> {
    let tensor = present(state, name)?;
    check_shape(name, tensor, shape)?;
    Ok(tensor)
}

/// `state` with `prefix` before its names.
pub(crate) fn under(prefix: &str, state: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    state.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
}

/// Those of `state` whose names begin with `prefix`, without it.
pub(crate) fn below(prefix: &str, state: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let named = |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()));
    state.iter().filter_map(named).collect()
}

/// Refuses names of `state` that are not among `known`.
pub(super) fn check_known(state: &BTreeMap<String, Tensor>, known: &BTreeSet<String>) -> Result<()> {
    match state.keys().find(|name| !known.contains(*name)) {
        Some(name) => Err(TrainError::UnknownTensor { name: name.clone() }),
        None => Ok(()),
    }
}

/// Refuses a tensor of another shape, under its name.
pub(super) fn check_shape(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
    if tensor.dims() == shape {
        return Ok(());
    }
    Err(TrainError::TensorShape { name: name.into(), found: tensor.dims().to_vec(), expected: shape.to_vec() })
}
