//! Fetching from a Hub on loopback that behaves well, badly, or not at all.

mod hub_server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use candle_resnet::hub::{DownloadProgress, Fetched, Hub, HubError, HubFile, HubSettings, Patience, cache};
use hub_server::{COMMIT, Fault, HubServer, Request, Side};
use tempfile::TempDir;

const REPOSITORY: &str = "timm/resnet18.tv_in1k";
const TOKEN: &str = "hf_topsecret";

/// More than one read of a socket.
fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(|number| number.to_le_bytes()).collect()
}

fn impatience() -> Patience {
    Patience {
        attempts: 3,
        first_delay: Duration::from_millis(5),
        longest_delay: Duration::from_millis(20),
        connect: Duration::from_secs(5),
        stall: Duration::from_secs(5),
    }
}

/// A server, an empty cache, and a client of both.
struct Bench {
    server: HubServer,
    cache: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { server: HubServer::start(), cache: tempfile::tempdir().unwrap() }
    }

    fn with_weights() -> (Self, HubFile, String) {
        let bench = Self::new();
        let sha256 = bench.server.add_large(REPOSITORY, "model.safetensors", weights());
        (bench, HubFile::new(REPOSITORY, "model.safetensors"), sha256)
    }

    fn settings(&self) -> HubSettings {
        HubSettings {
            cache: self.cache.path().into(),
            endpoint: self.server.endpoint(),
            token: Some(TOKEN.into()),
            offline: false,
        }
    }

    fn hub(&self) -> Hub {
        Hub::with_patience(self.settings(), impatience()).unwrap()
    }

    fn fetch(&self, file: &HubFile) -> Result<Fetched, HubError> {
        self.hub().fetch(file, &())
    }

    fn root(&self) -> PathBuf {
        self.cache.path().join("models--timm--resnet18.tv_in1k")
    }

    fn partial(&self, tag: &str) -> PathBuf {
        self.root().join("blobs").join(format!("{tag}.incomplete"))
    }

    fn leave_partial(&self, tag: &str, content: &[u8]) {
        fs::create_dir_all(self.root().join("blobs")).unwrap();
        fs::write(self.partial(tag), content).unwrap();
    }

    /// Nothing that a later run would take for a file.
    fn assert_nothing_published(&self) {
        for file in files_below(self.cache.path()) {
            let name = file.to_string_lossy().into_owned();
            assert!(name.ends_with(".incomplete") || name.ends_with(".lock"), "{name} should not be there");
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

/// Ranges asked of the storage host.
fn storage_ranges(requests: &[Request]) -> Vec<Option<&str>> {
    requests.iter().filter(|request| request.side == Side::Storage).map(|request| request.header("range")).collect()
}

fn summary(requests: &[Request]) -> Vec<(Side, &str)> {
    requests.iter().map(|request| (request.side, request.method.as_str())).collect()
}

/// Writes down what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn taken(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl DownloadProgress for Notes {
    fn begin(&self, path: &str, total: u64, already: u64) {
        self.note(format!("begin {path} {total} {already}"));
    }
    fn advance(&self, bytes: u64) {
        self.note(bytes.to_string());
    }
    fn end(&self) {
        self.note("end".into());
    }
    fn waiting(&self, lock: &Path) {
        self.note(format!("waiting for {}", lock.file_name().unwrap().to_string_lossy()));
    }
}

#[test]
fn a_large_file_comes_from_the_storage_host_into_pythons_layout() {
    let (bench, file, sha256) = Bench::with_weights();
    let fetched = bench.fetch(&file).unwrap();

    assert_eq!(fetched.commit, COMMIT);
    assert_eq!(fetched.sha256.as_deref(), Some(sha256.as_str()));
    assert_eq!(fetched.path, bench.root().join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(fs::read(&fetched.path).unwrap(), weights());
    assert_eq!(fs::read(bench.root().join("blobs").join(&sha256)).unwrap(), weights());
    assert_eq!(fs::read_to_string(bench.root().join("refs/main")).unwrap(), COMMIT);
    let lock = bench.cache.path().join(".locks/models--timm--resnet18.tv_in1k").join(format!("{sha256}.lock"));
    assert!(lock.exists());
    let requests = bench.server.take_requests();
    assert_eq!(summary(&requests), [(Side::Hub, "HEAD"), (Side::Hub, "GET"), (Side::Storage, "GET")]);
    #[cfg(unix)]
    assert_eq!(fs::read_link(&fetched.path).unwrap(), Path::new("../../blobs").join(&sha256));
}

#[test]
fn a_small_file_is_named_by_git_and_has_no_sha256() {
    let bench = Bench::new();
    let tag = bench.server.add_small(REPOSITORY, "onnx/config one.json", "{}\n");
    let fetched = bench.fetch(&HubFile::new(REPOSITORY, "onnx/config one.json")).unwrap();
    assert_eq!(fs::read_to_string(&fetched.path).unwrap(), "{}\n");
    assert_eq!(fetched.sha256, None);
    assert!(bench.root().join("blobs").join(tag).exists());
}

#[test]
fn an_empty_file_is_a_file() {
    let bench = Bench::new();
    bench.server.add_small(REPOSITORY, "empty", "");
    let fetched = bench.fetch(&HubFile::new(REPOSITORY, "empty")).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), b"");
}

