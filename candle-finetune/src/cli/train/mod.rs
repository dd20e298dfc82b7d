//! `finetune train`: a folder of photos → a bundle.

mod display;
mod options;
mod plan;
mod unfinished;
mod views;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use candle_core::Device;
use candle_finetune::Error;
use candle_finetune::bundle::{Draft, RunRecord};
use candle_finetune::extract::batch_size;
use candle_finetune::finetuning::{Derived, Findings, FineTuned, Machine, Validation, fine_tune_model};
use candle_finetune::images::Splits;
use candle_finetune::map_store::MapStore;
use candle_finetune::run_file::RunFile;
use candle_finetune::train::Metrics;
use candle_resnet::Model;
use candle_resnet::plan::Workload;
use clap::{ArgGroup, Args};

use super::Outcome;
use super::common::{
    CatalogueArgument, ChannelsArgument, DeviceArgument, FreshArgument, ModelArguments, PlanArguments,
    PreprocessingArguments, scan,
};
use super::interrupt::Interrupt;
use display::{Display, percent};
use options::TrainingOptions;
use unfinished::Unfinished;

#[derive(Args)]
#[command(group = ArgGroup::new("augmented").args(["augment", "config", "resume"]).multiple(true))]
pub struct Arguments {
    /// One folder per class, or `train/` and `val/` (or `test/`) of such
    #[arg(required_unless_present_any = ["config", "resume"])]
    dir: Option<PathBuf>,

    #[command(flatten)]
    model: ModelOptions,

    /// Repeat the run that a bundle's `run.toml` records, but for what is asked for besides
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Go on with a run that was stopped: the folder NAME.unfinished that it left beside its bundle
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["dir", "model", "config", "out", "overwrite"])]
    resume: Option<PathBuf>,

    /// Minutes after which the state of a training is saved, beside the end of each epoch (with --train-from)
    #[arg(long, value_name = "N", default_value = "10", value_parser = minutes)]
    checkpoint_minutes: Duration,

    /// Folder to write the bundle to; named after data and model if left out
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Replace the bundle's files where the folder exists, and begin anew where a run for it was stopped
    #[arg(long, requires = "out")]
    overwrite: bool,

    #[command(flatten)]
    device: DeviceArgument,

    #[command(flatten)]
    preprocessing: PreprocessingArguments,

    #[command(flatten)]
    plan: PlanArguments,

    #[command(flatten)]
    maps: MapOptions,

    #[command(flatten)]
    training: TrainingOptions,
}

/// Where maps at the boundary between what is frozen and what trains are kept.
#[derive(Args)]
#[command(next_help_heading = "Maps below what trains, computed once and kept (with --train-from layer1 to layer4)")]
struct MapOptions {
    /// Where to keep them [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER", env = "FINETUNE_MAP_CACHE", hide_env_values = true)]
    map_cache: Option<PathBuf>,

    /// What they may take there, in GB; what was not used for longest goes first
    #[arg(long, value_name = "GB", default_value_t = 20.0)]
    map_cache_size: f64,

    /// Compute them in every epoch instead
    #[arg(long)]
    no_map_cache: bool,
}

impl MapOptions {
    fn store(&self) -> Option<MapStore> {
        let folder = self.map_cache.clone().or_else(MapStore::default_folder);
        let folder = folder.filter(|folder| !self.no_map_cache && !folder.as_os_str().is_empty());
        folder.map(|folder| MapStore::new(folder, (1e9 * self.map_cache_size.max(0.0)) as u64))
    }
}

/// Which model, where a file may say it too.
#[derive(Args)]
struct ModelOptions {
    /// A model's name (see `finetune models`), `hf-hub:owner/name[@revision]`, or a folder that `finetune train`, timm or transformers wrote
    #[arg(long, value_name = "NAME|FOLDER", required_unless_present_any = ["config", "resume"])]
    model: Option<String>,

    /// Take the weights of the named architecture from this file (.safetensors, .pth, .pt, .th, .bin)
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    #[command(flatten)]
    channels: ChannelsArgument,

