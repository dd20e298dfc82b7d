//! What fine-tuning leaves behind: a folder in timm's local format, loadable here and by timm alike.
//!
//! `config.json` and `model.safetensors` (the whole network under torchvision's names) are the model; beside them lie
//! `metrics.csv` (every epoch), `run.toml` (the settings), `splits.csv` (where each training image went) and, unless a tail's training was
//! stopped, `neighbours.safetensors` (the training images by their features).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_resnet::config::{DropRates, ModelConfig};
use candle_resnet::part::Part;
use candle_resnet::{Model, hub, weights};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::calibration::stored;
use crate::error::{Error, Result, io_error, safetensors_io};
use crate::finetuning::{FineTuned, Phase, Settings, Stage};
use crate::images::Splits;
use crate::neighbours::{self, NeighboursError};
use crate::report;
use crate::reservation::Reservation;
use crate::run_file::RunFile;
pub use crate::run_file::RunRecord;
use crate::table::write_rows;
use crate::train::EpochRecord;

/// Files of a bundle that not every one has: the neighbours, and the report, which is written when all else is there.
const OPTIONAL: [&str; 2] = [neighbours::FILE, report::PAGE];

/// A bundle that is to be written; nothing of it is visible under its name until [`WrittenDraft::publish`].
///
/// Made before the work begins, so that a place that cannot be written to is found then. While the work goes on nothing but files without a
/// name lies on disk, so that a run that is killed leaves nothing behind; NFS and Windows show them under names of their own until then.
#[derive(Debug)]
pub struct Draft {
    target: PathBuf,
    overwrite: bool,
    /// Room for the files that will be written.
    reserved: Reservation,
}

/// A bundle whose files are all written, in a folder of another name beside its place.
#[derive(Debug)]
pub struct WrittenDraft {
    draft: Draft,
    folder: TempDir,
}

impl Draft {
    /// Prepares to write the bundle `target`.
    ///
    /// # Errors
    /// [`Error::Exists`] if `target` exists and `overwrite` is not set; if it exists and is no folder; if its parent
    /// cannot be written to.
    pub fn new(target: &Path, overwrite: bool) -> Result<Draft> {
        // A link to nowhere is in the way as well.
        if target.symlink_metadata().is_ok() && !overwrite {
            return Err(Error::Exists(target.into()));
        }
        if target.symlink_metadata().is_ok() && !target.is_dir() {
            return Err(io_error(target)(io::ErrorKind::NotADirectory.into()));
        }
        let draft = Draft { target: target.into(), overwrite, reserved: Reservation::default() };
        drop(draft.folder()?); // Only to see whether it can be made.
        Ok(draft)
    }

    /// Keeps room on the disk for what `settings` will make of `model` on `splits`, and for a report where there will be one, until each file is
    /// written or the process ends: what is trained for hours is not lost to whoever fills the disk meanwhile. Where that cannot be done nothing
    /// is kept.
    ///
    /// # Errors
    /// [`Error::NoRoom`] if the disk is too full.
    pub fn reserve(
        mut self,
        model: &Model,
        splits: &Splits<'_>,
        settings: &Settings,
        has_report: bool,
    ) -> Result<Draft> {
        let mut files = sizes(model, splits, settings);
        files.extend(has_report.then_some((report::PAGE, REPORT_BYTES)));
        match Reservation::of(self.place(), &files) {
            Ok(reserved) => self.reserved = reserved,
            Err(source) => {
                let bytes = files.iter().map(|(_, bytes)| bytes).sum();
                let free = fs4::available_space(self.place()).unwrap_or_default();
                return Err(Error::NoRoom { target: self.target, bytes, free, source });
            }
        }
        Ok(self)
    }

