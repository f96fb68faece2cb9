//! Serves slices of the model to workers that do not have its file.
//!
//! A request names a slice and a chunk, never a file or an offset: what can be read is what the
//! model's layout says a slice consists of, and nothing else. Reads are few at a time and in turn,
//! so that many workers asking at once share the disk and leave the processor to the gateway.

mod source;
#[cfg(test)]
mod tests;

pub use source::SliceSource;

use bytes::Bytes;
use quinn::{Connection, SendStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use woolly_engine::NUMERICS;
use woolly_protocol::endpoint::STREAMS_MAX;
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::{EncodedFrame, Frame, FrameError, Message};
use woolly_protocol::frame_io::{read_frame, write_frame};
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};
use woolly_protocol::kind::Kind;
use woolly_protocol::preamble::{Preamble, answer_greeting};
use woolly_protocol::slices::{SliceChunk, SliceChunkRequest, SliceManifestRequest};

/// Time in which a request must have come once its stream is open.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Below every other stream, should one ever share the connection.
const PRIORITY: i32 = -10;

/// Serves the slices of models, once there are any, to any number of workers.
#[derive(Debug, Default)]
pub struct SliceServer {
    /// One for each model that is served, with how many serve it.
    sources: Mutex<Vec<(Arc<SliceSource>, usize)>>,
}

impl SliceServer {
    /// A server without a model: it refuses until [`offer`](Self::offer) is called.
    pub fn new() -> SliceServer {
        SliceServer::default()
    }

    /// Serves this model from now on, unless one with its fingerprint is served. Each offer ends with a
    /// [`withdraw`](Self::withdraw).
    pub fn offer(&self, source: SliceSource) -> Arc<SliceSource> {
        let mut sources = self.lock();
        let known =
            sources.iter_mut().find(|(known, _)| known.fingerprint() == source.fingerprint());
        if let Some((known, offers)) = known {
            *offers += 1;
            return Arc::clone(known);
        }
        let source = Arc::new(source);
        sources.push((Arc::clone(&source), 1));
        source
    }

    /// A model is served no more, unless it was offered by others, too. What is being sent goes on.
    pub fn withdraw(&self, source: &SliceSource) {
        self.lock().retain_mut(|(known, offers)| {
            *offers -= usize::from(known.fingerprint() == source.fingerprint());
            *offers > 0
        });
    }

    /// The model with this fingerprint; without it another, whose answer says what is wrong; `None`
    /// while there is none.
    fn source(&self, fingerprint: &[u8; 32]) -> Option<Arc<SliceSource>> {
        let sources = self.lock();
        let named = sources.iter().find(|(source, _)| source.fingerprint() == fingerprint);
        named.or(sources.first()).map(|(source, _)| Arc::clone(source))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<SliceSource>, usize)>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a worker's requests until its connection ends.
    pub async fn serve(self: &Arc<Self>, connection: Connection, worker: WorkerId) {
        // The first stream stays open for as long as the connection; nothing more passes on it.
        let _greeting = match answer_greeting(&connection, &Preamble::ours(NUMERICS)).await {
            Ok(streams) => streams,
            Err(error) => {
                tracing::warn!("worker {} cannot fetch slices: {error}", worker.hex());
                return;
            }
        };
        let mut requests = JoinSet::new();
        while let Ok((send, mut recv)) = connection.accept_bi().await {
            while requests.try_join_next().is_some() {}
            // QUIC allows so many streams; a request that is being answered may outlive its stream.
            if requests.len() >= STREAMS_MAX as usize {
                requests.join_next().await;
            }
            let server = Arc::clone(self);
            requests.spawn(async move {
                let kinds = [Kind::SliceManifestRequest, Kind::SliceChunkRequest];
                let request = timeout(REQUEST_TIME, read_frame(&mut recv, &kinds)).await;
                let Ok(Ok(Some(request))) = request else {
                    tracing::debug!("a request for a slice from worker {} broke", worker.hex());
                    return;
                };
                if let Err(error) = answer(send, &request, &server).await {
                    tracing::debug!("a slice for worker {} was not sent: {error}", worker.hex());
                }
            });
        }
        tracing::debug!("worker {} has fetched its slices", worker.hex());
    }
}

async fn answer(
    mut send: SendStream,
    request: &Frame,
    server: &SliceServer,
) -> Result<(), FrameError> {
    let found = look_up(request, server).await;
    let frame = match found {
        Ok(frame) => frame,
        Err(fault) => {
            tracing::warn!("refused a request for a slice: {}", fault.text);
            EncodedFrame::new(&fault)?
        }
    };
    // A stream that is gone cannot be ranked, which the write below finds out.
    let _ = send.set_priority(PRIORITY);
    write_frame(&mut send, frame).await?;
    let _ = send.finish();
    Ok(())
}

async fn look_up(request: &Frame, server: &SliceServer) -> Result<EncodedFrame, FaultMessage> {
    let no_model = || fault("the coordinator has no model yet: ask again later");
    let not_sent = |error: FrameError| fault(&error.to_string());
    if request.kind() == Kind::SliceManifestRequest {
        let request: SliceManifestRequest = read(request)?;
        let source = server.source(&request.fingerprint).ok_or_else(no_model)?;
        let manifest = source.manifest(&request.fingerprint, request.slice).await;
        let manifest = manifest.map_err(|text| fault(&text))?;
        return EncodedFrame::new(&*manifest).map_err(not_sent);
    }
    let request: SliceChunkRequest = read(request)?;
    let source = server.source(&request.fingerprint).ok_or_else(no_model)?;
    let bytes = source.chunk(&request.fingerprint, request.slice, request.chunk).await;
    let bytes = Bytes::from(bytes.map_err(|text| fault(&text))?);
    EncodedFrame::with_payload(&SliceChunk { chunk: request.chunk }, bytes).map_err(not_sent)
}

fn read<M: Message>(frame: &Frame) -> Result<M, FaultMessage> {
    frame.message().map_err(|error| fault(&error.to_string()))
}

fn fault(text: &str) -> FaultMessage {
    FaultMessage::new(FaultCode::SliceFailed, PlanEpoch(0), MicrobatchId(0), text)
}
