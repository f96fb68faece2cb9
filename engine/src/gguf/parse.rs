//! The header of one file: magic, version, metadata pairs, tensor table. Every length is held
//! against a limit and against the bytes left before memory is taken for it.

use std::collections::HashSet;
use std::io::Read;

use super::error::{GgufError, Problem, Shown};
use super::limits::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ARRAY_LEN_MAX, DIM_MAX, DIMS_MAX, FILE_BYTES_MAX,
    KEY_BYTES_MAX, PAIRS_MAX, STRING_BYTES_MAX, STRINGS_LEN_MAX, TENSOR_NAME_BYTES_MAX,
    TENSORS_MAX,
};
use super::source::{Source, What};
use super::value::{Array, Metadata, Value};
use super::{ALIGNMENT_KEY, TensorInfo, foreign};
use crate::quant::TensorType;

/// Bytes of the smallest metadata pair: a key of one byte and a value of one byte.
const PAIR_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// Bytes of the smallest entry of the tensor table: a name of one byte and one dimension.
const TENSOR_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// The header of one file.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// In the order of the file, which is the order of offsets.
    pub(super) tensors: Vec<TensorInfo>,
    /// Where tensor data begins.
    pub(super) data_start: u64,
    /// Bytes of the header without the padding after it.
    pub(super) header_len: u64,
}

/// Reads the header of part `part`. `bytes_len` bytes can be read from `read`; the file has
/// `file_size`. Headers of other parts took `used` bytes of the limit.
pub(super) fn parse(
    read: &mut dyn Read,
    bytes_len: u64,
    file_size: u64,
    part: usize,
    used: u64,
) -> Result<Header, GgufError> {
    if file_size > FILE_BYTES_MAX {
        let what = "the size of the file".into();
        return Err(Problem::Limit { what, found: file_size, limit: FILE_BYTES_MAX }.into());
    }
    let mut source = Source::new(read, bytes_len, used);
    let (tensor_count, pair_count) = counts(&mut source)?;
    let mut metadata = Metadata::default();
    pairs(&mut source, pair_count, &mut metadata)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = tensor_table(&mut source, tensor_count, alignment, part)?;
    let header_len = source.position();
    let data_start = place(&mut tensors, header_len, alignment, file_size)?;
    // Padding is zeros by the format. Anything else is most likely the rest of a table that is
    // longer than its count says.
    if !source.zeros(data_start - header_len, What::Padding)? {
        return Err(Problem::Padding { at: header_len }.into());
    }
    Ok(Header { metadata, tensors, data_start, header_len })
}

/// Magic and version, then how many tensors and metadata pairs there are.
pub(super) fn counts(source: &mut Source<'_>) -> Result<(u64, u64), GgufError> {
    magic(source)?;
    version(source)?;
    let tensor_count = source.u64(What::TensorCount)?;
    let pair_count = source.u64(What::PairCount)?;
    limit(tensor_count, TENSORS_MAX, What::TensorCount)?;
    limit(pair_count, PAIRS_MAX, What::PairCount)?;
    source.expect(tensor_count * TENSOR_BYTES_MIN, What::TensorCount)?;
    source.expect(pair_count * PAIR_BYTES_MIN, What::PairCount)?;
    Ok((tensor_count, pair_count))
}

/// Reads so many metadata pairs into `metadata`, which keeps those before an error.
pub(super) fn pairs(
    source: &mut Source<'_>,
    count: u64,
    metadata: &mut Metadata,
) -> Result<(), GgufError> {
    for index in 0..count {
        let key = name(source.string(KEY_BYTES_MAX, What::Key(index))?, What::Key(index))?;
        if metadata.get(&key).is_some() {
            return Err(Problem::DuplicateKey { key: Shown(key.as_bytes()).to_string() }.into());
        }
        let value = value(source, &key)?;
        metadata.add(key, value);
    }
    Ok(())
}

fn magic(source: &mut Source<'_>) -> Result<(), GgufError> {
    let found = source.four(What::Magic)?;
    if &found == b"GGUF" {
        return Ok(());
    }
    let hint = match &found {
        b"FUGG" => " (bytes in reverse order)",
        b"GGML" | b"GGJT" | b"ggml" | b"tjgg" | b"lmgg" | b"fmgg" => {
            " (an older ggml format; convert it)"
        }
        [b'P', b'K', ..] => " (a zip archive, perhaps PyTorch weights; convert them)",
        [0x1f, 0x8b, ..] => " (a gzip archive; unpack it)",
        [0x7f, b'E', b'L', b'F'] => " (a program)",
        [0x80, ..] => " (a pickle; convert it)",
        [_, _, _, 0] => " (perhaps safetensors; convert it)",
        b"vers" => " (perhaps a Git LFS pointer; fetch the file itself)",
        _ => "",
    };
    Err(Problem::NotGguf { found: Shown(&found).to_string(), hint }.into())
}

