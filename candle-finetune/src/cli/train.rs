//! `finetune train`: a folder of photos → a bundle.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_finetune::augment::{Augmentation, Policy};
use candle_finetune::bundle::{Draft, RunRecord};
use candle_finetune::dataset::{Dataset, SplitName};
use candle_finetune::extract::batch_size;
use candle_finetune::finetuning::{Findings, FineTuned, Observer, Phase, Settings, Validation, fine_tune};
use candle_finetune::images::Splits;
use candle_finetune::train::schedule::Shape;
use candle_finetune::train::{ClassWeights, EpochRecord, HeadSettings, Metrics, OptimizerSettings};
use candle_resnet::Model;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::Outcome;
use super::common::{DeviceArgument, FreshArgument, ModelArguments, PlanArguments, PreprocessingArguments, scan};
use super::interrupt::Interrupt;
use super::progress::image_bar;

#[derive(Args)]
pub struct Arguments {
    /// One folder per class, or `train/` and `val/` (or `test/`) of such
    dir: PathBuf,

    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    fresh: FreshArgument,

    /// Folder to write the bundle to; named after data and model if left out
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Replace the bundle's files where the folder exists
    #[arg(long, requires = "out")]
    overwrite: bool,

    #[command(flatten)]
    device: DeviceArgument,

    #[command(flatten)]
    preprocessing: PreprocessingArguments,

    #[command(flatten)]
    plan: PlanArguments,

    #[command(flatten)]
    training: TrainingArguments,
}

/// Augmented views of each image where nobody says how many.
const VIEWS: usize = 4;

#[derive(Args)]
#[command(next_help_heading = "Training")]
struct TrainingArguments {
    /// Passes over the training images' features
    #[arg(long, default_value_t = HeadSettings::default().epochs, value_name = "N")]
    epochs: usize,

    /// Images per step
    #[arg(long, default_value_t = HeadSettings::default().batch_size, value_name = "N")]
    batch_size: usize,

    /// Highest learning rate; derived from the features if left out
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f64>,

    /// Optimiser
    #[arg(long, value_enum, default_value_t = OptimizerName::Sgd)]
    optimizer: OptimizerName,

    /// Momentum of SGD [default: 0.9]
    #[arg(long, allow_negative_numbers = true)]
    momentum: Option<f64>,

    /// SGD without Nesterov's look ahead
    #[arg(long)]
    no_nesterov: bool,

    /// Pull of the weights towards 0; derived from the features if left out
    #[arg(long, allow_negative_numbers = true)]
    weight_decay: Option<f64>,

    /// Part of the features that is zero in each step [default: the model's own, mostly 0]
    #[arg(long, allow_negative_numbers = true, value_name = "FRACTION")]
    drop_rate: Option<f64>,

    /// Part of each target that is spread over all classes
    #[arg(long, allow_negative_numbers = true, default_value_t = HeadSettings::default().label_smoothing)]
    label_smoothing: f64,

    /// What each class counts in the loss
    #[arg(long, value_enum, default_value_t = ClassWeightsName::None)]
    class_weights: ClassWeightsName,

    /// How the learning rate goes: cosine, linear or constant after the warm-up; one-cycle; step=EVERY:GAMMA
    ///
    /// cosine, linear    down to 0
    /// constant          stays at its highest
    /// one-cycle         as PyTorch's OneCycleLR, which rises in the warm-up from 1/25 of the highest
    /// step=EVERY:GAMMA  times GAMMA after every so many epochs (30:0.1)
    #[arg(long, default_value_t, value_name = "SHAPE", verbatim_doc_comment)]
    schedule: Shape,

    /// Epochs in which the learning rate rises [default: 1, or 0 where there is one epoch only; 0.3 of a one-cycle]
    #[arg(long, value_name = "N")]
    warmup_epochs: Option<usize>,

    /// Stop after so many epochs without a better validation accuracy
    #[arg(long, value_name = "N")]
    patience: Option<usize>,

    /// Part of the training images that every epoch is measured on, where there is no `val/`
    #[arg(long, allow_negative_numbers = true, default_value_t = Settings::default().val_fraction)]
    val_fraction: f64,

    /// Do not train once more on all training images, held-out ones included, at the end
    #[arg(long)]
    no_refit: bool,

    /// Train on the mirror image of each training image as well
    #[arg(long, conflicts_with = "augment")]
    flip: bool,

    /// Train on augmented views of each training image as well: steps such as crop,flip,color
    ///
    /// Steps stand between commas, numbers behind them between colons; numbers that are left out are torchvision's.
    ///
    /// crop=MIN:MAX:NARROW:WIDE   any part of that area and width over height (0.08:1:0.75:1.333)
    /// padcrop=PIXELS             the middle, shifted by up to so many pixels (4)
    /// flip=P, vflip=P            mirrored, upside down, with that probability (0.5)
    /// randaugment=OPS:MAGNITUDE  so many operations, as strong as 0 to 30 (2:9)
    /// trivial                    one operation, of any strength: TrivialAugmentWide
    /// color=B:C:S:H              brightness, contrast, saturation, hue (0.4:0.4:0.4:0)
    /// erase=P:MIN:MAX:LOW:HIGH   a part hidden with that probability (0.5:0.02:0.33:0.3:3.3)
    #[arg(long, value_name = "POLICY", verbatim_doc_comment)]
    augment: Option<Policy>,

