//! A registry in this process, with faults.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

mod endless;
mod identity;
mod known;
mod passwords;
mod uploads;

use super::*;
use crate::auth::Credentials;
use crate::config::Config;
use crate::document::{Descriptor, media};

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    log: Vec<String>,
    /// Connections to cut in the middle of a blob.
    cuts: usize,
    /// Requests to answer with 503.
    troubles: usize,
    ranges: bool,
    /// `Range` of the requests that had one.
    ranges_asked: Vec<String>,
    basic: Option<String>,
    bearer: bool,
    read_only: bool,
    /// Where tokens are to be had, if not here.
    realm: Option<String>,
    /// The only identity token that is taken, and what is answered to it.
    identity: (&'static str, &'static str),
    /// Status of all answers of the token server.
    token_status: Option<u16>,
    /// Where content is, if not here.
    elsewhere: Option<String>,
    /// Where content is to be sent to, if not here.
    uploads: Option<&'static str>,
    /// What was shown with each request.
    authorizations: Vec<String>,
    /// What the token server was sent.
    forms: Vec<String>,
    /// Answers to manifests lack the Location that the specification asks for, as those of some registries do.
    nowhere: bool,
    /// It is no registry.
    gone: bool,
    /// Questions to `/v2/` after which that names a token server; other requests are answered as before.
    honest: Option<usize>,
    /// Answers without end: how their path ends, and their status.
    endless: Option<(&'static str, u16)>,
    /// Bytes of them that went out.
    flood: u64,
}

