//! A training step keeps nothing of the one before it but weights and the optimiser's memory of gradients.
//!
//! A program of its own, with one test, because it counts what the whole process allocates.

use candle_core::{DType, Device, Tensor};
use candle_finetune::train::groups::Groups;
use candle_finetune::train::loss::CrossEntropy;
use candle_finetune::train::tail::{Tail, TailTrainer};
use candle_finetune::train::{Head, OptimizerSettings};
use candle_resnet::architecture::Architecture;
use candle_resnet::initialise::fresh_weights;
use candle_resnet::part::Part;
use candle_resnet::training::{NormPolicy, TrainingMode};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A trainer of the last stage of resnet20_cifar.
fn trainer(optimizer: &OptimizerSettings) -> TailTrainer {
    let architecture = Architecture::named("resnet20_cifar").unwrap();
    let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
    let head = Head::new(2, 64, 0, &Device::Cpu).unwrap();
    let tail = Tail::new(architecture, &weights, &head, Part::Stage(3), &Device::Cpu).unwrap();
    let mode = TrainingMode::new(NormPolicy::frozen());
    TailTrainer::new(tail, mode, CrossEntropy::new(2), optimizer, &Groups::one(1e-4)).unwrap()
}

#[test]
fn steps_do_not_pile_up() {
    let maps = Tensor::full(0.01f32, (2, 32, 16, 16), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    for optimizer in [OptimizerSettings::SGD, OptimizerSettings::ADAMW] {
        let mut trainer = trainer(&optimizer);
        let mut step = || {
            trainer.step(&maps, &[0, 1], 1e-4).unwrap();
            MEMORY.current_usage()
        };
        let second = [step(), step()][1];
        let fifth = [step(), step(), step()][2];
        assert!(fifth < second + second / 100, "{second} bytes after two steps, {fifth} after five with {optimizer:?}");
    }
}
