//! The certificate of the HTTP API: two PEM files, checked, shown to clients, and read again when asked.
//!
//! Nothing here knows connections. A pair of files that cannot be used changes nothing: what is shown stays
//! what it was. TLS 1.2 and 1.3, HTTP/1.1 only, no early data; sessions are resumed from a table of rustls's
//! own (256 sessions), never from tickets that outlive the process.

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use woolly_protocol::crypto::provider;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

/// Bytes of a PEM file at most.
const FILE_MAX: u64 = 1 << 20;
/// Certificates of a chain at most: a handshake carries them all.
const CHAIN_MAX: usize = 10;
/// A certificate that ends sooner is told of at every start.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// Why a pair of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// One of the files cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of the files is not what it has to be.
    #[error("{}: {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong and what was expected.
        what: String,
    },
}

impl CertificateError {
    fn content(path: &Path, what: impl Into<String>) -> CertificateError {
        CertificateError::Content { path: path.to_owned(), what: what.into() }
    }
}

/// The certificate that is shown, and the files that it comes from.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
}

/// What handshakes are answered with.
#[derive(Debug)]
struct Shown(RwLock<Arc<Pair>>);

impl Shown {
    fn get(&self) -> Arc<Pair> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.get().key))
    }
}

/// A certificate with its key, as the files had them.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// In seconds since 1970.
    until: i64,
    /// `names` and until when, for the log.
    shown_as: String,
    /// What its owner should look at.
    warnings: Vec<String>,
}

impl Certificates {
    /// Reads and checks the files: the server's certificate first and those that lead to a root behind it;
    /// the key of the first.
    ///
    /// # Errors
    ///
    /// What cannot be used, by the name of its file.
    pub fn open(
        certificate: PathBuf,
        key: PathBuf,
        now: SystemTime,
    ) -> Result<Certificates, CertificateError> {
        let provider = provider();
        let pair = Pair::read(&certificate, &key, &provider, now)?;
        pair.log(&certificate);
        let shown = Arc::new(Shown(RwLock::new(Arc::new(pair))));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| CertificateError::content(&certificate, error.to_string()))?;
        let resolver = Arc::clone(&shown) as Arc<dyn ResolvesServerCert>;
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Certificates { certificate, key, shown, config: Arc::new(config) })
    }

    /// Reads the files again. New connections get what they hold now; open ones are not touched.
    ///
    /// # Errors
    ///
    /// As [`Certificates::open`]; what was shown before is shown further.
    pub fn reload(&self, now: SystemTime) -> Result<(), CertificateError> {
        let provider = Arc::clone(self.config.crypto_provider());
        let pair = Pair::read(&self.certificate, &self.key, &provider, now)?;
        pair.log(&self.certificate);
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
        Ok(())
    }

    /// [`Certificates::reload`], and a line in the log that says what came of it.
    pub fn reload_and_log(&self, now: SystemTime) {
        if let Err(error) = self.reload(now) {
            let shown = self.shown.get();
            tracing::warn!("the certificate stays what it was ({}): {error}", shown.shown_as);
        }
    }

    /// What makes TLS of connections.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Until when the certificate that is shown is valid, in seconds since 1970.
    pub fn until(&self) -> i64 {
        self.shown.get().until
    }

    /// How a client on this machine can name the server so that the certificate is good for it: by the
    /// address if the certificate names it, else by the certificate's first name.
    pub fn host(&self, address: IpAddr) -> Option<String> {
        let shown = self.shown.get();
        if shown.addresses.contains(&address) {
            return None;
        }
        shown.names.iter().find(|name| !name.contains('*')).cloned()
    }
}

