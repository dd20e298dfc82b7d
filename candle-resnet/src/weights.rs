//! Tensors by foreign or own names → a `VarMap` that holds exactly what the network needs.
//!
//! Reads no file. Foreign names are mapped before, by [`checkpoint::names`](crate::checkpoint::names).

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;

use crate::architecture::Architecture;
use crate::blueprint::{Blueprint, ParameterSpec};

/// How tensors differ from what an architecture needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tensors do not fit `{architecture}`{}", self.details())]
pub struct Mismatch {
    /// What was asked for.
    pub architecture: String,
    /// Name and shape of what is needed and not there.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Name and shape of what is there and not needed.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// Name, shape found, shape needed.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

/// Tensors listed of each kind before the rest is counted.
const LISTED: usize = 5;

impl Mismatch {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    fn details(&self) -> String {
        let named = |tensors: &[(String, Vec<usize>)]| -> Vec<String> {
            tensors.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect()
        };
        let misshapen = self.misshapen.iter();
        let misshapen =
            misshapen.map(|(name, found, expected)| format!("{name}: found {found:?}, expected {expected:?}"));
        [
            ("missing", named(&self.missing)),
            ("unexpected", named(&self.unexpected)),
            ("of another shape", misshapen.collect()),
        ]
        .iter()
        .filter(|(_, tensors)| !tensors.is_empty())
        .map(|(kind, tensors)| format!("\n{} {kind}:{}", tensors.len(), listing(tensors)))
        .collect()
    }
}

/// One line each, and a count of those that are not shown.
fn listing(tensors: &[String]) -> String {
    let shown: String = tensors.iter().take(LISTED).map(|tensor| format!("\n  {tensor}")).collect();
    match tensors.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown}\n  and {more} more"),
    }
}

/// Classes that tensors of the network were trained for: the rows of `fc.weight`.
pub fn classes(tensors: &BTreeMap<String, Tensor>) -> Option<usize> {
    tensors.get("fc.weight").and_then(|weight| weight.dims2().ok()).map(|(classes, _)| classes)
}

/// Checks that `tensors` are exactly those of `architecture` with `classes` outputs.
///
/// # Errors
/// [`Mismatch`] with every missing, unexpected and misshapen tensor.
pub fn check(tensors: &BTreeMap<String, Tensor>, architecture: &Architecture, classes: usize) -> Result<(), Mismatch> {
    let specs = Blueprint::of(architecture).parameters(classes);
    let mismatch = compare(tensors, &specs, architecture.name);
    if mismatch.is_empty() { Ok(()) } else { Err(mismatch) }
}

fn compare(tensors: &BTreeMap<String, Tensor>, specs: &[ParameterSpec], architecture: &str) -> Mismatch {
    let needed: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let missing = specs.iter().filter(|spec| !tensors.contains_key(&spec.name));
    let missing = missing.map(|spec| (spec.name.clone(), spec.shape.clone()));
    let unexpected = tensors.iter().filter(|(name, _)| !needed.contains(name.as_str()));
    let unexpected = unexpected.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
    let misshapen = specs.iter().filter_map(|spec| {
        let found = tensors.get(&spec.name)?.dims();
        (found != spec.shape).then(|| (spec.name.clone(), found.to_vec(), spec.shape.clone()))
    });
    Mismatch {
        architecture: architecture.into(),
        missing: missing.collect(),
        unexpected: unexpected.collect(),
        misshapen: misshapen.collect(),
    }
}

/// Moves tensors into a `VarMap` on `device`, as f32.
///
/// # Errors
/// If the device has no room.
pub fn into_var_map(tensors: BTreeMap<String, Tensor>, device: &Device) -> candle_core::Result<VarMap> {
    let weights = VarMap::new();
    {
        let mut variables = lock(&weights)?;
        for (name, tensor) in tensors {
            let tensor = tensor.to_dtype(DType::F32)?.to_device(device)?;
            variables.insert(name, Var::from_tensor(&tensor)?);
        }
    }
    Ok(weights)
}

/// Every variable of `weights` as a detached tensor, by name.
///
/// # Errors
/// If another thread panicked while it held the map.
pub fn tensors(weights: &VarMap) -> candle_core::Result<BTreeMap<String, Tensor>> {
    Ok(lock(weights)?.iter().map(|(name, variable)| (name.clone(), variable.as_detached_tensor())).collect())
}

pub(crate) type Variables<'a> = std::sync::MutexGuard<'a, std::collections::HashMap<String, Var>>;

pub(crate) fn lock(weights: &VarMap) -> candle_core::Result<Variables<'_>> {
    weights.data().lock().map_err(|_| candle_core::Error::msg("a thread panicked while it held the weights"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initialise::fresh_weights;

    fn resnet20() -> (&'static Architecture, BTreeMap<String, Tensor>) {
        let architecture = Architecture::named("resnet20_cifar").unwrap();
        let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
        (architecture, tensors(&weights).unwrap())
    }

    #[test]
    fn exactly_the_networks_tensors_fit() {
        let (architecture, tensors) = resnet20();
        assert_eq!(classes(&tensors), Some(10));
        assert_eq!(check(&tensors, architecture, 10), Ok(()));
    }

    #[test]
    fn a_misfit_lists_names_and_shapes() {
        let (architecture, mut tensors) = resnet20();
        let kernel = tensors.remove("conv1.weight").unwrap();
        tensors.insert("conv0.weight".into(), kernel);
        let message = check(&tensors, architecture, 12).unwrap_err().to_string();
        assert!(message.contains("1 missing:\n  conv1.weight [16, 3, 3, 3]"), "{message}");
        assert!(message.contains("1 unexpected:\n  conv0.weight [16, 3, 3, 3]"), "{message}");
        assert!(message.contains("fc.weight: found [10, 64], expected [12, 64]"), "{message}");
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let (architecture, _) = resnet20();
        let message = check(&BTreeMap::new(), architecture, 10).unwrap_err().to_string();
        assert!(message.contains("97 missing:") && message.contains("and 92 more"), "{message}");
    }
}