    /// Where its files are written: beside the target, or in it where its files are to be replaced, so that a rename stays on one disk.
    fn place(&self) -> &Path {
        match self.target.parent() {
            _ if self.overwrite && self.target.is_dir() => &self.target,
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn folder(&self) -> Result<TempDir> {
        let place = self.place();
        fs::create_dir_all(place).map_err(io_error(place))?;
        folder_in(place)
    }

    /// Writes every file of the bundle.
    ///
    /// # Errors
    /// If a file cannot be written; the target is then as it was. [`Error::Elsewhere`] if they could all be written to the system's folder for
    /// temporary files.
    pub fn write(
        mut self,
        model: &Model,
        tuned: &FineTuned,
        settings: &Settings,
        run: &RunRecord,
    ) -> Result<WrittenDraft> {
        let contents = Contents { model, tuned, settings, run };
        match self.folder().and_then(|folder| contents.write(folder, &self.target, &mut self.reserved)) {
            Ok(folder) => Ok(WrittenDraft { draft: self, folder }),
            Err(cause) => {
                self.reserved = Reservation::default(); // It may be the same disk.
                let elsewhere = folder_in(&std::env::temp_dir());
                let elsewhere = elsewhere.and_then(|folder| contents.write(folder, &self.target, &mut self.reserved));
                Err(match elsewhere {
                    Ok(folder) => Error::Elsewhere { cause: Box::new(cause), kept: from_here(folder.keep()) },
                    Err(_) => cause,
                })
            }
        }
    }
}

/// A new folder for the files of a bundle.
fn folder_in(parent: &Path) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".bundle-");
    // A temporary folder is its owner's alone; what becomes of this one is like any other folder.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent).map_err(io_error(parent))
}

/// Of a report on some hundred epochs and what lies beside it, about.
const REPORT_BYTES: u64 = 1 << 21;

/// Names and bytes of a bundle's files, about.
fn sizes(model: &Model, splits: &Splits<'_>, settings: &Settings) -> Vec<(&'static str, u64)> {
    /// Of a row in a table of images, beside the image's name.
    const ROW: usize = 32;
    /// Of a row in the table of epochs.
    const EPOCH: usize = 100;
    /// Of what a file of weights says of a tensor.
    const TENSOR: usize = 128;
    /// Of what grows with none of these.
    const BESIDE: usize = 1 << 14;
    let (architecture, images) = (&model.architecture, splits.train);
    let tensors = Part::tensors(architecture, splits.classes.len());
    let weights: usize = tensors.iter().map(|(_, spec)| 4 * spec.elements() + TENSOR).sum();
    let rows: usize = (0..images.len()).map(|image| images.name(image).len() + ROW).sum();
    let classes: usize = splits.classes.iter().map(|class| class.len() + ROW).sum();
    let index = (2 * architecture.feature_width() * images.len() + rows).min(neighbours::MAX_BYTES);
    let sizes = [
        ("config.json", classes),
        ("model.safetensors", weights),
        ("metrics.csv", EPOCH * epochs(settings)),
        ("splits.csv", rows),
        ("run.toml", 0),
        (neighbours::FILE, index + classes),
    ];
    sizes.map(|(name, bytes)| (name, (bytes + BESIDE) as u64)).into()
}

/// Epochs of all phases, unless patience ends them.
fn epochs(settings: &Settings) -> usize {
    let head = settings.head.epochs;
    match &settings.tail {
        Some(tail) => usize::from(tail.head_first) * head + tail.epochs,
        None => (1 + usize::from(settings.refit)) * head,
    }
}

/// What a bundle says.
struct Contents<'a> {
    model: &'a Model,
    tuned: &'a FineTuned,
    settings: &'a Settings,
    run: &'a RunRecord,
}

