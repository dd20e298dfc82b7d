//! The options of a training, laid over the settings of a file or the defaults.

use std::str::FromStr;

use anyhow::bail;
use candle_finetune::Settings;
use candle_finetune::train::ema::EmaSettings;
use candle_finetune::train::mixup::Mixup;
use candle_finetune::train::schedule::Shape;
use candle_finetune::train::tail::{BatchNorm, Sampler, TailSettings, TrainFrom};
use candle_finetune::train::{ClassWeights, HeadSettings, OptimizerSettings};
use candle_resnet::config::DropRates;
use clap::{Args, ValueEnum};

use super::views::ViewOptions;

#[derive(Args)]
#[command(next_help_heading = "Training (what is left out is as in --config, else the default)")]
pub struct TrainingOptions {
    /// What trains: head; a stage such as layer4 and all behind it; all; or fc and the parameters that fit patterns
    /// (`layer4.1.*,layer3.*.bn2.*`) [default: head]
    #[arg(long, value_name = "PART|PATTERNS")]
    train_from: Option<First>,

    /// Epochs of the head alone, on features, before the parts below it train; 0 starts from a head that is drawn
    /// [default: 60, or 0 with --no-pretrained]
    #[arg(long, value_name = "N")]
    freeze_epochs: Option<usize>,

    /// Passes over the training images [default: 60; with --train-from 10, or 100 with --no-pretrained]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,

    /// Images of a batch, or auto: as many as the GPU has room for, up to 256 and an eighth of the training images (up to 32 on a CPU)
    /// [default: 32; training from scratch 128]
    #[arg(long, visible_alias = "batch", value_name = "N|auto")]
    batch_size: Option<BatchSize>,

    /// Batches of a step, whose gradients are averaged: large steps in little memory [default: 1]
    #[arg(long, value_name = "BATCHES")]
    accumulate: Option<usize>,

    /// Which images an epoch sees [default: shuffled]
    #[arg(long, value_enum)]
    sampler: Option<SamplerName>,

    /// Highest learning rate, that of fc; derived if left out
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f64>,

    /// Learning rate of each part beside that of the part behind it [default: 0.7; training from scratch 1]
    #[arg(long, allow_negative_numbers = true, value_name = "FACTOR")]
    layer_decay: Option<f64>,

    /// What batch norms of parts that train do [default: frozen; train with --train-from all or --no-pretrained]
    #[arg(long, value_enum)]
    batch_norm: Option<BatchNormName>,

    /// Optimiser [default: sgd]
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,

    /// Momentum of SGD [default: 0.9]
    #[arg(long, allow_negative_numbers = true)]
    momentum: Option<f64>,

    /// SGD without Nesterov's look ahead
    #[arg(long)]
    no_nesterov: bool,

    /// Pull of the weights, not of norms and biases, towards 0; derived if left out
    #[arg(long, allow_negative_numbers = true)]
    weight_decay: Option<f64>,

    /// Scale gradients down together where their norm is above this
    #[arg(long, allow_negative_numbers = true, value_name = "NORM")]
    clip_norm: Option<f64>,

    /// Measure and keep an average of the weights, which holds on to this much of itself in each step (0.9998; less in early ones)
    #[arg(long, allow_negative_numbers = true, value_name = "DECAY")]
    ema: Option<f64>,

    /// Mixup: blend the images of a batch, with shares drawn from Beta(ALPHA, ALPHA) (0.2). Where less than everything trains, the maps
    /// that the first part is given
    #[arg(long, allow_negative_numbers = true, value_name = "ALPHA")]
    mixup: Option<f64>,

    /// CutMix: paste rectangles of other images in, of areas drawn from Beta(ALPHA, ALPHA) (1); with --mixup every other batch
    #[arg(long, allow_negative_numbers = true, value_name = "ALPHA")]
    cutmix: Option<f64>,

    /// Part of the features that is zero in each step [default: the model's own, mostly 0]
    #[arg(long, allow_negative_numbers = true, value_name = "FRACTION")]
    drop_rate: Option<f64>,

    /// Part of the images that do without the last block's branch in each step [default: the model's own, mostly 0]
    #[arg(long, allow_negative_numbers = true, value_name = "FRACTION")]
    drop_path: Option<f64>,

