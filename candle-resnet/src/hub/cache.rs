//! What lies in the cache, and how to get rid of it.
//!
//! Makes no request. Deletes nothing but what lies below the cache: links are removed, never followed. Data sets and
//! other things that `huggingface_hub` keeps in the same folder are neither shown nor touched.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{HubError, io};
use super::layout::RepositoryFolder;
use super::lock::Lock;
use super::name;

/// A model repository of which something is in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedRepository {
    /// `owner/name`, or a bare `name`.
    pub repository: String,
    /// Its folder in the cache.
    pub folder: PathBuf,
    /// The commits of which files are there, by hash.
    pub revisions: Vec<CachedRevision>,
    /// Bytes on disk. Less than the sum over revisions where these share files; leftovers count.
    pub size: u64,
    /// When one of its files was last read or written, as far as the file system notes it.
    pub last_used: Option<SystemTime>,
    /// What interrupted downloads left behind.
    pub leftovers: Vec<Leftover>,
}

/// One commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedRevision {
    /// Its hash.
    pub commit: String,
    /// Branches and tags that stand for it, sorted.
    pub references: Vec<String>,
    /// Its files that are there, sorted by path.
    pub files: Vec<CachedFile>,
    /// Bytes in all its files.
    pub size: u64,
    /// When one of its files was last read or written.
    pub last_used: Option<SystemTime>,
}

/// One file of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFile {
    /// Path inside the repository, with `/` between its components.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    last_used: Option<SystemTime>,
}

/// The part that came of an interrupted download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where it lies.
    pub path: PathBuf,
    /// Length in bytes.
    pub size: u64,
}

/// All model repositories in `cache`, by name. A cache that does not exist is empty.
///
/// # Errors
/// [`HubError::Io`] with the folder that cannot be read.
pub fn list(cache: &Path) -> Result<Vec<CachedRepository>, HubError> {
    let mut repositories = Vec::new();
    for (folder, repository) in model_folders(cache)? {
        repositories.push(describe(&folder, repository)?);
    }
    Ok(repositories)
}

/// Removes a repository from the cache. Gives the number of bytes freed.
///
/// # Errors
/// [`HubError::NothingToRemove`] if it is not there, [`HubError::InvalidName`], [`HubError::Io`].
pub fn remove_repository(cache: &Path, repository: &str) -> Result<u64, HubError> {
    let root = existing(cache, repository, None)?.root();
    let size = size_on_disk(&root)?;
    fs::remove_dir_all(&root).map_err(io("removing", root))?;
    Ok(size)
}

/// Removes one revision, named by commit, branch or tag, and every file that no other revision shares; with the last
/// revision the repository. Gives the number of bytes freed.
///
/// # Errors
/// As [`remove_repository`].
pub fn remove_revision(cache: &Path, repository: &str, revision: &str) -> Result<u64, HubError> {
    let folder = existing(cache, repository, Some(revision))?;
    let nothing = || nothing_to_remove(cache, repository, Some(revision));
    let commit = folder.commit(revision).ok_or_else(nothing)?;
    let snapshot = folder.snapshots().join(&commit);
    if !is_real_folder(&snapshot) {
        return Err(nothing());
    }
    let before = size_on_disk(&folder.root())?;
    let candidates = linked_blobs(&snapshot)?;
    fs::remove_dir_all(&snapshot).map_err(io("removing", &snapshot))?;
    remove_references(&folder, &commit)?;
    let shared = linked_blobs(&folder.snapshots())?;
    for blob in candidates.difference(&shared) {
        remove_file(&folder.blobs().join(blob))?;
    }
    let freed = before.saturating_sub(size_on_disk(&folder.root())?);
    match entries(&folder.snapshots())?.is_empty() {
        true => Ok(freed + remove_repository(cache, repository)?),
        false => Ok(freed),
    }
}

