//! What every answer must be: an undisturbed cluster of one worker says it, and what came under faults is
//! compared with it to the last bit that is printed.

use crate::answer::Answer;
use crate::client::{Client, Seen, Visit};
use crate::request::{self, Request};
use std::path::Path;
use std::time::{Duration, Instant};
use woolly_tests::cluster::Setup;

/// Undisturbed requests at a time.
const AT_ONCE: usize = 8;

/// Every request with its right answer.
#[derive(Debug)]
pub struct Oracle {
    /// The requests.
    pub requests: Vec<Request>,
    expected: Vec<Answer>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Tokens that came and were compared.
    pub compared: u64,
    /// Tokens that are others than they should be, or whose log-probabilities are.
    pub wrong: u64,
    /// Tokens too many or too few in an answer that ended well.
    pub miscounted: u64,
    /// An accepted request that did not end with a whole answer.
    pub lost: u64,
    /// Each of these in words.
    pub findings: Vec<String>,
}

impl Verdict {
    /// Adds what another comparison found.
    pub fn add(&mut self, other: Verdict) {
        self.compared += other.compared;
        self.wrong += other.wrong;
        self.miscounted += other.miscounted;
        self.lost += other.lost;
        self.findings.extend(other.findings);
    }
}

impl Oracle {
    /// Asks an undisturbed cluster of one worker for every answer as a whole.
    pub fn ask(model: &Path) -> Oracle {
        let cluster = Setup::new(model).workers(1).start();
        let id = cluster.get("/v1/models")["data"][0]["id"].as_str().map(str::to_owned);
        let requests = request::all(&id.expect("a model is listed"));
        let mut expected = Vec::new();
        let all: Vec<usize> = (0..requests.len()).collect();
        for some in all.chunks(AT_ONCE) {
            let visit = |request| Visit {
                at: Duration::ZERO,
                request,
                streamed: false,
                leaves_after: None,
            };
            let start =
                |at: &usize| Client::start(cluster.http, &requests, visit(*at), Instant::now());
            let clients: Vec<Client> = some.iter().map(start).collect();
            expected.extend(clients.into_iter().map(|client| client.join().answer));
        }
        for (request, answer) in requests.iter().zip(&expected) {
            let right = answer.status == 200 && answer.error.is_none() && answer.finish.is_some();
            assert!(right, "{} without a fault: {answer:?}\n{}", request.kind, cluster.logs());
        }
        Oracle { requests, expected }
    }

    /// The first request of a kind.
    pub fn request(&self, kind: &str) -> usize {
        let found = self.requests.iter().position(|request| request.kind == kind);
        found.unwrap_or_else(|| panic!("no request is of the kind {kind}"))
    }

    /// Compares what a client got with what it should have got.
    pub fn judge(&self, seen: &Seen) -> Verdict {
        let (expected, got) = (&self.expected[seen.visit.request], &seen.answer);
        let mut verdict = Verdict::default();
        let request = &self.requests[seen.visit.request];
        let how = if seen.visit.streamed { "streamed" } else { "whole" };
        let mut find = |what: String| {
            let text = format!("{} ({how}, request {}): {what}", request.kind, seen.visit.request);
            verdict.findings.push(text);
        };
        let is_whole = got.error.is_none() && !got.left;
        if let Some(error) = got.error.as_ref().filter(|_| !got.left) {
            find(format!(
                "lost with status {}, {} events: {error}",
                got.status,
                got.times.len() - 1
            ));
            verdict.lost += 1;
        }
        if let Some(what) = differs(&expected.text, &got.text, is_whole) {
            find(what);
            verdict.wrong += 1;
        }
        let differ = expected.tokens.iter().zip(&got.tokens).filter(|(a, b)| a != b).count();
        if differ > 0 {
            let at = expected.tokens.iter().zip(&got.tokens).position(|(a, b)| a != b);
            let at = at.expect("one differs");
            let (should, is) = (&expected.tokens[at], &got.tokens[at]);
            find(format!("{differ} tokens differ; the first, {at}, is {is}, not {should}"));
            verdict.wrong += differ as u64;
        }
        let (want, have) = (expected.tokens.len(), got.tokens.len());
        if have > want || (is_whole && have < want) {
            find(format!("{have} tokens with log-probabilities, not {want}"));
            verdict.miscounted += want.abs_diff(have) as u64;
        }
        if is_whole && (&got.finish, got.usage) != (&expected.finish, expected.usage) {
            let end = |answer: &Answer| format!("{:?} {:?}", answer.finish, answer.usage);
            find(format!("it ends with {}, not {}", end(got), end(expected)));
            verdict.miscounted += 1;
        }
        if got.after_end > 0 {
            find(format!("{} events have tokens after the end", got.after_end));
            verdict.miscounted += got.after_end as u64;
        }
        verdict.compared += got.usage.map_or(got.times.len() as u64 - 1, |(_, tokens)| tokens);
        verdict
    }
}

/// How a text differs from what it should be, of which it may be the beginning if it is not whole.
fn differs(expected: &str, got: &str, is_whole: bool) -> Option<String> {
    if got == expected || (!is_whole && expected.starts_with(got)) {
        return None;
    }
    let same = expected.bytes().zip(got.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        let bytes = text.as_bytes();
        let from = same.saturating_sub(20).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..(same + 30).min(bytes.len())]).into_owned()
    };
    Some(format!(
        "from byte {same} of {} on the text is {:?}, not {:?} ({} bytes came)",
        expected.len(),
        around(got),
        around(expected),
        got.len()
    ))
}
