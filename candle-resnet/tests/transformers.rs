//! Folders that transformers wrote: config, preprocessing, names of tensors, and what the network computes.
//!
//! Weights come from a formula over transformers' names; `scripts/golden/golden_transformers.py` made the reference.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_resnet::certificate::formula;
use candle_resnet::network::Network;
use candle_resnet::preprocess::Interpolation;
use candle_resnet::{FeatureExtractor, Model};
use serde::Deserialize;
use serde_json::Value;

/// Of the largest magnitude in the row.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Row {
    model: String,
    input: Vec<usize>,
    config: Value,
    preprocessor: Value,
    /// Every tensor with its shape, counters included.
    names: BTreeMap<String, Vec<usize>>,
    logits: Vec<Vec<f32>>,
    features_head: Vec<Vec<f32>>,
    features_l2: Vec<f64>,
}

fn rows() -> Vec<Row> {
    include_str!("golden/transformers.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Row {
    /// Writes the folder as `save_pretrained` does.
    fn save(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(folder.join("preprocessor_config.json"), self.preprocessor.to_string()).unwrap();
        let tensor = |(name, shape): (&String, &Vec<usize>)| {
            let tensor = Tensor::from_vec(formula::tensor(name, shape), shape.as_slice(), &Device::Cpu).unwrap();
            (name.clone(), tensor)
        };
        let tensors: BTreeMap<String, Tensor> = self.names.iter().map(tensor).collect();
        safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors")).unwrap();
    }

    fn load(&self) -> Model {
        let folder = tempfile::tempdir().unwrap();
        self.save(folder.path());
        Model::named(folder.path().to_str().unwrap()).unwrap()
    }

    fn images(&self) -> Tensor {
        let values = formula::image_batch("input", &self.input);
        Tensor::from_vec(values, self.input.as_slice(), &Device::Cpu).unwrap()
    }
}

/// The largest difference as a fraction of the largest magnitude, over the columns that the reference gives.
#[track_caller]
fn check(ours: &Tensor, reference: &[Vec<f32>]) {
    let ours: Vec<Vec<f32>> = ours.to_vec2().unwrap();

    let heads: Vec<Vec<f32>> = ours.iter().zip(reference).map(|(ours, given)| ours[..given.len()].to_vec()).collect();
    let scale = reference.iter().flatten().fold(0.0, |largest: f64, value| largest.max(value.abs().into()));
    let differences = heads.iter().flatten().zip(reference.iter().flatten()).map(|(a, b)| f64::from(a - b).abs());
    let largest = differences.fold(0.0, f64::max) / scale.max(f64::MIN_POSITIVE);
    assert!(largest <= TOLERANCE, "{largest:.2e}");
}

#[test]
fn a_folder_of_transformers_computes_what_transformers_computes() {
    for row in rows() {
        let model = row.load();
        assert_eq!(model.architecture.name, row.model);
        assert_eq!(model.architecture.in_channels, row.input[1]);
        let images = row.images();
        let trunk = model.trunk(&Device::Cpu).unwrap();
        let features = trunk.features(&images).unwrap();
        check(&features, &row.features_head);
        for (ours, norm) in features.to_vec2::<f32>().unwrap().iter().zip(&row.features_l2) {
            let ours = ours.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            assert!((ours - norm).abs() <= TOLERANCE * norm, "{ours} is not {norm}");
        }
        if model.classes > 0 {
            check(&model.classifier(&Device::Cpu).unwrap().logits(&images).unwrap(), &row.logits);
            let variables = VarBuilder::from_varmap(&model.weights, DType::F32, &Device::Cpu);
            let network = Network::new(&model.architecture, model.classes, variables).unwrap();
            check(&network.forward(&images).unwrap().detach(), &row.logits);
        } else {
            assert!(row.config["architectures"][0] == "ResNetModel" && row.logits.concat().is_empty());
        }
    }
}

#[test]
fn labels_and_preprocessing_are_those_of_the_folder() {
    let model = rows()[0].load();
    assert_eq!(model.label_names, ["ant", "bee", "wasp"]);
    let preprocessing = &model.preprocessing;
    // int(224 / 0.9)
    assert_eq!((preprocessing.resize, preprocessing.crop), (248, 224));
    assert_eq!((preprocessing.mean, preprocessing.interpolation), ([0.5; 3], Interpolation::Bicubic));
}
