//! The run on the terminal.

use candle_finetune::finetuning::{Estimate, Observer, Phase};
use candle_finetune::train::EpochRecord;
use indicatif::ProgressBar;

use crate::cli::interrupt::Interrupt;
use crate::cli::progress::image_bar;
use crate::cli::text::{bytes, duration};

/// Shows what happens, and stops it on Ctrl-C.
pub struct Display {
    interrupt: Interrupt,
    bar: Option<ProgressBar>,
    epochs: usize,
    /// Seconds of epochs of a tail, which take long enough to be told.
    seconds: Vec<f64>,
}

impl Display {
    /// Nothing happened yet.
    pub fn new(interrupt: Interrupt) -> Display {
        Display { interrupt, bar: None, epochs: 0, seconds: Vec::new() }
    }

    fn bar(&mut self, total: usize, prefix: &str) {
        self.bar = Some(image_bar(total, prefix));
    }

    /// The time that the epochs to come will take, if they are like those that were.
    fn left(&self) -> String {
        let (done, sum) = (self.seconds.len(), self.seconds.iter().sum::<f64>());
        if done == 0 || done >= self.epochs {
            return String::new();
        }
        format!("   {} left", duration(sum / done as f64 * (self.epochs - done) as f64))
    }
}

impl Observer for Display {
    fn estimate(&mut self, &Estimate { before, epoch, epochs, memory }: &Estimate) {
        let (all, epoch) = (duration(before + epoch * epochs as f64), duration(epoch));
        say!("{:>12} about {epoch} an epoch, {all} in all, {} of memory", "estimate", bytes(memory));
    }

    fn resumed(&mut self, epochs: usize, batches: usize) {
        say!("{:>12} after epoch {epochs} and {batches} batches of the next", "resumed");
    }

    fn begin(&mut self, phase: Phase, total: usize) {
        match phase {
            Phase::TrainFeatures => self.bar(total, "train"),
            Phase::ValFeatures => self.bar(total, "val"),
            Phase::TestFeatures => self.bar(total, "test"),
            Phase::Maps => self.bar(total, "maps"),
            Phase::Epoch => self.bar(total, "epoch"),
            Phase::RangeTest => self.bar(total, "range test"),
            Phase::Head | Phase::Fit => self.epochs = total,
            Phase::Refit => {
                self.epochs = total;
                say!("{:>12} once more on all training images, {total} epochs", "refit");
            }
        }
    }

    fn images(&mut self, count: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(count as u64);
        }
    }

    fn epoch(&mut self, phase: Phase, record: &EpochRecord) {
        match phase {
            // The last training repeats the first with a few images more: its last epoch says enough.
            Phase::Refit if record.epoch < self.epochs => {}
            Phase::Head if record.epoch < self.epochs => {}
            Phase::Head => say!("{}", epoch_line("head", record, self.epochs)),
            _ => {
                // Epochs of a head know how well they do on what they train on; those of a tail take long.
                if record.train_top1.is_none() {
                    self.seconds.push(record.seconds);
                }
                say!("{}{}", epoch_line("epoch", record, self.epochs), self.left());
            }
        }
    }

    fn end(&mut self, _: Phase) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn stop(&self) -> bool {
        self.interrupt.asked()
    }
}

fn epoch_line(prefix: &str, record: &EpochRecord, epochs: usize) -> String {
    let width = epochs.to_string().len();
    let top1 = |top1: Option<f64>| top1.map_or(String::new(), |top1| format!("  top-1 {}", percent(top1)));
    let val = record.val_loss.map(|loss| format!("   val loss {loss:.4}{}", top1(record.val_top1)));
    format!(
        "{prefix:>12} {:>width$}/{epochs}   train loss {:.4}{}{}",
        record.epoch,
        record.train_loss,
        top1(record.train_top1),
        val.unwrap_or_default()
    )
}

/// A fraction as people read it.
pub fn percent(fraction: f64) -> String {
    format!("{:5.2} %", 100.0 * fraction)
}
