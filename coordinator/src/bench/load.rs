//! One load: its streams take requests until there are none left.

use super::arrivals;
use super::client::Client;
use super::config::Load;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// One request as its client saw it; times count from the start of the load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Its number; the first of each stream are below the number of streams.
    pub request: u32,
    /// When it was due: waiting for a free stream counts for its client.
    pub arrived: Duration,
    /// When tokens came, with their number by then.
    pub tokens: Vec<(Duration, u64)>,
    /// Tokens of its prompt that a cache held.
    pub cached_tokens: u64,
    /// When it ended.
    pub ended: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// A load that is under way.
struct Running {
    load: Load,
    client: Client,
    model: String,
    vocab: u32,
    started: Instant,
    /// Requests that no stream has taken, with the time that each is due.
    left: Mutex<VecDeque<(u32, Option<Duration>)>>,
}

/// Puts a load on the gateway; returns its requests in the order in which they ended.
pub async fn run(load: &Load, client: &Client, model: &str, vocab: u32) -> Vec<Seen> {
    let left = match arrivals::arrivals(load) {
        Some(at) => (0..).zip(at.into_iter().map(Some)).collect(),
        None => (0..load.requests).map(|request| (request, None)).collect(),
    };
    let running = Arc::new(Running {
        load: load.clone(),
        client: client.clone(),
        model: model.to_owned(),
        vocab,
        started: Instant::now(),
        left: Mutex::new(left),
    });
    let mut streams = JoinSet::new();
    for _ in 0..load.streams.min(load.requests) {
        let running = Arc::clone(&running);
        streams.spawn(async move { running.stream().await });
    }
    let mut seen: Vec<Seen> = streams.join_all().await.into_iter().flatten().collect();
    seen.sort_by_key(|seen| (seen.ended, seen.request));
    seen
}

impl Running {
    /// One stream: a request after the other.
    async fn stream(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Some((request, due)) = self.take() {
            if let Some(due) = due {
                sleep_until(self.started + due).await;
            }
            let arrived = due.unwrap_or_else(|| self.started.elapsed());
            seen.push(self.request(request, arrived).await);
        }
        seen
    }

    fn take(&self) -> Option<(u32, Option<Duration>)> {
        self.left.lock().expect("no one panics with the lock held").pop_front()
    }

    async fn request(&self, request: u32, arrived: Duration) -> Seen {
        let prompt = arrivals::prompt(&self.load, request, self.vocab);
        let heard = self.client.complete(&self.model, &prompt, self.load.gen_tokens).await;
        let ended = self.started.elapsed();
        let seen = Seen { request, arrived, ended, ..Seen::default() };
        match heard {
            Ok(heard) => {
                let since = |at: Instant| at - self.started;
                let tokens = heard.tokens.into_iter().map(|(at, tokens)| (since(at), tokens));
                Seen { tokens: tokens.collect(), cached_tokens: heard.cached_tokens, ..seen }
            }
            Err(error) => Seen { error: Some(format!("{error:#}")), ..seen },
        }
    }
}
