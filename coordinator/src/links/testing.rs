//! For tests: a coordinator's endpoint on loopback, and workers that dial it.

use super::{EVENTS_MAX, LinkEvent, LinkId, Shared, run};
use crate::trust::exclusions::Exclusions;
use crate::trust::renewals::Renewals;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::clock::Clock;
use woolly_protocol::control::Hello;
use woolly_protocol::endpoint::{
    IDLE_TIMEOUT, bind, coordinator_server, dial_coordinator, link_client,
};
use woolly_protocol::identity::{Identity, SigningRequest};
use woolly_protocol::peer::{Peer, accept};
use woolly_protocol::preamble::Preamble;

/// A cluster without a driver: its links' events go to the test.
pub struct TestCluster {
    pub events: mpsc::Receiver<LinkEvent>,
    pub preamble: Preamble,
    pub exclusions: Arc<Exclusions>,
    pub clock: Clock,
    ca: Arc<ClusterCa>,
    address: SocketAddr,
    client: quinn::Endpoint,
    _server: quinn::Endpoint,
    _folder: tempfile::TempDir,
}

impl TestCluster {
    pub fn new() -> TestCluster {
        let (dir, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let ca = Arc::new(ClusterCa::open(dir.path(), now).unwrap());
        let exclusions = Arc::new(Exclusions::open(dir.path().join("members")).unwrap());
        let clock = Clock::default();
        let identity = ca.issue_coordinator(now).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let config = coordinator_server(&identity, IDLE_TIMEOUT).unwrap();
        let server = bind(any, Some(config)).unwrap().endpoint;
        let client = bind(any, None).unwrap().endpoint;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let preamble = Preamble::ours(crate::models::NUMERICS);
        let renewals = Renewals {
            ca: Arc::clone(&ca),
            exclusions: Arc::clone(&exclusions),
            clock: clock.clone(),
        };
        let shared = Shared { events: sender, preamble, renewals };
        tokio::spawn(serve(server.clone(), shared));
        let address = server.local_addr().unwrap();
        TestCluster {
            events,
            preamble,
            exclusions,
            clock,
            ca,
            address,
            client,
            _server: server,
            _folder: dir,
        }
    }

    /// A new worker's certificate.
    pub fn identity(&self) -> Identity {
        let (request, now) = (SigningRequest::new().unwrap(), SystemTime::now());
        let (_, accepted) = self.ca.sign(request.der(), now).unwrap();
        request.complete(&accepted, &self.ca.pin(), now).unwrap()
    }

    /// A connection of that worker.
    pub async fn dial(&self, worker: &Identity) -> quinn::Connection {
        let config = link_client(worker, IDLE_TIMEOUT).unwrap();
        dial_coordinator(&self.client, config, self.address).await.unwrap()
    }
}

async fn serve(endpoint: quinn::Endpoint, shared: Shared) {
    let mut next = LinkId(1);
    while let Some(incoming) = endpoint.accept().await {
        let (link, shared) = (next, shared.clone());
        next.0 += 1;
        tokio::spawn(async move {
            let (connection, peer) = accept(incoming, SystemTime::now()).await.unwrap();
            let Peer::Worker(worker) = peer else { panic!("{peer:?}") };
            let _ = run(connection, worker, link, shared).await;
        });
    }
}

/// What a worker of modest size says of itself.
pub fn hello() -> Hello {
    Hello {
        name: "w".to_owned(),
        machine: [1; 16],
        advertise: "127.0.0.1:7401".to_owned(),
        numerics: crate::models::NUMERICS,
        threads: 1,
        memory_bytes: 1 << 30,
        memory_is_own: false,
        kv_memory_bytes: 0,
        read_bytes_per_s: 1,
        macs_per_s: 1,
        isa: "scalar".to_owned(),
        version: "0".to_owned(),
        local: false,
        weights_from_disk: false,
        host: [2; 16],
        time_ms: Clock::default().unix_ms(),
    }
}
