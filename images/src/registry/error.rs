//! What registries answer when they do not do as asked.

use std::io;
use std::path::PathBuf;

use coracle_authorities::NOBODY;
use oci_client::errors::{OciDistributionError, OciErrorCode};

use super::identity::IdentityError;
use super::near;
use crate::digest::Digest;
use crate::image::ImageError;
use crate::reference::Reference;

/// What can go wrong with a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The certificates cannot be read.
    #[error("cannot read the certificates in {path}")]
    Certificates {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No threads.
    #[error("cannot start the threads that speak to registries")]
    Runtime(#[source] io::Error),
    /// There is no such image or repository.
    #[error("cannot {act} `{reference}`: the registry does not have it")]
    Missing {
        /// The deed.
        act: &'static str,
        /// The image.
        reference: String,
    },
    /// The registry wants other credentials.
    #[error("cannot {act} `{reference}`: the registry refuses access; log in to it and try again")]
    Denied {
        /// The deed.
        act: &'static str,
        /// The image.
        reference: String,
        /// Cause.
        #[source]
        source: Box<OciDistributionError>,
    },
    /// The registry's token server gives no access for the identity token.
    #[error("cannot {act} `{reference}`")]
    Identity {
        /// The deed.
        act: &'static str,
        /// The image.
        reference: String,
        /// Cause.
        #[source]
        source: Box<IdentityError>,
    },
    /// There is no trusted TLS to be had.
    #[error("cannot {act} `{reference}`: {advice}")]
    Tls {
        /// The deed.
        act: &'static str,
        /// The image.
        reference: String,
        /// What is wrong, and what to do.
        advice: String,
        /// Cause.
        #[source]
        source: Box<OciDistributionError>,
    },
    /// Any other answer, or none.
    #[error("cannot {act} `{reference}`")]
    Request {
        /// The deed.
        act: &'static str,
        /// The image.
        reference: String,
        /// Cause.
        #[source]
        source: Box<OciDistributionError>,
    },
    /// Content broke off for good, or is not what was asked for.
    #[error("cannot read content of `{reference}`")]
    Read {
        /// The image.
        reference: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// What was to be sent cannot be read.
    #[error("cannot read {digest} to send it to `{reference}`")]
    Source {
        /// The image.
        reference: String,
        /// The content.
        digest: Digest,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The manifest is another one.
    #[error("the registry sent the manifest {found} for `{reference}`, expected {expected}")]
    OtherManifest {
        /// The image.
        reference: String,
        /// As asked for.
        expected: Digest,
        /// As received.
        found: Digest,
    },
    /// The documents make no image.
    #[error("the image `{reference}` is damaged")]
    Image {
        /// The image.
        reference: String,
        /// Cause.
        #[source]
        source: Box<ImageError>,
    },
    /// A configuration no honest image has.
    #[error("the configuration of `{reference}` has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The image.
        reference: String,
        /// Its size by the manifest.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A manifest no honest registry has.
    #[error("the registry sends more than {limit} bytes, the limit, as the manifest of `{reference}`")]
    Endless {
        /// The image.
        reference: String,
        /// What is allowed.
        limit: u64,
    },
    /// The index has nothing for this machine.
    #[error("the image `{reference}` is not made for {wanted}; it is for: {offered}")]
    Platform {
        /// The image.
        reference: String,
        /// The platform asked for.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// Indexes of indexes of indexes.
    #[error("the image `{reference}` is an index of indexes, too deep to follow")]
    Nesting {
        /// The image.
        reference: String,
    },
    /// A media type that cannot be a header.
    #[error("`{media_type}` is not a media type")]
    MediaType {
        /// The text.
        media_type: String,
    },
}

impl RegistryError {
    /// Whether the image or repository is simply not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether the registry refused access.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Identity { source, .. } => source.is_denied(),
            _ => false,
        }
    }

    pub(crate) fn request(act: &'static str, reference: &Reference, source: OciDistributionError) -> Self {
        let (host, reference) = (&reference.registry, reference.to_string());
        match status(&source) {
            Some(404) => Self::Missing { act, reference },
            Some(401 | 403) => Self::Denied { act, reference, source: Box::new(source) },
            _ => match tls_advice(&source, host) {
                Some(advice) => Self::Tls { act, reference, advice, source: Box::new(source) },
                None => Self::Request { act, reference, source: Box::new(source) },
            },
        }
    }
}

/// What to do where TLS failed: see [`tls_failure`].
pub(super) fn tls_advice(error: &(dyn std::error::Error + 'static), host: &str) -> Option<String> {
    let text = tls_failure(error)?;
    if let Some((_, places)) = text.split_once(NOBODY) {
        return Some(format!(
            "{NOBODY}{places}; install them (package ca-certificates), or name a file with them in SSL_CERT_FILE"
        ));
    }
    Some(if text.contains("certificate") {
        "its certificate is not trusted; name a file with its authority in SSL_CERT_FILE".to_owned()
    } else {
        format!("it does not answer with TLS; if {host} speaks plain HTTP: --insecure-registry {host}")
    })
}

/// The HTTP status behind an error, as far as the client lets it through.
fn status(error: &OciDistributionError) -> Option<u16> {
    match error {
        OciDistributionError::ServerError { code, .. } => Some(*code),
        OciDistributionError::RequestError(error) => error.status().map(|status| status.as_u16()),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            Some(401)
        }
        OciDistributionError::ImageManifestNotFoundError(_) => Some(404),
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.first().map(|error| match error.code {
                OciErrorCode::ManifestUnknown
                | OciErrorCode::NameUnknown
                | OciErrorCode::NotFound
                | OciErrorCode::BlobUnknown => 404,
                OciErrorCode::Unauthorized => 401,
                OciErrorCode::Denied => 403,
                OciErrorCode::Toomanyrequests => 429,
                _ => 400,
            })
        }
        _ => None,
    }
}

/// Whether who asked has shown too little.
pub(crate) fn is_refusal(error: &OciDistributionError) -> bool {
    status(error) == Some(401)
}

/// Whether asking again may help: a broken connection, or a server in trouble.
pub(crate) fn may_pass(error: &OciDistributionError) -> bool {
    match status(error) {
        Some(status) => status >= 500,
        None => {
            let connection =
                matches!(error, OciDistributionError::RequestError(_) | OciDistributionError::IoError(_));
            connection && tls_failure(error).is_none() && near::refused(error).is_none()
        }
    }
}

/// How TLS failed over what the other side presents, an unknown certificate for one: that is so the next time too.
pub(super) fn tls_failure(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        cause = match error.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == io::ErrorKind::InvalidData => return Some(error.to_string()),
            // An error inside another is passed over by `source`.
            Some(outer) => outer.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}
