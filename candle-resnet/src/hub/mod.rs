//! A repository on the Hugging Face Hub → a verified file in the shared cache.
//!
//! The cache is the one of Python's `huggingface_hub`: what either of the two has fetched, the other finds. A file
//! gets its final name only once its size and checksum are right; until then it is `blobs/<entity tag>.incomplete`,
//! from which an interrupted download goes on. What lies in the cache is used without any request.
//!
//! Knows neither weights nor architectures, and never reads what a fetched file holds.
//!
//! The protocol is that of `huggingface_hub`'s `file_download.py`. Downloads are plain HTTP of our own rather than the
//! `hf-hub` crate's: its `download_file` compares neither size nor checksum, takes an error page for the file when the
//! GET fails after a good HEAD, does not resume, and gives up on another process's lock after ten seconds; its
//! `get_file_metadata` follows the redirect to the storage host and so loses the commit; and its client cannot even be
//! built where no system certificates are installed, though the cache needs none. `hf-hub` does what it does well: it
//! [lists](Hub::files) a repository.

use std::fmt;
use std::path::{Path, PathBuf};

pub mod cache;
mod checksum;
mod download;
mod error;
mod http;
mod layout;
mod listing;
mod lock;
mod metadata;
mod name;
mod patience;
mod settings;

pub use checksum::sha256_of;
pub(crate) use checksum::sha256_of_bytes;
pub use error::{HubError, NameKind};
pub use patience::Patience;
pub use settings::HubSettings;

use download::Download;
use http::Client;
use layout::RepositoryFolder;
use lock::Lock;
use metadata::Metadata;

/// The branch that is meant when no revision is given.
const DEFAULT_REVISION: &str = "main";

/// One file of one model repository at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubFile {
    /// `owner/name`, or a bare `name`.
    pub repository: String,
    /// Branch, tag, `refs/pr/1` or full commit hash; `None` is the branch `main`.
    pub revision: Option<String>,
    /// Path inside the repository, with `/` between its components.
    pub path: String,
}

impl HubFile {
    /// A file at the tip of `main`.
    pub fn new(repository: impl Into<String>, path: impl Into<String>) -> Self {
        Self { repository: repository.into(), revision: None, path: path.into() }
    }

    /// The same file at `revision`.
    pub fn at(self, revision: impl Into<String>) -> Self {
        Self { revision: Some(revision.into()), ..self }
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` of `{}", self.path, self.repository)?;
        match &self.revision {
            Some(revision) => write!(formatter, "@{revision}`"),
            None => write!(formatter, "`"),
        }
    }
}

/// A file that lies in the cache under its final name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies, below `snapshots/`.
    pub path: PathBuf,
    /// The commit that the revision stood for. Ask for a repository's other files at this revision, and all of them
    /// come from one commit even if the branch moves meanwhile.
    pub commit: String,
    /// SHA-256 in hexadecimal, where the Hub names the file by it (large files) and the cache holds a link. It is the
    /// checksum that was verified on download, not computed anew.
    pub sha256: Option<String>,
}

/// Told what a download does, for a progress bar. All methods are called on another thread than the caller's.
pub trait DownloadProgress: Sync {
    /// `path` of `total` bytes is being transferred and the first `already` bytes are here. `total` is 0 where the
    /// server does not say. Called again when the transfer goes on after an interruption or starts over.
    fn begin(&self, path: &str, total: u64, already: u64);
    /// So many bytes more are on disk.
    fn advance(&self, bytes: u64);
    /// The transfer is over, well or badly. Called once if `begin` was called.
    fn end(&self);
    /// Another process or thread holds `lock` because it downloads the same file; called once, before waiting for it.
    fn waiting(&self, lock: &Path) {
        let _ = lock;
    }
}

/// No progress display.
impl DownloadProgress for () {
    fn begin(&self, _path: &str, _total: u64, _already: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}

/// Fetches files of model repositories into the shared cache.
///
/// ```no_run
/// use candle_resnet::hub::{Hub, HubError, HubFile, HubSettings};
///
/// let hub = Hub::new(HubSettings::from_env())?;
/// let weights = hub.fetch(&HubFile::new("timm/resnet18.tv_in1k", "model.safetensors"), &())?;
/// println!("{} at commit {}", weights.path.display(), weights.commit);
/// # Ok::<(), HubError>(())
/// ```
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    patience: Patience,
}

