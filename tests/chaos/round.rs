//! A round: clients come, a fault is done, all ends, the cluster is mended, and everything is compared.

use crate::bed::{Bed, Plan};
use crate::client::{Client, Visit, ask};
use crate::fault::Fault;
use crate::oracle::{Oracle, Verdict};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};
use woolly_tests::numbers::Numbers;

/// Stages of the cluster.
pub const STAGES: usize = 3;
/// How long a mended cluster may take until it answers a request: a worker that is given up is found within
/// 3 s, and one that was cut off tries again within 5 s.
const SERVES_LIMIT: Duration = Duration::from_secs(20);
/// Clients beside the one whose stream decides when the fault comes.
const BESIDE: usize = 6;
/// Clients of a storm.
const STORM: usize = 60;
/// Seconds between two clients on average.
const GAP: f64 = 0.35;
/// One client in so many leaves before its answer has ended.
const LEAVES: usize = 6;

/// What a round came to.
#[derive(Debug)]
pub struct Report {
    /// The fault.
    pub fault: Fault,
    /// Clients.
    pub requests: u64,
    /// What was compared.
    pub verdict: Verdict,
    /// The longest silence of each stream that was under way.
    pub stalls: Vec<Duration>,
    /// How long the causes of lost plans had shown no life, on average, if plans were lost.
    pub detection: Option<Duration>,
    /// How long all took.
    pub took: Duration,
}

impl Report {
    /// A round that could not be played to its end.
    pub fn broken(fault: Fault, why: &str) -> Report {
        let verdict = Verdict { findings: vec![why.to_owned()], ..Verdict::default() };
        let (stalls, took) = (Vec::new(), Duration::ZERO);
        Report { fault, requests: 0, verdict, stalls, detection: None, took }
    }
}

/// Does a fault to a cluster under load. What this test itself cannot go on from is a finding as well.
pub fn play(bed: &mut Bed, oracle: &Oracle, fault: Fault, numbers: &mut Numbers) -> Report {
    let begun = Instant::now();
    let played = catch_unwind(AssertUnwindSafe(|| play_through(bed, oracle, fault, numbers)));
    let mut report = played.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
        Report::broken(fault, said.lines().next().unwrap_or_default())
    });
    report.took = begun.elapsed();
    report
}

fn play_through(bed: &mut Bed, oracle: &Oracle, fault: Fault, numbers: &mut Numbers) -> Report {
    let mut verdict = Verdict::default();
    bed.fill(STAGES + fault.spares());
    let losses = bed.losses();
    let visits = load(oracle, fault, numbers);
    let start = Instant::now();
    let clients: Vec<Client> = visits
        .iter()
        .map(|visit| Client::start(bed.cluster.http, &oracle.requests, *visit, start))
        .collect();
    let tokens = oracle.requests[visits[0].request].tokens;
    verdict.findings.extend(fault.inject(bed, &clients[0], tokens, numbers));
    let requests = clients.len() as u64;
    let mut stalls = Vec::new();
    for client in clients {
        let seen = client.join();
        verdict.add(oracle.judge(&seen));
        let stall = seen.answer.stall();
        // An answer that comes as a whole is silent until then.
        if seen.visit.streamed && !seen.answer.left {
            stalls.push(stall);
            if stall > fault.stall_max() {
                let most = fault.stall_max();
                verdict.findings.push(format!("a stream stood still for {stall:?}, not {most:?}"));
            }
        }
    }
    let (lost, silent) = bed.losses();
    let (lost, silent) = (lost - losses.0, silent - losses.1);
    if lost > 0 && fault.is_gentle() {
        verdict.findings.push(format!("{lost} plans were given up for it"));
    }
    let detection = (lost > 0).then(|| Duration::from_secs_f64(silent / lost as f64));
    bed.fill(STAGES);
    verdict.findings.extend(await_service(bed, oracle));
    verdict.findings.extend(bed.check_idle());
    Report { fault, requests, verdict, stalls, detection, took: Duration::ZERO }
}

/// Whether the cluster can go on into a round of this fault, or a new one is needed.
pub fn is_fit(bed: &Bed, fault: Fault) -> bool {
    let wanted = STAGES + fault.spares();
    bed.stages().len() == STAGES && bed.seats.len() <= wanted
}

/// A new cluster for rounds. Its workers fetch their slices, as on machines of their own.
pub fn new_bed(seed: u64) -> Bed {
    let worker_flags = vec!["--no-local-files"];
    Bed::start(Plan { stages: STAGES, seed, worker_flags, ..Plan::default() })
}

/// Waits until a request is answered rightly; the floor on which the next fault stands.
pub fn await_service(bed: &Bed, oracle: &Oracle) -> Option<String> {
    let canary = oracle.requests.iter().position(|request| request.tokens == 24)?;
    let visit = Visit { at: Duration::ZERO, request: canary, streamed: false, leaves_after: None };
    let request = &oracle.requests[canary];
    let until = Instant::now() + SERVES_LIMIT;
    loop {
        let count = AtomicUsize::new(0);
        let answer = ask(bed.cluster.http, request.path, &request.body, &visit, &count);
        let error = answer.error?;
        if Instant::now() >= until {
            return Some(format!("it does not serve again after {SERVES_LIMIT:?}: {error}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The clients of a round; the first is the one that decides when the fault comes.
fn load(oracle: &Oracle, fault: Fault, numbers: &mut Numbers) -> Vec<Visit> {
    let trigger = Visit {
        at: Duration::ZERO,
        request: oracle.request(fault.trigger()),
        streamed: true,
        leaves_after: None,
    };
    let (beside, gap) = match fault {
        Fault::Storm => (STORM, GAP / 10.0),
        _ => (BESIDE, GAP),
    };
    let mut at = 0.0;
    let others = (0..beside).map(|_| {
        at += numbers.gap(gap);
        let request = numbers.below(oracle.requests.len());
        let storm = fault == Fault::Storm;
        let leaves = numbers.below(LEAVES) == 0 || (storm && numbers.below(8) > 0);
        let streamed = oracle.requests[request].streams && (leaves || numbers.below(4) > 0);
        let leaves_after = (leaves && streamed).then(|| 1 + numbers.below(12));
        Visit { at: Duration::from_secs_f64(at), request, streamed, leaves_after }
    });
    std::iter::once(trigger).chain(others).collect()
}
