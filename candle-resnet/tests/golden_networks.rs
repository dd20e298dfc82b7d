//! Both forms of every network against PyTorch's logits and features.
//!
//! Weights and inputs come from a formula, so no weight file is stored; `scripts/golden/` says how the rows were made.

#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_resnet::architecture::{ARCHITECTURES, Architecture, GlobalPool};
use candle_resnet::blueprint::Blueprint;
use candle_resnet::network::Network;
use candle_resnet::trunk::Trunk;
use candle_resnet::{FeatureExtractor, weights};
use serde::Deserialize;

/// Of the largest magnitude in the row.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Row {
    source: String,
    model: String,
    input: Vec<usize>,
    parameters: usize,
    tensors: usize,
    classes: usize,
    feature_dim: usize,
    logits_head: Vec<Vec<f32>>,
    logits_l2: Vec<f64>,
    argmax: Vec<u32>,
    features_head: Vec<Vec<f32>>,
    features_l2: Vec<f64>,
    output_stride: Option<usize>,
    global_pool: Option<String>,
    /// Channels of the weights before their first convolution was adapted to the input's.
    weights_channels: Option<usize>,
}

impl Row {
    fn architecture(&self) -> Architecture {
        let named = *Architecture::named(&self.model).unwrap();
        Architecture {
            in_channels: self.input[1],
            output_stride: self.output_stride.unwrap_or(named.output_stride),
            global_pool: self.global_pool.as_deref().map_or(named.global_pool, |name| GlobalPool::named(name).unwrap()),
            ..named
        }
    }

    /// The formula's weights, adapted to the input's channels where they are made for others.
    fn weights(&self) -> VarMap {
        let architecture = self.architecture();
        let in_channels = self.weights_channels.unwrap_or(architecture.in_channels);
        let weights = formula_weights(&Architecture { in_channels, ..architecture }, self.classes);
        weights::with_input_channels(&weights, &Blueprint::of(&architecture)).unwrap()
    }

    /// Too much memory and time for a test that always runs.
    fn is_large(&self) -> bool {
        self.parameters > 30_000_000
    }
}

fn rows(file: &str) -> Vec<Row> {
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn formula_weights(architecture: &Architecture, classes: usize) -> VarMap {
    let parameters = Blueprint::of(architecture).parameters(classes);
    let tensors: BTreeMap<String, Tensor> = parameters
        .iter()
        .map(|spec| {
            let values = formula::tensor(&spec.name, &spec.shape);
            (spec.name.clone(), Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu).unwrap())
        })
        .collect();
    weights::check(&tensors, architecture, classes).unwrap();
    weights::into_var_map(tensors, &Device::Cpu).unwrap()
}

/// The largest difference from the reference, as a fraction of the largest value given; checks it and the norms.
fn difference(what: &str, ours: &Tensor, heads: &[Vec<f32>], norms: &[f64]) -> f64 {
    let ours: Vec<Vec<f32>> = ours.to_vec2().unwrap();
    assert_eq!(ours.len(), heads.len(), "{what}");
    let rows = ours.iter().zip(heads).zip(norms).map(|((ours, head), &norm)| {
        let scale = head.iter().fold(0f32, |largest, value| largest.max(value.abs())) as f64;
        let difference = ours.iter().zip(head).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max) / scale;
        let our_norm = ours.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let difference = difference.max((our_norm - norm).abs() / norm);
        assert!(difference <= TOLERANCE, "{what}: {difference:.2e}"); // also where it is not a number
        difference
    });
    rows.fold(0.0, f64::max)
}

/// The network and the input as the first columns of a table.
fn describe(row: &Row, architecture: &Architecture) -> String {
    let blueprint = Blueprint::of(architecture);
    let classifier = (blueprint.feature_width * row.classes) as u64;
    let multiply_adds = classifier + blueprint.costs(224).iter().map(|cost| cost.multiply_adds).sum::<u64>();
    let options = match (row.output_stride, &row.global_pool) {
        (None, None) => String::new(),
        (stride, pool) => format!(", stride {}, {}", stride.unwrap_or(32), pool.as_deref().unwrap_or("avg")),
    };
    format!(
        "| {} | {}{options} | {:.2} | {:.2} | {} | {}×{}",
        row.source,
        row.model,
        row.parameters as f64 / 1e6,
        multiply_adds as f64 / 1e9,
        row.feature_dim,
        row.input[2],
        row.input[3]
    )
}

