//! The run for people: lines on stderr and, on a terminal, bars below them.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_finetune::finetuning::{Estimate, Findings, Observer, Phase, Validation};
use candle_finetune::train::{EpochRecord, Metrics};

use super::log::{Log, Plan, Trained};
use super::plan;
use super::status::{Status, curve_line, epoch_line, percent};
use crate::cli::interrupt;
use crate::cli::progress::{image_bar, text_below};
use crate::cli::screen::{self, Shown};
use crate::cli::stdout::stdout;
use crate::cli::text::{bytes, duration, quoted, several};

/// How long a head trains before it gets a status: what comes and goes in no time only flickers.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows what happens.
#[derive(Default)]
pub struct Display {
    bar: Option<Shown>,
    status: Option<Shown>,
    course: Course,
    /// Epochs of a run that goes on, until it does.
    earlier: Vec<EpochRecord>,
}

/// Epochs of one training.
#[derive(Default)]
struct Course {
    /// In all, unless patience ends them.
    epochs: usize,
    /// Those that are over.
    history: Vec<EpochRecord>,
    /// Seconds of one, as far as a trial could tell.
    estimate: Option<f64>,
    /// When the first of them began.
    began: Option<Instant>,
    /// When the one that is not over began, where a bar shows it.
    epoch_began: Option<Instant>,
}

impl Course {
    fn begin(&mut self, epochs: usize, earlier: Vec<EpochRecord>) {
        let began = Some(Instant::now());
        *self = Course { epochs, history: earlier, began, epoch_began: None, estimate: self.estimate };
    }

    fn push(&mut self, record: EpochRecord) {
        self.history.push(record);
        self.epoch_began = None;
    }

    /// Seconds that the epochs to come will take, if they are like those that were.
    fn left(&self) -> Option<f64> {
        let mean = || self.history.iter().map(|record| record.seconds).sum::<f64>() / self.history.len() as f64;
        let epoch = if self.history.is_empty() { self.estimate? } else { mean() };
        let spent = self.epoch_began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        let to_come = self.epochs.saturating_sub(self.history.len());
        (to_come > 0).then(|| (epoch * to_come as f64 - spent.min(epoch)).max(0.0))
    }

    fn is_long(&self) -> bool {
        self.began.is_some_and(|began| began.elapsed() > PATIENCE)
    }
}

impl Display {
    /// Nothing happened yet.
    pub fn new() -> Display {
        Display::default()
    }

    fn show_bar(&mut self, total: usize, prefix: &str) {
        self.bar = Some(image_bar(total, prefix));
    }

    /// The bar of an epoch stays for the next one.
    fn begin_epoch(&mut self, images: usize) {
        self.course.epoch_began = Some(Instant::now());
        match &self.bar {
            Some(bar) => {
                bar.reset();
                bar.set_length(images as u64);
            }
            None => self.show_bar(images, "epoch"),
        }
        // The first batch may take long.
        self.bar.iter().for_each(|bar| bar.tick());
        self.show_status();
    }

    fn show_status(&mut self) {
        let Course { epochs, history, .. } = &self.course;
        let status = Status { history, epochs: *epochs, left: self.course.left() };
        // The last column stays free, so that what a terminal echoes does not end up on another line.
        let lines = status.lines(screen::width().saturating_sub(1));
        self.status.get_or_insert_with(text_below).set_message(lines);
    }

    fn clear(&mut self) {
        (self.bar, self.status) = (None, None);
    }

    /// What is to be said of an epoch beside what it reached: how long the others will take, where nothing else shows it.
    fn left_after(&self, record: &EpochRecord) -> String {
        // Epochs of a head know how well they do on what they train on; those of a tail take long.
        let is_told = record.train_top1.is_none() && !screen::is_live();
        self.course.left().filter(|_| is_told).map_or(String::new(), |left| format!("   {} left", duration(left)))
    }
}

impl Observer for Display {
    fn estimate(&mut self, &Estimate { before, epoch, after, epochs, memory, .. }: &Estimate) {
        self.course.estimate = Some(epoch);
        let (all, epoch) = (duration(before + epoch * epochs as f64 + after), duration(epoch));
        say!("{:>12} about {epoch} an epoch, {all} in all, {} of memory", "estimate", bytes(memory));
    }

