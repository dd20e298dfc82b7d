//! `finetune doctor`: what is wrong with a folder of photos, before anything is learned from it.

mod list;
mod text;

use std::io::Write;
use std::path::PathBuf;

use candle_finetune::Error;
use candle_finetune::dataset::{self, Survey};
use candle_finetune::doctor::{Eye, Finding, Report, Severity, examine};
use candle_finetune::extract::batch_size;
use candle_finetune::report::write_examination;
use candle_resnet::Trunk;
use candle_resnet::preprocess::Preprocessing;
use clap::Args;

use super::Outcome;
use super::common::{
    CatalogueArgument, ChannelsArgument, DeviceArgument, ModelArguments, PlanArguments, PreprocessingArguments,
    check_can_write,
};
use super::interrupt::Interrupt;
use super::progress::ImagePass;
use super::stdout::stdout;

#[derive(Args)]
pub struct Arguments {
    /// One folder per class, or `train/` and `val/` (or `test/`) of such
    dir: PathBuf,

    /// Look at labels and for outliers too, with the features of this frozen network: a name (see `finetune models`) or a folder
    #[arg(long, value_name = "NAME|FOLDER")]
    model: Option<String>,

    /// Take the weights of the named architecture from this file (.safetensors, .pth, .pt, .th, .bin)
    #[arg(long, value_name = "FILE", requires = "model")]
    weights: Option<PathBuf>,

    /// One JSON object a line for each finding: kind, severity, files, score, proposed label, advice
    #[arg(long)]
    json: bool,

    /// Write a table of all images too: label, its probability, the most probable other, distance to other images
    #[arg(long, value_name = "FILE.csv")]
    list: Option<PathBuf>,

    /// Write a page that a browser shows, with pictures
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,

    /// Replace table and page where they exist
    #[arg(long)]
    overwrite: bool,

    /// Examples of each kind of finding that are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    examples: usize,

    #[command(flatten)]
    channels: ChannelsArgument,

    #[command(flatten)]
    catalogue: CatalogueArgument,

    #[command(flatten)]
    device: DeviceArgument,

    #[command(flatten)]
    preprocessing: PreprocessingArguments,

    #[command(flatten)]
    plan: PlanArguments,
}

/// Runs the command. It fails where something was found that makes training or its measurements worthless.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    for file in arguments.list.iter().chain(&arguments.report) {
        check_can_write(file, arguments.overwrite)?;
    }
    let survey = dataset::survey(&arguments.dir).map_err(Error::from)?;
    let images = survey.dataset.splits.values().map(Vec::len).sum();
    let network = arguments.network(images)?;
    let report = look(&survey, network.as_ref(), images)?;
    if let Some(file) = &arguments.list {
        list::write(file, &report, &survey.dataset.classes)?;
    }
    if let Some(page) = &arguments.report {
        write_examination(&report, &arguments.dir, page)?;
        say!("see: {}", page.display());
    }
    if arguments.json {
        print_json(&report.findings)?
    } else {
        text::print(&report, &arguments.dir, arguments.examples)?
    }
    if network.is_none() {
        say!("labels and outliers were not looked at: that takes a network (--model resnet18)");
    }
    let is_bad = |finding: &Finding| finding.severity == Severity::Error;
    Ok(if report.findings.iter().any(is_bad) { Outcome::Unsatisfied } else { Outcome::Done })
}

fn look(survey: &Survey, network: Option<&(Trunk, Preprocessing)>, images: usize) -> anyhow::Result<Report> {
    let eye = network.map(|(trunk, preprocessing)| Eye { trunk, preprocessing });
    let pass = ImagePass::new(images, Interrupt::listen()?);
    Ok(pass.run(|observer| examine(survey, eye, observer))?)
}

impl Arguments {
    /// The frozen network that was asked for, and how its images are prepared.
    fn network(&self, images: usize) -> anyhow::Result<Option<(Trunk, Preprocessing)>> {
        let Some(name) = &self.model else { return Ok(None) };
        let arguments = ModelArguments {
            model: name.clone(),
            weights: self.weights.clone(),
            channels: self.channels,
            catalogue: self.catalogue.clone(),
        };
        let device = self.plan.open(&self.device)?;
        let model = self.preprocessing.adapt(arguments.load(None)?)?;
        let batch = batch_size(model.preprocessing.crop, &device);
        let trunk = model.trunk_with(&device, &self.plan.options_for(&device, &model, images, batch))?;
        Ok(Some((trunk, model.preprocessing)))
    }
}

fn print_json(findings: &[Finding]) -> anyhow::Result<()> {
    let mut out = stdout();
    for finding in findings {
        writeln!(out, "{}", serde_json::to_string(finding)?)?;
    }
    Ok(())
}
