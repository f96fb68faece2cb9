//! The cluster's certificate authority: made at the coordinator's first start, kept in its state
//! directory, and the only one whose certificates count.

use crate::certificate::{
    CA_CN, CLOCK_SLACK_DAYS, COORDINATOR_CN, COORDINATOR_NAME, ClusterId, DAY_SECONDS, KeyPin,
    LEAF_DAYS, PROOF_OID, Role, Validity, cluster_hex, key_pin, pin_of, proof_value, subject,
    validity, worker_name,
};
use crate::files;
use crate::identity::{Identity, IdentityError, check_time, read_key};
use crate::ids::WorkerId;
use crate::join::JoinAccepted;
use crate::join_secret::JoinSecret;
use crate::limits::CERTIFICATE_MAX;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The CA's certificate in the coordinator's state directory, PEM.
pub const CA_FILE: &str = "ca.pem";
/// The CA's key, PEM, readable by its owner only.
pub const CA_KEY_FILE: &str = "ca.key";
const CA_LOCK_FILE: &str = "ca.lock";

const DAY: Duration = Duration::from_secs(DAY_SECONDS as u64);
/// Days that a CA is valid: 20 years.
const CA_DAYS: u32 = 20 * 365;

/// The cluster's certificate authority.
pub struct ClusterCa {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for ClusterCa {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterCa")
            .field("cluster", &cluster_hex(&self.cluster))
            .finish_non_exhaustive()
    }
}

impl ClusterCa {
    /// The CA in `dir`; made if there is none. Two processes that start at once get the same one.
    ///
    /// # Errors
    ///
    /// If files cannot be read or written, or hold anything else than a CA and its key that are
    /// valid now.
    pub fn open(dir: &Path, now: SystemTime) -> Result<Self, IdentityError> {
        files::create_private_dir(dir)?;
        let _lock = files::lock(&dir.join(CA_LOCK_FILE))?;
        // The key is written first: without a certificate nobody has seen it yet.
        match files::read(&dir.join(CA_FILE))? {
            Some(text) => Self::load(dir, &text, now),
            None => Self::create(dir, now),
        }
    }

    fn create(dir: &Path, now: SystemTime) -> Result<Self, IdentityError> {
        let mut cluster = ClusterId::default();
        getrandom::fill(&mut cluster).map_err(|e| IdentityError::Crypto(e.to_string()))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(&cluster, CA_CN, CA_DAYS, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        files::replace(&dir.join(CA_KEY_FILE), &key.serialize_pem())?;
        files::replace(&dir.join(CA_FILE), &certificate.pem())?;
        let issuer = Issuer::new(params, key);
        Ok(Self { cluster, certificate: certificate.der().clone(), issuer })
    }

    fn load(dir: &Path, text: &str, now: SystemTime) -> Result<Self, IdentityError> {
        let (path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let invalid = |path: &Path, problem: &str| IdentityError::Invalid {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let part = pem::parse(text).map_err(|e| invalid(&path, &e.to_string()))?;
        let certificate = CertificateDer::from(part.into_contents());
        let read = subject(&certificate).map_err(|e| invalid(&path, &e.to_string()))?;
        if read.role != Role::Ca {
            return Err(invalid(&path, "not a cluster CA's certificate"));
        }
        check_time(&certificate, now)?;
        let key = files::read(&key_path)?.ok_or_else(|| invalid(&key_path, "missing"))?;
        let key = pem::parse(key).map_err(|e| invalid(&key_path, &e.to_string()))?;
        let key = read_key(&key).map_err(|e| invalid(&key_path, &e))?;
        if key_pin(&certificate)? != pin_of(&key.subject_public_key_info()) {
            return Err(invalid(&key_path, "not the key of ca.pem"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { cluster: read.cluster, certificate, issuer })
    }

    /// Names the cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What join tokens pin: BLAKE3 of the CA's SubjectPublicKeyInfo.
    pub fn pin(&self) -> KeyPin {
        key_pin(&self.certificate).expect("the CA's certificate was read before")
    }

    /// When its own certificate is valid.
    pub fn validity(&self) -> Validity {
        validity(&self.certificate).expect("the CA's certificate was read before")
    }

    /// A certificate for the coordinator, with a new key that lives in memory only.
    ///
    /// # Errors
    ///
    /// Only if the cryptography library fails.
    pub fn issue_coordinator(&self, now: SystemTime) -> Result<Identity, IdentityError> {
        self.issue_coordinator_with(None, now)
    }

    /// The same, with the proof of a join secret in it.
    ///
    /// # Errors
    ///
    /// As [`issue_coordinator`](Self::issue_coordinator).
    pub fn issue_coordinator_with(
        &self,
        secret: Option<&JoinSecret>,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = self.leaf(COORDINATOR_CN, COORDINATOR_NAME, now)?;
        params.custom_extensions.extend(secret.map(|secret| {
            let value = proof_value(&secret.proof(&self.pin()));
            CustomExtension::from_oid_content(&PROOF_OID, value)
        }));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Identity::new(certificate.der().clone(), self.certificate.clone(), &key, now)
    }

    /// Signs a worker's request. Of the request only the public key counts: the worker gets a new
    /// random id, and every name is ours.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Request`] if it is not a request for an ECDSA P-256 key signed by that key.
    pub fn sign(
        &self,
        request: &[u8],
        now: SystemTime,
    ) -> Result<(WorkerId, JoinAccepted), IdentityError> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|e| IdentityError::Crypto(e.to_string()))?;
        let worker = WorkerId(u64::from_le_bytes(id));
        Ok((worker, self.renew(worker, request, now)?))
    }

    /// Signs the request of a worker that has shown its certificate: it keeps its id.
    ///
    /// # Errors
    ///
    /// As [`sign`](Self::sign).
    pub fn renew(
        &self,
        worker: WorkerId,
        request: &[u8],
        now: SystemTime,
    ) -> Result<JoinAccepted, IdentityError> {
        let public_key = read_request(request)?;
        let params = self.leaf(&worker.hex(), &worker_name(worker), now)?;
        let certificate = params.signed_by(&public_key, &self.issuer)?;
        Ok(JoinAccepted {
            certificate: certificate.der().to_vec(),
            ca: self.certificate.to_vec(),
            cluster: self.cluster,
        })
    }

    fn leaf(
        &self,
        common_name: &str,
        dns_name: &str,
        now: SystemTime,
    ) -> Result<CertificateParams, IdentityError> {
        let mut params = params(&self.cluster, common_name, LEAF_DAYS, now)?;
        params.subject_alt_names = vec![SanType::DnsName(dns_name.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// The public key of a signing request, whose signature was checked.
pub(crate) fn read_request(request: &[u8]) -> Result<rcgen::PublicKey, IdentityError> {
    if request.len() > CERTIFICATE_MAX {
        let text = format!("expected at most {CERTIFICATE_MAX} bytes, found {}", request.len());
        return Err(IdentityError::Request(text));
    }
    let der = CertificateSigningRequestDer::from(request);
    let request = CertificateSigningRequestParams::from_der(&der)
        .map_err(|e| IdentityError::Request(e.to_string()))?;
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(IdentityError::Request("expected an ECDSA P-256 key".to_owned()));
    }
    Ok(request.public_key)
}

fn params(
    cluster: &ClusterId,
    common_name: &str,
    days: u32,
    now: SystemTime,
) -> Result<CertificateParams, IdentityError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|e| IdentityError::Crypto(e.to_string()))?;
    // Positive and of full length in DER, whatever was drawn.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster_hex(cluster));
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - DAY * CLOCK_SLACK_DAYS).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}