/// Removes what interrupted downloads left behind, except of downloads that are still going on. Gives the number of
/// bytes freed.
///
/// # Errors
/// [`HubError::Io`] with the file or folder.
pub fn prune(cache: &Path) -> Result<u64, HubError> {
    let mut freed = 0;
    for (folder, _) in model_folders(cache)? {
        for leftover in leftovers(&folder)? {
            if let Some(_lock) = idle(&folder, &leftover) {
                remove_file(&leftover.path)?;
                freed += leftover.size;
            }
        }
    }
    Ok(freed)
}

fn model_folders(cache: &Path) -> Result<Vec<(RepositoryFolder, String)>, HubError> {
    let mut folders = Vec::new();
    for entry in entries(cache)? {
        let repository = entry.file_name().to_str().and_then(RepositoryFolder::repository);
        let Some(repository) = repository.filter(|_| is_real_folder(&entry.path())) else {
            continue;
        };
        if name::check_repository(&repository).is_ok() {
            folders.push((RepositoryFolder::new(cache, &repository), repository));
        }
    }
    Ok(folders)
}

fn existing(cache: &Path, repository: &str, revision: Option<&str>) -> Result<RepositoryFolder, HubError> {
    name::check_repository(repository)?;
    revision.map_or(Ok(()), name::check_revision)?;
    let folder = RepositoryFolder::new(cache, repository);
    match is_real_folder(&folder.root()) {
        true => Ok(folder),
        false => Err(nothing_to_remove(cache, repository, revision)),
    }
}

fn nothing_to_remove(cache: &Path, repository: &str, revision: Option<&str>) -> HubError {
    let name = revision.map_or_else(|| repository.into(), |revision| format!("{repository}@{revision}"));
    HubError::NothingToRemove { name, cache: cache.into() }
}

fn describe(folder: &RepositoryFolder, repository: String) -> Result<CachedRepository, HubError> {
    let references = references(folder)?;
    let mut revisions = Vec::new();
    for entry in entries(&folder.snapshots())? {
        if is_real_folder(&entry.path()) {
            revisions.push(describe_revision(&entry, &references)?);
        }
    }
    Ok(CachedRepository {
        repository,
        folder: folder.root(),
        size: size_on_disk(&folder.root())?,
        last_used: revisions.iter().filter_map(|revision| revision.last_used).max(),
        revisions,
        leftovers: leftovers(folder)?,
    })
}

fn describe_revision(snapshot: &DirEntry, references: &[(String, String)]) -> Result<CachedRevision, HubError> {
    let commit = snapshot.file_name().to_string_lossy().into_owned();
    let root = snapshot.path();
    let files: Vec<CachedFile> = tree(&root)?.iter().filter_map(|path| describe_file(&root, path)).collect();
    Ok(CachedRevision {
        references: references.iter().filter(|(_, target)| *target == commit).map(|(name, _)| name.clone()).collect(),
        size: files.iter().map(|file| file.size).sum(),
        last_used: files.iter().filter_map(|file| file.last_used).max(),
        commit,
        files,
    })
}

/// `None` for a link whose blob is gone.
fn describe_file(root: &Path, path: &Path) -> Option<CachedFile> {
    let blob = fs::metadata(path).ok().filter(|blob| blob.is_file())?;
    let last_used = blob.accessed().ok().max(blob.modified().ok());
    Some(CachedFile { path: relative(root, path), size: blob.len(), last_used })
}

/// Branches and tags with their commits, sorted by name.
fn references(folder: &RepositoryFolder) -> Result<Vec<(String, String)>, HubError> {
    let root = folder.references();
    let named = |path: &PathBuf| Some((relative(&root, path), fs::read_to_string(path).ok()?.trim().to_string()));
    Ok(tree(&root)?.iter().filter_map(named).collect())
}

fn remove_references(folder: &RepositoryFolder, commit: &str) -> Result<(), HubError> {
    for (name, target) in references(folder)? {
        if target == commit {
            remove_file(&folder.references().join(name))?;
        }
    }
    Ok(())
}

