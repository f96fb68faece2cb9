//! A process that is gone, over real QUIC on loopback: its port is what closes.

use crate::quic::{Cluster, IDLE, dialler};
use quinn::Connection;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use woolly_protocol::endpoint::{dial_coordinator, link_client};
use woolly_protocol::gone::gone;

/// Passes datagrams on between whoever dials it and `server`. Its ports close when it is aborted: to
/// both sides, the other's process ends without a word.
async fn relay(server: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut client, mut there, mut here) = (None, vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                Ok((len, from)) = front.recv_from(&mut there) => {
                    // A probe comes from a port of its own, and gets no answer.
                    if len > 1 {
                        client = Some(from);
                        let _ = back.send_to(&there[..len], server).await;
                    }
                }
                Ok((len, _)) = back.recv_from(&mut here), if client.is_some() => {
                    let _ = front.send_to(&here[..len], client.unwrap()).await;
                }
            }
        }
    });
    (address, task)
}

/// Both ends of a connection by way of a relay.
async fn relayed(cluster: &Cluster) -> (Connection, Connection, JoinHandle<()>) {
    let (address, relay) = relay(cluster.address).await;
    let config = link_client(&cluster.worker().await, IDLE).unwrap();
    let worker = dial_coordinator(&dialler(), config, address).await.unwrap();
    (worker, cluster.next().await.unwrap().0, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_is_noticed_long_before_its_silence() {
    let cluster = Cluster::start().await;
    let (worker, coordinator, relay) = relayed(&cluster).await;
    let found = tokio::spawn(async move {
        tokio::join!(gone(&worker), gone(&coordinator));
        Instant::now()
    });
    // Long enough for the way to be known to refuse nothing by itself.
    sleep(Duration::from_millis(1500)).await;
    assert!(!found.is_finished());
    let closed = Instant::now();
    relay.abort();
    let found = timeout(Duration::from_millis(1500), found).await.expect("it is noticed").unwrap();
    println!("noticed after {:?}", found - closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_closes_at_once_is_noticed_too() {
    let cluster = Cluster::start().await;
    let (worker, _coordinator, relay) = relayed(&cluster).await;
    relay.abort();
    timeout(Duration::from_millis(1500), gone(&worker)).await.expect("it is noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_left_alone() {
    let cluster = Cluster::start().await;
    let (worker, coordinator) = cluster.link().await;
    let either = async {
        tokio::select! {
            () = gone(&worker) => "the coordinator",
            () = gone(&coordinator) => "the worker",
        }
    };
    let found = timeout(Duration::from_secs(2), either).await;
    assert!(found.is_err(), "said to be gone, and is there: {found:?}");
    assert!(worker.close_reason().is_none() && coordinator.close_reason().is_none());
}
