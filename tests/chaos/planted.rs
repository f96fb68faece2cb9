//! Mistakes that are planted on purpose: if these tests do not find one of them, they would not find such a
//! mistake that somebody makes.
//!
//! Debug builds of the programs have them behind `WOOLLY_FAILPOINTS`. Each is played twice: without the
//! mistake nothing may be found, and with it what belongs to it must be.

use crate::bed::{Bed, FAILPOINTS, Plan};
use crate::client::{Client, Visit};
use crate::fault::{Fault, Moment, Place, Spare};
use crate::oracle::{Oracle, Verdict};
use crate::round::{self, STAGES};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use woolly_tests::numbers::Numbers;
use woolly_tests::process::binary;
use woolly_tests::relay::Way;
use woolly_tests::relay::fate::Conditions;

/// Bytes between two that are damaged.
const DAMAGE_EVERY: usize = 509;
/// How long a plan may last with a link that is broken.
const ACCUSED_FOR: Duration = Duration::from_secs(15);
/// Tries until an answer comes late: on a busy machine it may come in time.
const LATE_ROUNDS: usize = 3;
/// Where a worker stands still, and how long: longer than it takes to give it up.
const STANDS_STILL: &str = "worker.forward=60:sleep:3400";
/// After how long without a token it is taken to stand still.
const STANDSTILL: Duration = Duration::from_millis(500);
/// How long the news is on its way that it was given up.
const RELEASED_AFTER: Duration = Duration::from_millis(1300);

/// What shows a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Tokens are wrong, too many or too few.
    Tokens,
    /// Blocks are not free where nothing runs.
    Blocks,
    /// A worker that could go on may not.
    Seats,
}

/// A mistake and where it would show.
struct Planted {
    name: &'static str,
    /// The program that makes it.
    program: &'static str,
    sign: Sign,
    play: fn(&Oracle, Plan) -> Verdict,
}

const ALL: [Planted; 7] = [
    Planted {
        name: "skip-last-token-in-replay",
        program: "woolly-coordinator",
        sign: Sign::Tokens,
        play: killed,
    },
    Planted {
        name: "send-before-commit",
        program: "woolly-coordinator",
        sign: Sign::Tokens,
        play: killed,
    },
    Planted {
        name: "ignore-epoch",
        program: "woolly-coordinator",
        sign: Sign::Tokens,
        play: late_answers,
    },
    Planted {
        name: "leak-block-on-cancel",
        program: "woolly-coordinator",
        sign: Sign::Blocks,
        play: cancelled,
    },
    Planted {
        name: "keep-old-prefix-names",
        program: "woolly-coordinator",
        sign: Sign::Tokens,
        play: shared_before_and_after,
    },
    Planted {
        name: "believe-first-accuser",
        program: "woolly-coordinator",
        sign: Sign::Seats,
        play: accused,
    },
    Planted {
        name: "accept-wrong-chunk-hash",
        program: "woolly-worker",
        sign: Sign::Tokens,
        play: damaged_slices,
    },
];

/// Plants each mistake of a lane; gives what is wrong: one that is not found, one that is not there to be found, and
/// findings where none was planted.
pub fn check(oracle: &Oracle, only: &str, (lane, lanes): (usize, usize)) -> Vec<String> {
    let mut wrong = Vec::new();
    let wanted = ALL.iter().filter(|planted| planted.name.contains(only));
    for planted in wanted.skip(lane).step_by(lanes) {
        let begun = Instant::now();
        let result = check_one(oracle, planted);
        let how = if result.is_empty() { "found" } else { "WRONG" };
        println!("planted {:28} {how}, {:.1} s", planted.name, begun.elapsed().as_secs_f64());
        for line in &result {
            println!("      {line}");
        }
        wrong.extend(result);
    }
    wrong
}

