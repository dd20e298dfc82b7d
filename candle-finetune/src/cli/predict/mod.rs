//! `finetune predict`: photos → ranked labels.

mod confidence;
mod explanation;
mod kept;
mod output;
mod row;
mod summary;
mod truth;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_core::Tensor;
use candle_finetune::Error;
use candle_finetune::dataset::Sample;
use candle_finetune::extract::{FeatureBatch, Skipped, Unreadable, Views, batch_size, extract_each};
use candle_resnet::{Classifier, Model, Prediction};
use clap::{ArgGroup, Args, ValueEnum};

use super::Outcome;
use super::common::{ModelArguments, ReadingArguments};
use super::interrupt::Interrupt;
use super::photos::listed;
use super::progress::ImagePass;
use confidence::Confidence;
use explanation::Explanations;
use kept::Kept;
use output::{Output, OutputFile};
use row::{Form, Found, Row, Sheet};
use truth::Truths;

#[derive(Args)]
#[command(group = ArgGroup::new("written").args(["output", "explain"]).multiple(true))]
pub struct Arguments {
    /// Photos to look at: files, folders, patterns in quotes ('photos/*.jpg'), or - for a list on stdin (lines, or `find -print0`)
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,

    #[command(flatten)]
    model: ModelArguments,

    /// Labels to show for each photo
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,

    /// Say `not sure` where it takes that to keep the part of wrong answers at this, such as 0.05
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    max_error: Option<f64>,

    /// What is written of each photo [default: text; with --output csv or jsonl, as its name ends]
    #[arg(long, value_enum)]
    format: Option<FormatArgument>,

    /// The same as --format jsonl
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// File to write row by row
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Keep the whole rows that are in --output and go on behind them
    #[arg(long, requires = "output")]
    resume: bool,

    /// Folder for a picture of each photo: as the network sees it, and beside that, bright over it, what speaks for the likeliest label
    /// (Grad-CAM); JSON rows name it as `explanation`
    #[arg(long, value_name = "DIR")]
    explain: Option<PathBuf>,

    /// Replace --output, and pictures in --explain, where they exist
    #[arg(long, requires = "written", conflicts_with = "resume")]
    overwrite: bool,

    /// What photos really show: a CSV file with the columns path and label; accuracy is said at the end
    #[arg(long, value_name = "FILE.csv")]
    labels: Option<PathBuf>,

