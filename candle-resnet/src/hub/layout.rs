//! Where things lie in the cache, and how they get there without a half-written one being seen.
//!
//! Makes no request and verifies nothing. The layout is that of Python's `huggingface_hub`:
//!
//! ```text
//! models--owner--name/blobs/<entity tag>              content, under the Hub's name for it
//! models--owner--name/refs/<revision>                 the commit that a branch or tag stood for
//! models--owner--name/snapshots/<commit>/<path>       relative link to the blob
//! .locks/models--owner--name/<entity tag>.lock        held while the blob is written
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Fetched;
use super::checksum::EntityTag;
use super::error::{HubError, io};
use super::name::{is_commit, is_hexadecimal, is_safe_component};

const PREFIX: &str = "models--";

/// One model repository's folder in the cache. Names must have been checked.
pub(super) struct RepositoryFolder {
    cache: PathBuf,
    name: String,
}

impl RepositoryFolder {
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        Self { cache: cache.into(), name: format!("{PREFIX}{}", repository.replace('/', "--")) }
    }

    /// The repository whose folder is called `folder`, if it is a model's.
    pub(super) fn repository(folder: &str) -> Option<String> {
        folder.strip_prefix(PREFIX).map(|rest| rest.replace("--", "/"))
    }

    pub(super) fn root(&self) -> PathBuf {
        self.cache.join(&self.name)
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root().join("blobs")
    }

    pub(super) fn references(&self) -> PathBuf {
        self.root().join("refs")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.root().join("snapshots")
    }

    pub(super) fn blob(&self, tag: &EntityTag) -> PathBuf {
        self.blobs().join(tag.as_str())
    }

    /// What has come so far of a blob.
    pub(super) fn partial(&self, tag: &EntityTag) -> PathBuf {
        self.blobs().join(format!("{}.incomplete", tag.as_str()))
    }

    pub(super) fn lock_file(&self, tag: &EntityTag) -> PathBuf {
        self.lock_file_of(tag.as_str())
    }

    pub(super) fn lock_file_of(&self, tag: &str) -> PathBuf {
        self.cache.join(".locks").join(&self.name).join(format!("{tag}.lock"))
    }

    pub(super) fn snapshot(&self, commit: &str, path: &str) -> PathBuf {
        let commit = self.snapshots().join(commit);
        path.split('/').fold(commit, |folder, part| folder.join(part))
    }

    /// The commit that a revision stands for, as far as the cache knows.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.into());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        Some(commit.trim()).filter(|commit| is_safe_component(commit)).map(String::from)
    }

    /// The file of a commit, if it is there. A link whose blob is gone does not count.
    pub(super) fn find(&self, commit: &str, path: &str) -> Option<Fetched> {
        let path = self.snapshot(commit, path);
        let linked = || Some(fs::read_link(&path).ok()?.file_name()?.to_str()?.to_string());
        let sha256 = linked().filter(|name| is_hexadecimal(name, 64));
        path.is_file().then_some(Fetched { path, commit: commit.into(), sha256 })
    }

    /// Whether the blob is there, and whole as far as its length tells.
    pub(super) fn holds_blob(&self, tag: &EntityTag, size: Option<u64>) -> bool {
        fs::metadata(self.blob(tag)).is_ok_and(|found| found.is_file() && size.is_none_or(|size| found.len() == size))
    }

    /// Notes which commit a branch or tag stands for. A commit stands for itself and is not noted.
    pub(super) fn write_reference(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        self.replace(&self.reference(revision), |temporary| fs::write(temporary, commit))
    }

    /// Makes the blob appear in a commit's snapshot.
    pub(super) fn link_snapshot(&self, commit: &str, path: &str, tag: &EntityTag) -> Result<(), HubError> {
        let depth = path.split('/').count() + 1;
        let target: PathBuf = std::iter::repeat_n("..", depth).chain(["blobs", tag.as_str()]).collect();
        let blob = self.blob(tag);
        self.replace(&self.snapshot(commit, path), |temporary| {
            // Windows grants links to administrators and developers only; a second name for the blob serves as well,
            // and a copy where there is no such thing either.
            symbolic_link(&target, temporary)
                .or_else(|_| fs::hard_link(&blob, temporary))
                .or_else(|_| fs::copy(&blob, temporary).map(|_| ()))
        })
    }

    fn reference(&self, revision: &str) -> PathBuf {
        revision.split('/').fold(self.references(), |folder, part| folder.join(part))
    }

    /// Writes beside the other folders, where nobody looks, and moves the result into place in one step.
    fn replace(&self, place: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root().join(format!(".{}.{unique}.tmp", std::process::id()));
        create_parent(place)?;
        let written = write(&temporary).and_then(|()| fs::rename(&temporary, place));
        written.inspect_err(|_| drop(fs::remove_file(&temporary))).map_err(io("writing", place))
    }
}

