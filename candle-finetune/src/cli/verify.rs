//! `finetune verify`: what a model computes beside what other programs computed.

mod file;
mod stored;

use std::path::PathBuf;

use anyhow::bail;
use candle_resnet::registry::ModelName;
use clap::Args;

use super::Outcome;
use super::common::{DeviceArgument, ModelArguments, with_loader};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Compare with a file of another program instead of the stored references: `input` (N, 3, H, W), `logits` (N, classes),
    /// perhaps pooled `features` (N, D), perhaps the bytes of a `photo` and its `pixels` (H, W, 3)
    #[arg(long, value_name = "FILE.safetensors")]
    reference: Option<PathBuf>,

    /// Largest difference that passes, as a fraction of the reference's largest magnitude
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f64,

    #[command(flatten)]
    device: DeviceArgument,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let device = arguments.device.open()?;
    let passed = match &arguments.reference {
        Some(path) => {
            let reference = file::Reference::read(path)?;
            reference.compare(&arguments.model.load(None)?, arguments.tolerance, &device)?
        }
        None => {
            arguments.check_needs_no_reference()?;
            stored::compare(&arguments.describe()?, arguments.tolerance, &device)?
        }
    };
    Ok(if passed { Outcome::Done } else { Outcome::Unsatisfied })
}

impl Arguments {
    /// Refuses what the stored references, which are of networks as they are published, with formula weights, would pass over.
    fn check_needs_no_reference(&self) -> anyhow::Result<()> {
        let ignored =
            [("--weights", self.model.weights.is_some()), ("--in-chans", self.model.channels.get().is_some())];
        match ignored.iter().find(|(_, given)| *given) {
            Some((name, _)) => bail!(
                "{name} changes nothing where networks with formula weights are compared\n\
                 hint: leave it away, or compare with a file of another program by --reference"
            ),
            None => Ok(()),
        }
    }

    /// Network and preprocessing, without weights.
    fn describe(&self) -> anyhow::Result<candle_resnet::model::Description> {
        let catalogue = self.model.catalogue.open()?;
        let name = ModelName::resolve(&catalogue, &self.model.model).map_err(candle_resnet::Error::from)?;
        // An architecture can be compared whether anybody published weights of it or not.
        let fresh = matches!(name, ModelName::Architecture(_)).then_some(0);
        with_loader(&catalogue, |loader| loader.describe(&self.model.request(fresh)))
    }
}

/// How a comparison is told.
fn verdict(passes: bool) -> &'static str {
    if passes { "ok" } else { "FAILED" }
}
