//! A cluster on loopback: joining, and who may connect.

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::timeout;
use woolly_protocol::ca::{CA_FILE, CA_KEY_FILE, ClusterCa};
use woolly_protocol::certificate::{COORDINATOR_NAME, cluster_hex};
use woolly_protocol::endpoint::{
    bind, coordinator_server, dial_coordinator, dial_worker, link_client, slices_client,
    worker_server,
};
use woolly_protocol::frame::FrameError;
use woolly_protocol::identity::Identity;
use woolly_protocol::joining::{Admission, JoinError, answer_join, join};
use woolly_protocol::peer::{AcceptError, Peer, accept, explain, peer_worker_id};
use woolly_protocol::preamble::Preamble;
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::tls::{ALPN, ALPN_JOIN, ALPN_SLICES};
use woolly_protocol::token::JoinToken;
use woolly_protocol::token_store::{TokenOptions, TokenStore};

/// Longer than anything here takes.
pub const TIME: Duration = Duration::from_secs(20);
pub const IDLE: Duration = Duration::from_secs(2);

pub type Accepted = Result<(Connection, Peer), AcceptError>;

/// A coordinator that answers joins and hands out everything else.
pub struct Cluster {
    dir: tempfile::TempDir,
    ca: Arc<ClusterCa>,
    tokens: TokenStore,
    pub address: SocketAddr,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn dialler() -> Endpoint {
    bind(loopback(), None).unwrap().endpoint
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Arc::new(ClusterCa::open(dir.path(), SystemTime::now()).unwrap());
        let tokens = TokenStore::open(dir.path()).unwrap();
        let identity = ca.issue_coordinator(SystemTime::now()).unwrap();
        let server = coordinator_server(&identity, IDLE).unwrap();
        let endpoint = bind(loopback(), Some(server)).unwrap().endpoint;
        let address = endpoint.local_addr().unwrap();
        let (sender, accepted) = mpsc::channel(16);
        let (loop_ca, loop_tokens) = (ca.clone(), tokens.clone());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let peer = accept(incoming, SystemTime::now()).await;
                if let Ok((connection, Peer::Joining)) = &peer {
                    let admission = Admission::of_all(loop_ca.clone(), loop_tokens.clone());
                    let _ = answer_join(connection, &Preamble::ours(1), admission, Duration::ZERO)
                        .await;
                } else if sender.send(peer).await.is_err() {
                    return;
                }
            }
        });
        Self { dir, ca, tokens, address, accepted: accepted.into() }
    }

    fn token(&self, uses: u32) -> JoinToken {
        let options = TokenOptions { lifetime: None, uses: Some(uses) };
        self.tokens.create(self.ca.pin(), options, SystemTime::now()).unwrap()
    }

    async fn join(&self, token: &JoinToken) -> Result<Identity, JoinError> {
        join(&dialler(), self.address, token, "node", &Preamble::ours(1)).await
    }

    pub async fn worker(&self) -> Identity {
        self.join(&self.token(1)).await.unwrap()
    }

    pub async fn next(&self) -> Accepted {
        timeout(TIME, self.accepted.lock().await.recv()).await.unwrap().unwrap()
    }

    /// Both ends of a new worker's connection.
    pub async fn link(&self) -> (Connection, Connection) {
        let config = link_client(&self.worker().await, IDLE).unwrap();
        let worker = dial_coordinator(&dialler(), config, self.address).await.unwrap();
        (worker, self.next().await.unwrap().0)
    }
}

