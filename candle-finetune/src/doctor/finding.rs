//! What a data set's owner should know of it: each finding says what, where and what to do about it.
//!
//! Data for people and for programs; prints nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::dataset::SplitName;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Training fails, or what is measured afterwards says nothing.
    Error,
    /// Worth a look before training.
    Warning,
    /// Worth knowing.
    Note,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Folders that are not laid out as a data set.
    Layout,
    /// A picture in more than one of train, val and test.
    Leak,
    /// A picture under more than one label.
    TwoLabels,
    /// A file of no bytes.
    EmptyFile,
    /// A file that does not decode.
    Unreadable,
    /// A label that the other images speak against.
    Mislabelled,
    /// The same file several times in one split.
    ExactCopies,
    /// Nearly the same picture several times in one split: encoded again, resized, mirrored.
    NearCopies,
    /// A folder that is a class and does not look like one.
    StrayClass,
    /// Classes of so few training images that little can be learned of them.
    FewImages,
    /// A class with many times the training images of another.
    Imbalance,
    /// A picture unlike all others.
    Outlier,
    /// A file named as another format than it is in.
    WrongExtension,
    /// A file of several pictures, of which the first is used.
    FirstFrame,
    /// Files that say that they are to be turned or mirrored.
    Turned,
    /// Grey pictures among coloured ones.
    Grey,
    /// Pictures smaller than what the network is shown.
    Small,
}

impl Kind {
    /// How bad findings of the kind are.
    pub fn severity(self) -> Severity {
        match self {
            Kind::Leak => Severity::Error,
            Kind::Imbalance
            | Kind::Outlier
            | Kind::WrongExtension
            | Kind::FirstFrame
            | Kind::Turned
            | Kind::Grey
            | Kind::Small => Severity::Note,
            _ => Severity::Warning,
        }
    }

    /// What findings of the kind have in common, as a heading.
    pub fn heading(self) -> &'static str {
        match self {
            Kind::Layout => "folders",
            Kind::Leak => "pictures in more than one of train, val and test",
            Kind::TwoLabels => "pictures under more than one label",
            Kind::EmptyFile => "files of zero bytes",
            Kind::Unreadable => "files that do not decode",
            Kind::Mislabelled => "labels that the other images speak against",
            Kind::ExactCopies => "files that are there several times",
            Kind::NearCopies => "pictures that are there several times, encoded again, resized or mirrored",
            Kind::StrayClass => "folders that do not look like classes",
            Kind::FewImages => "classes of few images",
            Kind::Imbalance => "classes of unequal size",
            Kind::Outlier => "pictures unlike all others",
            Kind::WrongExtension => "files named as another format than they are in",
            Kind::FirstFrame => "files of several pictures",
            Kind::Turned => "files to be turned (EXIF)",
            Kind::Grey => "grey pictures among coloured ones",
            Kind::Small => "pictures smaller than the network's input",
        }
    }

    /// What to do about it, in one line.
    pub fn advice(self) -> &'static str {
        match self {
            Kind::Layout => "sort the photos into one folder per class, in train/ and test/ where they are split",
            Kind::Leak => {
                "keep each in one part only, best in train/: what is measured on pictures learned from is worthless"
            }
            Kind::TwoLabels => "decide for one label and take the other copies away",
            Kind::EmptyFile => "copy or download them again, or take them away: training skips them",
            Kind::Unreadable => "repair, convert or take them away: training skips them",
            Kind::Mislabelled => "look at them, the first ones first, and move those that are wrong",
            Kind::ExactCopies => "keep one of each: copies count double",
            Kind::NearCopies => "look at them and keep one of each: copies count double",
            Kind::StrayClass => "move the folder out of the data set if it is no class",
            Kind::FewImages => "add photos: below ten a class is learned by luck",
            Kind::Imbalance => "mind accuracy by class; `--class-weights balanced` weighs rare classes up",
            Kind::Outlier => "look at them: screenshots, placeholders and the like belong to no class",
            Kind::WrongExtension => "rename them if other programs stumble: here the content counts",
            Kind::FirstFrame => "take the frame you mean out if it is not the first",
            Kind::Turned => "nothing: they are turned upright here; a program that ignores EXIF sees them lying",
            Kind::Grey => "nothing, unless greyness goes with a class: then that is what is learned",
            Kind::Small => "nothing, or choose a network for smaller images: enlarging adds no detail",
        }
    }
}

/// A file that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct File {
    /// Where it is; bytes that are not UTF-8 are replaced where it is serialised.
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
    /// Its part of the data set.
    #[serde(serialize_with = "as_text")]
    pub split: SplitName,
    /// Its label.
    pub class: String,
}

fn as_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Something about a data set that its owner should know.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Of which kind it is.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in one line; names no files where `files` does.
    pub text: String,
    /// The files that it is about.
    pub files: Vec<File>,
    /// Whether they are equal to the last byte.
    #[serde(skip)]
    pub(super) exact: bool,
    /// How sure or how much, from 0 to 1, where that can be said: the probability that the label is wrong, the likeness of copies, half
    /// the distance of outliers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The label that is proposed instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposed: Option<String>,
    /// What to do about it, in one line.
    pub advice: String,
}

impl Finding {
    /// A finding of that kind, as bad as its kind is.
    pub(super) fn new(kind: Kind, text: impl Into<String>, files: Vec<File>) -> Finding {
        let (severity, advice) = (kind.severity(), kind.advice().to_owned());
        Finding { kind, severity, text: text.into(), files, exact: false, score: None, proposed: None, advice }
    }

    /// The same with a score.
    pub(super) fn scored(self, score: f64) -> Finding {
        Finding { score: Some(score), ..self }
    }
}
