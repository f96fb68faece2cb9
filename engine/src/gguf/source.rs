//! Bytes of a header, read in order and never past a limit.

use std::fmt;
use std::io::{ErrorKind, Read};

use super::error::{GgufError, Problem, Shown};
use super::limits::HEADER_BYTES_MAX;

/// What is being read, for errors. Built for free, written out only when something is wrong.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Magic,
    Version,
    TensorCount,
    PairCount,
    /// The key of the pair with this index.
    Key(u64),
    /// The value of the pair with this key.
    Value(&'a str),
    /// The name of the tensor with this index.
    TensorName(u64),
    /// The shape, type or offset of the tensor of this name.
    Tensor(&'a str),
    /// The zeros between the header and tensor data.
    Padding,
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "the magic"),
            Self::Version => write!(f, "the version"),
            Self::TensorCount => write!(f, "the number of tensors"),
            Self::PairCount => write!(f, "the number of metadata pairs"),
            Self::Key(index) => write!(f, "the key of metadata pair {index}"),
            Self::Value(key) => write!(f, "metadata key \"{}\"", Shown(key.as_bytes())),
            Self::TensorName(index) => write!(f, "the name of tensor {index}"),
            Self::Padding => write!(f, "the padding behind the header"),
            Self::Tensor(name) => write!(f, "the table entry of tensor \"{name}\""),
        }
    }
}

/// A reader that knows how many bytes can still come, so that lengths are checked before memory is
/// taken for them.
pub(super) struct Source<'a> {
    read: &'a mut dyn Read,
    /// Bytes read so far.
    position: u64,
    /// Bytes that the file has.
    file_len: u64,
    /// Bytes that may be read: the file's, or what is left of the limit on headers.
    end: u64,
}

impl<'a> Source<'a> {
    /// Reads from `read`, which holds `file_len` bytes; headers before it took `used` bytes.
    pub(super) fn new(read: &'a mut dyn Read, file_len: u64, used: u64) -> Self {
        let end = file_len.min(HEADER_BYTES_MAX.saturating_sub(used));
        Self { read, position: 0, file_len, end }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that can still be read.
    pub(super) fn left(&self) -> u64 {
        self.end - self.position
    }

    /// Refuses `needed` more bytes if they cannot come.
    pub(super) fn expect(&self, needed: u64, what: What<'_>) -> Result<(), GgufError> {
        if needed <= self.left() {
            return Ok(());
        }
        let past_limit = self.end < self.file_len
            && self.position.checked_add(needed).is_some_and(|end| end <= self.file_len);
        Err(if past_limit {
            let what = format!("the length of the header up to {what}");
            let found = self.position.saturating_add(needed);
            Problem::Limit { what, found, limit: self.end }.into()
        } else {
            let left = self.file_len - self.position;
            Problem::TooLong { what: what.to_string(), needed, left }.into()
        })
    }

    fn fill(&mut self, bytes: &mut [u8], what: What<'_>) -> Result<(), GgufError> {
        let needed = bytes.len() as u64;
        if needed > self.left() {
            // Numbers run into the end of a file that was cut; lengths were checked with `expect`.
            self.expect(needed, what).map_err(|error| match error.problem() {
                Problem::TooLong { .. } => self.truncated(self.file_len, what),
                _ => error,
            })?;
        }
        self.read.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.truncated(self.position, what),
            _ => Problem::Io(error).into(),
        })?;
        self.position += needed;
        Ok(())
    }

    fn truncated(&self, at: u64, what: What<'_>) -> GgufError {
        Problem::Truncated { at, what: what.to_string() }.into()
    }

    fn array<const N: usize>(&mut self, what: What<'_>) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// The next four bytes as they are.
    pub(super) fn four(&mut self, what: What<'_>) -> Result<[u8; 4], GgufError> {
        self.array(what)
    }

    /// The next number.
    pub(super) fn u32(&mut self, what: What<'_>) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// The next number.
    pub(super) fn u64(&mut self, what: What<'_>) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// The next `len` bytes. Takes memory only for bytes that the file has.
    pub(super) fn bytes(&mut self, len: u64, what: What<'_>) -> Result<Vec<u8>, GgufError> {
        self.expect(len, what)?;
        let len = usize::try_from(len).expect("a header fits into memory");
        let mut bytes = vec![0; len];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// The next `len` bytes, whether all of them are zeros.
    pub(super) fn zeros(&mut self, len: u64, what: What<'_>) -> Result<bool, GgufError> {
        let mut bytes = vec![0; usize::try_from(len).expect("padding is short")];
        self.fill(&mut bytes, what)?;
        Ok(bytes.iter().all(|&byte| byte == 0))
    }

    /// A string: its length, at most `limit`, then its bytes.
    pub(super) fn string(&mut self, limit: u64, what: What<'_>) -> Result<String, GgufError> {
        let len = self.u64(what)?;
        self.expect(len, what)?;
        if len > limit {
            let what = format!("the length of {what}");
            return Err(Problem::Limit { what, found: len, limit }.into());
        }
        String::from_utf8(self.bytes(len, what)?).map_err(|error| {
            let found = Shown(error.as_bytes()).to_string();
            Problem::NotUtf8 { what: what.to_string(), found }.into()
        })
    }
}
