//! `finetune summary`: a network's layers and costs.

use std::io::Write;

use candle_resnet::architecture::Architecture;
use candle_resnet::model::{ModelRequest, WeightsChoice};
use candle_resnet::registry::ModelName;
use candle_resnet::summary::{layer_tree, stage_table};
use clap::Args;

use super::Outcome;
use super::common::{CatalogueArgument, ChannelsArgument, with_loader};
use super::stdout::stdout;

#[derive(Args)]
pub struct Arguments {
    /// A model's name, `hf-hub:owner/name[@revision]`, or a folder
    #[arg(value_name = "NAME|FOLDER")]
    name: String,

    /// Outputs of the classifier; the model's own if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    classes: Option<u32>,

    #[command(flatten)]
    channels: ChannelsArgument,

    /// Side of the input, in pixels; the model's own if left out
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=8192))]
    input_size: Option<u32>,

    #[command(flatten)]
    catalogue: CatalogueArgument,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    // An architecture can be shown whether anybody published weights of it or not.
    let catalogue = arguments.catalogue.open()?;
    let weights = match ModelName::resolve(&catalogue, &arguments.name).map_err(candle_resnet::Error::from)? {
        ModelName::Architecture(_) => WeightsChoice::Fresh { seed: 0 },
        _ => WeightsChoice::Named,
    };
    let request = ModelRequest { name: arguments.name.clone(), weights, in_channels: None };
    let description = with_loader(&catalogue, |loader| loader.describe(&request))?;
    let in_channels = arguments.channels.get().unwrap_or(description.architecture.in_channels);
    let architecture = Architecture { in_channels, ..description.architecture };
    let classes = arguments.classes.map(|classes| classes as usize).or(description.classes).unwrap_or(10);
    let size = arguments.input_size.map_or(description.preprocessing.crop, |size| size as usize);
    let mut out = stdout();
    writeln!(out, "{}", layer_tree(&architecture, classes))?;
    write!(out, "{}", stage_table(&architecture, classes, size))?;
    Ok(Outcome::Done)
}
