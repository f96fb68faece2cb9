//! The sums of a run: on a table for people, and as a line of a file that outlives it.

use crate::round::Report;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use woolly_tests::source::workspace_root;

/// The first line of the file.
const HEAD: &str = "unix_time,commit,seed,faults,requests,tokens_compared,wrong_tokens,lost_requests,\
                    miscounted_tokens,findings,detection_p50_ms,detection_p99_ms,detection_max_ms,stall_p50_ms,stall_p99_ms,stall_max_ms,seconds";

/// The sums of all rounds of a run.
#[derive(Debug, Default)]
pub struct Sums {
    seed: u64,
    faults: u64,
    requests: u64,
    compared: u64,
    wrong: u64,
    lost: u64,
    miscounted: u64,
    /// Everything that was found, those included.
    findings: u64,
    stalls: Vec<Duration>,
    detections: Vec<Duration>,
}

impl Sums {
    /// The sums of a run with this seed.
    pub fn new(seed: u64) -> Sums {
        Sums { seed, ..Sums::default() }
    }

    /// Whether there were any rounds.
    pub fn has_rounds(&self) -> bool {
        self.faults > 0
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings == 0
    }

    /// Adds a round, and prints its line.
    pub fn add(&mut self, round: usize, report: &Report) {
        let (verdict, longest) = (&report.verdict, report.stalls.iter().max());
        println!(
            "{:3} {:44} {:3} requests {:6} tokens, stall {:5.2} s{}, {:4.1} s{}",
            round,
            report.fault.to_string(),
            report.requests,
            verdict.compared,
            longest.copied().unwrap_or_default().as_secs_f64(),
            report
                .detection
                .map(|time| format!(", found in {:.2} s", time.as_secs_f64()))
                .unwrap_or_default(),
            report.took.as_secs_f64(),
            if verdict.findings.is_empty() { "" } else { "  WRONG" }
        );
        for finding in &verdict.findings {
            println!("      {finding}");
        }
        self.faults += 1;
        self.requests += report.requests;
        self.compared += verdict.compared;
        self.wrong += verdict.wrong;
        self.lost += verdict.lost;
        self.miscounted += verdict.miscounted;
        self.findings += verdict.findings.len() as u64;
        self.stalls.extend(&report.stalls);
        self.detections.extend(report.detection);
    }

    /// The sums in words.
    pub fn summary(&self, took: Duration) -> String {
        let ([found, found_99, found_max], [stall, stall_99, stall_max]) =
            (figures(&self.detections), figures(&self.stalls));
        format!(
            "seed {}: {} faults, {} requests, {} tokens compared, {} wrong, {} too many or too few, \
             {} requests lost, {} findings; losses found in p50 {} ms, p99 {} ms, longest {} ms; \
             stalls p50 {} ms, p99 {} ms, longest {} ms; {:.0} s",
            self.seed,
            self.faults,
            self.requests,
            self.compared,
            self.wrong,
            self.miscounted,
            self.lost,
            self.findings,
            found,
            found_99,
            found_max,
            stall,
            stall_99,
            stall_max,
            took.as_secs_f64()
        )
    }

    /// Appends the run's line to a file, which gets a head if it is new.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn append(&self, file: &Path, took: Duration) -> io::Result<()> {
        let is_new = !file.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        if is_new {
            writeln!(file, "{HEAD}")?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let counts = [
            self.seed,
            self.faults,
            self.requests,
            self.compared,
            self.wrong,
            self.lost,
            self.miscounted,
            self.findings,
        ];
        let times = [figures(&self.detections), figures(&self.stalls)].concat();
        let all = counts.iter().map(u64::to_string).chain(times.iter().map(u128::to_string));
        let all: Vec<String> = all.collect();
        writeln!(file, "{now},{},{},{}", commit(), all.join(","), took.as_secs())
    }
}

/// The median of times, what all but a hundredth of them stay below, and the longest, in milliseconds.
fn figures(times: &[Duration]) -> [u128; 3] {
    let mut times = times.to_vec();
    times.sort();
    [0.5, 0.99, 1.0].map(|part| {
        let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default().as_millis()
    })
}

/// The commit that is tested, as git says it.
fn commit() -> String {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(workspace_root())
        .output();
    let text = git.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
