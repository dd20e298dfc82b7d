//! A folder of photos → classes, splits and labelled image paths.
//!
//! Looks at names only: no image is opened. What is wrong enough to spoil a training is an error before any work;
//! everything else that its owner may want to know is a [`Finding`].
//!
//! The layout is torchvision's `ImageFolder`: one folder per class, searched recursively, classes in the order of
//! their names; or folders for the splits that hold such folders.

mod error;
mod finding;
mod hold_out;
mod layout;
mod names;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

pub use error::DatasetError;
pub use finding::{Examples, Finding};
pub use hold_out::hold_out;

use layout::ClassFolder;
pub(crate) use names::composed;

/// What a part of a dataset is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SplitName {
    /// Learned from. A dataset without splits is all of it.
    Train,
    /// Chooses epochs and rates.
    Val,
    /// Chooses nothing; reports the accuracy.
    Test,
}

impl fmt::Display for SplitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SplitName::Train => "train",
            SplitName::Val => "val",
            SplitName::Test => "test",
        })
    }
}

/// One labelled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The file, below the dataset's folder.
    pub path: PathBuf,
    /// The index of its class in [`Dataset::classes`].
    pub label: usize,
}

/// A folder of photos, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The folder, as it was given.
    pub root: PathBuf,
    /// Names of the classes, sorted as torchvision's `ImageFolder` sorts them: by code point.
    pub classes: Vec<String>,
    /// The images of each split, sorted by path. A split that the folder lacks is not in the map.
    pub splits: BTreeMap<SplitName, Vec<Sample>>,
    /// What is worth telling, in the order in which it was found.
    pub findings: Vec<Finding>,
}

impl Dataset {
    /// The images of a split; empty where the folder lacks it.
    pub fn split(&self, name: SplitName) -> &[Sample] {
        self.splits.get(&name).map_or(&[], Vec::as_slice)
    }

    /// Refuses what can be evaluated but not learned from.
    ///
    /// # Errors
    /// No training images, or one class only.
    pub fn check_for_training(&self) -> Result<(), DatasetError> {
        if self.split(SplitName::Train).is_empty() {
            let found = self.splits.keys().copied().collect();
            return Err(DatasetError::NoTraining { path: self.root.clone(), found });
        }
        match self.classes.as_slice() {
            [class] => Err(DatasetError::OneClass {
                path: self.root.clone(),
                class: class.clone(),
                inner: layout::folders_inside(&self.root.join(class)),
            }),
            _ => Ok(()),
        }
    }
}

/// Reads the layout of `dir`: one folder per class, or `train`, `val` and `test` folders of such.
///
/// It counts as split only if every folder in it bears a split's name (train, training, val, valid, validation, test,
/// testing; in any case): a class may be called `train`. Hidden files and folders are passed over. Symbolic links are
/// followed, each real folder at most once per class.
///
/// # Errors
/// No such folder, or one there that cannot be read; no images; images beside the class folders' place; a class folder of the
/// training part without images; a class in `val` or `test` that `train` lacks; two folders for one split; a class name
/// that is not UTF-8 or holds control characters.
pub fn scan(dir: &Path) -> Result<Dataset, DatasetError> {
    let Survey { dataset, problems } = survey(dir)?;
    problems.into_iter().next().map_or(Ok(dataset), Err)
}

/// A folder of photos with all that would keep it from being used.
#[derive(Debug)]
pub struct Survey {
    /// What can be made of it: classes that some part lacks are classes all the same.
    pub dataset: Dataset,
    /// What [`scan`] would refuse, the first of it.
    pub problems: Vec<DatasetError>,
}

