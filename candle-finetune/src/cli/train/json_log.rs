//! The run for machines: each event is one JSON object on a line of stdout.
//!
//! Names of events and fields stay as they are; new ones may come.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use candle_finetune::Settings;
use candle_finetune::dataset::SplitName;
use candle_finetune::finetuning::{Estimate, Observer, PartPlan, Phase, Validation};
use candle_finetune::train::{EpochRecord, Metrics, best};
use candle_resnet::training::Statistics;
use serde::Serialize;

use super::log::{Log, Plan, Trained};
use crate::cli::common::hint;
use crate::cli::stdout::stdout;
use crate::cli::{interrupt, screen};

/// Writes events as they come.
pub struct JsonLog {
    start: Instant,
    /// Epochs of the training that goes on, in all and those that are over.
    epochs: usize,
    history: Vec<EpochRecord>,
    /// Epochs of a run that goes on, until it does.
    earlier: Vec<EpochRecord>,
}

/// What happens, as it is written.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
enum Event<'a> {
    Note {
        message: &'a str,
    },
    Plan {
        data: Cow<'a, str>,
        classes: &'a [String],
        images: Images,
        model: &'a str,
        pixels: usize,
        /// `head`, or from where on it trains.
        train_from: String,
        parts: Vec<PartRow>,
        settings: &'a Settings,
    },
    Estimate(&'a Estimate),
    Resumed {
        epochs: &'a [EpochRecord],
        batches: usize,
    },
    Begin {
        phase: Phase,
        total: usize,
    },
    End {
        phase: Phase,
    },
    Epoch {
        phase: Phase,
        epochs: usize,
        #[serde(flatten)]
        record: &'a EpochRecord,
        /// The best until now, where epochs are measured on validation images.
        best: Option<&'a EpochRecord>,
    },
    Skipped {
        image: &'a str,
        reason: String,
    },
    Unfinished {
        folder: Cow<'a, str>,
    },
    Error {
        message: &'a str,
        hint: Option<String>,
    },
    Result {
        bundle: Cow<'a, str>,
        report: Option<Cow<'a, str>>,
        /// From where a run that was stopped goes on.
        unfinished: Option<Cow<'a, str>>,
        interrupted: bool,
        val: Option<Validation>,
        test: Option<Metrics>,
        skipped: usize,
    },
}

/// An event and when it happened.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: Event<'a>,
    /// Seconds since the start.
    elapsed: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Images {
    train: usize,
    val: usize,
    test: usize,
    /// Part of the former that is held out.
    val_fraction: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PartRow {
    part: String,
    parameters: usize,
    trained: usize,
    lr: Option<f64>,
    /// Whether its batch norms follow the batch, where it has any.
    norms_follow_batch: Option<bool>,
}

impl PartRow {
    fn of(PartPlan { part, parameters, trained, lr, statistics }: PartPlan) -> PartRow {
        let norms_follow_batch = statistics.map(|statistics| matches!(statistics, Statistics::Batch));
        PartRow { part: part.to_string(), parameters, trained, lr, norms_follow_batch }
    }
}

impl JsonLog {
    /// Begins to count seconds, and sees to it that no bars are shown.
    pub fn begin() -> JsonLog {
        screen::hide_bars();
        JsonLog { start: Instant::now(), epochs: 0, history: Vec::new(), earlier: Vec::new() }
    }

    fn write(&self, event: Event<'_>) -> io::Result<()> {
        let elapsed = (1e3 * self.start.elapsed().as_secs_f64()).round() / 1e3;
        let line = serde_json::to_string(&Line { event, elapsed })?;
        writeln!(stdout(), "{line}")
    }

    /// The work counts, also where nobody reads of it any more.
    fn tell(&self, event: Event<'_>) {
        let _ = self.write(event);
    }
}

impl Observer for JsonLog {
    fn estimate(&mut self, estimate: &Estimate) {
        self.tell(Event::Estimate(estimate));
    }

    fn resumed(&mut self, epochs: &[EpochRecord], batches: usize) {
        self.earlier = epochs.to_vec();
        self.tell(Event::Resumed { epochs, batches });
    }

    fn begin(&mut self, phase: Phase, total: usize) {
        if matches!(phase, Phase::Head | Phase::Fit | Phase::Refit) {
            (self.epochs, self.history) = (total, Vec::new());
        }
        if phase == Phase::Fit {
            self.history = std::mem::take(&mut self.earlier);
        }
        self.tell(Event::Begin { phase, total });
    }

    fn images(&mut self, _: usize) {}

    fn epoch(&mut self, phase: Phase, record: &EpochRecord) {
        self.history.push(*record);
        self.tell(Event::Epoch { phase, epochs: self.epochs, record, best: best(&self.history) });
    }

    fn end(&mut self, phase: Phase) {
        self.tell(Event::End { phase });
    }

    fn stop(&self) -> bool {
        interrupt::asked()
    }
}

impl Log for JsonLog {
    fn note(&mut self, message: &str) {
        self.tell(Event::Note { message });
    }

    fn plan(&mut self, plan: &Plan<'_>) -> anyhow::Result<()> {
        let &Plan { data, dataset, model, settings } = plan;
        let images = |split| dataset.split(split).len();
        let [train, val, test] = [SplitName::Train, SplitName::Val, SplitName::Test].map(images);
        let val_fraction = if val > 0 { 0.0 } else { settings.val_fraction };
        self.tell(Event::Plan {
            data: data.to_string_lossy(),
            classes: &dataset.classes,
            images: Images { train, val, test, val_fraction },
            model: &model.provenance.model,
            pixels: model.preprocessing.crop,
            train_from: settings.tail.as_ref().map_or("head".into(), |tail| tail.train_from.to_string()),
            parts: plan.parts()?.into_iter().map(PartRow::of).collect(),
            settings,
        });
        Ok(())
    }

    fn result(&mut self, Trained { tuned, bundle, report, unfinished }: &Trained) -> io::Result<()> {
        for skipped in &tuned.findings.skipped {
            self.tell(Event::Skipped { image: &skipped.name, reason: skipped.reason.to_string() });
        }
        self.write(Event::Result {
            bundle: bundle.to_string_lossy(),
            report: report.as_deref().map(Path::to_string_lossy),
            unfinished: unfinished.as_deref().map(Path::to_string_lossy),
            interrupted: tuned.trained.interrupted,
            val: tuned.trained.val,
            test: tuned.test,
            skipped: tuned.findings.skipped.len(),
        })
    }

    fn unfinished(&mut self, folder: &Path) {
        self.tell(Event::Unfinished { folder: folder.to_string_lossy() });
    }

    fn error(&mut self, error: &anyhow::Error) {
        let text = error.to_string();
        let (message, own) = text.split_once("\nhint: ").map_or((&*text, None), |(message, own)| (message, Some(own)));
        self.tell(Event::Error { message, hint: own.map(str::to_owned).or_else(|| hint(error)) });
    }
}
