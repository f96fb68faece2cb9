//! Joining: the token is checked and the worker's certificate signed by the protocol crate; here
//! wrong tokens are slowed down and the connections that join are bounded.

mod attempts;
mod turns;

use crate::trust::tokens::Tokens;
use attempts::Attempts;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use turns::Turns;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::frame::FrameError;
use woolly_protocol::joining::{JoinError, answer_join};
use woolly_protocol::log_limit::LogLimit;
use woolly_protocol::preamble::Preamble;
use woolly_protocol::refusal::{Refusal, RefusalCode};

/// What joining needs.
pub struct JoinServer {
    tokens: Tokens,
    ca: Arc<ClusterCa>,
    preamble: Preamble,
    attempts: Mutex<Attempts>,
    turns: Turns,
    refused: LogLimit,
}

impl JoinServer {
    /// Signs with `ca` for those who know one of `tokens`.
    pub fn new(tokens: Tokens, ca: Arc<ClusterCa>, preamble: Preamble) -> JoinServer {
        let (attempts, turns) = (Mutex::default(), Turns::default());
        JoinServer { tokens, ca, preamble, attempts, turns, refused: LogLimit::new() }
    }

    /// Bounds the lines about refused connections, of the listener too.
    pub fn refused(&self) -> &LogLimit {
        &self.refused
    }

    /// Serves one connection until it is closed.
    pub async fn serve(&self, connection: quinn::Connection) {
        let remote = connection.remote_address();
        let turn = self.turns.take(remote.ip());
        let slow = self.attempts().slowed(remote.ip(), Instant::now());
        let (ca, tokens) = (Arc::clone(&self.ca), self.tokens.store().clone());
        let answered = tokio::select! {
            answered = answer_join(&connection, &self.preamble, ca, tokens, slow) => answered,
            () = turn.lost() => {
                let text = "too many join at the same time: try again";
                let refusal = Refusal::new(RefusalCode::Busy, text);
                refusal.close(&connection);
                self.refused.warn(format_args!("{remote} could not join: {refusal}"));
                return;
            }
        };
        match answered {
            Ok(joined) => {
                let id = joined.worker.hex();
                tracing::info!("{} ({remote}) joined the cluster as worker {id}", joined.name);
            }
            Err(error) => {
                self.refused.warn(format_args!("{remote} could not join: {error}"));
                if is_guess(&error) {
                    self.attempts().failed(remote.ip(), Instant::now());
                }
            }
        }
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().expect("nobody panics while counting")
    }
}

/// A guess costs work for nothing; a token that was right once is none.
fn is_guess(error: &JoinError) -> bool {
    match error {
        JoinError::Frame(FrameError::Refused(refusal)) => {
            matches!(refusal.code, RefusalCode::TokenWrong | RefusalCode::Malformed)
        }
        JoinError::Frame(_) => true,
        _ => false,
    }
}
