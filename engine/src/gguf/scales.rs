//! Scales of weights that stand for no number: MXFP4 has one of them, 255. Found in bytes that are in memory,
//! or in a model's files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{Gguf, TensorInfo};
use crate::quant::TensorType;

/// Blocks that are read from a file at once.
const BLOCKS_AT_ONCE: usize = 1 << 16;
/// The exponent of all ones.
const NO_NUMBER: u8 = u8::MAX;

/// A scale that stands for no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tensor {tensor} has the scale 255 in its MXFP4 block {block}, which stands for no number; expected 0 to \
     254: the file is damaged or was converted wrongly"
)]
pub struct WrongScale {
    /// Name of the tensor.
    pub tensor: String,
    /// The first such block.
    pub block: u64,
}

/// The first block of a tensor of this type whose scale stands for no number.
pub(crate) fn wrong_block(ty: TensorType, bytes: &[u8]) -> Option<usize> {
    if ty != TensorType::MXFP4 {
        return None;
    }
    bytes.chunks_exact(ty.block_bytes()).position(|block| block[0] == NO_NUMBER)
}

impl Gguf {
    /// Whether scales of some of its tensors may stand for no number: it costs reading them to know.
    pub fn may_have_wrong_scales(&self) -> bool {
        self.tensors().iter().any(|tensor| tensor.ty == TensorType::MXFP4)
    }

    /// Reads the tensors that have such scales, and returns the first of each that stands for no number.
    /// Blocks for as long as reading their bytes takes.
    ///
    /// # Errors
    /// A file that cannot be read, or of which only the header came.
    pub fn wrong_scales(&self) -> io::Result<Vec<WrongScale>> {
        let mut found = Vec::new();
        for (index, part) in self.parts().iter().enumerate() {
            let of_part =
                |tensor: &&TensorInfo| tensor.part == index && tensor.ty == TensorType::MXFP4;
            let mut tensors = self.tensors().iter().filter(of_part).peekable();
            if tensors.peek().is_none() {
                continue;
            }
            let path = part.path.as_deref().ok_or(io::ErrorKind::NotFound)?;
            let file = File::open(path)?;
            for tensor in tensors {
                if let Some(block) = wrong_block_in(&file, tensor)? {
                    found.push(WrongScale { tensor: tensor.name.clone(), block });
                }
            }
        }
        Ok(found)
    }
}

fn wrong_block_in(file: &File, tensor: &TensorInfo) -> io::Result<Option<u64>> {
    let block_bytes = tensor.ty.block_bytes();
    let mut buffer = vec![0; BLOCKS_AT_ONCE * block_bytes];
    let mut at = 0;
    while at < tensor.len {
        let len = usize::try_from(tensor.len - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..len], tensor.offset + at)?;
        if let Some(block) = wrong_block(tensor.ty, &buffer[..len]) {
            return Ok(Some(at / block_bytes as u64 + block as u64));
        }
        at += len as u64;
    }
    Ok(None)
}