/// Creates the folder that a file is going to lie in.
pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(io("creating the folder", folder)),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn symbolic_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symbolic_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symbolic_link(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn folder_with_blob(cache: &Path) -> (RepositoryFolder, EntityTag) {
        let folder = RepositoryFolder::new(cache, "owner/name");
        let tag = EntityTag::parse(&"a".repeat(64)).unwrap();
        fs::create_dir_all(folder.blobs()).unwrap();
        fs::write(folder.blob(&tag), "content").unwrap();
        (folder, tag)
    }

    #[test]
    fn folders_are_named_as_huggingface_hub_names_them() {
        assert_eq!(RepositoryFolder::new(Path::new("c"), "o/n").root(), Path::new("c/models--o--n"));
        assert_eq!(RepositoryFolder::new(Path::new("c"), "n").root(), Path::new("c/models--n"));
        assert_eq!(RepositoryFolder::repository("models--o--n").as_deref(), Some("o/n"));
        assert_eq!(RepositoryFolder::repository("datasets--o--n"), None);
    }

    #[test]
    fn a_linked_file_is_found_by_commit_and_by_branch() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, tag) = folder_with_blob(cache.path());
        folder.write_reference("feature/x", COMMIT).unwrap();
        folder.link_snapshot(COMMIT, "deep/er/file.bin", &tag).unwrap();
        let commit = folder.commit("feature/x").unwrap();
        let found = folder.find(&commit, "deep/er/file.bin").unwrap();
        assert_eq!(fs::read_to_string(&found.path).unwrap(), "content");
        assert_eq!(found.sha256.as_deref(), Some(tag.as_str()));
        assert_eq!(found.commit, COMMIT);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative_so_that_the_cache_can_move() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, tag) = folder_with_blob(cache.path());
        folder.link_snapshot(COMMIT, "file.bin", &tag).unwrap();
        let target = fs::read_link(folder.snapshot(COMMIT, "file.bin")).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(tag.as_str()));
    }

    #[test]
    fn a_link_without_its_blob_is_not_found_and_can_be_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, tag) = folder_with_blob(cache.path());
        folder.link_snapshot(COMMIT, "file.bin", &tag).unwrap();
        fs::remove_file(folder.blob(&tag)).unwrap();
        assert_eq!(folder.find(COMMIT, "file.bin"), None);
        fs::write(folder.blob(&tag), "again").unwrap();
        folder.link_snapshot(COMMIT, "file.bin", &tag).unwrap();
        assert!(folder.find(COMMIT, "file.bin").is_some());
    }

    #[test]
    fn a_reference_that_leads_elsewhere_is_ignored() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, _) = folder_with_blob(cache.path());
        fs::create_dir_all(folder.references()).unwrap();
        fs::write(folder.references().join("main"), "../../../etc").unwrap();
        assert_eq!(folder.commit("main"), None);
    }

    #[test]
    fn a_moved_branch_is_noted_and_nothing_temporary_stays() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, _) = folder_with_blob(cache.path());
        for commit in [COMMIT, &COMMIT.replace('0', "f")] {
            folder.write_reference("main", commit).unwrap();
            assert_eq!(folder.commit("main").as_deref(), Some(commit));
        }
        let names: Vec<_> = fs::read_dir(folder.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