    /// Part of each target that is spread over all classes [default: 0]
    #[arg(long, allow_negative_numbers = true)]
    label_smoothing: Option<f64>,

    /// What each class counts in the loss [default: none]
    #[arg(long, value_enum)]
    class_weights: Option<ClassWeightsName>,

    /// How the learning rate goes: cosine, linear or constant after the warm-up; one-cycle; step=EVERY:GAMMA [default: cosine]
    ///
    /// cosine, linear    down to 0
    /// constant          stays at its highest
    /// one-cycle         as PyTorch's OneCycleLR, which rises in the warm-up from 1/25 of the highest
    /// step=EVERY:GAMMA  times GAMMA after every so many epochs (30:0.1)
    #[arg(long, value_name = "SHAPE", verbatim_doc_comment)]
    schedule: Option<Shape>,

    /// Epochs in which the learning rate rises [default: 1, or 0 where there is one epoch only; training from scratch 5; 0.3
    /// of a one-cycle]
    #[arg(long, value_name = "N")]
    warmup_epochs: Option<usize>,

    /// Stop after so many epochs without a better validation accuracy
    #[arg(long, value_name = "N")]
    patience: Option<usize>,

    /// Part of the training images that every epoch is measured on, where there is no `val/` [default: 0.2]
    #[arg(long, allow_negative_numbers = true, value_name = "FRACTION")]
    val_fraction: Option<f64>,

    /// Do not train a head once more on all training images, held-out ones included, at the end
    #[arg(long)]
    no_refit: bool,

    #[command(flatten)]
    views: ViewOptions,

    /// Train on features as they are instead of standardising them first
    #[arg(long)]
    no_standardise: bool,

    /// Seed of everything random: equal seeds give equal bits [default: 0]
    #[arg(long)]
    seed: Option<u64>,

    /// End at the first image that cannot be read instead of skipping it
    #[arg(long)]
    strict: bool,
}

/// The first part that trains.
#[derive(Clone)]
enum First {
    Head,
    Before(TrainFrom),
}

impl FromStr for First {
    type Err = String;

    fn from_str(name: &str) -> Result<First, String> {
        match name {
            "head" => Ok(First::Head),
            _ => name.parse().map(First::Before).map_err(|error: String| error + ", nor head"),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum BatchNormName {
    /// Normalise by running statistics, which stay
    Frozen,
    /// Normalise by the batch; running statistics follow it
    Train,
}

#[derive(Clone, Copy, ValueEnum)]
enum SamplerName {
    /// Each image once
    Shuffled,
    /// Every class equally often
    Balanced,
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

/// Images of a batch.
#[derive(Clone, Copy, PartialEq)]
enum BatchSize {
    Images(usize),
    /// As many as there is room for.
    Auto,
}

impl FromStr for BatchSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<BatchSize, &'static str> {
        match text {
            "auto" => Ok(BatchSize::Auto),
            _ => text.parse().map(BatchSize::Images).map_err(|_| "expected a number of images or `auto`"),
        }
    }
}

/// What both kinds of training are told alike.
struct Common<'a> {
    epochs: &'a mut usize,
    batch_size: &'a mut usize,
    lr: &'a mut Option<f64>,
    optimizer: &'a mut OptimizerSettings,
    weight_decay: &'a mut Option<f64>,
    warmup_epochs: &'a mut usize,
    schedule: &'a mut Shape,
    patience: &'a mut Option<usize>,
}

impl TrainingOptions {
    /// The settings of `file`, or the defaults, with what was asked for changed; `fresh` says that weights are drawn.
    ///
    /// # Errors
    /// If a setting is out of range, or belongs to another kind of training.
    pub fn settings(&self, file: Option<&Settings>, fresh: bool) -> anyhow::Result<Settings> {
        let mut settings = file.cloned().unwrap_or_default();
        settings.tail = self.tail(settings.tail, fresh);
        self.check_tail_options(settings.tail.is_some())?;
        self.set_head(&mut settings.head);
        match &mut settings.tail {
            Some(tail) => self.set_tail(tail, &mut settings.head)?,
            None => self.set_common(Common::of_head(&mut settings.head))?,
        }
        settings.val_fraction = self.val_fraction.unwrap_or(settings.val_fraction);
        settings.refit &= !self.no_refit;
        settings.strict |= self.strict;
        settings.augmentation = self.views.augmentation(settings.augmentation.take(), settings.tail.is_some());
        settings.validate()?;
        Ok(settings)
    }

