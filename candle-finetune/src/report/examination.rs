//! What the doctor found, as a page.

use std::path::Path;

use askama::Template;
use candle_resnet::preprocess::decode;
use rayon::prelude::*;

use super::page::{Card, ClassCounts, DoctorPage, FileView, FindingView, KindView, percent};
use super::pictures::{data_uri, small};
use crate::doctor::{File, Finding, Report, Severity};
use crate::error::{Result, io_error};
use crate::whole_file;

/// Findings of one kind that are shown.
const FINDINGS: usize = 12;

/// Files of one finding that are shown.
const FILES: usize = 4;

/// Pictures below this side are shown pixel by pixel.
const SMALL: usize = 100;

/// Writes what was found in the data set `root` to the file `page`.
///
/// # Errors
/// If it cannot be written. Files that cannot be read have no picture.
pub fn write_examination(report: &Report, root: &Path, page: &Path) -> Result<()> {
    let kinds = report.findings.chunk_by(|a, b| (a.severity, a.kind) == (b.severity, b.kind));
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let card = |value: usize, name: &str| Card { value: value.to_string(), name: name.into(), more: String::new() };
    let agreement = report.agreement.map(|part| {
        format!("{} of the labels are what the other images make of the picture; where that is low, doubts about single ones mean little.", percent(part))
    });
    let filled = DoctorPage {
        title: format!("{}, looked over", root.display()),
        lead: agreement.into_iter().collect(),
        cards: vec![
            card(report.images.len(), "images"),
            card(count(Severity::Error), "errors"),
            card(count(Severity::Warning), "warnings"),
            card(count(Severity::Note), "notes"),
        ],
        splits: report.census.splits.keys().map(ToString::to_string).collect(),
        classes: report
            .census
            .classes
            .iter()
            .map(|(name, counts)| ClassCounts { name: name.clone(), counts: counts.values().copied().collect() })
            .collect(),
        kinds: kinds.map(|findings| kind_view(findings, root)).collect(),
    };
    let html = filled.render().map_err(|error| io_error(page)(std::io::Error::other(error)))?;
    whole_file::write(page, html.as_bytes())
}

fn kind_view(findings: &[Finding], root: &Path) -> KindView {
    let first = &findings[0];
    KindView {
        heading: first.kind.heading(),
        severity: match first.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        },
        count: findings.len(),
        advice: first.kind.advice(),
        findings: findings.par_iter().take(FINDINGS).map(|finding| finding_view(finding, root)).collect(),
        more: findings.len().saturating_sub(FINDINGS),
    }
}

fn finding_view(finding: &Finding, root: &Path) -> FindingView {
    let score = finding.score.map_or(String::new(), |score| format!(" ({score:.3})"));
    let more = match finding.files.len().saturating_sub(FILES) {
        0 => String::new(),
        more => format!(", and {more} files more"),
    };
    FindingView {
        text: format!("{}{score}{more}", finding.text),
        pictures: finding.files.iter().take(FILES).map(|file| file_view(file, root)).collect(),
    }
}

fn file_view(file: &File, root: &Path) -> FileView {
    let photo = decode(&file.path).ok();
    FileView {
        name: file.path.strip_prefix(root).unwrap_or(&file.path).display().to_string(),
        small: photo.as_ref().is_some_and(|photo| photo.width().max(photo.height()) < SMALL),
        photo: photo.and_then(|photo| data_uri(&small(&photo)?).ok()),
    }
}
