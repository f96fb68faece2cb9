//! What stands in our certificates: the cluster, the role, and names that only we give.
//!
//! | certificate | O | CN | DNS name |
//! | --- | --- | --- | --- |
//! | CA | cluster id in hex | `Woolly cluster CA` | – |
//! | coordinator | cluster id in hex | `coordinator` | `coordinator.woolly.internal` |
//! | worker | cluster id in hex | worker id in hex | `<worker id>.worker.woolly.internal` |
//!
//! A coordinator's may have one extension of ours, the proof of a [join secret](crate::join_secret).
//!
//! Certificates name no address: peers are dialled by address and checked by role.
//!
//! Those of coordinator and workers are valid for [`LEAF_DAYS`] and are renewed from half of their life on.

use crate::clock::unix_seconds;
use crate::ids::WorkerId;
use rustls::pki_types::CertificateDer;
use std::time::SystemTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::x509::X509Name;

/// Names a cluster: drawn at random when its CA is made.
pub type ClusterId = [u8; 16];

/// BLAKE3 of a certificate's SubjectPublicKeyInfo.
pub type KeyPin = [u8; 32];

/// Days that a coordinator's or worker's certificate is valid after it was made.
pub const LEAF_DAYS: u32 = 90;
/// Days by which certificates are valid before they are made, for clocks that disagree.
pub const CLOCK_SLACK_DAYS: u32 = 1;
pub(crate) const DAY_SECONDS: u32 = 24 * 3600;

/// The server name of the coordinator.
pub const COORDINATOR_NAME: &str = "coordinator.woolly.internal";
pub(crate) const COORDINATOR_CN: &str = "coordinator";
pub(crate) const CA_CN: &str = "Woolly cluster CA";

/// The extension with the proof of a join secret: a number of our own below 2.25, where everyone may draw one.
pub(crate) const PROOF_OID: [u64; 3] = [2, 25, 3_473_352_068_668_424_854];
/// How the extension's value begins: an OCTET STRING of 32 bytes.
const PROOF_HEAD: [u8; 2] = [4, 32];

/// The value of the extension.
pub(crate) fn proof_value(proof: &[u8; 32]) -> Vec<u8> {
    [&PROOF_HEAD[..], proof].concat()
}

/// The proof of a join secret in a certificate, if it has one.
pub(crate) fn proof(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let oid = Oid::from(&PROOF_OID).ok()?;
    let certificate = parse(certificate).ok()?;
    let extension = certificate.get_extension_unique(&oid).ok()??;
    extension.value.strip_prefix(&PROOF_HEAD)?.try_into().ok()
}

/// The server name of a worker.
pub fn worker_name(worker: WorkerId) -> String {
    format!("{}.worker.woolly.internal", worker.hex())
}

/// Who a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The cluster's CA itself.
    Ca,
    /// The coordinator.
    Coordinator,
    /// A worker.
    Worker(WorkerId),
}

/// Who a certificate is for, and of which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The cluster.
    pub cluster: ClusterId,
    /// The role in it.
    pub role: Role,
}

/// A certificate that is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Woolly certificate: {0}")]
pub struct CertificateError(pub &'static str);

/// The cluster id in lower-case hexadecimal digits.
pub fn cluster_hex(cluster: &ClusterId) -> String {
    format!("{:032x}", u128::from_be_bytes(*cluster))
}

fn cluster_from_hex(text: &str) -> Option<ClusterId> {
    if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// Reads who a certificate is for. Says nothing about whether it can be trusted.
///
/// # Errors
///
/// If the certificate does not look exactly like the ones that a cluster CA makes.
pub fn subject(certificate: &CertificateDer<'_>) -> Result<Subject, CertificateError> {
    let certificate = parse(certificate)?;
    let name = certificate.subject();
    let organisation = only(name.iter_organization(), name)?;
    let cluster = cluster_from_hex(organisation).ok_or(CertificateError("no cluster id"))?;
    let common_name = only(name.iter_common_name(), name)?;
    let role = match common_name {
        CA_CN if certificate.is_ca() => Role::Ca,
        COORDINATOR_CN => Role::Coordinator,
        text => Role::Worker(WorkerId::from_hex(text).ok_or(CertificateError("no role"))?),
    };
    let expected = match role {
        Role::Ca => return Ok(Subject { cluster, role }),
        Role::Coordinator => COORDINATOR_NAME.to_owned(),
        Role::Worker(worker) => worker_name(worker),
    };
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| CertificateError("broken names"))?;
    let names = names.ok_or(CertificateError("no name"))?;
    match &names.value.general_names[..] {
        [GeneralName::DNSName(name)] if *name == expected && !certificate.is_ca() => {
            Ok(Subject { cluster, role })
        }
        _ => Err(CertificateError("its names do not fit its role")),
    }
}

/// The pin of a certificate's key.
///
/// # Errors
///
/// If it is no certificate.
pub fn key_pin(certificate: &CertificateDer<'_>) -> Result<KeyPin, CertificateError> {
    Ok(pin_of(parse(certificate)?.public_key().raw))
}

/// The pin of a SubjectPublicKeyInfo in DER.
pub(crate) fn pin_of(public_key_info: &[u8]) -> KeyPin {
    *blake3::hash(public_key_info).as_bytes()
}

/// When a certificate is valid: seconds since 1970, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: i64,
    /// The last second.
    pub until: i64,
}

impl Validity {
    /// Whether it has not begun.
    pub fn is_to_come(self, now: SystemTime) -> bool {
        unix_seconds(now) < self.from
    }

    /// Whether it is over.
    pub fn is_over(self, now: SystemTime) -> bool {
        unix_seconds(now) > self.until
    }

    /// Whether a certificate with it is to be renewed: half of its life is over, or it was made for longer
    /// than certificates are made for now.
    pub fn is_renewal_due(self, now: SystemTime) -> bool {
        let life = self.until.saturating_sub(self.from);
        let usual = i64::from(DAY_SECONDS) * i64::from(LEAF_DAYS + CLOCK_SLACK_DAYS);
        life > usual || unix_seconds(now) >= self.from.saturating_add(life / 2)
    }
}

/// When a certificate is valid.
///
/// # Errors
///
/// If it is no certificate.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, CertificateError> {
    let certificate = parse(certificate)?;
    let validity = certificate.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Validity { from, until })
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError("broken DER")),
    }
}

/// The text of the only such attribute of a name that has exactly two attributes, O and CN.
fn only<'a>(
    mut attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
    name: &X509Name<'_>,
) -> Result<&'a str, CertificateError> {
    let error = CertificateError("its subject is not a cluster and a role");
    if name.iter_attributes().count() != 2 {
        return Err(error);
    }
    match (attributes.next(), attributes.next()) {
        (Some(attribute), None) => attribute.as_str().map_err(|_| error),
        _ => Err(error),
    }
}
