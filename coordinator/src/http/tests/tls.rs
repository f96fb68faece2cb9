//! HTTPS on a real listener: handshakes, clients that go away, and a certificate that is exchanged.

use super::listener::{Served, request};
use super::support::*;
use crate::generation::FinishReason;
use crate::http::server::certificates::Certificates;
use crate::http::server::connection::HEADER_TIMEOUT;
use crate::http::server::places::Limits;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use woolly_protocol::crypto::provider;

/// Certificates of their own, in a folder that goes with this.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        files.renew();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes another certificate and key.
    fn renew(&self) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
    }

    fn certificates(&self) -> Arc<Certificates> {
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        Arc::new(Certificates::open(certificate, key, SystemTime::now()).unwrap())
    }

    /// A client that trusts what the files hold now.
    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("cert.pem")).unwrap()).unwrap();
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

const ALL: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

async fn connect(served: &Served, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, served.connect().await).await
}

async fn read_until(stream: &mut TlsStream<TcpStream>, text: &str) -> String {
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains(text) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
        let count = read.await.expect("no answer in time").unwrap();
        assert!(count > 0, "closed after {answer}");
        answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    answer
}

fn secured(certificates: &Arc<Certificates>, text: &'static str) -> Rig {
    let certificates = Some(Arc::clone(certificates));
    Rig::with(|config| config.certificates = certificates, move |_| Script::Play(say(text)))
}

fn holding(files: &Files) -> Rig {
    let certificates = Some(files.certificates());
    Rig::with(|config| config.certificates = certificates, |_| Script::Hold(tokens("a")))
}

#[tokio::test]
async fn tls_1_2_and_1_3_speak_http_1_1() {
    let files = Files::new();
    let rig = secured(&files.certificates(), "ab");
    let served = Served::new(&rig).await;
    for (version, spoken) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut config = files.client(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut stream = connect(&served, config).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        // Two requests on one connection, one of them a stream.
        for (body, end) in [
            (chat(json!({"stream": true})), "data: [DONE]"),
            (chat(json!({})), "\"content\":\"ab\""),
        ] {
            stream.write_all(&request("/v1/chat/completions", &body)).await.unwrap();
            read_until(&mut stream, end).await;
        }
    }
    let mut config = files.client(ALL);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let error = connect(&served, config).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn what_is_not_tls_is_answered_or_closed_and_hurts_nobody() {
    let files = Files::new();
    let rig = secured(&files.certificates(), "ab");
    let served = Served::new(&rig).await;
    let answer = served.exchange(&request("/v1/chat/completions", &chat(json!({})))).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    let error: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(error["error"]["code"], "https_only");
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x00\x00\x00", b"\xff", b"hello\r\n\r\n"] {
        let answer = served.exchange(bytes).await;
        assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    }
    drop(served.connect().await);
    let mut stream = connect(&served, files.client(ALL)).await.unwrap();
    stream.write_all(&request("/v1/chat/completions", &chat(json!({})))).await.unwrap();
    read_until(&mut stream, "\"content\":\"ab\"").await;
}

#[tokio::test]
async fn a_handshake_has_a_time_and_gives_way_to_others() {
    let files = Files::new();
    let certificates = Some(files.certificates());
    let one_at_a_time = Limits { connections: 1, probes: 0 };
    let rig = Rig::with(
        |config| (config.certificates, config.connections) = (certificates, one_at_a_time),
        |_| Script::Play(say("ab")),
    );
    let served = Served::new(&rig).await;
    let mut silent = served.connect().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut stream = connect(&served, files.client(ALL)).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0, "it held the only place");
    stream.write_all(&request("/v1/chat/completions", &chat(json!({})))).await.unwrap();
    read_until(&mut stream, "\"content\":\"ab\"").await;
    drop(stream);
    let start = Instant::now();
    served.exchange(b"\x16\x03\x01").await;
    assert!(start.elapsed() >= HEADER_TIMEOUT && start.elapsed() < 2 * HEADER_TIMEOUT);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_and_one_that_closed_its_half_is_answered() {
    let files = Files::new();
    let rig = holding(&files);
    let served = Served::new(&rig).await;
    // In the middle of a stream, without a word.
    let mut stream = connect(&served, files.client(ALL)).await.unwrap();
    let body = chat(json!({"stream": true}));
    stream.write_all(&request("/v1/chat/completions", &body)).await.unwrap();
    read_until(&mut stream, "\"content\":\"a\"").await;
    drop(stream);
    rig.cancelled(&[0]).await;
    // While a whole answer is awaited: only the interim answer tells it from a closed half.
    let mut stream = connect(&served, files.client(ALL)).await.unwrap();
    stream.write_all(&request("/v1/completions", &completion(json!({})))).await.unwrap();
    while rig.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    rig.cancelled(&[0, 1]).await;
    // One that takes leave of its half and waits.
    let mut stream = connect(&served, files.client(ALL)).await.unwrap();
    stream.write_all(&request("/v1/completions", &completion(json!({})))).await.unwrap();
    stream.shutdown().await.unwrap();
    while rig.requests().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It is asked twice by then, and still there.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.seen.lock().unwrap().cancelled, [0, 1]);
    let events = rig.seen.lock().unwrap().held[2].clone();
    events.send(finished(FinishReason::Length)).await.unwrap();
    let answer = read_until(&mut stream, "\"finish_reason\":\"length\"").await;
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let files = Files::new();
    let certificates = files.certificates();
    let rig = secured(&certificates, "ab");
    let served = Served::new(&rig).await;
    let old = files.client(ALL);
    let mut open = connect(&served, old.clone()).await.unwrap();
    files.renew();
    assert!(connect(&served, files.client(ALL)).await.is_err(), "nobody has reloaded yet");
    certificates.reload(SystemTime::now()).unwrap();
    let mut new = connect(&served, files.client(ALL)).await.unwrap();
    for stream in [&mut open, &mut new] {
        stream.write_all(&request("/v1/chat/completions", &chat(json!({})))).await.unwrap();
        read_until(stream, "\"content\":\"ab\"").await;
    }
    // A key of another certificate: what was good stays.
    std::fs::write(files.path("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    certificates.reload(SystemTime::now()).unwrap_err();
    connect(&served, files.client(ALL)).await.unwrap();
}

#[tokio::test]
async fn bench_speaks_https_and_trusts_what_it_is_told_to() {
    use crate::bench::client::Client;
    use crate::bench::config::GatewayUrl;
    let (files, others) = (Files::new(), Files::new());
    let rig = secured(&files.certificates(), "ab");
    let served = Served::new(&rig).await;
    let url =
        |is_https| GatewayUrl { is_https, host: format!("localhost:{}", served.address.port()) };
    let ca = files.path("cert.pem");
    let client = Client::new(&url(true), Some(&ca), None).unwrap();
    assert_eq!(client.get("/livez").await.unwrap(), "ok\n");
    let stranger = Client::new(&url(true), Some(&others.path("cert.pem")), None).unwrap();
    assert!(stranger.get("/livez").await.is_err());
    let plain = Client::new(&url(false), None, None).unwrap().get("/livez").await.unwrap_err();
    assert!(plain.to_string().contains("https://"), "{plain:#}");
    assert!(Client::new(&url(true), Some(&files.path("key.pem")), None).is_err());
}
