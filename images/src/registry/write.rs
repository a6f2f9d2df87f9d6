//! Requests that write. What a registry says to them is read as that to others: to its end, if that comes soon enough. Where content
//! is to be sent to is its word too, and followed as a redirection is.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use oci_client::errors::OciDistributionError;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::owner::is_apart;
use super::read::{Repository, granted};

/// The longest time in which nothing of an upload is taken. Registries with their storage elsewhere take a while for what has come.
const STALL: Duration = Duration::from_secs(300);

type Answer<T> = Result<T, OciDistributionError>;

/// Content on its way, a piece at a time.
pub(super) type Pieces = mpsc::Receiver<io::Result<Bytes>>;

impl Repository {
    /// Sends content of this size in one piece.
    pub(super) async fn send_blob(&self, digest: &str, size: u64, pieces: Pieces) -> Answer<()> {
        let began = self.request(Method::POST, "blobs", "uploads/")?.header(CONTENT_LENGTH, 0);
        let began = in_time(async { granted(self.sent(began).await?).await }).await?;
        self.upload(&began, digest, size, pieces).await
    }

    /// Sends content to where the registry wants it.
    async fn upload(&self, began: &Response, digest: &str, size: u64, pieces: Pieces) -> Answer<()> {
        let mut place = self.place(began)?;
        place.query_pairs_mut().append_pair("digest", digest);
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&taken);
        let body = unfold((pieces, counted), async |(mut pieces, counted)| {
            let piece = pieces.recv().await?;
            counted.fetch_add(1, Ordering::Relaxed);
            Some((piece, (pieces, counted)))
        });
        // To whoever the registry names instead of itself nothing is shown.
        let request = match self.is_of(&place) {
            true => self.with_access(self.client.put(place))?,
            false => self.client.put(place),
        };
        let request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size)
            .body(Body::wrap_stream(body));
        unless_stalled(&taken, STALL, async { granted(request.send().await?).await.map(drop) }).await
    }

    /// Takes content over from another repository; false if the registry does not.
    pub(super) async fn mount(&self, digest: &str, from: &str) -> Answer<bool> {
        Ok(self.mounted(digest, from).await?.status() == StatusCode::CREATED)
    }

    /// Takes content over. 202: an upload was begun instead, as the specification allows.
    async fn mounted(&self, digest: &str, from: &str) -> Answer<Response> {
        let request = self.request(Method::POST, "blobs", "uploads/")?.header(CONTENT_LENGTH, 0);
        let request = request.query(&[("mount", digest), ("from", from)]);
        in_time(async { granted(self.sent(request).await?).await }).await
    }

    /// Has the repository hold these few bytes, whether it holds them or not: they are taken over from itself, or else sent.
    pub(super) async fn ensure(&self, digest: &str, bytes: &'static [u8]) -> Answer<()> {
        let from = self.url.split_once("/v2/").map_or("", |(_, repository)| repository);
        let began = self.mounted(digest, from).await?;
        if began.status() == StatusCode::CREATED {
            return Ok(());
        }
        let (sender, pieces) = mpsc::channel(1);
        let _ = sender.send(Ok(Bytes::from_static(bytes))).await;
        drop(sender);
        self.upload(&began, digest, bytes.len() as u64, pieces).await
    }

    pub(super) async fn put_manifest(&self, name: &str, media_type: &str, bytes: Vec<u8>) -> Answer<()> {
        let kind = HeaderValue::from_str(media_type)
            .map_err(|_| OciDistributionError::UnsupportedMediaTypeError(media_type.to_owned()))?;
        let request = self.request(Method::PUT, "manifests", name)?.header(CONTENT_TYPE, kind).body(bytes);
        in_time(async { granted(self.sent(request).await?).await.map(drop) }).await
    }

    /// Where the registry wants content to be sent.
    fn place(&self, begun: &Response) -> Answer<Url> {
        let refused = |why: String| OciDistributionError::SpecViolationError(why);
        let header = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let header = header.ok_or_else(|| {
            refused("it began an upload and did not say where (its answer has no Location)".to_owned())
        })?;
        let place = begun.url().join(header).map_err(|error| refused(error.to_string()))?;
        follows(&self.url, &self.registry, &place).map_err(refused)?;
        Ok(place)
    }

    /// Whether this is the registry itself.
    pub(super) fn is_of(&self, place: &Url) -> bool {
        Url::parse(&self.url).is_ok_and(|own| own.origin() == place.origin())
    }
}

