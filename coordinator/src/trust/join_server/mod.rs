//! Joining: the token is checked and the worker's certificate signed by the protocol crate; here
//! who is banned is turned away, wrong tokens are slowed down and the connections that join are bounded.

mod attempts;
mod turns;

use crate::trust::exclusions::Exclusions;
use crate::trust::tokens::Tokens;
use attempts::Attempts;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use turns::Turns;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::frame::FrameError;
use woolly_protocol::join::JoinRequest;
use woolly_protocol::join_secret::JoinSecret;
use woolly_protocol::joining::{Admission, JoinError, answer_join};
use woolly_protocol::log_limit::LogLimit;
use woolly_protocol::preamble::Preamble;
use woolly_protocol::refusal::{Refusal, RefusalCode};

/// What joining needs.
pub struct JoinServer {
    admission: Admission,
    preamble: Preamble,
    attempts: Mutex<Attempts>,
    turns: Turns,
    refused: LogLimit,
}

impl JoinServer {
    /// Signs with `ca` for those who know one of `tokens` and are not banned.
    pub fn new(
        tokens: &Tokens,
        ca: Arc<ClusterCa>,
        exclusions: Arc<Exclusions>,
        preamble: Preamble,
    ) -> JoinServer {
        let (attempts, turns) = (Mutex::default(), Turns::default());
        let screen = move |request: &JoinRequest| {
            exclusions.refusal_of(&request.name, request.host).map_or(Ok(()), Err)
        };
        let tokens = tokens.store().clone();
        let admission = Admission { ca, tokens, shared: None, screen: Arc::new(screen) };
        JoinServer { admission, preamble, attempts, turns, refused: LogLimit::new() }
    }

    /// Lets those in, too, who know the join secret.
    pub fn with_secret(mut self, secret: Option<&JoinSecret>) -> JoinServer {
        self.admission.shared = secret.map(|secret| secret.token(self.admission.ca.pin()));
        self
    }

    /// What a request is answered with.
    #[cfg(test)]
    pub fn admission(&self) -> &Admission {
        &self.admission
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
        let admission = self.admission.clone();
        let answered = tokio::select! {
            answered = answer_join(&connection, &self.preamble, admission, slow) => answered,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::exclusions::{Exclusions, Known};
    use crate::trust::state::StateDir;
    use std::time::{Duration, SystemTime};
    use woolly_protocol::identity::SigningRequest;
    use woolly_protocol::ids::WorkerId;

    #[test]
    fn who_is_banned_does_not_join_under_a_new_token_either() {
        let (dir, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let state = StateDir::open(dir.path().join("state")).unwrap();
        let ca = Arc::new(ClusterCa::open(&state.pki(), now).unwrap());
        let tokens = Tokens::open(&state, &ca).unwrap();
        let exclusions = Arc::new(Exclusions::open(state.members()).unwrap());
        let preamble = Preamble::ours(1);
        let server = JoinServer::new(&tokens, ca, Arc::clone(&exclusions), preamble);
        let token = tokens.create(Duration::from_secs(60), Some(1)).unwrap();
        let request = |name: &str, host: u8| JoinRequest {
            token_id: token.id.to_string(),
            token_secret: token.secret(),
            signing_request: SigningRequest::new().unwrap().der().to_vec(),
            name: name.to_owned(),
            host: [host; 16],
        };
        let known = Known { worker: WorkerId(1), name: "w".to_owned(), host: [1; 16] };
        exclusions.ban(&known, [9; 16], 1).unwrap();
        for (name, host) in [("w", 1), ("renamed", 1), ("w", 2)] {
            let refused = server.admission().admit(&request(name, host), now).unwrap_err();
            assert_eq!(refused.code, RefusalCode::Banned, "{name} {host}");
        }
        // Nothing of the token was used up by them.
        server.admission().admit(&request("other", 2), now).unwrap();
        let refused = server.admission().admit(&request("other", 2), now).unwrap_err();
        assert_eq!(refused.code, RefusalCode::TokenUsedUp);
    }
}