impl State {
    /// Whether `/v2/` is asked more often than it is honest.
    fn is_other_from_now_on(&mut self) -> bool {
        match &mut self.honest {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    cut: bool,
}

fn answer(status: u16) -> Answer {
    Answer { status, headers: Vec::new(), body: Vec::new(), cut: false }
}

#[derive(Clone)]
struct Server {
    host: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = Self { host, state: Arc::new(Mutex::new(state)) };
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let Some(request) = read_request(&stream) else {
            // What is no text is TLS, and is answered as other servers do.
            return stream.write_all(b"HTTP/1.1 400 X\r\n\r\n").ok();
        };
        let endless = self.state.lock().unwrap().endless;
        if let Some((_, status)) = endless.filter(|(end, _)| request.path.ends_with(end)) {
            return self.flood(stream, status);
        }
        let answer = self.answer(&request);
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
        head += &format!("Content-Length: {}\r\n", answer.body.len());
        for header in &answer.headers {
            head += &format!("{header}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        let end = if answer.cut { answer.body.len() / 2 } else { answer.body.len() };
        if request.method != "HEAD" {
            stream.write_all(&answer.body[..end]).ok()?;
        }
        Some(())
    }

    /// Sends until the client has had enough, or 256 MiB.
    fn flood(&self, mut stream: TcpStream, status: u16) -> Option<()> {
        stream.write_all(format!("HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let piece = [b' '; 1 << 16];
        for _ in 0..1 << 12 {
            stream.write_all(&piece).ok()?;
            self.state.lock().unwrap().flood += piece.len() as u64;
        }
        Some(())
    }

    fn answer(&self, request: &Request) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.log.push(format!("{} {}", request.method, request.path));
        let authorization = request.headers.get("authorization").cloned().unwrap_or_default();
        state.authorizations.push(authorization.clone());
        if request.path.starts_with("/token") {
            if let Some(status) = state.token_status {
                let mut elsewhere = answer(status);
                elsewhere.headers.push(format!("Location: {}", state.realm.clone().unwrap_or_default()));
                return elsewhere;
            }
            if request.method == "POST" {
                let form = String::from_utf8_lossy(&request.body).into_owned();
                let (wanted, body) = state.identity;
                let good = form.split('&').any(|pair| pair == format!("refresh_token={wanted}"));
                state.forms.push(form);
                let mut token = answer(if good { 200 } else { 400 });
                token.body = if good { body.as_bytes().to_vec() } else { Vec::new() };
                return token;
            }
            let good = state.basic.as_ref().is_none_or(|basic| *basic == authorization);
            let mut token = answer(if good { 200 } else { 401 });
            token.body = br#"{"token":"opaque"}"#.to_vec();
            return token;
        }
        if request.path == "/v2/" && state.is_other_from_now_on() {
            let mut other = answer(401);
            let realm = state.realm.clone().unwrap_or_default();
            other.headers.push(format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"x\""));
            return other;
        }
        let (allowed, challenge) = if state.bearer {
            (
                authorization == "Bearer opaque",
                match &state.realm {
                    Some(realm) => format!("Bearer realm=\"{realm}\",service=\"x\""),
                    None => format!("Bearer realm=\"http://{}/token\",service=\"x\"", self.host),
                },
            )
        } else {
            (state.basic.as_ref().is_none_or(|basic| *basic == authorization), "Basic realm=\"x\"".to_owned())
        };
        if !allowed {
            let mut refused = answer(401);
            refused.headers.push(format!("WWW-Authenticate: {challenge}"));
            return refused;
        }
        if state.troubles > 0 && request.path != "/v2/" {
            state.troubles -= 1;
            return answer(503);
        }
        if state.read_only && !matches!(request.method.as_str(), "GET" | "HEAD") {
            return answer(403);
        }
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        if path == "/v2/" {
            return answer(if state.gone { 404 } else { 200 });
        }
        if let Some(elsewhere) = state.elsewhere.as_ref().filter(|_| path.contains("/blobs/sha256:")) {
            return located(307, &format!("{elsewhere}{path}"));
        }
        match (request.method.as_str(), path.rsplit_once('/').unwrap()) {
            ("GET" | "HEAD", (folder, name)) if folder.ends_with("/manifests") => {
                let Some((kind, body)) = state.manifests.get(name) else { return answer(404) };
                let mut found = answer(200);
                found.headers.push(format!("Content-Type: {kind}"));
                found.headers.push(format!("Docker-Content-Digest: {}", Digest::of(body)));
                found.body.clone_from(body);
                found
            }
            ("PUT", (folder, name)) if folder.ends_with("/manifests") => {
                let kind = request.headers.get("content-type").cloned().unwrap_or_default();
                state.manifests.insert(name.to_owned(), (kind, request.body.clone()));
                if state.nowhere { answer(201) } else { located(201, &path) }
            }
            ("POST", _) => match state.uploads {
                Some("") => answer(202),
                Some(place) => located(202, place),
                None => located(202, &format!("http://{}/v2/app/blobs/uploads/1", self.host)),
            },
            ("PUT", _) => {
                let digest = request.path.split("digest=").nth(1).unwrap().replace("%3A", ":");
                if Digest::of(&request.body).as_str() != digest {
                    return answer(400);
                }
                state.blobs.insert(digest, request.body.clone());
                located(201, &path)
            }
            (_, (_, name)) => {
                let Some(blob) = state.blobs.get(name).cloned() else { return answer(404) };
                let mut found = answer(200);
                state.ranges_asked.extend(request.headers.get("range").cloned());
                let offset = request.headers.get("range").filter(|_| state.ranges).map(|range| {
                    range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
                });
                found.body = blob[offset.unwrap_or(0)..].to_vec();
                if let Some(offset) = offset {
                    found.status = 206;
                    found.headers.push(format!("Content-Range: bytes {offset}-/{}", blob.len()));
                }
                if state.cuts > 0 && request.method == "GET" {
                    state.cuts -= 1;
                    found.cut = true;
                }
                found
            }
        }
    }

    fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn located(status: u16, place: &str) -> Answer {
    let mut answer = answer(status);
    answer.headers.push(format!("Location: {place}"));
    answer
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

fn registry(auth: AuthFile) -> Registry {
    Registry::new(RegistryOptions { auth, ..RegistryOptions::default() }).unwrap()
}

fn with_basic(host: &str) -> AuthFile {
    let mut auth = AuthFile::default();
    auth.insert(host, Credentials::Basic { user: "u".into(), password: "p".to_owned().into() });
    auth
}

const BASIC: &str = "Basic dTpw";

fn image() -> Image {
    let config = Config { architecture: "amd64".into(), os: "linux".into(), ..Config::default() };
    Image::assemble(config, Vec::new()).unwrap()
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Pushes an image and reads it back.
fn round(server: &Server, registry: &Registry) -> Result<(), RegistryError> {
    let name = server.name("team/app:1");
    registry.push_image(&name, &image())?;
    let read = registry.image(&name, &platform())?;
    assert_eq!((&read.digest, read.reference), (&image().digest, Some(name.clone())));
    let pinned = name.with_digest(image().digest);
    server
        .state
        .lock()
        .unwrap()
        .manifests
        .insert(image().digest.to_string(), (media::OCI_MANIFEST.to_owned(), image().manifest_bytes));
    assert_eq!(registry.image(&pinned, &platform())?.digest, image().digest);
    Ok(())
}

#[test]
fn push_and_pull() {
    let server = Server::start(State::default());
    let registry = registry(AuthFile::default());
    round(&server, &registry).unwrap();
    let name = server.name("team/app:1");
    assert_eq!(registry.push_bytes(&name, &image().config_bytes).unwrap(), Pushed::Present);
    assert!(registry.blob_exists(&name, &image().manifest.config.digest).unwrap());
    assert!(!registry.blob_exists(&name, &Digest::of("none")).unwrap());
    assert!(!registry.mount_blob(&name, &server.name("other"), &Digest::of("x")).unwrap());
    assert_eq!(registry.find_image(&server.name("team/app:none"), &platform()).unwrap(), None);
    assert!(registry.can_read(&name).unwrap() && !registry.can_read(&server.name("app:none")).unwrap());
    assert!(registry.can_write(&name).unwrap());
}

#[test]
fn credentials() {
    for bearer in [false, true] {
        let state = State { basic: Some(BASIC.into()), bearer, ..State::default() };
        let server = Server::start(state);
        round(&server, &registry(with_basic(&server.host))).unwrap();
        let stranger = registry(with_basic("other.example.org"));
        let error = stranger.image(&server.name("team/app:1"), &platform()).unwrap_err();
        assert!(error.is_denied(), "{error:?}");
        assert!(!stranger.can_write(&server.name("team/app:1")).unwrap());
    }
}

#[test]
fn a_manifest_by_tag_and_by_digest() {
    for nowhere in [false, true] {
        let server = Server::start(State { nowhere, ..State::default() });
        let registry = registry(AuthFile::default());
        let digest = image().digest;
        for (name, path) in [
            (server.name("app:1"), "app/manifests/1".to_owned()),
            (server.name("app").with_digest(Digest::of("other")), format!("app/manifests/{digest}")),
        ] {
            let pushed = registry.push_manifest(&name, &image().manifest_bytes, media::OCI_MANIFEST);
            assert_eq!(pushed.unwrap(), digest);
            assert_eq!(server.log().last(), Some(&format!("PUT /v2/{path}")));
        }
    }
}

#[test]
fn read_only() {
    let server = Server::start(State { read_only: true, ..State::default() });
    let registry = registry(AuthFile::default());
    assert!(!registry.can_write(&server.name("app")).unwrap());
    // Seeing that the content is there already is no leave to write.
    let (digest, content) = (Digest::of(EMPTY_VALUE).to_string(), EMPTY_VALUE.to_vec());
    server.state.lock().unwrap().blobs.insert(digest, content);
    assert!(!registry.can_write(&server.name("app")).unwrap());
    assert!(registry.push_bytes(&server.name("app"), b"x").unwrap_err().is_denied());
}

fn large() -> Vec<u8> {
    (0..3_000_000u32).flat_map(u32::to_le_bytes).take(3_000_000).collect()
}

fn read_blob(server: &Server, descriptor: &Descriptor) -> std::io::Result<Vec<u8>> {
    let mut blob = registry(AuthFile::default()).blob(&server.name("app"), descriptor).unwrap();
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn broken_connections_are_resumed() {
    let digest = Digest::of(large());
    let descriptor = Descriptor::new("x", digest.clone(), large().len() as u64);
    for ranges in [true, false] {
        let blobs = BTreeMap::from([(digest.to_string(), large())]);
        let server = Server::start(State { blobs, cuts: 2, ranges, ..State::default() });
        assert_eq!(read_blob(&server, &descriptor).unwrap(), large(), "ranges: {ranges}");
        assert_eq!(server.log().iter().filter(|line| line.contains("/blobs/")).count(), 3);
        // Each time from where it broke, half of what was left.
        let asked = server.state.lock().unwrap().ranges_asked.clone();
        assert_eq!(asked, ["bytes=1500000-", if ranges { "bytes=2250000-" } else { "bytes=1500000-" }]);
    }
    let blobs = BTreeMap::from([(digest.to_string(), large())]);
    let server = Server::start(State { blobs, troubles: 2, ..State::default() });
    assert_eq!(read_blob(&server, &descriptor).unwrap(), large());
}

/// Each answer is half of what is left. A connection that brings something each time may break often, one that does not may not.
#[test]
fn a_large_layer_may_break_often_and_one_that_does_not_come_only_a_few_times() {
    for (size, cuts, comes) in [(16 << 20, 8, true), (1 << 10, 8, false)] {
        let content = vec![7; size];
        let descriptor = Descriptor::new("x", Digest::of(&content), size as u64);
        let blobs = BTreeMap::from([(descriptor.digest.to_string(), content.clone())]);
        let server = Server::start(State { blobs, cuts, ranges: true, ..State::default() });
        assert_eq!(read_blob(&server, &descriptor).ok(), comes.then_some(content));
        let asked = server.log().iter().filter(|line| line.contains("/blobs/")).count();
        assert_eq!(asked, if comes { 1 + cuts } else { 1 + PAUSES.len() });
    }
}

#[test]
fn other_content_is_an_error() {
    let digest = Digest::of(large());
    let mut wrong = large();
    wrong[7] ^= 1;
    for (content, size) in [
        (wrong, large().len() as u64),
        (large(), large().len() as u64 - 1),
        ([large(), vec![0]].concat(), large().len() as u64),
    ] {
        let blobs = BTreeMap::from([(digest.to_string(), content)]);
        let server = Server::start(State { blobs, ..State::default() });
        let error = read_blob(&server, &Descriptor::new("x", digest.clone(), size)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    }
}

#[test]
fn other_manifest_is_an_error() {
    let server = Server::start(State::default());
    let wanted = Digest::of("something else");
    let entry = (media::OCI_MANIFEST.to_owned(), image().manifest_bytes);
    server.state.lock().unwrap().manifests.insert(wanted.to_string(), entry);
    let name = server.name("app").with_digest(wanted);
    assert!(registry(AuthFile::default()).image(&name, &platform()).is_err());
}

#[test]
fn index_by_platform() {
    let server = Server::start(State::default());
    let registry = registry(AuthFile::default());
    let name = server.name("app:1");
    registry.push_image(&name, &image()).unwrap();
    let mut entry = image().descriptor();
    entry.platform = Some(platform());
    let mut other = Descriptor::new(media::OCI_MANIFEST, Digest::of("arm"), 1);
    other.platform = Some("linux/arm64/v8".parse().unwrap());
    let index = Index { manifests: vec![other, entry], ..Index::default() };
    let bytes = serde_json::to_vec(&index).unwrap();
    registry.push_manifest(&name, &bytes, media::OCI_INDEX).unwrap();
    let manifest = (media::OCI_MANIFEST.to_owned(), image().manifest_bytes);
    server.state.lock().unwrap().manifests.insert(image().digest.to_string(), manifest);
    assert_eq!(registry.image(&name, &platform()).unwrap().digest, image().digest);
    let error = registry.image(&name, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("linux/arm64/v8, linux/amd64"), "{error}");
}

#[test]
fn certificates_one_by_one() {
    let one = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----";
    let text = format!("comment\n{one}\nmore\n{one}\nrest");
    assert_eq!(split_certificates(&text).len(), 2);
    assert!(split_certificates("nothing").is_empty());
}
