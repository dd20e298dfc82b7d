//! Requests to the Hub: who gets the token, which statuses are errors, which errors may pass.
//!
//! Redirects are followed by hand, so that it can be seen here that the token goes to the endpoint's scheme, host and
//! port only. Does not know what is asked for.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Certificate, ClientBuilder, Method, Response, StatusCode, Url, redirect};

use super::error::HubError;
use super::patience::{Again, Failure, Patience};
use super::{HubFile, HubSettings};

pub(super) const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
const MOST_REDIRECTS: usize = 10;

/// Makes the requests for one file.
pub(super) struct Client<'a> {
    http: reqwest::Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    file: &'a HubFile,
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &HubSettings, patience: &Patience, file: &'a HubFile) -> Result<Self, HubError> {
        let endpoint = parse_endpoint(&settings.endpoint)?;
        let builder = || builder(patience).redirect(redirect::Policy::none());
        // Without system certificates, as in a bare container, reqwest builds no client at all.
        let http = builder()
            .build()
            .or_else(|_| builder().tls_certs_only(bundled_certificates()).build())
            .map_err(|error| network_error(file, host(&endpoint), error))?;
        Ok(Self { http, endpoint, token: settings.token.as_deref().and_then(bearer), file })
    }

    /// Where the Hub serves the file.
    pub(super) fn resolve_url(&self) -> Result<Url, HubError> {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(self.file.repository.split('/')).push("resolve");
            // One segment, its slashes escaped: `refs/pr/1` is `refs%2Fpr%2F1`.
            segments.push(self.file.revision()).extend(self.file.path.split('/'));
        }
        Ok(url)
    }

    /// Whether `url` is served by the endpoint itself.
    pub(super) fn is_endpoint(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Asks for a file's headers without following redirects.
    pub(super) async fn head(&self, url: &Url) -> Result<Response, Failure> {
        let response = self.send(Method::HEAD, url, 0).await?;
        self.accept(response)
    }

    /// Asks for a file's bytes from `start` on, wherever redirects lead. The answer is a success, or 416.
    pub(super) async fn get(&self, url: &Url, start: u64) -> Result<Response, Failure> {
        let mut url = url.clone();
        for _ in 0..MOST_REDIRECTS {
            let response = self.send(Method::GET, &url, start).await?;
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && start > 0 {
                return Ok(response);
            }
            let response = self.accept(response)?;
            match redirect_target(&response) {
                Some(target) => url = target,
                None => return Ok(response),
            }
        }
        Err(self.bad_response(format!("more than {MOST_REDIRECTS} redirects")).into())
    }

    /// An answer that a Hub would not give.
    pub(super) fn bad_response(&self, reason: impl Into<String>) -> HubError {
        HubError::BadResponse { file: Box::new(self.file.clone()), reason: reason.into() }
    }

    /// A connection that failed, to `url`. Worth another try.
    pub(super) fn broken(&self, url: &Url, error: reqwest::Error) -> Failure {
        // A host that does not even accept the connection in time will not do so in the next ten seconds either.
        let again = if error.is_connect() && error.is_timeout() { Again::Never } else { Again::Soon };
        Failure { error: network_error(self.file, host(url), error), again }
    }

    async fn send(&self, method: Method, url: &Url, start: u64) -> Result<Response, Failure> {
        // A compressed answer would have another length and no byte ranges.
        let mut request = self.http.request(method, url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| self.is_endpoint(url)) {
            request = request.header(AUTHORIZATION, token);
        }
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        request.send().await.map_err(|error| self.broken(url, error))
    }

    fn accept(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() || redirect_target(&response).is_some() {
            return Ok(response);
        }
        let soon = retry_after(response.headers()).map_or(Again::Soon, Again::After);
        let again = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => soon,
            _ if status.is_server_error() => soon,
            // The storage host's links expire; the Hub gives a fresh one.
            StatusCode::FORBIDDEN if !self.is_endpoint(response.url()) => Again::Soon,
            _ => Again::Never,
        };
        Err(Failure { error: self.status_error(&response), again })
    }

    fn status_error(&self, response: &Response) -> HubError {
        let status = response.status();
        if !self.is_endpoint(response.url()) && status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            let host = host(response.url());
            return HubError::UnexpectedStatus { file: Box::new(self.file.clone()), host, status: status.as_u16() };
        }
        let refusal = Refusal { file: self.file, endpoint: self.endpoint.as_str(), with_token: self.token.is_some() };
        let code = header(response.headers(), "x-error-code");
        refusal.error(status, code, retry_after(response.headers()))
    }
}

/// A request that the Hub refused.
pub(super) struct Refusal<'a> {
    pub(super) file: &'a HubFile,
    pub(super) endpoint: &'a str,
    pub(super) with_token: bool,
}

