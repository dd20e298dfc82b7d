//! The images in a class folder and all folders below it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    DatasetError, Examples, Finding,
    names::{self, Kind},
};

/// What an entry of a folder is, links followed.
pub(super) enum Entry {
    Folder(PathBuf),
    File(PathBuf),
    /// A broken link, a pipe, a device.
    Unusable(PathBuf),
}

/// The entries of a folder in the order of their names; hidden ones apart.
///
/// # Errors
/// If the folder cannot be read, or does not let us see what one of its entries is: that may be a photo as well as anything else.
pub(super) fn entries(folder: &Path) -> Result<(Vec<Entry>, Vec<PathBuf>), DatasetError> {
    let unreadable = |source| DatasetError::Unreadable { path: folder.to_owned(), source };
    let paths = fs::read_dir(folder).map_err(unreadable)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    paths.sort();
    let (hidden, visible): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| names::is_hidden(path));
    Ok((visible.into_iter().map(classify).collect::<Result<_, _>>()?, hidden))
}

fn classify(path: PathBuf) -> Result<Entry, DatasetError> {
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(Entry::Folder(path)),
        Ok(metadata) if metadata.is_file() => Ok(Entry::File(path)),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(DatasetError::Unreadable { path, source })
        }
        _ => Ok(Entry::Unusable(path)),
    }
}

/// What was passed over on the walks through class folders, and GIFs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Folders that could not be read, in whole or in part.
    pub unreadable: Vec<DatasetError>,
    hidden: Examples,
    others: Examples,
    unsupported: Examples,
    gifs: Examples,
    unusable: Examples,
    again: Examples,
    passed_over: Vec<PathBuf>,
}

impl Seen {
    /// How many files below `folder` were no usable images.
    pub fn count_below(&self, folder: &Path) -> usize {
        self.passed_over.iter().filter(|path| path.starts_with(folder)).count()
    }

    pub fn into_findings(self) -> impl Iterator<Item = Finding> {
        let findings = [
            Finding::Hidden(self.hidden),
            Finding::NotImages(self.others),
            Finding::Unsupported(self.unsupported),
            Finding::Gifs(self.gifs),
            Finding::Unusable(self.unusable),
            Finding::SeenBefore(self.again),
        ];
        findings.into_iter().filter(|finding| !is_empty(finding))
    }

    /// Keeps the path if it is an image.
    fn file(&mut self, path: PathBuf) -> Option<PathBuf> {
        let list = match names::kind(&path) {
            Kind::Image => return Some(path),
            Kind::Gif => {
                self.gifs.push(path.clone());
                return Some(path);
            }
            Kind::Unsupported => &mut self.unsupported,
            Kind::Other => &mut self.others,
        };
        list.push(path.clone());
        self.passed_over.push(path);
        None
    }
}

fn is_empty(finding: &Finding) -> bool {
    match finding {
        Finding::Hidden(files)
        | Finding::NotImages(files)
        | Finding::Unsupported(files)
        | Finding::Gifs(files)
        | Finding::Unusable(files)
        | Finding::SeenBefore(files) => files.count == 0,
        _ => false,
    }
}

/// All images below `class`. Links are followed; a folder that was read before, by whatever name, is not read again,
/// so that links in a circle come to an end. Nor is one that `class` lies in: other classes lie there, too.
pub(super) fn images(class: &Path, seen: &mut Seen) -> Vec<PathBuf> {
    let mut images = Vec::new();
    let mut visited: BTreeSet<PathBuf> = folders_around(class);
    let mut open = vec![class.to_owned()];
    while let Some(folder) = open.pop() {
        match is_new(&folder, &mut visited).and_then(|new| new.then(|| entries(&folder)).transpose()) {
            Ok(None) => seen.again.push(folder),
            Ok(Some((entries, hidden))) => {
                hidden.into_iter().for_each(|path| seen.hidden.push(path));
                for entry in entries {
                    match entry {
                        Entry::Folder(path) => open.push(path),
                        Entry::File(path) => images.extend(seen.file(path)),
                        Entry::Unusable(path) => seen.unusable.push(path),
                    }
                }
            }
            Err(error) => seen.unreadable.push(error),
        }
    }
    images
}

/// What a folder lies in.
fn folders_around(folder: &Path) -> BTreeSet<PathBuf> {
    let real = fs::canonicalize(folder).unwrap_or_default();
    real.ancestors().skip(1).map(Path::to_owned).collect()
}

/// Whether `path`, an entry of `folder`, is a link that leads back to it or to what it lies in.
pub(super) fn leads_back(path: &Path, folder: &Path) -> bool {
    let real = |path| fs::canonicalize(path).ok();
    path.is_symlink() && real(folder).zip(real(path)).is_some_and(|(folder, target)| folder.starts_with(target))
}

/// Whether a folder was not read before, by whatever name.
fn is_new(folder: &Path, visited: &mut BTreeSet<PathBuf>) -> Result<bool, DatasetError> {
    let real = fs::canonicalize(folder).map_err(|source| DatasetError::Unreadable { path: folder.into(), source })?;
    Ok(visited.insert(real))
}
