//! Certificates that are renewed and workers that are removed, with real worker processes: their certificates were
//! made long ago, so that nobody's clock need be moved.

use crate::support::{Coordinator, PATIENCE};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use woolly_engine::NUMERICS;
use woolly_protocol::certificate::Validity;
use woolly_protocol::endpoint::{IDLE_TIMEOUT, bind, dial_worker, link_client};
use woolly_protocol::identity::{Identity, SigningRequest};
use woolly_protocol::ids::WorkerId;
use woolly_protocol::join::{Removed, RenewalRequest};
use woolly_protocol::preamble::{Preamble, greet};
use woolly_protocol::refusal::{Refusal, RefusalCode};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A worker's identity that was made so many days ago.
fn made(coordinator: &Coordinator, days_ago: u32) -> Identity {
    let (request, then) = (SigningRequest::new().unwrap(), SystemTime::now() - days_ago * DAY);
    let (_, accepted) = coordinator.ca.sign(request.der(), then).unwrap();
    request.complete(&accepted, &coordinator.ca.pin(), then).unwrap()
}

fn state_dir(coordinator: &Coordinator, state: &str) -> PathBuf {
    coordinator.dir.path().join(state)
}

fn kept(coordinator: &Coordinator, state: &str) -> (Option<WorkerId>, Validity) {
    let dir = state_dir(coordinator, state);
    let kept = Identity::load(&dir, SystemTime::now()).unwrap().unwrap();
    (kept.worker(), kept.validity())
}

#[tokio::test]
async fn a_worker_that_expired_six_weeks_ago_is_back_without_a_token() {
    let coordinator = Coordinator::start();
    let old = made(&coordinator, 90 + 42);
    assert!(old.validity().is_over(SystemTime::now() - 41 * DAY));
    old.save(&state_dir(&coordinator, "w1")).unwrap();
    let _process = coordinator.worker("w1", &[]);
    let worker = coordinator.welcome().await;
    assert_eq!(Some(worker.id), old.worker(), "it keeps its id");
    let (id, validity) = kept(&coordinator, "w1");
    assert_eq!(id, old.worker());
    assert!(!validity.is_renewal_due(SystemTime::now()));
}

#[tokio::test]
async fn a_certificate_is_renewed_over_the_control_stream_and_shown_from_then_on() {
    let coordinator = Coordinator::start();
    let old = made(&coordinator, 60);
    old.save(&state_dir(&coordinator, "w1")).unwrap();
    let _process = coordinator.worker("w1", &[]);
    let mut worker = coordinator.welcome().await;
    let asked: RenewalRequest = worker.expect().await;
    // An answer for another worker is of no use.
    let now = SystemTime::now();
    let other = coordinator.ca.renew(WorkerId(7), &asked.signing_request, now).unwrap();
    worker.tell(&other).await;
    let renewed = coordinator.ca.renew(worker.id, &asked.signing_request, now).unwrap();
    worker.tell(&renewed).await;
    let deadline = Instant::now() + PATIENCE;
    while kept(&coordinator, "w1").1 == old.validity() {
        assert!(Instant::now() < deadline, "the new certificate is not kept");
        worker.heartbeat().await;
    }
    let (id, validity) = kept(&coordinator, "w1");
    assert_eq!((id, validity.is_renewal_due(now)), (old.worker(), false));
    // Neighbours see the new one, too.
    let neighbour = dial(&made(&coordinator, 0), &worker.hello.advertise, worker.id).await.unwrap();
    let chain = neighbour.peer_identity().unwrap();
    let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    assert_eq!(woolly_protocol::certificate::validity(&chain[0]).unwrap(), validity);
}

/// Dials a worker as its neighbour, and greets it.
async fn dial(
    own: &Identity,
    address: &str,
    worker: WorkerId,
) -> Result<quinn::Connection, Refusal> {
    let config = link_client(own, IDLE_TIMEOUT).unwrap();
    let endpoint = bind("127.0.0.1:0".parse().unwrap(), None).unwrap().endpoint;
    let connection =
        dial_worker(&endpoint, config, address.parse().unwrap(), worker).await.unwrap();
    match greet(&connection, &Preamble::ours(NUMERICS)).await {
        // Dropped, they would be the end of the first stream.
        Ok(streams) => std::mem::forget(streams),
        Err(_) => return Err(closed(&connection).await),
    }
    Ok(connection)
}

async fn closed(connection: &quinn::Connection) -> Refusal {
    let closed = timeout(PATIENCE, connection.closed()).await.expect("it is still open");
    Refusal::from_connection(&closed).expect("closed with a refusal")
}

#[tokio::test]
async fn neighbours_refuse_a_removed_worker_and_no_other() {
    let coordinator = Coordinator::start();
    let _process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let mut worker = coordinator.welcome().await;
    let (good, bad) = (made(&coordinator, 0), made(&coordinator, 0));
    let address = worker.hello.advertise.clone();
    let open = dial(&bad, &address, worker.id).await.unwrap();
    let other = dial(&good, &address, worker.id).await.unwrap();
    worker.tell(&Removed { workers: vec![bad.worker().unwrap()] }).await;
    assert_eq!(closed(&open).await.code, RefusalCode::Removed, "the open connection ends");
    let refused = dial(&bad, &address, worker.id).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::Removed);
    assert!(other.close_reason().is_none());
    dial(&good, &address, worker.id).await.unwrap();
    // Lifted: it may again.
    worker.tell(&Removed::default()).await;
    let deadline = Instant::now() + PATIENCE;
    while dial(&bad, &address, worker.id).await.is_err() {
        assert!(Instant::now() < deadline, "it stays refused");
    }
}

#[tokio::test]
async fn a_worker_that_is_removed_ends_with_a_sentence() {
    let coordinator = Coordinator::start();
    let process = coordinator.worker("w1", &["--token", &coordinator.token()]);
    let worker = coordinator.welcome().await;
    let sentence = "worker 1 was removed from the cluster";
    Refusal::new(RefusalCode::Removed, sentence).close(&worker.connection);
    let (code, text) = spawn_blocking(|| process.end()).await.unwrap();
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains(sentence), "{text}");
}
