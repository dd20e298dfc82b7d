//! `finetune models`: every model that has a name.

mod entry;

use std::io::Write;

use anyhow::bail;
use candle_resnet::certificate::{PixelReference, VerifiedNetwork, verified_networks};
use clap::Args;
use serde_json::json;

use super::Outcome;
use super::common::CatalogueArgument;
use super::stdout::stdout;
use entry::{Entry, entries};

#[derive(Args)]
pub struct Arguments {
    /// Show only models with this in their name or in one of their other names
    #[arg(value_name = "PART")]
    part: Option<String>,

    /// One name a line and nothing else
    #[arg(long, conflicts_with_all = ["json", "verified"])]
    names: bool,

    /// One JSON object a line, with every field of the card, and other names
    #[arg(long)]
    json: bool,

    /// Show what was shown equal to other programs, and how near: networks with weights by formula (the largest relative
    /// difference of the trainable and of the frozen form), and pixels of a photo
    #[arg(long)]
    verified: bool,

    #[command(flatten)]
    catalogue: CatalogueArgument,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let catalogue = arguments.catalogue.open()?;
    let entries: Vec<Entry> = entries(&catalogue).into_iter().filter(|entry| arguments.shows(entry)).collect();
    if entries.is_empty() {
        bail!("no model's name contains `{}`", arguments.part.as_deref().unwrap_or_default());
    }
    let lines: Vec<String> = match arguments {
        Arguments { names: true, .. } => entries.iter().map(|entry| entry.name.into()).collect(),
        Arguments { verified: true, json, .. } => proofs(&entries, *json),
        Arguments { json: true, .. } => entries.iter().map(Entry::json).collect::<Result<_, _>>()?,
        _ => std::iter::once(Entry::header()).chain(entries.iter().map(Entry::text)).collect(),
    };
    let mut out = stdout();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    if arguments.verified {
        say!("weights by formula; pixels beside {}", PixelReference::program());
    }
    Ok(Outcome::Done)
}

impl Arguments {
    fn shows(&self, entry: &Entry<'_>) -> bool {
        let mut names = entry.aliases.iter().chain([&entry.name]);
        self.part.as_ref().is_none_or(|part| names.any(|name| name.contains(part.as_str())))
    }
}

/// A line for each name that was shown equal.
fn proofs(entries: &[Entry<'_>], as_json: bool) -> Vec<String> {
    let verified = verified_networks();
    let header = proof_row("name", "trainable", "frozen", "pixels", "network beside");
    let lines = entries.iter().filter_map(|entry| {
        let is_its = |network: &&VerifiedNetwork| entry.architecture.is_some_and(|a| a.name == network.architecture);
        let proof = Proof { entry, networks: verified.iter().filter(is_its).collect() };
        let lines = if as_json { proof.json() } else { vec![proof.text()] };
        (!proof.networks.is_empty()).then_some(lines)
    });
    (!as_json).then_some(header).into_iter().chain(lines.flatten()).collect()
}

/// What was shown of one name.
struct Proof<'a> {
    entry: &'a Entry<'a>,
    networks: Vec<&'a VerifiedNetwork>,
}

impl Proof<'_> {
    fn text(&self) -> String {
        let largest = |value: fn(&VerifiedNetwork) -> f64| {
            let largest = self.networks.iter().map(|network| value(network)).fold(0.0, f64::max);
            format!("{largest:.1e}")
        };
        let programs: Vec<&str> = self.networks.iter().map(|network| network.program).collect();
        let pixels = if self.pixels_are_equal() { "equal" } else { "" };
        let (trainable, frozen) = (largest(|network| network.trainable), largest(|network| network.frozen));
        proof_row(self.entry.name, &trainable, &frozen, pixels, &programs.join("; "))
    }

    /// One object for each program that it was compared with.
    fn json(&self) -> Vec<String> {
        let pixels = self.pixels_are_equal().then(PixelReference::program);
        let object = |network: &&VerifiedNetwork| {
            json!({
                "name": self.entry.name,
                "reference": format!("{}, formula weights", network.program),
                "trainable": network.trainable,
                "frozen": network.frozen,
                "pixels_equal_to": pixels,
            })
        };
        self.networks.iter().map(|network| object(network).to_string()).collect()
    }

    /// Whether a reference for exactly this preprocessing is stored; a test holds that all of those are equal.
    fn pixels_are_equal(&self) -> bool {
        let preprocessing = self.entry.preprocessing();
        let reference = preprocessing.as_ref().and_then(PixelReference::of);
        preprocessing == reference.map(|reference| reference.preprocessing())
    }
}

fn proof_row(name: &str, trainable: &str, frozen: &str, pixels: &str, programs: &str) -> String {
    format!("{name:<46}{trainable:>10}{frozen:>10}{pixels:>8}  {programs}")
}
