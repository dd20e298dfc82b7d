//! Judgements of images → the sections of a report that speak of them.

use std::collections::BTreeMap;

use candle_resnet::preprocess::Preprocessing;

use super::files::{Beside, Files};
use super::illustrated::{Explainer, Illustrator};
use super::measures::{ClassMeasures, Confusion, least_certain, risk_coverage, top_losses};
use super::page::{Card, Chart, ClassView, MeasuredView, PairView, Picture, RateView, percent};
use super::rate::Rate;
use super::{charts, tables};
use crate::calibration::{Answer, Judgement, LabelledLogits, expected_calibration_error, reliability};
use crate::error::Result;
use crate::images::LabelledImages;

/// Lines of the table of classes; of more classes, those that are told worst.
const CLASS_ROWS: usize = 60;

/// Classes that a drawing of the confusion matrix still shows.
const MATRIX: usize = 160;

/// Lines of the table of confused pairs.
const PAIR_ROWS: usize = 12;

/// Pictures of each kind.
const PICTURES: usize = 12;

/// What a model said of images that it did not learn from.
pub struct Measured<'a> {
    /// What they are: `400 images held out of photos`.
    pub what: String,
    /// The images.
    pub images: &'a dyn LabelledImages,
    /// Index of each image that was judged.
    pub judged: &'a [usize],
    /// Logits of these images, beside their labels.
    pub logits: &'a LabelledLogits,
    /// What logits are divided by, where the model was calibrated.
    pub temperature: Option<f64>,
    /// Whether it was fitted on these very images.
    pub calibrated_here: bool,
    /// What happens to a photo before the network sees it.
    pub preprocessing: &'a Preprocessing,
    /// C: channels that the network takes.
    pub channels: usize,
    /// Says of pictures where the network looked, and what they are like.
    pub explainer: Option<&'a dyn Explainer>,
    /// Name of a class.
    pub class: &'a (dyn Fn(usize) -> String + Sync),
}

impl Measured<'_> {
    fn temperature(&self) -> f64 {
        self.temperature.unwrap_or(1.0)
    }
}

/// What was measured, and what follows from its logits: what the sections of a report are made of.
pub(super) struct Sections<'a> {
    measured: &'a Measured<'a>,
    /// Calibrated, where there is a calibration.
    judgements: Vec<Judgement>,
    /// The same as far as calibration goes.
    answers: Vec<Answer>,
    /// Without a calibration.
    raw: Vec<Answer>,
}