fn check_one(oracle: &Oracle, planted: &Planted) -> Vec<String> {
    let clean = played(oracle, planted, false);
    if !clean.findings.is_empty() {
        let first = clean.findings.into_iter().next().unwrap_or_default();
        return vec![format!("{}: without it this is found: {first}", planted.name)];
    }
    if !is_there(planted) {
        let (name, program) = (planted.name, planted.program);
        return vec![format!("{name}: {program} has no such mistake to plant")];
    }
    let found = played(oracle, planted, true);
    if planted.sign.is_in(&found) {
        println!("      {}", found.findings.first().map_or("", String::as_str));
        return Vec::new();
    }
    let some: Vec<&String> = found.findings.iter().take(3).collect();
    vec![format!("{}: it is not found; findings: {some:?}", planted.name)]
}

impl Sign {
    fn is_in(self, verdict: &Verdict) -> bool {
        let says = |text: &str| verdict.findings.iter().any(|finding| finding.contains(text));
        match self {
            Sign::Tokens => verdict.wrong + verdict.miscounted > 0,
            Sign::Blocks => says("blocks"),
            Sign::Seats => says("lost its seat"),
        }
    }
}

/// Whether the program knows the name, which it does if its file has it.
fn is_there(planted: &Planted) -> bool {
    let file = fs::read(binary(planted.program)).expect("the program can be read");
    let name = planted.name.as_bytes();
    file.windows(name.len()).any(|window| window == name)
}

fn played(oracle: &Oracle, planted: &Planted, is_planted: bool) -> Verdict {
    let mut plan = Plan { stages: STAGES, seed: 1, ..Plan::default() };
    if is_planted {
        let variables = match planted.program {
            "woolly-worker" => &mut plan.worker_variables,
            _ => &mut plan.coordinator_variables,
        };
        variables.push((FAILPOINTS.to_owned(), planted.name.to_owned()));
    }
    // A mistake may let a cluster not come up at all, which the bed tells by a panic.
    let verdict = catch_unwind(AssertUnwindSafe(|| (planted.play)(oracle, plan)));
    verdict.unwrap_or_else(|_| Verdict {
        findings: vec!["the cluster does not come up".to_owned()],
        ..Verdict::default()
    })
}

/// Plays one fault on a new cluster.
fn faulted(oracle: &Oracle, plan: Plan, fault: Fault) -> Verdict {
    let mut bed = Bed::start(plan);
    round::play(&mut bed, oracle, fault, &mut Numbers::of(&[4])).verdict
}

fn killed(oracle: &Oracle, plan: Plan) -> Verdict {
    let (place, moment, spare) = (Place::Last, Moment::Token(17), Spare::Waiting);
    faulted(oracle, plan, Fault::Kill { place, moment, spare })
}

fn cancelled(oracle: &Oracle, plan: Plan) -> Verdict {
    faulted(oracle, plan, Fault::Storm)
}

/// A last stage stands still until another plan is in force, and hears late that its own is over: its answer
/// comes when nobody waits for it.
fn late_answers(oracle: &Oracle, plan: Plan) -> Verdict {
    let mut verdict = Verdict::default();
    for _ in 0..LATE_ROUNDS {
        let (came, found) = late_answer(oracle, plan.clone());
        verdict.add(found);
        if came > 0.0 || !verdict.findings.is_empty() {
            return verdict;
        }
    }
    verdict.findings.push("no answer came late: this shows nothing".to_owned());
    verdict
}

/// The number of answers that came late, and what the stream was like.
fn late_answer(oracle: &Oracle, plan: Plan) -> (f64, Verdict) {
    let mut bed = Bed::start(plan);
    let visit = Visit {
        at: Duration::ZERO,
        request: oracle.request("long answer"),
        streamed: true,
        leaves_after: None,
    };
    let spare = bed.add_failing(STANDS_STILL);
    let last = bed.stages().pop().expect("it serves");
    let client = Client::start(bed.cluster.http, &oracle.requests, visit, Instant::now());
    bed.kill(&last);
    await_standstill(&bed, &client, &spare);
    let late = Conditions::delayed(RELEASED_AFTER);
    // Its neighbour would say so as well, by ending their connection.
    bed.seat(&spare).up.set(&[Way::Back], &late);
    bed.seat(&spare).peer.set(&[Way::Out], &late);
    thread::sleep(2 * RELEASED_AFTER + Duration::from_secs(1));
    bed.calm();
    let verdict = oracle.judge(&client.join());
    (bed.figure("woolly_stale_answers_total").unwrap_or_default(), verdict)
}

