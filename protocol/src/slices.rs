//! Fetching slices. ALPN `woolly-slices`, a connection of its own; one bidirectional stream per
//! request.

use crate::check::{Check, MessageError};
use crate::frame::Message;
use crate::kind::Kind;
use crate::limits::{LAYERS_MAX, PARTS_MAX, SLICE_CHUNK, SLICE_CHUNKS_MAX};
use rkyv::{Archive, Deserialize, Serialize};

/// Which part of the model a slice holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
pub enum SliceKey {
    /// The bytes of the part file with this index before its tensor data: metadata, tensor table.
    Header(u32),
    /// The token embedding.
    Embedding,
    /// The layer with this index.
    Layer(u32),
    /// The last norm and the output matrix (the embedding's own if tied).
    Head,
}

/// Asks for a slice's manifest. Answered by `SliceManifest` or a `FaultMessage`.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SliceManifestRequest {
    /// The model's fingerprint.
    pub fingerprint: [u8; 32],
    /// Which slice.
    pub slice: SliceKey,
}

/// What a slice consists of: its byte ranges of the model's files put one after another.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SliceManifest {
    /// Bytes of the slice.
    pub length: u64,
    /// BLAKE3 of each `SLICE_CHUNK` bytes.
    pub chunks: Vec<[u8; 32]>,
}

/// Asks for one chunk. Answered by `SliceChunk` with the bytes as payload, or a `FaultMessage`.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SliceChunkRequest {
    /// The model's fingerprint.
    pub fingerprint: [u8; 32],
    /// Which slice.
    pub slice: SliceKey,
    /// Which chunk, from 0.
    pub chunk: u32,
}

/// One chunk; the bytes are the payload.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SliceChunk {
    /// Which chunk, from 0.
    pub chunk: u32,
}

impl SliceKey {
    fn check(self, check: Check) -> Result<(), MessageError> {
        match self {
            Self::Header(part) => check.range("slice.Header", part as usize, 0..=PARTS_MAX - 1),
            Self::Layer(layer) => check.range("slice.Layer", layer, 0..=LAYERS_MAX - 1),
            Self::Embedding | Self::Head => Ok(()),
        }
    }
}

impl Message for SliceManifestRequest {
    const KIND: Kind = Kind::SliceManifestRequest;

    fn check(&self) -> Result<(), MessageError> {
        self.slice.check(Check(Self::KIND))
    }
}

impl Message for SliceManifest {
    const KIND: Kind = Kind::SliceManifest;

    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.count("chunks", self.chunks.len(), 1..=SLICE_CHUNKS_MAX)?;
        let (chunks, chunk) = (self.chunks.len() as u64, SLICE_CHUNK as u64);
        let (low, high) = ((chunks - 1) * chunk + 1, chunks * chunk);
        check.range("length", self.length, low..=high)
    }
}

impl SliceManifest {
    /// Bytes that the chunk with this index holds; 0 if there is no such chunk.
    pub fn chunk_len(&self, chunk: u32) -> usize {
        let start = u64::from(chunk) * SLICE_CHUNK as u64;
        let len = self.length.saturating_sub(start).min(SLICE_CHUNK as u64);
        usize::try_from(len).expect("a chunk fits in memory")
    }
}

impl Message for SliceChunkRequest {
    const KIND: Kind = Kind::SliceChunkRequest;

    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        self.slice.check(check)?;
        check.range("chunk", self.chunk as usize, 0..=SLICE_CHUNKS_MAX - 1)
    }
}

impl Message for SliceChunk {
    const KIND: Kind = Kind::SliceChunk;

    fn check(&self) -> Result<(), MessageError> {
        Check(Self::KIND).range("chunk", self.chunk as usize, 0..=SLICE_CHUNKS_MAX - 1)
    }
}
