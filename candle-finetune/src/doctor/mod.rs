//! Looks a data set over before anything is learned from it: what is wrong with its folders, files, copies and labels.
//!
//! Findings are data; nothing is printed, changed or deleted. Each image is read once. Folders, files and copies need no network;
//! labels and outliers need features of a frozen one.
//!
//! ```
//! use std::ops::ControlFlow;
//! use candle_finetune::{dataset, doctor};
//!
//! # let place = tempfile::tempdir()?;
//! # for (split, class, colour) in [("train", "ants", 200u8), ("train", "bees", 30), ("test", "ants", 200)] {
//! #     let folder = place.path().join(split).join(class);
//! #     std::fs::create_dir_all(&folder)?;
//! #     image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([colour, (7 * x) as u8, (x * y) as u8])).save(folder.join("1.png"))?;
//! # }
//! # let photos = place.path();
//! let survey = dataset::survey(photos)?;
//! let report = doctor::examine(&survey, None, &mut |_images| ControlFlow::Continue(()))?;
//! let worst = &report.findings[0];
//! assert_eq!(worst.kind, doctor::Kind::Leak);
//! assert_eq!(worst.text, "the same file in train and test");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod census;
mod copies;
mod files;
mod finding;
mod folders;
mod groups;
mod inspection;
mod labels;
mod leaks;
mod outliers;
mod thumbnail;

use std::collections::BTreeSet;

use candle_core::Tensor;
use candle_resnet::FeatureExtractor;
use candle_resnet::preprocess::Preprocessing;
use rayon::prelude::*;

use crate::dataset::{Dataset, Sample, SplitName, Survey};
use crate::error::{Error, Result};
use crate::extract::{ExtractObserver, Extracted, Unreadable, Views, batch_size, extract};
use crate::images::LabelledImages;

pub use census::Census;
pub use finding::{File, Finding, Kind, Severity};
pub use labels::Verdict;
pub use leaks::{EqualFiles, ExactCopies, exact_copies};

use copies::Group;
use inspection::{Inspection, Inspector};

/// A frozen network, and how it wants its images prepared.
#[derive(Clone, Copy)]
pub struct Eye<'a> {
    /// The network.
    pub trunk: &'a dyn FeatureExtractor,
    /// What becomes of a photo before.
    pub preprocessing: &'a Preprocessing,
}

/// An image and what was seen of it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where it is, its part and its label.
    pub file: File,
    /// What the other images say of its label, where a network looked.
    pub verdict: Option<Verdict>,
    /// How far it is from the images nearest to it, from 0 (equal) to 2, where a network looked.
    pub distance: Option<f32>,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// What there is, in numbers.
    pub census: Census,
    /// Every image, split by split, in the order of their paths.
    pub images: Vec<Image>,
    /// The part of the labels that are the most probable ones by the other images, where a network looked: where it is low, doubts about
    /// labels mean little.
    pub agreement: Option<f64>,
    /// What its owner should know: the worst kinds first, and of each kind the surest first.
    pub findings: Vec<Finding>,
}

/// Looks at every image of a data set once, and at all pairs of them.
///
/// `observer` is told how many images each batch had, then 0 now and then, and may stop the work.
///
/// # Errors
/// [`Error::Interrupted`], and what the network or candle says. A file that cannot be read is a finding.
pub fn examine(survey: &Survey, eye: Option<Eye<'_>>, observer: &mut ExtractObserver<'_>) -> Result<Report> {
    let dataset = &survey.dataset;
    let samples: Vec<Sample> = dataset.splits.values().flatten().cloned().collect();
    let inspector = Inspector::new(&samples);
    let features = look(&inspector, eye, observer)?;
    let inspections = inspector.finish();
    let mut images = images(dataset);
    let mut proceed = || if observer(0).is_break() { Err(Error::Interrupted) } else { Ok(()) };

    let mut findings = folders::findings(survey);
    findings.extend(files::findings(&images, &inspections, eye.map(|eye| eye.preprocessing.crop)));
    let groups = copies::find(&inspections, &mut proceed)?;
    findings.extend(groups.iter().flat_map(|group| copy_findings(group, &images)));
    if eye.is_some() {
        let kept = features.as_ref().map_or(&[][..], |features| &features.kept);
        findings.extend(overflows(kept, &images, &inspections));
    }
    if let Some(features) = features {
        findings.extend(judge(&features, &samples, &dataset.classes, &mut images, &mut proceed)?);
    }
    sort(&mut findings);
    Ok(Report { census: Census::of(dataset, &inspections), agreement: agreement(&images), images, findings })
}

/// The part of the labels that no other label beats.
fn agreement(images: &[Image]) -> Option<f64> {
    let verdicts: Vec<Verdict> = images.iter().filter_map(|image| image.verdict).collect();
    let agree = verdicts.iter().filter(|verdict| verdict.own >= verdict.probability).count();
    (!verdicts.is_empty()).then(|| agree as f64 / verdicts.len() as f64)
}

fn images(dataset: &Dataset) -> Vec<Image> {
    let file = |(split, sample): (SplitName, &Sample)| File {
        path: sample.path.clone(),
        split,
        class: dataset.classes[sample.label].clone(),
    };
    let samples = dataset.splits.iter().flat_map(|(&split, samples)| samples.iter().map(move |sample| (split, sample)));
    samples.map(|sample| Image { file: file(sample), verdict: None, distance: None }).collect()
}

