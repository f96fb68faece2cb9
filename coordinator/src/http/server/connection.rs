//! One connection: who asks on it is counted, a client that is gone is noticed, and it makes room
//! when others need it.

use super::places::{Admitted, AtWork, Place};
use super::socket::Watched;
use super::stall::StallGuard;
use crate::http::error::{ApiError, Problem};
use crate::http::gateway::Gateway;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

/// A request's headers must be complete in this time; an idle connection is closed after it.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of a request's line and headers together.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// A client may take nothing for this long before its connection is closed.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// A client that has closed its half is asked whether it is still there: the second time after this.
pub const PROBE_SOON: Duration = Duration::from_millis(5);
/// And at least so often.
const PROBE_RARELY: Duration = Duration::from_secs(1);
/// A connection that makes room for another may take this long to say goodbye.
const LEAVE_GRACE: Duration = Duration::from_millis(100);

/// What serves a connection.
pub struct Connection {
    /// The routes of its listener.
    pub router: axum::Router,
    /// What all share.
    pub gateway: Arc<Gateway>,
    /// Its place among the connections.
    pub place: Arc<Place>,
    /// Its socket, to see whether the client is gone; `None` if it has none.
    pub watched: Option<Arc<Watched>>,
}

impl Connection {
    /// Serves until the client, the server, or one that needs the place ends it.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(self, stream: S) {
        let io = TokioIo::new(StallGuard::new(stream, WRITE_STALL));
        let service = RequestService {
            router: self.router,
            place: Arc::clone(&self.place),
            watched: self.watched.clone(),
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .half_close(true)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = gone(&self.place, self.watched.as_deref()) => {
                tracing::debug!("a client went away");
                return;
            }
            () = self.place.asked_to_leave() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = idle(&self.place) => return,
                }
            }
            () = self.gateway.draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
            // hyper has no other word for it.
            if error.is_parse()
                && error.to_string().contains("HTTP2 preface")
                && let Some(watched) = &self.watched
            {
                watched.refuse_http_2().await;
            }
        }
    }
}

/// Returns when a client that has closed its half turns out to be gone while it is being answered. It
/// is asked at once, soon again to hear the reply of its system, and then less and less often.
async fn gone(place: &Place, watched: Option<&Watched>) {
    let Some(watched) = watched else { return std::future::pending().await };
    watched.half_closed().await;
    place.client_half().close();
    let mut pause = PROBE_SOON;
    loop {
        if place.is_at_work() && watched.is_gone() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PROBE_RARELY);
    }
}

/// Returns when the connection has had time to say goodbye and no request is in work.
async fn idle(place: &Place) {
    loop {
        tokio::time::sleep(LEAVE_GRACE).await;
        if !place.is_at_work() {
            return;
        }
    }
}

/// The routes, with the connection's place told when a request comes and when its answer has gone.
struct RequestService {
    router: axum::Router,
    place: Arc<Place>,
    watched: Option<Arc<Watched>>,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for RequestService {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let at_work = self.place.begin();
        if let Some(watched) = &self.watched {
            watched.begin();
        }
        if self.place.admitted() == Admitted::ForProbes {
            let response = probe(&self.router, request);
            return Box::pin(async move { Ok(answered(response.await, at_work)) });
        }
        let router = self.router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.place.client_half());
        Box::pin(async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            Ok(answered(response, at_work))
        })
    }
}

/// A connection beyond the others: it may ask whether the server lives, and is closed then.
fn probe(
    router: &axum::Router,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + use<> {
    let router = router.clone();
    async move {
        let mut response = match request.uri().path() {
            "/livez" | "/readyz" => {
                let asked = router.oneshot(request.map(Body::new)).await;
                asked.unwrap_or_else(|never| match never {})
            }
            _ => {
                let text = "All connections are in use; try again shortly.";
                ApiError::new(Problem::Connections, text).into_response()
            }
        };
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

fn answered(response: Response<Body>, at_work: AtWork) -> Response<AnswerBody> {
    response.map(|body| AnswerBody { body, _at_work: at_work })
}

/// The body of an answer; as long as it lives the connection is at work.
struct AnswerBody {
    body: Body,
    _at_work: AtWork,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
