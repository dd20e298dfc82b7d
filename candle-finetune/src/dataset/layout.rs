//! Which folders are classes, and of which split.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    DatasetError, Examples, Finding, Parts, SplitName,
    names::{self, Kind},
    walk::{self, Entry},
};

/// A folder whose name is a class.
#[derive(Debug)]
pub(super) struct ClassFolder {
    pub name: String,
    pub path: PathBuf,
}

/// What a folder that should hold class folders holds.
struct Contents {
    folders: Vec<ClassFolder>,
    images: Examples,
    stray: Examples,
    hidden: Examples,
    /// Links to the folder itself, or to what it lies in.
    circles: Examples,
    /// Folders whose names are no classes.
    problems: Vec<DatasetError>,
}

/// The class folders of `dir`, by split. Without splits, all are of the training part. A folder whose name is no class is a problem, and left
/// out, or an error where there is no other.
pub(super) fn parts(
    dir: &Path,
    findings: &mut Vec<Finding>,
    problems: &mut Vec<DatasetError>,
) -> Result<Parts, DatasetError> {
    check_is_folder(dir)?;
    let mut top = contents(dir)?;
    if top.folders.is_empty() {
        return Err(no_class_folders(dir, top));
    }
    problems.append(&mut top.problems);
    let splits = top.folders.iter().map(|folder| names::split(&folder.name)).collect::<Option<Vec<_>>>();
    top.tell(findings);
    let Some(splits) = splits else {
        findings.extend(splits_among_classes(&top.folders));
        return Ok(BTreeMap::from([(SplitName::Train, top.folders)]));
    };
    let inner = top.folders.iter().map(|folder| contents(&folder.path)).collect::<Result<Vec<_>, _>>()?;
    let holds_images_alone =
        |inner: &Contents| inner.folders.is_empty() && inner.problems.is_empty() && inner.images.count > 0;
    if inner.iter().all(holds_images_alone) {
        let names = top.folders.iter().map(|folder| folder.name.clone()).collect();
        findings.push(Finding::SplitNamesAreClasses(names));
        return Ok(BTreeMap::from([(SplitName::Train, top.folders)]));
    }
    check_one_folder_each(&splits, &top.folders)?;
    let mut parts = BTreeMap::new();
    for ((split, folder), inner) in splits.into_iter().zip(top.folders).zip(inner) {
        if let Some(classes) = classes_of(split, &folder.path, inner, findings, problems)? {
            parts.insert(split, classes);
        }
    }
    Ok(parts)
}

/// Two splits' names or more beside other folders look like a split that something strayed into; one may be a class.
fn splits_among_classes(folders: &[ClassFolder]) -> Option<Finding> {
    let names = folders.iter().map(|folder| folder.name.clone());
    let (splits, others): (Vec<String>, Vec<String>) = names.partition(|name| names::split(name).is_some());
    (splits.len() >= 2).then_some(Finding::SplitsAmongClasses { splits, others })
}

/// Names of the folders inside `folder`; none where it cannot be read.
pub(super) fn folders_inside(folder: &Path) -> Vec<String> {
    contents(folder).map(|inner| inner.folders.into_iter().map(|folder| folder.name).collect()).unwrap_or_default()
}

fn check_is_folder(dir: &Path) -> Result<(), DatasetError> {
    let path = dir.to_owned();
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(DatasetError::NotAFolder { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DatasetError::Missing { path }),
        Err(source) => Err(DatasetError::Unreadable { path, source }),
    }
}

fn contents(folder: &Path) -> Result<Contents, DatasetError> {
    let (entries, hidden_paths) = walk::entries(folder)?;
    let [mut images, mut stray, mut hidden, mut circles] = [const { Examples { count: 0, paths: Vec::new() } }; 4];
    hidden_paths.into_iter().for_each(|path| hidden.push(path));
    let (mut folders, mut problems) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Entry::Folder(path) if walk::leads_back(&path, folder) => circles.push(path),
            Entry::Folder(path) => match class_folder(path) {
                Ok(folder) => folders.push(folder),
                Err(problem) => problems.push(problem),
            },
            Entry::File(path) => {
                if matches!(names::kind(&path), Kind::Image | Kind::Gif) {
                    images.push(path.clone());
                }
                stray.push(path);
            }
            Entry::Unusable(path) => stray.push(path),
        }
    }
    Ok(Contents { folders, images, stray, hidden, circles, problems })
}

fn class_folder(path: PathBuf) -> Result<ClassFolder, DatasetError> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) if name.contains(char::is_control) => Err(DatasetError::ControlCharacters { path }),
        Some(name) => Ok(ClassFolder { name: name.to_owned(), path }),
        None => Err(DatasetError::NotUtf8 { path }),
    }
}

impl Contents {
    fn tell(&self, findings: &mut Vec<Finding>) {
        if self.hidden.count > 0 {
            findings.push(Finding::Hidden(self.hidden.clone()));
        }
        if self.stray.count > 0 {
            findings.push(Finding::StrayFiles(self.stray.clone()));
        }
        if self.circles.count > 0 {
            findings.push(Finding::SeenBefore(self.circles.clone()));
        }
    }
}

fn no_class_folders(dir: &Path, found: Contents) -> DatasetError {
    let path = dir.to_owned();
    match (found.problems.into_iter().next(), found.images.count) {
        (Some(problem), _) => problem,
        (None, 0) => DatasetError::NoImages { path },
        (None, count) => DatasetError::NoClassFolders { path, count },
    }
}

fn check_one_folder_each(splits: &[SplitName], folders: &[ClassFolder]) -> Result<(), DatasetError> {
    let mut first = BTreeMap::new();
    for (&split, folder) in splits.iter().zip(folders) {
        if let Some(first) = first.insert(split, &folder.path) {
            let (first, second) = (first.clone(), folder.path.clone());
            return Err(DatasetError::TwoFoldersForOneSplit { first, second, split });
        }
    }
    Ok(())
}

/// The class folders of one split. A test part without them, as competitions hand out, is left out: nothing needs it.
fn classes_of(
    split: SplitName,
    path: &Path,
    mut inner: Contents,
    findings: &mut Vec<Finding>,
    problems: &mut Vec<DatasetError>,
) -> Result<Option<Vec<ClassFolder>>, DatasetError> {
    if !inner.folders.is_empty() {
        inner.tell(findings);
        problems.append(&mut inner.problems);
        return Ok(Some(inner.folders));
    }
    if !inner.problems.is_empty() {
        return Err(inner.problems.remove(0));
    }
    match (split, inner.images.count) {
        (_, 0) => Err(DatasetError::EmptySplit { path: path.to_owned() }),
        (SplitName::Test, _) => {
            findings.push(Finding::Unlabelled { split, images: inner.images });
            Ok(None)
        }
        (_, count) => Err(DatasetError::NoClassFolders { path: path.to_owned(), count }),
    }
}
