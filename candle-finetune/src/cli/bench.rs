//! `finetune bench`: how fast a network's frozen form is, a step that trains it, or the reading of photos for it.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_finetune::dataset::Sample;
use candle_finetune::extract::{Unreadable, Views, extract};
use candle_finetune::train::groups::Groups;
use candle_finetune::train::loss::CrossEntropy;
use candle_finetune::train::tail::{Tail, TailTrainer, TrainFrom};
use candle_finetune::train::{Head, OptimizerSettings};
use candle_nn::VarBuilder;
use candle_resnet::backprop::BackwardOptions;
use candle_resnet::network::Network;
use candle_resnet::part::Part;
use candle_resnet::plan::{StepTime, Workload};
use candle_resnet::training::TrainingMode;
use candle_resnet::{FeatureExtractor, Model, Trunk, weights};
use clap::Args;
use serde_json::json;

use super::Outcome;
use super::common::{DeviceArgument, FreshArgument, ModelArguments, PlanArguments, scan};
use super::stdout::stdout;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    fresh: FreshArgument,

    /// Images of a call
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,

    /// Side of the square images, in pixels; the model's own if left out
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,

    /// Calls that are timed, after two that are not; or passes over photos [default: 20 calls, 3 passes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,

    /// One JSON object
    #[arg(long)]
    json: bool,

    /// Time every step, on one thread
    #[arg(long, conflicts_with_all = ["json", "trainable"])]
    profile: bool,

    /// Time the trainable form, which candle's own operations compute
    #[arg(long)]
    trainable: bool,

    /// Time whole training steps instead, from this part on: layer4, layer3, layer2, layer1 or all
    #[arg(long, value_name = "PART", conflicts_with_all = ["profile", "trainable"])]
    train_from: Option<TrainFrom>,

    /// Time the reading of the photos in this folder instead, as they are to come to the device: a folder such as `finetune train` takes
    #[arg(long, value_name = "DIR", conflicts_with_all = ["profile", "trainable", "train_from", "batch", "size"])]
    photos: Option<PathBuf>,

    #[command(flatten)]
    plan: PlanArguments,

    #[command(flatten)]
    device: DeviceArgument,
}

/// Calls before the clock runs: memory is laid out, caches and clocks settle.
const WARM_UP: u32 = 2;

/// Calls that are timed where nobody says, and passes over photos.
const CALLS: u32 = 20;
const PASSES: u32 = 3;

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let device = arguments.plan.open(&arguments.device)?;
    let model = arguments.model.load(arguments.fresh.no_pretrained.then_some(0))?;
    if let Some(folder) = &arguments.photos {
        return time_reading(folder, &model, &device, arguments);
    }
    let side = arguments.size.map_or(model.preprocessing.crop, |size| size as usize);
    let batch = arguments.batch as usize;
    let workload = Workload { image: (side, side), batch, ..Workload::default() };
    let options = arguments.plan.options(&device, workload);
    let repeat = arguments.repeat.unwrap_or(CALLS);
    let images = Tensor::randn(0f32, 1.0, (batch, model.architecture.in_channels, side, side), &device)?;
    let times = if let Some(train_from) = &arguments.train_from {
        let (mut trainer, maps) = training(&model, train_from, &images, arguments)?;
        let labels = vec![0; batch];
        times(repeat, || Ok(trainer.step(&maps, &labels, 1e-3)?))?
    } else if arguments.trainable {
        let weights = weights::into_var_map(weights::tensors(&model.weights)?, &device)?;
        let variables = VarBuilder::from_varmap(&weights, DType::F32, &device);
        let network = Network::new(&model.architecture, model.classes, variables)?;
        times(repeat, || Ok(network.features(&images)?.detach().to_device(&Device::Cpu)?))?
    } else {
        let trunk = model.trunk_with(&device, &options)?;
        drop(model);
        if arguments.profile {
            return profile(&trunk, &images, arguments);
        }
        times(repeat, || Ok(trunk.features(&images)?.to_device(&Device::Cpu)?))?
    };
    let computed = match &device {
        Device::Cpu => format!("{} threads", rayon::current_num_threads()),
        Device::Cuda(_) => "on CUDA".into(),
        Device::Metal(_) => "on Metal".into(),
    };
    print(&times, batch, &format!("batch {batch}, {side}×{side} pixels, {computed}"), arguments.json)?;
    Ok(Outcome::Done)
}

/// Prints sorted times of so many images each, and what was timed.
fn print(times: &[Duration], images: usize, what: &str, as_json: bool) -> std::io::Result<()> {
    let per_image = |time: Duration| 1e3 * time.as_secs_f64() / images as f64;
    let (median, least) = (per_image(times[times.len() / 2]), per_image(times[0]));
    let mut out = stdout();
    if as_json {
        return writeln!(out, "{}", json!({"median_ms_per_image": median, "min_ms_per_image": least}));
    }
    writeln!(out, "{median:.2} ms per image (median), {least:.2} ms (least): {what}")
}

