//! A process's own certificate and key, and how a worker comes by them.

use crate::certificate::{
    CertificateError, ClusterId, KeyPin, Role, Validity, cluster_hex, key_pin, pin_of, subject,
    validity,
};
use crate::clock::{Clock, show_utc, unix_seconds};
use crate::files::{self, FileError};
use crate::ids::WorkerId;
use crate::join::JoinAccepted;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file in a worker's state directory: key, certificate and the CA's certificate, PEM.
pub const WORKER_FILE: &str = "worker.pem";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("{}: {problem}; move it away to start anew", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate is not valid at this time.
    #[error("{}", not_valid("the certificate", .validity, *.now))]
    NotValidNow {
        /// When it is.
        validity: Validity,
        /// This machine's clock, in seconds since 1970.
        now: i64,
    },
    /// What the coordinator sent is not a certificate for this worker.
    #[error("the coordinator's answer is not usable: {0}")]
    Answer(String),
    /// A signing request that cannot be signed.
    #[error("the signing request is not usable: {0}")]
    Request(String),
    /// Making a key or a certificate failed.
    #[error("cannot make a key or certificate: {0}")]
    Crypto(String),
}

impl From<CertificateError> for IdentityError {
    fn from(error: CertificateError) -> Self {
        Self::Answer(error.to_string())
    }
}

impl From<rcgen::Error> for IdentityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// A certificate with its key and the CA that signed it. The key is never shown.
pub struct Identity {
    role: Role,
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    ca: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    validity: Validity,
    clock: Clock,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("role", &self.role)
            .field("cluster", &cluster_hex(&self.cluster))
            .finish_non_exhaustive()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        let Self { role, cluster, certificate, ca, key, validity, clock } = self;
        let (certificate, ca, clock) = (certificate.clone(), ca.clone(), clock.clone());
        let key = key.clone_key();
        Self { role: *role, cluster: *cluster, certificate, ca, key, validity: *validity, clock }
    }
}

impl Identity {
    /// Puts the parts together; refuses them unless they belong together and are valid now.
    pub(crate) fn new(
        certificate: CertificateDer<'static>,
        ca: CertificateDer<'static>,
        key: &KeyPair,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let (own, ca_subject) = (subject(&certificate)?, subject(&ca)?);
        if own.role == Role::Ca || ca_subject.role != Role::Ca {
            return Err(IdentityError::Answer("certificates in the wrong places".to_owned()));
        }
        if own.cluster != ca_subject.cluster {
            return Err(IdentityError::Answer("certificates of two clusters".to_owned()));
        }
        if key_pin(&certificate)? != pin_of(&key.subject_public_key_info()) {
            return Err(IdentityError::Answer("a certificate for another key".to_owned()));
        }
        check_time(&certificate, now)?;
        check_time(&ca, now)?;
        check_chain(&certificate, &ca, now)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let (validity, clock) = (validity(&certificate)?, Clock::default());
        Ok(Self { role: own.role, cluster: own.cluster, certificate, ca, key, validity, clock })
    }

    /// The same, which judges other certificates by this clock and not by the system's.
    pub fn on(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The clock by which it judges certificates.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// When its certificate is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Coordinator or worker.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The worker's id; `None` for the coordinator.
    pub fn worker(&self) -> Option<WorkerId> {
        match self.role {
            Role::Worker(worker) => Some(worker),
            Role::Ca | Role::Coordinator => None,
        }
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The pin of the cluster's CA: equal to that of a token of the same cluster.
    pub fn ca_pin(&self) -> KeyPin {
        key_pin(&self.ca).expect("the CA's certificate was read before")
    }

    pub(crate) fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// What a TLS side shows: its own certificate and the CA's, for peers that only know the pin.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone(), self.ca.clone()]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// Writes a worker's identity into its state directory, readable by its owner only.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; an older one is then still whole.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let parts = [
            pem::Pem::new("PRIVATE KEY", self.key.secret_der()),
            pem::Pem::new("CERTIFICATE", &self.certificate[..]),
            pem::Pem::new("CERTIFICATE", &self.ca[..]),
        ];
        files::create_private_dir(dir)?;
        Ok(files::replace(&dir.join(WORKER_FILE), &pem::encode_many(&parts))?)
    }