fn version(source: &mut Source<'_>) -> Result<(), GgufError> {
    let found = source.u32(What::Version)?;
    let hint = match found {
        2 | 3 => return Ok(()),
        0 => "",
        1 => ": convert the file again with a present converter",
        n if n & 0xffff == 0 => ": this is a big-endian file; Woolly reads little-endian ones",
        _ => ": this version is newer than Woolly, or the file is damaged",
    };
    Err(Problem::Version { found, hint }.into())
}

fn limit(found: u64, limit: u64, what: What<'_>) -> Result<(), GgufError> {
    if found <= limit {
        return Ok(());
    }
    Err(Problem::Limit { what: what.to_string(), found, limit }.into())
}

/// A key or tensor name that can stand in a log line.
fn name(name: String, what: What<'_>) -> Result<String, GgufError> {
    if name.is_empty() || name.chars().any(char::is_control) {
        let found = Shown(name.as_bytes()).to_string();
        return Err(Problem::Name { what: what.to_string(), found }.into());
    }
    Ok(name)
}

fn value(source: &mut Source<'_>, key: &str) -> Result<Value, GgufError> {
    let what = What::Value(key);
    let type_id = source.u32(what)?;
    match type_id {
        8 => return Ok(Value::String(source.string(STRING_BYTES_MAX, what)?)),
        9 => return Ok(Value::Array(array(source, what)?)),
        _ => {}
    }
    let width = width(type_id, what)?;
    let bytes = source.bytes(width, what)?;
    let array = elements(type_id, &bytes, what)?;
    Ok(match array {
        Array::U8(v) => Value::U8(v[0]),
        Array::I8(v) => Value::I8(v[0]),
        Array::U16(v) => Value::U16(v[0]),
        Array::I16(v) => Value::I16(v[0]),
        Array::U32(v) => Value::U32(v[0]),
        Array::I32(v) => Value::I32(v[0]),
        Array::U64(v) => Value::U64(v[0]),
        Array::I64(v) => Value::I64(v[0]),
        Array::F32(v) => Value::F32(v[0]),
        Array::F64(v) => Value::F64(v[0]),
        Array::Bools(v) => Value::Bool(v[0]),
        Array::Strings(_) => unreachable!("strings were read above"),
    })
}

fn array(source: &mut Source<'_>, what: What<'_>) -> Result<Array, GgufError> {
    let type_id = source.u32(what)?;
    let len = source.u64(what)?;
    if type_id == 9 {
        return Err(Problem::NestedArray { what: what.to_string() }.into());
    }
    let (width, len_max) = match type_id {
        8 => (8, STRINGS_LEN_MAX),
        _ => (width(type_id, what)?, ARRAY_LEN_MAX),
    };
    if len > len_max {
        let what = format!("the number of elements of {what}");
        return Err(Problem::Limit { what, found: len, limit: len_max }.into());
    }
    source.expect(len * width, what)?;
    if type_id != 8 {
        let bytes = source.bytes(len * width, what)?;
        return elements(type_id, &bytes, what);
    }
    let strings = (0..len).map(|_| source.string(STRING_BYTES_MAX, what));
    Ok(Array::Strings(strings.collect::<Result<_, _>>()?))
}

/// Bytes of one number or bool of GGUF's type `type_id`.
fn width(type_id: u32, what: What<'_>) -> Result<u64, GgufError> {
    Ok(match type_id {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return Err(Problem::ValueType { what: what.to_string(), found: type_id }.into()),
    })
}

/// Numbers or bools of GGUF's type `type_id`, little-endian and packed.
fn elements(type_id: u32, bytes: &[u8], what: What<'_>) -> Result<Array, GgufError> {
    macro_rules! numbers {
        ($type:ty) => {
            bytes.as_chunks().0.iter().map(|b| <$type>::from_le_bytes(*b)).collect()
        };
    }
    Ok(match type_id {
        0 => Array::U8(bytes.to_vec()),
        1 => Array::I8(numbers!(i8)),
        2 => Array::U16(numbers!(u16)),
        3 => Array::I16(numbers!(i16)),
        4 => Array::U32(numbers!(u32)),
        5 => Array::I32(numbers!(i32)),
        6 => Array::F32(numbers!(f32)),
        7 => match bytes.iter().find(|&&b| b > 1) {
            None => Array::Bools(bytes.iter().map(|&b| b == 1).collect()),
            Some(&found) => return Err(Problem::Bool { what: what.to_string(), found }.into()),
        },
        10 => Array::U64(numbers!(u64)),
        11 => Array::I64(numbers!(i64)),
        12 => Array::F64(numbers!(f64)),
        _ => unreachable!("width() refused the other types"),
    })
}

