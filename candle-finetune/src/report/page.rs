//! What the templates are filled with: texts and drawings, nothing that is still to be computed.

use askama::Template;

use super::rate::Rate;

/// The style sheet of every page.
pub const STYLE: &str = include_str!("../../templates/report.css");

/// The report on a training or an evaluation.
#[derive(Template)]
#[template(path = "report.html")]
pub struct ReportPage {
    pub title: String,
    pub lead: Vec<String>,
    pub cards: Vec<Card>,
    pub facts: Vec<Fact>,
    pub parts: Vec<PartRow>,
    pub curves: Vec<Chart>,
    pub measured: Option<MeasuredView>,
    pub notes: Vec<String>,
    pub commands: Vec<String>,
    /// The text of `run.toml`.
    pub settings: Option<String>,
}

/// A number that is shown large.
pub struct Card {
    pub value: String,
    pub name: String,
    pub more: String,
}

/// A name and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Such as `model`.
    pub name: String,
    /// Such as `resnet18, 224×224 pixels`.
    pub value: String,
}

/// A part of the network and what becomes of it.
pub struct PartRow {
    pub name: String,
    pub parameters: String,
    pub state: String,
    pub norms: &'static str,
    pub lr: String,
}

/// A drawing as SVG.
pub struct Chart {
    pub svg: String,
    pub caption: String,
}

/// What images that were measured on say.
pub struct MeasuredView {
    pub what: String,
    pub classes: Vec<ClassView>,
    /// Classes that are not among them.
    pub more_classes: usize,
    pub confusion: Option<String>,
    pub pairs: Vec<PairView>,
    pub sureness: Vec<String>,
    pub charts: Vec<Chart>,
    /// What is beside and below each picture.
    pub legend: String,
    pub worst: Vec<Picture>,
    pub uncertain: Vec<Picture>,
}

/// A class and its measures.
pub struct ClassView {
    pub name: String,
    pub images: usize,
    pub precision: Option<RateView>,
    pub recall: Option<RateView>,
    pub f1: Option<RateView>,
}

/// A fraction and its interval in percent.
pub struct RateView {
    pub value: String,
    pub interval: String,
}

impl From<Rate> for RateView {
    fn from(Rate { value, low, high }: Rate) -> RateView {
        RateView { value: percent(value), interval: format!("{:.0}–{:.0}", 100.0 * low, 100.0 * high) }
    }
}

/// Images of one class that were taken for another.
pub struct PairView {
    pub label: String,
    pub answer: String,
    pub images: usize,
    pub part: String,
}

/// An image and what was said of it; pictures are data URIs.
#[derive(Clone)]
pub struct Picture {
    pub name: String,
    pub photo: String,
    pub overlay: Option<String>,
    /// Whether it has so few pixels that each is to be seen.
    pub small: bool,
    pub label: String,
    pub answer: String,
    pub right: bool,
    pub confidence: String,
    pub near: Vec<NearView>,
}

/// An image to learn from that is like another.
#[derive(Clone)]
pub struct NearView {
    pub name: String,
    pub photo: String,
    pub label: String,
    pub similarity: String,
}

/// A fraction in percent with one digit; no line ends before its sign.
pub fn percent(fraction: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * fraction)
}

/// What the doctor found.
#[derive(Template)]
#[template(path = "doctor.html")]
pub struct DoctorPage {
    pub title: String,
    pub lead: Vec<String>,
    pub cards: Vec<Card>,
    pub splits: Vec<String>,
    pub classes: Vec<ClassCounts>,
    pub kinds: Vec<KindView>,
}

/// A class and its images in each split.
pub struct ClassCounts {
    pub name: String,
    pub counts: Vec<usize>,
}

/// Findings of one kind.
pub struct KindView {
    pub heading: &'static str,
    pub severity: &'static str,
    pub count: usize,
    pub advice: &'static str,
    pub findings: Vec<FindingView>,
    /// Findings that are not among them.
    pub more: usize,
}

/// One finding and its files.
pub struct FindingView {
    pub text: String,
    pub pictures: Vec<FileView>,
}

/// A file, with its picture where it is one.
pub struct FileView {
    pub name: String,
    pub photo: Option<String>,
    pub small: bool,
}
