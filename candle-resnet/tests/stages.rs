//! Both forms of networks, left behind their stem and behind each stage, against timm; and the rates of stochastic
//! depth.
//!
//! Weights and inputs come from a formula; `scripts/golden/golden_stages.py` made the reference.

mod device;

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_resnet::architecture::Architecture;
use candle_resnet::blueprint::Blueprint;
use candle_resnet::certificate::formula;
use candle_resnet::drop_path::StochasticDepth;
use candle_resnet::features::{Boundary, MapPool, StageExtractor};
use candle_resnet::network::Network;
use candle_resnet::trunk::Trunk;
use candle_resnet::{FeatureExtractor, weights};
use serde::Deserialize;

use self::device::{device, tolerance};

/// Of the largest magnitude in the row, on the CPU.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Row {
    model: String,
    input: Vec<usize>,
    output_stride: Option<usize>,
    in_chans: Option<usize>,
    stages: BTreeMap<String, Map>,
    drop_path_rate: f64,
    drop_path: Vec<f64>,
}

#[derive(Deserialize)]
struct Map {
    shape: Vec<usize>,
    /// Means over the pixels of the first channels, for each image.
    means_head: Vec<Vec<f32>>,
    l2: Vec<f64>,
}

/// Features of maps are those of their images: to the bit on a CPU, and elsewhere nearly.
fn assert_same_features(found: &Tensor, expected: &Tensor, what: &str) {
    let [found, expected] = [found, expected].map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let bound = if device().is_cpu() { 0.0 } else { tolerance(TOLERANCE) * f64::from(largest) };
    let difference = found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    assert!(found.len() == expected.len() && difference <= bound, "{what}: {difference:.2e} of {largest:.2e}");
}

fn rows() -> Vec<Row> {
    include_str!("golden/timm_stages.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Row {
    fn architecture(&self) -> Architecture {
        let named = *Architecture::named(&self.model).unwrap();
        Architecture {
            output_stride: self.output_stride.unwrap_or(named.output_stride),
            in_channels: self.in_chans.unwrap_or(named.in_channels),
            ..named
        }
    }

    fn images(&self) -> Tensor {
        let values = formula::image_batch("input", &self.input);
        Tensor::from_vec(values, self.input.as_slice(), device()).unwrap()
    }
}

fn formula_weights(architecture: &Architecture) -> VarMap {
    let tensors = Blueprint::of(architecture).parameters(10).into_iter().map(|spec| {
        let values = formula::tensor(&spec.name, &spec.shape);
        (spec.name, Tensor::from_vec(values, spec.shape, device()).unwrap())
    });
    weights::into_var_map(tensors.collect(), device()).unwrap()
}

impl Map {
    fn check(&self, what: &str, ours: &Tensor) {
        assert_eq!(ours.dims(), self.shape, "{what}");
        let tolerance = tolerance(TOLERANCE);
        let means: Vec<Vec<f32>> = ours.mean((2, 3)).unwrap().to_vec2().unwrap();
        let pixels: Vec<Vec<f32>> = ours.flatten_from(1).unwrap().to_vec2().unwrap();
        for (image, norm) in self.l2.iter().enumerate() {
            let head = &self.means_head[image];
            let scale = head.iter().fold(0.0, |largest: f64, &value| largest.max(value.abs().into()));
            let difference = means[image].iter().zip(head).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
            assert!(difference <= tolerance * scale, "{what}: {difference:.2e} of {scale:.2e}");
            let ours = pixels[image].iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            assert!((ours - norm).abs() <= tolerance * norm, "{what}: norm {ours}, not {norm}");
        }
    }
}

#[test]
fn maps_at_every_boundary_are_timms() {
    for row in rows() {
        let (architecture, images) = (row.architecture(), row.images());
        let weights = formula_weights(&architecture);
        let variables = VarBuilder::from_varmap(&weights, DType::F32, device());
        let network = Network::new(&architecture, 10, variables).unwrap();
        let trunk = Trunk::compile(&architecture, &weights, device()).unwrap();
        assert_eq!(row.stages.len(), 5, "{}", row.model);
        let features = trunk.features(&images).unwrap();
        for (name, map) in &row.stages {
            let boundary = Boundary::named(&architecture, name).unwrap();
            let what = |form: &str| format!("{form} of {} at {name}", row.model);
            map.check(&what("network"), &network.map_at(&images, boundary).unwrap().detach());
            let reached = trunk.map_at(&images, boundary).unwrap();
            map.check(&what("trunk"), &reached);
            let entered = trunk.features_of_maps(&reached, boundary).unwrap();
            assert_same_features(&entered, &features, &what("features through maps"));
        }
    }
}

#[test]
fn an_extractor_knows_the_shape_of_what_it_gives() {
    for row in rows().into_iter().filter(|row| row.input[2] == row.input[3]) {
        let (architecture, images) = (row.architecture(), row.images());
        let trunk = Trunk::compile(&architecture, &formula_weights(&architecture), device()).unwrap();
        for (name, map) in &row.stages {
            let boundary = Boundary::named(&architecture, name).unwrap();
            let extractor = |pool| StageExtractor::new(trunk.clone(), &architecture, boundary, pool, row.input[2]);
            let whole = extractor(MapPool::None);
            assert_eq!(whole.shape(), &map.shape[1..], "{} at {name}", row.model);
            let rows = whole.features(&images).unwrap();
            assert_eq!(rows.dims(), [map.shape[0], whole.feature_width()]);
            map.check(name, &rows.reshape(map.shape.as_slice()).unwrap());
            let pooled = extractor(MapPool::Average);
            assert_eq!(pooled.shape(), &map.shape[1..2]);
            assert_eq!(pooled.features(&images).unwrap().dims(), [map.shape[0], map.shape[1]]);
        }
    }
}

#[test]
fn a_boundary_of_a_deeper_network_is_an_error() {
    let [deep, shallow] = ["resnet18", "resnet20_cifar"].map(|name| Architecture::named(name).unwrap());
    let trunk = Trunk::compile(shallow, &formula_weights(shallow), device()).unwrap();
    let images = Tensor::zeros((1, 3, 32, 32), DType::F32, device()).unwrap();
    let error = trunk.map_at(&images, Boundary::last(deep)).unwrap_err().to_string();
    assert!(error.contains("the network has 3 stages and no `layer4`"), "{error}");
}

#[test]
fn branches_are_left_out_at_timms_rates() {
    for row in rows() {
        let depth = StochasticDepth::new(row.drop_path_rate, 0).unwrap();
        let blocks = row.architecture().depths.iter().sum();
        let rates: Vec<f64> = (0..blocks).map(|block| depth.rate_of(block, blocks)).collect();
        assert_eq!(rates.len(), row.drop_path.len(), "{}", row.model);
        let close = rates.iter().zip(&row.drop_path).all(|(ours, theirs)| (ours - theirs).abs() < 1e-12);
        assert!(close, "{}: {rates:?} is not {:?}", row.model, row.drop_path);
    }
}