    #[command(flatten)]
    catalogue: CatalogueArgument,

    #[command(flatten)]
    fresh: FreshArgument,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let file = arguments.file()?;
    let mut record = arguments.record(file.as_ref().map(|file| &file.run));
    let plan_arguments = arguments.plan.after(&record.precision)?;
    record.precision = plan_arguments.precision().to_string();
    let mut settings = arguments.training.settings(file.as_ref().map(|file| &file.settings), record.no_pretrained)?;
    let dataset = scan(&record.data)?;
    dataset.check_for_training().map_err(candle_finetune::Error::from)?;
    let device = DeviceArgument::named(&record.device).open()?;
    let target = arguments.target(&record)?;
    let draft = Draft::new(&target, arguments.overwrite || arguments.resume.is_some())?;
    let mut model = arguments.load(&record, settings.head.seed)?;
    match file {
        Some(file) => model.preprocessing = file.preprocessing,
        None => arguments.training.take_drop_rates(&mut settings, model.drop_rates),
    }
    let model = arguments.preprocessing.adapt(model)?;
    let mut display = Display::new(Interrupt::listen()?);
    plan::print(&model, &dataset, &settings)?;
    let options = plan_arguments.options(workload(&model, &device));
    let store = arguments.maps.store();
    let run = RunFile::new(&record.clone().begun_here(), &model.preprocessing, &settings, &Derived::default());
    let unfinished = settings.tail.is_some().then(|| arguments.unfinished(&target, &run)).transpose()?;
    let checkpoints = unfinished.as_ref().map(Unfinished::checkpoints);
    let machine = Machine { device: &device, options: &options, maps: store.as_ref(), checkpoints };
    let tuned = fine_tune_model(&model, machine, &Splits::of(&dataset), &settings, &mut display);
    let tuned = match tuned {
        Ok(tuned) => tuned,
        Err(error) => {
            let in_vain = arguments.resume.is_none() && matches!(error, Error::Train(_));
            if let Some(unfinished) = unfinished {
                unfinished.close(!in_vain);
            }
            return Err(error.into());
        }
    };
    let bundle = draft.write(&model, &tuned, &settings, &for_anywhere(record))?.publish()?;
    print_result(&tuned, &bundle)?;
    if let Some(unfinished) = unfinished {
        unfinished.close(tuned.trained.interrupted);
    }
    Ok(Outcome::Done)
}

impl Arguments {
    /// What the run is of: what was asked for, and what `file` says of the rest.
    fn record(&self, file: Option<&RunRecord>) -> RunRecord {
        let here = RunRecord { device: self.device.name().into(), ..RunRecord::default() };
        let mut record = file.cloned().map_or(here, RunRecord::seen_from_here);
        if let Some(dir) = &self.dir {
            record.data = dir.clone();
        }
        let ModelOptions { model, weights, channels, fresh, .. } = &self.model;
        if let Some(model) = model {
            // What belongs to another model says nothing of this one.
            record = RunRecord { model: model.clone(), weights: None, in_chans: None, no_pretrained: false, ..record };
        }
        if let Some(weights) = weights {
            record.weights = Some(weights.clone());
            record.no_pretrained = false;
        }
        if fresh.no_pretrained {
            record.weights = None;
            record.no_pretrained = true;
        }
        record.in_chans = channels.get().or(record.in_chans);
        if let Some(device) = self.device.given() {
            record.device = device.into();
        }
        record
    }

    /// What says what the run is of, where that is no argument.
    fn file(&self) -> anyhow::Result<Option<RunFile>> {
        let of_run = self.resume.as_deref().map(unfinished::run_file).transpose()?;
        Ok(of_run.as_deref().or(self.config.as_deref()).map(RunFile::read).transpose()?)
    }

    /// The folder for the state of the run that `run` describes and that will write the bundle `target`.
    fn unfinished(&self, target: &Path, run: &RunFile) -> anyhow::Result<Unfinished> {
        match &self.resume {
            Some(folder) => Unfinished::resume(folder, self.checkpoint_minutes),
            None => Unfinished::begin(target, run, self.checkpoint_minutes, self.overwrite),
        }
    }

