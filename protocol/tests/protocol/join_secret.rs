//! Joining with a secret that both sides were given, on loopback.

use crate::quic::{IDLE, dialler};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::certificate::Role;
use woolly_protocol::endpoint::{bind, coordinator_server};
use woolly_protocol::frame::FrameError;
use woolly_protocol::identity::Identity;
use woolly_protocol::join_secret::JoinSecret;
use woolly_protocol::joining::{Admission, JoinError, answer_join, join, join_with_secret};
use woolly_protocol::peer::accept;
use woolly_protocol::preamble::Preamble;
use woolly_protocol::refusal::RefusalCode;
use woolly_protocol::token_store::TokenStore;

fn secret(fill: char) -> JoinSecret {
    format!("0123456789abcdef0123456789abcdef{fill}").parse().unwrap()
}

/// A coordinator whose certificate proves the one secret, and which lets in who knows the other.
fn start(
    proves: Option<&JoinSecret>,
    takes: Option<&JoinSecret>,
) -> (SocketAddr, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let ca = Arc::new(ClusterCa::open(dir.path(), SystemTime::now()).unwrap());
    let identity = ca.issue_coordinator_with(proves, SystemTime::now()).unwrap();
    assert_eq!(identity.role(), Role::Coordinator);
    let server = coordinator_server(&identity, IDLE).unwrap();
    let endpoint = bind("127.0.0.1:0".parse().unwrap(), Some(server)).unwrap().endpoint;
    let address = endpoint.local_addr().unwrap();
    let mut admission = Admission::of_all(Arc::clone(&ca), TokenStore::open(dir.path()).unwrap());
    admission.shared = takes.map(|secret| secret.token(ca.pin()));
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            if let Ok((connection, _)) = accept(incoming, SystemTime::now()).await {
                let ours = Preamble::ours(1);
                let _ = answer_join(&connection, &ours, admission.clone(), Duration::ZERO).await;
            }
        }
    });
    (address, dir)
}

async fn come(address: SocketAddr, secret: &JoinSecret) -> Result<Identity, JoinError> {
    join_with_secret(&dialler(), address, secret, "node", &Preamble::ours(1)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_the_join_secret_joins_as_often_as_it_likes() {
    let ours = secret('a');
    let (address, _dir) = start(Some(&ours), Some(&ours));
    let (first, second) =
        (come(address, &ours).await.unwrap(), come(address, &ours).await.unwrap());
    assert!(matches!(first.role(), Role::Worker(_)));
    assert_ne!(first.worker(), second.worker());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_does_not_prove_the_secret_is_told_nothing() {
    let (ours, other) = (secret('a'), secret('b'));
    for proves in [None, Some(&other)] {
        let (address, _dir) = start(proves, Some(&ours));
        let error = come(address, &ours).await.unwrap_err();
        assert!(matches!(error, JoinError::Dial(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_of_the_secret_does_not_open_a_coordinator_that_does_not_take_it() {
    let (ours, other) = (secret('a'), secret('b'));
    for takes in [None, Some(&other)] {
        let (address, _dir) = start(Some(&ours), takes);
        match come(address, &ours).await.unwrap_err() {
            JoinError::Frame(FrameError::Refused(refusal)) => {
                assert_eq!(refusal.code, RefusalCode::TokenWrong);
            }
            error => panic!("expected a refusal, found: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_the_secret_is_one_as_others_are() {
    let ours = secret('a');
    let (address, dir) = start(None, Some(&ours));
    let pin = ClusterCa::open(dir.path(), SystemTime::now()).unwrap().pin();
    let name = "node";
    join(&dialler(), address, &ours.token(pin), name, &Preamble::ours(1)).await.unwrap();
}
