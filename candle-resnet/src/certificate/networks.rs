//! Logits and features of both forms of a network beside those that another program computed.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder, VarMap};
use serde::Deserialize;

use super::formula;
use crate::FeatureExtractor;
use crate::architecture::{Architecture, GlobalPool};
use crate::blueprint::Blueprint;
use crate::error::Result;
use crate::network::Network;
use crate::trunk::Trunk;
use crate::weights;

/// What ships with the program: every network once, torchvision's ten twice, by timm and by torchvision.
const BUILT_IN: [&str; 4] = [
    include_str!(concat!(env!("MODELS"), "/references/timm.jsonl")),
    include_str!(concat!(env!("MODELS"), "/references/timm_others.jsonl")),
    include_str!(concat!(env!("MODELS"), "/references/torchvision.jsonl")),
    include_str!(concat!(env!("MODELS"), "/references/cifar.jsonl")),
];

/// What another program made of a network with weights and input by formula: the first values of each row, and its norm.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct NetworkReference {
    /// Who built the network: `timm`, `torchvision`, or `paper` for one written after the paper.
    pub source: String,
    /// The architecture's name.
    pub model: String,
    /// (N, C, H, W) of the input.
    pub input: [usize; 4],
    /// Parameters, without running statistics.
    pub parameters: usize,
    /// Tensors of the weights.
    pub tensors: usize,
    /// Outputs of the classifier.
    pub classes: usize,
    /// D: pooled features.
    pub feature_dim: usize,
    /// Pixels of the image for each pixel of the last map; the architecture's own if left out.
    pub output_stride: Option<usize>,
    /// The global pool, as timm calls it; the architecture's own if left out.
    pub global_pool: Option<String>,
    /// Channels of the weights before their first convolution was adapted to the input's, where it was.
    weights_channels: Option<usize>,
    logits_head: Vec<Vec<f32>>,
    logits_l2: Vec<f64>,
    argmax: Vec<u32>,
    features_head: Vec<Vec<f32>>,
    features_l2: Vec<f64>,
}

impl NetworkReference {
    /// Reads references, one JSON object a line.
    ///
    /// # Errors
    /// If a line is none.
    pub fn parse(lines: &str) -> serde_json::Result<Vec<NetworkReference>> {
        lines.lines().map(serde_json::from_str).collect()
    }

    /// Every reference that ships with the program.
    pub fn built_in() -> Vec<NetworkReference> {
        // The files are built into the program, and a test parses them.
        BUILT_IN.into_iter().flat_map(|lines| NetworkReference::parse(lines).unwrap_or_default()).collect()
    }

    /// The references of one network that ship with the program.
    pub fn of(architecture: &Architecture) -> Vec<NetworkReference> {
        let references = NetworkReference::built_in().into_iter();
        references.filter(|reference| reference.architecture() == Some(*architecture)).collect()
    }

    /// How far both forms of `architecture` are from each of its references; empty where none is stored.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn compare_all(
        architecture: &Architecture,
        device: &Device,
    ) -> Result<Vec<(NetworkReference, NetworkDifference)>> {
        let mut computed = HashMap::new();
        let mut compared = Vec::new();
        for reference in NetworkReference::of(architecture) {
            let outputs = match computed.entry((reference.classes, reference.input)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(NetworkOutputs::compute(&reference, architecture, device)?),
            };
            let difference = reference.compare(outputs)?;
            compared.push((reference, difference));
        }
        Ok(compared)
    }

    /// The network; `None` if no network has the name, or no pool is called so.
    pub fn architecture(&self) -> Option<Architecture> {
        let named = *Architecture::named(&self.model)?;
        Some(Architecture {
            output_stride: self.output_stride.unwrap_or(named.output_stride),
            global_pool: self.global_pool.as_deref().map_or(Some(named.global_pool), GlobalPool::named)?,
            in_channels: self.input[1],
            ..named
        })
    }

    /// The formula's weights, adapted to the input's channels where they are made for others.
    fn weights(&self, architecture: &Architecture, device: &Device) -> candle_core::Result<VarMap> {
        let Some(in_channels) = self.weights_channels else {
            return formula_weights(architecture, self.classes, device);
        };
        let weights = formula_weights(&Architecture { in_channels, ..*architecture }, self.classes, device)?;
        weights::with_input_channels(&weights, &Blueprint::of(architecture))
    }

    /// The programs and versions that computed it.
    pub fn program(&self) -> &'static str {
        program(&self.source)
    }

    /// How far `outputs`, of the same input, are from the reference.
    ///
    /// # Errors
    /// If they have another shape.
    pub fn compare(&self, outputs: &NetworkOutputs) -> Result<NetworkDifference> {
        Ok(NetworkDifference {
            trainable: self.compare_form(&outputs.trainable)?,
            frozen: self.compare_form(&outputs.frozen)?,
        })
    }

    fn compare_form(&self, form: &Form) -> Result<Difference> {
        Ok(Difference {
            logits: difference(&form.logits, &self.logits_head, &self.logits_l2)?,
            features: difference(&form.features, &self.features_head, &self.features_l2)?,
            same_classes: form.logits.argmax(1)?.to_vec1::<u32>()? == self.argmax,
        })
    }
}

