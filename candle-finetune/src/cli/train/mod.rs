//! `finetune train`: a folder of photos → a bundle.

mod asked;
mod display;
mod options;
mod plan;
mod report;
mod unfinished;
mod views;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use candle_finetune::Error;
use candle_finetune::bundle::{Draft, RunRecord};
use candle_finetune::dataset::Dataset;
use candle_finetune::doctor::exact_copies;
use candle_finetune::finetuning::{Derived, Findings, FineTuned, Machine, Validation, fine_tune_model};
use candle_finetune::images::Splits;
use candle_finetune::report::PAGE;
use candle_finetune::run_file::RunFile;
use candle_finetune::train::Metrics;
use clap::{ArgGroup, Args};

use super::Outcome;
use super::interrupt::Interrupt;
use asked::canonical;
use display::percent;
use unfinished::Unfinished;

pub use asked::{Asked, RunArguments};
pub use display::Display;
pub use plan::print_for_range_test;
pub use report::skipped_lines;

/// The time after which the state of a training is saved.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

#[derive(Args)]
#[command(group = ArgGroup::new("recorded").args(["config", "resume"]).multiple(true))]
#[command(group = ArgGroup::new("augmented").args(["augment", "config", "resume"]).multiple(true))]
pub struct Arguments {
    #[command(flatten)]
    run: RunArguments,

    /// Go on with a run that was stopped: the folder NAME.unfinished that it left beside its bundle
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["dir", "model", "config", "out", "overwrite"])]
    resume: Option<PathBuf>,

    /// Minutes after which the state of a training is saved, beside the end of each epoch (with --train-from)
    /// [default: 10]
    #[arg(long, value_name = "N", value_parser = minutes)]
    checkpoint_minutes: Option<Duration>,

    /// Folder to write the bundle to; named after data and model if left out
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Train even if the same file is in more than one of train, val and test
    #[arg(long)]
    allow_leaks: bool,

    /// Write no report into the bundle
    #[arg(long)]
    no_report: bool,

    /// Replace the bundle's files where the folder exists, and begin anew where a run for it was stopped
    #[arg(long, requires = "out")]
    overwrite: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut asked = arguments.run.asked(arguments.file()?)?;
    if arguments.checkpoint_minutes.is_some() && asked.settings.tail.is_none() {
        bail!("--checkpoint-minutes belongs to --train-from with a part before the head");
    }
    let dataset = asked.dataset()?;
    let device = asked.device()?;
    let target = arguments.target(&asked)?;
    let draft = Draft::new(&target, arguments.overwrite || arguments.resume.is_some())?;
    let copies = arguments.check_copies(&dataset)?;
    let model = arguments.run.load(&mut asked)?;
    let interrupt = Interrupt::listen()?;
    let mut display = Display::new(interrupt.clone());
    let options = asked.options(&model, &device);
    let Asked { record, settings, .. } = asked;
    plan::print(&model, &dataset, &settings)?;
    let store = arguments.run.map_store();
    let run = RunFile::new(&record.clone().begun_here(), &model.preprocessing, &settings, &Derived::default());
    let unfinished = settings.tail.is_some().then(|| arguments.unfinished(&target, &run)).transpose()?;
    let checkpoints = unfinished.as_ref().map(Unfinished::checkpoints);
    let machine = Machine { device: &device, options: &options, maps: store.as_ref(), checkpoints };
    let tuned = fine_tune_model(&model, machine, &Splits::of(&dataset), &settings, &mut display);
    let tuned = match tuned {
        Ok(tuned) => tuned,
        Err(error) => {
            // What goes wrong in the first epoch would do so again.
            let in_vain = |unfinished: &Unfinished| {
                arguments.resume.is_none() && unfinished.checkpoints().epochs() == 0 && matches!(error, Error::Train(_))
            };
            if let Some(unfinished) = unfinished {
                let goes_on = !in_vain(&unfinished);
                unfinished.close(goes_on);
            }
            return Err(error.into());
        }
    };
    let record = for_anywhere(record);
    let bundle = draft.write(&model, &tuned, &settings, &record)?.publish()?;
    let mut reported = false;
    if !arguments.no_report {
        let (model, dataset, settings, record, copies) = (&model, &dataset, &settings, &record, copies.as_slice());
        let run = report::Run { model, dataset, settings, record, device: &device, options: &options, copies };
        let written = run.report(&tuned, &bundle, interrupt);
        reported = written.is_ok();
        // Weights that were trained for hours are worth more than a drawing of them.
        written.unwrap_or_else(|error| say!("note: the report was not written: {error:#}"));
    }
    print_result(&tuned, &bundle)?;
    if reported {
        say!("see: {}", bundle.join(PAGE).display());
    }
    if let Some(unfinished) = unfinished {
        unfinished.close(tuned.trained.interrupted);
    }
    Ok(Outcome::Done)
}

