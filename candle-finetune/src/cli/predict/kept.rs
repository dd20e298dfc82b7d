//! Rows that a run that was broken off left, and whether this run would have written them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use candle_core::Tensor;
use candle_finetune::dataset::Sample;
use candle_finetune::extract::{Unreadable, Views, extract_each};
use candle_resnet::{Classifier, Prediction};
use serde_json::Value;

use super::confidence::Confidence;
use super::output::OutputFile;
use super::row::{Form, Sheet};
use super::summary::Verdict;
use super::truth::Truths;

/// Photos that are asked about once more, at most.
const ASKED_AGAIN: usize = 8;

/// By which part of itself, and of what it lacks to 1, a probability may differ: devices and precisions round in their own way, and
/// another model differs by more.
const NEAR: f32 = 0.1;

/// Whole rows of a file.
pub struct Kept {
    file: PathBuf,
    pub rows: Vec<KeptRow>,
    /// Bytes that they take in the file, headings included.
    pub bytes: usize,
}

/// One of them.
pub struct KeptRow {
    pub path: String,
    pub verdict: Verdict,
    /// Labels and their probabilities, likeliest first.
    answers: Vec<(String, f32)>,
    truth: Option<String>,
}

impl Kept {
    /// The rows that a run is to go on behind.
    ///
    /// # Errors
    /// If the file cannot be read or holds other things.
    pub fn read(file: &mut OutputFile, sheet: &Sheet) -> anyhow::Result<Kept> {
        let text = file.read()?;
        let path = file.path();
        let bytes = whole_rows(sheet.form, &text);
        let rows = parsed(sheet, &text[..bytes])
            .and_then(|rows| check_begun(sheet, bytes == 0, &text[bytes..]).map(|()| rows))
            .map_err(|error| anyhow!("{}: cannot go on: {error}\nhint: replace it with --overwrite", path.display()))?;
        Ok(Kept { file: path.into(), rows, bytes })
    }

    /// Refuses rows that say more, less or something else than was asked for, as far as that can be told without the network.
    pub fn check(&self, sheet: &Sheet, confidence: &Confidence, truths: Option<&Truths>) -> anyhow::Result<()> {
        let fault = |row: &KeptRow| row.fault(sheet, confidence, truths);
        self.rows.iter().find_map(fault).map_or(Ok(()), |fault| Err(self.refused(&fault)))
    }

    /// Refuses rows of another model: asks `classifier` about a few of their photos, spread over all.
    pub fn check_answers(&self, classifier: &Classifier, confidence: &Confidence) -> anyhow::Result<()> {
        let read: Vec<&KeptRow> = self.rows.iter().filter(|row| row.verdict != Verdict::Unreadable).collect();
        let asked: Vec<&KeptRow> = read.iter().step_by(read.len().div_ceil(ASKED_AGAIN).max(1)).copied().collect();
        let answers = answers(classifier, confidence, &asked)?;
        if !read.is_empty() && answers.iter().all(Option::is_none) {
            say!(
                "note: nobody can tell whether the rows in {} are of this model: their photos are gone",
                self.file.display()
            );
        }
        let fault = |(row, now): (&&KeptRow, &Option<Vec<Prediction>>)| row.contradiction(now.as_deref()?);
        asked.iter().zip(&answers).find_map(fault).map_or(Ok(()), |fault| Err(self.refused(&fault)))
    }

    /// `photos` without those that have a row, each as often as it has one.
    pub fn without(&self, photos: Vec<PathBuf>) -> Vec<PathBuf> {
        let mut times: HashMap<&str, usize> = HashMap::new();
        self.rows.iter().for_each(|row| *times.entry(&row.path).or_default() += 1);
        let is_left = |photo: &PathBuf| match times.get_mut(photo.to_string_lossy().as_ref()) {
            Some(times) if *times > 0 => {
                *times -= 1;
                false
            }
            _ => true,
        };
        photos.into_iter().filter(is_left).collect()
    }

    fn refused(&self, fault: &str) -> anyhow::Error {
        anyhow!(
            "{}: cannot go on: {fault}\n\
             hint: go on with the model and the options that its rows are of, or replace it with --overwrite",
            self.file.display()
        )
    }
}

impl KeptRow {
    fn fault(&self, sheet: &Sheet, confidence: &Confidence, truths: Option<&Truths>) -> Option<String> {
        let path = &self.path;
        let truth = truths.and_then(|truths| truths.of(Path::new(path))).map(|truth| truth.label);
        if truth != self.truth {
            let named = |label: &Option<String>| label.as_ref().map_or("nothing".into(), |label| format!("`{label}`"));
            return Some(format!("its row of {path} names {} as true, --labels {}", named(&self.truth), named(&truth)));
        }
        let Verdict::Read { sure, .. } = self.verdict else { return None };
        if self.answers.len() != sheet.top {
            return Some(format!("its row of {path} has {} labels, expected {}", self.answers.len(), sheet.top));
        }
        let now_sure = confidence.is_sure(self.answers.first().map_or(0.0, |(_, probability)| (*probability).into()));
        match (sure, now_sure) {
            (sure, now) if sure == now => None,
            (None, _) => Some(format!("its row of {path} does not say whether it is sure")),
            (_, None) => Some(format!("its row of {path} says whether it is sure, and --max-error was not given")),
            _ => Some(format!("its row of {path} is of another --max-error or of another calibration")),
        }
    }

