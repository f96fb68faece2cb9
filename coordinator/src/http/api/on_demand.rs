//! Models that are loaded because a request names them (`--load-on-demand`): the request waits.
//!
//! What comes meanwhile waits, too, each for as long as it may; then it is told to come again.

use crate::admin::{Ask, Progress};
use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::gateway::Gateway;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a request waits for its model.
const WAIT: Duration = Duration::from_secs(300);

/// A request's wait for its model, from its arrival on.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    until: Instant,
    has_waited: bool,
}

impl Patience {
    /// A request has arrived.
    pub fn new(gateway: &Gateway) -> Patience {
        let limit = gateway.config.request_timeout.unwrap_or(WAIT).min(WAIT);
        Patience { until: Instant::now() + limit, has_waited: false }
    }

    /// The model `named` is not there, or not ready, as `error` says. Returns when it is: then the request is
    /// worth another look. A request waits once.
    ///
    /// # Errors
    ///
    /// `error` if models are not loaded on demand, or there is no such model; otherwise why it is not loaded.
    pub async fn wait(
        &mut self,
        gateway: &Gateway,
        named: Option<String>,
        error: ApiError,
    ) -> Result<(), ApiError> {
        let admin = gateway.admin.as_ref().filter(|admin| admin.on_demand && error.is_of_model());
        let (Some(admin), Some(name), false) = (admin, named, self.has_waited) else {
            return Err(error);
        };
        self.has_waited = true;
        let ask = |reply| Ask::LoadOnDemand { name, reply };
        let answer = admin.handle.ask(ask).await.ok_or_else(shutting_down)?;
        let Some(loading) = answer else { return Err(error) };
        let mut loading = loading.map_err(|refused| failed(refused.to_string()))?;
        // It was served and is not now: what is said of that stands.
        if loading.was_there
            && *loading.progress.borrow() == Progress::Ready
            && error.is_not_ready()
        {
            return Err(error);
        }
        match timeout_at(self.until, loading.settled()).await {
            Ok(Progress::Ready | Progress::Loading(_)) => Ok(()),
            Ok(Progress::Failed(why)) => Err(failed(why)),
            Ok(Progress::Unloading) => Err(error),
            Err(_) => {
                let detail = gateway.engine.status(loading.model).detail;
                let text = format!("The model '{}' is still being loaded: {detail}", loading.name);
                Err(ApiError::new(Problem::NotReady, text).coded("model_loading").after(5))
            }
        }
    }
}

/// A model that was named cannot be loaded now; other models may go, and it may be loaded then.
fn failed(why: String) -> ApiError {
    let text = format!("The model cannot be loaded: {why}");
    ApiError::new(Problem::NotReady, text).coded("load_failed").after(10)
}
