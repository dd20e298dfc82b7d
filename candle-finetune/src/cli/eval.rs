//! `finetune eval`: a folder of labelled photos and a model → accuracy.

use std::io::Write;
use std::path::PathBuf;

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

    /// Split to evaluate; if left out, the first there is of test, val and train
    #[arg(long, value_enum)]
    split: Option<SplitArgument>,

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
    let skipped = evaluation.extracted.skipped;
    print_metrics(&evaluation.metrics, skipped.len(), arguments.json)?;
    print_findings(&Findings::new(skipped, evaluation.extracted.notes));
    Ok(Outcome::Done)
}

impl Arguments {
    fn samples<'a>(&self, dataset: &'a Dataset) -> anyhow::Result<&'a [Sample]> {
        let wanted = match self.split {
            Some(SplitArgument::Train) => vec![SplitName::Train],
            Some(SplitArgument::Val) => vec![SplitName::Val],
            Some(SplitArgument::Test) => vec![SplitName::Test],
            None => vec![SplitName::Test, SplitName::Val, SplitName::Train],
        };
        let found = wanted.iter().map(|&split| dataset.split(split)).find(|samples| !samples.is_empty());
        found.ok_or_else(|| {
            let there: Vec<String> = dataset.splits.keys().map(ToString::to_string).collect();
            anyhow::anyhow!("{}: has no such split, it has: {}", self.dir.display(), there.join(", "))
        })
    }
}

fn print_metrics(metrics: &Metrics, skipped: usize, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let Metrics { top1, top5, loss, images } = *metrics;
    if as_json {
        let values = json!({"top1": top1, "top5": top5, "loss": loss, "images": images, "skipped": skipped});
        return writeln!(out, "{values}");
    }
    let errors = images - (top1 * images as f64).round() as usize;
    writeln!(out, "top-1 {:.2} %   top-5 {:.2} %   loss {loss:.4}", 100.0 * top1, 100.0 * top5)?;
    writeln!(out, "{errors} of {images} images wrong")
}
