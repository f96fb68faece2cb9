//! One hop: from the end of a forward on one worker to the start of the next on its neighbour, over
//! loopback. `cargo bench -p woolly-worker --bench hop`.
//!
//! Both sides are what a worker is made of: a thread that computes (here it spins), one thread for the
//! network, and the real links between them, encryption included. A hop begins before the hidden states
//! are copied out of the stage's buffers and ends when the other compute thread has its work. With two
//! CPUs or more each side has one CPU, as two workers with one core each would.

use bytes::Bytes;
use quinn::Endpoint;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::control::{
    Assign, KvType, ModelSource, Neighbour, PlanLinks, StageSpec, StreamPurpose,
};
use woolly_protocol::endpoint::{IDLE_TIMEOUT, bind, worker_server};
use woolly_protocol::forward::{BlockTables, CacheLimits, CacheTables, Chunk, Forward};
use woolly_protocol::frame::{Frame, encode};
use woolly_protocol::identity::{Identity, SigningRequest};
use woolly_protocol::ids::{BlockId, MicrobatchId, PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::kind::Kind;
use woolly_protocol::windows::{forward_window, set_window};
use woolly_worker::app::run::network_runtime;
use woolly_worker::convert::Finished;
use woolly_worker::convert::{Computed, Work};
use woolly_worker::peers::accept::accept_peers;
use woolly_worker::peers::arrivals::{Arrivals, Peer};
use woolly_worker::peers::dial::Dialer;
use woolly_worker::peers::forwards::receive_forwards;
use woolly_worker::peers::outbox::Outbox;
use woolly_worker::peers::results::{open_stream, send_results};
use woolly_worker::peers::samplings::Samplings;
use woolly_worker::stage::compute::{Command, ForwardQueue, next};
use woolly_worker::stage::timings::{Times, Timings};

const EPOCH: PlanEpoch = PlanEpoch(1);
/// Values of a row: 16 KiB, as in a model of 8B.
const HIDDEN: usize = 4096;
/// The longest microbatch of the cases.
const ROWS_MAX: u32 = 96;
const IN_FLIGHT: u32 = 4;
/// Hops that do not count: the congestion window and the estimate of the round trip settle.
const WARM_UP: usize = 50;

/// What is measured: rows of a microbatch, time of a forward, number of hops.
const CASES: [(u32, Duration, usize); 4] = [
    // The next forward comes while the receiver still looks for it, as in a pipeline in step.
    (1, Duration::from_micros(500), 2000),
    // Both sides have gone to sleep, as with one stream alone.
    (1, Duration::from_millis(20), 300),
    (8, Duration::from_millis(20), 200),
    (ROWS_MAX, Duration::from_millis(40), 100),
];

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the keys");
    let ca = ClusterCa::open(folder.path(), SystemTime::now()).expect("a new authority");
    let (sender, receiver) = (identity(&ca), identity(&ca));
    let (cpus, pinned) = cpus();
    println!(
        "hop between two workers on loopback, each on {}",
        if pinned { "a CPU of its own" } else { "all CPUs" }
    );
    let (address, listens) = blocking::channel();
    let (arrived, arrivals) = blocking::channel();
    let from = sender.worker().expect("it is a worker's");
    let next = Neighbour {
        worker: receiver.worker().expect("it is a worker's"),
        address: String::new(),
        name: "receiver".to_owned(),
    };
    std::thread::spawn(move || receive(receiver, from, &cpus[1], &address, &arrived));
    let address = listens.recv().expect("the receiver listens").to_string();
    send(sender, Neighbour { address, ..next }, &cpus[0], &arrivals);
}

fn identity(ca: &ClusterCa) -> Identity {
    let (request, now) = (SigningRequest::new().expect("a key"), SystemTime::now());
    let (_, accepted) = ca.sign(request.der(), now).expect("a certificate");
    request.complete(&accepted, &ca.pin(), now).expect("it is of this authority")
}

/// The CPUs of each side, and whether they differ.
fn cpus() -> ([CpuSet; 2], bool) {
    let all = sched_getaffinity(None).expect("the system tells its CPUs");
    let mut each = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).map(|cpu| {
        let mut one = CpuSet::new();
        one.set(cpu);
        one
    });
    match (each.next(), each.next()) {
        (Some(first), Some(second)) => ([first, second], true),
        _ => ([all, all], false),
    }
}

fn stay_on(cpus: &CpuSet) {
    sched_setaffinity(None, cpus).expect("a thread may stay on one of its CPUs");
}

/// Stage 0 or 1 of three.
fn assign(stage: u32, next: Option<Neighbour>, previous: Option<WorkerId>) -> Assign {
    Assign {
        source: ModelSource { machine: [0; 16], parts: Vec::new() },
        stage: StageSpec {
            fingerprint: [0; 32],
            layer_first: stage,
            layer_end: stage + 1,
            ctx_size: 8192,
            caches: vec![CacheLimits::all_positions(4096)],
            rows_max: ROWS_MAX,
            kv_type: KvType::F16,
            hidden: HIDDEN as u32,
            from_disk: false,
        },
        links: PlanLinks {
            epoch: EPOCH,
            stage,
            // The receiver is not the last, so that it needs no samplings.
            stage_count: 3,
            in_flight_max: IN_FLIGHT,
            next,
            previous,
            replaces: None,
        },
    }
}

