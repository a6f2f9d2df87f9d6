//! A registry in this process, with faults.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    pub(super) manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub(super) log: Vec<String>,
    /// Connections to cut in the middle of a blob.
    pub(super) cuts: usize,
    /// Requests to answer with 503.
    pub(super) troubles: usize,
    pub(super) ranges: bool,
    /// Each connection brings 64 KiB in this time.
    pub(super) pace: Option<Duration>,
    /// Answers to ranges with an end to cut in the middle.
    pub(super) part_cuts: usize,
    /// `Range` of the requests that had one.
    pub(super) ranges_asked: Vec<String>,
    pub(super) basic: Option<String>,
    pub(super) bearer: bool,
    pub(super) read_only: bool,
    /// Where tokens are to be had, if not here.
    pub(super) realm: Option<String>,
    /// The only identity token that is taken, and what is answered to it.
    pub(super) identity: (&'static str, &'static str),
    /// Status of all answers of the token server.
    pub(super) token_status: Option<u16>,
    /// Where content is, if not here.
    pub(super) elsewhere: Option<String>,
    /// Where content is to be sent to, if not here.
    pub(super) uploads: Option<&'static str>,
    /// What was shown with each request.
    pub(super) authorizations: Vec<String>,
    /// What the token server was sent.
    pub(super) forms: Vec<String>,
    /// Answers to manifests lack the Location that the specification asks for, as those of some registries do.
    pub(super) nowhere: bool,
    /// It is no registry.
    pub(super) gone: bool,
    /// Questions to `/v2/` after which that names a token server; other requests are answered as before.
    pub(super) honest: Option<usize>,
    /// Answers without end: how their path ends, and their status.
    pub(super) endless: Option<(&'static str, u16)>,
    /// Bytes of them that went out.
    pub(super) flood: u64,
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

pub(super) struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

pub(super) struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    cut: bool,
}

pub(super) fn answer(status: u16) -> Answer {
    Answer { status, headers: Vec::new(), body: Vec::new(), cut: false }
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start(state: State) -> Self {
        Self::start_at("127.0.0.1", state)
    }

    pub(super) fn start_at(address: &str, state: State) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
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
            let pace = self.state.lock().unwrap().pace;
            for piece in answer.body[..end].chunks(1 << 16) {
                thread::sleep(pace.unwrap_or_default());
                stream.write_all(piece).ok()?;
            }
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
                let range = request.headers.get("range").filter(|_| state.ranges).map(|range| {
                    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                    (from.parse::<usize>().unwrap(), to.parse::<usize>().map_or(blob.len(), |last| last + 1))
                });
                let (from, to) = range.unwrap_or((0, blob.len()));
                found.body = blob[from..to].to_vec();
                if range.is_some() {
                    found.status = 206;
                    found.headers.push(format!("Content-Range: bytes {from}-{}/{}", to - 1, blob.len()));
                    if to < blob.len() && state.part_cuts > 0 {
                        state.part_cuts -= 1;
                        found.cut = true;
                    }
                }
                if state.cuts > 0 && request.method == "GET" {
                    state.cuts -= 1;
                    found.cut = true;
                }
                found
            }
        }
    }

    pub(super) fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }

    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

pub(super) fn located(status: u16, place: &str) -> Answer {
    let mut answer = answer(status);
    answer.headers.push(format!("Location: {place}"));
    answer
}

pub(super) fn read_request(stream: &TcpStream) -> Option<Request> {
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