/// The programs behind a reference's `source`; `scripts/golden/README.md` says how they were run.
pub(super) fn program(source: &str) -> &'static str {
    match source {
        "timm" => "timm 1.0.31, PyTorch 2.15",
        "torchvision" => "torchvision 0.29.2, PyTorch 2.15",
        _ => "the paper's network, PyTorch 2.15",
    }
}

/// How far both forms of a network are from a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetworkDifference {
    /// Of the network that can be trained.
    pub trainable: Difference,
    /// Of the frozen trunk, and the classifier after it.
    pub frozen: Difference,
}

/// How far outputs are from a reference: the largest difference of the values given and of the norms, as a fraction of
/// the row's largest value and of the norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Of the logits.
    pub logits: f64,
    /// Of the pooled features.
    pub features: f64,
    /// Whether each image's largest logit is the reference's.
    pub same_classes: bool,
}

impl Difference {
    /// Whether nothing differs by more than `tolerance`. Not a number passes nowhere.
    pub fn passes(&self, tolerance: f64) -> bool {
        self.same_classes && self.logits <= tolerance && self.features <= tolerance
    }
}

/// What both forms of a network make of weights and input by formula.
#[derive(Debug)]
pub struct NetworkOutputs {
    trainable: Form,
    frozen: Form,
}

#[derive(Debug)]
struct Form {
    /// (N, D).
    features: Tensor,
    /// (N, classes).
    logits: Tensor,
}

impl NetworkOutputs {
    /// Builds the network of `reference` on `device` and computes what it did. For the largest networks that takes gigabytes.
    ///
    /// # Errors
    /// If the device has no room, or the network does not take images of that size.
    pub fn compute(
        reference: &NetworkReference,
        architecture: &Architecture,
        device: &Device,
    ) -> Result<NetworkOutputs> {
        let &NetworkReference { classes, ref input, .. } = reference;
        let weights = reference.weights(architecture, device)?;
        let images = Tensor::from_vec(formula::image_batch("input", input), input, device)?;
        Ok(NetworkOutputs {
            trainable: trainable(architecture, classes, &weights, &images)?,
            frozen: frozen(architecture, &weights, &images)?,
        })
    }
}

fn formula_weights(architecture: &Architecture, classes: usize, device: &Device) -> candle_core::Result<VarMap> {
    let specs = Blueprint::of(architecture).parameters(classes);
    let tensor = |name: &str, shape: &[usize]| Tensor::from_vec(formula::tensor(name, shape), shape, &Device::Cpu);
    let tensors: candle_core::Result<BTreeMap<String, Tensor>> =
        specs.iter().map(|spec| Ok((spec.name.clone(), tensor(&spec.name, &spec.shape)?))).collect();
    weights::into_var_map(tensors?, device)
}

fn trainable(architecture: &Architecture, classes: usize, weights: &VarMap, images: &Tensor) -> Result<Form> {
    let variables = VarBuilder::from_varmap(weights, DType::F32, images.device());
    let network = Network::new(architecture, classes, variables)?;
    // Forgets the graph, which would hold every map: these networks are large.
    Ok(Form { logits: network.forward(images)?.detach(), features: network.features(images)?.detach() })
}

