//! A door before an open registry: it asks for tokens as hosted registries do, breaks connections, or is reached by a
//! name that is not loopback's. Requests that it lets through are answered by the real registry.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::registry::DockerRegistry;

/// base64 of `tester:not-a-secret`
const BASIC: &str = "Basic dGVzdGVyOm5vdC1hLXNlY3JldA==";

/// A running door; it goes with the test's process.
#[derive(Debug)]
pub struct Gate {
    port: u16,
    host: Ipv4Addr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    upstream: String,
    own: String,
    tokens: bool,
    cuts: AtomicUsize,
    holds: Option<Hold>,
    log: Mutex<Vec<String>>,
    introduced: Mutex<Vec<String>>,
}

/// What waits for something else to be asked for, both as parts of `METHOD PATH`.
#[derive(Debug)]
struct Hold {
    held: String,
    until: String,
}

impl Gate {
    /// A token server in front of `registry` (distribution specification, "Token Authentication"): only for the user
    /// of [`crate::RegistryAccess::Password`], and only for the scope that was asked for.
    pub fn with_tokens(registry: &DockerRegistry) -> Self {
        Self::start(registry, Ipv4Addr::LOCALHOST, true, 0, None)
    }

    /// The first `cuts` answers to requests for content break off after some bytes.
    pub fn breaking(registry: &DockerRegistry, cuts: usize) -> Self {
        Self::start(registry, Ipv4Addr::LOCALHOST, false, cuts, None)
    }

    /// A proxy: whatever host is asked for, the registry answers. Its address is that of [`Gate::proxy`].
    pub fn for_any_host(registry: &DockerRegistry) -> Self {
        Self::start(registry, Ipv4Addr::LOCALHOST, false, 0, None)
    }

    /// Reached as `0.0.0.0`: on this machine, and no loopback by its name.
    pub fn unspecified(registry: &DockerRegistry) -> Self {
        Self::start(registry, Ipv4Addr::UNSPECIFIED, false, 0, None)
    }

    /// Requests with `held` in `METHOD PATH` are answered after one with `until` has come, and refused where none comes in 20 seconds.
    pub fn holding(registry: &DockerRegistry, held: &str, until: &str) -> Self {
        let hold = Hold { held: held.to_owned(), until: until.to_owned() };
        Self::start(registry, Ipv4Addr::LOCALHOST, false, 0, Some(hold))
    }

    fn start(
        registry: &DockerRegistry,
        host: Ipv4Addr,
        tokens: bool,
        cuts: usize,
        holds: Option<Hold>,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("take a port");
        let port = listener.local_addr().expect("the address of a listener").port();
        let state = Arc::new(State {
            upstream: registry.address(),
            own: format!("{host}:{port}"),
            tokens,
            cuts: cuts.into(),
            holds,
            log: Mutex::default(),
            introduced: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                thread::spawn(move || state.serve(stream));
            }
        });
        Self { port, host, state }
    }

    /// `HOST:PORT/NAME`
    pub fn reference(&self, name: &str) -> String {
        format!("{}:{}/{name}", self.host, self.port)
    }

    /// `http://HOST:PORT`, as `HTTP_PROXY` has it.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.state.own)
    }

    /// The Docker configuration (`config.json`) with the credentials that get tokens.
    pub fn docker_config(&self) -> String {
        let auth = BASIC.trim_start_matches("Basic ");
        format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", self.state.own)
    }

    /// `METHOD PATH` of each request so far.
    pub fn log(&self) -> Vec<String> {
        self.state.log.lock().expect("the log").clone()
    }

    /// Those of the log that came with name and password for a proxy, these before them as the header has them.
    pub fn introduced(&self) -> Vec<String> {
        self.state.introduced.lock().expect("the log").clone()
    }
}