#[test]
fn a_repository_without_owner_is_fetched_too() {
    let bench = Bench::new();
    bench.server.add_small("gpt2", "config.json", "{}");
    let fetched = bench.fetch(&HubFile::new("gpt2", "config.json")).unwrap();
    assert!(fetched.path.starts_with(bench.cache.path().join("models--gpt2/snapshots")));
}

#[test]
fn the_second_fetch_makes_no_request() {
    let (bench, file, _) = Bench::with_weights();
    let first = bench.fetch(&file).unwrap();
    bench.server.take_requests();
    assert_eq!(bench.fetch(&file).unwrap(), first);
    assert_eq!(bench.hub().cached(&file), Some(first.clone()));
    assert_eq!(bench.fetch(&file.at(COMMIT)).unwrap(), first);
    assert!(bench.server.take_requests().is_empty());
}

#[test]
fn what_huggingface_hub_has_laid_down_is_found() {
    let bench = Bench::new();
    let snapshot = bench.root().join("snapshots").join(COMMIT);
    for folder in [&snapshot, &bench.root().join("blobs"), &bench.root().join("refs/refs/pr")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(bench.root().join("refs/refs/pr/1"), COMMIT).unwrap();
    let blob = bench.root().join("blobs").join("c".repeat(64));
    fs::write(&blob, "weights").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(Path::new("../../blobs").join("c".repeat(64)), snapshot.join("model.bin")).unwrap();
    #[cfg(not(unix))]
    fs::copy(&blob, snapshot.join("model.bin")).unwrap();

    let file = HubFile::new(REPOSITORY, "model.bin").at("refs/pr/1");
    let found = bench.hub().cached(&file).unwrap();
    assert_eq!(fs::read_to_string(&found.path).unwrap(), "weights");
    assert_eq!(bench.hub().cached(&HubFile::new(REPOSITORY, "model.bin")), None, "main is another branch");
    assert!(bench.server.take_requests().is_empty());
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let (bench, file, _) = Bench::with_weights();
    bench.fetch(&file).unwrap();
    for request in bench.server.take_requests() {
        let expected = (request.side == Side::Hub).then(|| format!("Bearer {TOKEN}"));
        assert_eq!(request.header("authorization"), expected.as_deref(), "{request:?}");
        assert!(!request.target.contains(TOKEN));
    }
}

#[test]
fn without_a_token_none_is_sent() {
    let (bench, file, _) = Bench::with_weights();
    let hub = Hub::with_patience(HubSettings { token: None, ..bench.settings() }, impatience()).unwrap();
    hub.fetch(&file, &()).unwrap();
    hub.files(REPOSITORY, None).unwrap();
    assert!(bench.server.take_requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn compression_is_refused_because_it_would_change_the_length() {
    let (bench, file, _) = Bench::with_weights();
    bench.server.add_small(REPOSITORY, "config.json", "{}");
    bench.fetch(&file).unwrap();
    bench.fetch(&HubFile::new(REPOSITORY, "config.json")).unwrap();
    for request in bench.server.take_requests() {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
}

#[test]
fn a_xet_hash_does_not_keep_the_file_from_coming_by_http() {
    let bench = Bench::new();
    bench.server.add_xet(REPOSITORY, "model.safetensors", weights());
    let fetched = bench.fetch(&HubFile::new(REPOSITORY, "model.safetensors")).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), weights());
    assert_eq!(storage_ranges(&bench.server.take_requests()), [None]);
}

#[test]
fn a_renamed_repository_is_followed_with_the_token() {
    let (bench, _, _) = Bench::with_weights();
    bench.server.rename("timm/old", REPOSITORY);
    let fetched = bench.fetch(&HubFile::new("timm/old", "model.safetensors")).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), weights());
    assert!(fetched.path.starts_with(bench.cache.path().join("models--timm--old")));
}

