//! A repository → the paths of its files, through the `hf-hub` crate.
//!
//! Asks the Hub's API, which no plain file mirror has.

use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFError, HFResult};

use super::error::HubError;
use super::http::{self, Refusal};
use super::patience::Patience;
use super::{HubFile, HubSettings};

/// `hf-hub` falls back on the environment's token where it is given none. One that cannot be part of a header is never
/// sent, which is what no token means.
const NO_TOKEN: &str = "\n";

/// All paths at `whole`'s repository and revision, sorted.
pub(super) fn files(settings: &HubSettings, patience: &Patience, whole: &HubFile) -> Result<Vec<String>, HubError> {
    let entries = entries(settings, patience, whole).map_err(|error| translate(error, settings, whole))?;
    let mut paths: Vec<String> = entries.into_iter().filter_map(file_path).collect();
    paths.sort();
    Ok(paths)
}

fn entries(settings: &HubSettings, patience: &Patience, whole: &HubFile) -> HFResult<Vec<RepoTreeEntry>> {
    let client = HFClient::builder()
        .endpoint(&settings.endpoint)
        .token(settings.token.as_deref().unwrap_or(NO_TOKEN))
        .client(http::builder(patience).build()?)
        .user_agent(http::USER_AGENT)
        .cache_dir(&settings.cache)
        .retry_max_attempts(patience.attempts.saturating_sub(1) as usize)
        .retry_base_delay(patience.first_delay)
        .build_sync()?;
    let (owner, name) = hf_hub::split_id(&whole.repository);
    client.model(owner, name).list_tree().revision(whole.revision()).recursive(true).send()
}

fn file_path(entry: RepoTreeEntry) -> Option<String> {
    match entry {
        RepoTreeEntry::File { path, .. } => Some(path),
        RepoTreeEntry::Directory { .. } => None,
    }
}

fn translate(error: HFError, settings: &HubSettings, whole: &HubFile) -> HubError {
    match error {
        HFError::Http { context } => {
            let refusal = Refusal { file: whole, endpoint: &settings.endpoint, with_token: settings.token.is_some() };
            refusal.error(context.status, context.error_code.as_deref(), None)
        }
        HFError::Request { source, .. } => http::network_error(whole, settings.endpoint.clone(), source),
        error => HubError::BadResponse { file: Box::new(whole.clone()), reason: error.to_string() },
    }
}
