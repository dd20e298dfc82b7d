//! Tensors by foreign or own names → a `VarMap` that holds exactly what the network needs.
//!
//! Reads no file. Foreign names are mapped before, by [`layout`](crate::layout).

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Storage, Tensor, Var};
use candle_nn::VarMap;

use crate::architecture::Architecture;
use crate::blueprint::{Blueprint, ParameterSpec};
use crate::layout::{Placed, Placement};

/// How tensors differ from what an architecture needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tensors do not fit `{architecture}`{}", self.details())]
pub struct Mismatch {
    /// What was asked for.
    pub architecture: String,
    /// Where in the file the network was looked for, if it came from one; the names below are then the file's.
    pub placement: Option<Box<Placement>>,
    /// Name and shape of what is needed and not there.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Name and shape of what is there and not needed.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// Name, shape found, shape needed.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

/// Tensors listed of each kind before the rest is counted.
const LISTED: usize = 5;

/// Below this similarity (Jaro–Winkler, 0 to 1) a missing name is no help to who looks for an unexpected one.
const SIMILAR: f64 = 0.8;

impl Mismatch {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// The way out.
    pub fn hint(&self) -> &'static str {
        if self.missing.is_empty() && self.misshapen.is_empty() {
            "another network may be meant; if features do not depend on what is unexpected, save the file without it"
        } else {
            "check that the network named is the one that the weights were trained for"
        }
    }

    /// The same with the names that the file uses.
    fn in_file(self, placement: &Placement) -> Mismatch {
        let name = |name: String| placement.in_file(&name);
        Mismatch {
            missing: self.missing.into_iter().map(|(own, shape)| (name(own), shape)).collect(),
            unexpected: self.unexpected.into_iter().map(|(own, shape)| (name(own), shape)).collect(),
            misshapen: self.misshapen.into_iter().map(|(own, found, needed)| (name(own), found, needed)).collect(),
            placement: Some(Box::new(placement.clone())),
            ..self
        }
    }

    fn details(&self) -> String {
        let place = self.placement.as_ref().map(|placement| format!("\n{placement}")).unwrap_or_default();
        let missing = listing("missing", &self.missing, |(name, shape)| format!("{name} {shape:?}"));
        let unexpected = listing("unexpected", &self.unexpected, |(name, shape)| self.stranger(name, shape));
        let misshapen = listing("of another shape", &self.misshapen, |(name, found, needed)| {
            format!("{name}: found {found:?}, expected {needed:?}")
        });
        place + &missing + &unexpected + &misshapen
    }

    /// An unexpected tensor, beside the missing one whose name is most like its own.
    fn stranger(&self, name: &str, shape: &[usize]) -> String {
        let similar = |(missing, _): &(String, Vec<usize>)| (strsim::jaro_winkler(name, missing), missing.clone());
        let nearest = self.missing.iter().map(similar).max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest.filter(|(similarity, _)| *similarity > SIMILAR) {
            Some((_, missing)) => format!("{name} {shape:?}, most like {missing}"),
            None => format!("{name} {shape:?}"),
        }
    }
}

/// The number of tensors of one kind and a line for each, as far as they are shown; nothing where there are none.
fn listing<T>(kind: &str, tensors: &[T], line: impl Fn(&T) -> String) -> String {
    let shown: String = tensors.iter().take(LISTED).map(|tensor| format!("\n  {}", line(tensor))).collect();
    match tensors.len() {
        0 => String::new(),
        count @ 1..=LISTED => format!("\n{count} {kind}:{shown}"),
        count => format!("\n{count} {kind}:{shown}\n  and {} more", count - LISTED),
    }
}

