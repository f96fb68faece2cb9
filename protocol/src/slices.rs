//! Fetching slices. ALPN `woolly-slices`, a connection of its own; one bidirectional stream per
//! request.

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
