//! Writes small GGUF files; tests and tools make their models with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Gguf;
use super::limits::ALIGNMENT_DEFAULT;
use super::value::{Array, Value};
use crate::quant::TensorType;

/// Builds a GGUF file of version 3 in memory.
///
/// Nothing is checked but a tensor's number of bytes, so that tests can write what readers refuse.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    pairs: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    ty: TensorType,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// The model at `path`, to be changed: its metadata and tensors, those of all parts in one file.
    ///
    /// # Errors
    /// A file that Woolly would not open, or that cannot be read.
    pub fn copy_of(path: &Path) -> io::Result<Self> {
        let gguf = Gguf::open(path).map_err(io::Error::other)?;
        let metadata = gguf.metadata();
        let pairs =
            metadata.keys().filter_map(|key| Some((key.to_owned(), metadata.get(key)?.clone())));
        let mut copy = Self { pairs: pairs.collect(), tensors: Vec::new() };
        for tensor in gguf.tensors() {
            let path = gguf.parts()[tensor.part].path.as_deref().unwrap_or(path);
            let mut bytes = vec![0; usize::try_from(tensor.len).map_err(io::Error::other)?];
            File::open(path)?.read_exact_at(&mut bytes, tensor.offset)?;
            copy = copy.tensor(&tensor.name, tensor.ty, &tensor.shape, bytes);
        }
        Ok(copy)
    }

    /// Adds a metadata pair.
    #[must_use]
    pub fn kv(mut self, key: impl Into<String>, value: Value) -> Self {
        self.pairs.push((key.into(), value));
        self
    }

    /// Adds a tensor of `shape` in GGUF's order (`shape[0]` is the length of a row).
    ///
    /// # Panics
    /// If `bytes` are not as many as the shape and type need.
    #[must_use]
    pub fn tensor(
        mut self,
        name: impl Into<String>,
        ty: TensorType,
        shape: &[u64],
        bytes: Vec<u8>,
    ) -> Self {
        let name = name.into();
        let elements: u64 = shape.iter().product();
        let needed = elements / ty.block_len() as u64 * ty.block_bytes() as u64;
        assert_eq!(bytes.len() as u64, needed, "bytes of tensor {name}");
        self.tensors.push(Tensor { name, ty, shape: shape.to_vec(), bytes });
        self
    }

    /// Replaces the value of a key, or adds it.
    #[must_use]
    pub fn set(mut self, key: &str, value: Value) -> Self {
        match self.pairs.iter_mut().find(|(have, _)| have == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key.to_owned(), value)),
        }
        self
    }

    /// Leaves a key out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.pairs.retain(|(have, _)| have != key);
        self
    }

    /// Leaves a tensor out.
    #[must_use]
    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// The file. An `alignment` other than 32 is written as `general.alignment` too.
    pub fn to_bytes(&self, alignment: u64) -> Vec<u8> {
        let mut pairs = self.pairs.clone();
        if alignment != ALIGNMENT_DEFAULT {
            let value = u32::try_from(alignment).expect("an alignment is small");
            pairs.push((super::ALIGNMENT_KEY.to_owned(), Value::U32(value)));
        }
        let mut out = Vec::new();
        out.extend_from_slice(b"GGUF");
        out.extend_from_slice(&3u32.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
        for (key, value) in &pairs {
            put_string(&mut out, key);
            out.extend_from_slice(&value.type_id().to_le_bytes());
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_string(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|dim| out.extend_from_slice(&dim.to_le_bytes()));
            out.extend_from_slice(&(tensor.ty as u32).to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            offset = (offset + tensor.bytes.len() as u64).next_multiple_of(alignment);
        }
        for tensor in &self.tensors {
            pad(&mut out, alignment);
            out.extend_from_slice(&tensor.bytes);
        }
        pad(&mut out, alignment);
        out
    }

    /// Writes the file to `path`, with tensors at multiples of 32 bytes.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_bytes(ALIGNMENT_DEFAULT))
    }
}

fn pad(out: &mut Vec<u8>, alignment: u64) {
    let alignment = usize::try_from(alignment).expect("an alignment is small");
    out.resize(out.len().next_multiple_of(alignment), 0);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.push(*n),
        Value::I8(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::U16(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::I16(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::U32(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::I32(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::U64(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::I64(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::F32(x) => out.extend_from_slice(&x.to_le_bytes()),
        Value::F64(x) => out.extend_from_slice(&x.to_le_bytes()),
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::String(text) => put_string(out, text),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! numbers {
        ($id:literal, $values:expr) => {{
            put_array_head(out, $id, $values.len());
            $values.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(v) => numbers!(0, v),
        Array::I8(v) => numbers!(1, v),
        Array::U16(v) => numbers!(2, v),
        Array::I16(v) => numbers!(3, v),
        Array::U32(v) => numbers!(4, v),
        Array::I32(v) => numbers!(5, v),
        Array::F32(v) => numbers!(6, v),
        Array::U64(v) => numbers!(10, v),
        Array::I64(v) => numbers!(11, v),
        Array::F64(v) => numbers!(12, v),
        Array::Bools(v) => {
            put_array_head(out, 7, v.len());
            out.extend(v.iter().map(|&b| u8::from(b)));
        }
        Array::Strings(v) => {
            put_array_head(out, 8, v.len());
            v.iter().for_each(|text| put_string(out, text));
        }
    }
}

fn put_array_head(out: &mut Vec<u8>, element_type: u32, len: usize) {
    out.extend_from_slice(&element_type.to_le_bytes());
    out.extend_from_slice(&(len as u64).to_le_bytes());
}
