//! New certificates for workers that have one, and for this coordinator itself.

use crate::trust::exclusions::Exclusions;
use std::sync::Arc;
use std::time::Duration;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::certificate::Validity;
use woolly_protocol::clock::Clock;
use woolly_protocol::endpoint::coordinator_server;
use woolly_protocol::identity::IdentityError;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::join::{JoinAccepted, RenewalRequest};
use woolly_protocol::join_secret::JoinSecret;
use woolly_protocol::refusal::{Refusal, RefusalCode};

/// Signs what workers ask for, if they may be here.
#[derive(Clone, Debug)]
pub struct Renewals {
    /// Signs.
    pub ca: Arc<ClusterCa>,
    /// Who gets nothing.
    pub exclusions: Arc<Exclusions>,
    /// The time of day.
    pub clock: Clock,
}

impl Renewals {
    /// A new certificate for a worker that has shown its old one.
    ///
    /// # Errors
    ///
    /// What the worker is to be told: it was removed, or its request is none.
    pub fn sign(
        &self,
        worker: WorkerId,
        request: &RenewalRequest,
    ) -> Result<JoinAccepted, Refusal> {
        if let Some(refusal) = self.exclusions.refusal(worker) {
            return Err(refusal);
        }
        let signed = self.ca.renew(worker, &request.signing_request, self.clock.now());
        let accepted = signed.map_err(|error| match error {
            IdentityError::Request(_) => Refusal::new(RefusalCode::Malformed, &error.to_string()),
            error => {
                tracing::error!(%error, "cannot renew a worker's certificate");
                let text = "the coordinator could not renew the certificate: see its log";
                Refusal::new(RefusalCode::Internal, text)
            }
        })?;
        tracing::info!("the certificate of worker {} is renewed", worker.hex());
        Ok(accepted)
    }
}

/// The coordinator's own certificate, made anew from half of its life on.
#[derive(Debug)]
pub struct OwnCertificate {
    ca: Arc<ClusterCa>,
    clock: Clock,
    /// What it proves to know.
    secret: Option<JoinSecret>,
    idle_timeout: Duration,
    validity: Validity,
}

impl OwnCertificate {
    /// The first one, and what an endpoint accepts connections with.
    ///
    /// # Errors
    ///
    /// When none can be made.
    pub fn new(
        ca: Arc<ClusterCa>,
        clock: Clock,
        secret: Option<JoinSecret>,
        idle_timeout: Duration,
    ) -> anyhow::Result<(OwnCertificate, quinn::ServerConfig)> {
        let (validity, server) = make(&ca, &clock, secret.as_ref(), idle_timeout)?;
        Ok((OwnCertificate { ca, clock, secret, idle_timeout, validity }, server))
    }

    /// When the one that is shown is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The next one, if it is time for it.
    ///
    /// # Errors
    ///
    /// When none can be made: the one that is there goes on.
    pub fn renewed(&mut self) -> anyhow::Result<Option<quinn::ServerConfig>> {
        let now = self.clock.now();
        // A clock that was set back, too: nobody would take it then.
        if !self.validity.is_renewal_due(now) && !self.validity.is_to_come(now) {
            return Ok(None);
        }
        let secret = self.secret.as_ref();
        let (validity, server) = make(&self.ca, &self.clock, secret, self.idle_timeout)?;
        self.validity = validity;
        Ok(Some(server))
    }
}

fn make(
    ca: &ClusterCa,
    clock: &Clock,
    secret: Option<&JoinSecret>,
    idle_timeout: Duration,
) -> anyhow::Result<(Validity, quinn::ServerConfig)> {
    let identity = ca.issue_coordinator_with(secret, clock.now())?.on(clock.clone());
    Ok((identity.validity(), coordinator_server(&identity, idle_timeout)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_protocol::endpoint::IDLE_TIMEOUT;
    use woolly_protocol::identity::SigningRequest;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    fn ca(clock: &Clock) -> (Arc<ClusterCa>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Arc::new(ClusterCa::open(dir.path(), clock.now()).unwrap()), dir)
    }

    #[test]
    fn the_coordinators_own_certificate_is_renewed_from_half_of_its_life_on() {
        let clock = Clock::default();
        let (ca, _dir) = ca(&clock);
        let (mut own, _) = OwnCertificate::new(ca, clock.clone(), None, IDLE_TIMEOUT).unwrap();
        let mut renewed_on = Vec::new();
        for day in 0..365 {
            clock.set_ahead_ms(day * DAY_MS);
            if own.renewed().unwrap().is_some() {
                renewed_on.push(day);
            }
            assert!(!own.validity.is_over(clock.now()), "day {day}");
        }
        assert_eq!(renewed_on, [45, 90, 135, 180, 225, 270, 315, 360]);
        clock.set_ahead_ms(100 * DAY_MS);
        assert!(own.renewed().unwrap().is_some(), "the clock was set back");
        assert!(!own.validity.is_to_come(clock.now()));
    }

    #[test]
    fn who_was_removed_gets_no_new_certificate() {
        let clock = Clock::default();
        let (ca, dir) = ca(&clock);
        let exclusions = Arc::new(Exclusions::open(dir.path().join("members")).unwrap());
        let renewals = Renewals { ca, exclusions, clock };
        let request = SigningRequest::new().unwrap();
        let request = RenewalRequest { signing_request: request.der().to_vec() };
        renewals.sign(WorkerId(1), &request).unwrap();
        renewals.exclusions.remove(WorkerId(1), "w", 1).unwrap();
        let refused = renewals.sign(WorkerId(1), &request).unwrap_err();
        assert_eq!(refused.code, RefusalCode::Removed);
        let nonsense = RenewalRequest { signing_request: vec![1, 2, 3] };
        let refused = renewals.sign(WorkerId(2), &nonsense).unwrap_err();
        assert_eq!(refused.code, RefusalCode::Malformed);
    }
}
