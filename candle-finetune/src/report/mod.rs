//! What a training or an evaluation came to, as one HTML file that opens offline, with drawings and tables beside it; and what the doctor
//! found, as another.
//!
//! [`Report::write`] and [`write_examination`] fill the templates in `templates/`; no number is computed there. What a picture shows where, and what it is
//! like, comes from an [`Explainer`], such as the network that judged it ([`NetworkExplainer`]).

mod charts;
mod examination;
mod files;
mod illustrated;
mod measured;
mod measures;
mod network;
pub(crate) mod page;
mod pictures;
mod rate;
mod tables;

use std::path::{Path, PathBuf};

use askama::Template;
use candle_resnet::training::Statistics;

use crate::error::{Result, io_error};
use crate::finetuning::{PartPlan, Phase, Stage};
use crate::train::EpochRecord;
use crate::whole_file;
use charts::{Series, Unit, curves};
use files::{Beside, Files};
use measured::Sections;
use page::{Chart, PartRow, ReportPage};

pub use examination::write_examination;
pub use illustrated::{Asked, Explained, Explainer, Near};
pub use measured::Measured;
pub use measures::{ClassMeasures, Confusion, Pair};
pub use network::NetworkExplainer;
pub use page::Fact;
pub use rate::Rate;

/// The name of a training's report in its bundle.
pub const PAGE: &str = "report.html";

/// What a report tells.
#[derive(Default)]
pub struct Report<'a> {
    /// Such as `resnet18 on photos`.
    pub title: String,
    /// What is to be known first, a line each.
    pub lead: Vec<String>,
    /// What was done and with what.
    pub facts: Vec<Fact>,
    /// What became of each part of the network, where more than the head trained.
    pub parts: Vec<PartPlan>,
    /// Epochs, where there were any.
    pub stages: &'a [Stage],
    /// The text of `run.toml`, where there is one.
    pub settings: Option<String>,
    /// What images that were not learned from say.
    pub measured: Option<Measured<'a>>,
    /// What stood out in the data.
    pub notes: Vec<String>,
    /// Command lines that do it again.
    pub commands: Vec<String>,
}

/// The folder of what lies beside the page `page`: `report.html` → `report-files`.
pub fn folder_of(page: &Path) -> PathBuf {
    let mut name = page.file_stem().unwrap_or_default().to_owned();
    name.push("-files");
    page.with_file_name(name)
}

impl Report<'_> {
    /// Writes the page, and the folder beside it.
    ///
    /// Files of an earlier report are replaced. Images that cannot be read any more are left out.
    ///
    /// # Errors
    /// If a file cannot be written, or what explains pictures fails; none of it stays then.
    pub fn write(self, page: &Path) -> Result<()> {
        let files = Files::empty(folder_of(page))?;
        self.write_with(&files, page).inspect_err(|_| files.take_away())
    }

    fn write_with(self, files: &Files, page: &Path) -> Result<()> {
        let curves = self.curves(files)?;
        let (cards, measured) = match &self.measured {
            Some(measured) => {
                let sections = Sections::of(measured);
                (sections.cards(), Some(sections.view(files)?))
            }
            None => (Vec::new(), None),
        };
        let filled = ReportPage {
            cards,
            curves,
            measured,
            parts: self.parts.iter().map(part_row).collect(),
            title: self.title,
            lead: self.lead,
            facts: self.facts,
            notes: self.notes,
            commands: self.commands,
            settings: self.settings,
        };
        let html = filled.render().map_err(|error| io_error(page)(std::io::Error::other(error)))?;
        whole_file::write(page, html.as_bytes())
    }

    /// Loss and accuracy over the epochs, but for those of a refit, which repeats the first training.
    fn curves(&self, files: &Files) -> Result<Vec<Chart>> {
        let mut charts = Vec::new();
        for Stage { phase, epochs } in self.stages.iter().filter(|stage| stage.epochs.len() > 1) {
            let Some((name, files_of)) = stage_names(*phase) else { continue };
            let line = |value: fn(&EpochRecord) -> Option<f64>| -> Vec<(f64, f64)> {
                epochs.iter().filter_map(|record| Some((record.epoch as f64, value(record)?))).collect()
            };
            let loss = [line(|record| Some(record.train_loss)), line(|record| record.val_loss)];
            let top1 = [line(|record| record.train_top1), line(|record| record.val_top1)];
            let drawings = [("loss", Unit::Number, loss), ("top-1", Unit::Percent, top1)];
            for ((what, unit, [train, val]), file) in drawings.into_iter().zip(files_of) {
                let series = [Series { name: "training", points: train }, Series { name: "validation", points: val }];
                let series: Vec<Series> = series.into_iter().filter(|series| !series.points.is_empty()).collect();
                if !series.is_empty() {
                    let svg = files.drawing(file, curves(what, unit, &series))?;
                    charts.push(Chart { svg, caption: format!("{what} {name}") });
                }
            }
        }
        Ok(charts)
    }
}

/// What epochs of a phase are called, and the files of their drawings; nothing for what has none.
fn stage_names(phase: Phase) -> Option<(&'static str, [Beside; 2])> {
    match phase {
        Phase::Head => Some(("of the head before all else", [Beside::HeadLoss, Beside::HeadTop1])),
        Phase::Fit => Some(("in each epoch", [Beside::Loss, Beside::Top1])),
        _ => None,
    }
}

fn part_row(&PartPlan { part, parameters, trained, lr, statistics }: &PartPlan) -> PartRow {
    PartRow {
        name: part.to_string(),
        parameters: parameters.to_string(),
        state: match trained {
            0 => "frozen".into(),
            all if all == parameters => "trained".into(),
            some => format!("{some} trained"),
        },
        norms: match statistics {
            None => "",
            Some(Statistics::Running) => "running statistics",
            Some(Statistics::Batch) => "follow the batch",
        },
        lr: lr.map_or("–".into(), |lr| format!("{lr:.2e}")),
    }
}