impl Contents<'_> {
    /// Writes every file to `folder`, in the room that is `reserved` for it; errors name those of `target`.
    fn write(&self, folder: TempDir, target: &Path, reserved: &mut Reservation) -> Result<TempDir> {
        let &Contents { model, tuned, settings, run } = self;
        let mut write = |name, content: &dyn Fn(&Path) -> Result<()>| {
            reserved.give_back(name);
            write_file(&folder.path().join(name), &target.join(name), content)
        };
        write("config.json", &|path| {
            fs::write(path, config(model, tuned, settings)?.to_json()).map_err(io_error(path))
        })?;
        let tensors = delivered(model, tuned)?;
        write("model.safetensors", &|path| write_weights(path, &tensors))?;
        write("metrics.csv", &|path| write_rows(path, metrics_rows(tuned)))?;
        write("splits.csv", &|path| write_rows(path, split_rows(tuned)))?;
        let run = RunFile::new(run, &model.preprocessing, settings, &tuned.trained.derived);
        write("run.toml", &|path| fs::write(path, run.to_toml()).map_err(io_error(path)))?;
        if let Some(index) = &tuned.neighbours {
            let network = neighbours::identity_with(model, &tensors)?;
            write(neighbours::FILE, &|path| Ok(index.write(path, &network)?))?;
        }
        Ok(folder)
    }
}

/// Writes one file and makes sure that it has reached the disk; errors name it as it is `shown`.
fn write_file(path: &Path, shown: &Path, content: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
    content(path).map_err(|error| under_its_final_name(error, shown))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error(shown))
}

impl WrittenDraft {
    /// Gives the bundle its name. Where the folder exists and may be overwritten, only files of a bundle are replaced.
    ///
    /// # Errors
    /// [`Error::Unpublished`] if someone made the folder meanwhile or the system refuses: the bundle stays where it was written.
    pub fn publish(self) -> Result<PathBuf> {
        let WrittenDraft { draft: Draft { target, overwrite, .. }, folder } = self;
        match give_name(folder.path(), &target, overwrite) {
            Ok(()) => Ok(target), // What is left of the folder goes.
            Err(cause) => Err(Error::Unpublished { cause: Box::new(cause), kept: from_here(folder.keep()) }),
        }
    }
}

/// Moves the bundle in `folder` to `target`.
fn give_name(folder: &Path, target: &Path, overwrite: bool) -> Result<()> {
    if target.symlink_metadata().is_err() {
        return fs::rename(folder, target).map_err(io_error(target));
    }
    if !overwrite {
        let cause = io::Error::new(io::ErrorKind::AlreadyExists, "was made by somebody else meanwhile");
        return Err(io_error(target)(cause));
    }
    // What only some bundles have must not be taken for this one's.
    for stale in OPTIONAL.map(|name| target.join(name)).into_iter().filter(|stale| stale.is_file()) {
        fs::remove_file(&stale).map_err(io_error(stale))?;
    }
    replace_files(folder, target)
}

/// Moves the files of `folder` to `target`. Where one cannot be moved all come back: a bundle in two places is none.
fn replace_files(folder: &Path, target: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut moved = Vec::new();
    for entry in entries.map_err(io_error(folder))? {
        let (file, place) = (entry.path(), target.join(entry.file_name()));
        if let Err(source) = fs::rename(&file, &place) {
            moved.iter().for_each(|(file, place)| drop(fs::rename(place, file)));
            return Err(io_error(place)(source));
        }
        moved.push((file, place));
    }
    Ok(())
}

/// A path as it is named from where the program runs.
fn from_here(path: PathBuf) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).map(Path::to_owned).unwrap_or(path)
}

fn under_its_final_name(error: Error, shown: &Path) -> Error {
    match error {
        Error::Io { source, .. } | Error::Neighbours(NeighboursError::Io { source, .. }) => {
            Error::Io { path: shown.into(), source }
        }
        other => other,
    }
}

/// The bundle's `config.json`.
fn config(model: &Model, tuned: &FineTuned, settings: &Settings) -> Result<ModelConfig> {
    Ok(ModelConfig {
        label_names: Some(tuned.classes.clone()),
        preprocessing: model.preprocessing.clone(),
        drop_rates: DropRates {
            features: settings.drop_rate(),
            paths: settings.tail.as_ref().map_or(model.drop_rates.paths, |tail| tail.drop_path),
        },
        license: model.provenance.license.clone(),
        origin_url: model.provenance.origin_url.clone(),
        extra: extra(model, tuned)?,
        ..ModelConfig::new(model.architecture, tuned.classes.len())
    })
}

