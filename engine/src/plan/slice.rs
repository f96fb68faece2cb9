//! The parts of a model that are fetched and mapped by themselves, and where their tensors lie. Knows no
//! model.

/// Bytes that tensors of a slice file are aligned to.
pub const SLICE_ALIGNMENT: u64 = 32;

/// Which part of a model a slice holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SliceId {
    /// The part file with this index up to its tensor data: metadata and tensor table.
    Header(u32),
    /// The token embedding.
    Embedding,
    /// The layer with this index, and the rotary frequencies if the model has any.
    Layer(u32),
    /// The last norm and the output matrix (the embedding's own if tied).
    Head,
}

/// Bytes of a model's part file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Index of the part.
    pub part: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A tensor and its place in a slice file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceTensor {
    /// Name in the model.
    pub name: String,
    /// Where the model file has it.
    pub source: ByteRange,
    /// Where the slice file has it; a multiple of [`SLICE_ALIGNMENT`].
    pub at: u64,
    /// Whether it is of experts, of which a forward reads those that its rows choose.
    pub is_of_experts: bool,
}

/// What a slice file consists of, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlicePiece {
    /// Bytes of the model.
    Source(ByteRange),
    /// This many zeros.
    Zeros(u64),
}

/// Layers that predict tokens further ahead, which are not computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub layers: u32,
    /// Their tensors.
    pub tensors: usize,
    /// Bytes of those.
    pub bytes: u64,
}
