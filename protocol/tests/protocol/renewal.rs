//! Certificates that expire, and their renewal, with clocks that are moved.

use crate::quic::{IDLE, TIME, dialler};
use quinn::{Connection, Endpoint};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::certificate::Validity;
use woolly_protocol::clock::Clock;
use woolly_protocol::endpoint::{
    bind, coordinator_server, dial_coordinator, dial_worker, link_client, slices_client,
    worker_server,
};
use woolly_protocol::frame::FrameError;
use woolly_protocol::identity::{Identity, SigningRequest};
use woolly_protocol::join::RenewalRequest;
use woolly_protocol::joining::JoinError;
use woolly_protocol::peer::{AcceptError, Peer, accept};
use woolly_protocol::preamble::Preamble;
use woolly_protocol::refusal::{Refusal, RefusalCode};
use woolly_protocol::renewing::{answer_renewal, renew};

const DAY_MS: i64 = 24 * 3600 * 1000;
const DAY: Duration = Duration::from_secs(24 * 3600);

type Accepted = Result<(Connection, Peer), AcceptError>;

/// A coordinator and a clock that all machines share until a test says otherwise.
struct Bed {
    ca: Arc<ClusterCa>,
    clock: Clock,
    address: SocketAddr,
    endpoint: Endpoint,
    accepted: Mutex<mpsc::Receiver<Accepted>>,
    _dir: tempfile::TempDir,
}

