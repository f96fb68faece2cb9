//! One line per request that has ended, for the operator: who asked for what, how long it took, and
//! what became of it. Never a word of a prompt or an answer.
//!
//! A line is written when the last holder of the [`RequestLog`] lets go of it: for a stream that is
//! when its last byte was handed on, or its client has gone. Requests that were refused are many when
//! something is wrong, so of each reason only so many lines are written in a second.

use crate::http::error::quote;
use crate::http::usage::Usage;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::Instant;

/// Lines about refused requests of one reason in one second.
const REFUSED_PER_SECOND: u32 = 10;

/// Said of a request whose client went away before its answer was complete.
pub const CLIENT_GONE: &str = "client_gone";

/// An extension of answers that go on after their head: their line is not complete with it.
#[derive(Clone, Copy, Debug)]
pub struct Streamed;

/// A request on its way to its line. Clones are of the same request.
#[derive(Clone, Debug)]
pub struct RequestLog(Arc<Held>);

#[derive(Debug)]
struct Held {
    entry: Mutex<Entry>,
    refusals: Arc<Refusals>,
}

/// What is known of a request.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id, as its answer names it.
    pub id: String,
    /// `key-1` and so on by the place of its key among those configured, or `-`.
    pub key: String,
    /// Its method.
    pub method: String,
    /// Its path, cut.
    pub path: String,
    /// The model that it asked for, cut; empty if it named none.
    pub model: String,
    /// Tokens of its prompts and of its answer.
    pub usage: Usage,
    /// When it came.
    pub arrived: Instant,
    /// When its first token came.
    pub first_token: Option<Instant>,
    /// The status of its answer; 0 before there is one.
    pub status: u16,
    /// Why it was refused or failed.
    pub reason: Option<&'static str>,
    /// Whether all of the answer was handed on.
    pub complete: bool,
    /// Asked again and again by probes and pages: of interest to nobody at the default level.
    pub is_probe: bool,
}

/// How many lines about refusals were written in this second.
#[derive(Debug, Default)]
pub struct Refusals {
    of: Mutex<BTreeMap<&'static str, Written>>,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    since: Instant,
    lines: u32,
    left_out: u32,
}

impl Refusals {
    /// Whether a line about this reason may be written now, and how many were left out before it.
    fn admit(&self, reason: &'static str, now: Instant) -> Option<u32> {
        let mut all = self.of.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = all.entry(reason).or_insert(Written { since: now, lines: 0, left_out: 0 });
        if now.duration_since(written.since).as_secs() >= 1 {
            (written.since, written.lines) = (now, 0);
        }
        if written.lines == REFUSED_PER_SECOND {
            written.left_out += 1;
            return None;
        }
        written.lines += 1;
        Some(std::mem::take(&mut written.left_out))
    }
}

impl RequestLog {
    /// A request has arrived.
    pub fn new(entry: Entry, refusals: Arc<Refusals>) -> RequestLog {
        RequestLog(Arc::new(Held { entry: Mutex::new(entry), refusals }))
    }

    fn entry(&self) -> MutexGuard<'_, Entry> {
        self.0.entry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The model that it asks for.
    pub fn model(&self, name: &str) {
        self.entry().model = quote(name);
    }

    /// Its first token has come.
    pub fn first_token(&self) {
        self.entry().first_token.get_or_insert_with(Instant::now);
    }

    /// Its tokens so far.
    pub fn usage(&self, usage: Usage) {
        self.entry().usage = usage;
    }

    /// Its answer has begun with this status.
    pub fn answered(&self, status: u16, reason: Option<&'static str>) {
        let mut entry = self.entry();
        entry.status = status;
        entry.reason = entry.reason.or(reason);
    }

    /// An error ended an answer that had begun.
    pub fn failed(&self, reason: &'static str) {
        self.entry().reason = Some(reason);
    }

    /// All of its answer was handed on.
    pub fn complete(&self) {
        self.entry().complete = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let entry = self.entry.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if entry.reason.is_none() && !(entry.complete && entry.status > 0) {
            entry.reason = Some(CLIENT_GONE);
        }
        write(entry, &self.refusals);
    }
}

/// Writes the line.
fn write(entry: &Entry, refusals: &Refusals) {
    let now = Instant::now();
    let ms = now.duration_since(entry.arrived).as_millis();
    let first_ms = entry.first_token.map(|at| at.duration_since(entry.arrived).as_millis());
    let Entry { id, key, method, path, model, usage, status, .. } = entry;
    let (prompt, completion) = (usage.prompt_tokens, usage.completion_tokens);
    let reason = entry.reason.unwrap_or("ok");
    if entry.is_probe {
        tracing::debug!(%id, %key, %method, %path, status, ms, reason, "request");
        return;
    }
    let is_refusal = entry.status >= 400 && entry.first_token.is_none();
    let Some(left_out) = (if is_refusal { refusals.admit(reason, now) } else { Some(0) }) else {
        return;
    };
    if left_out > 0 {
        tracing::info!(reason, left_out, "more requests were refused than are listed");
    }
    tracing::info!(
        %id, %key, %method, %path, %model, prompt, completion, first_ms, ms, status, reason, "request"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn lines_about_refusals_are_bounded_and_what_is_left_out_is_counted() {
        let refusals = Refusals::default();
        let lines = |reason| {
            let admitted = (0..100).map(|_| refusals.admit(reason, Instant::now()));
            admitted.flatten().count()
        };
        assert_eq!(lines("queue_full"), 10);
        assert_eq!(lines("invalid_api_key"), 10, "each reason has lines of its own");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(refusals.admit("queue_full", Instant::now()), Some(90));
        assert_eq!(refusals.admit("queue_full", Instant::now()), Some(0));
    }
}