/// Reads every image, and gives the features of those that can be read where there is a network.
fn look(
    inspector: &Inspector<'_>,
    eye: Option<Eye<'_>>,
    observer: &mut ExtractObserver<'_>,
) -> Result<Option<Extracted>> {
    let Some(Eye { trunk, preprocessing }) = eye else {
        read_all(inspector, observer)?;
        return Ok(None);
    };
    match extract(trunk, preprocessing, inspector, Views::Plain, Unreadable::Skipped, observer) {
        Ok(extracted) => Ok(Some(extracted)),
        Err(Error::NoImages { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_all(inspector: &Inspector<'_>, observer: &mut ExtractObserver<'_>) -> Result<()> {
    let step = batch_size(224, &candle_core::Device::Cpu);
    for start in (0..inspector.len()).step_by(step) {
        let batch = start..inspector.len().min(start + step);
        let count = batch.len();
        // What cannot be read is kept by the inspector too.
        batch.into_par_iter().for_each(|index| drop(inspector.photo(index)));
        if observer(count).is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(())
}

/// Findings of a group of images that show one picture.
fn copy_findings(group: &Group, images: &[Image]) -> Vec<Finding> {
    let files: Vec<File> = group.members.iter().map(|&member| images[member].file.clone()).collect();
    let splits: BTreeSet<SplitName> = files.iter().map(|file| file.split).collect();
    let classes: BTreeSet<&String> = files.iter().map(|file| &file.class).collect();
    let what = if group.exact { "the same file" } else { "nearly the same picture" };
    let finding = |kind, text| Finding {
        exact: group.exact,
        ..Finding::new(kind, text, files.clone()).scored(group.likeness.into())
    };
    let mut findings = Vec::new();
    if splits.len() > 1 {
        findings.push(finding(Kind::Leak, format!("{what} in {}", joined(splits))));
    }
    if classes.len() > 1 {
        let names = classes.into_iter().map(|class| format!("`{class}`"));
        findings.push(finding(Kind::TwoLabels, format!("{what} under {}", joined(names))));
    }
    if findings.is_empty() {
        let kind = if group.exact { Kind::ExactCopies } else { Kind::NearCopies };
        findings.push(finding(kind, format!("{what} {} times", files.len())));
    }
    findings
}

fn joined(names: impl IntoIterator<Item = impl ToString>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" and ")
}

/// Images that can be read and are not `kept`: the network makes no numbers of them.
fn overflows(kept: &[usize], images: &[Image], inspections: &[Inspection]) -> Vec<Finding> {
    let readable = inspections.iter().enumerate().filter(|(_, inspection)| inspection.picture.is_ok());
    let lost = readable.filter(|(index, _)| kept.binary_search(index).is_err());
    let text = "the network's outputs are not finite";
    lost.map(|(index, _)| Finding::new(Kind::Outlier, text, vec![images[index].file.clone()])).collect()
}

/// Findings on labels and outliers; what is said of each image is kept with it.
fn judge(
    extracted: &Extracted,
    samples: &[Sample],
    classes: &[String],
    images: &mut [Image],
    proceed: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Finding>> {
    let features: Tensor = extracted.features.squeeze(1)?; // (N, 1, D) → (N, D)
    let labels: Vec<usize> = extracted.kept.iter().map(|&index| samples[index].label).collect();
    let verdicts = labels::verdicts(&features, &labels, classes.len(), proceed)?;
    let enough = labels.len() >= outliers::FEWEST;
    let distances = if enough { outliers::distances(&features, proceed)? } else { Vec::new() };
    for (row, &index) in extracted.kept.iter().enumerate() {
        images[index].verdict = verdicts[row];
        images[index].distance = distances.get(row).copied();
    }
    let doubted = images.iter().filter_map(|image| doubt(image, classes));
    let far = outliers::stand_out(&distances).into_iter().zip(&extracted.kept).filter(|(out, _)| *out);
    let far = far.map(|(_, &index)| outlier(&images[index]));
    Ok(doubted.chain(far).collect())
}

fn doubt(image: &Image, classes: &[String]) -> Option<Finding> {
    let verdict = image.verdict.filter(Verdict::is_against)?;
    let (label, proposed) = (&image.file.class, &classes[verdict.other]);
    let text = format!("`{label}` looks like `{proposed}`");
    let finding = Finding::new(Kind::Mislabelled, text, vec![image.file.clone()]);
    Some(Finding { proposed: Some(proposed.clone()), ..finding.scored(1.0 - f64::from(verdict.own)) })
}

fn outlier(image: &Image) -> Finding {
    let distance = f64::from(image.distance.unwrap_or_default());
    Finding::new(Kind::Outlier, "far from its nearest neighbours", vec![image.file.clone()]).scored(distance / 2.0)
}

/// The worst first; of a kind the surest, equal files before alike ones, then by path.
fn sort(findings: &mut [Finding]) {
    let score = |finding: &Finding| finding.score.unwrap_or(0.0);
    findings.sort_by(|a, b| {
        let rank = (a.severity, a.kind).cmp(&(b.severity, b.kind));
        let rank = rank.then(score(b).total_cmp(&score(a))).then_with(|| b.exact.cmp(&a.exact));
        rank.then_with(|| a.files.iter().map(|f| &f.path).cmp(b.files.iter().map(|f| &f.path)))
    });
}
