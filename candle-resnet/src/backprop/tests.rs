//! Features and every gradient beside those of candle's graph in f64: on the CPU, or where `FINETUNE_TEST_DEVICE` says.

use std::collections::BTreeMap;

use candle_core::{DType, Var};
use candle_nn::VarBuilder;

use super::*;
use crate::device::device;
use crate::drop_path::StochasticDepth;
use crate::initialise::fresh_weights;
use crate::network::Network;
use crate::training::NormPolicy;
use crate::weights;

/// A network, its variables in f64, and a step on some images.
struct Case {
    architecture: &'static Architecture,
    first: Part,
    norms: NormPolicy,
    drop_path: f64,
    variables: HashMap<String, Tensor>,
    x: Tensor,
}

fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    (0..count).map(next).collect()
}

impl Case {
    /// `side` is that of what the first part is given.
    fn new(name: &str, first: Part, images: usize, side: usize) -> Case {
        let architecture = Architecture::named(name).unwrap();
        let fresh = fresh_weights(architecture, 10, 1, &Device::Cpu).unwrap();
        let variables = weights::tensors(&fresh).unwrap().into_iter().map(|(name, tensor)| {
            // Norms that do something.
            let noise = Tensor::from_vec(values(tensor.elem_count(), 3), tensor.shape(), &Device::Cpu).unwrap();
            let noise = (noise * if name.contains("bn") || name.contains("downsample.1") { 0.2 } else { 0.0 }).unwrap();
            let tensor = (tensor.to_dtype(DType::F64).unwrap() + noise).unwrap();
            (name, tensor.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap())
        });
        let network = Network::new(architecture, 10, VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap();
        let image = Tensor::zeros((1, architecture.in_channels, 32, 32), DType::F32, &Device::Cpu).unwrap();
        let channels = match first.entry(architecture) {
            None => architecture.in_channels,
            Some(boundary) => network.map_at(&image, boundary).unwrap().dim(1).unwrap(),
        };
        let shape = (images, channels, side, side);
        let x = Tensor::from_vec(values(images * channels * side * side, 5), shape, &Device::Cpu).unwrap();
        let x = x.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap();
        let norms = Part::all(architecture).collect();
        Case { architecture, first, norms, drop_path: 0.0, variables: variables.collect(), x }
    }

    fn mode(&self) -> TrainingMode {
        TrainingMode {
            depth: StochasticDepth::new(self.drop_path, 7).unwrap(),
            ..TrainingMode::new(self.norms.clone())
        }
    }

    /// Features, every gradient and every running statistic afterwards, by candle.
    fn expected(&self) -> BTreeMap<String, Vec<f64>> {
        let variable = |tensor: &Tensor| Var::from_tensor(tensor).unwrap();
        let variables: HashMap<String, Var> =
            self.variables.iter().map(|(name, tensor)| (name.clone(), variable(tensor))).collect();
        let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let builder = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        let network = Network::new(self.architecture, 10, builder).unwrap();
        let features = network.features_train(self.first, &self.x, &mut self.mode()).unwrap();
        let loss = (&features * weights_of(&features)).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let mut all = BTreeMap::from([("features".to_string(), flat(&features))]);
        for (name, var) in &variables {
            if let Some(gradient) = gradients.get(var) {
                all.insert(name.clone(), flat(gradient));
            } else if name.contains("running_") {
                all.insert(name.clone(), flat(var));
            }
        }
        all
    }

    /// The same by kernels; `None` where there are none for this network.
    fn computed(&self, options: &BackwardOptions) -> Option<BTreeMap<String, Vec<f64>>> {
        self.computed_at(options, 1.0)
    }

    /// The same with gradients that are so many times as large on the way.
    fn computed_at(&self, options: &BackwardOptions, scale: f64) -> Option<BTreeMap<String, Vec<f64>>> {
        let on_device = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap().to_device(device()).unwrap();
        let single = |tensor: &Tensor| Var::from_tensor(&on_device(tensor)).unwrap().into_inner();
        let variables: HashMap<String, Tensor> =
            self.variables.iter().map(|(name, tensor)| (name.clone(), single(tensor))).collect();
        let mut backprop = backward(self.architecture, self.first, device(), options)?;
        let features = backprop.features(&variables, &on_device(&self.x), &mut self.mode()).unwrap();
        let loss = (weights_of(&features) * scale).unwrap();
        let gradients = backprop.gradients(&variables, &loss, &|_| true).unwrap();
        let gradients = gradients.into_iter().map(|(name, gradient)| (name, (gradient / scale).unwrap()));
        let gradients: Vec<_> = gradients.collect();
        let mut all = BTreeMap::from([("features".to_string(), flat(&features))]);
        all.extend(gradients.iter().map(|(name, gradient)| (name.clone(), flat(gradient))));
        let running = variables.iter().filter(|(name, _)| name.contains("running_"));
        all.extend(running.map(|(name, tensor)| (name.clone(), flat(tensor))));
        Some(all)
    }

    /// On other inputs.
    fn with_inputs(self, seed: u64) -> Case {
        let x = Tensor::from_vec(values(self.x.elem_count(), seed), self.x.shape(), &Device::Cpu).unwrap();
        Case { x: x.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap(), ..self }
    }

    /// Compares with candle in f64, each tensor relative to its largest value.
    ///
    /// In f32 a rounding error now and then turns a ReLU on or off whose input is almost 0, which changes the gradients before it. A
    /// tensor therefore passes if it is right for one of some inputs: what is computed wrongly is right for none.
    fn check(mut self) {
        let tolerance = if device().is_cpu() { 3e-5 } else { 3e-4 };
        let mut wrong: Vec<(BackwardOptions, Vec<String>)> = all_options()
            .into_iter()
            .map(|options| {
                (options, self.computed(&options).expect("a network that has kernels").into_keys().collect())
            })
            .collect();
        for seed in 20..26 {
            let expected = self.expected();
            for (options, names) in &mut wrong {
                let computed = self.computed(options).unwrap_or_default();
                assert!(computed.keys().eq(expected.keys()));
                names.retain(|name| error(&computed[name], &expected[name]) > tolerance);
            }
            wrong.retain(|(_, names)| !names.is_empty());
            if wrong.is_empty() {
                return;
            }
            self = self.with_inputs(seed);
        }
        panic!("{}: {wrong:?}", self.architecture.name);
    }
}

/// Every way to compute in f32 on the device.
fn all_options() -> Vec<BackwardOptions> {
    let sets = InstructionSet::ALL.into_iter().filter(|set| set.is_available() && device().is_cpu());
    let on_cpu: Vec<_> =
        sets.map(|instruction_set| BackwardOptions { instruction_set, ..BackwardOptions::default() }).collect();
    if on_cpu.is_empty() { vec![BackwardOptions::default()] } else { on_cpu }
}

/// The largest difference, relative to the largest value.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-3f64, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |a, b| if b.is_nan() { b } else { f64::max(a, b) }) / largest
}