    fn load(&self, record: &RunRecord, seed: u64) -> anyhow::Result<Model> {
        let arguments = ModelArguments {
            model: record.model.clone(),
            weights: record.weights.clone(),
            channels: ChannelsArgument::of(record.in_chans),
            catalogue: self.model.catalogue.clone(),
        };
        arguments.load(record.no_pretrained.then_some(seed))
    }

    /// The folder that was asked for, or `DATA-MODEL` with a number where that is taken.
    fn target(&self, record: &RunRecord) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.resume {
            return unfinished::target_of(folder);
        }
        let data = record.data.canonicalize().unwrap_or_else(|_| record.data.clone());
        let target = self.out.clone().unwrap_or_else(|| default_target(&data, &record.model));
        // A bundle inside the data set would be a class of it the next time.
        if std::path::absolute(&target)?.starts_with(&data) {
            bail!("{}: lies inside the data set {}", target.display(), data.display());
        }
        Ok(target)
    }
}

/// What the frozen form is compiled for. It decides how a convolution is computed, so neither threads nor epochs nor the number of images
/// may change it: a run is the same on any number of threads, and maps that were kept serve other runs.
fn workload(model: &Model, device: &Device) -> Workload {
    const THREADS: usize = 2;
    let side = model.preprocessing.crop;
    Workload { image: (side, side), batch: batch_size(side, device), threads: THREADS, images: None }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    Duration::try_from_secs_f64(60.0 * minutes).map_err(|error| error.to_string())
}

/// The record with paths that mean the same wherever it is read.
fn for_anywhere(record: RunRecord) -> RunRecord {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    RunRecord { data: absolute(record.data), weights: record.weights.map(absolute), ..record }
}

/// In the working folder, or beside the data set where the working folder lies in it.
fn default_target(data: &Path, model: &str) -> PathBuf {
    let name = format!("{}-{}", last_part(data), last_part(Path::new(model)));
    let inside = std::env::current_dir().is_ok_and(|folder| folder.starts_with(data));
    let place = if inside { data.parent().unwrap_or(Path::new("")) } else { Path::new("") };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut candidates = std::iter::once(name.clone()).chain(numbered).map(|name| place.join(name));
    candidates
        .find(|candidate| candidate.symlink_metadata().is_err() && !unfinished::is_taken(candidate))
        .unwrap_or_else(|| place.join(&name))
}

/// `photos` of `some/photos/`; what cannot stand in a file name becomes `-`.
fn last_part(path: &Path) -> String {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.into());
    let name = absolute.file_name().unwrap_or(absolute.as_os_str()).to_string_lossy().into_owned();
    name.replace([':', '/', '\\', '@'], "-")
}

fn print_result(tuned: &FineTuned, bundle: &Path) -> std::io::Result<()> {
    if tuned.trained.interrupted {
        say!("{:>12} stopped early; this is the best so far", "note");
    }
    if let Some(Validation { epoch, top1, loss, images }) = tuned.trained.val {
        let after = if epoch == 0 { "of the head alone".into() } else { format!("after epoch {epoch}") };
        say!("{:>12} top-1 {} of {images} images, loss {loss:.4}, {after}", "val", percent(top1));
    }
    if let Some(Metrics { top1, loss, images, .. }) = tuned.test {
        say!("{:>12} top-1 {} of {images} images, loss {loss:.4}", "test", percent(top1));
    }
    print_findings(&tuned.findings);
    writeln!(std::io::stdout(), "{}", bundle.display())?;
    say!("try: finetune predict PHOTO --model {}", bundle.display());
    Ok(())
}

/// Skipped images, each with its reason, and what is worth knowing of the others.
pub fn print_findings(findings: &Findings) {
    for (name, note) in &findings.notes {
        tracing::info!("{name}: {note}");
    }
    for skipped in &findings.skipped {
        say!("skipped: {}", skipped.reason);
    }
    if !findings.skipped.is_empty() {
        say!("{:>12} {} images could not be read", "skipped", findings.skipped.len());
    }
}