#[test]
fn a_revision_with_slashes_is_one_name() {
    let (bench, file, _) = Bench::with_weights();
    let fetched = bench.fetch(&file.clone().at("refs/pr/1")).unwrap();
    assert_eq!(fetched.commit, COMMIT);
    assert_eq!(fs::read_to_string(bench.root().join("refs/refs/pr/1")).unwrap(), COMMIT);
}

#[test]
fn a_commit_gets_no_reference() {
    let (bench, file, _) = Bench::with_weights();
    bench.fetch(&file.at(COMMIT)).unwrap();
    assert!(!bench.root().join("refs").exists());
}

#[test]
fn a_new_commit_with_the_same_content_is_not_downloaded_again() {
    let (bench, file, _) = Bench::with_weights();
    bench.fetch(&file).unwrap();
    let next = COMMIT.replace('8', "9");
    bench.server.move_to(&next);
    bench.server.take_requests();
    let fetched = bench.fetch(&file.at(next.as_str())).unwrap();
    assert_eq!(fetched.commit, next);
    assert_eq!(fs::read(fetched.path).unwrap(), weights());
    assert_eq!(summary(&bench.server.take_requests()), [(Side::Hub, "HEAD")]);
}

#[test]
fn a_blob_of_the_wrong_length_is_not_believed() {
    let (bench, file, sha256) = Bench::with_weights();
    fs::create_dir_all(bench.root().join("blobs")).unwrap();
    fs::write(bench.root().join("blobs").join(&sha256), "short").unwrap();
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
}

#[test]
fn offline_uses_the_cache_and_asks_nobody() {
    let (bench, file, _) = Bench::with_weights();
    let offline = Hub::new(HubSettings { offline: true, ..bench.settings() }).unwrap();
    let error = offline.fetch(&file, &()).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error}");
    assert!(error.to_string().contains("`model.safetensors` of `timm/resnet18.tv_in1k`"), "{error}");
    assert!(error.hint().unwrap().contains("HF_HUB_OFFLINE"));
    assert!(matches!(offline.files(REPOSITORY, None), Err(HubError::NotCached { .. })));
    assert!(bench.server.take_requests().is_empty());

    let fetched = bench.fetch(&file).unwrap();
    assert_eq!(offline.fetch(&file, &()).unwrap(), fetched);
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let (bench, file, _) = Bench::with_weights();
    for _ in 0..4 {
        // More interruptions than attempts: progress renews the patience.
        bench.server.fail(Side::Storage, "GET", Fault::CutAfter(200_000));
    }
    let notes = Notes::default();
    let fetched = bench.hub().fetch(&file, &notes).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), weights());

    let requests = bench.server.take_requests();
    let ranges = storage_ranges(&requests);
    assert_eq!(
        ranges,
        [None, Some("bytes=200000-"), Some("bytes=400000-"), Some("bytes=600000-"), Some("bytes=800000-")]
    );
    let notes = notes.taken();
    assert_eq!(notes[0], "begin model.safetensors 1200000 0");
    assert!(notes.contains(&"begin model.safetensors 1200000 800000".to_string()));
    assert_eq!(notes.last().unwrap(), "end");
    assert_eq!(notes.iter().filter(|note| *note == "end").count(), 1);
    assert_eq!(notes.iter().filter_map(|note| note.parse::<u64>().ok()).sum::<u64>(), 1_200_000);
}