    /// Augmented views of each training image, made once [default: 4]
    #[arg(long, value_name = "K", requires = "augment")]
    views: Option<usize>,

    /// Train on features as they are instead of standardising them first
    #[arg(long)]
    no_standardise: bool,

    /// Seed of everything random: equal seeds give equal bits
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// End at the first image that cannot be read instead of skipping it
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Sgd,
    Adamw,
}

#[derive(Clone, Copy, ValueEnum)]
enum ClassWeightsName {
    None,
    Balanced,
}

impl TrainingArguments {
    fn settings(&self) -> anyhow::Result<Settings> {
        let settings = Settings {
            head: self.head()?,
            val_fraction: self.val_fraction,
            refit: !self.no_refit,
            strict: self.strict,
            augmentation: self.augmentation(),
        };
        settings.validate()?;
        Ok(settings)
    }

    fn augmentation(&self) -> Option<Augmentation> {
        let augment = |policy: &Policy| Augmentation { policy: policy.clone(), views: self.views.unwrap_or(VIEWS) };
        let mirror = || self.flip.then(Augmentation::mirror);
        self.augment.as_ref().map(augment).or_else(mirror)
    }

    fn head(&self) -> anyhow::Result<HeadSettings> {
        Ok(HeadSettings {
            epochs: self.epochs,
            batch_size: self.batch_size,
            lr: self.lr,
            optimizer: self.optimizer()?,
            weight_decay: self.weight_decay,
            drop_rate: self.drop_rate.unwrap_or_default(),
            label_smoothing: self.label_smoothing,
            class_weights: match self.class_weights {
                ClassWeightsName::None => ClassWeights::None,
                ClassWeightsName::Balanced => ClassWeights::Balanced,
            },
            warmup_epochs: self.warmup_epochs.unwrap_or(self.schedule.default_warmup(self.epochs)),
            schedule: self.schedule,
            patience: self.patience,
            seed: self.seed,
            standardise: !self.no_standardise,
        })
    }

    fn optimizer(&self) -> anyhow::Result<OptimizerSettings> {
        let momentum = self.momentum.unwrap_or(0.9);
        match self.optimizer {
            OptimizerName::Sgd => {
                Ok(OptimizerSettings::Sgd { momentum, nesterov: !self.no_nesterov && momentum > 0.0 })
            }
            OptimizerName::Adamw if self.momentum.is_some() || self.no_nesterov => {
                bail!("--momentum and --no-nesterov belong to --optimizer sgd")
            }
            OptimizerName::Adamw => Ok(OptimizerSettings::ADAMW),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut settings = arguments.training.settings()?;
    let dataset = scan(&arguments.dir)?;
    dataset.check_for_training().map_err(candle_finetune::Error::from)?;
    let device = arguments.device.open()?;
    let target = arguments.target()?;
    let draft = Draft::new(&target, arguments.overwrite)?;
    let model = arguments.model.load(arguments.fresh.no_pretrained.then_some(settings.head.seed))?;
    let model = arguments.preprocessing.adapt(model)?;
    if arguments.training.drop_rate.is_none() {
        settings.head.drop_rate = model.drop_rates.features;
    }
    let mut display = Display::new(Interrupt::listen()?);
    print_plan(&model, &dataset, &settings);
    let batch = batch_size(model.preprocessing.crop, &device).max(views(&settings));
    let images = images_and_views(&dataset, &settings);
    let trunk = model.trunk_with(&device, &arguments.plan.options_for(&model, images, batch))?;
    let tuned = fine_tune(&trunk, &model.preprocessing, &Splits::of(&dataset), &settings, &mut display)?;
    let bundle = draft.write(&model, &tuned, &settings, &arguments.record())?.publish()?;
    print_result(&tuned, &bundle)?;
    Ok(Outcome::Done)
}

/// Views of each training image, itself included.
fn views(settings: &Settings) -> usize {
    settings.augmentation.as_ref().map_or(1, |augmentation| 1 + augmentation.views)
}

/// All that goes through the network.
fn images_and_views(dataset: &Dataset, settings: &Settings) -> usize {
    let count = |(&split, images): (&SplitName, &Vec<_>)| match split {
        SplitName::Train => images.len() * views(settings),
        _ => images.len(),
    };
    dataset.splits.iter().map(count).sum()
}

impl Arguments {
    /// The folder that was asked for, or `DATA-MODEL` with a number where that is taken.
    fn target(&self) -> anyhow::Result<PathBuf> {
        let data = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        let target = self.out.clone().unwrap_or_else(|| self.default_target(&data));
        // A bundle inside the data set would be a class of it the next time.
        if std::path::absolute(&target)?.starts_with(&data) {
            bail!("{}: lies inside the data set {}", target.display(), data.display());
        }
        Ok(target)
    }

    /// In the working folder, or beside the data set where the working folder lies in it.
    fn default_target(&self, data: &Path) -> PathBuf {
        let name = format!("{}-{}", last_part(data), last_part(Path::new(&self.model.model)));
        let inside = std::env::current_dir().is_ok_and(|folder| folder.starts_with(data));
        let place = if inside { data.parent().unwrap_or(Path::new("")) } else { Path::new("") };
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut candidates = std::iter::once(name.clone()).chain(numbered).map(|name| place.join(name));
        candidates.find(|candidate| candidate.symlink_metadata().is_err()).unwrap_or_else(|| place.join(&name))
    }

    fn record(&self) -> RunRecord {
        RunRecord {
            data: std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone()),
            model: self.model.model.clone(),
            weights: self.model.weights.clone(),
            in_chans: self.model.channels.get(),
            no_pretrained: self.fresh.no_pretrained,
            device: self.device.name().into(),
        }
    }
}

/// `photos` of `some/photos/`; what cannot stand in a file name becomes `-`.
fn last_part(path: &Path) -> String {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.into());
    let name = absolute.file_name().unwrap_or(absolute.as_os_str()).to_string_lossy().into_owned();
    name.replace([':', '/', '\\', '@'], "-")
}

