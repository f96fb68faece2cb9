//! This worker's certificate: asked for anew from half of its life on, kept, and shown on new connections. What
//! is open goes on with the one that it began with.

use super::context::Context;
use crate::blocking::blocking;
use crate::convert::preamble;
use crate::peers::dial::{DialFailure, Greeted, dialling_endpoint};
use crate::peers::outbox::Outbox;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use woolly_protocol::clock::show_utc;
use woolly_protocol::endpoint::worker_server;
use woolly_protocol::identity::{Identity, SigningRequest};
use woolly_protocol::join::{JoinAccepted, RenewalRequest};
use woolly_protocol::refusal::RefusalCode;
use woolly_protocol::renewing::renew;

/// The time after which a coordinator that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(3600);

/// What a conversation knows of a renewal.
#[derive(Debug, Default)]
pub struct Renewal {
    asked: Option<Asked>,
}

/// A request on its way.
struct Asked {
    request: SigningRequest,
    at: Instant,
}

impl std::fmt::Debug for Asked {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Renewal {
    /// Asks for a certificate if it is time to.
    pub async fn ask_if_due(&mut self, context: &Context, outbox: &Outbox) {
        let identity = context.dialer.identity();
        let is_due = identity.validity().is_renewal_due(identity.clock().now());
        let waits = self.asked.as_ref().is_some_and(|asked| asked.at.elapsed() < ASK_AGAIN);
        if !is_due || waits {
            return;
        }
        match SigningRequest::new() {
            Ok(request) => {
                outbox.send(&RenewalRequest { signing_request: request.der().to_vec() }).await;
                self.asked = Some(Asked { request, at: Instant::now() });
            }
            Err(error) => tracing::error!("cannot renew the certificate: {error}"),
        }
    }

    /// Takes the answer. One that is of no use changes nothing: the certificate that is there has half of its
    /// life before it.
    pub async fn answered(&mut self, context: &Context, answer: &JoinAccepted) {
        let Some(Asked { request, .. }) = &self.asked else {
            tracing::warn!("the coordinator sent a certificate that was not asked for");
            return;
        };
        let renewed = request.complete_renewal(answer, &context.dialer.identity());
        let taken = match renewed {
            Ok(identity) => take(context, identity).await,
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Ok(()) => self.asked = None,
            Err(why) => tracing::error!("cannot renew the certificate: {why}; trying again in 1 h"),
        }
    }
}

/// Dials the coordinator; if the certificate has expired it is renewed first.
///
/// # Errors
///
/// See [`DialFailure`].
pub async fn reach(context: &Context, address: SocketAddr) -> Result<Greeted, DialFailure> {
    let identity = context.dialer.identity();
    if !identity.validity().is_over(identity.clock().now()) {
        match context.dialer.coordinator(address).await {
            // By the coordinator's clock it has.
            Err(DialFailure::Refused(it)) if it.code == RefusalCode::CertificateExpired => {}
            reached => return reached,
        }
    }
    tracing::info!(
        "the certificate was valid until {}: asking for a new one",
        show_utc(identity.validity().until)
    );
    let (endpoint, _) = dialling_endpoint(address)?;
    let renewed = renew(&endpoint, address, &identity, &preamble()).await?;
    take(context, renewed).await.map_err(DialFailure::Unreachable)?;
    context.dialer.coordinator(address).await
}

/// Keeps a new certificate in the state directory, and shows it from now on.
async fn take(context: &Context, identity: Identity) -> Result<(), String> {
    let until = show_utc(identity.validity().until);
    let server =
        worker_server(&identity, context.config.idle_timeout).map_err(|e| e.to_string())?;
    let (dir, saving) = (context.config.state_dir.clone(), identity.clone());
    blocking(move || saving.save(&dir)).await.map_err(|error| error.to_string())?;
    context.endpoint.set_server_config(Some(server));
    context.dialer.replace(identity);
    tracing::info!("the certificate is renewed: it is valid until {until}");
    Ok(())
}
