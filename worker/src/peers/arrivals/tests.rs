//! What waits, for how long, and that nobody can take the room of others.

use super::*;
use StreamPurpose::{Forwards, Samplings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::time::{advance, timeout};

const A: Peer = Peer::Worker(WorkerId(1));
const B: Peer = Peer::Worker(WorkerId(2));

/// A stream with a name, on a connection that may be gone.
#[derive(Clone, Debug)]
struct Named(&'static str, Arc<AtomicBool>);

impl Held for Named {
    fn is_gone(&self) -> bool {
        self.1.load(SeqCst)
    }
}

fn arrival(epoch: u32, from: Peer, name: &'static str) -> Arrival<Named> {
    let open = StreamOpen { epoch: PlanEpoch(epoch), purpose: Forwards };
    Arrival { from, open, reader: Named(name, Arc::default()) }
}

fn samplings(epoch: u32) -> Arrival<Named> {
    let open = StreamOpen { epoch: PlanEpoch(epoch), purpose: Samplings };
    Arrival { open, ..arrival(epoch, Peer::Coordinator, "samplings") }
}

fn waiting(arrivals: &Arrivals<Named>) -> usize {
    arrivals.lock().streams.len()
}

async fn taken(arrivals: &Arrivals<Named>, epoch: u32, from: Peer) -> Option<&'static str> {
    let stream = arrivals.take(PlanEpoch(epoch), Forwards, from);
    timeout(Duration::from_millis(1), stream).await.ok().map(|stream| stream.0)
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_come_before_or_after_its_plan() {
    let arrivals = Arc::new(Arrivals::default());
    arrivals.offer(arrival(7, A, "early")).unwrap();
    arrivals.begin(PlanEpoch(7), A);
    // The stage loads for long.
    advance(HOLD_TIME * 10).await;
    arrivals.sweep(A);
    assert_eq!(taken(&arrivals, 7, A).await, Some("early"));
    arrivals.begin(PlanEpoch(8), A);
    let there = arrivals.clone();
    let late = tokio::spawn(async move { there.take(PlanEpoch(8), Forwards, A).await.0 });
    tokio::task::yield_now().await;
    arrivals.offer(arrival(8, A, "late")).unwrap();
    assert_eq!(late.await.unwrap(), "late");
}

#[tokio::test(start_paused = true)]
async fn streams_of_plans_that_are_over_and_of_other_peers_are_refused() {
    let arrivals = Arrivals::default();
    arrivals.begin(PlanEpoch(3), A);
    arrivals.offer(arrival(3, A, "of a plan that ends")).unwrap();
    arrivals.offer(arrival(4, B, "not mine")).unwrap();
    arrivals.begin(PlanEpoch(4), A);
    arrivals.end(PlanEpoch(3));
    assert_eq!(waiting(&arrivals), 0);
    // A plan that is over is as one that never was: it may be to come.
    arrivals.offer(arrival(3, A, "late")).unwrap();
    advance(HOLD_TIME).await;
    let late = StreamOpen { epoch: PlanEpoch(3), purpose: Forwards };
    assert_eq!(arrivals.sweep(B), []);
    assert_eq!(arrivals.sweep(A), [late]);
    assert_eq!(arrivals.offer(arrival(4, B, "not mine")), Err(NotKept::Stranger));
    arrivals.offer(arrival(4, A, "mine")).unwrap();
    assert_eq!(arrivals.offer(arrival(4, A, "again")), Err(NotKept::Full));
    assert_eq!(taken(&arrivals, 4, A).await, Some("mine"));
    let samplings = arrivals.take(PlanEpoch(4), Samplings, Peer::Coordinator);
    assert!(timeout(Duration::from_secs(9), samplings).await.is_err());
}

/// Any holder of a certificate can open such streams and leave.
#[tokio::test(start_paused = true)]
async fn a6_streams_of_a_far_epoch_do_not_shut_out_the_plans_to_come() {
    let arrivals = Arrivals::default();
    for _ in 0..8 {
        let _ = arrivals.offer(arrival(u32::MAX, B, "attack"));
    }
    for epoch in 1..=10 {
        arrivals.offer(arrival(epoch, A, "forwards")).unwrap();
        arrivals.offer(samplings(epoch)).unwrap();
        arrivals.end(PlanEpoch(epoch - 1));
        arrivals.begin(PlanEpoch(epoch), A);
        assert_eq!(taken(&arrivals, epoch, A).await, Some("forwards"));
        let sampled = arrivals.take(PlanEpoch(epoch), Samplings, Peer::Coordinator);
        assert!(timeout(Duration::from_millis(1), sampled).await.is_ok(), "plan {epoch}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_has_two_places_and_takes_nobody_elses() {
    let arrivals = Arrivals::default();
    arrivals.offer(arrival(5, A, "of another")).unwrap();
    for name in ["first", "second", "third"] {
        arrivals.offer(arrival(5, B, name)).unwrap();
    }
    let kept: Vec<_> = arrivals.lock().streams.iter().map(|(it, _)| it.reader.0).collect();
    assert_eq!(kept, ["of another", "second", "third"]);
}

#[tokio::test(start_paused = true)]
async fn many_peers_together_are_bounded_and_the_coordinator_finds_room() {
    let arrivals = Arrivals::default();
    for peer in 0..4 * PEERS_MAX as u64 {
        let offered = [8, 9].map(|epoch| {
            arrivals.offer(arrival(epoch, Peer::Worker(WorkerId(peer)), "held")).is_ok()
        });
        assert_eq!(offered, [peer < PEERS_MAX as u64; 2], "peer {peer}");
    }
    assert_eq!(waiting(&arrivals), HELD_MAX);
    arrivals.offer(arrival(8, Peer::Coordinator, "forwards")).unwrap();
    arrivals.offer(samplings(8)).unwrap();
    arrivals.begin(PlanEpoch(8), Peer::Coordinator);
    assert_eq!(taken(&arrivals, 8, Peer::Coordinator).await, Some("forwards"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_held_for_five_seconds() {
    let arrivals = Arrivals::default();
    arrivals.offer(arrival(5, A, "early")).unwrap();
    assert!(timeout(HOLD_TIME - Duration::from_millis(2), arrivals.overdue(A)).await.is_err());
    assert_eq!(arrivals.sweep(A), []);
    assert_eq!(waiting(&arrivals), 1);
    arrivals.overdue(A).await;
    assert_eq!(arrivals.sweep(A).len(), 1);
    assert_eq!(waiting(&arrivals), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_gone_with_its_connection() {
    let arrivals = Arrivals::default();
    let stream = arrival(5, A, "early");
    let gone = Arc::clone(&stream.reader.1);
    arrivals.offer(stream).unwrap();
    gone.store(true, SeqCst);
    arrivals.sweep(B);
    assert_eq!(waiting(&arrivals), 0);
    arrivals.begin(PlanEpoch(5), A);
    assert_eq!(taken(&arrivals, 5, A).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_new_conversation_forgets_all() {
    let arrivals = Arrivals::default();
    arrivals.begin(PlanEpoch(9), A);
    arrivals.offer(arrival(9, A, "x")).unwrap();
    arrivals.clear();
    assert_eq!(waiting(&arrivals), 0);
    assert_eq!(arrivals.offer(arrival(1, A, "x")), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn plans_are_a_set_and_one_that_ends_leaves_the_streams_of_the_others() {
    let arrivals = Arrivals::default();
    arrivals.begin(PlanEpoch(9), A);
    arrivals.begin(PlanEpoch(2), B);
    arrivals.offer(arrival(9, A, "of nine")).unwrap();
    arrivals.offer(arrival(2, B, "of two")).unwrap();
    assert_eq!(arrivals.offer(arrival(2, A, "not its sender")), Err(NotKept::Stranger));
    arrivals.end(PlanEpoch(9));
    assert_eq!(taken(&arrivals, 9, A).await, None);
    assert_eq!(taken(&arrivals, 2, B).await, Some("of two"));
}
