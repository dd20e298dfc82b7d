//! Both forms of every network against PyTorch's logits and features.
//!
//! Weights and inputs come from a formula, so no weight file is stored; `scripts/golden/` says how the rows were made.

#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_resnet::architecture::Architecture;
use candle_resnet::blueprint::Blueprint;
use candle_resnet::network::Network;
use candle_resnet::trunk::Trunk;
use candle_resnet::{FeatureExtractor, weights};
use serde::Deserialize;

/// Of the largest magnitude in the row.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Row {
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

fn check_values(what: &str, ours: &Tensor, heads: &[Vec<f32>], norms: &[f64]) {
    let ours: Vec<Vec<f32>> = ours.to_vec2().unwrap();
    assert_eq!(ours.len(), heads.len(), "{what}");
    for ((ours, head), &norm) in ours.iter().zip(heads).zip(norms) {
        let scale = head.iter().fold(0f32, |largest, value| largest.max(value.abs())) as f64;
        let difference = ours.iter().zip(head).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
        assert!(difference <= TOLERANCE * scale, "{what}: {difference:.3e} of {scale:.3}");
        let our_norm = ours.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        assert!((our_norm - norm).abs() <= TOLERANCE * norm, "{what}: norm {our_norm}, expected {norm}");
    }
}

fn check_row(row: &Row) {
    let architecture = Architecture::named(&row.model).unwrap();
    let specs = Blueprint::of(architecture).parameters(row.classes);
    let parameters: usize = specs.iter().filter(|spec| spec.role.is_parameter()).map(|spec| spec.elements()).sum();
    assert_eq!((parameters, specs.len()), (row.parameters, row.tensors), "{}", row.model);
    assert_eq!(architecture.feature_width(), row.feature_dim, "{}", row.model);

    let map = formula_weights(architecture, row.classes);
    let images = formula::image_batch("input", &row.input);
    let images = Tensor::from_vec(images, row.input.as_slice(), &Device::Cpu).unwrap();

    let variables = VarBuilder::from_varmap(&map, candle_core::DType::F32, &Device::Cpu);
    let network = Network::new(architecture, row.classes, variables).unwrap();
    let what = |form: &str, of: &str| format!("{} {:?}: {of} of the {form}", row.model, row.input);
    let logits = network.forward(&images).unwrap();
    check_values(&what("network", "logits"), &logits, &row.logits_head, &row.logits_l2);
    assert_eq!(logits.argmax(1).unwrap().to_vec1::<u32>().unwrap(), row.argmax, "{}", row.model);
    let features = network.features(&images).unwrap();
    check_values(&what("network", "features"), &features, &row.features_head, &row.features_l2);

    let trunk = Trunk::compile(architecture, &map, &Device::Cpu).unwrap();
    let features = trunk.features(&images).unwrap();
    check_values(&what("trunk", "features"), &features, &row.features_head, &row.features_l2);
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
