//! Pictures that are there more than once: the same file, or nearly the same picture.
//!
//! All pairs of outlines are compared as products of matrices, block by block, so that memory does not grow with the number of pairs;
//! pairs whose outlines agree are compared once more in finer pixels. Copies of copies form one group.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::groups::Groups;
use super::inspection::Inspection;
use super::thumbnail::{HALF, Thumbnail};
use crate::error::Result;
use crate::pairs::{BLOCK, products};

/// The correlation from which two outlines may be of one picture.
const ALIKE_OUTLINES: f32 = 0.96;

/// The correlation from which two thumbnails are of one picture. Measured on CIFAR-10, whose own copies end where pairs of other
/// pictures begin, at 0.955.
const ALIKE: f32 = 0.96;

/// Images that show one picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// Two or more, ascending.
    pub members: Vec<usize>,
    /// Whether all are the same file.
    pub exact: bool,
    /// The least correlation that joined two of them.
    pub likeness: f32,
}

/// Groups of images with equal digests; those without one are alone.
pub(super) fn exact_groups(digests: &[Option<[u8; 32]>]) -> Groups {
    let mut groups = Groups::new(digests.len());
    let mut first = HashMap::new();
    for (index, digest) in digests.iter().enumerate() {
        if let Some(digest) = digest {
            groups.join(*first.entry(digest).or_insert(index), index);
        }
    }
    groups
}

/// Groups of images that show one picture. `proceed` is asked now and then whether to go on, and ends the search with an error.
pub(super) fn find(inspections: &[Inspection], proceed: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Group>> {
    let digests: Vec<_> = inspections.iter().map(|inspection| inspection.digest).collect();
    let exact = exact_groups(&digests);
    let mut groups = exact.clone();
    let links = join_near(&outlined(inspections, &exact), &mut groups, proceed)?;
    let mut likeness = HashMap::new();
    for (member, value) in links {
        let least: &mut f32 = likeness.entry(groups.root(member)).or_insert(value);
        *least = least.min(value);
    }
    let group = |members: Vec<usize>| {
        let is_exact = members.iter().all(|&member| exact.together(members[0], member));
        let likeness = likeness.get(&groups.root(members[0])).copied().unwrap_or(1.0);
        Group { exact: is_exact, likeness, members }
    };
    let found = groups.several().into_iter();
    // Files of zero bytes are equal, and no pictures.
    let shows = |members: &Vec<usize>| members.iter().any(|&member| inspections[member].picture.is_ok());
    Ok(found.filter(shows).map(group).collect())
}

/// An image that can be compared, and its rows of the two halves of outlines.
struct Outlined<'a> {
    images: Vec<(usize, &'a Thumbnail)>,
    symmetric: Vec<f32>,     // (N, HALF)
    antisymmetric: Vec<f32>, // (N, HALF)
}

/// One image for each file that is there once or more.
fn outlined<'a>(inspections: &'a [Inspection], exact: &Groups) -> Outlined<'a> {
    let mut all = Outlined { images: Vec::new(), symmetric: Vec::new(), antisymmetric: Vec::new() };
    for (index, inspection) in inspections.iter().enumerate() {
        let Ok(picture) = &inspection.picture else { continue };
        if exact.root(index) != index {
            continue;
        }
        if let Some(outline) = picture.thumbnail.outline() {
            all.images.push((index, &picture.thumbnail));
            all.symmetric.extend(outline.symmetric);
            all.antisymmetric.extend(outline.antisymmetric);
        }
    }
    all
}

impl Outlined<'_> {
    /// The halves of outlines of a block, (N, HALF) each.
    fn block(&self, block: usize) -> candle_core::Result<[Tensor; 2]> {
        let rows = block * BLOCK..self.images.len().min((block + 1) * BLOCK);
        let half = |values: &[f32]| {
            let values = &values[rows.start * HALF..rows.end * HALF];
            Tensor::from_slice(values, (rows.len(), HALF), &Device::Cpu)
        };
        Ok([half(&self.symmetric)?, half(&self.antisymmetric)?])
    }

    /// Pairs (a, b), a before b, of an image of one block and one of another whose outlines agree.
    fn candidates(&self, first: usize, second: usize) -> candle_core::Result<Vec<(usize, usize)>> {
        let ([own, own_turned], [others, others_turned]) = (self.block(first)?, self.block(second)?);
        let width = others.dim(0)?;
        let (same, turned) = (products(&own, &others)?, products(&own_turned, &others_turned)?);
        let rows = same.par_chunks(width).zip(turned.par_chunks(width)).enumerate();
        let pairs = rows.flat_map_iter(|(row, (same, turned))| {
            let alike = same.iter().zip(turned).enumerate().filter(|(_, (s, a))| *s + a.abs() >= ALIKE_OUTLINES);
            alike.map(move |(column, _)| (first * BLOCK + row, second * BLOCK + column))
        });
        Ok(pairs.filter(|(a, b)| a < b).collect())
    }
}

/// Joins images that are alike; gives a member and the likeness of each link that was made.
fn join_near(
    outlined: &Outlined<'_>,
    groups: &mut Groups,
    proceed: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<(usize, f32)>> {
    let blocks = outlined.images.len().div_ceil(BLOCK);
    let mut links = Vec::new();
    for first in 0..blocks {
        proceed()?;
        for second in first..blocks {
            let candidates = outlined.candidates(first, second)?;
            for (a, b, likeness) in confirmed(outlined, candidates, groups) {
                if groups.join(a, b) {
                    links.push((a, likeness));
                }
            }
        }
    }
    Ok(links)
}

/// Candidates that are not in one group yet and whose thumbnails agree too.
fn confirmed(outlined: &Outlined<'_>, candidates: Vec<(usize, usize)>, groups: &Groups) -> Vec<(usize, usize, f32)> {
    let confirm = |(a, b): (usize, usize)| {
        let ((a, thumbnail), (b, other)) = (outlined.images[a], outlined.images[b]);
        if groups.together(a, b) {
            return None;
        }
        let likeness = thumbnail.likeness(other);
        (likeness >= ALIKE).then_some((a, b, likeness.min(1.0)))
    };
    candidates.into_par_iter().filter_map(confirm).collect()
}
