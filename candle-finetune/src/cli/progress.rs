//! Progress on stderr: bars on a terminal, nothing elsewhere.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use candle_finetune::extract::ExtractObserver;
use candle_resnet::hub::DownloadProgress;
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::interrupt::Interrupt;
use super::screen::{self, Shown};

/// Columns below which only what matters most has a place.
pub const NARROW: usize = 70;

/// What a bar shows, on a terminal and on a narrow one.
type Templates = [&'static str; 2];

const IMAGES: Templates =
    ["{prefix:>12} {bar:30} {pos}/{len} images{rate}{left}", "{prefix} {bar:10} {pos}/{len}{left}"];
const BYTES: Templates = [
    "{prefix:>12} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
    "{prefix} {bar:5} {bytes}/{total_bytes}",
];

fn bar(total: u64, [wide, narrow]: Templates, prefix: &str) -> Shown {
    let style = style(if screen::width() < NARROW { narrow } else { wide });
    let style = style.progress_chars("━╸ ").with_key("rate", rate).with_key("left", left);
    let bar = ProgressBar::new(total).with_style(style);
    screen::show(bar.with_prefix(prefix.to_owned()))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Images a second, in three digits; nothing before there are any.
fn rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    let rate = state.per_sec();
    let digits = if rate < 10.0 { 2 } else { usize::from(rate < 100.0) };
    let _ = if state.pos() > 0 { write!(out, "  {rate:.digits$}/s") } else { Ok(()) };
}

/// The time that is left; nothing before anything tells it.
fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let left = HumanDuration(state.eta());
    let _ = if state.pos() > 0 { write!(out, "  {left:#} left") } else { Ok(()) };
}

/// A bar over `total` images; hidden where stderr is no terminal.
pub fn image_bar(total: usize, prefix: &str) -> Shown {
    bar(total as u64, IMAGES, prefix)
}

/// Lines of text below the bars; hidden where stderr is no terminal.
pub fn text_below() -> Shown {
    screen::show(ProgressBar::new_spinner().with_style(style("{msg}")))
}

/// A pass over images that is shown, and that Ctrl-C stops.
pub struct ImagePass {
    bar: Option<Shown>,
    interrupt: Interrupt,
}

impl ImagePass {
    /// A pass over `total` images.
    pub fn new(total: usize, interrupt: Interrupt) -> ImagePass {
        ImagePass { bar: Some(image_bar(total, "images")), interrupt }
    }

    /// The same, but nothing is shown.
    pub fn hidden(interrupt: Interrupt) -> ImagePass {
        ImagePass { bar: None, interrupt }
    }

    /// Runs `work` with what is to be told of each batch.
    pub fn run<T>(self, work: impl FnOnce(&mut ExtractObserver<'_>) -> T) -> T {
        work(&mut |count| {
            if let Some(bar) = &self.bar {
                bar.inc(count as u64);
            }
            if self.interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }
}

/// Shows downloads of one file after another.
pub struct DownloadBar(Mutex<Option<Shown>>);

impl DownloadBar {
    /// Nothing is shown until a download begins.
    pub fn new() -> DownloadBar {
        DownloadBar(Mutex::new(None))
    }

    fn with(&self, change: impl FnOnce(&mut Option<Shown>)) {
        // A display that a panicking thread left behind is still a display.
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl DownloadProgress for DownloadBar {
    fn begin(&self, path: &str, total: u64, already: u64) {
        self.with(|shown| {
            let bar = shown.get_or_insert_with(|| bar(total, BYTES, "downloading"));
            bar.set_length(total);
            bar.set_position(already);
            bar.println(format!("{:>12} {path}", "fetching"));
        });
    }

    fn advance(&self, bytes: u64) {
        self.with(|shown| {
            if let Some(bar) = shown {
                bar.inc(bytes);
            }
        });
    }

    fn end(&self) {
        self.with(|shown| *shown = None);
    }

    fn waiting(&self, lock: &Path) {
        say!("waiting for another run that downloads the same file (it holds {})", lock.display());
    }
}
