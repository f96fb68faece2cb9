//! Numbers of one architecture's metadata, each held against its range. Knows no key.

use std::ops::RangeInclusive;

use crate::gguf::{Array, GgufError, Metadata, Problem, Value};

/// Metadata under the prefix of one architecture.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) architecture: &'a str,
}

impl Keys<'_> {
    /// The whole name of a key.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Whether the file has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.metadata.get(&self.name(key)).is_some()
    }

    /// The error of a key that must be there.
    pub(super) fn missing(&self, key: &str) -> GgufError {
        Problem::MissingKey { key: self.name(key) }.into()
    }

    /// The error of a value that is not `expected`.
    pub(super) fn refuse(&self, key: &str, expected: String, found: impl ToString) -> GgufError {
        Problem::KeyValue { key: self.name(key), expected, found: found.to_string() }.into()
    }

    /// A whole number in `range`.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<u32, GgufError> {
        self.opt_number(key, range)?.ok_or_else(|| self.missing(key))
    }

    /// As [`number`](Self::number), `None` if there is no such key.
    pub(super) fn opt_number(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, GgufError> {
        let found = self.metadata.opt_u32(&self.name(key))?;
        found.map(|found| self.in_range(key, found, range)).transpose()
    }

    fn in_range(
        &self,
        key: &str,
        found: u32,
        range: RangeInclusive<u32>,
    ) -> Result<u32, GgufError> {
        if range.contains(&found) {
            return Ok(found);
        }
        let expected = format!("{} to {}", range.start(), range.end());
        Err(self.refuse(key, expected, found))
    }

    /// A number that is one value, or an array with that value for each of the layers.
    pub(super) fn per_layer(
        &self,
        key: &str,
        layers: u32,
        range: RangeInclusive<u32>,
    ) -> Result<u32, GgufError> {
        let name = self.name(key);
        let Some(Value::Array(array)) = self.metadata.get(&name) else {
            return self.number(key, range);
        };
        if array.len() != layers as usize || matches!(array, Array::Bools(_)) {
            let expected = format!("one number, or one for each of the {layers} layers");
            let found = Value::Array(array.clone()).summary();
            return Err(self.refuse(key, expected, found));
        }
        let values = self.metadata.opt_i32s(&name)?.ok_or_else(|| self.missing(key))?;
        let first = values[0];
        if let Some(other) = values.iter().find(|&&value| value != first) {
            let expected = "the same number for every layer".to_owned();
            return Err(self.refuse(key, expected, format!("{first} and {other}")));
        }
        let expected = format!("{} to {}", range.start(), range.end());
        let found = u32::try_from(first).map_err(|_| self.refuse(key, expected, first))?;
        self.in_range(key, found, range)
    }

    /// A finite number.
    pub(super) fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.metadata.opt_f32(&self.name(key))? {
            Some(x) if !x.is_finite() => Err(self.refuse(key, "a finite number".to_owned(), x)),
            x => Ok(x),
        }
    }

    /// A number above 0, up to `max`.
    pub(super) fn positive(&self, key: &str, max: f32) -> Result<Option<f32>, GgufError> {
        match self.metadata.opt_f32(&self.name(key))? {
            Some(x) if !(x > 0.0 && x <= max) => {
                Err(self.refuse(key, format!("a number above 0, up to {max}"), x))
            }
            x => Ok(x),
        }
    }
}
