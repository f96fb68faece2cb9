//! Asks the coordinator for slices, on a connection of its own that is opened when it is needed.

use crate::peers::dial::{DialFailure, Dialer, Greeted};
use crate::weights::slice_store::{ChunkSource, FetchError};
use quinn::{Connection, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Mutex;
use woolly_protocol::fault::FaultMessage;
use woolly_protocol::frame::{EncodedFrame, Frame, FrameError, Message};
use woolly_protocol::frame_io::{read_frame, write_frame};
use woolly_protocol::kind::Kind;
use woolly_protocol::slices::{
    SliceChunk, SliceChunkRequest, SliceKey, SliceManifest, SliceManifestRequest,
};

/// The coordinator as a source of one model's slices.
#[derive(Debug)]
pub struct SliceClient {
    dialer: Arc<Dialer>,
    coordinator: SocketAddr,
    fingerprint: [u8; 32],
    /// The lock is held while dialling, so that requests beside each other share one connection.
    connection: Mutex<Option<Greeted>>,
}

impl SliceClient {
    /// Slices of the model with this fingerprint. Nothing is dialled before the first request.
    pub fn new(dialer: Arc<Dialer>, coordinator: SocketAddr, fingerprint: [u8; 32]) -> SliceClient {
        SliceClient { dialer, coordinator, fingerprint, connection: Mutex::new(None) }
    }

    async fn connection(&self) -> Result<Connection, FetchError> {
        let mut held = self.connection.lock().await;
        if let Some(greeted) = held.as_ref()
            && greeted.connection.close_reason().is_none()
        {
            return Ok(greeted.connection.clone());
        }
        let greeted =
            self.dialer.slices(self.coordinator).await.map_err(|failure| match failure {
                DialFailure::Refused(refusal) => FetchError::Refused(refusal.text),
                failure => FetchError::Lost(failure.to_string()),
            })?;
        let connection = greeted.connection.clone();
        *held = Some(greeted);
        Ok(connection)
    }

    async fn ask<Q: Message, A: Message>(&self, request: &Q) -> Result<(A, Frame), FetchError> {
        let connection = self.connection().await?;
        let frame = EncodedFrame::new(request).map_err(lost)?;
        let (mut send, mut recv) =
            connection.open_bi().await.map_err(|error| FetchError::Lost(error.to_string()))?;
        write_frame(&mut send, frame).await.map_err(lost)?;
        // The request is whole; if the stream broke, reading says so.
        let _ = send.finish();
        let answer = read_frame(&mut recv, &[A::KIND, Kind::Fault]).await.map_err(lost)?;
        let answer = answer
            .ok_or_else(|| FetchError::Lost("the stream ended without an answer".to_owned()))?;
        if answer.kind() == Kind::Fault {
            let fault: FaultMessage = answer.message().map_err(lost)?;
            return Err(FetchError::Refused(fault.text));
        }
        Ok((answer.message().map_err(lost)?, answer))
    }
}

fn lost(error: FrameError) -> FetchError {
    match error {
        FrameError::Refused(refusal) => FetchError::Refused(refusal.text),
        error => FetchError::Lost(error.to_string()),
    }
}

impl Drop for SliceClient {
    fn drop(&mut self) {
        if let Some(greeted) = self.connection.get_mut() {
            greeted.connection.close(VarInt::from_u32(0), b"");
        }
    }
}

impl ChunkSource for SliceClient {
    async fn manifest(&self, slice: SliceKey) -> Result<SliceManifest, FetchError> {
        let request = SliceManifestRequest { fingerprint: self.fingerprint, slice };
        self.ask::<_, SliceManifest>(&request).await.map(|(manifest, _)| manifest)
    }

    async fn chunk(&self, slice: SliceKey, chunk: u32) -> Result<Vec<u8>, FetchError> {
        let request = SliceChunkRequest { fingerprint: self.fingerprint, slice, chunk };
        let (answer, frame) = self.ask::<_, SliceChunk>(&request).await?;
        if answer.chunk != chunk {
            let text = format!("chunk {} came, {chunk} was asked for", answer.chunk);
            return Err(FetchError::Lost(text));
        }
        Ok(frame.payload().to_vec())
    }
}
