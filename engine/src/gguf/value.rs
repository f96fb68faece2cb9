//! Metadata values and typed access to them; every error names the key.

use std::borrow::Cow;
use std::collections::HashMap;

use super::error::{GgufError, Problem, Shown};

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "these are GGUF's own types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// An array value: elements of one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "these are GGUF's own types")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bools(Vec<bool>),
    Strings(Vec<String>),
}

impl Value {
    /// GGUF's number of the type.
    pub fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// The whole number, whatever its width.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(n) => n.into(),
            Self::I8(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U64(n) => n.into(),
            Self::I64(n) => n.into(),
            _ => return None,
        })
    }

    /// The value in a few words, for errors and listings: strings are escaped and cut, arrays are
    /// named by type and length.
    pub fn summary(&self) -> String {
        match self {
            Self::F32(x) => x.to_string(),
            Self::F64(x) => x.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::String(s) => format!("\"{}\"", Shown(s.as_bytes())),
            Self::Array(a) => format!("an array of {} {}", a.len(), a.type_name()),
            _ => self.integer().expect("the other types are whole numbers").to_string(),
        }
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bools(v) => v.len(),
            Self::Strings(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the element type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bools(_) => "bools",
            Self::Strings(_) => "strings",
        }
    }

    /// The elements as `i32`, if they are whole numbers that fit.
    fn i32s(&self) -> Option<Cow<'_, [i32]>> {
        fn convert<T: Copy + TryInto<i32>>(values: &[T]) -> Option<Cow<'_, [i32]>> {
            values.iter().map(|&n| n.try_into().ok()).collect::<Option<Vec<i32>>>().map(Cow::Owned)
        }
        match self {
            Self::I32(v) => Some(Cow::Borrowed(v)),
            Self::U8(v) => convert(v),
            Self::I8(v) => convert(v),
            Self::U16(v) => convert(v),
            Self::I16(v) => convert(v),
            Self::U32(v) => convert(v),
            Self::U64(v) => convert(v),
            Self::I64(v) => convert(v),
            _ => None,
        }
    }
}

/// The metadata of a model, in the order of its file.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// Metadata of these pairs, for tests; of a key that occurs twice, the last is found.
    pub fn from_pairs(pairs: Vec<(String, Value)>) -> Self {
        let mut metadata = Self::default();
        for (key, value) in pairs {
            metadata.index.insert(key.clone(), metadata.pairs.len());
            metadata.pairs.push((key, value));
        }
        metadata
    }

    /// Adds a pair of a file.
    pub(super) fn add(&mut self, key: String, value: Value) {
        self.index.insert(key.clone(), self.pairs.len());
        self.pairs.push((key, value));
    }

    /// The same without a key.
    #[must_use]
    pub(crate) fn without(&self, key: &str) -> Self {
        let kept = self.pairs.iter().filter(|(have, _)| have != key);
        Self::from_pairs(kept.cloned().collect())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&at| &self.pairs[at].1)
    }

    /// Every key, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(key, _)| key.as_str())
    }

    /// A whole number that fits, of any type; an error names the key.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        required(key, self.opt_u32(key)?)
    }

    /// A whole number that fits, of any type; an error names the key.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        required(key, self.opt_u64(key)?)
    }

    /// A number with a point, `f32` or `f64`; an error names the key.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        required(key, self.opt_f32(key)?)
    }

    /// A bool; an error names the key.
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        required(key, self.opt_bool(key)?)
    }

    /// A string; an error names the key.
    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        required(key, self.opt_str(key)?)
    }

    /// As [`u32`](Self::u32), `None` when the key is absent.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.integer(key, "a whole number from 0 to 4294967295")
    }

    /// As [`u64`](Self::u64), `None` when the key is absent.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.integer(key, "a whole number from 0 to 18446744073709551615")
    }

    /// A whole number of any type and sign, `None` when the key is absent.
    pub fn opt_integer(&self, key: &str) -> Result<Option<i128>, GgufError> {
        self.integer(key, "a whole number")
    }

    fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, GgufError> {
        self.typed(key, expected, |value| value.integer().and_then(|n| T::try_from(n).ok()))
    }

    /// As [`f32`](Self::f32), `None` when the key is absent.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a number with a point", |value| match value {
            Value::F32(x) => Some(*x),
            Value::F64(x) => Some(*x as f32),
            _ => None,
        })
    }

    /// As [`bool`](Self::bool), `None` when the key is absent.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// As [`str`](Self::str), `None` when the key is absent.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(s) => Some(s.as_str()),
            _ => None,
        })
    }

    /// An array of strings, `None` when the key is absent.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::Strings(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// An array of whole numbers that fit into `i32`, `None` when the key is absent.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>, GgufError> {
        self.typed(key, "an array of whole numbers of 32 bits", |value| match value {
            Value::Array(array) => array.i32s(),
            _ => None,
        })
    }

    /// An array of `f32`, `None` when the key is absent.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let found = || {
            let key = Shown(key.as_bytes()).to_string();
            Problem::KeyType { key, expected, found: value.summary() }.into()
        };
        convert(value).map(Some).ok_or_else(found)
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| Problem::MissingKey { key: Shown(key.as_bytes()).to_string() }.into())
}