    /// Whether a learning rate was asked for.
    pub fn gives_lr(&self) -> bool {
        self.lr.is_some()
    }

    /// Whether batches are to be as large as there is room for.
    pub fn fits_batches(&self) -> bool {
        self.batch_size == Some(BatchSize::Auto)
    }

    /// Takes what the model itself says of how it is thinned, where nobody else does.
    pub fn take_drop_rates(&self, settings: &mut Settings, model: DropRates) {
        if self.drop_rate.is_none() {
            settings.head.drop_rate = model.features;
        }
        let Some(tail) = &mut settings.tail else { return };
        tail.drop_rate = self.drop_rate.unwrap_or(model.features);
        tail.drop_path = self.drop_path.unwrap_or(model.paths);
    }

    fn tail(&self, file: Option<TailSettings>, fresh: bool) -> Option<TailSettings> {
        match (self.train_from.clone(), file) {
            (None, file) => file,
            (Some(First::Head), _) => None,
            (Some(First::Before(train_from)), Some(file)) => Some(TailSettings { train_from, ..file }),
            (Some(First::Before(train_from)), None) if fresh => Some(TailSettings::from_scratch(train_from)),
            (Some(First::Before(train_from)), None) => Some(TailSettings::pretrained(train_from)),
        }
    }

    fn check_tail_options(&self, tail: bool) -> anyhow::Result<()> {
        let given = [
            ("--freeze-epochs", self.freeze_epochs.is_some()),
            ("--batch-size auto", self.fits_batches()),
            ("--accumulate", self.accumulate.is_some()),
            ("--sampler", self.sampler.is_some()),
            ("--clip-norm", self.clip_norm.is_some()),
            ("--ema", self.ema.is_some()),
            ("--mixup", self.mixup.is_some()),
            ("--cutmix", self.cutmix.is_some()),
            ("--layer-decay", self.layer_decay.is_some()),
            ("--batch-norm", self.batch_norm.is_some()),
            ("--drop-path", self.drop_path.is_some()),
        ];
        match given.into_iter().find(|&(_, given)| given && !tail) {
            Some((option, _)) => bail!("{option} belongs to --train-from with a part before the head"),
            None => Ok(()),
        }
    }

    /// What a head is told whether anything else trains or not.
    fn set_head(&self, head: &mut HeadSettings) {
        head.seed = self.seed.unwrap_or(head.seed);
        head.standardise &= !self.no_standardise;
        head.drop_rate = self.drop_rate.unwrap_or(head.drop_rate);
        head.label_smoothing = self.label_smoothing.unwrap_or(head.label_smoothing);
        self.set_class_weights(&mut head.class_weights);
    }

    fn set_tail(&self, tail: &mut TailSettings, head: &mut HeadSettings) -> anyhow::Result<()> {
        self.set_common(Common::of_tail(tail))?;
        if let Some(epochs) = self.freeze_epochs {
            tail.head_first = epochs > 0;
            head.epochs = if epochs > 0 { epochs } else { head.epochs };
            head.warmup_epochs = head.warmup_epochs.min(head.epochs - 1);
        }
        tail.accumulate = self.accumulate.unwrap_or(tail.accumulate);
        tail.sampler = match self.sampler {
            Some(SamplerName::Shuffled) => Sampler::Shuffled,
            Some(SamplerName::Balanced) => Sampler::Balanced,
            None => tail.sampler,
        };
        tail.clip_norm = self.clip_norm.or(tail.clip_norm);
        // A short run would otherwise be an average of its beginning.
        tail.ema = self.ema.map(|decay| EmaSettings { decay, warmup: true }).or(tail.ema);
        tail.mixup = self.mixup(tail.mixup);
        tail.layer_decay = self.layer_decay.unwrap_or(tail.layer_decay);
        tail.drop_rate = self.drop_rate.unwrap_or(tail.drop_rate);
        tail.drop_path = self.drop_path.unwrap_or(tail.drop_path);
        tail.label_smoothing = self.label_smoothing.unwrap_or(tail.label_smoothing);
        self.set_class_weights(&mut tail.class_weights);
        tail.batch_norm = match self.batch_norm {
            Some(BatchNormName::Frozen) => BatchNorm::Frozen,
            Some(BatchNormName::Train) => BatchNorm::Train,
            None => tail.batch_norm,
        };
        Ok(())
    }