fn frozen(architecture: &Architecture, weights: &VarMap, images: &Tensor) -> Result<Form> {
    let features = Trunk::compile(architecture, weights, images.device())?.features(images)?;
    let logits = classifier(weights)?.forward(&features)?;
    Ok(Form { features, logits })
}

fn classifier(weights: &VarMap) -> candle_core::Result<Linear> {
    let mut tensors = weights::tensors(weights)?;
    let mut take = |name: &str| {
        let missing = || candle_core::Error::msg(format!("the weights hold no tensor `{name}`"));
        tensors.remove(name).ok_or_else(missing)
    };
    Ok(Linear::new(take("fc.weight")?, Some(take("fc.bias")?)))
}

/// (N, D) beside the first values of each row and the rows' norms.
fn difference(ours: &Tensor, heads: &[Vec<f32>], norms: &[f64]) -> candle_core::Result<f64> {
    let ours: Vec<Vec<f32>> = ours.to_vec2()?;
    if ours.len() != heads.len() {
        return Err(candle_core::Error::msg(format!("{} rows, the reference has {}", ours.len(), heads.len())));
    }
    let rows = ours.iter().zip(heads).zip(norms).map(|((ours, head), &norm)| row_difference(ours, head, norm));
    Ok(rows.fold(0.0, larger))
}

fn row_difference(ours: &[f32], head: &[f32], norm: f64) -> f64 {
    let scale = head.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let values = ours.iter().zip(head).map(|(a, b)| f64::from((a - b).abs() / scale));
    let our_norm = ours.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    larger(values.fold(0.0, larger), (our_norm - norm).abs() / norm)
}

/// The larger of two; not a number if one is not.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::ARCHITECTURES;

    fn reference() -> NetworkReference {
        NetworkReference::of(Architecture::named("test_resnet").unwrap()).remove(0)
    }

    fn outputs(reference: &NetworkReference) -> NetworkOutputs {
        let architecture = reference.architecture().unwrap();
        NetworkOutputs::compute(reference, &architecture, &Device::Cpu).unwrap()
    }

    #[test]
    fn every_architecture_has_a_reference() {
        let lines: usize = BUILT_IN.iter().map(|lines| lines.lines().count()).sum();
        assert_eq!(NetworkReference::built_in().len(), lines);
        for architecture in ARCHITECTURES {
            assert!(!NetworkReference::of(architecture).is_empty(), "{}", architecture.name);
        }
    }

    #[test]
    fn a_variant_is_another_network() {
        let named = *Architecture::named("test_resnet").unwrap();
        assert!(NetworkReference::of(&Architecture { output_stride: 8, ..named }).is_empty());
        assert!(NetworkReference::of(&Architecture { global_pool: GlobalPool::Max, ..named }).is_empty());
    }

    #[test]
    fn equal_outputs_pass() {
        let reference = reference();
        let difference = reference.compare(&outputs(&reference)).unwrap();
        assert!(difference.trainable.passes(1e-5) && difference.frozen.passes(1e-5), "{difference:?}");
    }

    #[test]
    fn other_outputs_fail() {
        let reference = reference();
        let ours = outputs(&reference);
        let fails = |reference: &NetworkReference| {
            let difference = reference.compare(&ours).unwrap();
            assert!(!difference.trainable.passes(1e-4) && !difference.frozen.passes(1e-4), "{difference:?}");
        };
        let changed = |change: fn(&mut NetworkReference)| {
            let mut reference = reference.clone();
            change(&mut reference);
            reference
        };
        fails(&changed(|reference| reference.logits_head[1][3] += 0.01));
        fails(&changed(|reference| reference.features_head[0][0] += 0.01));
        fails(&changed(|reference| reference.features_l2[1] *= 1.001));
        fails(&changed(|reference| reference.argmax[0] += 1));
        fails(&changed(|reference| reference.logits_head[0][0] = f32::NAN));
    }

    #[test]
    fn a_reference_of_other_images_is_an_error() {
        let reference = reference();
        let one = NetworkReference { input: [1, 3, 64, 64], ..reference.clone() };
        assert!(reference.compare(&outputs(&one)).unwrap_err().to_string().contains("1 rows, the reference has 2"));
    }
}