#[test]
fn a_later_run_goes_on_with_what_an_earlier_one_left() {
    let (bench, file, sha256) = Bench::with_weights();
    for _ in 0..3 {
        bench.server.fail(Side::Storage, "GET", Fault::CutAfter(0));
    }
    bench.leave_partial(&sha256, &weights()[..1000]);
    let error = bench.fetch(&file).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    bench.assert_nothing_published();
    assert_eq!(fs::metadata(bench.partial(&sha256)).unwrap().len(), 1000);

    bench.server.take_requests();
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
    assert_eq!(storage_ranges(&bench.server.take_requests()), [Some("bytes=1000-")]);
    assert!(!bench.partial(&sha256).exists());
}

#[test]
fn a_partial_that_is_whole_is_only_verified() {
    let (bench, file, sha256) = Bench::with_weights();
    bench.leave_partial(&sha256, &weights());
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
    assert_eq!(summary(&bench.server.take_requests()), [(Side::Hub, "HEAD")]);
}

#[test]
fn a_server_without_ranges_makes_the_download_start_over() {
    for fault in [Fault::IgnoreRange, Fault::WrongRange, Fault::Status(416, vec![])] {
        let (bench, file, sha256) = Bench::with_weights();
        bench.leave_partial(&sha256, b"these bytes would be wrong");
        bench.server.fail(Side::Storage, "GET", fault.clone());
        let fetched = bench.fetch(&file).unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), weights(), "{fault:?}");
    }
}

#[test]
fn a_server_that_always_breaks_at_the_same_byte_is_given_up() {
    let (bench, file, _) = Bench::with_weights();
    for _ in 0..20 {
        bench.server.fail(Side::Storage, "GET", Fault::CutAfter(0));
    }
    assert!(matches!(bench.fetch(&file), Err(HubError::Network { .. })));
    assert_eq!(storage_ranges(&bench.server.take_requests()).len(), 3);
}

#[test]
fn a_partial_longer_than_the_file_is_thrown_away() {
    let (bench, file, sha256) = Bench::with_weights();
    bench.leave_partial(&sha256, &[7; 1_200_001]);
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
}

#[test]
fn a_damaged_partial_heals_by_one_fresh_download() {
    let (bench, file, sha256) = Bench::with_weights();
    bench.leave_partial(&sha256, &[7; 1000]);
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
    assert_eq!(storage_ranges(&bench.server.take_requests()), [Some("bytes=1000-"), None]);
}

#[test]
fn a_wrong_checksum_names_the_file_and_both_sums_and_leaves_nothing() {
    let (bench, file, sha256) = Bench::with_weights();
    bench.server.fail(Side::Storage, "GET", Fault::WrongBytes);
    bench.server.fail(Side::Storage, "GET", Fault::WrongBytes);
    let error = bench.fetch(&file).unwrap_err();
    let wrong: Vec<u8> = weights().iter().map(|byte| !byte).collect();
    let expected = format!(
        "fetching `model.safetensors` of `{REPOSITORY}`: expected checksum {sha256}, found {}",
        hub_server::sha256(&wrong)
    );
    assert_eq!(error.to_string(), expected);
    bench.assert_nothing_published();
    assert!(!bench.partial(&sha256).exists());
    assert_eq!(storage_ranges(&bench.server.take_requests()), [None, None]);
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
}

#[test]
fn a_small_file_is_verified_by_gits_checksum() {
    let bench = Bench::new();
    let tag = bench.server.add_small(REPOSITORY, "config.json", "{}");
    bench.server.fail(Side::Hub, "GET", Fault::WrongBytes);
    bench.server.fail(Side::Hub, "GET", Fault::WrongBytes);
    match bench.fetch(&HubFile::new(REPOSITORY, "config.json")) {
        Err(HubError::ChecksumMismatch { expected, .. }) => assert_eq!(expected, tag),
        other => panic!("{other:?}"),
    }
    bench.assert_nothing_published();
}

