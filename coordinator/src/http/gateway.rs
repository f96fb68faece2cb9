//! What all requests share: the configuration, the way to the engine, the models, and what is bounded
//! for all of them together.

use super::error::{ApiError, Problem, quote, shutting_down};
use super::ids::unix_seconds;
use super::output::streams::Streams;
use super::server::admin::Admin;
use super::server::body::BODY_BUDGET_KIB;
use super::server::certificates::Certificates;
use super::server::keys::ApiKeys;
use super::server::places::Limits;
use super::server::request_log::Refusals;
use crate::generation::EngineHandle;
use crate::models::{Registry, ServedModel};
use axum::http::HeaderValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Requests that are parsed and tokenised at a time; others wait, at most one per connection.
const PREPARING_MAX: usize = 2;
/// What to do about a model that is not there.
const HOW_TO_LOAD: &str = "Load one with 'woolly-coordinator models load' on the server's machine, or over \
                           the admin API.";
/// How the gateway presents itself.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Names besides localhost that a server on loopback answers to (a proxy in front of it).
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may read answers, as browsers send them; `*` is all.
    pub cors_origins: Vec<HeaderValue>,
    /// How many connections there may be.
    pub connections: Limits,
    /// After the shutdown signal, running requests have this long to end.
    pub drain: Duration,
    /// Who may use the server.
    pub keys: ApiKeys,
    /// Prompts of one API key that may wait and run together; `None` is no limit of its own.
    pub key_concurrency: Option<usize>,
    /// How long a request may take, waiting included; `None` is as long as it takes.
    pub request_timeout: Option<Duration>,
    /// The certificate that all listeners show; `None` is plain HTTP.
    pub certificates: Option<Arc<Certificates>>,
}

/// What all requests share.
#[derive(Debug)]
pub struct Gateway {
    pub(super) config: GatewayConfig,
    pub(super) engine: EngineHandle,
    pub(super) models: Arc<Registry>,
    /// Streams that can be continued; `None` without a journal.
    pub(super) streams: Option<Streams>,
    /// Loading and unloading models; `None` if the models are what they are.
    pub(super) admin: Option<Admin>,
    pub(super) refusals: Arc<Refusals>,
    /// Unix seconds of the start.
    pub(super) started: u64,
    pub(super) preparing: Arc<Semaphore>,
    pub(super) body_budget: Arc<Semaphore>,
    /// The number of the next request with several choices of a prompt.
    siblings: AtomicU64,
    /// No new requests.
    pub(super) draining: CancellationToken,
    /// Running streams end now.
    pub(super) closing: CancellationToken,
}

impl Gateway {
    /// The state of a gateway.
    pub fn new(config: GatewayConfig, engine: EngineHandle, models: Arc<Registry>) -> Gateway {
        Gateway {
            refusals: Arc::default(),
            config,
            engine,
            models,
            streams: None,
            admin: None,
            started: unix_seconds(),
            preparing: Arc::new(Semaphore::new(PREPARING_MAX)),
            body_budget: Arc::new(Semaphore::new(BODY_BUDGET_KIB)),
            siblings: AtomicU64::new(1),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        }
    }

    /// With streams that can be continued.
    pub fn with_streams(self, streams: Streams) -> Gateway {
        Gateway { streams: Some(streams), ..self }
    }

    /// With an admin API.
    pub fn with_admin(self, admin: Admin) -> Gateway {
        Gateway { admin: Some(admin), ..self }
    }

    /// The model that a request names, or the first that is loaded if it names none.
    ///
    /// # Errors
    ///
    /// 404 for a name that no model has, 503 if none is named and none is loaded.
    pub(super) fn model(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let found = name.map_or_else(|| self.models.first(), |name| self.models.find(name));
        found.ok_or_else(|| match name {
            Some(name) => ApiError::model_not_found(name, &self.what_is_served()),
            None => {
                let text = format!("No model is loaded. {HOW_TO_LOAD}");
                ApiError::new(Problem::NoModel, text)
            }
        })
    }

    /// Which models there are, for an error.
    fn what_is_served(&self) -> String {
        let names: Vec<String> =
            self.models.iter().map(|model| format!("'{}'", quote(&model.name))).collect();
        match names.len() {
            0 => format!("no model is loaded. {}", HOW_TO_LOAD.trim_end_matches('.')),
            1 => format!("{} is served", names[0]),
            _ => format!("{} are served", names.join(", ")),
        }
    }

    /// A number that no prompt before this one had.
    pub(super) fn next_siblings(&self) -> u64 {
        self.siblings.fetch_add(1, Ordering::Relaxed)
    }

    /// Does work that takes milliseconds away from the threads that serve everybody.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Gateway) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.preparing.clone().acquire_owned().await.map_err(|_| shutting_down())?;
        let gateway = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&gateway);
            drop(place);
            result
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "preparing a request failed");
            Err(ApiError::new(Problem::Internal, "An internal error: see the server's log."))
        })
    }
}
