//! Joining: a token and a signing request for a certificate. ALPN `woolly-join`, no client
//! certificate.

use crate::check::{Check, MessageError};
use crate::frame::Message;
use crate::kind::Kind;
use crate::limits::{CERTIFICATE_MAX, NAME_MAX};
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
