//! `GET /admin/v1/events`: what happens to models, workers and plans, as server-sent events.
//!
//! A reader begins with what happens from now on, or with what came after the event that `Last-Event-ID` (or
//! `?after=`) names, as far as it is still held. One that is too slow loses events and is told how many.

use super::admin::keeper;
use crate::events::{Heard, Reader};
use crate::http::error::{ApiError, Problem};
use crate::http::gateway::Gateway;
use crate::http::output::framing::Framing;
use crate::http::output::sse::Events;
use crate::http::output::stream::KEEP_ALIVE;
use crate::http::server::request_log::Streamed;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The header with which a browser's `EventSource` comes back.
const LAST_EVENT_ID: &str = "last-event-id";

/// Where to begin.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Begin {
    /// After this event.
    after: Option<u64>,
}

/// All that an answer holds.
struct Stream {
    reader: Reader,
    /// The server goes down: nobody waits for a reader.
    draining: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// The events, until the reader goes away or the server down.
///
/// # Errors
///
/// 503 if too many read already.
pub async fn events(
    State(gateway): State<Arc<Gateway>>,
    Query(begin): Query<Begin>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let log = keeper(&gateway)?.events();
    let place = gateway.admin.as_ref().and_then(|admin| admin.place_to_read());
    let place = place.ok_or_else(|| {
        ApiError::new(Problem::Connections, "Too many read the events already; try again shortly.")
    })?;
    let named = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    let reader = log.reader(named.or(begin.after));
    let draining = gateway.draining.clone();
    let stream = Stream { reader, draining, _place: place };
    let bytes = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    // The head goes at once, and not with the first event.
    let begun = futures_util::stream::iter([Ok(Framing::EVENTS.ping())]);
    let mut response =
        Response::new(Body::from_stream(futures_util::StreamExt::chain(begun, bytes)));
    response.extensions_mut().insert(Streamed);
    Framing::EVENTS.announce(response.headers_mut());
    Ok(response)
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        let heard = tokio::select! {
            () = self.draining.cancelled() => return None,
            heard = timeout(KEEP_ALIVE, self.reader.next()) => heard,
        };
        let Ok(heard) = heard else { return Some(Framing::EVENTS.ping()) };
        let mut events = Events::default();
        match heard? {
            Heard::Event(event) => {
                events.named(Some(event.id), event.what.kind(), &event.json());
            }
            Heard::Lost(lost) => {
                events.named(None, "lost", &json!({ "kind": "lost", "lost": lost }))
            }
        }
        Some(events.into_bytes())
    }
}
