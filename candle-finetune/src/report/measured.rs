//! Judgements of images → the sections of a report that speak of them.

use std::collections::BTreeMap;

use candle_resnet::preprocess::Preprocessing;

use super::illustrated::{Explainer, Illustrator};
use super::measures::{ClassMeasures, Confusion, least_certain, risk_coverage, top_losses};
use super::page::{Card, Chart, ClassView, MeasuredView, PairView, Picture, RateView, percent};
use super::rate::Rate;
use super::{Files, charts, tables};
use crate::calibration::{Answer, Calibration, Judgement, LabelledLogits, expected_calibration_error, reliability};
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
    /// How sure the model may be, where that was measured.
    pub calibration: Option<&'a Calibration>,
    /// Whether it was measured on these very images.
    pub calibrated_here: bool,
    /// What happens to a photo before the network sees it.
    pub preprocessing: &'a Preprocessing,
    /// C: channels that the network takes.
    pub channels: usize,
    /// Says of pictures where the network looked, and what they are like.
    pub explainer: Option<&'a dyn Explainer>,
    /// Name of a class.
    pub class: &'a dyn Fn(usize) -> String,
}

impl Measured<'_> {
    fn temperature(&self) -> f64 {
        self.calibration.map_or(1.0, |calibration| calibration.temperature)
    }

    fn judgements(&self) -> Vec<Judgement> {
        self.logits.judgements(self.temperature())
    }

    /// Accuracy, loss, calibration error.
    pub(super) fn cards(&self) -> Vec<Card> {
        let judgements = self.judgements();
        let right = judgements.iter().filter(|judgement| judgement.is_right()).count();
        let wrong = judgements.len() - right;
        let top1 = Rate::of(right, judgements.len()).map(RateView::from);
        let card = |value: String, name: &str, more: String| Card { value, name: name.into(), more };
        let accuracy =
            top1.map(|RateView { value, interval }| card(value, "top-1", format!("{interval} % in 95 % of cases")));
        let errors = card(wrong.to_string(), "images wrong", format!("of {}", judgements.len()));
        let loss = card(format!("{:.4}", self.logits.loss(self.temperature())), "loss", "cross-entropy, nats".into());
        let error = card(percent(self.calibration_error(self.temperature())), "calibration error", self.scaling());
        accuracy.into_iter().chain([errors, loss, error]).collect()
    }

    fn scaling(&self) -> String {
        match self.calibration {
            Some(calibration) => format!("at temperature {:.3}", calibration.temperature),
            None => "not calibrated".into(),
        }
    }

    fn calibration_error(&self, temperature: f64) -> f64 {
        expected_calibration_error(&self.logits.answers(temperature))
    }

    /// All sections; drawings and tables go into `files`.
    pub(super) fn view(&self, files: &Files) -> Result<MeasuredView> {
        let judgements = self.judgements();
        let confusion = Confusion::of(&judgements);
        let measures = confusion.classes();
        let names: Vec<String> = measures.iter().map(|measures| (self.class)(measures.class)).collect();
        self.tables(files, (&judgements, &confusion), (&measures, &names))?;
        let named: Vec<(usize, String)> = measures.iter().map(|m| m.class).zip(names.iter().cloned()).collect();
        let matrix = (named.len() <= MATRIX).then(|| charts::confusion(&confusion, &named));
        let (worst, uncertain) = self.pictures(&judgements)?;
        let classes = class_views(&measures, &names);
        Ok(MeasuredView {
            what: format!("{}.", self.what),
            more_classes: measures.len() - classes.len(),
            classes,
            confusion: matrix.map(|drawing| files.drawing("confusion.svg", drawing)).transpose()?,
            pairs: self.pairs(&confusion, &measures),
            sureness: self.sureness(),
            charts: self.charts(files, &judgements)?,
            legend: legend(worst.iter().chain(&uncertain)),
            worst,
            uncertain,
        })
    }

    fn tables(
        &self,
        files: &Files,
        (judgements, confusion): (&[Judgement], &Confusion),
        (measures, names): (&[ClassMeasures], &[String]),
    ) -> Result<()> {
        let image = |index: usize| self.images.name(self.judged[index]);
        let answers: Vec<Answer> = judgements.iter().map(Answer::from).collect();
        files.table("classes.csv", tables::classes(measures, names))?;
        files.table("confusion.csv", tables::pairs(confusion, self.class))?;
        files.table("reliability.csv", tables::bins(&reliability(&answers)))?;
        files.table("predictions.csv", tables::predictions(judgements, &image, self.class))
    }

    fn pairs(&self, confusion: &Confusion, measures: &[ClassMeasures]) -> Vec<PairView> {
        let images: BTreeMap<usize, usize> =
            measures.iter().map(|measures| (measures.class, measures.images)).collect();
        let view = |pair: &super::Pair| PairView {
            label: (self.class)(pair.label),
            answer: (self.class)(pair.answer),
            images: pair.images,
            part: images.get(&pair.label).map_or(String::new(), |&all| percent(pair.images as f64 / all.max(1) as f64)),
        };
        confusion.confused().iter().take(PAIR_ROWS).map(view).collect()
    }

    fn sureness(&self) -> Vec<String> {
        let raw = percent(self.calibration_error(1.0));
        match self.calibration {
            None => vec![format!("Confidence and accuracy are {raw} apart, on average over 15 bins of confidence.")],
            Some(&Calibration { temperature, .. }) => {
                let fitted = if self.calibrated_here { ", which was fitted on these images" } else { "" };
                let scaled = percent(self.calibration_error(temperature));
                vec![format!(
                    "Confidence and accuracy are {scaled} apart, on average over 15 bins of confidence, at temperature {temperature:.3}{fitted}; {raw} \
                     without."
                )]
            }
        }
    }

    fn charts(&self, files: &Files, judgements: &[Judgement]) -> Result<Vec<Chart>> {
        let answers: Vec<Answer> = judgements.iter().map(Answer::from).collect();
        let (raw, scaled) = (reliability(&self.logits.answers(1.0)), reliability(&answers));
        let series: &[(&str, &[_])] = match self.calibration {
            Some(_) => &[("as it is", &raw), ("calibrated", &scaled)],
            None => &[("as it is", &raw)],
        };
        let diagram = files.drawing("reliability.svg", charts::reliability(series))?;
        let curve = files.drawing("risk-coverage.svg", charts::risk_coverage(&risk_coverage(&answers)))?;
        let caption =
            "Accuracy of answers by their confidence; on the broken line both are equal. Bars are 95 % intervals.";
        let withheld = "How many answers are wrong where the least certain are withheld.";
        Ok(vec![Chart { svg: diagram, caption: caption.into() }, Chart { svg: curve, caption: withheld.into() }])
    }

    /// Of the worst mistakes and of the least certain answers.
    fn pictures(&self, judgements: &[Judgement]) -> Result<(Vec<Picture>, Vec<Picture>)> {
        let (worst, uncertain) = (top_losses(judgements, PICTURES), least_certain(judgements, PICTURES));
        let asked = worst.iter().chain(&uncertain).map(|&row| (self.judged[row], judgements[row])).collect();
        let Measured { images, preprocessing, channels, explainer, class, .. } = *self;
        let pictures = Illustrator { images, preprocessing, channels, explainer, class }.pictures(&asked)?;
        let of = |rows: Vec<usize>| rows.iter().filter_map(|&row| pictures.get(&self.judged[row]).cloned()).collect();
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