impl Hub {
    /// A Hub as `settings` describe it. Makes no request and creates no folder.
    ///
    /// # Errors
    /// [`HubError::InvalidEndpoint`] if the endpoint is not an `http` or `https` address.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        Self::with_patience(settings, Patience::default())
    }

    /// Like [`Hub::new`], with other time limits and retries.
    ///
    /// # Errors
    /// As [`Hub::new`].
    pub fn with_patience(settings: HubSettings, patience: Patience) -> Result<Self, HubError> {
        http::parse_endpoint(&settings.endpoint)?;
        Ok(Self { settings, patience })
    }

    /// The settings that this Hub was made with.
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// The file, if the cache holds it. Never touches the network.
    ///
    /// A branch or tag stands for the commit that it stood for when it was last fetched.
    pub fn cached(&self, file: &HubFile) -> Option<Fetched> {
        name::check(file).ok()?;
        let folder = self.folder(file);
        folder.find(&folder.commit(file.revision())?, &file.path)
    }

    /// The file, from the cache or else from the Hub.
    ///
    /// Blocks until the file is there, and while another process or thread downloads the same one. May be called
    /// from several threads, and from inside an asynchronous runtime (which it then blocks).
    ///
    /// # Errors
    /// Every error names the file; see [`HubError`]. Whatever the error, nothing lies in the cache that a later call
    /// would take for the file.
    pub fn fetch(&self, file: &HubFile, progress: &dyn DownloadProgress) -> Result<Fetched, HubError> {
        name::check(file)?;
        if let Some(found) = self.cached(file) {
            tracing::debug!(%file, path = %found.path.display(), "found in the cache");
            return Ok(found);
        }
        if self.settings.offline {
            return Err(HubError::NotCached { file: Box::new(file.clone()), cache: self.settings.cache.clone() });
        }
        http::block_on(file, || self.fetch_online(file, progress))
    }

    /// The paths of all files in a repository, sorted. Always asks the Hub, through `hf-hub`, whose client needs the
    /// system's certificates even for an `http` endpoint.
    ///
    /// # Errors
    /// [`HubError::NotCached`] if offline, otherwise as [`Hub::fetch`].
    pub fn files(&self, repository: &str, revision: Option<&str>) -> Result<Vec<String>, HubError> {
        let whole =
            HubFile { repository: repository.into(), revision: revision.map(Into::into), path: "all files".into() };
        name::check(&whole)?;
        if self.settings.offline {
            return Err(HubError::NotCached { file: Box::new(whole), cache: self.settings.cache.clone() });
        }
        listing::files(&self.settings, &self.patience, &whole)
    }

    async fn fetch_online(&self, file: &HubFile, progress: &dyn DownloadProgress) -> Result<Fetched, HubError> {
        let client = Client::new(&self.settings, &self.patience, file)?;
        let metadata = self.patience.persist(async || metadata::request(&client, file).await).await?;
        let folder = self.folder(file);
        if let Some(found) = folder.find(&metadata.commit, &file.path) {
            // All that is needed is there already: a cache that may only be read shall do.
            if let Err(error) = folder.write_reference(file.revision(), &metadata.commit) {
                tracing::debug!("the moved branch stays unnoted: {error}");
            }
            return Ok(found);
        }
        let _lock = Lock::acquire(&folder.lock_file(&metadata.tag), progress)?;
        if !folder.holds_blob(&metadata.tag, metadata.size) {
            let patience = &self.patience;
            Download { client: &client, file, metadata: &metadata, folder: &folder, patience, progress }.run().await?;
        }
        publish(&folder, file, &metadata)
    }

    fn folder(&self, file: &HubFile) -> RepositoryFolder {
        RepositoryFolder::new(&self.settings.cache, &file.repository)
    }
}

/// Makes a verified blob visible. The link comes last: who sees it sees everything.
fn publish(folder: &RepositoryFolder, file: &HubFile, metadata: &Metadata) -> Result<Fetched, HubError> {
    folder.write_reference(file.revision(), &metadata.commit)?;
    folder.link_snapshot(&metadata.commit, &file.path, &metadata.tag)?;
    Ok(Fetched {
        path: folder.snapshot(&metadata.commit, &file.path),
        commit: metadata.commit.clone(),
        sha256: metadata.tag.sha256().map(Into::into),
    })
}