#[test]
fn a_file_shorter_or_longer_than_announced_is_refused() {
    for difference in [5, u64::MAX - 4] {
        let (bench, file, sha256) = Bench::with_weights();
        bench.server.fail(Side::Hub, "HEAD", Fault::Longer(difference));
        let error = bench.fetch(&file).unwrap_err();
        let announced = 1_200_000u64.wrapping_add(difference);
        assert!(matches!(error, HubError::SizeMismatch { expected, .. } if expected == announced), "{error}");
        bench.assert_nothing_published();
        assert!(!bench.partial(&sha256).exists());
    }
}

/// What the Hub answers, and what the user must be told.
#[test]
fn each_refusal_says_what_to_do() {
    type Check = fn(&HubError) -> bool;
    let cases: [(u16, &str, Check, &str); 9] = [
        (401, "", |error| matches!(error, HubError::Unauthorised { .. }), "HF_TOKEN"),
        (401, "RepoNotFound", |error| matches!(error, HubError::RepositoryNotFound { .. }), "HF_TOKEN"),
        (401, "GatedRepo", |error| matches!(error, HubError::Gated { .. }), "/timm/resnet18.tv_in1k"),
        (403, "GatedRepo", |error| matches!(error, HubError::Gated { .. }), "accept the licence"),
        (403, "", |error| matches!(error, HubError::Forbidden { .. }), "HF_TOKEN"),
        (404, "RevisionNotFound", |error| matches!(error, HubError::RevisionNotFound { .. }), "main"),
        (404, "EntryNotFound", |error| matches!(error, HubError::FileNotFound { .. }), ""),
        (404, "", |error| matches!(error, HubError::UnexpectedStatus { .. }), "HF_ENDPOINT"),
        (418, "", |error| matches!(error, HubError::UnexpectedStatus { .. }), "HF_ENDPOINT"),
    ];
    for (status, code, is_right, hint) in cases {
        for method in ["HEAD", "GET"] {
            let (bench, file, _) = Bench::with_weights();
            bench.server.fail(Side::Hub, method, Fault::Status(status, vec![("X-Error-Code", code.into())]));
            let error = bench.fetch(&file).unwrap_err();
            assert!(is_right(&error), "{status} {code}: {error:?}");
            assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
            let text = format!("{error} {error:?} {:?}", error.hint());
            assert!(text.contains(REPOSITORY) && text.contains("model.safetensors") && !text.contains(TOKEN), "{text}");
            bench.assert_nothing_published();
        }
    }
}

#[test]
fn what_does_not_exist_is_told_apart() {
    let (bench, file, _) = Bench::with_weights();
    let error = bench.fetch(&HubFile::new("timm/missing", "model.safetensors")).unwrap_err();
    assert!(matches!(error, HubError::RepositoryNotFound { .. }), "{error}");
    let error = bench.fetch(&file.at("missing")).unwrap_err();
    assert!(matches!(error, HubError::RevisionNotFound { .. }), "{error}");
    let error = bench.fetch(&HubFile::new(REPOSITORY, "missing.bin")).unwrap_err();
    assert!(matches!(error, HubError::FileNotFound { .. }), "{error}");
    assert_eq!(error.to_string(), "no file `missing.bin` of `timm/resnet18.tv_in1k` on the Hub");
}

#[test]
fn failures_that_pass_are_waited_for() {
    for (side, method) in [(Side::Hub, "HEAD"), (Side::Hub, "GET"), (Side::Storage, "GET")] {
        for status in [429, 500, 503] {
            let (bench, file, _) = Bench::with_weights();
            bench.server.fail(side, method, Fault::Status(status, vec![]));
            bench.server.fail(side, method, Fault::Status(status, vec![("Retry-After", "3600".into())]));
            let fetched = bench.fetch(&file).unwrap();
            assert_eq!(fs::read(fetched.path).unwrap(), weights(), "{side:?} {method} {status}");
        }
    }
}