fn join_code(result: Result<Identity, JoinError>) -> RefusalCode {
    match result.unwrap_err() {
        JoinError::Frame(FrameError::Refused(refusal)) => refusal.code,
        error => panic!("expected a refusal, found: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_refused_by_reason() {
    let cluster = Cluster::start().await;
    let token = cluster.token(1);
    cluster.join(&token).await.unwrap();
    assert_eq!(join_code(cluster.join(&token).await), RefusalCode::TokenUsedUp);
    let token = cluster.token(1);
    cluster.tokens.revoke(token.id).unwrap();
    assert_eq!(join_code(cluster.join(&token).await), RefusalCode::TokenRevoked);
    let past = SystemTime::now() - Duration::from_secs(100);
    let options = TokenOptions { lifetime: Some(Duration::from_secs(60)), uses: None };
    let token = cluster.tokens.create(cluster.ca.pin(), options, past).unwrap();
    assert_eq!(join_code(cluster.join(&token).await), RefusalCode::TokenExpired);
    let stranger = JoinToken::random(cluster.ca.pin());
    assert_eq!(join_code(cluster.join(&stranger).await), RefusalCode::TokenWrong);
    let other = Preamble::ours(2);
    let joined = join(&dialler(), cluster.address, &cluster.token(1), "node", &other).await;
    assert_eq!(join_code(joined), RefusalCode::Numerics);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_cluster_shows_its_secret_to_nobody() {
    let (cluster, other) = (Cluster::start().await, Cluster::start().await);
    let token = other.token(1);
    let error = cluster.join(&token).await.unwrap_err();
    assert!(matches!(error, JoinError::Dial(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("this side refuses the peer: certificate of another cluster"), "{text}");
    other.join(&token).await.unwrap();
}

/// A client that trusts everybody and shows what it is given.
fn careless_client(
    alpn: &[u8],
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> quinn::ClientConfig {
    #[derive(Debug)]
    struct Anybody;
    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match own {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

async fn dial_anyhow(config: quinn::ClientConfig, address: SocketAddr) -> quinn::ConnectionError {
    let endpoint = dialler();
    let connecting = endpoint.connect_with(config, address, COORDINATOR_NAME).unwrap();
    match connecting.await {
        // A TLS 1.3 client is connected before the server has judged it.
        Ok(connection) => timeout(TIME, connection.closed()).await.unwrap(),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_only_joining_is_open() {
    let cluster = Cluster::start().await;
    for alpn in [ALPN, ALPN_SLICES] {
        let closed = dial_anyhow(careless_client(alpn, None), cluster.address).await;
        let refusal = Refusal::from_connection(&closed).expect("refused with a code");
        assert_eq!(refusal.code, RefusalCode::NotAuthenticated);
        assert_eq!(explain(&closed), refusal.text);
        let Err(AcceptError::Refused(told)) = cluster.next().await else { panic!("accepted") };
        assert_eq!(told, refusal);
    }
    let closed = dial_anyhow(careless_client(b"h3", None), cluster.address).await;
    assert!(explain(&closed).contains("does not speak Woolly"), "{}", explain(&closed));
    // A worker's endpoint does not even finish the handshake.
    let identity = cluster.worker().await;
    let server = worker_server(&identity, IDLE).unwrap();
    let endpoint = bind(loopback(), Some(server)).unwrap().endpoint;
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            assert!(accept(incoming, SystemTime::now()).await.is_err());
        }
    });
    let closed = dial_anyhow(careless_client(ALPN, None), address).await;
    assert!(explain(&closed).contains("join with a token"), "{}", explain(&closed));
    let closed = dial_anyhow(careless_client(ALPN_JOIN, None), address).await;
    assert!(explain(&closed).contains("does not speak Woolly"), "{}", explain(&closed));
}

/// A certificate signed with the real CA key, but with names that the CA would not give.
fn forged(
    dir: &Path,
    organisation: &str,
    common_name: &str,
    days: i64,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let ca_key = KeyPair::from_pem(&fs::read_to_string(dir.join(CA_KEY_FILE)).unwrap()).unwrap();
    let ca = fs::read_to_string(dir.join(CA_FILE)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, common_name);
    let name = format!("{common_name}.worker.woolly.internal");
    params.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let day = Duration::from_secs(24 * 3600);
    let past = SystemTime::now() - 10 * day;
    params.not_before = past.into();
    params.not_after = (past + day * u32::try_from(days).unwrap()).into();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (vec![certificate.der().clone()], key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_do_not_belong_are_refused_in_the_handshake() {
    let (cluster, other) = (Cluster::start().await, Cluster::start().await);
    let id = "0123456789abcdef";
    let organisation = cluster_hex(&cluster.ca.cluster());
    let dir = cluster.dir.path();
    let cases = [
        (forged(dir, &organisation, id, 20), None),
        (forged(other.dir.path(), &organisation, id, 20), Some("CA")),
        (forged(dir, &cluster_hex(&[1; 16]), id, 20), Some("another cluster")),
        (forged(dir, &organisation, "not-an-id", 20), Some("another cluster")),
    ];
    for (own, why) in cases {
        let config = careless_client(ALPN, Some(own));
        let dialling = tokio::spawn(dial_anyhow(config, cluster.address));
        let accepted = cluster.next().await;
        let Some(why) = why else {
            // The control: with everything right, the same client is let in.
            accepted.unwrap().0.close(0u32.into(), b"");
            dialling.await.unwrap();
            continue;
        };
        let error = accepted.unwrap_err();
        assert!(matches!(error, AcceptError::Connection(_)), "{why}: {error}");
        let told = explain(&dialling.await.unwrap());
        assert!(told.contains("the peer refuses this side") && told.contains(why), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_not_exchangeable() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.worker().await, cluster.worker().await);
    let server = worker_server(&first, IDLE).unwrap();
    let endpoint = bind(loopback(), Some(server)).unwrap().endpoint;
    let address = endpoint.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut peers = Vec::new();
        while let Some(incoming) = endpoint.accept().await {
            peers.push(accept(incoming, SystemTime::now()).await.map(|(_, peer)| peer).ok());
            if peers.len() == 4 {
                break;
            }
        }
        peers
    });
    let config = link_client(&second, IDLE).unwrap();
    // A worker is not taken for the coordinator, nor for another worker.
    let error = dial_coordinator(&dialler(), config.clone(), address).await.unwrap_err();
    assert!(error.to_string().contains("this side refuses the peer"), "{error}");
    let (own, other) = (first.worker().unwrap(), second.worker().unwrap());
    dial_worker(&dialler(), config.clone(), address, other).await.unwrap_err();
    let link = dial_worker(&dialler(), config, address, own).await.unwrap();
    assert_eq!(peer_worker_id(&link), Some(own));
    // The coordinator is known as such when it dials, and has no business with slices.
    let coordinator = cluster.ca.issue_coordinator(SystemTime::now()).unwrap();
    let config = link_client(&coordinator, IDLE).unwrap();
    let _link = dial_worker(&dialler(), config, address, own).await.unwrap();
    let peers = timeout(TIME, accepting).await.unwrap().unwrap();
    assert_eq!(peers, [None, None, Some(Peer::Worker(other)), Some(Peer::Coordinator)]);

    let config = slices_client(&coordinator, IDLE).unwrap();
    let slices = dial_coordinator(&dialler(), config, cluster.address).await.unwrap();
    let closed = timeout(TIME, slices.closed()).await.unwrap();
    assert_eq!(Refusal::from_connection(&closed).unwrap().code, RefusalCode::WrongRole);
    assert!(cluster.next().await.is_err());
    let config = slices_client(&second, IDLE).unwrap();
    let _slices = dial_coordinator(&dialler(), config, cluster.address).await.unwrap();
    assert_eq!(cluster.next().await.unwrap().1, Peer::Slices(other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_peer_has_one_stream_and_a_small_window() {
    let cluster = Cluster::start().await;
    let endpoint = dialler();
    let config = careless_client(ALPN_JOIN, None);
    let connecting = endpoint.connect_with(config, cluster.address, COORDINATOR_NAME).unwrap();
    let connection = connecting.await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&Preamble::ours(1).to_bytes()).await.unwrap();
    // More than the coordinator will ever buffer for a stranger: a frame that is too long.
    let flood = timeout(TIME, async { while send.write_all(&[0x7f; 1 << 16]).await.is_ok() {} });
    flood.await.expect("the coordinator ends it");
    let closed = Refusal::from_connection(&connection.closed().await);
    assert!(closed.is_none(), "{closed:?}");
}
