//! What a training is of: arguments that say it, and what they and a file say together.

use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_finetune::dataset::Dataset;
use candle_finetune::extract::batch_size;
use candle_finetune::finetuning::{Machine, fitting_batch_size};
use candle_finetune::map_store::MapStore;
use candle_finetune::run_file::{RunFile, RunRecord};
use candle_finetune::train::tail::TailSettings;
use candle_finetune::{Settings, Splits};
use candle_resnet::Model;
use candle_resnet::plan::{PlanOptions, Workload};
use candle_resnet::preprocess::Preprocessing;
use clap::Args;

use super::log::Log;
use super::options::TrainingOptions;
use crate::cli::common::{
    CatalogueArgument, ChannelsArgument, DeviceArgument, FreshArgument, ModelArguments, PlanArguments,
    PreprocessingArguments, scan_telling,
};

/// Data, model, settings and machine. What stands in for data and model is in the group `recorded`.
#[derive(Args)]
pub struct RunArguments {
    /// One folder per class, or `train/` and `val/` (or `test/`) of such
    #[arg(required_unless_present = "recorded")]
    dir: Option<PathBuf>,

    #[command(flatten)]
    model: ModelOptions,

    /// Repeat the run that a bundle's `run.toml` records, but for what is asked for besides
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

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
    #[arg(long, value_name = "NAME|FOLDER", required_unless_present = "recorded")]
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

/// What arguments and a file say together, before anything is loaded.
pub struct Asked {
    /// Data and model.
    pub record: RunRecord,
    /// Everything else; [`RunArguments::load`] adds what the model says.
    pub settings: Settings,
    plan: PlanArguments,
    /// What a file says happens to a photo.
    preprocessing: Option<Preprocessing>,
}

impl RunArguments {
    /// What is asked for beside what `file` says.
    pub fn asked(&self, file: Option<RunFile>) -> anyhow::Result<Asked> {
        let mut record = self.record(file.as_ref().map(|file| &file.run));
        let plan = self.plan.after(&record.precision)?;
        record.precision = plan.precision().to_string();
        let settings = self.training.settings(file.as_ref().map(|file| &file.settings), record.no_pretrained)?;
        Ok(Asked { record, settings, plan, preprocessing: file.map(|file| file.preprocessing) })
    }

    /// Data and model: what was asked for, and what `file` says of the rest.
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

    /// Loads the model; settings that nobody gave follow it.
    pub fn load(&self, asked: &mut Asked, log: &mut dyn Log) -> anyhow::Result<Model> {
        let Asked { record, settings, preprocessing, .. } = asked;
        let arguments = ModelArguments {
            model: record.model.clone(),
            weights: record.weights.clone(),
            channels: ChannelsArgument::of(record.in_chans),
            catalogue: self.model.catalogue.clone(),
        };
        let fresh = record.no_pretrained.then_some(settings.head.seed);
        let mut model = arguments.load_telling(fresh, &mut |note| log.note(note))?;
        match preprocessing {
            Some(preprocessing) => model.preprocessing = preprocessing.clone(),
            None => self.training.take_drop_rates(settings, model.drop_rates),
        }
        self.preprocessing.adapt(model)
    }

    /// Whether batches are to be as large as there is room for.
    pub fn fits_batches(&self) -> bool {
        self.training.fits_batches()
    }

    /// Makes batches as large as there is room for, where that was asked for.
    pub fn fit_batches(
        &self,
        settings: &mut Settings,
        (model, machine): (&Model, Machine<'_>),
        dataset: &Dataset,
        log: &mut dyn Log,
    ) -> anyhow::Result<()> {
        let Some(tail) = settings.tail.as_ref().filter(|_| self.training.fits_batches()) else { return Ok(()) };
        let batch_size = fitting_batch_size(model, machine, &Splits::of(dataset), settings)?;
        log.note(&format!("batches of {batch_size} images, as --batch-size auto has them"));
        settings.tail = Some(TailSettings { batch_size, ..tail.clone() });
        Ok(())
    }

    /// Where maps are kept.
    pub fn map_store(&self) -> Option<MapStore> {
        self.maps.store()
    }

    /// Whether a learning rate was asked for.
    pub fn gives_lr(&self) -> bool {
        self.training.gives_lr()
    }
}

impl Asked {
    /// Reads the data set's folder.
    pub fn dataset(&self, log: &mut dyn Log) -> anyhow::Result<Dataset> {
        let dataset = scan_telling(&self.record.data, &mut |note| log.note(note))?;
        dataset.check_for_training().map_err(candle_finetune::Error::from)?;
        Ok(dataset)
    }

    /// Where to compute.
    pub fn device(&self) -> anyhow::Result<Device> {
        self.plan.open(&DeviceArgument::named(&self.record.device))
    }

    /// How the frozen form of `model` is compiled.
    ///
    /// The workload decides how a convolution is computed, so neither threads nor epochs nor the number of images may change it: a run is
    /// the same on any number of threads, and maps that were kept serve other runs.
    pub fn options(&self, model: &Model, device: &Device) -> PlanOptions {
        const THREADS: usize = 2;
        let side = model.preprocessing.crop;
        let batch = batch_size(side, device);
        self.plan.options(device, Workload { image: (side, side), batch, threads: THREADS, images: None })
    }

    /// What is trained on what.
    pub fn title(&self) -> String {
        let from = self.settings.tail.as_ref().map_or("head".into(), |tail| tail.train_from.to_string());
        let [data, model] = [&self.record.data, Path::new(&self.record.model)].map(last_part);
        format!("{model} on {data}, --train-from {from}")
    }

    /// `DATA-MODEL`, `what` and `extension`, with a number before the latter where that `is_taken`: in the working folder, or beside the
    /// data set where the working folder lies in it.
    pub fn default_target(&self, what: &str, extension: &str, is_taken: impl Fn(&Path) -> bool) -> PathBuf {
        let data = canonical(&self.record.data);
        let name = format!("{}-{}{what}", last_part(&data), last_part(Path::new(&self.record.model)));
        let inside = std::env::current_dir().is_ok_and(|folder| folder.starts_with(&data));
        let place = if inside { data.parent().unwrap_or(Path::new("")) } else { Path::new("") };
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let names = std::iter::once(name.clone()).chain(numbered);
        let mut candidates = names.map(|name| place.join(name + extension));
        candidates
            .find(|candidate| candidate.symlink_metadata().is_err() && !is_taken(candidate))
            .unwrap_or_else(|| place.join(name + extension))
    }
}

/// The path without links, or as it is where there is nothing.
pub fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.into())
}

/// `photos` of `some/photos/`; what cannot stand in a file name becomes `-`.
fn last_part(path: &Path) -> String {
    let absolute = canonical(path);
    let name = absolute.file_name().unwrap_or(absolute.as_os_str()).to_string_lossy().into_owned();
    name.replace([':', '/', '\\', '@'], "-")
}