/// The alignment of tensors: a `u32`, as the format demands, that is a power of two.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(Value::U32(n)) if n.is_power_of_two() && u64::from(*n) <= ALIGNMENT_MAX => {
            Ok((*n).into())
        }
        Some(value) => Err(Problem::KeyValue {
            key: ALIGNMENT_KEY.into(),
            expected: format!("a u32 that is a power of two up to {ALIGNMENT_MAX}"),
            found: match value {
                Value::U32(_) => value.summary(),
                _ => format!("{} of another type", value.summary()),
            },
        }
        .into()),
    }
}

fn tensor_table(
    source: &mut Source<'_>,
    count: u64,
    alignment: u64,
    part: usize,
) -> Result<Vec<TensorInfo>, GgufError> {
    source.expect(count * TENSOR_BYTES_MIN, What::TensorCount)?;
    let mut tensors: Vec<TensorInfo> =
        Vec::with_capacity(usize::try_from(count).expect("the count was held against its limit"));
    let mut names = HashSet::new();
    let mut next: u64 = 0;
    for index in 0..count {
        let tensor = entry(source, index)?.typed(part)?;
        if !names.insert(tensor.name.clone()) {
            return Err(Problem::DuplicateTensor { name: tensor.name }.into());
        }
        if tensor.offset != next {
            let TensorInfo { name, offset, .. } = tensor;
            return Err(Problem::TensorOffset { name, found: offset, expected: next }.into());
        }
        next = next
            .checked_add(tensor.len)
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| too_large(&tensor.name, &tensor.shape))?;
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// One entry of the tensor table as it stands there: of any type.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    /// GGUF's number of the type.
    pub(super) type_id: u32,
    /// Relative to the tensor data.
    pub(super) offset: u64,
}

/// The next entry of the tensor table.
pub(super) fn entry(source: &mut Source<'_>, index: u64) -> Result<Entry, GgufError> {
    let what = What::TensorName(index);
    let name = name(source.string(TENSOR_NAME_BYTES_MAX, what)?, what)?;
    let what = What::Tensor(&name);
    let dims = source.u32(what)?;
    if !(1..=DIMS_MAX).contains(&dims) {
        return Err(Problem::Dimensions { name, found: dims }.into());
    }
    let mut shape = Vec::with_capacity(DIMS_MAX as usize);
    for dimension in 0..dims as usize {
        let found = source.u64(what)?;
        if !(1..=DIM_MAX).contains(&found) {
            return Err(Problem::Dimension { name, dimension, found }.into());
        }
        shape.push(found);
    }
    let type_id = source.u32(what)?;
    let offset = source.u64(what)?;
    Ok(Entry { name, shape, type_id, offset })
}

impl Entry {
    /// The tensor of part `part`, its type one that Woolly computes with; the offset is still relative.
    pub(super) fn typed(self, part: usize) -> Result<TensorInfo, GgufError> {
        let Entry { name, shape, type_id, offset } = self;
        let Some(ty) = TensorType::from_id(type_id) else {
            return Err(Problem::TensorType { name, found: foreign::type_name(type_id) }.into());
        };
        let block_len = ty.block_len();
        if shape[0] % block_len as u64 != 0 {
            return Err(Problem::RowLength { name, ty, row_len: shape[0], block_len }.into());
        }
        let len =
            bytes(&shape, block_len, ty.block_bytes()).ok_or_else(|| too_large(&name, &shape))?;
        Ok(TensorInfo { name, ty, shape, part, offset, len })
    }
}

/// Bytes of a tensor with so many elements and bytes per block; `None` beyond what can be counted.
pub(super) fn bytes(shape: &[u64], block_len: usize, block_bytes: usize) -> Option<u64> {
    let blocks = shape[1..]
        .iter()
        .try_fold(shape[0] / block_len as u64, |blocks, &dim| blocks.checked_mul(dim))?;
    blocks.checked_mul(block_bytes as u64)
}

fn too_large(name: &str, shape: &[u64]) -> GgufError {
    Problem::TensorSize { name: name.to_owned(), shape: shape.to_vec() }.into()
}

/// Makes the offsets absolute and checks that every tensor lies in the file. Returns where tensor
/// data begins. Bytes behind the last tensor are accepted and ignored.
fn place(
    tensors: &mut [TensorInfo],
    header_len: u64,
    alignment: u64,
    file_size: u64,
) -> Result<u64, GgufError> {
    let data_start = header_len.next_multiple_of(alignment);
    for tensor in tensors.iter_mut() {
        let end = tensor
            .offset
            .checked_add(data_start)
            .and_then(|offset| offset.checked_add(tensor.len))
            .ok_or_else(|| too_large(&tensor.name, &tensor.shape))?;
        if end > file_size {
            let name = tensor.name.clone();
            return Err(Problem::TensorPastEnd { name, end, size: file_size }.into());
        }
        tensor.offset += data_start;
    }
    // A file without tensors (a vocabulary) need not be padded.
    Ok(data_start.min(file_size))
}
