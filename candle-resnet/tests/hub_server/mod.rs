//! A Hub on loopback, with a second server as the storage host that large files are redirected to.
//!
//! Speaks the resolve protocol as far as a download sees it, notes every request, and misbehaves on demand. Written on
//! bare sockets because no HTTP library breaks a connection in the middle of a body.

#![allow(dead_code)] // Each test program uses another part of it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit that every known revision stands for, unless [`HubServer::move_to`] changes it.
pub const COMMIT: &str = "8a1d3f5b7c9e0a2b4c6d8e0f1a3b5c7d9e1f2a4b";

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The endpoint.
    Hub,
    /// The host that large files are redirected to: another name and another port.
    Storage,
}

/// One way to answer badly, once.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error page with this status and these further headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection breaks after so many bytes of the body.
    CutAfter(usize),
    /// The whole file with status 200, whatever range was asked for.
    IgnoreRange,
    /// Status 206 with a range that was not asked for.
    WrongRange,
    /// Every byte is another.
    WrongBytes,
    /// The Hub announces a file so many bytes longer.
    Longer(u64),
    /// Nothing for so long, then the proper answer.
    Stall(Duration),
    /// The proper answer without this header.
    Without(&'static str),
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    pub side: Side,
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Clone)]
struct Stored {
    content: Vec<u8>,
    /// Behind a redirect to the storage host, tagged by SHA-256.
    large: bool,
    xet: bool,
}

impl Stored {
    fn tag(&self) -> String {
        if self.large { sha256(&self.content) } else { git_blob(&self.content) }
    }
}

struct State {
    commit: String,
    files: BTreeMap<(String, String), Stored>,
    renamed: BTreeMap<String, String>,
    faults: VecDeque<(Side, &'static str, Fault)>,
    requests: Vec<Request>,
    storage: SocketAddr,
}

/// The pair of servers. They stop with the test program.
pub struct HubServer {
    hub: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl HubServer {
    pub fn start() -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let storage = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(Mutex::new(State {
            commit: COMMIT.into(),
            files: BTreeMap::new(),
            renamed: BTreeMap::new(),
            faults: VecDeque::new(),
            requests: Vec::new(),
            storage: storage.local_addr().unwrap(),
        }));
        let address = hub.local_addr().unwrap();
        serve(hub, Side::Hub, state.clone());
        serve(storage, Side::Storage, state.clone());
        Self { hub: address, state }
    }

    /// What `HF_ENDPOINT` is to be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Adds a file that is stored as large ones are. Gives its SHA-256.
    pub fn add_large(&self, repository: &str, path: &str, content: impl Into<Vec<u8>>) -> String {
        self.add(repository, path, Stored { content: content.into(), large: true, xet: false })
    }

    /// Like [`HubServer::add_large`], with the header that makes other clients leave plain HTTP.
    pub fn add_xet(&self, repository: &str, path: &str, content: impl Into<Vec<u8>>) -> String {
        self.add(repository, path, Stored { content: content.into(), large: true, xet: true })
    }

    /// Adds a file that git itself holds. Gives git's name for its content.
    pub fn add_small(&self, repository: &str, path: &str, content: impl Into<Vec<u8>>) -> String {
        self.add(repository, path, Stored { content: content.into(), large: false, xet: false })
    }

    fn add(&self, repository: &str, path: &str, file: Stored) -> String {
        let tag = file.tag();
        self.state().files.insert((repository.into(), path.into()), file);
        tag
    }

    /// Makes `old` redirect to `new`, as the Hub does after a rename.
    pub fn rename(&self, old: &str, new: &str) {
        self.state().renamed.insert(old.into(), new.into());
    }

    /// Makes every branch stand for another commit.
    pub fn move_to(&self, commit: &str) {
        self.state().commit = commit.into();
    }

    /// The next `method` request to `side` that no earlier fault answers gets `fault`.
    pub fn fail(&self, side: Side, method: &'static str, fault: Fault) {
        self.state().faults.push_back((side, method, fault));
    }

    /// Forgets the faults that did not happen.
    pub fn behave(&self) {
        self.state().faults.clear();
    }

    /// All requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(content: &[u8]) -> String {
    hexadecimal(&Sha256::digest(content))
}

/// What `git hash-object` says, in hexadecimal.
pub fn git_blob(content: &[u8]) -> String {
    let header = format!("blob {}\0", content.len());
    hexadecimal(&Sha1::new().chain_update(header).chain_update(content).finalize())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(listener: TcpListener, side: Side, state: Arc<Mutex<State>>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || answer(stream, side, &state));
        }
    });
}

/// Answers one request. A client that hangs up early is no failure of the server.
fn answer(mut stream: TcpStream, side: Side, state: &Mutex<State>) -> Option<()> {
    let request = read_request(&stream, side)?;
    let (reply, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let fault = state.take_fault(&request);
        (state.reply(&request, fault.as_ref()), fault)
    };
    if let Some(Fault::Stall(delay)) = fault {
        std::thread::sleep(delay);
    }
    let sent = match fault {
        Some(Fault::CutAfter(length)) => length.min(reply.body.len()),
        _ => reply.body.len(),
    };
    stream.write_all(reply.head().as_bytes()).ok()?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..sent]).ok()?;
    }
    stream.flush().ok()
}

fn read_request(stream: &TcpStream, side: Side) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
    let header =
        |line: String| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_string()));
    Some(Request { side, method, target, headers: lines.filter_map(header).collect() })
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + &format!("Content-Length: {}\r\n\r\n", self.body.len())
    }
}

