//! A file's metadata → its verified blob in the cache, however often the connection breaks.
//!
//! Bytes go to the `.incomplete` file, which is what a later run goes on from; it becomes the blob only when its size
//! and checksum are right. The caller holds the blob's lock and publishes the blob.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use reqwest::{Response, StatusCode};

use super::error::{HubError, io};
use super::http::{Client, header};
use super::layout::{RepositoryFolder, create_parent};
use super::metadata::Metadata;
use super::patience::{Again, Failure, Patience};
use super::{DownloadProgress, HubFile};

/// One blob to be downloaded.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) file: &'a HubFile,
    pub(super) metadata: &'a Metadata,
    pub(super) folder: &'a RepositoryFolder,
    pub(super) patience: &'a Patience,
    pub(super) progress: &'a dyn DownloadProgress,
}

impl Download<'_> {
    /// Downloads, verifies and renames. A wrong checksum is given a second chance, which heals a partial file that an
    /// earlier run left damaged.
    pub(super) async fn run(&self) -> Result<(), HubError> {
        create_parent(&self.partial())?;
        let mut display = Display { progress: self.progress, begun: false };
        match self.complete(&mut display).await {
            Err(error @ HubError::ChecksumMismatch { .. }) => {
                tracing::warn!("{error}; fetching it once more from the start");
                self.complete(&mut display).await
            }
            result => result,
        }
    }

    async fn complete(&self, display: &mut Display<'_>) -> Result<(), HubError> {
        let checked = self.transfer(display).await.and_then(|()| self.verify());
        if let Err(HubError::SizeMismatch { .. } | HubError::ChecksumMismatch { .. }) = checked {
            self.discard()?;
        }
        checked?;
        let blob = self.folder.blob(&self.metadata.tag);
        fs::rename(self.partial(), &blob).map_err(io("writing", blob))
    }

    /// Repeats attempts until all bytes are here, or several in a row brought none.
    async fn transfer(&self, display: &mut Display<'_>) -> Result<(), HubError> {
        let mut retries = self.patience.retries();
        let mut furthest = self.length();
        while let Err(failure) = self.attempt(display).await {
            if self.length() > furthest {
                furthest = self.length();
                retries.reset();
            }
            retries.pause(failure).await?;
        }
        Ok(())
    }

    /// One connection: from where the partial file ends to where the answer ends.
    async fn attempt(&self, display: &mut Display<'_>) -> Result<(), Failure> {
        let have = self.length();
        if have > 0 && self.metadata.size == Some(have) {
            return Ok(());
        }
        let (response, start) = self.request(have).await?;
        display.begin(&self.file.path, self.metadata.size.unwrap_or(0), start);
        self.receive(response, start, display).await
    }

    /// An answer, and the byte that it begins at: the one after those that we have, or the first.
    async fn request(&self, have: u64) -> Result<(Response, u64), Failure> {
        let url = &self.metadata.url;
        if have > 0 && self.metadata.size.is_none_or(|size| have < size) {
            let response = self.client.get(url, have).await?;
            if continues_at(&response, have) {
                return Ok((response, have));
            }
            tracing::debug!(file = %self.file, "the server does not resume; starting over");
            if response.status() == StatusCode::OK {
                return Ok((response, 0));
            }
        }
        let response = self.client.get(url, 0).await?;
        match response.status() {
            StatusCode::OK => Ok((response, 0)),
            status => Err(self.client.bad_response(format!("status {status} was not asked for")).into()),
        }
    }

    async fn receive(&self, mut response: Response, start: u64, display: &Display<'_>) -> Result<(), Failure> {
        let partial = self.partial();
        let mut file = open(&partial, start).map_err(io("opening", &partial))?;
        let mut length = start;
        let address = response.url().clone();
        while let Some(bytes) = response.chunk().await.map_err(|error| self.client.broken(&address, error))? {
            length += bytes.len() as u64;
            if self.metadata.size.is_some_and(|size| length > size) {
                return Err(self.size_mismatch(length).into());
            }
            file.write_all(&bytes).map_err(io("writing", &partial))?;
            display.progress.advance(bytes.len() as u64);
        }
        // A rename that survives a power cut must not outlive the bytes that it names.
        file.sync_all().map_err(io("writing", &partial))?;
        match self.metadata.size {
            Some(size) if length < size => Err(Failure { error: self.size_mismatch(length), again: Again::Soon }),
            _ => Ok(()),
        }
    }

    fn verify(&self) -> Result<(), HubError> {
        let partial = self.partial();
        match self.metadata.tag.mismatch(&partial).map_err(io("reading", partial))? {
            None => Ok(()),
            Some(found) => {
                let expected = self.metadata.tag.as_str().into();
                Err(HubError::ChecksumMismatch { file: Box::new(self.file.clone()), expected, found })
            }
        }
    }

    fn size_mismatch(&self, found: u64) -> HubError {
        HubError::SizeMismatch { file: Box::new(self.file.clone()), expected: self.metadata.size.unwrap_or(0), found }
    }

    fn partial(&self) -> PathBuf {
        self.folder.partial(&self.metadata.tag)
    }

    /// How many bytes are here.
    fn length(&self) -> u64 {
        fs::metadata(self.partial()).map_or(0, |partial| partial.len())
    }

    fn discard(&self) -> Result<(), HubError> {
        let partial = self.partial();
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("removing", partial)(error)),
            _ => Ok(()),
        }
    }
}

/// Sees to it that whoever was told of a beginning is told of the end.
struct Display<'a> {
    progress: &'a dyn DownloadProgress,
    begun: bool,
}

impl Display<'_> {
    fn begin(&mut self, path: &str, total: u64, already: u64) {
        self.begun = true;
        self.progress.begin(path, total, already);
    }
}

impl Drop for Display<'_> {
    fn drop(&mut self) {
        if self.begun {
            self.progress.end();
        }
    }
}

/// Opens the partial file for writing at `start`, which is its end or its beginning.
fn open(path: &PathBuf, start: u64) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(start == 0).append(start > 0).open(path)
}

/// Whether an answer goes on at byte `start`, as it was asked to.
fn continues_at(response: &Response, start: u64) -> bool {
    let range = header(response.headers(), "content-range");
    let first = range.and_then(|range| range.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && first == Some(start)
}
