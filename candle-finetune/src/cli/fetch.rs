//! `finetune fetch`: a name → a weights file in the cache.

use std::io::Write;

use candle_resnet::model::ModelRequest;
use clap::Args;

use super::Outcome;
use super::common::{CatalogueArgument, with_loader};
use super::stdout::stdout;

#[derive(Args)]
pub struct Arguments {
    /// A model's name (see `finetune models`) or `hf-hub:owner/name[@revision]`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    catalogue: CatalogueArgument,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let catalogue = arguments.catalogue.open()?;
    for name in &arguments.names {
        let request = ModelRequest::named(name);
        let file = with_loader(&catalogue, |loader| loader.locate(&loader.describe(&request)?))?;
        match file {
            Some(file) => writeln!(stdout(), "{}", file.path.display())?,
            None => say!("{name}: built into the program, there is nothing to fetch"),
        }
    }
    Ok(Outcome::Done)
}