impl Refusal<'_> {
    /// What a status and the Hub's `X-Error-Code` mean. The Hub answers 401 for what does not exist, too: only the
    /// code tells; and a 404 without one may come from anything that stands in between.
    pub(super) fn error(&self, status: StatusCode, code: Option<&str>, retry_after: Option<Duration>) -> HubError {
        let (file, with_token) = (Box::new(self.file.clone()), self.with_token);
        match (code, status) {
            (_, status) if status.is_server_error() => HubError::Server { file, status: status.as_u16() },
            (_, StatusCode::TOO_MANY_REQUESTS) => HubError::RateLimited { file, retry_after },
            (Some("RepoNotFound"), _) => HubError::RepositoryNotFound { file, with_token },
            (Some("RevisionNotFound"), _) => HubError::RevisionNotFound { file },
            (Some("GatedRepo"), _) => HubError::Gated { page: self.page(), file, with_token },
            (Some("EntryNotFound"), StatusCode::NOT_FOUND) => HubError::FileNotFound { file },
            (_, StatusCode::UNAUTHORIZED) => HubError::Unauthorised { file, with_token },
            (_, StatusCode::FORBIDDEN) => HubError::Forbidden { file },
            _ => HubError::UnexpectedStatus { file, host: self.endpoint.into(), status: status.as_u16() },
        }
    }

    fn page(&self) -> String {
        format!("{}/{}", self.endpoint.trim_end_matches('/'), self.file.repository)
    }
}

/// Checks the address of a Hub.
pub(super) fn parse_endpoint(endpoint: &str) -> Result<Url, HubError> {
    let invalid = |reason: String| HubError::InvalidEndpoint { endpoint: endpoint.into(), reason };
    let url = Url::parse(endpoint).map_err(|error| invalid(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(invalid(format!("expected http or https, found {scheme}"))),
    }
}

/// A client with the time limits set and nothing decoded.
pub(super) fn builder(patience: &Patience) -> ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(patience.connect)
        .read_timeout(patience.stall)
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
}

/// Runs a future to its end on a thread of its own, so that the caller may itself be part of an asynchronous runtime,
/// where blocking on another one panics.
pub(super) fn block_on<T, F>(file: &HubFile, start: impl FnOnce() -> F + Send) -> Result<T, HubError>
where
    T: Send,
    F: Future<Output = Result<T, HubError>>,
{
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let failed =
            |error| HubError::BadResponse { file: Box::new(file.clone()), reason: format!("no runtime: {error}") };
        runtime.map_err(failed)?.block_on(start())
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// A header's text, if it is there and is text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Where a redirect leads.
pub(super) fn redirect_target(response: &Response) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    let target = response.url().join(header(response.headers(), LOCATION.as_str())?).ok()?;
    matches!(target.scheme(), "http" | "https").then_some(target)
}

/// Host and port of an address: it may hold a signature further on, which is nobody's business.
pub(super) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| name.into(), |port| format!("{name}:{port}"))
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn bundled_certificates() -> impl Iterator<Item = Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|certificate| Certificate::from_der(certificate).ok())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    header(headers, RETRY_AFTER.as_str())?.trim().parse().ok().map(Duration::from_secs)
}

pub(super) fn network_error(file: &HubFile, host: String, error: reqwest::Error) -> HubError {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    HubError::Network { file: Box::new(file.clone()), host, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(endpoint: &str, file: &HubFile) -> String {
        let settings = HubSettings {
            cache: "cache".into(),
            endpoint: endpoint.into(),
            token: Some("hf_secret".into()),
            offline: false,
        };
        Client::new(&settings, &Patience::default(), file).unwrap().resolve_url().unwrap().to_string()
    }

    #[test]
    fn revision_is_one_segment_and_path_is_several() {
        let file = HubFile::new("a/b", "on nx/50%#?.bin").at("refs/pr/1");
        assert_eq!(url("http://hub", &file), "http://hub/a/b/resolve/refs%2Fpr%2F1/on%20nx/50%25%23%3F.bin");
    }

    #[test]
    fn a_mirror_may_live_below_a_path() {
        let expected = "http://mirror:8080/hf/gpt2/resolve/main/c";
        assert_eq!(url("http://mirror:8080/hf", &HubFile::new("gpt2", "c")), expected);
        assert_eq!(url("http://mirror:8080/hf/", &HubFile::new("gpt2", "c")), expected);
    }

    #[test]
    fn an_endpoint_is_a_web_address() {
        for endpoint in ["", "huggingface.co", "ftp://hub", "file:///etc"] {
            assert!(matches!(parse_endpoint(endpoint), Err(HubError::InvalidEndpoint { .. })), "{endpoint}");
        }
    }

    #[test]
    fn a_token_is_hidden_in_debug_output() {
        assert!(!format!("{:?}", bearer("hf_secret")).contains("secret"));
    }

    #[test]
    fn bundled_certificates_make_a_client() {
        assert!(bundled_certificates().count() > 50);
        assert!(builder(&Patience::default()).tls_certs_only(bundled_certificates()).build().is_ok());
    }
}
