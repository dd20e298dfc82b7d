//! What a data set holds, in numbers.

use std::collections::BTreeMap;

use candle_resnet::preprocess::{Encoding, Note};

use super::inspection::{Inspection, Picture};
use crate::dataset::{Dataset, SplitName};

/// Counts of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Names of the classes, and the images of each in every split.
    pub classes: Vec<(String, BTreeMap<SplitName, usize>)>,
    /// Images of each split.
    pub splits: BTreeMap<SplitName, usize>,
    /// Images of each format and colour mode, of those whose header can be read.
    pub encodings: BTreeMap<Encoding, usize>,
    /// Pixels in a row and rows, upright, of those that could be decoded.
    pub sizes: BTreeMap<(usize, usize), usize>,
    /// Images that were turned or mirrored as their EXIF asks.
    pub turned: usize,
    /// Images that could not be decoded.
    pub unreadable: usize,
}

impl Census {
    pub(super) fn of(dataset: &Dataset, inspections: &[Inspection]) -> Census {
        let pictures = || inspections.iter().filter_map(|inspection| inspection.picture.as_ref().ok());
        Census {
            classes: class_counts(dataset),
            splits: dataset.splits.iter().map(|(&split, samples)| (split, samples.len())).collect(),
            encodings: counts(inspections.iter().filter_map(|inspection| inspection.encoding)),
            sizes: counts(pictures().map(|picture| (picture.width, picture.height))),
            turned: pictures().filter(|picture| is_turned(picture)).count(),
            unreadable: inspections.len() - pictures().count(),
        }
    }
}

fn class_counts(dataset: &Dataset) -> Vec<(String, BTreeMap<SplitName, usize>)> {
    let empty = || dataset.splits.keys().map(|&split| (split, 0)).collect::<BTreeMap<_, _>>();
    let mut classes: Vec<_> = dataset.classes.iter().map(|class| (class.clone(), empty())).collect();
    for (&split, samples) in &dataset.splits {
        for sample in samples {
            *classes[sample.label].1.entry(split).or_default() += 1;
        }
    }
    classes
}

fn counts<T: Ord>(values: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

fn is_turned(picture: &Picture) -> bool {
    picture.notes.iter().any(|note| matches!(note, Note::Rotated { .. }))
}