/// (N, D) → (N, classes), with the classifier among `weights`.
fn classify(weights: &VarMap, features: &Tensor) -> Tensor {
    let tensors = weights::tensors(weights).unwrap();
    let products = features.matmul(&tensors["fc.weight"].t().unwrap()).unwrap();
    products.broadcast_add(&tensors["fc.bias"]).unwrap()
}

fn check_row(row: &Row) {
    let architecture = &row.architecture();
    let specs = Blueprint::of(architecture).parameters(row.classes);
    let parameters: usize = specs.iter().filter(|spec| spec.role.is_parameter()).map(|spec| spec.elements()).sum();
    assert_eq!((parameters, specs.len()), (row.parameters, row.tensors), "{}", row.model);
    assert_eq!(architecture.feature_width(), row.feature_dim, "{}", row.model);

    let map = row.weights();
    let images = formula::image_batch("input", &row.input);
    let images = Tensor::from_vec(images, row.input.as_slice(), &Device::Cpu).unwrap();
    let what = |form: &str, of: &str| format!("{} {:?}: {of} of the {form}", row.model, row.input);

    let variables = VarBuilder::from_varmap(&map, candle_core::DType::F32, &Device::Cpu);
    let network = Network::new(architecture, row.classes, variables).unwrap();
    // Forgets the graph, which would hold every map: these networks are large.
    let logits = network.forward(&images).unwrap().detach();
    let of_logits = difference(&what("network", "logits"), &logits, &row.logits_head, &row.logits_l2);
    assert_eq!(logits.argmax(1).unwrap().to_vec1::<u32>().unwrap(), row.argmax, "{}", row.model);
    let features = network.features(&images).unwrap().detach();
    let of_features = difference(&what("network", "features"), &features, &row.features_head, &row.features_l2);
    drop(network);

    let trunk = Trunk::compile(architecture, &map, &Device::Cpu).unwrap();
    let features = trunk.features(&images).unwrap();
    let of_trunk = difference(&what("trunk", "features"), &features, &row.features_head, &row.features_l2);
    let logits = classify(&map, &features);
    let of_frozen = difference(&what("trunk", "logits"), &logits, &row.logits_head, &row.logits_l2);
    let differences = [of_logits, of_features, of_frozen, of_trunk].map(|value| format!("{value:.1e}"));
    println!("{} | {} |", describe(row, architecture), differences.join(" | ")); // scripts/golden/make_table.sh
}

#[test]
fn torchvisions_networks_compute_what_pytorch_computes() {
    rows(include_str!("golden/torchvision.jsonl")).iter().for_each(check_row);
}

#[test]
fn odd_sizes_and_batches_compute_what_pytorch_computes() {
    rows(include_str!("golden/torchvision_odd_sizes.jsonl")).iter().for_each(check_row);
}

#[test]
fn cifar_networks_compute_what_pytorch_computes() {
    rows(include_str!("golden/cifar.jsonl")).iter().for_each(check_row);
}

const TIMM: [&str; 2] = [include_str!("golden/timm.jsonl"), include_str!("golden/timm_others.jsonl")];

fn timm() -> impl Iterator<Item = Row> {
    TIMM.into_iter().flat_map(rows)
}

#[test]
fn timms_networks_compute_what_timm_computes() {
    timm().filter(|row| !row.is_large()).for_each(|row| check_row(&row));
}

/// Needs some gigabytes of memory and minutes.
#[test]
#[ignore = "large networks: run by scripts/check_real_data.sh"]
fn timms_large_networks_compute_what_timm_computes() {
    timm().filter(Row::is_large).for_each(|row| check_row(&row));
}

#[test]
fn odd_sizes_dilation_and_pools_compute_what_timm_computes() {
    rows(include_str!("golden/timm_variants.jsonl")).iter().for_each(check_row);
}

#[test]
fn adapted_first_convolutions_compute_what_timm_computes() {
    rows(include_str!("golden/timm_channels.jsonl")).iter().for_each(check_row);
}

#[test]
fn every_architecture_has_a_reference() {
    let mut shown: Vec<String> = timm().map(|row| row.model).collect();
    assert_eq!(shown.len(), 81);
    shown.extend(rows(include_str!("golden/cifar.jsonl")).into_iter().map(|row| row.model));
    shown.extend(rows(include_str!("golden/torchvision.jsonl")).into_iter().map(|row| row.model));
    for architecture in ARCHITECTURES {
        assert!(shown.iter().any(|name| name == architecture.name), "{} has none", architecture.name);
    }
}
