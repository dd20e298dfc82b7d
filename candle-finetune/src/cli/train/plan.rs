//! What a run is about to do, told before it begins.

use candle_finetune::Settings;
use candle_finetune::augment::{Augmentation, ViewCount};
use candle_finetune::dataset::{Dataset, SplitName};
use candle_finetune::finetuning::{PartPlan, part_plans};
use candle_finetune::train::range_test::RangeTest;
use candle_finetune::train::tail::{BatchNorm, Sampler, TailSettings, TrainFrom};
use candle_resnet::Model;
use candle_resnet::training::Statistics;

use crate::cli::text::{count, several};

/// Prints data, model, what of it trains and how.
pub fn print(model: &Model, dataset: &Dataset, settings: &Settings) -> anyhow::Result<()> {
    print_data(dataset, settings);
    match &settings.tail {
        None => print_head(model, dataset.classes.len()),
        Some(tail) => print_tail(model, dataset.classes.len(), tail, settings)?,
    }
    print_views(settings);
    Ok(())
}

/// Prints data, model, what of it a range test trains and how.
pub fn print_for_range_test(model: &Model, dataset: &Dataset, settings: &Settings, test: RangeTest) {
    print_data(dataset, settings);
    match &settings.tail {
        None => print_head(model, dataset.classes.len()),
        Some(tail) => {
            say!("{:>12} {}, {}", "model", network(model), trained_text(&tail.train_from));
            print_norms_and_start(tail, settings);
            print_recipe(tail);
        }
    }
    print_views(settings);
    let images = settings.tail.as_ref().map_or(settings.head.batch_size, |tail| tail.batch_size * tail.accumulate);
    let RangeTest { lowest, highest, steps } = test;
    say!("{:>12} {steps} steps, {images} images each, at learning rates from {lowest:e} to {highest:e}", "range test");
}

fn print_data(dataset: &Dataset, settings: &Settings) {
    let images = |split| dataset.split(split).len();
    let val = match images(SplitName::Val) {
        0 if settings.val_fraction > 0.0 && !has_pairs(dataset) => "none held out (one of each class)".into(),
        0 if settings.val_fraction > 0.0 => format!("{:.0} % of them held out", 100.0 * settings.val_fraction),
        0 => "no validation".into(),
        images => format!("{images} to validate"),
    };
    let classes = &dataset.classes;
    say!("{:>12} {} classes: {}", "data", classes.len(), shortened(classes));
    say!("{:>12} {} to train, {val}, {} to test", "images", images(SplitName::Train), images(SplitName::Test));
}

/// Whether a class has two training images, of which one can be held out.
fn has_pairs(dataset: &Dataset) -> bool {
    dataset.split(SplitName::Train).len() > dataset.classes.len()
}

fn print_views(settings: &Settings) {
    if let Some(Augmentation { policy, views }) = &settings.augmentation {
        say!("{:>12} {}: {policy}", "views", views_text(*views, settings.tail.is_some()));
    }
}

fn views_text(views: ViewCount, tail: bool) -> String {
    match views {
        ViewCount::Fresh => "another of each training image in every epoch".into(),
        ViewCount::Kept(views) if tail => format!("{views} of each training image, one in every epoch"),
        ViewCount::Kept(views) => format!("{views} of each training image, beside itself"),
    }
}

/// The first of them.
pub fn shortened(classes: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = classes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if classes.len() > SHOWN { format!("{shown}, …") } else { shown }
}

/// The network's name and what it is shown.
fn network(model: &Model) -> String {
    let crop = model.preprocessing.crop;
    let grey = if model.architecture.in_channels == 1 { " in grey" } else { "" };
    format!("{}, {crop}×{crop} pixels{grey}", model.architecture.name)
}

fn print_head(model: &Model, classes: usize) {
    let width = model.architecture.feature_width();
    say!("{:>12} {}, all frozen but a new fc of {classes} × {width}", "model", network(model));
}

fn print_tail(model: &Model, classes: usize, tail: &TailSettings, settings: &Settings) -> anyhow::Result<()> {
    say!("{:>12} {}, {}", "model", network(model), trained_text(&tail.train_from));
    say!("{:>12}   {:>12}   {:<13}   {:<18}   learning rate", "part", "parameters", "", "batch norms");
    for plan in part_plans(&model.architecture, classes, &tail.resolved(model.provenance.file.is_none()))? {
        say!("{}", part_line(&plan));
    }
    print_norms_and_start(tail, settings);
    let (epochs, images) = (tail.epochs, tail.batch_size * tail.accumulate);
    say!("{:>12} {epochs}, {images} images a step; the best is kept, and not refitted on what was held out", "epochs");
    print_recipe(tail);
    Ok(())
}

fn print_norms_and_start(tail: &TailSettings, settings: &Settings) {
    say!("{:>12} {}", "norms", norms(tail));
    match tail.head_first {
        true => {
            say!("{:>12} first, {} on features of the frozen network", "head", several(settings.head.epochs, "epoch"))
        }
        false => say!("{:>12} as it is drawn", "head"),
    }
}

fn print_recipe(tail: &TailSettings) {
    let recipe = recipe(tail);
    if !recipe.is_empty() {
        say!("{:>12} {}", "recipe", recipe.join("; "));
    }
}

fn trained_text(from: &TrainFrom) -> String {
    match from {
        TrainFrom::Matching(_) => format!("of which fc and {from} train"),
        _ => format!("trained from {from} on"),
    }
}

fn part_line(PartPlan { part, parameters, trained, lr, statistics }: &PartPlan) -> String {
    let trains = match *trained {
        0 => "frozen".into(),
        all if all == *parameters => "trains".into(),
        some => format!("{} train", count(some)),
    };
    let norms = match statistics {
        None => "",
        Some(Statistics::Running) => "running statistics",
        Some(Statistics::Batch) => "follow the batch",
    };
    let lr = lr.map_or("–".into(), |lr| format!("{lr:.2e}"));
    format!("{:>12}   {:>12}   {trains:<13}   {norms:<18}   {lr}", part.to_string(), count(*parameters))
}

/// What a step does beside the usual.
fn recipe(tail: &TailSettings) -> Vec<String> {
    let accumulate = (tail.accumulate > 1).then(|| format!("{} batches a step", tail.accumulate));
    let sampler = (tail.sampler == Sampler::Balanced).then(|| "every class equally often".into());
    let clip = tail.clip_norm.map(|norm| format!("gradients clipped at {norm}"));
    let mixed = |name, alpha: f64| (alpha > 0.0).then(|| format!("{name} {alpha}"));
    let mixup = tail.mixup.and_then(|mixup| mixed("Mixup", mixup.mixup_alpha));
    let cutmix = tail.mixup.and_then(|mixup| mixed("CutMix", mixup.cutmix_alpha));
    let ema = tail.ema.map(|ema| format!("weights averaged, decay {}", ema.decay));
    [accumulate, sampler, clip, mixup, cutmix, ema].into_iter().flatten().collect()
}

/// What batch norms do, and what speaks for it.
fn norms(tail: &TailSettings) -> &'static str {
    match (tail.batch_norm, &tail.train_from) {
        (BatchNorm::Train, TrainFrom::All) => "follow the batch, as everything does (--batch-norm frozen keeps them)",
        (BatchNorm::Train, _) => "follow the batch where parts train, and keep their statistics elsewhere",
        (BatchNorm::Frozen, _) => "keep their statistics, which small batches would only blur (--batch-norm train)",
    }
}
