//! `finetune predict`: photos → ranked labels.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_resnet::{Classifier, Prediction, preprocess};
use clap::Args;
use serde_json::json;

use super::Outcome;
use super::common::{ModelArguments, ReadingArguments};

#[derive(Args)]
pub struct Arguments {
    /// Photos to look at
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,

    #[command(flatten)]
    model: ModelArguments,

    /// Labels to show for each photo
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,

    /// One JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ReadingArguments,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let device = arguments.reading.device.open()?;
    let model = arguments.reading.preprocessing.adapt(arguments.model.load(None)?)?;
    let options = arguments.reading.plan.options_for(&device, &model, arguments.photos.len(), 1);
    let classifier = model.classifier_with(&device, &options)?;
    let mut unreadable = 0;
    for photo in &arguments.photos {
        match predict(&classifier, photo, arguments.top_k as usize) {
            Ok(predictions) => print(photo, &predictions, arguments)?,
            Err(error) if arguments.reading.strict => return Err(error.into()),
            Err(error) => {
                unreadable += 1;
                print_unreadable(photo, &error, arguments.json)?;
            }
        }
    }
    if unreadable > 0 {
        say!("{unreadable} of {} photos could not be read", arguments.photos.len());
        return Ok(Outcome::Unsatisfied);
    }
    Ok(Outcome::Done)
}

fn predict(classifier: &Classifier, path: &Path, top: usize) -> candle_resnet::Result<Vec<Prediction>> {
    let photo = preprocess::decode(path)?;
    for note in photo.notes() {
        say!("note: {}: {note}", path.display());
    }
    classifier.predict_photo(&photo, top)
}

fn print_unreadable(photo: &Path, error: &candle_resnet::Error, as_json: bool) -> std::io::Result<()> {
    say!("skipped: {error}");
    if as_json {
        writeln!(std::io::stdout(), "{}", json!({"path": photo.to_string_lossy(), "error": error.to_string()}))?;
    }
    Ok(())
}

fn print(photo: &Path, predictions: &[Prediction], arguments: &Arguments) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let predictions: Vec<_> = predictions
            .iter()
            .map(|p| json!({"label": p.label, "index": p.index, "probability": p.probability}))
            .collect();
        return writeln!(out, "{}", json!({"path": photo.to_string_lossy(), "predictions": predictions}));
    }
    writeln!(out, "{}", photo.display())?;
    for prediction in predictions {
        writeln!(out, "  {:6.2} %  {}", 100.0 * prediction.probability, prediction.label)?;
    }
    Ok(())
}