fn leftovers(folder: &RepositoryFolder) -> Result<Vec<Leftover>, HubError> {
    let mut leftovers = Vec::new();
    for path in tree(&folder.blobs())? {
        if path.extension().is_some_and(|extension| extension == "incomplete") {
            let size = fs::symlink_metadata(&path).map_or(0, |leftover| leftover.len());
            leftovers.push(Leftover { path, size });
        }
    }
    Ok(leftovers)
}

/// The lock of a leftover's blob, if no download holds it. Python's leftovers are called `<tag>.<random>.incomplete`.
fn idle(folder: &RepositoryFolder, leftover: &Leftover) -> Option<Option<Lock>> {
    let name = leftover.path.file_name()?.to_str()?;
    let lock_file = folder.lock_file_of(name.split('.').next()?);
    match lock_file.exists() {
        true => Lock::try_acquire(&lock_file).map(Some),
        false => Some(None),
    }
}

/// The names of the blobs that links below `root` lead to.
fn linked_blobs(root: &Path) -> Result<BTreeSet<OsString>, HubError> {
    let target = |path: PathBuf| Some(fs::read_link(path).ok()?.file_name()?.to_os_string());
    Ok(tree(root)?.into_iter().filter_map(target).collect())
}

/// Bytes in all files below `root`. A link counts nothing.
fn size_on_disk(root: &Path) -> Result<u64, HubError> {
    let length =
        |path: &PathBuf| fs::symlink_metadata(path).map_or(0, |file| if file.is_file() { file.len() } else { 0 });
    Ok(tree(root)?.iter().map(length).sum())
}

/// All files and links below `root`, sorted. Does not enter a folder through a link.
fn tree(root: &Path) -> Result<Vec<PathBuf>, HubError> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            let place = if is_real_folder(&entry.path()) { &mut folders } else { &mut files };
            place.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// A folder's entries, sorted by name. One that does not exist has none.
fn entries(folder: &Path) -> Result<Vec<DirEntry>, HubError> {
    let read = || fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>();
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io("reading the folder", folder)(error)),
        Ok(mut entries) => {
            entries.sort_by_key(DirEntry::file_name);
            Ok(entries)
        }
    }
}

fn is_real_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn remove_file(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("removing", path)(error)),
        _ => Ok(()),
    }
}

fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::checksum::EntityTag;
    use super::*;

    const OLD: &str = "0000000000000000000000000000000000000000";
    const NEW: &str = "1111111111111111111111111111111111111111";

    fn add(cache: &Path, repository: &str, commit: &str, path: &str, tag: &str, content: &str) {
        let folder = RepositoryFolder::new(cache, repository);
        let tag = EntityTag::parse(tag).unwrap();
        fs::create_dir_all(folder.blobs()).unwrap();
        fs::write(folder.blob(&tag), content).unwrap();
        folder.link_snapshot(commit, path, &tag).unwrap();
    }

    /// Two commits that share `shared.bin`.
    fn cache() -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        add(cache.path(), "o/n", OLD, "shared.bin", "aa", "12345");
        add(cache.path(), "o/n", NEW, "shared.bin", "aa", "12345");
        add(cache.path(), "o/n", OLD, "onnx/config.json", "bb", "old");
        add(cache.path(), "o/n", NEW, "onnx/config.json", "cc", "newer");
        let folder = RepositoryFolder::new(cache.path(), "o/n");
        folder.write_reference("main", NEW).unwrap();
        folder.write_reference("release/1", OLD).unwrap();
        cache
    }

    #[test]
    fn a_cache_that_does_not_exist_is_empty() {
        assert_eq!(list(Path::new("no/such/cache")).unwrap(), []);
        assert_eq!(prune(Path::new("no/such/cache")).unwrap(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn list_names_revisions_references_files_and_sizes() {
        let cache = cache();
        let found = list(cache.path()).unwrap();
        let [repository] = &found[..] else { panic!("{found:?}") };
        assert_eq!(repository.repository, "o/n");
        // 5 + 3 + 5 of content and 40 + 40 of references.
        assert_eq!(repository.size, 93);
        assert!(repository.last_used.is_some());
        let [old, new] = &repository.revisions[..] else { panic!("{repository:?}") };
        assert_eq!((old.commit.as_str(), &old.references[..], old.size), (OLD, &["release/1".to_string()][..], 8));
        assert_eq!((new.commit.as_str(), &new.references[..], new.size), (NEW, &["main".to_string()][..], 10));
        let paths: Vec<_> = old.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["onnx/config.json", "shared.bin"]);
    }

    #[test]
    fn data_sets_and_strange_folders_are_neither_listed_nor_pruned() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["datasets--o--n", "models--..--x", "other", ".locks"] {
            let blobs = cache.path().join(name).join("blobs");
            fs::create_dir_all(&blobs).unwrap();
            fs::write(blobs.join("aa.incomplete"), "12345").unwrap();
        }
        assert_eq!(list(cache.path()).unwrap(), []);
        assert_eq!(prune(cache.path()).unwrap(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn removing_a_revision_keeps_what_another_shares() {
        let cache = cache();
        let freed = remove_revision(cache.path(), "o/n", "release/1").unwrap();
        assert_eq!(freed, 3 + 40);
        let left = list(cache.path()).unwrap().remove(0).revisions;
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].commit.as_str(), left[0].size), (NEW, 10));
        assert!(!RepositoryFolder::new(cache.path(), "o/n").blobs().join("bb").exists());
    }

    #[test]
    fn with_its_last_revision_a_repository_is_gone() {
        let cache = cache();
        for revision in ["main", OLD] {
            remove_revision(cache.path(), "o/n", revision).unwrap();
        }
        assert_eq!(list(cache.path()).unwrap(), []);
    }

    #[test]
    fn removing_a_repository_removes_all_of_it_and_no_other() {
        let cache = cache();
        add(cache.path(), "o/other", OLD, "file", "dd", "1");
        assert!(remove_repository(cache.path(), "o/n").unwrap() >= 93);
        let left = list(cache.path()).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].repository, "o/other");
    }

    #[test]
    fn removing_what_is_not_there_says_so() {
        let cache = cache();
        for result in [
            remove_repository(cache.path(), "o/missing"),
            remove_revision(cache.path(), "o/n", "missing"),
            remove_revision(cache.path(), "o/n", "2222222222222222222222222222222222222222"),
        ] {
            assert!(matches!(result, Err(HubError::NothingToRemove { .. })), "{result:?}");
        }
        assert!(matches!(remove_repository(cache.path(), "../o"), Err(HubError::InvalidName { .. })));
        assert!(matches!(remove_revision(cache.path(), "o/n", "../main"), Err(HubError::InvalidName { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_cache_are_removed_but_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "1234567").unwrap();
        let cache = cache();
        let snapshot = RepositoryFolder::new(cache.path(), "o/n").snapshots().join(OLD);
        std::os::unix::fs::symlink(outside.path(), snapshot.join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("precious"), snapshot.join("file")).unwrap();
        std::os::unix::fs::symlink(outside.path(), cache.path().join("models--o--link")).unwrap();
        assert_eq!(list(cache.path()).unwrap().len(), 1);
        assert!(remove_repository(cache.path(), "o/link").is_err());
        remove_revision(cache.path(), "o/n", OLD).unwrap();
        remove_repository(cache.path(), "o/n").unwrap();
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn pruning_spares_a_download_that_is_going_on() {
        let cache = cache();
        let folder = RepositoryFolder::new(cache.path(), "o/n");
        for name in ["dd.incomplete", "ee.incomplete", "ff.1a2b3c4d.incomplete"] {
            fs::write(folder.blobs().join(name), "1234").unwrap();
        }
        let going_on = Lock::acquire(&folder.lock_file_of("dd"), &()).unwrap();
        assert_eq!(list(cache.path()).unwrap()[0].leftovers.len(), 3);
        assert_eq!(prune(cache.path()).unwrap(), 8);
        drop(going_on);
        assert_eq!(prune(cache.path()).unwrap(), 4);
        assert_eq!(list(cache.path()).unwrap()[0].leftovers, []);
    }
}
