//! Faults under load: whatever breaks, every accepted request gets its whole answer, each token once and
//! none changed.
//!
//! A seed decides everything that is decided here. Without arguments every kind of fault is done once to a
//! cluster of real processes, in minutes; `--minutes` and `--matrix` do more. Each answer is compared with
//! what an undisturbed cluster of one worker says, to the last printed bit of the log-probabilities.
//!
//! This binary has no harness, because it takes arguments of its own. Those of the usual harness choose it by
//! its name, as they would with one.

#![forbid(unsafe_code)]

mod answer;
mod bed;
mod client;
mod fault;
mod ledger;
mod oracle;
mod planted;
mod request;
mod round;
mod schedule;
mod weather;

use bed::Bed;
use clap::Parser;
use fault::Fault;
use ledger::Sums;
use oracle::Oracle;
use round::Report;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use woolly_tests::fixtures;
use woolly_tests::numbers::Numbers;

/// The test's name.
const NAME: &str = "chaos";
/// The seed unless one is given.
const SEED: u64 = 2026;
/// Clusters at a time: each of them waits most of the time.
const LANES: usize = 2;
/// Options of the usual harness that are followed by a value.
const WITH_VALUE: [&str; 6] =
    ["--skip", "--test-threads", "--format", "--color", "--logfile", "-Z"];

/// Does faults to a cluster under load and compares every answer.
#[derive(Debug, Parser)]
struct Arguments {
    /// Decides which faults come when, and what clients ask
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Random faults for so long, instead of each kind once
    #[arg(long, value_name = "N", conflicts_with_all = ["matrix", "faults"])]
    minutes: Option<usize>,
    /// So many random faults, instead of each kind once
    #[arg(long, value_name = "N", conflicts_with = "matrix")]
    faults: Option<usize>,
    /// Clusters at a time, each with its part of the faults
    #[arg(long, value_name = "N", default_value_t = LANES, value_parser = lanes)]
    lanes: usize,
    /// Every point of a kill at every stage with every kind of spare
    #[arg(long)]
    matrix: bool,
    /// Only the mistakes that are planted to be found
    #[arg(long, conflicts_with_all = ["matrix", "faults", "minutes"])]
    planted: bool,
    /// Only faults whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// A file that gets a line with the figures of the run
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

impl Arguments {
    /// Whether planted mistakes are looked for: alone, or where nothing else is asked for.
    fn with_planted(&self) -> bool {
        let other = self.matrix || self.only.is_some() || self.faults.or(self.minutes).is_some();
        self.planted || !other
    }
}

fn lanes(text: &str) -> Result<usize, String> {
    let lanes = text.parse().ok().filter(|lanes| (1..=16).contains(lanes));
    lanes.ok_or_else(|| "expected 1 to 16".to_owned())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    match Arguments::try_parse() {
        Ok(arguments) => run(&arguments),
        Err(_) if !is_ours(&words) => {
            if is_chosen(&words) {
                run(&Arguments::parse_from([NAME]))
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => error.exit(),
    }
}

/// Whether a word is an option of this test, so that mistakes in the others are mistakes.
fn is_ours(words: &[String]) -> bool {
    let ours = [
        "--seed",
        "--minutes",
        "--faults",
        "--matrix",
        "--planted",
        "--only",
        "--ledger",
        "--help",
    ];
    words.iter().any(|word| ours.contains(&word.split('=').next().unwrap_or_default()))
}

/// Whether words for the usual harness choose this test: no filter, or one that its name contains.
fn is_chosen(words: &[String]) -> bool {
    let mut filters = Vec::new();
    let mut skipped = false;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            let value = words.next();
            skipped |= word == "--skip" && value.is_some_and(|value| NAME.contains(value));
        } else if !word.starts_with('-') {
            filters.push(word);
        }
    }
    !skipped && (filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter)))
}