impl Arguments {
    /// Refuses equal files in several splits and tells of others; a run that goes on was asked when it began.
    fn check_copies(&self, dataset: &Dataset) -> anyhow::Result<Vec<String>> {
        if self.resume.is_some() {
            return Ok(vec!["equal files were looked for when the run began, and not when it went on".into()]);
        }
        let copies = exact_copies(dataset);
        if !self.allow_leaks {
            copies.check_for_leaks()?;
        }
        let found = [
            ("in more than one of train, val and test", &copies.leaks),
            ("under more than one label", &copies.two_labels),
            ("there several times", &copies.others),
        ];
        let found = found.into_iter().filter(|(_, copies)| !copies.0.is_empty());
        let found: Vec<String> = found.map(|(what, copies)| format!("files that are {what}: {copies}")).collect();
        found.iter().for_each(|found| say!("note: {found}; `finetune doctor` lists them"));
        Ok(found)
    }

    /// What says what the run is of, where that is no argument.
    fn file(&self) -> anyhow::Result<Option<RunFile>> {
        let of_run = self.resume.as_deref().map(unfinished::run_file).transpose()?;
        Ok(of_run.as_deref().or(self.run.config.as_deref()).map(RunFile::read).transpose()?)
    }

    /// The folder for the state of the run that `run` describes and that will write the bundle `target`.
    fn unfinished(&self, target: &Path, run: &RunFile) -> anyhow::Result<Unfinished> {
        let every = self.checkpoint_minutes.unwrap_or(CHECKPOINT_EVERY);
        match &self.resume {
            Some(folder) => Unfinished::resume(folder, every),
            None => Unfinished::begin(target, run, every, self.overwrite),
        }
    }

    /// The folder that was asked for, or one named after data and model.
    fn target(&self, asked: &Asked) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.resume {
            return unfinished::target_of(folder);
        }
        let data = canonical(&asked.record.data);
        let target = self.out.clone().unwrap_or_else(|| asked.default_target("", "", unfinished::is_taken));
        // A bundle inside the data set would be a class of it the next time.
        if std::path::absolute(&target)?.starts_with(&data) {
            bail!("{}: lies inside the data set {}", target.display(), data.display());
        }
        Ok(target)
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    Duration::try_from_secs_f64(60.0 * minutes).map_err(|error| error.to_string())
}

/// The record with paths that mean the same wherever it is read.
fn for_anywhere(record: RunRecord) -> RunRecord {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    RunRecord { data: absolute(record.data), weights: record.weights.map(absolute), ..record }
}

fn print_result(tuned: &FineTuned, bundle: &Path) -> std::io::Result<()> {
    if tuned.trained.interrupted {
        say!("{:>12} stopped early; this is the best so far", "note");
    }
    if let Some(Validation { epoch, top1, loss, images }) = tuned.trained.val {
        let after = if epoch == 0 { "of the head alone".into() } else { format!("after epoch {epoch}") };
        say!("{:>12} top-1 {} of {images} images, loss {loss:.4}, {after}", "val", percent(top1));
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