impl Pair {
    fn read(
        certificate: &Path,
        key: &Path,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Pair, CertificateError> {
        let (chain, _) = read(certificate)?;
        let chain = chain_of(&chain, certificate)?;
        let (secret, open_to_others) = read(key)?;
        let secret = key_of(&secret, key)?;
        let pair = CertifiedKey::from_der(chain, secret, provider).map_err(|error| {
            use rustls::{Error, InconsistentKeys};
            match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    let what = "it is the key of another certificate than the first in";
                    CertificateError::content(key, format!("{what} {}", certificate.display()))
                }
                Error::InvalidCertificate(_) => CertificateError::content(
                    certificate,
                    format!("its first certificate cannot be read ({error})"),
                ),
                error => CertificateError::content(
                    key,
                    format!("expected a key of ECDSA (P-256, P-384), RSA or Ed25519: {error}"),
                ),
            }
        })?;
        let unreadable =
            || CertificateError::content(certificate, "its first certificate cannot be read");
        let first = pair.cert.first().ok_or_else(unreadable)?.clone();
        let (_, leaf) = x509_parser::parse_x509_certificate(&first).map_err(|_| unreadable())?;
        let (names, addresses) = names(&leaf);
        let validity = leaf.validity();
        let all: Vec<String> =
            names.iter().cloned().chain(addresses.iter().map(ToString::to_string)).collect();
        let named = if all.is_empty() { "no name".to_owned() } else { all.join(", ") };
        let mut warnings = warnings_of(validity.not_before, validity.not_after, now);
        if all.is_empty() {
            warnings.push("it names no host: clients look for a subjectAltName".to_owned());
        }
        if open_to_others {
            warnings.push(format!(
                "{} is a private key and others on this machine may read it: chmod 600 it",
                key.display()
            ));
        }
        let shown_as = format!("for {named}, valid until {}", validity.not_after);
        let until = validity.not_after.timestamp();
        Ok(Pair { key: Arc::new(pair), names, addresses, until, shown_as, warnings })
    }

    fn log(&self, path: &Path) {
        tracing::info!("HTTPS with the certificate {} {}", path.display(), self.shown_as);
        for warning in &self.warnings {
            tracing::warn!("the certificate {}: {warning}", path.display());
        }
    }
}

/// A file's bytes, and whether others than its owner and its group may read it. (Group: `ssl-cert` and the
/// like own keys in many systems.)
fn read(path: &Path) -> Result<(Vec<u8>, bool), CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(CertificateError::content(path, format!("it is longer than {FILE_MAX} bytes")));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(CertificateError::content(path, "it is empty"));
    }
    Ok((bytes, metadata.is_file() && metadata.permissions().mode() & 0o007 != 0))
}

fn chain_of(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |what: String| CertificateError::content(path, what);
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        chain.push(certificate.map_err(|error| wrong(format!("it is no PEM file: {error}")))?);
        if chain.len() > CHAIN_MAX {
            return Err(wrong(format!("it holds more than {CHAIN_MAX} certificates")));
        }
    }
    if chain.is_empty() {
        return Err(wrong("expected PEM with -----BEGIN CERTIFICATE-----, and found none".into()));
    }
    Ok(chain)
}

fn key_of(bytes: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        let encrypted = bytes.windows(ENCRYPTED.len()).any(|word| word == ENCRYPTED);
        let what = match error {
            pem::Error::NoItemsFound if encrypted => {
                "the key is encrypted: `openssl pkey -in FILE -out PLAIN` takes its passphrase off"
                    .to_owned()
            }
            pem::Error::NoItemsFound => {
                "expected PEM with -----BEGIN PRIVATE KEY-----, and found none".to_owned()
            }
            error => format!("it is no PEM file: {error}"),
        };
        CertificateError::content(path, what)
    })
}

/// The DNS names and addresses that a certificate is good for. Control characters would go into the log.
fn names(leaf: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return (names, addresses) };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                names.push(name.chars().filter(|c| !c.is_control()).take(253).collect());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
                addresses
                    .extend(v4.or_else(|| <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok()));
            }
            _ => {}
        }
    }
    (names, addresses)
}

fn warnings_of(from: ASN1Time, until: ASN1Time, now: SystemTime) -> Vec<String> {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    };
    if until.timestamp() < seconds(now) {
        vec![format!("it ended on {until}: clients refuse it")]
    } else if from.timestamp() > seconds(now) {
        vec![format!("it begins on {from}: clients refuse it until then")]
    } else if until.timestamp() < seconds(now + SOON) {
        vec![format!("it ends soon, on {until}; SIGHUP reads new files")]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
