//! The frozen form in bf16, on the CPU or where the tests compute, and in f16 on CUDA: near f32 for every kind of layer.

mod device;

use candle_core::{Device, Tensor};
use candle_resnet::architecture::Architecture;
use candle_resnet::certificate::formula;
use candle_resnet::features::Boundary;
use candle_resnet::initialise::fresh_weights;
use candle_resnet::plan::{PlanOptions, Precision};
use candle_resnet::{FeatureExtractor, Trunk};

use self::device::device;

/// Of the Euclidean norm; bf16 keeps eight bits, f16 eleven.
const TOLERANCES: [(Precision, f64); 2] = [(Precision::Bf16, 0.05), (Precision::F16, 0.01)];

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().flatten_all().unwrap();
    tensor.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// How far the second is from the first, relative to its norm.
fn distance(exact: &[f64], other: &[f64]) -> f64 {
    assert_eq!(exact.len(), other.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = square(&mut exact.iter().zip(other).map(|(a, b)| a - b));
    (difference / square(&mut exact.iter().copied())).sqrt()
}

#[test]
fn halves_are_near_f32() {
    let networks = [
        "resnet18",        // two 3×3
        "resnet26",        // bottlenecks
        "resnet26d",       // a stem of three, pools in shortcuts
        "resnext50_32x4d", // groups
        "seresnet50",      // attention
        "resnetblur50",    // anti-aliasing
        "resnet50_gn",     // group norms
        "resnet20_cifar",  // shortcuts that fill up with zeros
    ];
    for name in networks {
        let architecture = Architecture::named(name).unwrap();
        let weights = fresh_weights(architecture, 10, 1, &Device::Cpu).unwrap();
        let exact = Trunk::compile(architecture, &weights, &Device::Cpu).unwrap();
        let shape = [3, 3, 66, 66];
        let images = Tensor::from_vec(formula::image_batch("precision.images", &shape), &shape, &Device::Cpu).unwrap();
        let elsewhere = images.to_device(device()).unwrap();
        let layer2 = Boundary::named(architecture, "layer2").unwrap();
        let (features, map) = (exact.features(&images).unwrap(), exact.map_at(&images, layer2).unwrap());
        for (precision, tolerance) in TOLERANCES {
            if precision.check(device()).is_err() {
                continue;
            }
            let options = PlanOptions { precision, ..PlanOptions::default() };
            let rounded = Trunk::compile_with(architecture, &weights, device(), &options).unwrap();
            let found = [rounded.features(&elsewhere), rounded.map_at(&elsewhere, layer2)].map(Result::unwrap);
            let distances = [(&features, &found[0]), (&map, &found[1])]
                .map(|(exact, rounded)| distance(&values(exact), &values(rounded)));
            println!("{name} in {precision}: features {:.4}, maps {:.4}", distances[0], distances[1]);
            assert!(distances.iter().all(|&distance| distance < tolerance), "{name} in {precision}: {distances:?}");
        }
    }
}

#[test]
fn a_cpu_has_no_f16() {
    let architecture = Architecture::named("resnet18").unwrap();
    let weights = fresh_weights(architecture, 10, 1, &Device::Cpu).unwrap();
    let options = PlanOptions { precision: Precision::F16, ..PlanOptions::default() };
    let error = Trunk::compile_with(architecture, &weights, &Device::Cpu, &options).unwrap_err();
    assert!(error.to_string().starts_with("f16 is computed on CUDA alone"), "{error}");
}
