//! Frozen layers cost no memory beyond their weights: a feature pass keeps nothing for a backward pass.
//!
//! A program of its own, with one test, because it counts what the whole process allocates.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_resnet::FeatureExtractor;
use candle_resnet::architecture::Architecture;
use candle_resnet::initialise::fresh_weights;
use candle_resnet::network::Network;
use candle_resnet::trunk::Trunk;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const BATCHES: usize = 3;

/// Bytes that `work` needs at its worst beyond what was allocated before.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    drop(work());
    MEMORY.peak_usage().saturating_sub(before)
}

fn batch(number: usize) -> Tensor {
    let values: Vec<f32> = (0..8 * 3 * 32 * 32).map(|index| ((index * 31 + number) % 97) as f32 / 97.0).collect();
    Tensor::from_vec(values, (8, 3, 32, 32), &Device::Cpu).unwrap()
}

/// Peak of several batches through the frozen form on one thread, of which only the features are kept. (Of two threads, one may
/// be so late that the other does the work of both, in half the memory.)
fn frozen(name: &str) -> usize {
    let architecture = Architecture::named(name).unwrap();
    let trunk = {
        let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
        Trunk::compile(architecture, &weights, &Device::Cpu).unwrap()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let features = |number| pool.install(|| trunk.features(&batch(number)).unwrap());
    peak(|| (0..BATCHES).map(features).collect::<Vec<_>>())
}

/// Peak of one batch through the trainable form, whose graph the features keep alive.
fn tracked(name: &str) -> usize {
    let architecture = Architecture::named(name).unwrap();
    let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
    let variables = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let network = Network::new(architecture, 10, variables).unwrap();
    peak(|| network.features(&batch(0)).unwrap())
}

#[test]
fn memory_of_a_feature_pass_does_not_grow_with_depth() {
    frozen("resnet20_cifar"); // Thread pools and scratch buffers are there from now on.
    let (shallow, deep) = (frozen("resnet20_cifar"), frozen("resnet110_cifar"));
    assert!(deep as f64 <= 1.5 * shallow as f64, "frozen: {shallow} bytes with 20 layers, {deep} with 110");
    let (shallow, deep) = (tracked("resnet20_cifar"), tracked("resnet110_cifar"));
    assert!(deep as f64 >= 3.0 * shallow as f64, "tracked: {shallow} bytes with 20 layers, {deep} with 110");
}