    #[command(flatten)]
    reading: ReadingArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArgument {
    /// For people
    Text,
    /// One JSON object a line
    Jsonl,
    /// A table, one row a photo
    Csv,
}

fn fraction(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a fraction from 0 to 1, such as 0.05".into())
}

impl Arguments {
    fn form(&self) -> anyhow::Result<Form> {
        let named_csv = self.output.as_ref().is_some_and(|file| file.extension().is_some_and(|end| end == "csv"));
        match (self.format, &self.output) {
            (Some(FormatArgument::Text), Some(_)) => bail!("`text` cannot be resumed: --output takes csv or jsonl"),
            (Some(FormatArgument::Text), None) => Ok(Form::Text),
            (Some(FormatArgument::Jsonl), _) => Ok(Form::Jsonl),
            (Some(FormatArgument::Csv), _) => Ok(Form::Csv),
            (None, _) if self.json => Ok(Form::Jsonl),
            (None, None) => Ok(Form::Text),
            (None, Some(_)) => Ok(if named_csv { Form::Csv } else { Form::Jsonl }),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let device = arguments.reading.open_device()?;
    let form = arguments.form()?;
    output::check_may_write(arguments)?;
    let photos = listed(&arguments.photos)?;
    let model = load(arguments)?;
    let confidence = Confidence::new(&arguments.model, &model, arguments.max_error)?;
    let truths = arguments.labels.as_deref().map(|file| Truths::read(file, &model)).transpose()?;
    truths.iter().for_each(|truths| truths.compare(&photos));
    let sheet = Sheet {
        form,
        top: (arguments.top_k as usize).min(model.classes),
        selective: arguments.max_error.is_some(),
        labelled: truths.is_some(),
    };
    let interrupt = Interrupt::listen()?; // From here on a file that was made is not left to itself.
    let output = arguments.output.as_deref();
    let mut file = output.map(|path| OutputFile::open(path, arguments)).transpose()?;
    let held = file.as_mut().filter(|file| arguments.resume && !file.is_new());
    let kept = held.map(|file| Kept::read(file, &sheet)).transpose()?;
    kept.iter().try_for_each(|kept| kept.check(&sheet, &confidence, truths.as_ref()))?;
    let explanations = Explanations::open(arguments)?;
    let batch = batch_size(model.preprocessing.crop, &device);
    let options = arguments.reading.plan.options_for(&device, &model, photos.len(), batch);
    let classifier = model.classifier_with(&device, &options)?;
    kept.iter().try_for_each(|kept| kept.check_answers(&classifier, &confidence))?;
    let mut output = Output::begin(sheet, file, kept.as_ref())?;
    let photos = left(photos, kept.as_ref());
    let samples: Vec<Sample> = photos.into_iter().map(|path| Sample { path, label: 0 }).collect();
    if !samples.is_empty() {
        let strict = arguments.reading.strict;
        let mut run = Run {
            classifier: &classifier,
            samples: &samples,
            confidence: &confidence,
            truths,
            output,
            explanations,
            strict,
        };
        let ended = run.all(pass(arguments, samples.len(), interrupt));
        if matches!(ended, Err(candle_finetune::Error::Interrupted)) && arguments.output.is_some() {
            say!("{} rows are written: --resume goes on behind them", run.output.counts.photos);
        }
        ended?;
        if let Some(explanations) = &run.explanations {
            say!("{} pictures in {}", explanations.count(), explanations.folder().display());
        }
        output = run.output;
    }
    output.flush()?;
    Ok(summary::print(&output.counts, &confidence, sheet.labelled))
}

/// The model, for photos that are prepared as was asked for; it says so where it was calibrated on others.
fn load(arguments: &Arguments) -> anyhow::Result<Model> {
    let (model, is_otherwise) = arguments.model.load_for(&arguments.reading.preprocessing)?;
    if is_otherwise && model.temperature != 1.0 {
        say!(
            "note: `{}` was calibrated on photos as its config.json prepares them: otherwise it may be wrong more often than it says\n\
             hint: `finetune eval` with the same options measures that on labelled photos",
            arguments.model.model
        );
    }
    Ok(model)
}

/// Photos that have no row yet.
fn left(photos: Vec<PathBuf>, kept: Option<&Kept>) -> Vec<PathBuf> {
    let Some(kept) = kept else { return photos };
    let left = kept.without(photos);
    say!("{} rows kept, {} photos left", kept.rows.len(), left.len());
    left
}

/// A bar, unless rows go to the same terminal.
fn pass(arguments: &Arguments, photos: usize, interrupt: Interrupt) -> ImagePass {
    let shown = arguments.output.is_some() || !std::io::stdout().is_terminal();
    if shown { ImagePass::new(photos, interrupt) } else { ImagePass::hidden(interrupt) }
}

/// A photo, and what it shows or why it could not be read.
type Answered<'a> = (&'a Path, Result<Found, Option<Skipped>>);

/// The same with a picture of what speaks for it.
type Explained<'a> = (&'a Path, Result<(Found, Option<PathBuf>), Option<Skipped>>);

/// The likeliest label of each photo that could be read.
fn likeliest<'a>(rows: &[Answered<'a>]) -> Vec<(&'a Path, Prediction)> {
    let best = |found: &Found| found.predictions.first().cloned();
    rows.iter().filter_map(|(path, found)| Some((*path, best(found.as_ref().ok()?)?))).collect()
}

/// Rows with the pictures of those that have an answer. A photo that could not be read again for its picture is as bad as one that never
/// could.
fn with_pictures<'a>(rows: Vec<Answered<'a>>, pictures: Vec<Result<PathBuf, Skipped>>) -> Vec<Explained<'a>> {
    let mut pictures = pictures.into_iter();
    let mut with_picture = |found| match pictures.next() {
        Some(Err(skipped)) => Err(Some(skipped)),
        picture => Ok((found, picture.and_then(Result::ok))),
    };
    rows.into_iter().map(|(path, found)| (path, found.and_then(&mut with_picture))).collect()
}

/// Photos on their way to rows.
struct Run<'a> {
    classifier: &'a Classifier,
    samples: &'a [Sample],
    confidence: &'a Confidence,
    truths: Option<Truths>,
    output: Output,
    explanations: Option<Explanations>,
    strict: bool,
}

