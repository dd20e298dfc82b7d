//! Progress on stderr: bars on a terminal, nothing elsewhere.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use candle_finetune::extract::ExtractObserver;
use candle_resnet::hub::DownloadProgress;
use indicatif::{ProgressBar, ProgressStyle};

use super::interrupt::Interrupt;

const IMAGES: &str = "{prefix:>12} {bar:30} {pos}/{len} images  {per_sec}  {eta} left";
const BYTES: &str = "{prefix:>12} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";

fn bar(total: u64, template: &str, prefix: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style.progress_chars("━╸ ")).with_prefix(prefix.to_owned())
}

/// A bar over `total` images; hidden where stderr is no terminal.
pub fn image_bar(total: usize, prefix: &str) -> ProgressBar {
    bar(total as u64, IMAGES, prefix)
}

/// A pass over images that is shown, and that Ctrl-C stops.
pub struct ImagePass {
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl ImagePass {
    /// A pass over `total` images.
    pub fn new(total: usize, interrupt: Interrupt) -> ImagePass {
        ImagePass { bar: image_bar(total, "images"), interrupt }
    }

    /// The same, but nothing is shown.
    pub fn hidden(interrupt: Interrupt) -> ImagePass {
        ImagePass { bar: ProgressBar::hidden(), interrupt }
    }

    /// Runs `work` with what is to be told of each batch.
    pub fn run<T>(self, work: impl FnOnce(&mut ExtractObserver<'_>) -> T) -> T {
        let result = work(&mut |count| {
            self.bar.inc(count as u64);
            if self.interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.bar.finish_and_clear();
        result
    }
}

/// Shows downloads of one file after another.
pub struct DownloadBar(Mutex<Option<ProgressBar>>);

impl DownloadBar {
    /// Nothing is shown until a download begins.
    pub fn new() -> DownloadBar {
        DownloadBar(Mutex::new(None))
    }

    fn with(&self, change: impl FnOnce(&mut Option<ProgressBar>)) {
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
        self.with(|shown| {
            if let Some(bar) = shown.take() {
                bar.finish_and_clear();
            }
        });
    }

    fn waiting(&self, lock: &Path) {
        say!("waiting for another run that downloads the same file (it holds {})", lock.display());
    }
}