/// Classes that tensors of the network were trained for: the rows of `fc.weight`, 0 without one; `None` if it has no
/// rows.
pub fn classes(tensors: &BTreeMap<String, Tensor>) -> Option<usize> {
    match tensors.get("fc.weight") {
        Some(weight) => weight.dims2().ok().map(|(classes, _)| classes),
        None => Some(0),
    }
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

/// Checks what a file holds of a network, as [`check`] does; what the layout has no name for is unexpected.
///
/// # Errors
/// [`Mismatch`] in the file's own names.
pub fn check_placed(
    placed: &Placed<Tensor>,
    placement: &Placement,
    architecture: &Architecture,
    classes: usize,
) -> Result<(), Mismatch> {
    let specs = Blueprint::of(architecture).parameters(classes);
    let mut mismatch = compare(&placed.tensors, &specs, architecture.name).in_file(placement);
    let strangers = placed.strangers.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
    mismatch.unexpected.extend(strangers);
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
        placement: None,
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

/// Name of a tensor that holds NaN or infinity, the first of them; `weights` are on the CPU.
///
/// # Errors
/// If a tensor is not of f32 or not on the CPU.
pub fn first_not_finite(weights: &VarMap) -> candle_core::Result<Option<String>> {
    let mut names = Vec::new();
    for (name, variable) in lock(weights)?.iter() {
        if !is_finite(variable)? {
            names.push(name.clone());
        }
    }
    Ok(names.into_iter().min())
}

fn is_finite(tensor: &Tensor) -> candle_core::Result<bool> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("weights are looked at on the CPU") };
    let values = storage.as_slice::<f32>()?;
    let (start, end) = layout.contiguous_offsets().unwrap_or((0, values.len()));
    // Without an early end, which would keep the loop from being vectorised.
    Ok(values[start..end].iter().fold(true, |finite, value| finite & value.is_finite()))
}

/// Channels of the images that tensors of the network were trained on.
pub fn input_channels(tensors: &BTreeMap<String, Tensor>, blueprint: &Blueprint) -> Option<usize> {
    let (name, _) = first_kernel(blueprint)?;
    tensors.get(&name).and_then(|kernel| kernel.dims4().ok()).map(|(_, channels, _, _)| channels)
}

/// The weights of a network for the images that `blueprint` takes: all but the first convolution are shared with
/// `weights`.
///
/// For one channel the convolution sums over its channels, so that a grey photo does what it does in three; for any
/// other number its channels are repeated, and scaled so that their sum keeps its size. As
/// `timm.models.adapt_input_conv` does it.
///
/// # Errors
/// If `weights` lacks the first convolution, or `blueprint` takes no channels.
pub fn with_input_channels(weights: &VarMap, blueprint: &Blueprint) -> candle_core::Result<VarMap> {
    let mut variables = lock(weights)?.clone();
    let adapted = first_kernel(blueprint).and_then(|(name, channels)| Some((variables.get_mut(&name)?, channels)));
    let Some((kernel, channels)) = adapted else { candle_core::bail!("the weights hold no first convolution") };
    *kernel = Var::from_tensor(&adapt_kernel(&kernel.as_detached_tensor(), channels)?)?;
    let adapted = VarMap::new();
    *lock(&adapted)? = variables;
    Ok(adapted)
}

/// Name of the first convolution's weight, and the channels that it takes.
fn first_kernel(blueprint: &Blueprint) -> Option<(String, usize)> {
    blueprint.stem.convs.first().map(|first| (format!("{}.weight", first.conv), first.in_channels))
}

