//! Reading a request's body: JSON by its headers, within a length, a time and a shared budget.

use crate::http::error::{ApiError, Problem, quote};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of a body: a very long chat; a full context of 2^20 token ids is about as long.
pub const BODY_MAX: usize = 8 << 20;
/// A body has this long to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an unwanted body that are read and thrown away.
const DISCARD_MAX: usize = 64 << 20;
/// They have this long to arrive.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bodies up to this length are outside the budget: 1,024 connections hold 64 MiB of them.
const SMALL_BODY: usize = 64 << 10;
/// KiB that all longer bodies may hold at a time.
pub const BODY_BUDGET_KIB: usize = 256 << 10;

/// A body, and its share of the budget while it is kept.
#[derive(Debug)]
pub struct ReadBody {
    /// The bytes as they came.
    pub bytes: Vec<u8>,
    _share: Option<OwnedSemaphorePermit>,
}

/// Reads a body whose headers say that it may be JSON.
///
/// # Errors
///
/// 415 for another media type or a content encoding, 413 beyond [`BODY_MAX`] (before anything is
/// read if the length is announced), 408 after [`BODY_TIMEOUT`], 429 if `budget` is used up.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    budget: &Arc<Semaphore>,
) -> Result<ReadBody, ApiError> {
    let share = match admit(headers, &body, budget) {
        Ok(share) => share,
        Err(error) => {
            discard_body(headers, body).await;
            return Err(error);
        }
    };
    let bytes = timeout(BODY_TIMEOUT, collect(body)).await.unwrap_or_else(|_| {
        let seconds = BODY_TIMEOUT.as_secs();
        let text = format!("The body did not arrive within {seconds} s.");
        Err(ApiError::new(Problem::Timeout, text))
    })?;
    Ok(ReadBody { bytes, _share: share })
}

/// What can be said before anything is read.
fn admit(
    headers: &HeaderMap,
    body: &Body,
    budget: &Arc<Semaphore>,
) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    check_media_type(headers)?;
    let announced = body.size_hint().exact().and_then(|len| usize::try_from(len).ok());
    match announced.unwrap_or(BODY_MAX) {
        0..=SMALL_BODY => Ok(None),
        length if length > BODY_MAX => Err(too_large()),
        length => Ok(Some(share_of(budget, length)?)),
    }
}

/// Reads a body that nobody wants and throws it away, within `DISCARD_MAX` and `DISCARD_TIMEOUT`.
///
/// Many clients send all of a request before they look at the answer. A connection that is closed
/// with bytes unread is reset, and the answer that was on its way is lost.
pub async fn discard(request: Request) {
    let (parts, body) = request.into_parts();
    discard_body(&parts.headers, body).await;
}

async fn discard_body(headers: &HeaderMap, body: Body) {
    // Who asks first has sent nothing yet, and reading would be asking for it.
    if headers.contains_key(header::EXPECT) || body.is_end_stream() {
        return;
    }
    let mut chunks = body.into_data_stream();
    let read = async {
        let mut left = DISCARD_MAX;
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // Out of time is as good as done: the answer follows.
    let _ = timeout(DISCARD_TIMEOUT, read).await;
}

fn share_of(budget: &Arc<Semaphore>, length: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let kib = u32::try_from(length.div_ceil(1024)).expect("a body is at most 8 MiB");
    budget.clone().try_acquire_many_owned(kib).map_err(|_| {
        let text = "Too many large requests are being read; try again shortly.";
        ApiError::new(Problem::QueueFull, text)
    })
}

fn too_large() -> ApiError {
    let text = format!("The body is longer than {} MiB.", BODY_MAX >> 20);
    ApiError::new(Problem::TooLarge, text)
}

async fn collect(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let text = format!("The body could not be read: {error}.");
            ApiError::new(Problem::Invalid, text)
        })?;
        if bytes.len() + chunk.len() > BODY_MAX {
            // Nobody said how long it is: see [`discard`].
            drop(bytes);
            let rest = Body::from_stream(chunks);
            discard_body(&HeaderMap::new(), rest).await;
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A missing content type is accepted; form and plain text are not, which also keeps web pages of
/// other origins out: they can send nothing else without asking first.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !headers.get_all(header::TRANSFER_ENCODING).iter().all(chunked) {
        let text = "A body may be sent in chunks, not compressed: the only 'Transfer-Encoding' is chunked.";
        return Err(ApiError::new(Problem::MediaType, text));
    }
    let plain = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        let text = "The body must not be compressed: leave 'content-encoding' out.";
        return Err(ApiError::new(Problem::MediaType, text));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut parts = text.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if json && utf8 {
        return Ok(());
    }
    let text = format!("'content-type' must be application/json in UTF-8, not '{}'.", quote(&text));
    Err(ApiError::new(Problem::MediaType, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;

    fn media_type(value: &str) -> Result<(), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        check_media_type(&headers)
    }

    #[test]
    fn media_types() {
        assert!(check_media_type(&HeaderMap::new()).is_ok());
        for good in ["application/json", "Application/JSON; charset=UTF-8", "application/json;x=y"]
        {
            assert!(media_type(good).is_ok(), "{good}");
        }
        for bad in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin1",
            "",
        ] {
            assert!(media_type(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn lengths_and_the_budget() {
        let budget = Arc::new(Semaphore::new(BODY_BUDGET_KIB));
        let read = |len: usize| {
            let budget = budget.clone();
            async move { read(&HeaderMap::new(), Body::from(vec![b' '; len]), &budget).await }
        };
        let small = read(SMALL_BODY).await.unwrap();
        assert_eq!(small.bytes.len(), SMALL_BODY);
        assert_eq!(budget.available_permits(), BODY_BUDGET_KIB);
        let large = read(BODY_MAX).await.unwrap();
        assert_eq!(budget.available_permits(), BODY_BUDGET_KIB - 8192);
        drop(large);
        assert_eq!(read(BODY_MAX + 1).await.unwrap_err().status(), 413);
        let all = budget.try_acquire_many(u32::try_from(BODY_BUDGET_KIB).unwrap()).unwrap();
        assert_eq!(read(SMALL_BODY + 1).await.unwrap_err().status(), 429);
        drop(all);
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_cut_off() {
        let chunk = Bytes::from(vec![b' '; 1 << 20]);
        let endless =
            futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        let budget = Arc::new(Semaphore::new(BODY_BUDGET_KIB));
        let error = read(&HeaderMap::new(), Body::from_stream(endless), &budget).await.unwrap_err();
        assert_eq!(error.status(), 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_a_timeout() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let budget = Arc::new(Semaphore::new(BODY_BUDGET_KIB));
        let error = read(&HeaderMap::new(), Body::from_stream(never), &budget).await.unwrap_err();
        assert_eq!(error.status(), 408);
    }
}
