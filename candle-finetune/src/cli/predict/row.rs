//! What is written of each photo, and in which form.

use std::path::PathBuf;

use candle_resnet::Prediction;
use serde_json::{Value, json};

use super::summary::Verdict;
use super::truth::Truth;

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Jsonl,
    Csv,
}

/// What rows hold.
#[derive(Clone, Copy)]
pub struct Sheet {
    pub form: Form,
    /// Labels of each photo.
    pub top: usize,
    /// Whether it may say that it is not sure.
    pub selective: bool,
    /// Whether it says what is true.
    pub labelled: bool,
}

/// What a model says of a photo.
pub struct Found {
    /// Likeliest first.
    pub predictions: Vec<Prediction>,
    /// Whether that is an answer; `None` where all are.
    pub sure: Option<bool>,
}

/// One photo.
pub struct Row {
    pub path: String,
    /// What it shows, or why it could not be read.
    pub found: Result<Found, String>,
    pub truth: Option<Truth>,
    /// A picture of what speaks for the likeliest label, where it was asked for.
    pub explanation: Option<PathBuf>,
}

impl Row {
    pub fn verdict(&self) -> Verdict {
        let Ok(Found { predictions, sure }) = &self.found else { return Verdict::Unreadable };
        let best = predictions.first().map(|best| best.index);
        Verdict::Read { sure: *sure, right: self.truth.as_ref().map(|truth| best == Some(truth.output)) }
    }
}

impl Sheet {
    /// The line before all rows, where there is one.
    pub fn header(&self) -> csv::Result<String> {
        if self.form == Form::Csv { line(self.columns()) } else { Ok(String::new()) }
    }

    /// A table's columns.
    pub fn columns(&self) -> Vec<String> {
        let ranked = (1..=self.top).flat_map(|rank| [format!("label_{rank}"), format!("probability_{rank}")]);
        let sure = self.selective.then(|| "sure".to_string());
        let truth = self.labelled.then(|| ["truth".to_string(), "right".to_string()]);
        let tail = sure.into_iter().chain(truth.into_iter().flatten()).chain(["error".to_string()]);
        ["path".to_string()].into_iter().chain(ranked).chain(tail).collect()
    }

    /// A row as it is written, with its end.
    pub fn row(&self, row: &Row) -> csv::Result<String> {
        match self.form {
            Form::Text => Ok(text(row)),
            Form::Jsonl => Ok(format!("{}\n", json(row))),
            Form::Csv => line(self.cells(row)),
        }
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let found = row.found.as_ref().ok();
        let mut cells = vec![row.path.clone()];
        for rank in 0..self.top {
            let prediction = found.and_then(|found| found.predictions.get(rank));
            let cell = |value: fn(&Prediction) -> String| prediction.map_or_else(String::new, value);
            cells.extend([cell(|one| one.label.clone()), cell(|one| one.probability.to_string())]);
        }
        let known = |value: Option<bool>| value.map_or_else(String::new, |value| value.to_string());
        if self.selective {
            cells.push(known(found.and_then(|found| found.sure)));
        }
        if self.labelled {
            cells.push(row.truth.as_ref().map_or_else(String::new, |truth| truth.label.clone()));
            cells.push(known(row.verdict().right()));
        }
        cells.push(row.found.as_ref().err().cloned().unwrap_or_default());
        cells
    }
}

fn line(cells: Vec<String>) -> csv::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&cells)?;
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Nothing for a photo that could not be read: that is said elsewhere.
fn text(row: &Row) -> String {
    let Ok(Found { predictions, sure }) = &row.found else { return String::new() };
    let mut text = format!("{}\n", row.path);
    if *sure == Some(false) {
        text += "  not sure\n";
    }
    for prediction in predictions {
        text += &format!("  {:6.2} %  {}\n", 100.0 * prediction.probability, prediction.label);
    }
    text
}

fn json(row: &Row) -> Value {
    let mut object = match &row.found {
        Err(error) => json!({"path": row.path, "error": error}),
        Ok(Found { predictions, .. }) => {
            let one = |p: &Prediction| json!({"label": p.label, "index": p.index, "probability": p.probability});
            json!({"path": row.path, "predictions": predictions.iter().map(one).collect::<Vec<_>>()})
        }
    };
    if let Some(sure) = row.found.as_ref().ok().and_then(|found| found.sure) {
        object["sure"] = json!(sure);
    }
    if let Some(truth) = &row.truth {
        object["truth"] = json!(truth.label);
        object["right"] = json!(row.verdict().right());
    }
    if let Some(explanation) = &row.explanation {
        object["explanation"] = json!(explanation.to_string_lossy());
    }
    object
}