    /// What it says that the model does not; `now` are all labels.
    fn contradiction(&self, now: &[Prediction]) -> Option<String> {
        let agrees = |(label, probability): &&(String, f32)| {
            now.iter().any(|one| one.label == *label && are_near(one.probability, *probability))
        };
        let (label, before) = self.answers.iter().find(|answer| !agrees(answer))?;
        let path = &self.path;
        Some(match now.iter().find(|one| one.label == *label) {
            Some(now) => {
                format!("`{label}` has probability {before} in its row of {path}, and {} now", now.probability)
            }
            None => format!("its row of {path} has `{label}`, which this model does not know"),
        })
    }
}

fn are_near(one: f32, other: f32) -> bool {
    let difference = (one - other).abs();
    difference <= NEAR * one.max(other) + 1e-9 && difference <= NEAR * (1.0 - one.min(other)) + 1e-6
}

/// All labels of each row's photo as the model ranks them; nothing where it cannot be read any more.
fn answers(
    classifier: &Classifier,
    confidence: &Confidence,
    rows: &[&KeptRow],
) -> candle_finetune::Result<Vec<Option<Vec<Prediction>>>> {
    let samples: Vec<Sample> = rows.iter().map(|row| Sample { path: row.path.clone().into(), label: 0 }).collect();
    let (trunk, preprocessing, unreadable) = (classifier.trunk(), classifier.preprocessing(), Unreadable::Skipped);
    let mut answers = Vec::new();
    extract_each(trunk, preprocessing, &samples.as_slice(), Views::Plain, unreadable, &mut |batch| {
        let logits = batch.features.as_ref().map(|features| classifier.classify(features)).transpose()?;
        let rank = |logits: Tensor| confidence.rank(classifier, &logits, usize::MAX);
        for row in batch.rows(answers.len()) {
            let logits = row.ok().zip(logits.as_ref()).map(|(row, logits)| logits.get(row)).transpose()?;
            answers.push(logits.map(rank).transpose()?.map(|found| found.predictions));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(answers)
}

/// How many bytes of `text` are rows with their end. A line break within quotes ends no row of a table.
fn whole_rows(form: Form, text: &[u8]) -> usize {
    let (mut quoted, mut whole) = (false, 0);
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            b'"' if form == Form::Csv => quoted = !quoted,
            b'\n' if !quoted => whole = index + 1,
            _ => {}
        }
    }
    whole
}

/// Refuses to cut off what cannot be the beginning of a row, or of a table where it is the `first` line.
fn check_begun(sheet: &Sheet, first: bool, tail: &[u8]) -> anyhow::Result<()> {
    const OBJECT: &[u8] = b"{\"path\":";
    let begun = match sheet.form {
        Form::Csv if first => sheet.header()?.as_bytes().starts_with(tail),
        Form::Csv => true, // the columns are those of this command
        Form::Jsonl | Form::Text => tail.starts_with(OBJECT) || OBJECT.starts_with(tail),
    };
    if !begun {
        bail!("its last line is no row of predictions");
    }
    Ok(())
}

fn parsed(sheet: &Sheet, text: &[u8]) -> anyhow::Result<Vec<KeptRow>> {
    if sheet.form == Form::Csv {
        return of_cells(sheet, text);
    }
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let row = |(index, line)| {
        of_object(line).map_err(|error| anyhow!("line {} is no row of predictions: {error}", index + 1))
    };
    lines.enumerate().map(row).collect()
}

fn of_object(line: &[u8]) -> anyhow::Result<KeptRow> {
    let row: Value = serde_json::from_slice(line)?;
    let path = row["path"].as_str().ok_or_else(|| anyhow!("it has no `path`"))?;
    let verdict = match row.get("error") {
        Some(_) => Verdict::Unreadable,
        None => Verdict::Read { sure: row["sure"].as_bool(), right: row["right"].as_bool() },
    };
    let answer = |one: &Value| Some((one["label"].as_str()?.to_string(), one["probability"].as_f64()? as f32));
    let answers = row["predictions"].as_array().into_iter().flatten().filter_map(answer).collect();
    let truth = row["truth"].as_str().map(String::from);
    Ok(KeptRow { path: path.into(), verdict, answers, truth })
}

fn of_cells(sheet: &Sheet, text: &[u8]) -> anyhow::Result<Vec<KeptRow>> {
    let (mut reader, columns) = (csv::Reader::from_reader(text), sheet.columns());
    if !text.is_empty() && *reader.headers()? != columns {
        bail!("its columns are not {}", columns.join(","));
    }
    let place = |name: &str| columns.iter().position(|column| column == name);
    let (sure, right, truth, error) = (place("sure"), place("right"), place("truth"), place("error"));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let cell = |place: Option<usize>| place.and_then(|place| record.get(place)).unwrap_or_default();
        let verdict = match cell(error) {
            "" => Verdict::Read { sure: cell(sure).parse().ok(), right: cell(right).parse().ok() },
            _ => Verdict::Unreadable,
        };
        let answer = |rank: usize| Some((cell(Some(2 * rank - 1)).to_string(), cell(Some(2 * rank)).parse().ok()?));
        let answers = (1..=sheet.top).filter_map(answer).collect();
        let truth = Some(cell(truth)).filter(|label| !label.is_empty()).map(String::from);
        rows.push(KeptRow { path: cell(Some(0)).into(), verdict, answers, truth });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_near_that_rounding_tells_apart_and_no_others() {
        for (one, other) in [(0.5, 0.501), (1.0, 0.999_999_5), (1e-7, 1.05e-7), (0.0, 1e-10), (0.99, 0.9905)] {
            assert!(are_near(one, other) && are_near(other, one), "{one} {other}");
        }
        for (one, other) in [(0.5, 0.56), (1.0, 0.9999), (1e-7, 2e-7), (0.0, 1e-6), (0.99, 0.995)] {
            assert!(!are_near(one, other) && !are_near(other, one), "{one} {other}");
        }
    }
}