/// Times the reading of a folder's photos for `model`, up to their being on `device`.
fn time_reading(folder: &Path, model: &Model, device: &Device, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let photos: Vec<Sample> = scan(folder)?.splits.into_values().flatten().collect();
    let idle = Idle { device, channels: model.architecture.in_channels };
    let mut read = 0;
    let passes = times(arguments.repeat.unwrap_or(PASSES), || {
        let go_on = &mut |_| ControlFlow::Continue(());
        let extracted = extract(&idle, &model.preprocessing, &photos, Views::Plain, Unreadable::Skipped, go_on)?;
        read = extracted.kept.len();
        Ok(())
    })?;
    let (side, threads) = (model.preprocessing.crop, rayon::current_num_threads());
    print(
        &passes,
        read,
        &format!("{read} photos read, {side}×{side} pixels of each, {threads} threads"),
        arguments.json,
    )?;
    Ok(Outcome::Done)
}

/// A network that computes nothing.
struct Idle<'a> {
    device: &'a Device,
    channels: usize,
}

impl FeatureExtractor for Idle<'_> {
    fn feature_width(&self) -> usize {
        1
    }

    fn in_channels(&self) -> usize {
        self.channels
    }

    fn device(&self) -> &Device {
        self.device
    }

    fn features(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        Tensor::zeros((images.dim(0)?, 1), DType::F32, self.device)
    }
}

/// A trainer of the parts that `train_from` names, as PyTorch's tutorial has it, and what its first part is given.
fn training(
    model: &Model,
    train_from: &TrainFrom,
    images: &Tensor,
    arguments: &Arguments,
) -> anyhow::Result<(TailTrainer, Tensor)> {
    let first = train_from.part(&model.architecture)?;
    let head = Head::new(model.classes, model.architecture.feature_width(), 0, images.device())?;
    let trains = |name: &str| train_from.trains(name);
    let tail = Tail::with_trained(&model.architecture, &model.weights, &head, (first, &trains), images.device())?;
    let norms = Part::all(&model.architecture).filter(|&part| part >= first).collect();
    let (mode, loss) = (TrainingMode::new(norms), CrossEntropy::new(model.classes));
    let trainer = TailTrainer::new(tail, mode, loss, &OptimizerSettings::SGD, &Groups::one(1e-4))?;
    let (instruction_set, precision) = (arguments.plan.instruction_set(), arguments.plan.precision());
    let trainer = trainer.with_backward(&BackwardOptions { instruction_set, precision });
    let maps = match first.entry(&model.architecture) {
        None => images.clone(),
        Some(boundary) => model.trunk(images.device())?.map_at(images, boundary)?,
    };
    Ok((trainer, maps))
}

/// Sorted times of calls.
fn times<T>(repeat: u32, mut call: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Vec<Duration>> {
    for _ in 0..WARM_UP {
        call()?;
    }
    let mut times = Vec::new();
    for _ in 0..repeat {
        let started = Instant::now();
        call()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times)
}

/// A line for each step: the least time of all calls.
fn profile(trunk: &Trunk, images: &Tensor, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut best: Vec<StepTime> = Vec::new();
    for _ in 0..arguments.repeat.unwrap_or(CALLS) {
        let Some(steps) = trunk.profile(images)? else {
            anyhow::bail!("only the kernels for the CPU can be timed step by step");
        };
        if best.is_empty() {
            best = steps;
        } else {
            for (best, step) in best.iter_mut().zip(steps) {
                best.time = best.time.min(step.time);
            }
        }
    }
    print_profile(&best, arguments)?;
    Ok(Outcome::Done)
}

fn print_profile(steps: &[StepTime], arguments: &Arguments) -> anyhow::Result<()> {
    let total: f64 = steps.iter().map(|step| step.time.as_secs_f64()).sum();
    let peak = candle_resnet::plan::peak_flops(arguments.plan.instruction_set(), arguments.plan.precision())?;
    let mut out = stdout();
    let heading = ("step", "output", "ms/image", "share", "GFLOP/s", "of peak");
    writeln!(
        out,
        "{:<44}{:>16}{:>10}{:>7}{:>9}{:>9}",
        heading.0, heading.1, heading.2, heading.3, heading.4, heading.5
    )?;
    for step in steps {
        let seconds = step.time.as_secs_f64();
        let (height, width) = step.output();
        let output = format!("{}×{height}×{width}", step.channels);
        let rate = step.operations as f64 / seconds;
        let (rate, of_peak) = match step.operations {
            0 => (String::new(), String::new()),
            _ => (format!("{:.0}", 1e-9 * rate), format!("{:.0} %", 100.0 * rate / peak)),
        };
        let (each, share) = (1e3 * seconds / f64::from(arguments.batch), 100.0 * seconds / total);
        writeln!(out, "{:<44}{output:>16}{each:>10.3}{share:>6.1}%{rate:>9}{of_peak:>9}", step.name)?;
    }
    let each = 1e3 * total / f64::from(arguments.batch);
    writeln!(out, "{:<44}{:>16}{each:>10.3}", "all, on one thread", "")?;
    Ok(())
}
