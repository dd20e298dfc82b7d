//! What can go wrong while fetching, in words for the user.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::HubFile;

/// Which of a file's names an [`HubError::InvalidName`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// `owner/name`.
    Repository,
    /// Branch, tag or commit.
    Revision,
    /// Path inside the repository.
    Path,
}

impl fmt::Display for NameKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Repository => "repository name",
            Self::Revision => "revision",
            Self::Path => "path in a repository",
        })
    }
}

/// Why a file could not be fetched, or the cache not be read or cleaned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that is malformed or would lead out of the cache.
    #[error("`{name}` is not a {kind}: {fault}")]
    InvalidName {
        /// Which name.
        kind: NameKind,
        /// The name as given.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The Hub's address cannot be used.
    #[error("`{endpoint}` is not the address of a Hub: {reason}")]
    InvalidEndpoint {
        /// The address as given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The Hub has no such repository, or hides it from this token.
    #[error("no repository `{}` on the Hub (asked for `{}`)", .file.repository, .file.path)]
    RepositoryNotFound {
        /// What was asked for.
        file: Box<HubFile>,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("no revision `{}` in repository `{}` (asked for `{}`)", .file.revision(), .file.repository, .file.path)]
    RevisionNotFound {
        /// What was asked for.
        file: Box<HubFile>,
    },
    /// The revision has no such file.
    #[error("no file {file} on the Hub")]
    FileNotFound {
        /// What was asked for.
        file: Box<HubFile>,
    },
    /// The Hub wants a token, or refuses the one it got (401).
    #[error("the Hub refuses {file}: {}", if *.with_token { "it does not accept the access token" } else { "it wants an access token" })]
    Unauthorised {
        /// What was asked for.
        file: Box<HubFile>,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository's terms have to be accepted first (`GatedRepo`).
    #[error("the Hub refuses {file}: access to the repository is granted on its page only")]
    Gated {
        /// What was asked for.
        file: Box<HubFile>,
        /// The repository's page.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The token does not give access (403).
    #[error("the Hub refuses {file}: access is forbidden")]
    Forbidden {
        /// What was asked for.
        file: Box<HubFile>,
    },
    /// Too many requests (429), also after waiting.
    #[error("the Hub refuses {file}: too many requests")]
    RateLimited {
        /// What was asked for.
        file: Box<HubFile>,
        /// How long the Hub wants to be left alone, if it says.
        retry_after: Option<Duration>,
    },
    /// The server failed (5xx), also when asked again.
    #[error("fetching {file}: the server failed with status {status}")]
    Server {
        /// What was asked for.
        file: Box<HubFile>,
        /// The HTTP status.
        status: u16,
    },
    /// A status that has no place in the protocol.
    #[error("fetching {file}: {host} answered with status {status}")]
    UnexpectedStatus {
        /// What was asked for.
        file: Box<HubFile>,
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that a Hub would not give.
    #[error("fetching {file}: {reason}")]
    BadResponse {
        /// What was asked for.
        file: Box<HubFile>,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The file is not in the cache and requests are forbidden.
    #[error("{file} is not in the cache `{}`, and requests to the Hub are switched off", .cache.display())]
    NotCached {
        /// What was asked for.
        file: Box<HubFile>,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// No connection, a time limit, or a connection that broke too often.
    #[error("fetching {file}: no connection to {host}: {reason}")]
    Network {
        /// What was asked for.
        file: Box<HubFile>,
        /// Host and port.
        host: String,
        /// What the network says.
        reason: String,
    },
    /// What came is not as long as the Hub said. Nothing of it is kept.
    #[error("fetching {file}: expected {expected} bytes, found {found}")]
    SizeMismatch {
        /// What was asked for.
        file: Box<HubFile>,
        /// Length in bytes that the Hub announced.
        expected: u64,
        /// Length in bytes of what came.
        found: u64,
    },
    /// What came, twice, is not what the Hub has. Nothing of it is kept.
    #[error("fetching {file}: expected checksum {expected}, found {found}")]
    ChecksumMismatch {
        /// What was asked for.
        file: Box<HubFile>,
        /// The Hub's entity tag.
        expected: String,
        /// The same digest of what came.
        found: String,
    },
    /// The cache holds no such repository or revision.
    #[error("`{name}` is not in the cache `{}`", .cache.display())]
    NothingToRemove {
        /// Repository, or `repository@revision`.
        name: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error("{action} `{}`: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl HubError {
    /// The way out, in one line, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::RepositoryNotFound { with_token, .. } | Self::Unauthorised { with_token, .. } => private(*with_token),
            Self::Gated { page, with_token, .. } => match with_token {
                true => format!("accept the licence at {page}"),
                false => format!("accept the licence at {page}, then set HF_TOKEN to an access token"),
            },
            Self::Forbidden { .. } => "set HF_TOKEN to a token that may read this repository".into(),
            Self::RevisionNotFound { .. } => "leave the revision out for the branch `main`".into(),
            Self::RateLimited { retry_after: Some(delay), .. } => format!("try again in {} s", delay.as_secs()),
            Self::RateLimited { .. } => "try again in some minutes; with HF_TOKEN set, the limit is higher".into(),
            Self::Server { .. } => "try again later, or set HF_ENDPOINT to a mirror".into(),
            Self::NotCached { .. } => {
                "unset HF_HUB_OFFLINE, or fetch it on a connected machine and copy the cache".into()
            }
            Self::Network { .. } => {
                "check the connection; HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 uses the cache only".into()
            }
            Self::InvalidEndpoint { .. } | Self::BadResponse { .. } | Self::UnexpectedStatus { .. } => {
                "check HF_ENDPOINT; unset it for https://huggingface.co".into()
            }
            Self::SizeMismatch { .. } | Self::ChecksumMismatch { .. } => {
                "a proxy or mirror may change what it passes on; try another HF_ENDPOINT".into()
            }
            Self::Io { source, .. } => return storage_hint(source.kind()),
            Self::InvalidName { .. } | Self::FileNotFound { .. } | Self::NothingToRemove { .. } => return None,
        })
    }
}

fn private(with_token: bool) -> String {
    match with_token {
        true => "check the name, and that HF_TOKEN is valid and may read this repository".into(),
        false => "check the name; for a private repository set HF_TOKEN to an access token".into(),
    }
}

fn storage_hint(kind: std::io::ErrorKind) -> Option<String> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match kind {
        StorageFull | QuotaExceeded => Some("free some space, or set HF_HOME to a folder on a larger disk".into()),
        PermissionDenied | ReadOnlyFilesystem => Some("set HF_HOME to a folder that you may write to".into()),
        _ => None,
    }
}

/// Gives an input or output error its file: `read(path).map_err(io("reading", path))`.
pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.into();
    move |source| HubError::Io { action, path, source }
}
