//! A file on the Hub → its commit, entity tag and size, by one HEAD request.
//!
//! The Hub gives them in the headers of its own answer, which for large files is a redirect to a storage host that
//! knows none of them. Redirects within the Hub (a renamed repository, a resolve cache) are followed.

use reqwest::header::{CONTENT_LENGTH, ETAG};
use reqwest::{Response, Url};

use super::HubFile;
use super::checksum::EntityTag;
use super::error::HubError;
use super::http::{Client, header, redirect_target};
use super::name::{is_commit, is_safe_component};
use super::patience::Failure;

const MOST_REDIRECTS: usize = 10;

/// What the Hub says about a file.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    /// The commit that the revision stands for.
    pub(super) commit: String,
    pub(super) tag: EntityTag,
    /// Length in bytes.
    pub(super) size: Option<u64>,
    /// Where the Hub serves the file, after redirects within the Hub.
    pub(super) url: Url,
}

/// Asks the Hub about the client's file.
pub(super) async fn request(client: &Client<'_>, file: &HubFile) -> Result<Metadata, Failure> {
    let mut url = client.resolve_url()?;
    let mut headers = Headers::default();
    for _ in 0..MOST_REDIRECTS {
        let response = client.head(&url).await?;
        headers.collect(&response);
        match redirect_target(&response) {
            Some(target) if client.is_endpoint(&target) && !headers.are_complete() => url = target,
            redirect => {
                headers.collect_plain(&response, redirect.is_some());
                return Ok(headers.into_metadata(client, file, url)?);
            }
        }
    }
    Err(client.bad_response(format!("more than {MOST_REDIRECTS} redirects")).into())
}

/// Headers as they come in, perhaps over several answers.
#[derive(Default)]
struct Headers {
    commit: Option<String>,
    tag: Option<String>,
    size: Option<u64>,
}

impl Headers {
    /// Headers that speak about the file whatever answer they are part of.
    fn collect(&mut self, response: &Response) {
        let text = |name| header(response.headers(), name).map(String::from);
        self.commit = text("x-repo-commit").or(self.commit.take());
        self.tag = text("x-linked-etag").or(self.tag.take());
        self.size = text("x-linked-size").and_then(|size| size.parse().ok()).or(self.size);
    }

    /// Headers of the last answer. Its length is the file's unless it is a redirect, which has a body of its own.
    fn collect_plain(&mut self, response: &Response, is_redirect: bool) {
        let text = |name: &str| header(response.headers(), name).map(String::from);
        self.tag = self.tag.take().or_else(|| text(ETAG.as_str()));
        if !is_redirect {
            self.size = self.size.or_else(|| text(CONTENT_LENGTH.as_str())?.parse().ok());
        }
    }

    fn are_complete(&self) -> bool {
        self.commit.is_some() && self.tag.is_some()
    }

    fn into_metadata(self, client: &Client<'_>, file: &HubFile, url: Url) -> Result<Metadata, HubError> {
        let missing = |name: &str| client.bad_response(format!("the answer has no usable {name} header"));
        let tag = self.tag.and_then(|tag| EntityTag::parse(&tag)).ok_or_else(|| missing("ETag"))?;
        // A full commit hash stands for itself, so that a mirror need not repeat it.
        let asked = Some(file.revision()).filter(|revision| is_commit(revision)).map(String::from);
        let commit = self.commit.or(asked).filter(|commit| is_safe_component(commit));
        Ok(Metadata { commit: commit.ok_or_else(|| missing("X-Repo-Commit"))?, tag, size: self.size, url })
    }
}
