//! Requests that read. A registry may say how long an answer is, or nothing, and go on for ever: no more is taken than an honest
//! answer has.

use oci_client::errors::{OciDistributionError, OciEnvelope};
use oci_client::secrets::RegistryAuth;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};

use super::client::Greetings;
use super::identity;
use crate::document::media;
use crate::limits;

const DOCUMENTS: [&str; 4] =
    [media::OCI_MANIFEST, media::DOCKER_MANIFEST, media::OCI_INDEX, media::DOCKER_INDEX];

/// Where registries say what they take a manifest's digest to be.
const DIGEST: &str = "Docker-Content-Digest";

/// Of what a registry says when it does not do as asked, bytes.
const COMPLAINT: usize = 64 << 10;

/// One repository, as whoever may use it.
pub(super) struct Repository {
    pub(super) client: Client,
    /// Host, with port if any.
    pub(super) registry: String,
    /// As `https://registry.example/v2/team/app`.
    pub(super) url: String,
    pub(super) auth: RegistryAuth,
    pub(super) greetings: Greetings,
}

/// What a registry sent as a manifest.
pub(super) enum Manifest {
    /// With its digest, where the registry says it.
    Whole(Vec<u8>, Option<String>),
    TooLong,
}

impl Repository {
    /// The manifest of a tag or digest.
    pub(super) async fn manifest(&self, name: &str) -> Result<Manifest, OciDistributionError> {
        let request = self.request(Method::GET, "manifests", name)?.header(ACCEPT, DOCUMENTS.join(", "));
        let mut response = granted(self.sent(request).await?).await?;
        let digest = response.headers().get(DIGEST).and_then(|value| value.to_str().ok().map(str::to_owned));
        let limit = usize::try_from(limits::MANIFEST).unwrap_or(usize::MAX);
        Ok(match body(&mut response, limit).await? {
            (bytes, true) => Manifest::Whole(bytes, digest),
            (_, false) => Manifest::TooLong,
        })
    }

    /// Whether there is a manifest of this tag or digest, or why it is not shown.
    pub(super) async fn has_manifest(&self, name: &str) -> Result<(), OciDistributionError> {
        let request =
            |method| Ok(self.request(method, "manifests", name)?.header(ACCEPT, DOCUMENTS.join(", ")));
        let asked: Result<RequestBuilder, OciDistributionError> = request(Method::HEAD);
        if self.sent(asked?).await?.status().is_success() {
            return Ok(());
        }
        // An answer without a body does not say why.
        let asked: Result<RequestBuilder, OciDistributionError> = request(Method::GET);
        granted(self.sent(asked?).await?).await.map(drop)
    }

    pub(super) async fn has_blob(&self, digest: &str) -> Result<bool, OciDistributionError> {
        let response = self.sent(self.request(Method::HEAD, "blobs", digest)?).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => Ok(response.error_for_status().map(|_| true)?),
        }
    }

    /// Content from this byte on, and how much of what comes lies before it.
    pub(super) async fn blob(
        &self,
        digest: &str,
        offset: u64,
    ) -> Result<(Response, u64), OciDistributionError> {
        let mut request = self.request(Method::GET, "blobs", digest)?;
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = granted(self.sent(request).await?).await?;
        let skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { offset };
        Ok((response, skip))
    }

    /// The bytes from the first of these to before the second; a registry without ranges sends everything.
    pub(super) async fn blob_part(
        &self,
        digest: &str,
        from: u64,
        to: u64,
    ) -> Result<Response, OciDistributionError> {
        let range = format!("bytes={from}-{}", to - 1);
        granted(self.request(Method::GET, "blobs", digest)?.header(RANGE, range).send().await?).await
    }

    pub(super) fn request(
        &self,
        method: Method,
        kind: &str,
        name: &str,
    ) -> Result<RequestBuilder, OciDistributionError> {
        self.with_access(self.client.request(method, format!("{}/{kind}/{name}", self.url)))
    }

    /// The answer to a request. A registry that refuses says where access is to be had; who it has sent us to does not.
    pub(super) async fn sent(&self, request: RequestBuilder) -> Result<Response, OciDistributionError> {
        let response = request.send().await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && self.is_of(response.url())
            && let Some(challenge) = identity::challenge(response.headers())
        {
            self.greetings.hear(&self.registry, Some(challenge));
        }
        Ok(response)
    }

    /// Shows the registry what lets it do as asked.
    pub(super) fn with_access(
        &self,
        request: RequestBuilder,
    ) -> Result<RequestBuilder, OciDistributionError> {
        Ok(match &self.auth {
            RegistryAuth::Anonymous => request,
            RegistryAuth::Basic(user, password) => request.basic_auth(user, Some(password)),
            RegistryAuth::Bearer(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                    OciDistributionError::AuthenticationFailure("the access token is none".to_owned())
                })?;
                value.set_sensitive(true);
                request.header(AUTHORIZATION, value)
            }
        })
    }
}

/// The answer, if the registry does as asked.
pub(super) async fn granted(mut response: Response) -> Result<Response, OciDistributionError> {
    let (status, url) = (response.status(), response.url().to_string());
    if status.is_success() {
        return Ok(response);
    }
    if status == StatusCode::UNAUTHORIZED {
        return Err(OciDistributionError::UnauthorizedError { url });
    }
    let (text, _) = body(&mut response, COMPLAINT).await?;
    Err(match serde_json::from_slice::<OciEnvelope>(&text) {
        Ok(envelope) if status.is_client_error() => OciDistributionError::RegistryError { envelope, url },
        _ => {
            let message = String::from_utf8_lossy(&text).into_owned();
            OciDistributionError::ServerError { code: status.as_u16(), url, message }
        }
    })
}

/// At most so many bytes, and whether that is all.
async fn body(response: &mut Response, limit: usize) -> Result<(Vec<u8>, bool), OciDistributionError> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        let left = limit - bytes.len();
        bytes.extend_from_slice(piece.get(..left).unwrap_or(&piece));
        if piece.len() > left {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}
