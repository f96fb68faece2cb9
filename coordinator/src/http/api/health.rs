//! What probes and people ask: `/health`, `/livez`, `/readyz`, `/version`.

use crate::http::error::{ApiError, Problem, shutting_down};
use crate::http::gateway::Gateway;
use crate::http::ids::unix_seconds;
use crate::http::server::guard::Authorised;
use crate::journal::Standing;
use crate::models::ServedModel;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::sync::Arc;

/// Always 200 while the process answers; `status` is `ok` if a model is ready, `starting` while none of those
/// that are loaded is, `empty` if none is loaded, `stopping` at the end. The rest says which worker holds which
/// layers; where keys are set it is for those who have one. What stands beside `models` is of the first model.
pub async fn health(
    State(gateway): State<Arc<Gateway>>,
    Extension(Authorised(authorised)): Extension<Authorised>,
) -> Json<Value> {
    let all = gateway.engine.status_of_all();
    let models: Vec<Arc<ServedModel>> = gateway.models.iter().collect();
    let stopping = gateway.draining.is_cancelled() || all.stopping;
    let word = match (stopping, all.ready) {
        (true, _) => "stopping",
        (false, true) => "ok",
        (false, false) if models.is_empty() => "empty",
        (false, false) => "starting",
    };
    if !authorised {
        return Json(json!({ "status": word, "service": "woolly" }));
    }
    let first = models.first().map(|model| described(&gateway, model));
    let mut body = first.unwrap_or_else(|| json!({ "model": null }));
    body["status"] = word.into();
    body["service"] = "woolly".into();
    body["version"] = env!("CARGO_PKG_VERSION").into();
    body["timestamp"] = rfc3339(unix_seconds()).into();
    body["detail"] = all.detail.into();
    if let Some(streams) = &gateway.streams {
        let Standing { requests, bytes, failing } = streams.standing();
        body["journal"] = json!({ "requests": requests, "bytes": bytes, "failing": failing });
    }
    body["models"] = models.iter().map(|model| described(&gateway, model)).collect();
    Json(body)
}

/// How one model stands.
fn described(gateway: &Gateway, model: &ServedModel) -> Value {
    let status = gateway.engine.status(model.id);
    let stages: Vec<Value> = status
        .stages
        .iter()
        .enumerate()
        .map(|(index, stage)| {
            json!({
                "stage": index,
                "worker": stage.worker,
                "worker_id": stage.worker_id,
                "layers": [stage.layer_first, stage.layer_end],
                "mapped_bytes": stage.mapped_bytes,
                "kv_blocks": stage.kv_blocks,
                "ready": stage.ready,
            })
        })
        .collect();
    json!({
        "model": model.name,
        "ready": status.ready,
        "detail": status.detail,
        "stages": stages,
        "ctx_size": status.ctx_size,
        "kv_type": status.kv_type,
        "kv_tokens": status.kv_tokens,
        "kv_blocks": status.kv_blocks,
        "kv_blocks_free": status.kv_blocks_free,
        "requests_running": status.running,
        "requests_waiting": status.waiting,
        "preemptions": status.preemptions,
    })
}

/// 200 while the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// 200 when a model is ready: of several that are loaded one is enough, so that loading another one takes nobody's
/// traffic away.
///
/// # Errors
///
/// 503 with `Retry-After` before that and while the server goes down.
pub async fn readyz(
    State(gateway): State<Arc<Gateway>>,
    Extension(Authorised(authorised)): Extension<Authorised>,
) -> Result<Response, ApiError> {
    let status = gateway.engine.status_of_all();
    if gateway.draining.is_cancelled() || status.stopping {
        return Err(shutting_down());
    }
    // Without a model the server can answer if it loads what is asked for.
    let may_load = gateway.admin.as_ref().is_some_and(|admin| admin.on_demand);
    if status.ready || may_load && gateway.models.first().is_none() {
        return Ok("ok\n".into_response());
    }
    let text = if authorised {
        format!("The model is not ready: {}", status.detail)
    } else {
        "The model is not ready.".to_owned()
    };
    Err(ApiError::new(Problem::NotReady, text))
}

/// The version of this server.
pub async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "service": "woolly" }))
}

/// A time in UTC as RFC 3339 writes it, to the second.
pub fn rfc3339(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01. Years begin in March here, so that the day
/// a leap year adds is the last one.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let from_year_0 = days + 719_468;
    let (era, day_of_era) = (from_year_0 / 146_097, from_year_0 % 146_097);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_as_date_prints_them() {
        // From `date -u -d @SECONDS +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
