//! What a training tells, and to whom: people ([`Display`]) or machines ([`JsonLog`]).

use std::path::{Path, PathBuf};

use candle_finetune::Settings;
use candle_finetune::dataset::Dataset;
use candle_finetune::finetuning::{FineTuned, Observer, PartPlan, part_plans};
use candle_resnet::Model;
use clap::ValueEnum;

use super::display::Display;
use super::json_log::JsonLog;

/// Who reads what a training tells.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// Lines for people on stderr, on a terminal with bars below them; the bundle's path on stdout
    Text,
    /// One JSON object a line on stdout for each event; stderr has nothing but warnings, errors, and that it waits or stops
    Json,
}

impl LogFormat {
    /// A log of which nothing is told yet.
    pub fn begin(self) -> Box<dyn Log> {
        match self {
            LogFormat::Text => Box::new(Display::new()),
            LogFormat::Json => Box::new(JsonLog::begin()),
        }
    }
}

/// What is about to be trained.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub data: &'a Path,
    pub dataset: &'a Dataset,
    pub model: &'a Model,
    pub settings: &'a Settings,
}

impl Plan<'_> {
    /// What becomes of each part of the network; nothing where a head alone trains.
    pub fn parts(&self) -> candle_finetune::Result<Vec<PartPlan>> {
        parts(self.model, self.dataset, self.settings)
    }
}

/// What becomes of each part of a network; nothing where a head alone trains.
pub fn parts(model: &Model, dataset: &Dataset, settings: &Settings) -> candle_finetune::Result<Vec<PartPlan>> {
    let Some(tail) = &settings.tail else { return Ok(Vec::new()) };
    part_plans(&model.architecture, dataset.classes.len(), &tail.resolved(model.provenance.file.is_none()))
}

/// What came of it.
pub struct Trained {
    pub tuned: FineTuned,
    /// The folder with its weights.
    pub bundle: PathBuf,
    /// The page on it, where one was written.
    pub report: Option<PathBuf>,
    /// The folder from which a run that was stopped can go on.
    pub unfinished: Option<PathBuf>,
}

/// Is told of a training from its beginning to its end.
pub trait Log: Observer {
    /// What is worth knowing.
    fn note(&mut self, note: &str);

    /// What is about to be done.
    ///
    /// # Errors
    /// If the network has no part that is to train.
    fn plan(&mut self, plan: &Plan<'_>) -> anyhow::Result<()>;

    /// All is done.
    ///
    /// # Errors
    /// If stdout cannot be written to.
    fn result(&mut self, trained: &Trained) -> std::io::Result<()>;

    /// The run ended without a result, and can go on from this folder.
    fn unfinished(&mut self, folder: &Path);

    /// The run failed; whoever called the program is told elsewhere.
    fn error(&mut self, error: &anyhow::Error);
}