#[test]
fn retry_after_is_honoured() {
    let (bench, file, _) = Bench::with_weights();
    bench.server.fail(Side::Hub, "HEAD", Fault::Status(429, vec![("Retry-After", "1".into())]));
    let patience = Patience { longest_delay: Duration::from_secs(2), ..impatience() };
    let start = Instant::now();
    Hub::with_patience(bench.settings(), patience).unwrap().fetch(&file, &()).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn failures_that_last_are_reported_and_their_page_is_not_kept() {
    for (side, method) in [(Side::Hub, "HEAD"), (Side::Hub, "GET"), (Side::Storage, "GET")] {
        for status in [429, 500] {
            let (bench, file, sha256) = Bench::with_weights();
            for _ in 0..10 {
                bench.server.fail(side, method, Fault::Status(status, vec![("Retry-After", "60".into())]));
            }
            match bench.fetch(&file).unwrap_err() {
                HubError::RateLimited { retry_after, .. } if status == 429 => {
                    assert_eq!(retry_after, Some(Duration::from_secs(60)));
                }
                HubError::Server { status: 500, .. } if status == 500 => {}
                error => panic!("{error:?}"),
            }
            bench.assert_nothing_published();
            assert!(!bench.partial(&sha256).exists());
        }
    }
}

#[test]
fn an_expired_storage_link_is_replaced_by_a_fresh_one() {
    let (bench, file, _) = Bench::with_weights();
    bench.server.fail(Side::Storage, "GET", Fault::Status(403, vec![]));
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
    for _ in 0..10 {
        bench.server.fail(Side::Storage, "GET", Fault::Status(403, vec![]));
    }
    let other = bench.server.add_large(REPOSITORY, "other.bin", "other");
    let error = bench.fetch(&HubFile::new(REPOSITORY, "other.bin")).unwrap_err();
    assert!(matches!(error, HubError::UnexpectedStatus { status: 403, .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("signature"), "a signed address is a secret: {error:?} {other}");
}

#[test]
fn a_server_that_is_no_hub_is_recognised() {
    for header in ["X-Repo-Commit", "ETag"] {
        let bench = Bench::new();
        bench.server.add_small(REPOSITORY, "config.json", "{}");
        bench.server.fail(Side::Hub, "HEAD", Fault::Without(header));
        let error = bench.fetch(&HubFile::new(REPOSITORY, "config.json")).unwrap_err();
        assert!(matches!(error, HubError::BadResponse { .. }), "{error:?}");
        assert!(error.to_string().contains(header), "{error}");
        bench.assert_nothing_published();
    }
}

#[test]
fn the_storage_host_is_never_asked_for_metadata() {
    let (bench, file, _) = Bench::with_weights();
    bench.server.fail(Side::Hub, "HEAD", Fault::Without("X-Linked-ETag"));
    let fetched = bench.fetch(&file).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), weights());
    assert!(bench.root().join("blobs/of-the-redirect").exists());
    let requests = bench.server.take_requests();
    assert!(!summary(&requests).contains(&(Side::Storage, "HEAD")), "{requests:?}");
}

#[test]
fn a_hub_that_cannot_be_reached_is_named() {
    let (bench, file, _) = Bench::with_weights();
    let endpoint = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let hub = Hub::with_patience(HubSettings { endpoint: endpoint.clone(), ..bench.settings() }, impatience()).unwrap();
    let error = hub.fetch(&file, &()).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    assert!(error.to_string().contains(endpoint.trim_start_matches("http://")), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("HF_ENDPOINT") && hint.contains("HF_HUB_OFFLINE"), "{hint}");
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let (bench, file, _) = Bench::with_weights();
    for _ in 0..3 {
        bench.server.fail(Side::Storage, "GET", Fault::Stall(Duration::from_secs(2)));
    }
    let patience = Patience { stall: Duration::from_millis(100), ..impatience() };
    let start = Instant::now();
    let error = Hub::with_patience(bench.settings(), patience).unwrap().fetch(&file, &()).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn two_threads_that_want_one_file_make_one_download() {
    let (bench, file, sha256) = Bench::with_weights();
    bench.server.fail(Side::Storage, "GET", Fault::Stall(Duration::from_millis(300)));
    let (hub, notes) = (bench.hub(), Notes::default());
    let fetched = std::thread::scope(|scope| {
        let threads = [0, 1].map(|_| scope.spawn(|| hub.fetch(&file, &notes).unwrap()));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(fetched[0], fetched[1]);
    assert_eq!(storage_ranges(&bench.server.take_requests()).len(), 1);
    assert!(notes.taken().contains(&format!("waiting for {sha256}.lock")), "{:?}", notes.taken());
}

#[test]
fn two_processes_that_want_one_file_make_one_download() {
    let (bench, _, _) = Bench::with_weights();
    bench.server.fail(Side::Storage, "GET", Fault::Stall(Duration::from_millis(800)));
    let child = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "fetch_as_another_process"])
            .env("HF_HUB_CACHE", bench.cache.path())
            .env("HF_ENDPOINT", bench.server.endpoint())
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("TRANSFORMERS_OFFLINE")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    for mut process in [child(), child()] {
        assert!(process.wait().unwrap().success());
    }
    let requests = bench.server.take_requests();
    assert_eq!(requests.iter().filter(|request| request.method == "HEAD").count(), 2, "both had to ask");
    assert_eq!(storage_ranges(&requests).len(), 1);
}

#[test]
#[ignore = "run by two_processes_that_want_one_file_make_one_download"]
fn fetch_as_another_process() {
    let hub = Hub::new(HubSettings::from_env()).unwrap();
    let fetched = hub.fetch(&HubFile::new(REPOSITORY, "model.safetensors"), &()).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), weights());
}

