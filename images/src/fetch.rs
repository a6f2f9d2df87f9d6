//! One file by its URL: in TLS, or in plain HTTP from this machine's own ports.

use std::io::{self, Write};
use std::time::Duration;

use reqwest::{StatusCode, Url, redirect};

use crate::registry::near::{Apart, Lead, Named};
use crate::registry::owner::redirections;

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URL, or one that anybody on the way could answer.
    #[error("`{0}` cannot be fetched: it must be a URL that begins with https://")]
    Url(String),
    /// Nobody answers, or something broke off.
    #[error("cannot fetch {url}")]
    Request {
        /// The file.
        url: String,
        /// Cause.
        #[source]
        source: reqwest::Error,
    },
    /// The server does not have it, or does not give it away.
    #[error("cannot fetch {url}: the server answers {status}")]
    Status {
        /// The file.
        url: String,
        /// Its answer.
        status: StatusCode,
    },
    /// More than such a file may have.
    #[error("{url} is over the limit of {limit} bytes")]
    TooLarge {
        /// The file.
        url: String,
        /// How much is allowed.
        limit: u64,
    },
    /// There is no place for it.
    #[error("cannot keep what is fetched of {url}")]
    Write {
        /// The file.
        url: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Fetches a file of at most `limit` bytes. No credentials are sent.
///
/// # Errors
///
/// [`FetchError`]; then part of the file may have been written.
pub fn fetch(url: &str, limit: u64, to: &mut impl Write) -> Result<(), FetchError> {
    let (parsed, is_own) = fetchable(url)?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let request = |source| FetchError::Request { url: url.to_owned(), source };
    let write = |source| FetchError::Write { url: url.to_owned(), source };
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_secs(60))
        .https_only(!is_own)
        .dns_resolver(Apart::new(&Named::new(&host), Lead::Content))
        .redirect(if is_own { redirect::Policy::none() } else { redirections(&host) });
    if is_own {
        client = client.no_proxy();
    }
    let client = client.build().map_err(request)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(write)?;
    runtime.block_on(async {
        let mut answer = client.get(parsed).send().await.map_err(request)?;
        if !answer.status().is_success() {
            return Err(FetchError::Status { url: url.to_owned(), status: answer.status() });
        }
        let mut left = limit;
        while let Some(piece) = answer.chunk().await.map_err(request)? {
            let over = || FetchError::TooLarge { url: url.to_owned(), limit };
            left = left.checked_sub(piece.len() as u64).ok_or_else(over)?;
            to.write_all(&piece).map_err(write)?;
        }
        Ok(())
    })
}

/// Whether [`fetch`] would ask for a file there; it is not asked.
///
/// # Errors
///
/// [`FetchError::Url`].
pub fn check_url(url: &str) -> Result<(), FetchError> {
    fetchable(url).map(|_| ())
}

/// The URL, and whether it is of this machine's own ports.
fn fetchable(url: &str) -> Result<(Url, bool), FetchError> {
    let refused = || FetchError::Url(url.to_owned());
    let parsed = Url::parse(url).map_err(|_| refused())?;
    let is_own = matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    let is_safe = parsed.scheme() == "https" || (is_own && parsed.scheme() == "http");
    if is_safe { Ok((parsed, is_own)) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    /// Answers one request so; gives the URL of a file there.
    fn served(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    #[test]
    fn a_file_comes_whole_or_its_failure_is_told() {
        let fetched = |url: &str| {
            let mut bytes = Vec::new();
            fetch(url, 4, &mut bytes).map(|()| bytes).map_err(|error| error.to_string())
        };
        let url = served("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfile");
        assert_eq!(fetched(&url), Ok(b"file".to_vec()));
        let url = served("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlarge");
        assert_eq!(fetched(&url), Err(format!("{url} is over the limit of 4 bytes")));
        let url = served("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(fetched(&url), Err(format!("cannot fetch {url}: the server answers 404 Not Found")));
        // Whoever answers in plain HTTP is not asked further.
        let url = served("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(fetched(&url), Err(format!("cannot fetch {url}: the server answers 302 Found")));
        let url = served("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfi");
        assert_eq!(fetched(&url), Err(format!("cannot fetch {url}")));
        for url in ["http://r.example/file", "file:///etc/passwd", "nothing"] {
            let expected = format!("`{url}` cannot be fetched: it must be a URL that begins with https://");
            assert_eq!(fetched(url), Err(expected));
        }
    }
}