    fn resumed(&mut self, epochs: &[EpochRecord], batches: usize) {
        self.earlier = epochs.to_vec();
        say!("{:>12} after epoch {} and {batches} batches of the next", "resumed", epochs.len());
    }

    fn begin(&mut self, phase: Phase, total: usize) {
        match phase {
            Phase::TrainFeatures => self.show_bar(total, "train"),
            Phase::ValFeatures => self.show_bar(total, "val"),
            Phase::TestFeatures => self.show_bar(total, "test"),
            Phase::Maps => self.show_bar(total, "maps"),
            Phase::RangeTest => self.show_bar(total, "range test"),
            Phase::Index => self.show_bar(total, "index"),
            Phase::Epoch => self.begin_epoch(total),
            Phase::Head => self.course.begin(total, Vec::new()),
            Phase::Fit => self.course.begin(total, std::mem::take(&mut self.earlier)),
            Phase::Refit => {
                self.course.begin(total, Vec::new());
                say!("{:>12} once more on all training images, {}", "refit", several(total, "epoch"));
            }
        }
    }

    fn images(&mut self, count: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(count as u64);
        }
        if self.status.is_some() {
            self.show_status();
        }
    }

    fn epoch(&mut self, phase: Phase, record: &EpochRecord) {
        self.course.push(*record);
        let epochs = self.course.epochs;
        let width = if screen::is_live() { screen::width() } else { usize::MAX };
        match phase {
            // The last training repeats the first with a few images more: its last epoch says enough.
            Phase::Refit | Phase::Head if record.epoch < epochs => {}
            Phase::Head => say!("{}", epoch_line("head", record, epochs, width)),
            _ => say!("{}{}", epoch_line("epoch", record, epochs, width), self.left_after(record)),
        }
        if self.status.is_some() || self.course.is_long() {
            self.show_status();
        }
    }

    fn end(&mut self, phase: Phase) {
        if phase != Phase::Epoch {
            self.clear();
        }
        if phase == Phase::Fit && screen::is_live() {
            curve_line(&self.course.history, screen::width()).into_iter().for_each(|line| say!("{line}"));
        }
    }

    fn stop(&self) -> bool {
        interrupt::asked()
    }
}

impl Log for Display {
    fn note(&mut self, note: &str) {
        say!("note: {note}");
    }

    fn plan(&mut self, plan: &Plan<'_>) -> anyhow::Result<()> {
        plan::print(plan.model, plan.dataset, plan.settings)
    }

    fn result(&mut self, Trained { tuned, bundle, report, unfinished }: &Trained) -> std::io::Result<()> {
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
        let printed = writeln!(stdout(), "{}", bundle.display());
        say!("try: finetune predict PHOTO --model {}", quoted(&bundle.to_string_lossy()));
        if let Some(page) = report {
            say!("see: {}", page.display());
        }
        if let Some(folder) = unfinished {
            self.unfinished(folder);
        }
        printed
    }

    fn unfinished(&mut self, folder: &Path) {
        say!("go on with: finetune train --resume {}", quoted(&folder.to_string_lossy()));
    }

    fn error(&mut self, _: &anyhow::Error) {
        self.clear();
    }
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
        say!("{:>12} {} could not be read", "skipped", several(findings.skipped.len(), "image"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: usize, seconds: f64) -> EpochRecord {
        EpochRecord { epoch, lr: 0.1, train_loss: 1.0, train_top1: None, val_loss: None, val_top1: None, seconds }
    }

    #[test]
    fn time_left_is_that_of_epochs_like_those_that_were() {
        let mut course = Course::default();
        course.begin(4, Vec::new());
        assert_eq!(course.left(), None);
        course.push(record(1, 2.0));
        course.push(record(2, 4.0));
        assert_eq!(course.left(), Some(6.0));
        course.push(record(3, 3.0));
        course.push(record(4, 3.0));
        assert_eq!(course.left(), None);
    }

    #[test]
    fn epochs_before_an_interruption_count_as_done() {
        let mut course = Course::default();
        course.begin(6, vec![record(1, 5.0), record(2, 5.0), record(3, 5.0)]);
        course.push(record(4, 5.0));
        assert_eq!(course.left(), Some(10.0));
    }

    #[test]
    fn before_the_first_epoch_a_trial_tells_the_time() {
        let mut course = Course { estimate: Some(3.0), ..Course::default() };
        course.begin(5, Vec::new());
        assert_eq!(course.left(), Some(15.0));
    }
}