/// Why a place is not one for content of a registry that is spoken to at `own`.
fn follows(own: &str, registry: &str, place: &Url) -> Result<(), String> {
    let shown = place.origin().ascii_serialization();
    let wants = |why: &str| Err(format!("it wants content to be sent to {shown}{why}"));
    match place.scheme() {
        "https" => {}
        "http" if own.starts_with("http:") => {}
        "http" => return wants(", where everybody on the way could read it: nothing was"),
        _ => return Err(format!("it wants content to be sent to {place}, which is no web address")),
    }
    is_apart(place, registry).or_else(|why| wants(&format!(", and {why}: nothing was")))
}

fn late() -> OciDistributionError {
    let seconds = STALL.as_secs();
    let text = format!("the registry took nothing and said nothing for {seconds} seconds");
    io::Error::new(io::ErrorKind::TimedOut, text).into()
}

/// A request without much to send.
async fn in_time<T>(request: impl Future<Output = Answer<T>>) -> Answer<T> {
    timeout(STALL, request).await.unwrap_or_else(|_| Err(late()))
}

/// A request that is over when nothing more of it is `taken` for this long.
async fn unless_stalled<T>(
    taken: &AtomicU64,
    stall: Duration,
    request: impl Future<Output = Answer<T>>,
) -> Answer<T> {
    let mut request = pin!(request);
    loop {
        let before = taken.load(Ordering::Relaxed);
        tokio::select! {
            answer = &mut request => return answer,
            () = sleep(stall) => {
                if taken.load(Ordering::Relaxed) == before {
                    return Err(late());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_goes_where_nobody_on_the_way_reads_it_and_never_to_a_neighbour() {
        let place = |own: &str, place: &str| follows(own, "r.example", &Url::parse(place).unwrap());
        for (own, there) in [
            ("https://r.example", "https://r.example/v2/x"),
            ("https://r.example", "https://storage.example/x"),
            ("http://r.example", "http://r.example/x"),
        ] {
            assert_eq!(place(own, there), Ok(()), "{own} {there}");
        }
        for (there, why) in [
            ("http://r.example/x", "http://r.example, where everybody on the way could read it: nothing was"),
            ("ftp://r.example/x", "ftp://r.example/x, which is no web address"),
        ] {
            let text = format!("it wants content to be sent to {why}");
            assert_eq!(place("https://r.example", there), Err(text));
        }
        let near = place("https://r.example", "https://169.254.169.254/x").unwrap_err();
        assert!(near.starts_with("it wants content to be sent to https://169.254.169.254, and "), "{near}");
        assert!(near.ends_with(": nothing was"), "{near}");
    }

    #[test]
    fn an_upload_ends_when_nothing_of_it_is_taken_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let stall = Duration::from_millis(40);
        let taken = AtomicU64::new(0);
        let slow = async {
            for _ in 0..30 {
                sleep(stall / 10).await;
                taken.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        runtime.block_on(unless_stalled(&taken, stall, slow)).unwrap();
        let never = std::future::pending::<Answer<()>>();
        let error = runtime.block_on(unless_stalled(&taken, stall, never)).unwrap_err();
        let OciDistributionError::IoError(error) = error else { panic!("{error}") };
        assert_eq!(error.to_string(), "the registry took nothing and said nothing for 300 seconds");
    }
}