impl Bed {
    async fn start() -> Bed {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::default());
        let ca = Arc::new(ClusterCa::open(dir.path(), clock.now()).unwrap());
        let server = coordinator_server(&Bed::own(&ca, &clock), IDLE).unwrap();
        let endpoint = bind("127.0.0.1:0".parse().unwrap(), Some(server)).unwrap().endpoint;
        let address = endpoint.local_addr().unwrap();
        let (sender, accepted) = mpsc::channel(16);
        let (looped, by, signing) = (endpoint.clone(), clock.clone(), Arc::clone(&ca));
        tokio::spawn(async move {
            while let Some(incoming) = looped.accept().await {
                let peer = accept(incoming, by.now()).await;
                if let Ok((connection, Peer::Renewing(worker))) = &peer {
                    let sign = |request: &RenewalRequest| {
                        Ok(signing.renew(*worker, &request.signing_request, by.now()).unwrap())
                    };
                    let _ = answer_renewal(connection, &Preamble::ours(1), sign).await;
                } else if sender.send(peer).await.is_err() {
                    return;
                }
            }
        });
        Bed { ca, clock, address, endpoint, accepted: accepted.into(), _dir: dir }
    }

    fn own(ca: &ClusterCa, clock: &Clock) -> Identity {
        ca.issue_coordinator(clock.now()).unwrap().on(clock.clone())
    }

    /// So many days later.
    fn days_later(&self, days: i64) {
        self.clock.set_ahead_ms(days * DAY_MS);
        // The coordinator has renewed its own certificate meanwhile.
        let server = coordinator_server(&Bed::own(&self.ca, &self.clock), IDLE).unwrap();
        self.endpoint.set_server_config(Some(server));
    }

    fn worker(&self) -> Identity {
        let (request, now) = (SigningRequest::new().unwrap(), self.clock.now());
        let (_, accepted) = self.ca.sign(request.der(), now).unwrap();
        request.complete(&accepted, &self.ca.pin(), now).unwrap().on(self.clock.clone())
    }

    async fn next(&self) -> Accepted {
        timeout(TIME, self.accepted.lock().await.recv()).await.unwrap().unwrap()
    }

    /// Dials as this worker; the refusal if the coordinator closes the connection with one.
    async fn dial(&self, worker: &Identity) -> Result<Peer, Refusal> {
        let config = link_client(worker, IDLE).unwrap();
        let connection = dial_coordinator(&dialler(), config, self.address).await.unwrap();
        match self.next().await {
            Ok((_, peer)) => Ok(peer),
            Err(AcceptError::Refused(told)) => {
                let closed = timeout(TIME, connection.closed()).await.unwrap();
                assert_eq!(Refusal::from_connection(&closed).unwrap(), told);
                Err(told)
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn renew(&self, worker: &Identity) -> Result<Identity, JoinError> {
        renew(&dialler(), self.address, worker, &Preamble::ours(1)).await
    }
}

#[test]
fn certificates_are_renewed_from_half_of_their_life_on_and_long_ones_at_once() {
    let now = SystemTime::now();
    let seconds = |time: SystemTime| woolly_protocol::clock::unix_seconds(time);
    let usual = Validity { from: seconds(now - DAY), until: seconds(now + 90 * DAY) };
    assert!(!usual.is_renewal_due(now) && !usual.is_renewal_due(now + 44 * DAY));
    assert!(usual.is_renewal_due(now + 45 * DAY) && usual.is_renewal_due(now + 400 * DAY));
    let long = Validity { from: seconds(now - 2 * DAY), until: seconds(now + 3650 * DAY) };
    assert!(long.is_renewal_due(now), "it was made for ten years, as they once were");
    assert!(!long.is_over(now) && !long.is_to_come(now));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_expired_six_weeks_ago_is_back_without_a_token() {
    let bed = Bed::start().await;
    let worker = bed.worker();
    let id = worker.worker().unwrap();
    assert_eq!(bed.dial(&worker).await, Ok(Peer::Worker(id)));
    assert_eq!(
        worker.validity().until,
        woolly_protocol::clock::unix_seconds(SystemTime::now()) + 90 * 86_400
    );
    bed.days_later(90 + 42);
    let refused = bed.dial(&worker).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::CertificateExpired);
    assert!(refused.text.matches(" UTC").count() == 2, "both times: {refused}");
    let config = slices_client(&worker, IDLE).unwrap();
    let _slices = dial_coordinator(&dialler(), config, bed.address).await.unwrap();
    let Err(AcceptError::Refused(told)) = bed.next().await else { panic!("it has slices") };
    assert_eq!(told.code, RefusalCode::CertificateExpired);
    let renewed = bed.renew(&worker).await.unwrap();
    assert_eq!(renewed.worker(), Some(id), "it keeps its id");
    assert!(!renewed.validity().is_over(bed.clock.now()));
    assert_eq!(bed.dial(&renewed).await, Ok(Peer::Worker(id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_of_no_use_between_neighbours() {
    let bed = Bed::start().await;
    let (old, receiver) = (bed.worker(), bed.worker());
    bed.days_later(60);
    let receiver = bed.renew(&receiver).await.unwrap();
    bed.days_later(100);
    let server = worker_server(&receiver, IDLE).unwrap();
    let endpoint = bind("127.0.0.1:0".parse().unwrap(), Some(server)).unwrap().endpoint;
    let (address, clock) = (endpoint.local_addr().unwrap(), bed.clock.clone());
    let accepting = tokio::spawn(async move {
        let mut peers = Vec::new();
        while peers.len() < 2 {
            let accepted = accept(endpoint.accept().await.unwrap(), clock.now()).await;
            peers.push(accepted.map(|(_, peer)| peer).ok());
        }
        peers
    });
    let id = receiver.worker().unwrap();
    let dial = async |identity: &Identity| {
        let config = link_client(identity, IDLE).unwrap();
        match dial_worker(&dialler(), config, address, id).await {
            // A TLS 1.3 client is connected before the server has judged it.
            Ok(connection) => drop(timeout(Duration::from_secs(1), connection.closed()).await),
            Err(error) => assert!(error.to_string().contains("clocks"), "{error}"),
        }
    };
    dial(&old).await;
    let renewed = bed.renew(&old).await.unwrap();
    dial(&renewed).await;
    let peers = timeout(TIME, accepting).await.unwrap().unwrap();
    assert_eq!(peers, [None, Some(Peer::Worker(old.worker().unwrap()))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_is_for_this_clusters_workers_only() {
    let (bed, other) = (Bed::start().await, Bed::start().await);
    let stranger = other.worker();
    bed.renew(&stranger).await.unwrap_err();
    let coordinator = bed.ca.issue_coordinator(bed.clock.now()).unwrap();
    let error = bed.renew(&coordinator).await.unwrap_err();
    let JoinError::Frame(FrameError::Refused(refusal)) = error else { panic!("{error}") };
    assert_eq!(refusal.code, RefusalCode::WrongRole);
    // An answer for another worker is not taken.
    let (first, second) = (bed.worker(), bed.worker());
    let request = SigningRequest::new().unwrap();
    let now = bed.clock.now();
    let answer = bed.ca.renew(first.worker().unwrap(), request.der(), now).unwrap();
    assert!(request.complete_renewal(&answer, &second).is_err());
    request.complete_renewal(&answer, &first).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_clock_is_the_cause_the_sentence_says_so_with_both_times() {
    let bed = Bed::start().await;
    let worker = bed.worker();
    // The worker's machine woke in 1971: for it the coordinator's certificate is not valid yet.
    let early = Clock::default();
    early.set_ahead_ms(365 * DAY_MS - i64::try_from(early.unix_ms()).unwrap());
    let config = link_client(&worker.clone().on(early), IDLE).unwrap();
    let error = dial_coordinator(&dialler(), config, bed.address).await.unwrap_err().to_string();
    assert!(error.contains("this machine's clock says 1971-01-01"), "{error}");
    assert!(error.contains("is valid from") && error.contains("set the clock"), "{error}");
    let _ = bed.next().await;
    // Half a year ahead: it has expired.
    let late = Clock::default();
    late.set_ahead_ms(180 * DAY_MS);
    let config = link_client(&worker.clone().on(late), IDLE).unwrap();
    let error = dial_coordinator(&dialler(), config, bed.address).await.unwrap_err().to_string();
    assert!(error.contains("was valid until") && error.contains("set the clock"), "{error}");
    let _ = bed.next().await;
    // The coordinator's clock is behind: it says so itself.
    bed.clock.set_ahead_ms(-10 * DAY_MS);
    let refused = bed.dial(&worker.clone().on(Clock::default())).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::ClockWrong);
    assert!(refused.text.matches(" UTC").count() == 2, "{refused}");
    assert!(refused.text.contains("set the clock"), "{refused}");
}