fn receive(
    identity: Identity,
    from: WorkerId,
    cpus: &CpuSet,
    address: &blocking::Sender<SocketAddr>,
    arrived: &blocking::Sender<Instant>,
) {
    stay_on(cpus);
    let (work, mut queue) = mpsc::channel::<Command>(IN_FLIGHT as usize);
    let address = address.clone();
    std::thread::spawn(move || {
        let runtime = network_runtime().expect("a runtime");
        runtime.block_on(async move {
            let server = worker_server(&identity, IDLE_TIMEOUT).expect("the certificate is good");
            let endpoint: Endpoint =
                bind((Ipv4Addr::LOCALHOST, 0).into(), Some(server)).expect("a socket").endpoint;
            address.send(endpoint.local_addr().expect("it is bound")).expect("main waits");
            let arrivals = Arc::new(Arrivals::default());
            tokio::spawn(accept_peers(
                endpoint,
                Arc::clone(&arrivals),
                Arc::default(),
                Arc::default(),
            ));
            let stream = arrivals.take(EPOCH, StreamPurpose::Forwards, Peer::Worker(from)).await;
            set_window(&stream.connection, forward_window(ROWS_MAX, HIDDEN as u32, IN_FLIGHT));
            let (outbox, _queue) = Outbox::new();
            let (assign, samplings) = (assign(1, None, Some(from)), Samplings::new(IN_FLIGHT));
            // It ends with the sender.
            let queue = ForwardQueue::new(work, IN_FLIGHT);
            receive_forwards(stream, &assign, &samplings, &queue, &outbox).await;
        });
    });
    while let Some(work) = next(&mut queue) {
        if arrived.send(Instant::now()).is_err() {
            return;
        }
        drop(work);
    }
}

fn send(identity: Identity, next: Neighbour, cpus: &CpuSet, arrived: &blocking::Receiver<Instant>) {
    stay_on(cpus);
    let (results, queue) = mpsc::channel(IN_FLIGHT as usize);
    let places = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    std::thread::spawn(move || {
        let runtime = network_runtime().expect("a runtime");
        runtime.block_on(async move {
            let dialer = Dialer::new(identity, IDLE_TIMEOUT);
            let greeted = dialer.next_stage(&next).await.expect("the receiver listens");
            let window = forward_window(ROWS_MAX, HIDDEN as u32, IN_FLIGHT);
            set_window(&greeted.connection, window);
            let stream = open_stream(&greeted.connection, EPOCH, StreamPurpose::Forwards);
            let stream = stream.await.expect("the connection is open");
            let (outbox, _queue) = Outbox::new();
            let (assign, timings) = (assign(0, Some(next), None), Timings::default());
            send_results(stream, queue, &assign.links, &timings, &outbox).await;
        });
    });
    println!(
        "{:>10} {:>12} {:>9} {:>9} {:>9} {:>9}",
        "payload", "every", "p50", "p99", "max", "hops"
    );
    let mut microbatch = 0;
    for (rows, every, count) in CASES {
        let hidden = vec![0.5f32; rows as usize * HIDDEN];
        let mut hops = Vec::with_capacity(count);
        for hop in 0..WARM_UP + count {
            microbatch += 1;
            let place = Arc::clone(&places).try_acquire_owned().expect("one is in flight");
            let work = forward(microbatch, rows, place);
            spin(every);
            let started = Instant::now();
            let hidden = Bytes::copy_from_slice(bytemuck::cast_slice(&hidden));
            let (computed, times) = (Computed::Hidden(hidden), Times::default());
            let finished = Finished { work, computed, times, at: Instant::now() };
            results.try_send(finished).expect("the sender lives");
            let at = arrived.recv().expect("the receiver lives");
            if hop >= WARM_UP {
                hops.push(at - started);
            }
        }
        report(hidden.len() * size_of::<f32>(), every, hops);
    }
}

/// A forward as the sending stage has read it.
fn forward(microbatch: u64, rows: u32, place: OwnedSemaphorePermit) -> Work {
    let chunk = Chunk { sequence: SequenceId(1), position: 0, token_count: rows, sample_rows: 1 };
    let mut tables = BlockTables::default();
    tables.push(0, &(0..rows.div_ceil(32)).map(BlockId).collect::<Vec<_>>());
    let caches = vec![CacheTables::Blocks(tables)];
    let microbatch = MicrobatchId(microbatch);
    let forward =
        Forward { epoch: EPOCH, microbatch, traces: Vec::new(), chunks: vec![chunk], caches };
    let bytes = encode(&forward, &[]).expect("it fits a frame");
    let (frame, _) = Frame::decode(&bytes, &[Kind::Forward]).expect("it was just encoded");
    Work::new(forward, frame, None, place)
}

/// Computes, as far as the processor can tell.
fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn report(payload: usize, every: Duration, mut hops: Vec<Duration>) {
    hops.sort_unstable();
    let at = |share: f64| hops[((hops.len() - 1) as f64 * share).round() as usize];
    let ms = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    let kib = format!("{} KiB", payload >> 10);
    let (p50, p99, max) = (ms(at(0.5)), ms(at(0.99)), ms(at(1.0)));
    println!("{kib:>10} {:>12} {p50:>9} {p99:>9} {max:>9} {:>9}", ms(every), hops.len());
}
