//! Who trusts whom: TLS 1.3 with the cluster's CA as the only root, both ways.
//!
//! | connection | the dialling side shows | and checks |
//! | --- | --- | --- |
//! | `woolly-join` | nothing | the pin of the CA's key or the proof of a join secret, the chain, the coordinator's name |
//! | `woolly`, `woolly-slices` | its certificate | the CA, the cluster, the name of the peer |
//! | `woolly-renew` | its certificate, which may have expired | the same |
//!
//! The coordinator's one endpoint takes all three, so its TLS does not insist on a certificate:
//! [`accepted`](crate::peer::accepted) does, after the handshake and by the ALPN. It also says there when a
//! certificate is valid, in words that both sides can read: one that has expired may come for its renewal, and
//! for nothing else. A worker's endpoint insists on a certificate that is valid now. There is no session resumption and no 0-RTT, so nothing can be replayed.

use crate::certificate::{ClusterId, KeyPin, Validity, key_pin, proof, subject, validity};
use crate::crypto::provider;
use crate::identity::Identity;
use crate::join_secret::JoinSecret;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// The control stream, forwards, samplings: mutual TLS.
pub const ALPN: &[u8] = b"woolly";
/// Joining: the worker has no certificate yet.
pub const ALPN_JOIN: &[u8] = b"woolly-join";
/// Slices: mutual TLS, a connection of their own.
pub const ALPN_SLICES: &[u8] = b"woolly-slices";
/// The renewal of a certificate that may have expired: mutual TLS.
pub const ALPN_RENEW: &[u8] = b"woolly-renew";

/// By what a worker without a certificate knows the CA of its cluster.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The pin that stands in a token.
    Pin(KeyPin),
    /// A proof that who made the coordinator's certificate knows this secret, for that CA.
    Secret(JoinSecret),
}

impl Trust {
    /// The pin of the one CA among `others` that is trusted, and its certificate. Says nothing about whether it
    /// has signed `own`.
    pub(crate) fn ca<'a, 'b>(
        &self,
        own: &CertificateDer<'_>,
        others: &'a [CertificateDer<'b>],
    ) -> Option<(KeyPin, &'a CertificateDer<'b>)> {
        let shown = proof(own);
        let is_trusted = |pin: &KeyPin| match self {
            Trust::Pin(wanted) => pin == wanted,
            Trust::Secret(secret) => {
                shown.is_some_and(|shown| secret.proof(pin)[..].ct_eq(&shown[..]).into())
            }
        };
        let pinned = |ca: &'a CertificateDer<'b>| Some((key_pin(ca).ok()?, ca));
        others.iter().filter_map(pinned).find(|(pin, _)| is_trusted(pin))
    }
}

/// Whether a dialling peer must show a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    Required,
    Optional,
}

/// The accepting side: only certificates of `identity`'s cluster are taken.
pub(crate) fn server(
    identity: &Identity,
    alpns: &[&[u8]],
    auth: ClientAuth,
) -> Result<ServerConfig, Error> {
    let roots = Arc::new(roots(identity.ca())?);
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if auth == ClientAuth::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    let inner = verifier.build().map_err(|e| Error::General(e.to_string()))?;
    let at_any_time = auth == ClientAuth::Optional;
    let cluster = identity.cluster();
    let verifier = Arc::new(ClusterClientVerifier { inner, cluster, at_any_time });
    let clock = Arc::new(identity.clock().clone());
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The dialling side with a certificate.
pub(crate) fn client(identity: &Identity, alpn: &[u8]) -> Result<ClientConfig, Error> {
    let roots = Arc::new(roots(identity.ca())?);
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))?;
    let verifier = Arc::new(ClusterServerVerifier { inner, cluster: identity.cluster() });
    let clock = Arc::new(identity.clock().clone());
    let config = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.chain(), identity.key())?;
    Ok(finish_client(config, alpn))
}

/// The dialling side that knows nothing but a token's pin, or a join secret.
pub(crate) fn join_client(trust: Trust) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(JoinVerifier { trust, provider: provider() }))
        .with_no_client_auth();
    Ok(finish_client(config, ALPN_JOIN))
}

fn finish_client(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

fn roots(ca: &CertificateDer<'_>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    Ok(roots)
}

/// The chain is sound; now the cluster must be ours too, in a certificate of ours.
fn check_cluster(certificate: &CertificateDer<'_>, cluster: &ClusterId) -> Result<(), Error> {
    match subject(certificate) {
        Ok(subject) if subject.cluster == *cluster => Ok(()),
        _ => Err(CertificateError::ApplicationVerificationFailure.into()),
    }
}

/// The time at which a certificate is looked at: the nearest to `now` at which it is valid.
fn within(validity: Validity, now: UnixTime) -> UnixTime {
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    let (from, until) = (seconds(validity.from), seconds(validity.until));
    let at = now.as_secs().max(from).min(until);
    UnixTime::since_unix_epoch(Duration::from_secs(at))
}

/// The usual chain check, and the cluster.
#[derive(Debug)]
struct ClusterClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
    /// Whether one that has expired, or is not valid yet, passes here: what it may do is looked at later.
    at_any_time: bool,
}

impl ClientCertVerifier for ClusterClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = match validity(end_entity) {
            Ok(validity) if self.at_any_time => within(validity, now),
            _ => now,
        };
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        check_cluster(end_entity, &self.cluster)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The usual chain and name check, and the cluster.
#[derive(Debug)]
struct ClusterServerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    cluster: ClusterId,
}

impl ServerCertVerifier for ClusterServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        check_cluster(end_entity, &self.cluster)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Takes the one CA of the presented chain that is trusted, and then runs the usual chain and
/// name check with that CA as the only root.
#[derive(Debug)]
struct JoinVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for JoinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (_, ca) = self
            .trust
            .ca(end_entity, intermediates)
            .ok_or(CertificateError::ApplicationVerificationFailure)?;
        let roots = Arc::new(roots(ca)?);
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
