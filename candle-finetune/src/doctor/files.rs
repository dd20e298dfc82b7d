//! What single files have: bytes that show nothing, names that lie, sizes and modes that differ.

use std::collections::BTreeMap;

use candle_resnet::preprocess::Note;

use super::finding::{Finding, Kind, Severity};
use super::inspection::{Inspection, Picture};
use super::{File, Image};
use crate::dataset::SplitName;

/// A kind of note that many files share is told once, with its files.
type Told = fn(&Note) -> bool;

/// Findings on single files. `crop` is the side of the network's input, where there is a network.
pub(super) fn findings(images: &[Image], inspections: &[Inspection], crop: Option<usize>) -> Vec<Finding> {
    let pairs = || images.iter().zip(inspections);
    let single = pairs().flat_map(|(image, inspection)| [fault(image, inspection), lie(image, inspection)]).flatten();
    let noted: [(Kind, Told, &str); 2] = [
        (Kind::FirstFrame, |note| matches!(note, Note::FirstFrame { .. }), "hold several pictures"),
        (Kind::Turned, |note| matches!(note, Note::Rotated { .. }), "are turned upright as their EXIF asks"),
    ];
    let shared = noted.into_iter().filter_map(|(kind, is_it, text)| {
        together(kind, text, images, inspections, |picture| picture.notes.iter().any(is_it))
    });
    let small = crop.and_then(|crop| small(images, inspections, crop));
    single
        .chain(unreadable_classes(images, inspections))
        .chain(shared)
        .chain(grey(images, inspections))
        .chain(small)
        .collect()
}

fn fault(image: &Image, inspection: &Inspection) -> Option<Finding> {
    let fault = inspection.picture.as_ref().err()?;
    let kind = if fault.is_empty { Kind::EmptyFile } else { Kind::Unreadable };
    Some(Finding::new(kind, fault.reason.clone(), vec![image.file.clone()]))
}

/// Classes that have training images of which none can be read.
fn unreadable_classes(images: &[Image], inspections: &[Inspection]) -> Vec<Finding> {
    let mut classes: BTreeMap<&str, bool> = BTreeMap::new();
    for (Image { file, .. }, inspection) in images.iter().zip(inspections) {
        if file.split == SplitName::Train {
            *classes.entry(&file.class).or_default() |= inspection.picture.is_ok();
        }
    }
    let lost = classes.into_iter().filter(|(_, readable)| !readable);
    let finding = |(class, _)| {
        let text = format!("no training image of class `{class}` can be read");
        Finding { severity: Severity::Error, ..Finding::new(Kind::Unreadable, text, Vec::new()) }
    };
    lost.map(finding).collect()
}

fn lie(image: &Image, inspection: &Inspection) -> Option<Finding> {
    let picture = inspection.picture.as_ref().ok()?;
    let note = picture.notes.iter().find(|note| matches!(note, Note::Extension { .. }))?;
    Some(Finding::new(Kind::WrongExtension, note.to_string(), vec![image.file.clone()]))
}

fn grey(images: &[Image], inspections: &[Inspection]) -> Option<Finding> {
    let is_grey = |picture: &Picture| picture.thumbnail.is_grey();
    let all_are = inspections.iter().filter_map(|inspection| inspection.picture.as_ref().ok()).all(is_grey);
    if all_are { None } else { together(Kind::Grey, "are grey", images, inspections, is_grey) }
}

fn small(images: &[Image], inspections: &[Inspection], crop: usize) -> Option<Finding> {
    let text = format!("are smaller than the network's input, {crop}×{crop} pixels");
    together(Kind::Small, &text, images, inspections, |picture| picture.width.min(picture.height) < crop)
}

/// One finding on all files whose picture is such.
fn together(
    kind: Kind,
    text: &str,
    images: &[Image],
    inspections: &[Inspection],
    is_such: impl Fn(&Picture) -> bool,
) -> Option<Finding> {
    let pairs = images.iter().zip(inspections);
    let such = pairs.filter(|(_, inspection)| inspection.picture.as_ref().is_ok_and(&is_such));
    let files: Vec<File> = such.map(|(image, _)| image.file.clone()).collect();
    let text = format!("{} of {} {text}", files.len(), images.len());
    (!files.is_empty()).then(|| Finding::new(kind, text, files))
}
