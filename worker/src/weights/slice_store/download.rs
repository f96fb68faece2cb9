//! Fetches a manifest and the chunks of a slice, a few at a time, and retries what comes damaged.

use super::error::{FetchError, StoreError};
use super::files::Manifest;
use super::part::Part;
use super::wanted::Wanted;
use crate::blocking::blocking;
use crate::counters::Counters;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use woolly_protocol::limits::SLICE_CHUNK;
use woolly_protocol::slices::{SliceKey, SliceManifest};

/// Chunks of a slice asked for at a time, each by a stream of its own: as many as the connection's window holds,
/// which keeps a link of 1 Gbit/s and 30 ms busy. More of them, and a window for more, were no faster (docs/memory.md).
const FETCHES_IN_FLIGHT: usize = 4;
/// How often a chunk that came damaged, late or not at all is asked for again.
const REFETCHES_MAX: u32 = 3;
/// A source that sends nothing for so long has stalled.
const STALL: Duration = Duration::from_secs(10);
/// The slowest rate that is waited for, in bytes per second.
const RATE_MIN: u64 = 64 << 10;
/// A chunk takes no longer than the stall limit and its bytes at the slowest rate.
const CHUNK_TIMEOUT: Duration =
    STALL.saturating_add(Duration::from_secs(SLICE_CHUNK as u64 / RATE_MIN));
/// The coordinator may have to read and hash the whole slice before it can answer: 64 GiB at
/// 100 MB/s take 11 minutes.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(900);
/// Between two attempts, times the attempt's number.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Where slices come from: the coordinator, or a test.
pub trait ChunkSource: Send + Sync + 'static {
    /// What a slice consists of.
    fn manifest(
        &self,
        slice: SliceKey,
    ) -> impl Future<Output = Result<SliceManifest, FetchError>> + Send;

    /// The bytes of one chunk, as they came: nothing is checked yet.
    fn chunk(
        &self,
        slice: SliceKey,
        chunk: u32,
    ) -> impl Future<Output = Result<Vec<u8>, FetchError>> + Send;
}

/// Fetches the manifest and checks it against the assignment.
pub(super) async fn manifest<S: ChunkSource>(
    source: &Arc<S>,
    wanted: Wanted,
    counters: &Counters,
) -> Result<Manifest, StoreError> {
    let slice = wanted.slice;
    let mut attempt = 0;
    let wire = loop {
        let last = match within(MANIFEST_TIMEOUT, pulsing(counters, source.manifest(slice))).await {
            Ok(wire) => break wire,
            Err(error) => error,
        };
        attempt += 1;
        if attempt > REFETCHES_MAX || matches!(last, FetchError::Refused(_)) {
            return Err(StoreError::Fetch { slice, source: last });
        }
        tracing::warn!("fetching the manifest of {slice:?}: {last}; trying again");
        tokio::time::sleep(RETRY_PAUSE * attempt).await;
    };
    Manifest::from_wire(&wanted, wire).map_err(|reason| StoreError::Manifest { slice, reason })
}

/// Counts progress once a second while the coordinator is at work on an answer: a worker that waits
/// for it is not stuck. A coordinator that is gone ends `work` with the connection.
async fn pulsing<T>(counters: &Counters, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match timeout(Duration::from_secs(1), work.as_mut()).await {
            Ok(result) => return result,
            Err(_) => counters.progress.fetch_add(1, Relaxed),
        };
    }
}

/// Fetches the missing chunks into the `.part`; returns the bytes that came for it.
pub(super) async fn chunks<S: ChunkSource>(
    source: &Arc<S>,
    slice: SliceKey,
    part: &Arc<Part>,
    missing: Vec<u32>,
    counters: &Arc<Counters>,
) -> Result<u64, StoreError> {
    let mut fetched_bytes = 0;
    let mut fetches = JoinSet::new();
    let mut missing = missing.into_iter();
    loop {
        while fetches.len() < FETCHES_IN_FLIGHT
            && let Some(chunk) = missing.next()
        {
            fetches.spawn(fetch_chunk(source.clone(), slice, part.clone(), chunk));
        }
        let Some(result) = fetches.join_next().await else { return Ok(fetched_bytes) };
        match result {
            Ok(Ok(bytes)) => {
                fetched_bytes += bytes;
                counters.loaded.fetch_add(bytes, Relaxed);
            }
            Ok(Err(error)) => {
                // The others must be gone before the part's lock is given up.
                fetches.shutdown().await;
                return Err(error);
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

async fn fetch_chunk<S: ChunkSource>(
    source: Arc<S>,
    slice: SliceKey,
    part: Arc<Part>,
    chunk: u32,
) -> Result<u64, StoreError> {
    let mut attempt = 0;
    loop {
        let wrong = match within(CHUNK_TIMEOUT, source.chunk(slice, chunk)).await {
            Ok(bytes) => {
                let (part, len) = (part.clone(), bytes.len() as u64);
                match blocking(move || part.write_chunk(chunk, &bytes)).await? {
                    Ok(()) => return Ok(len),
                    Err(wrong) => Err(wrong),
                }
            }
            Err(error) => Ok(error),
        };
        attempt += 1;
        match wrong {
            Ok(source) if attempt > REFETCHES_MAX || matches!(source, FetchError::Refused(_)) => {
                return Err(StoreError::Fetch { slice, source });
            }
            Err(last) if attempt > REFETCHES_MAX => {
                return Err(StoreError::Corrupt { slice, chunk, times: attempt, last });
            }
            Ok(error) => tracing::warn!("chunk {chunk} of {slice:?}: {error}; trying again"),
            Err(error) => {
                let name = part.manifest().root_name();
                tracing::warn!("chunk {chunk} of {slice:?} ({name}) is damaged: {error}");
            }
        }
        tokio::time::sleep(RETRY_PAUSE * attempt).await;
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    timeout(limit, work).await.unwrap_or(Err(FetchError::TimedOut(limit.as_secs())))
}