/// (C', C, K, K) → (C', `channels`, K, K)
fn adapt_kernel(kernel: &Tensor, channels: usize) -> candle_core::Result<Tensor> {
    let (_, source, _, _) = kernel.dims4()?;
    match channels {
        0 => candle_core::bail!("a network takes at least one channel"),
        same if same == source => Ok(kernel.clone()),
        1 => kernel.sum_keepdim(1),
        _ => {
            let repeated = kernel.repeat((1, channels.div_ceil(source), 1, 1))?.narrow(1, 0, channels)?;
            repeated.contiguous()? * (source as f64 / channels as f64)
        }
    }
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

    /// Tensors of resnet20_cifar under the names that `rename` makes of torchvision's, checked as a file's are.
    fn check_renamed(rename: impl Fn(&str) -> String) -> Result<(), Mismatch> {
        let (architecture, tensors) = resnet20();
        let file: BTreeMap<String, Tensor> =
            tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        let placement = Placement::find(file.keys().map(String::as_str), &Blueprint::of(architecture)).unwrap();
        check_placed(&placement.apply(file), &placement, architecture, 10)
    }

    #[test]
    fn a_misfit_says_what_stood_out_in_the_files_own_names() {
        assert_eq!(check_renamed(|name| format!("model.{name}").replace("fc.", "linear.")), Ok(()));
        let error = check_renamed(|name| format!("model.{name}").replace("1.bn1", "1.norm1").replace("fc.", "linear."));
        let lines: Vec<String> = error.unwrap_err().to_string().lines().map(String::from).collect();
        assert_eq!(lines[1], "nearest are the CIFAR repositories' names behind `model.`: 85 of 97 found");
        assert_eq!(lines[2], "12 missing:");
        assert_eq!(lines[9], "12 unexpected:");
        assert_eq!(lines[10], "  model.layer1.1.norm1.bias [16], most like model.layer1.1.bn1.bias");
    }

    #[test]
    fn another_kind_of_network_is_like_no_layout() {
        let error = check_renamed(|name| format!("transformer{}", name.replace('.', "_"))).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("\nno known layout has any of its names\n97 missing:"), "{message}");
        assert!(message.contains("97 unexpected:\n  transformerbn1_bias [16]\n"), "{message}");
    }

    #[test]
    fn kernels_are_summed_for_one_channel_and_repeated_for_others() {
        let kernel = Tensor::new(&[1f32, 2., 3.], &Device::Cpu).unwrap().reshape((1, 3, 1, 1)).unwrap();
        let adapted = |channels| -> Vec<f32> {
            adapt_kernel(&kernel, channels).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        assert_eq!(adapted(1), [6.0]);
        assert_eq!(adapted(3), [1.0, 2.0, 3.0]);
        assert_eq!(adapted(4), [0.75, 1.5, 2.25, 0.75]);
        assert_eq!(adapted(2), [1.5, 3.0]);
        assert!(adapt_kernel(&kernel, 0).is_err());
    }

    #[test]
    fn only_the_first_convolution_is_adapted() {
        let (architecture, tensors_before) = resnet20();
        let weights = into_var_map(tensors_before.clone(), &Device::Cpu).unwrap();
        let grey = Architecture { in_channels: 1, ..*architecture };
        let adapted = tensors(&with_input_channels(&weights, &Blueprint::of(&grey)).unwrap()).unwrap();
        assert_eq!(input_channels(&adapted, &Blueprint::of(&grey)), Some(1));
        assert_eq!(check(&adapted, &grey, 10), Ok(()));
        assert_eq!(check(&tensors(&weights).unwrap(), architecture, 10), Ok(()), "the original stays");
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (name, before) in tensors_before.iter().filter(|(name, _)| *name != "conv1.weight") {
            assert_eq!(values(before), values(&adapted[name]), "{name}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_found() {
        for value in [f32::NAN, f32::INFINITY] {
            let (_, mut tensors) = resnet20();
            let found = |tensors: &BTreeMap<String, Tensor>| {
                first_not_finite(&into_var_map(tensors.clone(), &Device::Cpu).unwrap()).unwrap()
            };
            assert_eq!(found(&tensors), None);
            for name in ["layer2.0.bn1.running_var", "layer1.0.bn1.running_var"] {
                let broken = Tensor::full(value, tensors[name].dims(), &Device::Cpu).unwrap();
                tensors.insert(name.into(), broken);
                assert_eq!(found(&tensors).as_deref(), Some(name));
            }
        }
    }

    #[test]
    fn tensors_without_a_classifier_have_no_classes() {
        let (_, mut tensors) = resnet20();
        tensors.retain(|name, _| !name.starts_with("fc."));
        assert_eq!(classes(&tensors), Some(0));
        tensors.insert("fc.weight".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
        assert_eq!(classes(&tensors), None);
    }
}