/// As [`scan`], for whoever wants to see what is wrong: goes on where the layout can still be told, without folders that cannot be read.
///
/// # Errors
/// Those of [`scan`] that leave no data set: no folder, no class folders, no images.
pub fn survey(dir: &Path) -> Result<Survey, DatasetError> {
    let (mut findings, mut problems) = (Vec::new(), Vec::new());
    let parts = layout::parts(dir, &mut findings, &mut problems)?;
    let classes = class_names(dir, &parts, &mut problems);
    let mut splits = BTreeMap::new();
    for (split, folders) in parts {
        splits.insert(split, samples(split, &folders, &classes, &mut findings, &mut problems));
    }
    if splits.values().all(Vec::is_empty) {
        let first = problems.into_iter().next();
        return Err(first.unwrap_or_else(|| DatasetError::NoImages { path: dir.to_owned() }));
    }
    finding::compare_splits(&classes, &splits, &mut findings);
    Ok(Survey { dataset: Dataset { root: dir.to_owned(), classes, splits, findings }, problems })
}

/// Images that need no labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlabelled {
    /// Sorted by path.
    pub images: Vec<PathBuf>,
    /// What was passed over on the way to them.
    pub findings: Vec<Finding>,
}

/// Every image below a folder that need not be a dataset; hidden files and other files are passed over.
///
/// # Errors
/// A folder that cannot be read, or no images.
pub fn images_below(dir: &Path) -> Result<Unlabelled, DatasetError> {
    let mut seen = walk::Seen::default();
    let mut images = walk::images(dir, &mut seen);
    if !seen.unreadable.is_empty() {
        return Err(seen.unreadable.remove(0));
    }
    images.sort();
    if images.is_empty() {
        return Err(DatasetError::NoImages { path: dir.to_owned() });
    }
    Ok(Unlabelled { images, findings: seen.into_findings().collect() })
}

type Parts = BTreeMap<SplitName, Vec<ClassFolder>>;

/// The classes of all parts. One that the training part lacks is a problem, where there is a training part.
fn class_names(dir: &Path, parts: &Parts, problems: &mut Vec<DatasetError>) -> Vec<String> {
    let names =
        |folders: &[ClassFolder]| -> BTreeSet<String> { folders.iter().map(|folder| folder.name.clone()).collect() };
    let known = parts.get(&SplitName::Train).map(|folders| names(folders));
    let mut all = BTreeSet::new();
    for (&split, folders) in parts {
        let found = names(folders);
        if let Some(known) = &known {
            let unknown: Vec<String> = found.difference(known).cloned().collect();
            if !unknown.is_empty() {
                let known = known.iter().cloned().collect();
                problems.push(DatasetError::UnknownClasses { path: dir.to_owned(), split, unknown, known });
            }
        }
        all.extend(found);
    }
    all.into_iter().collect()
}

fn samples(
    split: SplitName,
    folders: &[ClassFolder],
    classes: &[String],
    findings: &mut Vec<Finding>,
    problems: &mut Vec<DatasetError>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut seen = walk::Seen::default();
    for folder in folders {
        let before = samples.len();
        let label = classes.partition_point(|class| *class < folder.name);
        let images = walk::images(&folder.path, &mut seen);
        samples.extend(images.into_iter().map(|path| Sample { path, label }));
        let is_whole = seen.unreadable.is_empty();
        problems.append(&mut seen.unreadable);
        if samples.len() > before || !is_whole {
            continue;
        }
        // A class without training images cannot be learned; one without others is merely not measured.
        if split == SplitName::Train {
            let others = seen.count_below(&folder.path);
            problems.push(DatasetError::EmptyClass { path: folder.path.clone(), others });
        } else {
            findings.push(Finding::EmptyClass { split, class: folder.name.clone() });
        }
    }
    findings.extend(seen.into_findings());
    samples.sort_by(|a, b| a.path.cmp(&b.path));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_cannot_be_trained_but_none_is_hidden() {
        let sample = Sample { path: "a/1.png".into(), label: 0 };
        let dataset = Dataset {
            root: "photos".into(),
            classes: vec!["a".to_owned()],
            splits: BTreeMap::from([(SplitName::Train, vec![sample])]),
            findings: Vec::new(),
        };
        let error = dataset.check_for_training().unwrap_err();
        assert_eq!(error.to_string(), "photos: holds one class only, `a`; training needs two or more");
        assert!(dataset.split(SplitName::Test).is_empty());
    }
}