impl<'a> Sections<'a> {
    pub(super) fn of(measured: &'a Measured<'a>) -> Sections<'a> {
        let judgements = measured.logits.judgements(measured.temperature());
        let answers = judgements.iter().map(Answer::from).collect();
        Sections { measured, judgements, answers, raw: measured.logits.answers(1.0) }
    }

    /// Accuracy, loss, calibration error.
    pub(super) fn cards(&self) -> Vec<Card> {
        let Sections { measured, judgements, answers, .. } = self;
        let right = judgements.iter().filter(|judgement| judgement.is_right()).count();
        let wrong = judgements.len() - right;
        let top1 = Rate::of(right, judgements.len()).map(RateView::from);
        let card = |value: String, name: &str, more: String| Card { value, name: name.into(), more };
        let accuracy =
            top1.map(|RateView { value, interval }| card(value, "top-1", format!("{interval} % in 95 % of cases")));
        let errors = card(wrong.to_string(), "images wrong", format!("of {}", judgements.len()));
        let loss = measured.logits.loss(measured.temperature());
        let loss = card(format!("{loss:.4}"), "loss", "cross-entropy, nats".into());
        let error = card(percent(expected_calibration_error(answers)), "calibration error", self.scaling());
        accuracy.into_iter().chain([errors, loss, error]).collect()
    }

    fn scaling(&self) -> String {
        match self.measured.temperature {
            Some(temperature) => format!("at temperature {temperature:.3}"),
            None => "not calibrated".into(),
        }
    }

    /// All sections; drawings and tables go into `files`.
    pub(super) fn view(&self, files: &Files) -> Result<MeasuredView> {
        let confusion = Confusion::of(&self.judgements);
        let measures = confusion.classes();
        let names: Vec<String> = measures.iter().map(|measures| (self.measured.class)(measures.class)).collect();
        self.tables(files, &confusion, (&measures, &names))?;
        let named: Vec<(usize, String)> = measures.iter().map(|m| m.class).zip(names.iter().cloned()).collect();
        let matrix = (named.len() <= MATRIX).then(|| charts::confusion(&confusion, &named));
        let (worst, uncertain) = self.pictures()?;
        let classes = class_views(&measures, &names);
        Ok(MeasuredView {
            what: format!("{}.", self.measured.what),
            more_classes: measures.len() - classes.len(),
            classes,
            confusion: matrix.map(|drawing| files.drawing(Beside::ConfusionDrawing, drawing)).transpose()?,
            pairs: self.pairs(&confusion, &measures),
            sureness: self.sureness(),
            charts: self.charts(files)?,
            legend: legend(worst.iter().chain(&uncertain)),
            worst,
            uncertain,
        })
    }

    fn tables(
        &self,
        files: &Files,
        confusion: &Confusion,
        (measures, names): (&[ClassMeasures], &[String]),
    ) -> Result<()> {
        let Measured { images, judged, class, .. } = *self.measured;
        let image = |index: usize| images.name(judged[index]);
        files.table(Beside::Classes, tables::classes(measures, names))?;
        files.table(Beside::Confusion, tables::pairs(confusion, class))?;
        files.table(Beside::Reliability, tables::bins(&reliability(&self.answers)))?;
        files.table(Beside::Predictions, tables::predictions(&self.judgements, &image, class))
    }

    fn pairs(&self, confusion: &Confusion, measures: &[ClassMeasures]) -> Vec<PairView> {
        let images: BTreeMap<usize, usize> =
            measures.iter().map(|measures| (measures.class, measures.images)).collect();
        let view = |pair: &super::Pair| PairView {
            label: (self.measured.class)(pair.label),
            answer: (self.measured.class)(pair.answer),
            images: pair.images,
            part: images.get(&pair.label).map_or(String::new(), |&all| percent(pair.images as f64 / all.max(1) as f64)),
        };
        confusion.confused().iter().take(PAIR_ROWS).map(view).collect()
    }

    fn sureness(&self) -> Vec<String> {
        let raw = percent(expected_calibration_error(&self.raw));
        match self.measured.temperature {
            None => vec![format!("Confidence and accuracy are {raw} apart, on average over 15 bins of confidence.")],
            Some(temperature) => {
                let fitted = if self.measured.calibrated_here { ", which was fitted on these images" } else { "" };
                let scaled = percent(expected_calibration_error(&self.answers));
                vec![format!(
                    "Confidence and accuracy are {scaled} apart, on average over 15 bins of confidence, at temperature {temperature:.3}{fitted}; {raw} \
                     without."
                )]
            }
        }
    }

    fn charts(&self, files: &Files) -> Result<Vec<Chart>> {
        let (raw, scaled) = (reliability(&self.raw), reliability(&self.answers));
        let series: &[(&str, &[_])] = match self.measured.temperature {
            Some(_) => &[("as it is", &raw), ("calibrated", &scaled)],
            None => &[("as it is", &raw)],
        };
        let diagram = files.drawing(Beside::ReliabilityDrawing, charts::reliability(series))?;
        let curve = files.drawing(Beside::RiskCoverage, charts::risk_coverage(&risk_coverage(&self.answers)))?;
        let caption =
            "Accuracy of answers by their confidence; on the broken line both are equal. Bars are 95 % intervals.";
        let withheld = "How many answers are wrong where the least certain are withheld.";
        Ok(vec![Chart { svg: diagram, caption: caption.into() }, Chart { svg: curve, caption: withheld.into() }])
    }

    /// Of the worst mistakes and of the least certain answers.
    fn pictures(&self) -> Result<(Vec<Picture>, Vec<Picture>)> {
        let Measured { images, judged, preprocessing, channels, explainer, class, .. } = *self.measured;
        let (worst, uncertain) = (top_losses(&self.judgements, PICTURES), least_certain(&self.judgements, PICTURES));
        let asked = worst.iter().chain(&uncertain).map(|&row| (judged[row], self.judgements[row])).collect();
        let pictures = Illustrator { images, preprocessing, channels, explainer, class }.pictures(&asked)?;
        let of = |rows: Vec<usize>| rows.iter().filter_map(|&row| pictures.get(&judged[row]).cloned()).collect();
        Ok((of(worst), of(uncertain)))
    }
}

/// What is beside and below pictures.
fn legend<'a>(pictures: impl Iterator<Item = &'a Picture>) -> String {
    let (mut overlays, mut near) = (false, false);
    for picture in pictures {
        overlays |= picture.overlay.is_some();
        near |= !picture.near.is_empty();
    }
    let beside = "Beside each, where the network saw what spoke for its answer (Grad-CAM of the delivered weights).";
    let below = "Below, the training images that are most like it.";
    let said: Vec<&str> =
        [(overlays, beside), (near, below)].iter().filter(|(there, _)| *there).map(|(_, text)| *text).collect();
    said.join(" ")
}

/// Lines of classes by name; of many, those of the lowest F1.
fn class_views(measures: &[ClassMeasures], names: &[String]) -> Vec<ClassView> {
    let f1 = |index: &usize| measures[*index].f1.map_or(0.0, |rate| rate.value);
    let mut shown: Vec<usize> = (0..measures.len()).collect();
    if shown.len() > CLASS_ROWS {
        shown.sort_by(|a, b| f1(a).total_cmp(&f1(b)));
        shown.truncate(CLASS_ROWS);
    }
    let view = |index: usize| {
        let ClassMeasures { images, precision, recall, f1, .. } = measures[index];
        let [precision, recall, f1] = [precision, recall, f1].map(|rate| rate.map(RateView::from));
        ClassView { name: names[index].clone(), images, precision, recall, f1 }
    };
    shown.into_iter().map(view).collect()
}
