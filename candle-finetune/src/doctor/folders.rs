//! What names and numbers of folders say, before any file is opened.

use std::collections::BTreeMap;

use super::finding::{Finding, Kind, Severity};
use crate::dataset::{self, Dataset, DatasetError, SplitName, Survey};

/// Training images below which a class is learned by luck.
const FEW: usize = 10;

/// Classes of few images that are named.
const LISTED: usize = 20;

/// How many times the training images of the smallest class the largest may have.
const BALANCED: usize = 3;

/// Names of folders that people leave among classes, in lower case.
const STRAY: [&str; 26] = [
    "new folder",
    "untitled folder",
    "tmp",
    "temp",
    "backup",
    "backups",
    "bak",
    "old",
    "trash",
    "unsorted",
    "unlabeled",
    "unlabelled",
    "to sort",
    "todo",
    "misc",
    "results",
    "output",
    "outputs",
    "cache",
    "copy",
    "images",
    "photos",
    "pictures",
    "annotations",
    "labels",
    "masks",
];

/// Everything that can be told of a folder without opening an image.
pub(super) fn findings(Survey { dataset, problems }: &Survey) -> Vec<Finding> {
    let untrainable = dataset.check_for_training().err();
    let problems = problems.iter().chain(&untrainable).map(problem);
    let told = dataset.findings.iter().filter_map(told);
    let counted = [few_images(dataset), imbalance(dataset)].into_iter().flatten();
    let problems: Vec<Finding> = problems.collect();
    problems.into_iter().chain(told).chain(stray_classes(&dataset.classes)).chain(counted).collect()
}

/// What keeps the folder from being used.
fn problem(problem: &DatasetError) -> Finding {
    let finding = Finding::new(Kind::Layout, problem.to_string(), Vec::new());
    let advice = problem.hint().unwrap_or(finding.advice);
    Finding { severity: Severity::Error, advice, ..finding }
}

fn told(told: &dataset::Finding) -> Option<Finding> {
    use dataset::Finding as Told;
    let (severity, advice) = match told {
        // Told as a problem.
        Told::MissingClasses { split: SplitName::Train, .. } => return None,
        Told::MissingClasses { .. } | Told::EmptyClass { .. } => {
            (Severity::Warning, "add photos of them: without, nothing is measured of these classes")
        }
        Told::Hidden(_) | Told::NotImages(_) | Told::StrayFiles(_) => {
            (Severity::Note, "nothing: they are passed over; move what is meant to count into a class folder")
        }
        Told::Gifs(_) => (Severity::Note, "take the frame you mean out if it is not the first"),
        Told::Unsupported(_) => (Severity::Warning, "convert them to JPEG or PNG"),
        Told::Unusable(_) => (Severity::Warning, "repair the links or take them away"),
        Told::SeenBefore(_) => (Severity::Note, "nothing: each folder is read once"),
        Told::SplitNamesAreClasses(_) | Told::SplitsAmongClasses { .. } => {
            (Severity::Warning, "put one folder per class into each of train/, val/ and test/, and nothing beside them")
        }
        Told::Unlabelled { .. } => (Severity::Note, "sort the photos into one folder per class, to measure on them"),
        Told::SameButForCase(_) => (Severity::Warning, "merge the folders, unless they are meant to differ"),
    };
    let finding = Finding::new(Kind::Layout, told.to_string(), Vec::new());
    Some(Finding { severity, advice: advice.into(), ..finding })
}

fn stray_classes(classes: &[String]) -> Vec<Finding> {
    let is_copy = |name: &str| classes.iter().any(|class| class != name && names_copy_of(name, class));
    let stray = classes.iter().filter(|class| STRAY.contains(&class.to_lowercase().as_str()) || is_copy(class));
    stray.map(|class| Finding::new(Kind::StrayClass, format!("`{class}` is taken as a class"), Vec::new())).collect()
}

/// Whether systems name copies of a folder `class` so: `cat (1)`, `cat - Copy`, `cat copy 2`, `Copy of cat`.
fn names_copy_of(name: &str, class: &str) -> bool {
    let (name, class) = (name.to_lowercase(), class.to_lowercase());
    if name == format!("copy of {class}") {
        return true;
    }
    let Some(rest) = name.strip_prefix(&class) else { return false };
    let rest = rest.trim_start_matches([' ', '-', '_']);
    let number = |text: &str| text.trim_matches([' ', '(', ')']).chars().all(|letter| letter.is_ascii_digit());
    let numbered = rest.starts_with('(') && rest.ends_with(')') && number(rest);
    numbered || rest.strip_prefix("copy").is_some_and(number)
}

/// Training images of each class.
fn training_counts(dataset: &Dataset) -> BTreeMap<&str, usize> {
    let mut counts: BTreeMap<&str, usize> = dataset.classes.iter().map(|class| (class.as_str(), 0)).collect();
    for sample in dataset.split(SplitName::Train) {
        *counts.entry(&dataset.classes[sample.label]).or_default() += 1;
    }
    counts
}

fn few_images(dataset: &Dataset) -> Option<Finding> {
    let counts = training_counts(dataset);
    let few = counts.into_iter().filter(|(_, count)| (1..FEW).contains(count));
    let mut few: Vec<(&str, usize)> = few.collect();
    few.sort_by_key(|(_, count)| *count);
    let listed: Vec<String> = few.iter().take(LISTED).map(|(class, count)| format!("`{class}` {count}")).collect();
    let more = few.len() - listed.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!few.is_empty()).then(|| Finding::new(Kind::FewImages, listed.join(", ") + &more, Vec::new()))
}

fn imbalance(dataset: &Dataset) -> Option<Finding> {
    let counts: Vec<_> = training_counts(dataset).into_iter().filter(|(_, count)| *count > 0).collect();
    let (smallest, least) = counts.iter().min_by_key(|(_, count)| *count)?;
    let (largest, most) = counts.iter().max_by_key(|(_, count)| *count)?;
    let text = || {
        let times = *most as f64 / *least as f64;
        format!("`{largest}` has {most} training images, `{smallest}` {least}: {times:.1} times as many")
    };
    (*most > BALANCED * least).then(|| Finding::new(Kind::Imbalance, text(), Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_small_classes_the_smallest_are_named() {
        let classes: Vec<String> = (0..40).map(|index| format!("c{index:02}")).collect();
        let sample = |label| dataset::Sample { path: format!("{label}.png").into(), label };
        let train = (0..40).chain(0..39).map(sample).collect();
        let splits = BTreeMap::from([(SplitName::Train, train)]);
        let text = few_images(&Dataset { root: "photos".into(), classes, splits, findings: Vec::new() }).unwrap().text;
        assert!(text.starts_with("`c39` 1, `c00` 2, ") && text.ends_with("`c18` 2 and 20 more"), "{text}");
    }

    #[test]
    fn copies_of_folders_are_known_by_their_names() {
        for name in ["cat (1)", "cat copy", "cat - Copy", "Cat copy 2", "copy of cat", "cat - Copy (2)"] {
            assert!(names_copy_of(name, "cat"), "{name}");
        }
        for name in ["cattle", "cat house", "cat2", "cat-fish", "dog (1)", "cat copycat"] {
            assert!(!names_copy_of(name, "cat"), "{name}");
        }
    }
}