impl Run<'_> {
    fn all(&mut self, pass: ImagePass) -> candle_finetune::Result<()> {
        let (trunk, preprocessing, samples) = (self.classifier.trunk(), self.classifier.preprocessing(), self.samples);
        let mut done = 0;
        pass.run(|observer| {
            // Rows before a photo that ends the run are written, so it may not end here.
            let unreadable = Unreadable::Skipped;
            extract_each(trunk, preprocessing, &samples, Views::Plain, unreadable, &mut |batch| {
                let photos = batch.images();
                self.batch(done, batch)?;
                done += photos;
                Ok(observer(photos))
            })
        })
    }

    /// Writes a row for each of the photos of a batch from `first` on, in order.
    fn batch(&mut self, first: usize, batch: FeatureBatch) -> candle_finetune::Result<()> {
        for (name, note) in &batch.notes {
            say!("note: {name}: {note}");
        }
        let logits = batch.features.as_ref().map(|features| self.classifier.classify(features)).transpose()?;
        let mut rows = Vec::new();
        for (sample, row) in self.samples[first..].iter().zip(batch.rows(first)) {
            let found = match (row, &logits) {
                (Ok(row), Some(logits)) => self.found(sample, &logits.get(row)?)?,
                (row, _) => Err(row.err()),
            };
            rows.push((sample.path.as_path(), found));
        }
        for (path, found) in self.explain(rows)? {
            let (found, explanation) = match found {
                Ok((found, explanation)) => (Ok(found), explanation),
                Err(skipped) => (Err(self.unreadable(skipped)?), None),
            };
            let truth = self.truths.as_ref().and_then(|truths| truths.of(path));
            self.output.write(Row { path: path.to_string_lossy().into_owned(), found, truth, explanation })?;
        }
        self.output.flush()
    }

    /// With a picture of each photo that could be read, where they were asked for.
    fn explain<'b>(&mut self, rows: Vec<Answered<'b>>) -> candle_finetune::Result<Vec<Explained<'b>>> {
        let pictures = match &mut self.explanations {
            Some(explanations) => explanations.write(self.classifier, &likeliest(&rows))?,
            None => Vec::new(),
        };
        Ok(with_pictures(rows, pictures))
    }

    /// What the network says of a photo; nothing where it leaves the range of numbers.
    fn found(
        &self,
        sample: &Sample,
        logits: &Tensor,
    ) -> candle_finetune::Result<std::result::Result<Found, Option<Skipped>>> {
        match self.confidence.rank(self.classifier, logits, self.output.sheet.top) {
            Err(Error::Model(candle_resnet::Error::NonFiniteOutputs)) => {
                Ok(Err(Some(Skipped::non_finite(sample.path.display().to_string()))))
            }
            found => found.map(Ok),
        }
    }

    /// What is said of a photo that could not be read; an error where the run is strict.
    fn unreadable(&mut self, skipped: Option<Skipped>) -> candle_finetune::Result<String> {
        let Some(skipped) = skipped else { return Ok(String::new()) };
        if self.strict {
            self.output.flush()?;
            return Err(Error::Strict(skipped));
        }
        say!("skipped: {}", skipped.reason);
        Ok(skipped.reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(reason: &str) -> Skipped {
        Skipped { name: String::new(), reason: reason.into() }
    }

    #[test]
    fn a_photo_that_vanished_before_its_picture_is_a_bad_file_among_others() {
        let found = || Ok(Found { predictions: Vec::new(), sure: None });
        let rows = ["a", "b", "c", "d"].map(Path::new).into_iter().zip([
            found(),
            Err(Some(skipped("never read"))),
            found(),
            found(),
        ]);
        let pictures = vec![Ok("a.png".into()), Err(skipped("vanished")), Ok("d.png".into())];
        let said: Vec<String> = with_pictures(rows.collect(), pictures)
            .into_iter()
            .map(|(path, found)| match found {
                Ok((_, picture)) => format!("{} {}", path.display(), picture.unwrap().display()),
                Err(skipped) => format!("{} {}", path.display(), skipped.unwrap().reason),
            })
            .collect();
        assert_eq!(said, ["a a.png", "b never read", "c vanished", "d d.png"]);
        let without = with_pictures(vec![(Path::new("a"), found())], Vec::new());
        assert!(matches!(&without[0].1, Ok((_, None))));
    }
}
