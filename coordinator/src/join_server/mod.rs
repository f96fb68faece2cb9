//! Joining: the token is checked and the worker's certificate signed by the protocol crate; here
//! failed attempts from one address are slowed down.

mod attempts;

use crate::tokens::Tokens;
use attempts::Attempts;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::frame::FrameError;
use woolly_protocol::joining::{JoinError, answer_join};
use woolly_protocol::preamble::{Preamble, Refusal, RefusalCode};

/// What joining needs.
pub struct JoinServer {
    tokens: Tokens,
    ca: Arc<ClusterCa>,
    preamble: Preamble,
    attempts: Mutex<Attempts>,
}

impl JoinServer {
    /// Signs with `ca` for those who know one of `tokens`.
    pub fn new(tokens: Tokens, ca: Arc<ClusterCa>, preamble: Preamble) -> JoinServer {
        JoinServer { tokens, ca, preamble, attempts: Mutex::new(Attempts::default()) }
    }

    /// Serves one connection until it is closed.
    pub async fn serve(&self, connection: quinn::Connection) {
        let remote = connection.remote_address();
        if let Err(refusal) = self.admit(remote.ip()) {
            refusal.close(&connection);
            tracing::warn!("{remote} may not join: {refusal}");
            return;
        }
        let (ca, tokens) = (Arc::clone(&self.ca), self.tokens.store().clone());
        match answer_join(&connection, &self.preamble, ca, tokens).await {
            Ok(joined) => {
                let id = joined.worker.hex();
                tracing::info!("{} ({remote}) joined the cluster as worker {id}", joined.name);
            }
            Err(error) => {
                tracing::warn!("{remote} could not join: {error}");
                if is_guess(&error) {
                    self.attempts().failed(remote.ip(), Instant::now());
                }
            }
        }
    }

    fn admit(&self, address: IpAddr) -> Result<(), Refusal> {
        self.attempts().check(address, Instant::now()).map_err(|wait| {
            let text = format!(
                "too many failed attempts to join from {address}: wait {} s",
                wait.as_secs() + 1
            );
            Refusal::new(RefusalCode::Busy, &text)
        })
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().expect("nobody panics while counting")
    }
}

/// Guessing is what the limit is against; a token that was right once is no guess.
fn is_guess(error: &JoinError) -> bool {
    match error {
        JoinError::Frame(FrameError::Refused(refusal)) => {
            matches!(refusal.code, RefusalCode::TokenWrong | RefusalCode::Malformed)
        }
        JoinError::Frame(_) => true,
        _ => false,
    }
}
