//! `finetune models`: every model that has a name.

use std::io::Write;

use anyhow::bail;
use candle_resnet::architecture::{ARCHITECTURES, Architecture};
use candle_resnet::blueprint::Blueprint;
use candle_resnet::card::ModelCard;
use candle_resnet::catalogue::Catalogue;
use clap::Args;

use super::Outcome;
use super::common::CatalogueArgument;

#[derive(Args)]
pub struct Arguments {
    /// Show only names that contain this
    #[arg(value_name = "PART")]
    part: Option<String>,

    /// One name a line and nothing else
    #[arg(long)]
    names: bool,

    #[command(flatten)]
    catalogue: CatalogueArgument,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let catalogue = arguments.catalogue.open()?;
    let rows = ARCHITECTURES.iter().flat_map(|architecture| rows(&catalogue, architecture));
    let rows: Vec<Row> = rows.filter(|row| arguments.shows(&row.name)).collect();
    if rows.is_empty() {
        bail!("no model's name contains `{}`", arguments.part.as_deref().unwrap_or_default());
    }
    let mut out = std::io::stdout().lock();
    if !arguments.names {
        writeln!(out, "{:<46}{:>10}{:>7}{:>9}  licence", "name", "parameters", "pixels", "top-1")?;
    }
    for row in &rows {
        writeln!(out, "{}", if arguments.names { row.name.clone() } else { row.text() })?;
    }
    Ok(Outcome::Done)
}

impl Arguments {
    fn shows(&self, name: &str) -> bool {
        self.part.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }
}

struct Row {
    name: String,
    parameters: usize,
    pixels: usize,
    top1: Option<f64>,
    remark: String,
}

/// The weights of an architecture, its default first; the architecture itself where nobody published any.
fn rows(catalogue: &Catalogue, architecture: &Architecture) -> Vec<Row> {
    let cards: Vec<&ModelCard> =
        catalogue.cards().iter().filter(|card| card.architecture == architecture.name).collect();
    if cards.is_empty() {
        return vec![Row {
            name: architecture.name.into(),
            parameters: Blueprint::of(architecture).parameter_count(10),
            pixels: architecture.default_preprocessing().crop,
            top1: None,
            remark: "no published weights: --weights FILE or --no-pretrained".into(),
        }];
    }
    let default = catalogue.default_of(architecture.name);
    cards.into_iter().map(|card| card_row(card, default == Some(card))).collect()
}

fn card_row(card: &ModelCard, is_default: bool) -> Row {
    let licence = card.license.clone().unwrap_or_else(|| "not stated".into());
    let features_only = if card.classes == 0 { "  features only, no classifier" } else { "" };
    let default = if is_default { format!("  = {}", card.architecture) } else { String::new() };
    Row {
        name: card.name.clone(),
        parameters: card.parameters,
        pixels: card.input_size,
        top1: card.top1,
        remark: format!("{licence}{features_only}{default}"),
    }
}

impl Row {
    fn text(&self) -> String {
        let millions = format!("{:.2} M", self.parameters as f64 / 1e6);
        let top1 = self.top1.map_or_else(String::new, |top1| format!("{:.2} %", 100.0 * top1));
        format!("{:<46}{millions:>10}{:>7}{top1:>9}  {}", self.name, self.pixels, self.remark)
    }
}
