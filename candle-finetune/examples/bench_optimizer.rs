//! ms of each step of an optimiser over resnet18's parameters, one a line: `bench_optimizer sgd|adamw STEPS`.
//!
//! Called by `scripts/bench_optimizer.py`; RAYON_NUM_THREADS sets the threads.

use std::time::Instant;

use candle_core::{Device, Var};
use candle_finetune::train::optimizer::Parameter;
use candle_finetune::train::{Gradients, OptimizerSettings};
use candle_resnet::architecture::Architecture;
use candle_resnet::part::Part;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let settings = match arguments.next().as_deref() {
        Some("sgd") => OptimizerSettings::Sgd { momentum: 0.9, nesterov: false },
        Some("adamw") => OptimizerSettings::ADAMW,
        other => return Err(format!("no optimiser {other:?}").into()),
    };
    let steps: usize = arguments.next().ok_or("how many steps?")?.parse()?;
    let (parameters, gradients) = parameters_and_gradients("resnet18")?;
    let mut optimizer = settings.build(parameters)?;
    for _ in 0..steps {
        let started = Instant::now();
        optimizer.step(&gradients, 1e-3)?;
        println!("{}", 1e3 * started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Random numbers in the shapes of a network's parameters.
fn parameters_and_gradients(network: &str) -> candle_core::Result<(Vec<Parameter>, Gradients)> {
    let architecture = Architecture::named(network).expect("a network that there is");
    let specs = Part::tensors(architecture, 1000).into_iter().map(|(_, spec)| spec);
    let (mut parameters, mut gradients) = (Vec::new(), Vec::new());
    for spec in specs.filter(|spec| spec.role.is_parameter()) {
        let random = || Var::randn(0f32, 0.1, spec.shape.as_slice(), &Device::Cpu);
        let (var, gradient) = (random()?, random()?.into_inner());
        gradients.push((spec.name.clone(), gradient));
        parameters.push(Parameter { name: spec.name, var, lr_scale: 1.0, weight_decay: 1e-4 });
    }
    Ok((parameters, gradients.into_iter().collect()))
}