    /// Reads a worker's identity from its state directory; `None` if it never joined. Its certificate may have
    /// expired: then it is good for nothing but its renewal. By a clock that is wrong it may not be valid yet: then
    /// others refuse it, and say so.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not one that [`save`](Self::save) wrote.
    pub fn load(dir: &Path, now: SystemTime) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(WORKER_FILE);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let invalid = |problem: String| IdentityError::Invalid { path: path.clone(), problem };
        let parts = pem::parse_many(&text).map_err(|e| invalid(e.to_string()))?;
        let [key, certificate, ca] = &parts[..] else {
            return Err(invalid(format!("expected 3 PEM sections, found {}", parts.len())));
        };
        let key = read_key(key).map_err(invalid)?;
        let [certificate, ca] =
            [certificate, ca].map(|part| CertificateDer::from(part.contents().to_vec()));
        // Whatever the clock says, it must be good at a time at which it is valid.
        let now = match validity(&certificate) {
            Ok(validity) => at(unix_seconds(now).max(validity.from).min(validity.until)),
            Err(_) => now,
        };
        match Self::new(certificate, ca, &key, now) {
            Ok(identity) if identity.worker().is_some() => Ok(Some(identity)),
            Ok(_) => Err(invalid("not a worker's certificate".to_owned())),
            Err(IdentityError::Answer(problem)) => Err(invalid(problem)),
            Err(error) => Err(error),
        }
    }
}

/// Reads a key that rcgen wrote.
pub(crate) fn read_key(part: &pem::Pem) -> Result<KeyPair, String> {
    if part.tag() != "PRIVATE KEY" {
        return Err(format!("expected a PRIVATE KEY, found a {:?}", part.tag()));
    }
    let key = PrivatePkcs8KeyDer::from(part.contents());
    KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| "the key is not an ECDSA P-256 key".to_owned())
}

/// A worker's new key, and the request to certify it. The key never leaves the worker.
pub struct SigningRequest {
    key: KeyPair,
    der: Vec<u8>,
}

impl SigningRequest {
    /// Draws a key.
    ///
    /// # Errors
    ///
    /// Only if the cryptography library fails.
    pub fn new() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // Names are the CA's to give.
        params.distinguished_name = DistinguishedName::new();
        let der = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, der })
    }

    /// The request in DER, for `JoinRequest`.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The identity, from the coordinator's answer.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Answer`] if the CA is not the one that `pin` names or the certificate is
    /// not one of that CA for this key and a worker.
    pub fn complete(
        &self,
        answer: &JoinAccepted,
        pin: &KeyPin,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let ca = CertificateDer::from(answer.ca.clone());
        if key_pin(&ca)? != *pin {
            return Err(IdentityError::Answer("the CA is not the token's".to_owned()));
        }
        let certificate = CertificateDer::from(answer.certificate.clone());
        let identity = Identity::new(certificate, ca, &self.key, now)?;
        if identity.worker().is_none() {
            return Err(IdentityError::Answer("not a worker's certificate".to_owned()));
        }
        if identity.cluster != answer.cluster {
            return Err(IdentityError::Answer("another cluster's id".to_owned()));
        }
        Ok(identity)
    }

    /// The identity that takes the place of `old`, from the coordinator's answer.
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete), the CA being that of `old`; and if the certificate is for another
    /// worker.
    pub fn complete_renewal(
        &self,
        answer: &JoinAccepted,
        old: &Identity,
    ) -> Result<Identity, IdentityError> {
        let renewed = self.complete(answer, &old.ca_pin(), old.clock.now())?;
        if renewed.role != old.role {
            return Err(IdentityError::Answer("a certificate for another worker".to_owned()));
        }
        Ok(renewed.on(old.clock.clone()))
    }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// A sentence about a certificate that is not valid at `now` (seconds since 1970, by this machine's clock).
pub(crate) fn not_valid(whose: &str, validity: &Validity, now: i64) -> String {
    format!(
        "{whose} is valid from {} to {} and this machine's clock says {}: set the clock of the machine that \
         is wrong",
        show_utc(validity.from),
        show_utc(validity.until),
        show_utc(now)
    )
}

pub(crate) fn check_time(
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<(), IdentityError> {
    let validity = validity(certificate)?;
    if validity.is_to_come(now) || validity.is_over(now) {
        return Err(IdentityError::NotValidNow { validity, now: unix_seconds(now) });
    }
    Ok(())
}

/// Whether `ca` signed `certificate`.
fn check_chain(
    certificate: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<(), IdentityError> {
    let unusable = |error: rustls::Error| IdentityError::Answer(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone().into_owned()).map_err(unusable)?;
    let certificate = ParsedCertificate::try_from(certificate).map_err(unusable)?;
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let provider = crate::crypto::provider();
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &Arc::new(roots),
        &[],
        UnixTime::since_unix_epoch(since),
        provider.signature_verification_algorithms.all,
    )
    .map_err(unusable)
}
