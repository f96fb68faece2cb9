//! Who belongs to the cluster: a token and a signing request for a certificate (ALPN `woolly-join`, no client
//! certificate), a new certificate for the one before (on the control stream, or by ALPN `woolly-renew`), and
//! whose certificates were taken back.

use crate::check::{Check, MessageError};
use crate::frame::Message;
use crate::ids::WorkerId;
use crate::kind::Kind;
use crate::limits::{CERTIFICATE_MAX, NAME_MAX, REMOVED_MAX};
use rkyv::{Archive, Deserialize, Serialize};

/// The worker proves the token and asks for a certificate.
#[derive(Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's public id.
    pub token_id: String,
    /// The token's secret.
    pub token_secret: String,
    /// Certificate signing request, DER; the worker's key never leaves it.
    pub signing_request: Vec<u8>,
    /// A name for people.
    pub name: String,
    /// The same for all workers of one machine, also after it was booted again (hash of the system's machine
    /// id); zeros if the system has none.
    pub host: [u8; 16],
}

/// The certificate.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JoinAccepted {
    /// The worker's certificate, DER; its subject's common name is the worker id in hex.
    pub certificate: Vec<u8>,
    /// The cluster CA's certificate, DER.
    pub ca: Vec<u8>,
    /// Names the cluster.
    pub cluster: [u8; 16],
}

/// A worker wants a new certificate. Answered by `JoinAccepted`.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct RenewalRequest {
    /// Certificate signing request for a new key, DER.
    pub signing_request: Vec<u8>,
}

/// Whose certificates count no more: all of them, whenever that changes and before the first plan. Told by the
/// coordinator, so that workers refuse each other as it does.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct Removed {
    /// The workers.
    pub workers: Vec<WorkerId>,
}

impl std::fmt::Debug for JoinRequest {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token_id", &self.token_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Message for JoinRequest {
    const KIND: Kind = Kind::JoinRequest;

    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.name("token_id", &self.token_id)?;
        let len = self.token_secret.len();
        check.range("token_secret", len, 1..=NAME_MAX)?;
        check.range("signing_request", self.signing_request.len(), 1..=CERTIFICATE_MAX)?;
        check.name("name", &self.name)
    }
}

impl Message for JoinAccepted {
    const KIND: Kind = Kind::JoinAccepted;

    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.range("certificate", self.certificate.len(), 1..=CERTIFICATE_MAX)?;
        check.range("ca", self.ca.len(), 1..=CERTIFICATE_MAX)
    }
}

impl Message for RenewalRequest {
    const KIND: Kind = Kind::RenewalRequest;

    fn check(&self) -> Result<(), MessageError> {
        let length = self.signing_request.len();
        Check(Self::KIND).range("signing_request", length, 1..=CERTIFICATE_MAX)
    }
}

impl Message for Removed {
    const KIND: Kind = Kind::Removed;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).count("workers", self.workers.len(), 0..=REMOVED_MAX)
    }
}