/// What each feature counts.
fn weights_of(features: &Tensor) -> Tensor {
    let values = values(features.elem_count(), 11);
    Tensor::from_vec(values, features.shape(), &Device::Cpu)
        .and_then(|weights| weights.to_dtype(features.dtype())?.to_device(features.device()))
        .unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.detach().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

// Where all norms follow a batch whose last maps have few pixels, f32 itself goes astray: a rounding error turns a ReLU on or off, and
// the norms behind make a lot of it. The deeper networks therefore have one part that follows the batch.

#[test]
fn norms_that_follow_the_batch_have_candles_gradients() {
    Case::new("resnet20_cifar", Part::Stem, 2, 16).check();
    Case::new("resnet18", Part::Stem, 2, 65).check();
}

#[test]
fn every_kind_of_network_has_candles_gradients() {
    for (name, side) in
        [("resnet50", 64), ("resnet26d", 65), ("resnext50_32x4d", 64), ("resnetblur18", 64), ("resnet34", 64)]
    {
        for part in [Part::Stem, Part::Stage(3)] {
            let norms = [part].into_iter().collect();
            Case { norms, ..Case::new(name, Part::Stem, 2, side) }.check();
        }
    }
}

#[test]
fn attentions_have_candles_gradients() {
    let norms = |part| [part].into_iter().collect();
    for (name, part) in [("seresnet18", Part::Stem), ("ecaresnet26t", Part::Stage(3))] {
        Case { norms: norms(part), drop_path: 0.3, ..Case::new(name, Part::Stem, 3, 65) }.check();
    }
    for name in ["seresnet50", "ecaresnet50t"] {
        Case { norms: norms(Part::Stage(4)), ..Case::new(name, Part::Stage(4), 2, 8) }.check();
    }
}

#[test]
fn group_norms_have_candles_gradients() {
    for (part, side) in [(Part::Stage(2), 16), (Part::Stage(4), 8)] {
        Case { drop_path: 0.3, ..Case::new("resnet50_gn", part, 3, side) }.check();
    }
}

#[test]
fn branches_that_are_left_out_have_candles_gradients() {
    Case { drop_path: 0.5, ..Case::new("resnet18", Part::Stem, 3, 64) }.check();
}

#[test]
fn a_tail_has_candles_gradients() {
    for (name, part) in [("resnet18", Part::Stage(2)), ("resnet50", Part::Stage(4)), ("resnet20_cifar", Part::Stage(3))]
    {
        Case { norms: [part].into_iter().collect(), ..Case::new(name, part, 2, 8) }.check();
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let options = BackwardOptions::default();
    for (name, side) in
        [("resnet18", 64), ("resnet20_cifar", 32), ("seresnet18", 33), ("ecaresnet26t", 33), ("resnet50_gn", 33)]
    {
        let case = Case::new(name, Part::Stem, 5, side);
        let computed = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.computed(&options).unwrap())
        };
        let alone = computed(1);
        assert_eq!(computed(2), alone);
        assert_eq!(computed(3), alone);
    }
}

