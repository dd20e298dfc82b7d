//! What is worth telling about a folder of photos that can be used all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use super::{
    Sample, SplitName,
    names::{composed, likeness},
};

/// What two names that look the same differ in.
pub(super) const FORMS: &str = "Unicode's forms NFC and NFD";

/// Files of one kind: how many, and a few of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examples {
    /// How many there are.
    pub count: usize,
    /// The first three.
    pub paths: Vec<PathBuf>,
}

impl Examples {
    pub(super) fn push(&mut self, path: PathBuf) {
        self.count += 1;
        if self.paths.len() < 3 {
            self.paths.push(path);
        }
    }
}

impl fmt::Display for Examples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        let more = if self.count > self.paths.len() { ", …" } else { "" };
        write!(f, "{} ({}{more})", self.count, paths.join(", "))
    }
}

/// Something about a folder of photos that its owner may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Files and folders whose name says that they are not meant: they begin with a dot, or a system left them.
    Hidden(Examples),
    /// Files that are no images, by their extension.
    NotImages(Examples),
    /// Images of formats that are not read.
    Unsupported(Examples),
    /// GIFs; of animations the first frame is used.
    Gifs(Examples),
    /// Files beside the class folders, where nothing is looked for.
    StrayFiles(Examples),
    /// Links to files or folders that are gone, and what is neither file nor folder.
    Unusable(Examples),
    /// Folders that a link leads to a second time, or in a circle; they were read once.
    SeenBefore(Examples),
    /// Every folder bears a split's name but holds images instead of folders: they were taken as classes.
    SplitNamesAreClasses(Vec<String>),
    /// Some folders bear split's names and others do not: all were taken as classes.
    SplitsAmongClasses {
        /// Those with a split's name.
        splits: Vec<String>,
        /// Some of the others.
        others: Vec<String>,
    },
    /// Images without labels in a split's folder; the split is left out.
    Unlabelled {
        /// The split.
        split: SplitName,
        /// The images.
        images: Examples,
    },
    /// Classes that a split lacks.
    MissingClasses {
        /// The split.
        split: SplitName,
        /// The classes.
        classes: Vec<String>,
    },
    /// A class folder without images, outside the training part.
    EmptyClass {
        /// The split.
        split: SplitName,
        /// The class.
        class: String,
    },
    /// Classes whose names differ in case, or in how accents are written, alone.
    SameButForCase(Vec<String>),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Hidden(files) => write!(f, "passed over hidden entries: {files}"),
            Finding::NotImages(files) => write!(f, "passed over files that are no images: {files}"),
            Finding::Unsupported(files) => write!(f, "passed over images in formats that are not supported: {files}"),
            Finding::Gifs(files) => write!(f, "GIFs among the photos, of which the first frame is used: {files}"),
            Finding::StrayFiles(files) => write!(f, "passed over files outside the class folders: {files}"),
            Finding::Unusable(files) => write!(f, "passed over broken links and special files: {files}"),
            Finding::SeenBefore(folders) => write!(f, "links lead to folders that were read already: {folders}"),
            Finding::SplitNamesAreClasses(names) => {
                write!(f, "{} hold images, not class folders: they are taken as classes", quoted(names))
            }
            Finding::SplitsAmongClasses { splits, others } => write!(
                f,
                "{} were taken as classes, not as splits, because of {} beside them",
                quoted(splits),
                quoted(others)
            ),
            Finding::Unlabelled { split, images } => {
                write!(f, "left out the {split} part, whose images lie in no class folder: {images}")
            }
            Finding::MissingClasses { split, classes } => write!(f, "no {split} images of {}", quoted(classes)),
            Finding::EmptyClass { split, class } => write!(f, "the {split} folder of `{class}` holds no images"),
            Finding::SameButForCase(names) if names.windows(2).all(|pair| composed(&pair[0]) == composed(&pair[1])) => {
                write!(f, "classes whose names look the same, in different characters ({FORMS}): {}", quoted(names))
            }
            Finding::SameButForCase(names) => write!(f, "classes that differ only in case: {}", quoted(names)),
        }
    }
}

pub(super) fn quoted(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("`{name}`")).collect();
    let rest = names.len() - shown.len();
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}

/// What shows only when all splits are known.
pub(super) fn compare_splits(
    classes: &[String],
    splits: &BTreeMap<SplitName, Vec<Sample>>,
    findings: &mut Vec<Finding>,
) {
    findings.extend(same_but_for_case(classes).map(Finding::SameButForCase));
    for (&split, samples) in splits {
        let present: BTreeSet<usize> = samples.iter().map(|sample| sample.label).collect();
        let missing = (0..classes.len()).filter(|label| !present.contains(label));
        let missing: Vec<String> = missing.map(|label| classes[label].clone()).collect();
        let told = |class: &String| {
            findings.iter().any(|finding| *finding == Finding::EmptyClass { split, class: class.clone() })
        };
        let missing: Vec<String> = missing.into_iter().filter(|class| !told(class)).collect();
        if !missing.is_empty() {
            findings.push(Finding::MissingClasses { split, classes: missing });
        }
    }
}

fn same_but_for_case(classes: &[String]) -> impl Iterator<Item = Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for class in classes {
        groups.entry(likeness(class)).or_default().push(class.clone());
    }
    groups.into_values().filter(|names| names.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_few_and_the_count_is_whole() {
        let mut files = Examples::default();
        for name in ["a", "b", "c", "d"] {
            files.push(name.into());
        }
        assert_eq!(
            Finding::Gifs(files).to_string(),
            "GIFs among the photos, of which the first frame is used: 4 (a, b, c, …)"
        );
    }

    #[test]
    fn names_that_differ_in_case_are_grouped() {
        let classes = ["Cat", "Äpfel", "cat", "dog", "äpfel"].map(str::to_owned);
        let groups: Vec<_> = same_but_for_case(&classes).collect();
        assert_eq!(groups, [["Cat", "cat"], ["Äpfel", "äpfel"]]);
    }

    #[test]
    fn names_that_look_the_same_are_told_apart_from_others() {
        let text = |names: [&str; 2]| Finding::SameButForCase(names.map(str::to_owned).into()).to_string();
        assert!(text(["caf\u{e9}", "cafe\u{301}"]).contains("NFC and NFD"));
        assert!(text(["Cat", "cat"]).contains("only in case"));
        let classes = ["cafe\u{301}", "caf\u{e9}"].map(str::to_owned);
        assert_eq!(same_but_for_case(&classes).count(), 1);
    }
}
