//! HTTPS of a real process: its certificate, and SIGHUP.

use super::support::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// Writes a certificate for this name and its key.
fn write_pair(folder: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(folder.join("key.pem"), private).unwrap();
}

/// `GET /livez` of a client that trusts what `cert.pem` holds now.
fn ask(folder: &Path, address: &str, name: &'static str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let config =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut stream = Stream::new(&mut session, &mut stream);
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn sighup_exchanges_the_certificate_and_a_wrong_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "old.example");
    let (cert, key) = (text(&folder.path().join("cert.pem")), text(&folder.path().join("key.pem")));
    let port = free_port();
    let http = format!("127.0.0.1:{port}");
    let flags =
        ["--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key, "--http", &http];
    let mut serving = Serving::start_at(&folder.path().join("state"), &flags);
    let log = serving.wait_for_log("HTTPS with the certificate");
    assert!(log.contains("for old.example, valid until "), "{log}");
    serving.line();
    assert!(ask(folder.path(), &http, "old.example").unwrap().contains("200"));
    write_pair(folder.path(), "new.example");
    serving.signal("HUP");
    let log = serving.wait_for_log("for new.example, valid until ");
    assert!(log.contains("SIGHUP: reading the certificate again"), "{log}");
    assert!(ask(folder.path(), &http, "new.example").unwrap().contains("200"));
    std::fs::write(&key, "not a key").unwrap();
    serving.signal("HUP");
    let log = serving.wait_for_log("the certificate stays what it was (for new.example");
    assert!(log.contains("BEGIN PRIVATE KEY"), "{log}");
    assert!(ask(folder.path(), &http, "new.example").unwrap().contains("200"));
    assert!(serving.end().success());
}

#[test]
fn a_pair_that_cannot_be_used_ends_with_2_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a.example");
    let path = |name: &str| text(&folder.path().join(name));
    let (model, cert, key) = (tiny_model(), path("cert.pem"), path("key.pem"));
    let state = path("state");
    let words = ["serve", "-m", &model, "--workers", "1", "--state-dir", &state];
    for (flags, said) in [
        (&["--tls-cert", &cert][..], "--tls-key"),
        (&["--tls-key", &key], "--tls-cert"),
        (&["--tls-cert", &key, "--tls-key", &key], "BEGIN CERTIFICATE"),
        (&["--tls-cert", &cert, "--tls-key", &path("missing")], "missing"),
        (&["--tls-cert", &text(folder.path()), "--tls-key", &key], "cannot read"),
    ] {
        let (code, stdout, stderr) = run(&[&words[..], flags].concat());
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{flags:?}: {stderr}");
        assert!(stderr.contains(said), "{flags:?}: {stderr}");
    }
}
