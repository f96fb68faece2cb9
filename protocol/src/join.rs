//! Joining: a token and a signing request for a certificate. ALPN `woolly-join`, no client certificate.

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
