//! `finetune eval`: a folder of labelled photos and a model → accuracy.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_finetune::calibration::{Calibration, LabelledLogits, expected_calibration_error, stored};
use candle_finetune::dataset::{Dataset, SplitName};
use candle_finetune::evaluate::{ClassMap, Evaluation, evaluate};
use candle_finetune::extract::{Unreadable, batch_size};
use candle_finetune::finetuning::Findings;
use candle_finetune::neighbours::{self, Index};
use candle_finetune::report::{Fact, Measured, NetworkExplainer, Report, folder_of};
use candle_finetune::train::Metrics;
use candle_resnet::preprocess;
use candle_resnet::{Classifier, FeatureExtractor, Model};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::Outcome;
use super::common::{ModelArguments, ReadingArguments, check_can_write, is_special, scan};
use super::interrupt::Interrupt;
use super::progress::ImagePass;
use super::stdout::stdout;
use super::text::quoted;
use super::train::{print_findings, skipped_lines};

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

    /// Write a report that a browser shows, and drawings and tables into a folder beside it
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,

    /// Replace the report where it exists
    #[arg(long, requires = "report")]
    overwrite: bool,

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
    if let Some(page) = &arguments.report {
        if is_special(page) {
            bail!("{}: is no file, and a report is a page with a folder beside it", page.display());
        }
        check_can_write(page, arguments.overwrite)?;
        let folder = folder_of(page);
        if folder.exists() && !arguments.overwrite {
            return Err(candle_finetune::Error::Exists(folder).into());
        }
    }
    let device = arguments.reading.open_device()?;
    let dataset = scan(&arguments.dir)?;
    let split = arguments.split(&dataset)?;
    let samples = dataset.split(split);
    let (model, is_otherwise) = arguments.model.load_for(&arguments.reading.preprocessing)?;
    let bundle = arguments.model.bundle(&model);
    if arguments.calibrate && bundle.is_none() {
        bail!("`{}` is no folder: a calibration is stored in one", arguments.model.model);
    }
    if arguments.calibrate && is_otherwise {
        bail!(
            "`{}` cannot be calibrated on photos that are prepared otherwise than its config.json says\n\
             hint: leave the options of preprocessing and --in-chans away, or train with them",
            arguments.model.model
        );
    }
    if let Some(bundle) = bundle.filter(|_| arguments.calibrate) {
        check_can_write(&bundle.join("config.json"), true)?;
    }
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
    let of_model = Some(model.temperature).filter(|temperature| *temperature != 1.0);
    let temperature = fitted.as_ref().map(|calibration| calibration.temperature).or(of_model);
    let sureness = Sureness::measure(&evaluation.logits, temperature, fitted.is_some());
    print_metrics(&evaluation.metrics, &sureness, evaluation.extracted.skipped.len(), arguments.json)?;
    if let Some((folder, calibration)) = bundle.zip(fitted.as_ref()) {
        stored::write(folder, calibration)?;
        say!("calibrated {} on {} images", folder.display(), evaluation.logits.images());
    }
    if let Some(page) = &arguments.report {
        let index = bundle.map(|bundle| index_of(bundle, &model)).transpose()?.flatten();
        let scaling = (temperature, fitted.is_some());
        arguments.report(page, &evaluation, ((&dataset, split), scaling), (&classifier, index.as_ref()))?;
        say!("see: {}", page.display());
    }
    print_findings(&Findings::new(evaluation.extracted.skipped, evaluation.extracted.notes));
    Ok(Outcome::Done)
}

/// The images that a bundle was trained on, where it holds what says which are like others; of a file that does not, it is said why.
fn index_of(bundle: &Path, model: &Model) -> anyhow::Result<Option<Index>> {
    let read = Index::read(&bundle.join(neighbours::FILE), &neighbours::identity(model)?);
    if let Some(error) = read.as_ref().err().filter(|error| !error.is_missing()) {
        say!("note: {error}; the report goes without training images");
        error.hint().iter().for_each(|hint| say!("hint: {hint}"));
    }
    Ok(read.ok())
}

/// What was typed, so that it can be done again.
fn this_command() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| quoted(&argument.to_string_lossy()));
    let overwrite =
        Some("--overwrite".to_owned()).filter(|last| std::env::args_os().all(|argument| argument != **last));
    std::iter::once("finetune".to_owned()).chain(arguments).chain(overwrite).collect::<Vec<_>>().join(" ")
}

impl Arguments {
    /// Writes the report on a split of the data set, which was evaluated.
    fn report(
        &self,
        page: &Path,
        evaluation: &Evaluation,
        ((dataset, split), (temperature, calibrated_here)): ((&Dataset, SplitName), (Option<f64>, bool)),
        (classifier, index): (&Classifier, Option<&Index>),
    ) -> candle_finetune::Result<()> {
        let read = |name: &str| preprocess::decode(Path::new(name)).ok();
        let explainer = NetworkExplainer { classifier, index, read: &read };
        let class = |class: usize| classifier.label(class);
        let (images, dir, model) = (evaluation.metrics.images, self.dir.display().to_string(), &self.model.model);
        let crop = classifier.preprocessing().crop;
        let facts = [
            ("data", dir.clone()),
            ("split", split.to_string()),
            ("model", format!("{model}, {crop}×{crop} pixels")),
            ("device", format!("{}, {}", self.reading.device.name(), self.reading.plan.precision())),
        ];
        let samples = dataset.split(split);
        let folders = dataset.findings.iter().map(ToString::to_string);
        let report = Report {
            title: format!("{model} on {dir}"),
            facts: facts.map(|(name, value)| Fact { name: name.into(), value }).to_vec(),
            measured: Some(Measured {
                what: format!("{images} images of {dir}, {split}"),
                images: &samples,
                judged: &evaluation.extracted.kept,
                logits: &evaluation.logits,
                temperature,
                calibrated_here,
                preprocessing: classifier.preprocessing(),
                channels: classifier.trunk().in_channels(),
                explainer: Some(&explainer),
                class: &class,
            }),
            notes: folders.chain(skipped_lines(&evaluation.extracted.skipped)).collect(),
            commands: vec![this_command()],
            ..Report::default()
        };
        report.write(page)
    }

    /// What is evaluated.
    fn split(&self, dataset: &Dataset) -> anyhow::Result<SplitName> {
        let wanted = match self.split {
            Some(SplitArgument::Train) => vec![SplitName::Train],
            Some(SplitArgument::Val) => vec![SplitName::Val],
            Some(SplitArgument::Test) => vec![SplitName::Test],
            // What is tested on chooses nothing, and what was learned from says nothing; a folder without splits is all there is.
            None if self.calibrate && dataset.splits.len() > 1 => vec![SplitName::Val],
            None => vec![SplitName::Test, SplitName::Val, SplitName::Train],
        };
        let found = wanted.into_iter().find(|&split| !dataset.split(split).is_empty());
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
    fn measure(logits: &LabelledLogits, temperature: Option<f64>, fitted_here: bool) -> Sureness {
        let error = |temperature| expected_calibration_error(&logits.answers(temperature));
        let calibrated = temperature.map(|temperature| Calibrated {
            temperature,
            error: error(temperature),
            loss: logits.loss(temperature),
            fitted_here,
        });
        Sureness { raw: error(1.0), calibrated }
    }
}

fn print_metrics(metrics: &Metrics, sureness: &Sureness, skipped: usize, as_json: bool) -> std::io::Result<()> {
    let mut out = stdout();
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