impl State {
    /// One request; the connection ends with its answer.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut head = String::new();
        loop {
            match reader.read_line(&mut head) {
                Ok(3..) => {}
                Ok(_) => break,
                // What is no text is TLS, and is answered as other servers do.
                Err(_) => return answer(&mut stream, "400 Bad Request", "", ""),
            }
        }
        let mut lines = head.trim_end().lines();
        let first = lines.next()?.to_owned();
        let (method, asked) = (first.split(' ').next()?, first.split(' ').nth(1)?);
        self.log.lock().ok()?.push(format!("{method} {asked}"));
        // Proxies are asked for a whole address (RFC 9112, "absolute-form").
        let path = asked.strip_prefix("http://").map_or(asked, |rest| &rest[rest.find('/').unwrap_or(0)..]);
        let first = first.replacen(asked, path, 1);
        let (mut sent, mut authorization) = (format!("{first}\r\nConnection: close\r\n"), "");
        for line in lines {
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value,
                Some((name, _)) if name.eq_ignore_ascii_case("connection") => {}
                Some((name, value)) if name.eq_ignore_ascii_case("proxy-authorization") => {
                    self.introduced.lock().ok()?.push(format!("{value} {method} {asked}"));
                }
                _ => sent.push_str(&format!("{line}\r\n")),
            }
        }
        if path.starts_with("/token") {
            let (status, body) = match authorization == BASIC {
                true => ("200 OK", format!("{{\"token\":\"{}\"}}", token(scope_of(path)))),
                false => ("401 Unauthorized", "{}".to_owned()),
            };
            return answer(&mut stream, status, "", &body);
        }
        let scope = scope(method, path);
        if self.tokens && !allows(authorization, &scope) {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"gate\",scope=\"{scope}\"\r\n",
                self.own
            );
            let body =
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
            return answer(&mut stream, "401 Unauthorized", &challenge, body);
        }
        if !self.holds.as_ref().is_none_or(|hold| self.let_go(hold, &format!("{method} {path}"))) {
            return answer(&mut stream, "403 Forbidden", "", "{}");
        }
        let mut upstream = TcpStream::connect(&self.upstream).ok()?;
        upstream.write_all(format!("{sent}\r\n").as_bytes()).ok()?;
        let mut to = upstream.try_clone().ok()?;
        thread::spawn(move || std::io::copy(&mut reader, &mut to));
        let cut = method == "GET" && path.contains("/blobs/");
        let less = |cuts: usize| cuts.checked_sub(1);
        let limit = match cut && self.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            true => 200_000,
            false => u64::MAX,
        };
        std::io::copy(&mut upstream.take(limit), &mut stream).ok()?;
        stream.shutdown(std::net::Shutdown::Both).ok()
    }
}

impl State {
    /// Whether a request may be answered, after a while perhaps.
    fn let_go(&self, hold: &Hold, asked: &str) -> bool {
        let has_come = || self.log.lock().is_ok_and(|log| log.iter().any(|line| line.contains(&hold.until)));
        let began = Instant::now();
        while asked.contains(&hold.held) && !has_come() {
            if began.elapsed() > Duration::from_secs(20) {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &str) -> Option<()> {
    let length = body.len();
    let kind = "Content-Type: application/json\r\nConnection: close";
    write!(stream, "HTTP/1.1 {status}\r\n{headers}{kind}\r\nContent-Length: {length}\r\n\r\n{body}").ok()
}

/// What a request needs leave for; nothing can be had for `/v2/` itself, where clients ask how to get tokens.
fn scope(method: &str, path: &str) -> String {
    let rest = path.trim_start_matches("/v2/");
    let end = rest.find("/manifests/").or_else(|| rest.find("/blobs/")).unwrap_or(0);
    let acts = if matches!(method, "GET" | "HEAD") { "pull" } else { "pull,push" };
    format!("repository:{}:{acts}", &rest[..end])
}

/// The scope in a request for a token, percent-encoding undone as far as it occurs.
fn scope_of(path: &str) -> String {
    let scope = path.split(['?', '&']).find_map(|pair| pair.strip_prefix("scope=")).unwrap_or_default();
    scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")
}

/// Opaque to clients: the scope in hexadecimal digits.
fn token(scope: String) -> String {
    scope.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn allows(authorization: &str, scope: &str) -> bool {
    let wider = format!("{scope},push");
    [scope, &wider].iter().any(|scope| authorization == format!("Bearer {}", token((*scope).to_owned())))
}
