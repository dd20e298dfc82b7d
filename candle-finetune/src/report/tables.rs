//! The numbers of a report as CSV.

use serde::Serialize;

use super::measures::{ClassMeasures, Confusion};
use super::rate::Rate;
use crate::calibration::{BINS, Bin, Judgement};

/// A line for each class.
#[derive(Serialize)]
pub struct ClassRow<'a> {
    class: &'a str,
    images: usize,
    answers: usize,
    right: usize,
    precision: Option<f64>,
    precision_low: Option<f64>,
    precision_high: Option<f64>,
    recall: Option<f64>,
    recall_low: Option<f64>,
    recall_high: Option<f64>,
    f1: Option<f64>,
    f1_low: Option<f64>,
    f1_high: Option<f64>,
}

/// Classes by name.
pub type Names<'a> = &'a dyn Fn(usize) -> String;

/// Measures by class, fractions.
pub fn classes<'a>(measures: &'a [ClassMeasures], names: &'a [String]) -> impl Iterator<Item = ClassRow<'a>> {
    let ends = |rate: Option<Rate>| (rate.map(|r| r.value), rate.map(|r| r.low), rate.map(|r| r.high));
    measures.iter().zip(names).map(move |(measures, class)| {
        let &ClassMeasures { images, answers, right, .. } = measures;
        let (precision, precision_low, precision_high) = ends(measures.precision);
        let (recall, recall_low, recall_high) = ends(measures.recall);
        let (f1, f1_low, f1_high) = ends(measures.f1);
        ClassRow {
            class,
            images,
            answers,
            right,
            precision,
            precision_low,
            precision_high,
            recall,
            recall_low,
            recall_high,
            f1,
            f1_low,
            f1_high,
        }
    })
}

/// How many images of a label got an answer.
#[derive(Serialize)]
pub struct PairRow {
    label: String,
    answer: String,
    images: usize,
}

/// Every pair that occurs.
pub fn pairs<'a>(confusion: &'a Confusion, name: Names<'a>) -> impl Iterator<Item = PairRow> + 'a {
    confusion.pairs().map(move |pair| PairRow {
        label: name(pair.label),
        answer: name(pair.answer),
        images: pair.images,
    })
}

/// Answers of one bin of confidence.
#[derive(Serialize)]
pub struct BinRow {
    from: f64,
    to: f64,
    answers: usize,
    right: usize,
    mean_confidence: Option<f64>,
    accuracy: Option<f64>,
}

/// Bins of confidence, calibrated where there is a calibration.
pub fn bins(bins: &[Bin; BINS]) -> impl Iterator<Item = BinRow> {
    bins.iter().enumerate().map(|(index, bin)| {
        let mean = |sum: f64| (bin.answers > 0).then(|| sum / bin.answers as f64);
        BinRow {
            from: index as f64 / BINS as f64,
            to: (index + 1) as f64 / BINS as f64,
            answers: bin.answers,
            right: bin.right,
            mean_confidence: mean(bin.confidence),
            accuracy: mean(bin.right as f64),
        }
    })
}

/// What was said of one image.
#[derive(Serialize)]
pub struct PredictionRow {
    image: String,
    label: String,
    answer: String,
    confidence: f64,
    loss: f64,
}

/// Every image, in order.
pub fn predictions<'a>(
    judgements: &'a [Judgement],
    image: &'a dyn Fn(usize) -> String,
    class: Names<'a>,
) -> impl Iterator<Item = PredictionRow> + 'a {
    judgements.iter().enumerate().map(move |(index, judgement)| PredictionRow {
        image: image(index),
        label: class(judgement.label),
        answer: class(judgement.answer),
        confidence: judgement.confidence,
        loss: judgement.loss,
    })
}