fn run(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    println!("seed {}", arguments.seed);
    let oracle = Oracle::ask(fixtures::granite_tiny());
    println!("{} answers without a fault after {:.1?}", oracle.requests.len(), begun.elapsed());
    let sums = Mutex::new(Sums::new(arguments.seed));
    let not_found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for lane in 0..arguments.lanes {
            let (oracle, sums, not_found) = (&oracle, &sums, &not_found);
            scope.spawn(move || {
                if !arguments.planted {
                    play(arguments, oracle, begun, lane, sums);
                }
                if arguments.with_planted() {
                    let wrong = planted::check(
                        oracle,
                        arguments.only.as_deref().unwrap_or_default(),
                        (lane, arguments.lanes),
                    );
                    locked(not_found).extend(wrong);
                }
            });
        }
    });
    let (sums, not_found) = (locked(&sums), locked(&not_found));
    println!("{}", sums.summary(begun.elapsed()));
    if !not_found.is_empty() {
        println!("planted mistakes that are not found: {}", not_found.len());
    }
    if let Some(file) = &arguments.ledger
        && let Err(error) = sums.append(file, begun.elapsed())
    {
        println!("{}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    let is_something = arguments.planted || sums.has_rounds();
    if !is_something {
        println!("no fault has this name");
    }
    let is_well = is_something && sums.is_clean() && not_found.is_empty();
    println!("test {NAME} ... {}", if is_well { "ok" } else { "FAILED" });
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The rounds of a lane, one after the other, on the same cluster as long as it is fit for the next.
fn play(arguments: &Arguments, oracle: &Oracle, begun: Instant, lane: usize, sums: &Mutex<Sums>) {
    let mut kept: Option<Bed> = None;
    let is_its = |(round, _): &(usize, Fault)| round % arguments.lanes == lane;
    for (round, fault) in faults(arguments, begun).filter(is_its) {
        let mut numbers = Numbers::of(&[arguments.seed, 2, round as u64]);
        let seed = numbers.draw();
        let fit = kept.take().filter(|bed| round::is_fit(bed, fault));
        let fresh = || catch_unwind(|| round::new_bed(seed)).ok();
        let Some(mut bed) = fit.or_else(fresh) else {
            locked(sums).add(round + 1, &Report::broken(fault, "no cluster comes up"));
            continue;
        };
        let report = round::play(&mut bed, oracle, fault, &mut numbers);
        let is_clean = report.verdict.findings.is_empty();
        locked(sums).add(round + 1, &report);
        if is_clean {
            kept = Some(bed);
        } else {
            let folder = logs_folder(arguments.seed, round);
            bed.keep_logs(&folder);
            println!("      logs: {}\n{}", folder.display(), bed.cluster.coordinator.log());
        }
    }
}

/// A lane that panicked left whole sums behind; the panic ends the test by itself.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The faults that were asked for, in their order, each with its number.
fn faults(arguments: &Arguments, begun: Instant) -> Box<dyn Iterator<Item = (usize, Fault)>> {
    let only = arguments.only.clone().unwrap_or_default();
    let seed = arguments.seed;
    let random = (0..).map(move |round| schedule::random(&mut Numbers::of(&[seed, 3, round])));
    let is_wanted = move |fault: &Fault| fault.to_string().contains(&only);
    match (arguments.minutes, arguments.faults) {
        (Some(minutes), _) => {
            let until = begun + Duration::from_secs(60 * minutes as u64);
            let random = random.filter(is_wanted).enumerate();
            Box::new(random.take_while(move |_| Instant::now() < until))
        }
        (_, Some(count)) => Box::new(random.filter(is_wanted).enumerate().take(count)),
        _ if arguments.matrix => {
            Box::new(schedule::matrix().into_iter().filter(is_wanted).enumerate())
        }
        _ => Box::new(schedule::short(seed).into_iter().filter(is_wanted).enumerate()),
    }
}

/// Where the logs of a round are kept that went wrong.
fn logs_folder(seed: u64, round: usize) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}-{}", round + 1))
}