/// The cosine of the angle between two tensors; 1 where both are 0.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    if a.iter().chain(b).all(|&value| value == 0.0) {
        return 1.0;
    }
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

/// In halves ReLUs turn on and off by rounding; gradients point the same way all the same.
fn check_directions(precision: Precision, scale: f64, least: f64) {
    let options = BackwardOptions { precision, ..BackwardOptions::default() };
    for (name, first, side) in [
        ("resnet18", Part::Stem, 64),
        ("resnet26d", Part::Stage(3), 16),
        ("resnext50_32x4d", Part::Stage(4), 8),
        ("seresnet18", Part::Stage(3), 16),
        ("ecaresnet26t", Part::Stage(4), 8),
        ("resnetblur18", Part::Stage(2), 16),
        ("resnet50_gn", Part::Stage(4), 8),
    ] {
        let case = Case { norms: [first].into_iter().collect(), ..Case::new(name, first, 8, side) };
        let (computed, expected) = (case.computed_at(&options, scale).unwrap(), case.expected());
        assert!(computed.keys().eq(expected.keys()));
        for (tensor, values) in &expected {
            let cosine = cosine(&computed[tensor], values);
            assert!(cosine > least, "{name}, {tensor} in {precision}: {cosine}");
        }
    }
}

#[test]
fn gradients_in_bf16_point_where_those_in_f64_do() {
    check_directions(Precision::Bf16, 1.0, 0.95);
}

#[test]
fn gradients_in_f16_point_where_those_in_f64_do() {
    check_directions(Precision::F16, F16_SCALE, 0.99);
}

/// The largest gradient of these cases is 106: 1024 times that is beyond f16.
const F16_SCALE: f64 = 64.0;

/// Whoever scales a loss learns from gradients that are not finite that it was too much.
#[test]
fn gradients_that_leave_the_range_of_f16_are_not_finite() {
    if !device().is_cuda() {
        return; // f32 takes them
    }
    let options = BackwardOptions { precision: Precision::F16, ..BackwardOptions::default() };
    for (name, own) in [
        ("resnet18", "bn1.weight"),
        ("resnet50", "layer4.0.bn3.weight"),
        ("seresnet18", "layer4.0.se.fc1.weight"),
        ("ecaresnet26t", "layer4.0.se.conv.weight"),
        ("resnet50_gn", "layer1.0.bn1.weight"),
        ("resnetblur18", "layer2.0.bn1.weight"),
    ] {
        let case = Case { norms: [Part::Stem].into_iter().collect(), ..Case::new(name, Part::Stem, 2, 64) };
        let computed = case.computed_at(&options, 1e7).unwrap();
        let first = if name == "ecaresnet26t" { "conv1.0.weight" } else { "conv1.weight" };
        for tensor in [first, own, "layer4.0.conv1.weight"] {
            assert!(computed[tensor].iter().any(|value| !value.is_finite()), "{name}: {tensor}");
        }
    }
}
