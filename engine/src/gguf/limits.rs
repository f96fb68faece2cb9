//! Every maximum of a GGUF header. A file beyond one of them is refused before memory is taken.

/// Bytes of the headers of a model, all parts together (metadata and tensor tables).
///
/// Memory held for a header is at most about four times its bytes: an empty string in an array
/// costs 8 bytes in the file and 24 in memory, and everything else costs less.
pub const HEADER_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one part file: 1 PiB, so that sums over all parts are exact.
pub const FILE_BYTES_MAX: u64 = 1 << 50;
/// Metadata pairs of one part.
pub const PAIRS_MAX: u64 = 65_536;
/// Tensors of a model, all parts together.
pub const TENSORS_MAX: u64 = 65_536;
/// Bytes of a metadata key.
pub const KEY_BYTES_MAX: u64 = 65_535;
/// Bytes of a string value.
pub const STRING_BYTES_MAX: u64 = 64 << 20;
/// Elements of an array of numbers or bools.
pub const ARRAY_LEN_MAX: u64 = 64 << 20;
/// Elements of an array of strings: sixteen times the largest vocabulary in use.
pub const STRINGS_LEN_MAX: u64 = 4 << 20;
/// Bytes of a tensor's name.
pub const TENSOR_NAME_BYTES_MAX: u64 = 63;
/// Dimensions of a tensor.
pub const DIMS_MAX: u32 = 4;
/// Elements along one dimension of a tensor.
pub const DIM_MAX: u64 = i32::MAX as u64;
/// Bytes that tensors are aligned to when the file does not say.
pub const ALIGNMENT_DEFAULT: u64 = 32;
/// Largest alignment that is accepted.
pub const ALIGNMENT_MAX: u64 = 1 << 20;
/// Parts of a split model.
pub const PARTS_MAX: usize = 1024;
/// Bytes of foreign text shown in an error.
pub const SHOWN_BYTES_MAX: usize = 256;
