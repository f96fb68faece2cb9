//! Attempts to reach the coordinator: how often, how long apart, and when another one is of no use.

use crate::app::exit::{EXIT_REFUSED, EXIT_UNREACHABLE, Failure};
use crate::config::Config;
use crate::peers::dial::DialFailure;
use std::time::Duration;
use woolly_protocol::notify::Notifier;
use woolly_protocol::refusal::RefusalCode;

/// The first pause between two attempts to reach the coordinator; doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause: after its restart a coordinator has its workers back within this time.
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// Attempts between two log lines that say the same.
const QUIET_ATTEMPTS: u32 = 12;

/// Counts attempts to reach the coordinator, says why they fail, and waits between them.
#[derive(Debug)]
pub struct Attempts {
    coordinator: String,
    retry: Option<u32>,
    /// Whether a coordinator has welcomed this worker since its start.
    was_reached: bool,
    failed: u32,
    said: String,
    pause: Duration,
    notifier: Notifier,
}

impl Attempts {
    /// None so far.
    pub fn new(config: &Config, notifier: Notifier) -> Attempts {
        Attempts {
            coordinator: format!("{}:{}", config.host, config.port),
            retry: config.retry,
            was_reached: false,
            failed: 0,
            said: String::new(),
            pause: PAUSE_FIRST,
            notifier,
        }
    }

    /// Takes note of a failure and waits before the next attempt.
    ///
    /// # Errors
    ///
    /// If another attempt is of no use or not wanted.
    pub async fn failed(&mut self, why: &DialFailure, was_welcome: bool) -> Result<(), Failure> {
        if was_welcome {
            self.was_reached = true;
            (self.failed, self.pause) = (0, PAUSE_FIRST);
            self.said.clear();
        }
        let text = why.to_string();
        match why {
            DialFailure::Untrusted(text) => {
                return Err(Failure::new(
                    EXIT_REFUSED,
                    format!(
                        "{text}; if the cluster is another one now, give a join token of it with \
                         --token, or remove the state directory where --join-secret-file is used"
                    ),
                ));
            }
            DialFailure::Refused(refusal) if is_final(refusal.code) => {
                return Err(Failure::new(EXIT_REFUSED, text));
            }
            _ => {}
        }
        if !self.was_reached && self.retry.is_some_and(|retry| self.failed >= retry) {
            let coordinator = &self.coordinator;
            let text = format!("cannot reach the coordinator at {coordinator}: {text}");
            return Err(Failure::new(EXIT_UNREACHABLE, text));
        }
        if text != self.said || self.failed.is_multiple_of(QUIET_ATTEMPTS) {
            let what = if was_welcome { "lost" } else { "cannot reach" };
            tracing::warn!("{what} the coordinator at {}: {text}; trying again", self.coordinator);
            self.notifier
                .status(&format!("{what} the coordinator at {}: {text}", self.coordinator));
            self.said = text;
        }
        self.failed += 1;
        tokio::time::sleep(jittered(self.pause)).await;
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        Ok(())
    }
}

/// Refusals that stay the same however often this worker asks.
fn is_final(code: RefusalCode) -> bool {
    use RefusalCode::{
        AlreadyConnected, Busy, CertificateExpired, ClockWrong, Internal, NameTaken, Other,
        ShuttingDown,
    };
    let is_of_time = matches!(code, CertificateExpired | ClockWrong);
    let passes =
        matches!(code, AlreadyConnected | Busy | Internal | NameTaken | ShuttingDown | Other(_));
    !passes && !is_of_time
}

/// Between half and all of a pause, so that many workers do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness the pause is merely whole.
    let part = match getrandom::fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    };
    pause.mul_f64(0.5 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_protocol::refusal::Refusal;

    fn attempts(retry: Option<u32>) -> Attempts {
        Attempts {
            coordinator: "h:1".to_owned(),
            retry,
            was_reached: false,
            failed: 0,
            said: String::new(),
            pause: PAUSE_FIRST,
            notifier: Notifier::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_coordinator_is_tried_again_and_given_up_only_if_asked() {
        let away = DialFailure::Unreachable("nobody".to_owned());
        let mut never = attempts(None);
        for _ in 0..1000 {
            never.failed(&away, false).await.unwrap();
        }
        assert_eq!(never.pause, PAUSE_LONGEST);
        let mut twice = attempts(Some(1));
        twice.failed(&away, false).await.unwrap();
        let failure = twice.failed(&away, false).await.unwrap_err();
        assert_eq!(failure.code, EXIT_UNREACHABLE);
        let mut once_there = attempts(Some(0));
        once_there.failed(&away, true).await.unwrap();
        once_there.failed(&away, false).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_the_worker_unless_it_passes() {
        for (code, is_final) in [
            (RefusalCode::TokenExpired, true),
            (RefusalCode::Protocol, true),
            (RefusalCode::WrongCluster, true),
            (RefusalCode::Removed, true),
            (RefusalCode::Banned, true),
            (RefusalCode::ClockWrong, false),
            (RefusalCode::Busy, false),
            (RefusalCode::AlreadyConnected, false),
        ] {
            let why = DialFailure::Refused(Refusal::new(code, "because"));
            let failed = attempts(None).failed(&why, false).await;
            assert_eq!(failed.is_err(), is_final, "{code:?}");
        }
        let why = DialFailure::Untrusted("another CA".to_owned());
        assert_eq!(attempts(None).failed(&why, true).await.unwrap_err().code, EXIT_REFUSED);
    }

    #[test]
    fn pauses_keep_within_their_bounds() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(2));
            assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_secs(2));
        }
    }
}
