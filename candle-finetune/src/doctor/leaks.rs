//! The short form before training: the same file twice.
//!
//! Only files of equal length are read: few among large photos, most among many small ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{fmt, fs};

use candle_resnet::preprocess::read;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::copies::exact_groups;
use crate::dataset::{Dataset, Sample, SplitName};
use crate::error::{Error, Result};

/// Groups of equal files, two paths or more each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EqualFiles(pub Vec<Vec<PathBuf>>);

/// How many groups there are, and of the first two paths: `3 (train/a.jpg = test/b.jpg, …)`.
impl fmt::Display for EqualFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0.iter().take(1).flatten().take(2);
        let paths: Vec<String> = first.map(|path| path.display().to_string()).collect();
        let more = if self.0.len() > 1 { ", …" } else { "" };
        write!(f, "{} ({}{more})", self.0.len(), paths.join(" = "))
    }
}

/// Files of a data set that are there more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExactCopies {
    /// In more than one of train, val and test.
    pub leaks: EqualFiles,
    /// Under more than one label.
    pub two_labels: EqualFiles,
    /// In one split and under one label.
    pub others: EqualFiles,
}

impl ExactCopies {
    /// Refuses leaks: what is measured on images that were learned from says nothing.
    ///
    /// # Errors
    /// [`Error::Leaks`].
    pub fn check_for_leaks(&self) -> Result<()> {
        if self.leaks.0.is_empty() { Ok(()) } else { Err(Error::Leaks(self.leaks.clone())) }
    }
}

/// Finds equal files. Those that cannot be read are equal to none, nor are empty ones.
pub fn exact_copies(dataset: &Dataset) -> ExactCopies {
    let all: Vec<(SplitName, &Sample)> =
        dataset.splits.iter().flat_map(|(&split, samples)| samples.iter().map(move |sample| (split, sample))).collect();
    let mut copies = ExactCopies::default();
    for members in exact_groups(&digests(&all)).several() {
        let splits: BTreeSet<SplitName> = members.iter().map(|&member| all[member].0).collect();
        let labels: BTreeSet<usize> = members.iter().map(|&member| all[member].1.label).collect();
        let paths: Vec<PathBuf> = members.iter().map(|&member| all[member].1.path.clone()).collect();
        if splits.len() > 1 {
            copies.leaks.0.push(paths.clone());
        }
        if labels.len() > 1 {
            copies.two_labels.0.push(paths.clone());
        }
        if splits.len() == 1 && labels.len() == 1 {
            copies.others.0.push(paths);
        }
    }
    copies
}

/// Digests of files whose length others have too.
fn digests(files: &[(SplitName, &Sample)]) -> Vec<Option<[u8; 32]>> {
    let length = |(_, sample): &(SplitName, &Sample)| fs::metadata(&sample.path).map_or(0, |metadata| metadata.len());
    let lengths: Vec<u64> = files.par_iter().map(length).collect();
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for &length in &lengths {
        *counts.entry(length).or_default() += 1;
    }
    let may_be_a_copy = |length: &u64| *length > 0 && counts[length] > 1;
    let digest = |(_, sample): &(SplitName, &Sample)| Some(Sha256::digest(read(&sample.path).ok()?).into());
    let pairs = files.par_iter().zip(&lengths);
    pairs.map(|(file, length)| if may_be_a_copy(length) { digest(file) } else { None }).collect()
}