impl State {
    fn take_fault(&mut self, request: &Request) -> Option<Fault> {
        let fits = |(side, method, _): &(Side, &str, Fault)| *side == request.side && *method == request.method;
        let place = self.faults.iter().position(fits)?;
        Some(self.faults.remove(place)?.2)
    }

    fn reply(&self, request: &Request, fault: Option<&Fault>) -> Reply {
        if let Some(Fault::Status(status, headers)) = fault {
            let page = Reply::new(*status, "<html>this is an error page</html>");
            return headers.iter().fold(page, |page, (name, value)| page.with(name, value));
        }
        let mut reply = match request.side {
            Side::Hub => self.hub(request, fault),
            Side::Storage => self.storage(request, fault),
        };
        if let Some(Fault::Without(name)) = fault {
            reply.headers.retain(|(header, _)| header != name);
        }
        reply
    }

    fn hub(&self, request: &Request, fault: Option<&Fault>) -> Reply {
        if let Some(rest) = request.target.strip_prefix("/api/models/") {
            return self.tree(rest);
        }
        let target = request.target.trim_start_matches('/');
        let Some((repository, rest)) = target.split_once("/resolve/") else {
            return Reply::new(400, "");
        };
        let Some((revision, path)) = rest.split_once('/') else {
            return Reply::new(400, "");
        };
        if let Some(new) = self.renamed.get(repository) {
            return Reply::new(307, "moved").with("Location", format!("/{new}/resolve/{rest}"));
        }
        let (revision, path) = (decode(revision), decode(path));
        if !self.files.keys().any(|(known, _)| known == repository) {
            return Reply::new(404, "").with("X-Error-Code", "RepoNotFound");
        }
        if !["main", "refs/pr/1", &self.commit].contains(&revision.as_str()) {
            return Reply::new(404, "").with("X-Error-Code", "RevisionNotFound");
        }
        match self.files.get(&(repository.into(), path)) {
            None => Reply::new(404, "").with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", &self.commit),
            Some(file) => self.resolve(request, file, fault),
        }
    }

    fn resolve(&self, request: &Request, file: &Stored, fault: Option<&Fault>) -> Reply {
        let longer = if let Some(Fault::Longer(bytes)) = fault { *bytes } else { 0 };
        let mut reply = if file.large {
            let storage = format!("http://localhost:{}/{}?signature=s3cr3t", self.storage.port(), file.tag());
            Reply::new(302, "Found. Redirecting")
                .with("Location", storage)
                .with("ETag", "\"of-the-redirect\"")
                .with("X-Linked-ETag", format!("\"{}\"", file.tag()))
                .with("X-Linked-Size", (file.content.len() as u64).wrapping_add(longer).to_string())
        } else {
            content(request, file, fault).with("ETag", format!("W/\"{}\"", file.tag()))
        };
        if file.xet {
            reply = reply.with("X-Xet-Hash", "b".repeat(64));
        }
        reply.with("X-Repo-Commit", &self.commit)
    }

    fn storage(&self, request: &Request, fault: Option<&Fault>) -> Reply {
        let tag = request.target.trim_start_matches('/').split('?').next().unwrap_or("");
        match self.files.values().find(|file| file.tag() == tag) {
            Some(file) => content(request, file, fault).with("ETag", "\"of-the-storage-host\""),
            None => Reply::new(403, "the signature is wrong"),
        }
    }

    /// `owner/name/tree/revision`, with the owner missing in old repositories.
    fn tree(&self, rest: &str) -> Reply {
        let repository = rest.split("/tree/").next().unwrap_or("");
        let files = self.files.iter().filter(|((known, _), _)| known == repository);
        let entries: Vec<_> = files
            .map(|((_, path), file)| {
                let size = file.content.len();
                format!(r#"{{"type":"file","oid":"{}","size":{size},"path":"{path}"}}"#, file.tag())
            })
            .collect();
        match entries.is_empty() {
            true => Reply::new(404, "").with("X-Error-Code", "RepoNotFound"),
            false => Reply::new(200, format!("[{}]", entries.join(","))).with("Content-Type", "application/json"),
        }
    }
}

/// A file's bytes: all or, if a range is asked for, those from its start on.
fn content(request: &Request, file: &Stored, fault: Option<&Fault>) -> Reply {
    if request.header("accept-encoding").is_some_and(|accepted| accepted.contains("gzip")) {
        return Reply::new(200, gzip(&file.content)).with("Content-Encoding", "gzip");
    }
    let mut bytes = file.content.clone();
    if let Some(Fault::WrongBytes) = fault {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let total = bytes.len();
    let start = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match (start, fault) {
        (None, _) | (_, Some(Fault::IgnoreRange)) => Reply::new(200, bytes),
        (Some(start), _) if start >= total => Reply::new(416, "").with("Content-Range", format!("bytes */{total}")),
        (Some(start), fault) => {
            let said = if let Some(Fault::WrongRange) = fault { start - 1 } else { start };
            let range = format!("bytes {said}-{}/{total}", total - 1);
            Reply::new(206, &bytes[start..]).with("Content-Range", range)
        }
    }
}

/// The gzip format of RFC 1952, with the content in stored blocks: no smaller, but not the content either.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for block in content.chunks(0xffff) {
        let length = block.len() as u16;
        packed.push(0);
        packed.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        packed.extend(block);
    }
    packed.extend([1, 0, 0, 0xff, 0xff]);
    packed.extend(crc32(content).to_le_bytes());
    packed.extend((content.len() as u32).to_le_bytes());
    packed
}

fn crc32(content: &[u8]) -> u32 {
    let shift = |crc: u32, _| {
        if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
    };
    !content.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

/// Undoes percent encoding.
fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).unwrap()
}
