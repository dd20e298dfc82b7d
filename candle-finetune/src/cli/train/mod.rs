//! `finetune train`: a folder of photos → a bundle.

mod asked;
mod display;
mod json_log;
mod log;
mod options;
mod plan;
mod report;
mod sparkline;
mod status;
mod unfinished;
mod views;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail};
use candle_finetune::Error;
use candle_finetune::bundle::{Draft, RunRecord, WrittenDraft};
use candle_finetune::dataset::Dataset;
use candle_finetune::doctor::exact_copies;
use candle_finetune::finetuning::{Derived, Machine, fine_tune_model};
use candle_finetune::images::Splits;
use candle_finetune::report::PAGE;
use candle_finetune::run_file::RunFile;
use clap::{ArgGroup, Args};

use super::Outcome;
use super::interrupt::Interrupt;
use asked::canonical;
use log::{Log, LogFormat, Plan, Trained};
use unfinished::Unfinished;

pub use asked::{Asked, RunArguments};
pub use display::{Display, print_findings};
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

    /// How to tell what happens
    ///
    /// Each JSON object names its `event` and has the seconds `elapsed` since the start: plan (data, classes, images, model, train-from,
    /// parts, settings), estimate, resumed, begin and end of a phase, epoch (its losses, accuracies, rate and seconds, and the best until
    /// then), note, skipped (an image and why), and last result (bundle, report, val, test), or unfinished (the folder to go on from) and
    /// error (message, hint).
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Write no report into the bundle
    #[arg(long)]
    no_report: bool,

    /// Replace the bundle's files where the folder exists, and begin anew where a run for it was stopped
    #[arg(long, requires = "out")]
    overwrite: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut log = arguments.log_format.begin();
    match arguments.train(&mut *log) {
        Ok(trained) => log.result(&trained)?,
        Err(error) => {
            log.error(&error);
            return Err(error);
        }
    }
    Ok(Outcome::Done)
}

impl Arguments {
    fn train(&self, log: &mut dyn Log) -> anyhow::Result<Trained> {
        let mut asked = self.run.asked(self.file()?)?;
        if self.checkpoint_minutes.is_some() && asked.settings.tail.is_none() {
            bail!("--checkpoint-minutes belongs to --train-from with a part before the head");
        }
        let dataset = asked.dataset(log)?;
        let device = asked.device()?;
        let target = self.target(&asked)?;
        let draft = Draft::new(&target, self.resume.as_deref().map_or(self.overwrite, unfinished::may_replace))?;
        let copies = self.check_copies(&dataset, log)?;
        let model = self.run.load(&mut asked, log)?;
        let splits = Splits::of(&dataset);
        let draft = draft.reserve(&model, &splits, &asked.settings, !self.no_report);
        let draft = draft.map_err(|error| self.where_to_go_on(error))?;
        let interrupt = Interrupt::listen()?;
        let options = asked.options(&model, &device);
        let machine = Machine { device: &device, options: &options, maps: None, checkpoints: None };
        if self.resume.is_some() && self.run.fits_batches() {
            bail!(
                "--batch-size auto looks for a batch anew\nhint: leave it out, and the run goes on with the batches that it began with"
            );
        }
        self.run.fit_batches(&mut asked.settings, (&model, machine), &dataset, log)?;
        let Asked { record, settings, .. } = asked;
        log.plan(&Plan { data: &record.data, dataset: &dataset, model: &model, settings: &settings })?;
        let store = self.run.map_store();
        let run = RunFile::new(&record.clone().begun_here(), &model.preprocessing, &settings, &Derived::default());
        let unfinished = settings.tail.is_some().then(|| self.unfinished(&target, &run)).transpose()?;
        let checkpoints = unfinished.as_ref().map(Unfinished::checkpoints);
        let machine = Machine { maps: store.as_ref(), checkpoints, ..machine };
        let delivered = match fine_tune_model(&model, machine, &splits, &settings, log) {
            Ok(delivered) => delivered,
            Err(error) => {
                let folder = unfinished.and_then(|unfinished| self.close_failed(unfinished, &error));
                folder.iter().for_each(|folder| log.unfinished(folder));
                return Err(error.into());
            }
        };
        let record = for_anywhere(record);
        let written = draft.write(&model, &delivered.tuned, &settings, &record).and_then(WrittenDraft::publish);
        let bundle = match written {
            Ok(bundle) => bundle,
            Err(error) => {
                // Nothing is to be made once more where the bundle lies whole beside its place.
                let goes_on = !matches!(error, Error::Unpublished { .. }) || delivered.tuned.trained.interrupted;
                let folder = unfinished.and_then(|unfinished| unfinished.close(goes_on));
                folder.iter().for_each(|folder| log.unfinished(folder));
                return Err(error.into());
            }
        };
        unfinished.iter().for_each(Unfinished::allow_replacing);
        let (model, dataset, settings, record, copies) = (&model, &dataset, &settings, &record, copies.as_slice());
        let run = report::Run { model, dataset, settings, record, copies };
        let written = (!self.no_report).then(|| run.report(&delivered, &bundle, interrupt)).transpose();
        // Weights that were trained for hours are worth more than a drawing of them.
        let written = written.unwrap_or_else(|error| {
            log.note(&format!("the report was not written: {error}"));
            None
        });
        let report = written.map(|()| bundle.join(PAGE));
        let tuned = delivered.tuned;
        let unfinished = unfinished.and_then(|unfinished| unfinished.close(tuned.trained.interrupted));
        Ok(Trained { tuned, bundle, report, unfinished })
    }

    /// An error with the way out of a run that goes on, whose bundle comes to lie beside its folder.
    fn where_to_go_on(&self, error: Error) -> anyhow::Error {
        match (&self.resume, &error) {
            (Some(folder), Error::NoRoom { .. }) => {
                anyhow!("{error}\nhint: make room, or move the folder {} to another disk", folder.display())
            }
            _ => error.into(),
        }
    }

    /// Ends the work on a run that `error` ended; gives the folder from which it can go on.
    fn close_failed(&self, unfinished: Unfinished, error: &Error) -> Option<PathBuf> {
        let in_first_epoch = self.resume.is_none() && unfinished.checkpoints().epochs() == 0;
        // What goes wrong there would do so again.
        let in_vain = in_first_epoch && matches!(error, Error::Train(_));
        unfinished.close(!in_vain)
    }

    /// Refuses equal files in several splits and tells of others; a run that goes on was asked when it began.
    fn check_copies(&self, dataset: &Dataset, log: &mut dyn Log) -> anyhow::Result<Vec<String>> {
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
        found.iter().for_each(|found| log.note(&format!("{found}; `finetune doctor` lists them")));
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
            let target = unfinished::target_of(folder)?;
            if target.symlink_metadata().is_ok() && !unfinished::may_replace(folder) {
                let path = target.display();
                bail!("{path}: was made by somebody else since the run began\nhint: give it another name, and go on");
            }
            return Ok(target);
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
