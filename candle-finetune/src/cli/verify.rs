//! `finetune verify`: a model's outputs against reference values from another program.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use candle_core::{DType, Tensor};
use candle_resnet::{FeatureExtractor, checkpoint};
use clap::Args;

use super::Outcome;
use super::common::{DeviceArgument, ModelArguments};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// File with `input` (N, 3, H, W), `logits` (N, classes) and perhaps pooled `features` (N, D)
    #[arg(long, value_name = "FILE.safetensors")]
    reference: PathBuf,

    /// Largest difference that passes, as a fraction of the reference's largest magnitude
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f64,

    #[command(flatten)]
    device: DeviceArgument,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let device = arguments.device.open()?;
    let reference = Reference::read(&arguments.reference)?;
    let classifier = arguments.model.load(None)?.classifier(&device)?;
    let features = classifier.trunk().features(&reference.input.to_device(&device)?)?;
    let logits = classifier.classify(&features)?;

    let mut differences = vec![Difference::between("logits", &logits, &reference.logits)?];
    if let Some(expected) = &reference.features {
        differences.push(Difference::between("features", &features, expected)?);
    }
    let mut out = std::io::stdout().lock();
    for difference in &differences {
        writeln!(out, "{}", difference.text(arguments.tolerance))?;
    }
    let passed = differences.iter().all(|difference| difference.passes(arguments.tolerance));
    Ok(if passed { Outcome::Done } else { Outcome::Unsatisfied })
}

struct Reference {
    input: Tensor,
    logits: Tensor,
    features: Option<Tensor>,
}

impl Reference {
    fn read(path: &std::path::Path) -> anyhow::Result<Reference> {
        let mut tensors = checkpoint::read(path).map_err(candle_resnet::Error::from)?;
        let mut take = |name: &str, rank: usize| take(&mut tensors, name, rank, path);
        let input = take("input", 4)?.with_context(|| format!("{}: holds no `input`", path.display()))?;
        if input.dim(1)? != 3 {
            bail!("{}: `input` has {} channels, expected 3", path.display(), input.dim(1)?);
        }
        let logits = take("logits", 2)?.with_context(|| format!("{}: holds no `logits`", path.display()))?;
        Ok(Reference { input, logits, features: take("features", 2)? })
    }
}

fn take(
    tensors: &mut BTreeMap<String, Tensor>,
    name: &str,
    rank: usize,
    path: &std::path::Path,
) -> anyhow::Result<Option<Tensor>> {
    match tensors.remove(name) {
        Some(tensor) if tensor.rank() != rank => {
            bail!("{}: `{name}` has shape {:?}, expected {rank} dimensions", path.display(), tensor.dims())
        }
        Some(tensor) => Ok(Some(tensor.to_dtype(DType::F32)?)),
        None => Ok(None),
    }
}

struct Difference {
    name: &'static str,
    largest: f64,
    /// Largest magnitude of the reference.
    scale: f64,
}

impl Difference {
    fn between(name: &'static str, ours: &Tensor, reference: &Tensor) -> anyhow::Result<Difference> {
        if ours.dims() != reference.dims() {
            bail!("`{name}` has shape {:?}, the reference {:?}", ours.dims(), reference.dims());
        }
        let reference = reference.to_device(ours.device())?;
        Ok(Difference { name, largest: largest(&(ours - &reference)?)?, scale: largest(&reference)? })
    }

    /// Not a number passes nowhere.
    fn passes(&self, tolerance: f64) -> bool {
        self.largest <= tolerance * self.scale
    }

    fn text(&self, tolerance: f64) -> String {
        let Difference { name, largest, scale } = self;
        let verdict = if self.passes(tolerance) { "ok" } else { "FAILED" };
        format!(
            "{name:<9} largest difference {largest:.3e}, {:.3e} of the largest magnitude {scale:.4}: {verdict}",
            largest / scale
        )
    }
}

/// Largest magnitude; not a number if one value is not.
fn largest(tensor: &Tensor) -> candle_core::Result<f64> {
    let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    if values.iter().any(|value| value.is_nan()) {
        return Ok(f64::NAN);
    }
    Ok(values.iter().fold(0.0, |largest: f64, &value| largest.max(value.abs().into())))
}