/// Waits until a stream gets nothing more while this worker is the last one.
fn await_standstill(bed: &Bed, client: &Client, last: &str) {
    let until = Instant::now() + ACCUSED_FOR;
    let (mut tokens, mut since) = (0, Instant::now());
    while Instant::now() < until && !client.has_ended() {
        let is_last = bed.stages().last().is_some_and(|name| name == last);
        if client.tokens() != tokens || !is_last {
            (tokens, since) = (client.tokens(), Instant::now());
        }
        if since.elapsed() > STANDSTILL {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks for all answers of these kinds at once, and compares them.
fn asked(bed: &Bed, oracle: &Oracle, kinds: &[&str]) -> Verdict {
    let wanted = |at: &usize| kinds.is_empty() || kinds.contains(&oracle.requests[*at].kind);
    let visit =
        |request| Visit { at: Duration::ZERO, request, streamed: false, leaves_after: None };
    let start = |at| Client::start(bed.cluster.http, &oracle.requests, visit(at), Instant::now());
    let clients: Vec<Client> = (0..oracle.requests.len()).filter(wanted).map(start).collect();
    let mut verdict = Verdict::default();
    for client in clients {
        verdict.add(oracle.judge(&client.join()));
    }
    verdict
}

/// The same prompts before and after a plan was lost: what was computed before is not there any more.
fn shared_before_and_after(oracle: &Oracle, plan: Plan) -> Verdict {
    let kinds = ["shared prefix", "long prompt", "completion"];
    let mut bed = Bed::start(plan);
    let mut verdict = asked(&bed, oracle, &kinds);
    verdict.add(asked(&bed, oracle, &kinds));
    bed.fill(STAGES + 1);
    let last = bed.stages().pop().expect("it serves");
    bed.kill(&last);
    verdict.findings.extend(round::await_service(&bed, oracle));
    verdict.add(asked(&bed, oracle, &kinds));
    verdict
}

/// One worker does not reach its neighbour: all three can go on, in another order.
fn accused(oracle: &Oracle, plan: Plan) -> Verdict {
    let mut bed = Bed::start(plan);
    let before = bed.stages();
    let accuser = bed.seat(&before[0]).process.id();
    bed.seat(&before[1]).peer.refuse(accuser);
    let mut verdict = Verdict::default();
    let until = Instant::now() + ACCUSED_FOR;
    while bed.losses().0 == 0 && Instant::now() < until {
        verdict.add(asked(&bed, oracle, &["log-probabilities"]));
    }
    verdict.findings.extend(round::await_service(&bed, oracle));
    let after = bed.stages();
    if after.len() < STAGES {
        verdict.findings.push(format!("a worker lost its seat: {before:?} became {after:?}"));
    }
    verdict.findings.extend(bed.check_idle());
    verdict
}

/// The only worker is down while the weights that it keeps are damaged.
fn damaged_slices(oracle: &Oracle, plan: Plan) -> Verdict {
    let flags = vec!["--no-local-files"];
    let mut bed = Bed::start(Plan { stages: 1, worker_flags: flags, ..plan });
    let name = bed.stages().pop().expect("it serves");
    let mut damaged = 0;
    bed.restart(&name, |state| damaged = damage(state));
    let mut verdict = Verdict::default();
    if damaged == 0 {
        verdict.findings.push("the worker keeps no slices".to_owned());
    }
    verdict.findings.extend(round::await_service(&bed, oracle));
    verdict.add(asked(&bed, oracle, &[]));
    verdict
}

/// Flips bits in all slices under a folder; gives their number.
fn damage(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            count += damage(&path);
        } else if path.extension().is_some_and(|extension| extension == "slice") {
            let mut bytes = fs::read(&path).expect("a slice can be read");
            // The header is parsed, and says more than a wrong token if it is damaged.
            if bytes.starts_with(b"GGUF") {
                continue;
            }
            bytes.iter_mut().step_by(DAMAGE_EVERY).for_each(|byte| *byte ^= 0x11);
            fs::write(&path, bytes).expect("a slice can be written");
            count += 1;
        }
    }
    count
}