/// What timm passes over.
fn extra(model: &Model, tuned: &FineTuned) -> Result<Map<String, Value>> {
    let mut extra = Map::new();
    extra.insert("pretrained_from".into(), pretrained_from(model)?);
    extra.insert("metrics".into(), final_metrics(tuned));
    if let Some(calibration) = &tuned.trained.calibration {
        extra.insert(stored::FIELD.into(), stored::to_value(calibration));
    }
    Ok(extra)
}

/// Where the frozen weights came from; nothing where they were drawn.
fn pretrained_from(model: &Model) -> Result<Value> {
    let provenance = &model.provenance;
    let Some(file) = &provenance.file else { return Ok(Value::Null) };
    let sha256 = match &provenance.sha256 {
        Some(sha256) => sha256.clone(),
        None => hub::sha256_of(file).map_err(io_error(file))?,
    };
    Ok(json!({
        "model": provenance.model,
        "repository": provenance.repository,
        "commit": provenance.commit,
        "file": file.file_name().map(|name| name.to_string_lossy()),
        "sha256": sha256,
    }))
}

fn final_metrics(tuned: &FineTuned) -> Value {
    json!({
        "val_top1": tuned.trained.val.map(|metrics| metrics.top1),
        "val_images": tuned.trained.val.map(|metrics| metrics.images),
        "test_top1": tuned.test.map(|metrics| metrics.top1),
        "test_images": tuned.test.map(|metrics| metrics.images),
    })
}

/// The frozen tensors as they were loaded, and those that trained in the place of the old.
fn delivered(model: &Model, tuned: &FineTuned) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors: BTreeMap<String, Tensor> = weights::tensors(&model.weights)?;
    tensors.extend(tuned.trained.tensors.clone());
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    }
    Ok(tensors)
}

/// The whole network under torchvision's names.
fn write_weights(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    // timm and transformers ask for this entry.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    // safetensors makes files that are their owner's alone; a bundle's are like any other file.
    let permissions = File::create(path).and_then(|file| file.metadata()).map_err(io_error(path))?.permissions();
    safetensors::serialize_to_file(tensors, Some(metadata), path)
        .map_err(|error| io_error(path)(safetensors_io(error)))?;
    fs::set_permissions(path, permissions).map_err(io_error(path))
}

#[derive(Serialize)]
struct MetricsRow {
    phase: &'static str,
    epoch: usize,
    lr: f64,
    train_loss: f64,
    train_top1: Option<f64>,
    val_loss: Option<f64>,
    val_top1: Option<f64>,
    seconds: f64,
}

fn metrics_rows(tuned: &FineTuned) -> impl Iterator<Item = MetricsRow> {
    let row = |phase, record: &EpochRecord| MetricsRow {
        phase,
        epoch: record.epoch,
        lr: record.lr,
        train_loss: record.train_loss,
        train_top1: record.train_top1,
        val_loss: record.val_loss,
        val_top1: record.val_top1,
        seconds: record.seconds,
    };
    tuned.trained.stages.iter().flat_map(move |Stage { phase, epochs }| {
        let name = match phase {
            Phase::Head => "head",
            Phase::Refit => "refit",
            _ => "fit",
        };
        epochs.iter().map(move |record| row(name, record))
    })
}

#[derive(Serialize)]
struct SplitRow<'a> {
    image: &'a str,
    class: &'a str,
    split: &'static str,
}

fn split_rows(tuned: &FineTuned) -> impl Iterator<Item = SplitRow<'_>> {
    tuned.assignments.iter().map(|assignment| SplitRow {
        image: &assignment.image,
        class: tuned.classes.get(assignment.label).map_or("", String::as_str),
        split: if assignment.held_out { "held out" } else { "train" },
    })
}
