//! The coordinator's endpoint on loopback with a clock that is moved: who is refused, and who comes back.

use super::*;
use crate::links::EVENTS_MAX;
use crate::models::NUMERICS;
use crate::shutdown::{ShutdownTrigger, shutdown};
use crate::trust::exclusions::Exclusions;
use crate::trust::state::StateDir;
use crate::trust::tokens::Tokens;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::clock::{Clock, unix_seconds};
use woolly_protocol::endpoint::{IDLE_TIMEOUT, bind, dial_coordinator, link_client, slices_client};
use woolly_protocol::frame::FrameError;
use woolly_protocol::identity::{Identity, SigningRequest};
use woolly_protocol::joining::JoinError;
use woolly_protocol::preamble::{Preamble, greet};
use woolly_protocol::renewing::renew;

const DAY_MS: i64 = 24 * 3600 * 1000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const PATIENCE: Duration = Duration::from_secs(10);

struct Bed {
    renewals: Renewals,
    listener: Arc<Listener>,
    own: Mutex<OwnCertificate>,
    address: SocketAddr,
    _events: mpsc::Receiver<links::LinkEvent>,
    _stop: ShutdownTrigger,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn start() -> Bed {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::default());
        let state = StateDir::open(folder.path().join("state")).unwrap();
        let ca = Arc::new(ClusterCa::open(&state.pki(), clock.now()).unwrap());
        let tokens = Tokens::open(&state, &ca).unwrap();
        let exclusions = Arc::new(Exclusions::open(state.members()).unwrap());
        let make =
            || OwnCertificate::new(Arc::clone(&ca), clock.clone(), None, IDLE_TIMEOUT).unwrap();
        let ((own, server), (of_test, _)) = (make(), make());
        let endpoint = bind("127.0.0.1:0".parse().unwrap(), Some(server)).unwrap().endpoint;
        let (address, preamble) = (endpoint.local_addr().unwrap(), Preamble::ours(NUMERICS));
        let renewals = Renewals { ca: Arc::clone(&ca), exclusions: Arc::clone(&exclusions), clock };
        let (events, news) = mpsc::channel(EVENTS_MAX);
        let listener = Arc::new(Listener {
            endpoint,
            join: Arc::new(JoinServer::new(&tokens, ca, exclusions, preamble)),
            links: links::Shared { events, preamble, renewals: renewals.clone() },
            slices: Arc::new(SliceServer::new()),
            metrics: Arc::default(),
        });
        let (stop, stopped) = shutdown();
        tokio::spawn(Arc::clone(&listener).run(own, stopped));
        let own = Mutex::new(of_test);
        Bed { renewals, listener, own, address, _events: news, _stop: stop, _folder: folder }
    }

    fn worker(&self) -> Identity {
        self.worker_of(0)
    }

    /// A worker whose certificate was made so many days ago.
    fn worker_of(&self, days: u32) -> Identity {
        let Renewals { ca, clock, .. } = &self.renewals;
        let (request, then) = (SigningRequest::new().unwrap(), clock.now() - days * DAY);
        let (_, accepted) = ca.sign(request.der(), then).unwrap();
        request.complete(&accepted, &ca.pin(), then).unwrap().on(clock.clone())
    }

    /// What the listener does every hour.
    fn renew_own(&self) {
        self.listener.renew_own(&mut self.own.lock().unwrap());
    }

    /// Greets the coordinator as this worker; what it is refused with.
    async fn knock(&self, worker: &Identity, slices: bool) -> Result<quinn::Connection, Refusal> {
        let client = if slices { slices_client } else { link_client };
        let config = client(worker, IDLE_TIMEOUT).unwrap();
        let endpoint = bind("127.0.0.1:0".parse().unwrap(), None).unwrap().endpoint;
        let connection = dial_coordinator(&endpoint, config, self.address).await.unwrap();
        match greet(&connection, &Preamble::ours(NUMERICS)).await {
            // Dropped, they would be the end of the first stream.
            Ok(streams) => std::mem::forget(streams),
            Err(_) => return Err(closed(&connection).await),
        }
        Ok(connection)
    }

    async fn renew(&self, worker: &Identity) -> Result<Identity, RefusalCode> {
        let endpoint = bind("127.0.0.1:0".parse().unwrap(), None).unwrap().endpoint;
        match renew(&endpoint, self.address, worker, &Preamble::ours(NUMERICS)).await {
            Ok(renewed) => Ok(renewed),
            Err(JoinError::Frame(FrameError::Refused(refusal))) => Err(refusal.code),
            Err(JoinError::Frame(FrameError::Connection(error))) => {
                Err(Refusal::from_connection(&error).expect("closed with a refusal").code)
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn closed(connection: &quinn::Connection) -> Refusal {
    let closed = timeout(PATIENCE, connection.closed()).await.expect("it is still open");
    Refusal::from_connection(&closed).expect("closed with a refusal")
}

#[tokio::test]
async fn a_removed_worker_is_refused_at_every_door() {
    let bed = Bed::start();
    let (worker, other) = (bed.worker(), bed.worker());
    bed.knock(&worker, false).await.unwrap();
    let slices = bed.knock(&worker, true).await.unwrap();
    bed.renewals.exclusions.remove(worker.worker().unwrap(), "w", 1).unwrap();
    assert_eq!(closed(&slices).await.code, RefusalCode::Removed, "what is open ends");
    for slices in [false, true] {
        let refused = bed.knock(&worker, slices).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::Removed);
        assert!(refused.text.contains("new join token"), "{refused}");
        bed.knock(&other, slices).await.unwrap();
    }
    assert_eq!(bed.renew(&worker).await.unwrap_err(), RefusalCode::Removed);
    bed.renew(&other).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_expired_six_weeks_ago_is_back_without_a_token_unless_it_was_removed() {
    let bed = Bed::start();
    // Half a year later, for all machines.
    bed.renewals.clock.set_ahead_ms(180 * DAY_MS);
    let (worker, removed) = (bed.worker_of(90 + 42), bed.worker_of(90 + 42));
    bed.renewals.exclusions.remove(removed.worker().unwrap(), "w", 1).unwrap();
    // The coordinator's own certificate would be looked at within the hour.
    bed.renew_own();
    for slices in [false, true] {
        let refused = bed.knock(&worker, slices).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::CertificateExpired);
    }
    assert_eq!(bed.renew(&removed).await.unwrap_err(), RefusalCode::Removed);
    let renewed = bed.renew(&worker).await.unwrap();
    assert_eq!(renewed.worker(), worker.worker(), "it keeps its id");
    for slices in [false, true] {
        bed.knock(&renewed, slices).await.unwrap();
    }
}

#[tokio::test]
async fn it_is_told_until_when_certificates_are_valid_also_after_a_renewal() {
    let bed = Bed::start();
    let until = |name: &str| {
        let of = format!("woolly_certificate_expires_timestamp_seconds{{certificate=\"{name}\"}} ");
        let text = bed.listener.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(&of)?.parse::<i64>().ok());
        value.unwrap_or_default()
    };
    while until("coordinator") == 0 {
        tokio::task::yield_now().await;
    }
    let (first, now) = (until("coordinator"), unix_seconds(bed.renewals.clock.now()));
    assert!((89 * 86_400..=91 * 86_400).contains(&(first - now)), "{}", first - now);
    assert!(until("ca") > now + 10 * 365 * 86_400);
    bed.renewals.clock.set_ahead_ms(50 * 86_400_000);
    bed.renew_own();
    assert!(until("coordinator") >= first + 49 * 86_400, "{}", until("coordinator") - first);
}