fn print_plan(model: &Model, dataset: &Dataset, settings: &Settings) {
    let count = |split| dataset.split(split).len();
    let val = match count(SplitName::Val) {
        0 if settings.val_fraction > 0.0 => format!("{:.0} % of them held out", 100.0 * settings.val_fraction),
        0 => "no validation".into(),
        images => format!("{images} to validate"),
    };
    let classes = &dataset.classes;
    say!("{:>12} {} classes: {}", "data", classes.len(), shortened(classes));
    say!("{:>12} {} to train, {val}, {} to test", "images", count(SplitName::Train), count(SplitName::Test));
    let (architecture, preprocessing) = (model.architecture, &model.preprocessing);
    let grey = if architecture.in_channels == 1 { " in grey" } else { "" };
    say!(
        "{:>12} {}, {}×{} pixels{grey}, all frozen but a new fc of {} × {}",
        "model",
        architecture.name,
        preprocessing.crop,
        preprocessing.crop,
        classes.len(),
        architecture.feature_width()
    );
    if let Some(Augmentation { policy, views }) = &settings.augmentation {
        say!("{:>12} {views} of each training image, beside itself: {policy}", "views");
    }
}

fn shortened(classes: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = classes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if classes.len() > SHOWN { format!("{shown}, …") } else { shown }
}

/// The run on the terminal.
struct Display {
    interrupt: Interrupt,
    bar: Option<ProgressBar>,
    epochs: usize,
}

impl Display {
    fn new(interrupt: Interrupt) -> Display {
        Display { interrupt, bar: None, epochs: 0 }
    }
}

impl Observer for Display {
    fn begin(&mut self, phase: Phase, total: usize) {
        match phase {
            Phase::TrainFeatures => self.bar = Some(image_bar(total, "train")),
            Phase::ValFeatures => self.bar = Some(image_bar(total, "val")),
            Phase::TestFeatures => self.bar = Some(image_bar(total, "test")),
            Phase::Fit => self.epochs = total,
            Phase::Refit => {
                self.epochs = total;
                say!("{:>12} once more on all training images, {total} epochs", "refit");
            }
        }
    }

    fn images(&mut self, count: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(count as u64);
        }
    }

    fn epoch(&mut self, phase: Phase, record: &EpochRecord) {
        // The last training repeats the first with a few images more: its last epoch says enough.
        if phase == Phase::Refit && record.epoch < self.epochs {
            return;
        }
        say!("{}", epoch_line(record, self.epochs));
    }

    fn end(&mut self, _: Phase) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn stop(&self) -> bool {
        self.interrupt.asked()
    }
}

fn epoch_line(record: &EpochRecord, epochs: usize) -> String {
    let width = epochs.to_string().len();
    let val = match (record.val_loss, record.val_top1) {
        (Some(loss), Some(top1)) => format!("   val loss {loss:.4}  top-1 {}", percent(top1)),
        _ => String::new(),
    };
    format!(
        "{:>12} {:>width$}/{epochs}   train loss {:.4}  top-1 {}{val}",
        "epoch",
        record.epoch,
        record.train_loss,
        percent(record.train_top1)
    )
}

fn percent(fraction: f64) -> String {
    format!("{:5.2} %", 100.0 * fraction)
}

fn print_result(tuned: &FineTuned, bundle: &Path) -> std::io::Result<()> {
    if tuned.trained.interrupted {
        say!("{:>12} stopped early; this is the best so far", "note");
    }
    if let Some(Validation { epoch, top1, loss, images }) = tuned.trained.val {
        say!("{:>12} top-1 {} of {images} images, loss {loss:.4}, after epoch {epoch}", "val", percent(top1));
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
