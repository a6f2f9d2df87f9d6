//! Which certificate authorities are trusted: those of the system, found when the first certificate is to be judged.
//!
//! In place of the crate of the same name, which reads them whenever a client is made and lets it fail or panic where
//! there are none: the phases run in root filesystems that hold nothing but them, and often speak plain HTTP only
//! (docs/decisions/0014).

mod system;

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The words that an error begins with where there is nobody to trust.
pub const NOBODY: &str = "no certificate authorities were found";

/// Judges the certificates of servers by the system's authorities, and by others that it was made with.
#[derive(Debug)]
pub struct Verifier {
    others: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    judge: OnceLock<Result<Arc<WebPkiServerVerifier>, Error>>,
}

impl Verifier {
    /// Trusts the system's authorities.
    ///
    /// # Errors
    ///
    /// Never: what is missing shows when a certificate is to be judged.
    pub fn new(provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        Self::new_with_extra_roots([], provider)
    }

    /// Trusts these authorities besides the system's.
    ///
    /// # Errors
    ///
    /// When one of them is none.
    pub fn new_with_extra_roots(
        others: impl IntoIterator<Item = CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let others: Vec<_> = others.into_iter().collect();
        let mut probe = RootCertStore::empty();
        others.iter().try_for_each(|other| probe.add(other.clone()))?;
        Ok(Self { others, provider, judge: OnceLock::new() })
    }

    fn judge(&self) -> Result<&WebPkiServerVerifier, Error> {
        match self.judge.get_or_init(|| self.find(&system::places())) {
            Ok(judge) => Ok(judge),
            Err(error) => Err(error.clone()),
        }
    }

    fn find(&self, places: &system::Places) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut trusted = RootCertStore::empty();
        self.others.iter().try_for_each(|other| trusted.add(other.clone()))?;
        // A system's bundle may hold certificates of a form that is not understood here: those are not trusted.
        trusted.add_parsable_certificates(places.certificates());
        if trusted.is_empty() {
            return Err(Error::General(format!("{NOBODY}; looked in {places}")));
        }
        WebPkiServerVerifier::builder_with_provider(trusted.into(), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge()?.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge()?.verify_tls13_signature(message, cert, dss)
    }

    /// Asked for before there is a connection, so it is not the judge who answers.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
