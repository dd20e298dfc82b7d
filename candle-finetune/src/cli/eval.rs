//! `finetune eval`: a folder of labelled photos and a model → accuracy.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use candle_finetune::calibration::{Calibration, LabelledLogits, expected_calibration_error, stored};
use candle_finetune::dataset::{Dataset, Sample, SplitName};
use candle_finetune::evaluate::{ClassMap, evaluate};
use candle_finetune::extract::{Unreadable, batch_size};
use candle_finetune::finetuning::Findings;
use candle_finetune::train::Metrics;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::Outcome;
use super::common::{ModelArguments, ReadingArguments, scan};
use super::interrupt::Interrupt;
use super::progress::ImagePass;
use super::train::print_findings;

#[derive(Args)]
pub struct Arguments {
    /// One folder per class, or splits of such
    dir: PathBuf,

    #[command(flatten)]
    model: ModelArguments,

    /// Split to evaluate; if left out, the first there is of test, val and train, and to calibrate on, val
    #[arg(long, value_enum)]
    split: Option<SplitArgument>,

    /// Fit a temperature on these photos, which the model must not have learned from, and store it in its folder with what `predict
    /// --max-error` needs
    #[arg(long)]
    calibrate: bool,

    /// Fractions as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ReadingArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitArgument {
    Train,
    Val,
    Test,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let device = arguments.reading.device.open()?;
    let dataset = scan(&arguments.dir)?;
    let samples = arguments.samples(&dataset)?;
    let model = arguments.reading.preprocessing.adapt(arguments.model.load(None)?)?;
    let bundle = arguments.model.bundle(&model);
    if arguments.calibrate && bundle.is_none() {
        bail!("`{}` is no folder: a calibration is stored in one", arguments.model.model);
    }
    let stored = bundle.filter(|_| !arguments.calibrate).map(stored::read).transpose()?.flatten();
    let interrupt = Interrupt::listen()?;
    let map = ClassMap::between(&dataset.classes, &model)?;
    if map.by_order {
        say!("note: the model does not name its classes; folders are taken in alphabetical order");
    }
    let batch = batch_size(model.preprocessing.crop, &device);
    let options = arguments.reading.plan.options_for(&device, &model, samples.len(), batch);
    let classifier = model.classifier_with(&device, &options)?;

    let unreadable = Unreadable::strictly(arguments.reading.strict);
    let pass = ImagePass::new(samples.len(), interrupt);
    let evaluation = pass.run(|observer| evaluate(&classifier, &samples, &map, unreadable, observer))?;
    let fitted = arguments.calibrate.then(|| Calibration::fit(&evaluation.logits));
    let sureness = Sureness::measure(&evaluation.logits, fitted.as_ref().or(stored.as_ref()), fitted.is_some());
    let skipped = evaluation.extracted.skipped;
    print_metrics(&evaluation.metrics, &sureness, skipped.len(), arguments.json)?;
    print_findings(&Findings::new(skipped, evaluation.extracted.notes));
    if let Some((folder, calibration)) = bundle.zip(fitted) {
        stored::write(folder, &calibration)?;
        say!("calibrated {} on {} images", folder.display(), evaluation.logits.images());
    }
    Ok(Outcome::Done)
}

impl Arguments {
    fn samples<'a>(&self, dataset: &'a Dataset) -> anyhow::Result<&'a [Sample]> {
        let wanted = match self.split {
            Some(SplitArgument::Train) => vec![SplitName::Train],
            Some(SplitArgument::Val) => vec![SplitName::Val],
            Some(SplitArgument::Test) => vec![SplitName::Test],
            // What is tested on chooses nothing, and what was learned from says nothing; a folder without splits is all there is.
            None if self.calibrate && dataset.splits.len() > 1 => vec![SplitName::Val],
            None => vec![SplitName::Test, SplitName::Val, SplitName::Train],
        };
        let found = wanted.iter().map(|&split| dataset.split(split)).find(|samples| !samples.is_empty());
        found.ok_or_else(|| {
            let there: Vec<String> = dataset.splits.keys().map(ToString::to_string).collect();
            anyhow::anyhow!("{}: has no such split, it has: {}", self.dir.display(), there.join(", "))
        })
    }
}

/// How far confidence is from accuracy.
struct Sureness {
    /// As the network says it.
    raw: f64,
    /// After a temperature, where there is one.
    calibrated: Option<Calibrated>,
}

struct Calibrated {
    temperature: f64,
    error: f64,
    loss: f64,
    /// Whether the temperature was fitted on the very images that are measured.
    fitted_here: bool,
}

impl Sureness {
    fn measure(logits: &LabelledLogits, calibration: Option<&Calibration>, fitted_here: bool) -> Sureness {
        let error = |temperature| expected_calibration_error(&logits.answers(temperature));
        let calibrated = calibration.map(|&Calibration { temperature, .. }| Calibrated {
            temperature,
            error: error(temperature),
            loss: logits.loss(temperature),
            fitted_here,
        });
        Sureness { raw: error(1.0), calibrated }
    }
}

fn print_metrics(metrics: &Metrics, sureness: &Sureness, skipped: usize, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let Metrics { top1, top5, loss, images } = *metrics;
    if as_json {
        let mut values = json!({"top1": top1, "top5": top5, "loss": loss, "images": images, "skipped": skipped});
        values["calibration_error"] = json!(sureness.raw);
        if let Some(Calibrated { temperature, error, loss, fitted_here }) = sureness.calibrated {
            values["calibrated"] = json!({"temperature": temperature, "calibration_error": error, "loss": loss, "fitted_here": fitted_here});
        }
        return writeln!(out, "{values}");
    }
    let errors = images - (top1 * images as f64).round() as usize;
    writeln!(out, "top-1 {:.2} %   top-5 {:.2} %   loss {loss:.4}", 100.0 * top1, 100.0 * top5)?;
    writeln!(out, "{errors} of {images} images wrong")?;
    let raw = 100.0 * sureness.raw;
    match sureness.calibrated {
        None => writeln!(out, "calibration error {raw:.2} %, not calibrated"),
        Some(Calibrated { temperature, error, loss, fitted_here }) => writeln!(
            out,
            "calibration error {:.2} %   loss {loss:.4}   at temperature {temperature:.3}{} (without: {raw:.2} %)",
            100.0 * error,
            if fitted_here { ", fitted on these images" } else { "" }
        ),
    }
}