#[test]
fn fetching_inside_an_asynchronous_runtime_does_not_panic() {
    let (bench, file, _) = Bench::with_weights();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let fetched = runtime.block_on(async { bench.fetch(&file) }).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), weights());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_and_nothing_published() {
    let (bench, file, sha256) = Bench::with_weights();
    fs::create_dir_all(bench.root().join("blobs")).unwrap();
    std::os::unix::fs::symlink("/dev/full", bench.partial(&sha256)).unwrap();
    let error = bench.fetch(&file).unwrap_err();
    assert!(error.to_string().contains(&format!("{sha256}.incomplete")), "{error}");
    assert!(error.hint().unwrap().contains("space"), "{:?}", error.hint());
    bench.assert_nothing_published();
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (bench, file, _) = Bench::with_weights();
    let blocked = bench.cache.path().join("a file");
    fs::write(&blocked, "").unwrap();
    let settings = HubSettings { cache: blocked.clone(), ..bench.settings() };
    let error = Hub::with_patience(settings, impatience()).unwrap().fetch(&file, &()).unwrap_err();
    assert!(matches!(error, HubError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("a file"), "{error}");
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused_without_a_request() {
    let (bench, file, _) = Bench::with_weights();
    for bad in [
        HubFile::new("../../etc", "passwd"),
        HubFile::new(REPOSITORY, "../../secret"),
        HubFile::new(REPOSITORY, "/etc/passwd"),
        file.at("../main"),
    ] {
        assert!(matches!(bench.fetch(&bad), Err(HubError::InvalidName { .. })), "{bad}");
        assert_eq!(bench.hub().cached(&bad), None);
    }
    assert!(bench.server.take_requests().is_empty());
}

#[test]
fn a_repositorys_files_are_listed() {
    let (bench, _, _) = Bench::with_weights();
    bench.server.add_small(REPOSITORY, "config.json", "{}");
    assert_eq!(bench.hub().files(REPOSITORY, None).unwrap(), ["config.json", "model.safetensors"]);
    let error = bench.hub().files("timm/missing", None).unwrap_err();
    assert!(matches!(error, HubError::RepositoryNotFound { .. }), "{error:?}");
}

#[test]
fn what_was_fetched_is_listed_and_removed() {
    let (bench, file, _) = Bench::with_weights();
    bench.fetch(&file).unwrap();
    let listed = cache::list(bench.cache.path()).unwrap();
    assert_eq!(listed[0].repository, REPOSITORY);
    assert_eq!(listed[0].revisions[0].references, ["main"]);
    assert_eq!(listed[0].revisions[0].files[0].path, "model.safetensors");
    let freed = cache::remove_revision(bench.cache.path(), REPOSITORY, "main").unwrap();
    assert!(freed >= 1_200_000);
    assert_eq!(bench.hub().cached(&file), None);
    assert_eq!(fs::read(bench.fetch(&file).unwrap().path).unwrap(), weights());
}
