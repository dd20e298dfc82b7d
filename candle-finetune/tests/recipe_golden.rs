//! Parts of a training recipe as PyTorch 2.15 and timm 1.0.31 compute them (`scripts/golden/golden_recipe.py`).

#[path = "../../candle-resnet/tests/device/mod.rs"]
mod device;

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_finetune::train::Gradients;
use candle_finetune::train::ema::{Ema, EmaSettings};
use candle_finetune::train::loss::CrossEntropy;
use candle_finetune::train::mixup::Mix;
use candle_finetune::train::schedule::Schedule;
use candle_resnet::certificate::formula;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::device::{device, tolerance};

/// Every case of that name.
fn cases<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let lines = include_str!("golden/recipe.jsonl").lines();
    let rows = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases: Vec<T> =
        rows.filter(|row| row["case"] == name).map(|row| serde_json::from_value(row).unwrap()).collect();
    assert!(!cases.is_empty(), "no case `{name}`");
    cases
}

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_vec(formula::image_batch(name, shape), shape, device()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f64::from).collect()
}

/// Relative to the largest of those expected.
#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * scale, "value {index}: {found} instead of {expected}");
    }
}

#[derive(serde::Deserialize)]
struct Clip {
    max_norm: f64,
    norm: f64,
    values: Vec<f64>,
}

#[test]
fn gradients_are_clipped_as_in_pytorch() {
    for golden in cases::<Clip>("clip") {
        let named = [("clip.a", vec![3, 4]), ("clip.b", vec![5])];
        let mut gradients: Gradients =
            named.into_iter().map(|(name, shape)| (name.into(), tensor(name, &shape))).collect();
        assert_close(&[gradients.clip_norm(golden.max_norm).unwrap()], &[golden.norm], tolerance(1e-6));
        let found: Vec<f64> = gradients.iter().flat_map(|(_, gradient)| values(gradient)).collect();
        assert_close(&found, &golden.values, tolerance(1e-6));
    }
}

#[derive(serde::Deserialize)]
struct Rates {
    shape: String,
    peak: f64,
    warmup: usize,
    steps: usize,
    steps_per_epoch: usize,
    rates: Vec<f64>,
}

#[test]
fn learning_rates_are_those_of_pytorch() {
    for golden in cases::<Rates>("schedule") {
        let Rates { peak, warmup, steps, steps_per_epoch, .. } = golden;
        let schedule = Schedule { shape: golden.shape.parse().unwrap(), peak, warmup, steps, steps_per_epoch };
        let found: Vec<f64> = (0..steps).map(|step| schedule.at(step)).collect();
        assert_close(&found, &golden.rates, 1e-12);
    }
}

#[derive(serde::Deserialize)]
struct Averages {
    decay: f64,
    warmup: bool,
    updates: usize,
    tensors: BTreeMap<String, Vec<f64>>,
}

#[test]
fn weights_and_running_statistics_are_averaged_as_in_timm() {
    let at = |step: usize| {
        let named = [("weight", vec![3, 4]), ("running_mean", vec![5])];
        named.map(|(name, shape)| (name.into(), tensor(&format!("ema.{name}.{step}"), &shape))).into()
    };
    for golden in cases::<Averages>("ema") {
        let mut ema = Ema::new(&at(0), EmaSettings { decay: golden.decay, warmup: golden.warmup }).unwrap();
        (1..=golden.updates).for_each(|step| ema.update(&at(step)).unwrap());
        let found = ema.tensors();
        assert!(found.keys().eq(golden.tensors.keys()));
        found.iter().for_each(|(name, average)| assert_close(&values(average), &golden.tensors[name], tolerance(1e-6)));
    }
}

#[derive(serde::Deserialize)]
struct Mixed {
    cut: bool,
    drawn: f64,
    centre: (usize, usize),
    labels: Vec<u32>,
    smoothing: f64,
    loss: f64,
    images: Vec<f64>,
}

#[test]
fn batches_are_mixed_as_in_timm() {
    for golden in cases::<Mixed>("mix") {
        let mix = if golden.cut { Mix::paste(golden.drawn, golden.centre, (6, 5)) } else { Mix::blend(golden.drawn) };
        let images = mix.images(&tensor("mix.images", &[4, 2, 6, 5])).unwrap();
        assert_close(&values(&images), &golden.images, tolerance(1e-6));
        let targets = mix.targets(&golden.labels, 3, device()).unwrap();
        let loss = CrossEntropy::new(3).with_smoothing(golden.smoothing);
        let loss = loss.soft_loss(&tensor("mix.logits", &[4, 3]), &targets).unwrap();
        assert_close(&values(&loss), &[golden.loss], tolerance(1e-6));
    }
}

#[derive(serde::Deserialize)]
struct SoftLoss {
    smoothing: f64,
    weights: Option<Vec<f64>>,
    targets: Vec<Vec<f32>>,
    loss: f64,
}

#[test]
fn losses_of_probabilities_are_those_of_pytorch() {
    for golden in cases::<SoftLoss>("soft_loss") {
        let plain = CrossEntropy::new(3).with_smoothing(golden.smoothing);
        let loss = golden.weights.into_iter().fold(plain, CrossEntropy::with_weights);
        let targets = Tensor::new(golden.targets, device()).unwrap();
        let found = loss.soft_loss(&tensor("soft.logits", &[4, 3]), &targets).unwrap();
        assert_close(&values(&found), &[golden.loss], tolerance(1e-6));
    }
}