    /// Mixing where a file says `before`.
    fn mixup(&self, before: Option<Mixup>) -> Option<Mixup> {
        if self.mixup.is_none() && self.cutmix.is_none() {
            return before;
        }
        let off = Mixup { mixup_alpha: 0.0, cutmix_alpha: 0.0, ..Mixup::default() };
        let mixup = before.unwrap_or(off);
        let mixup_alpha = self.mixup.unwrap_or(mixup.mixup_alpha);
        Some(Mixup { mixup_alpha, cutmix_alpha: self.cutmix.unwrap_or(mixup.cutmix_alpha), ..mixup })
    }

    fn set_common(&self, common: Common<'_>) -> anyhow::Result<()> {
        *common.epochs = self.epochs.unwrap_or(*common.epochs);
        if let Some(BatchSize::Images(images)) = self.batch_size {
            *common.batch_size = images;
        }
        *common.lr = self.lr.or(*common.lr);
        *common.optimizer = self.optimizer(*common.optimizer)?;
        *common.weight_decay = self.weight_decay.or(*common.weight_decay);
        *common.schedule = self.schedule.unwrap_or(*common.schedule);
        *common.warmup_epochs = self.warmup(*common.schedule, *common.epochs, *common.warmup_epochs);
        *common.patience = self.patience.or(*common.patience);
        Ok(())
    }

    /// Epochs of warm-up where a file, or the default, says `before`.
    fn warmup(&self, schedule: Shape, epochs: usize, before: usize) -> usize {
        let changed = self.schedule.is_some() || self.epochs.is_some();
        match self.warmup_epochs {
            Some(given) => given,
            None if changed && schedule == Shape::OneCycle => schedule.default_warmup(epochs),
            // A short run is not all warm-up.
            None => before.min(epochs.saturating_sub(1)),
        }
    }

    fn set_class_weights(&self, weights: &mut ClassWeights) {
        match self.class_weights {
            Some(ClassWeightsName::None) => *weights = ClassWeights::None,
            Some(ClassWeightsName::Balanced) => *weights = ClassWeights::Balanced,
            None => {}
        }
    }

    fn optimizer(&self, file: OptimizerSettings) -> anyhow::Result<OptimizerSettings> {
        let base = match (self.optimizer, file) {
            (Some(OptimizerName::Sgd), OptimizerSettings::AdamW { .. }) => OptimizerSettings::SGD,
            (Some(OptimizerName::Adamw), OptimizerSettings::Sgd { .. }) => OptimizerSettings::ADAMW,
            (_, file) => file,
        };
        match base {
            OptimizerSettings::Sgd { momentum, nesterov } => {
                let momentum = self.momentum.unwrap_or(momentum);
                Ok(OptimizerSettings::Sgd { momentum, nesterov: nesterov && !self.no_nesterov && momentum > 0.0 })
            }
            OptimizerSettings::AdamW { .. } if self.momentum.is_some() || self.no_nesterov => {
                bail!("--momentum and --no-nesterov belong to --optimizer sgd")
            }
            adamw => Ok(adamw),
        }
    }
}

impl<'a> Common<'a> {
    fn of_head(head: &'a mut HeadSettings) -> Common<'a> {
        Common {
            epochs: &mut head.epochs,
            batch_size: &mut head.batch_size,
            lr: &mut head.lr,
            optimizer: &mut head.optimizer,
            weight_decay: &mut head.weight_decay,
            warmup_epochs: &mut head.warmup_epochs,
            schedule: &mut head.schedule,
            patience: &mut head.patience,
        }
    }

    fn of_tail(tail: &'a mut TailSettings) -> Common<'a> {
        Common {
            epochs: &mut tail.epochs,
            batch_size: &mut tail.batch_size,
            lr: &mut tail.lr,
            optimizer: &mut tail.optimizer,
            weight_decay: &mut tail.weight_decay,
            warmup_epochs: &mut tail.warmup_epochs,
            schedule: &mut tail.schedule,
            patience: &mut tail.patience,
        }
    }
}
