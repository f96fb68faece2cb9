//! The rows of one forward on one stage, checked before anything is computed.

use crate::limits::BLOCK_LEN;

/// Consecutive tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRef<'a> {
    /// Position of the first token; all before it is in the cache.
    pub position: u32,
    /// Tokens, at least 1.
    pub token_count: u32,
    /// How many of the last rows are sampled or scored.
    pub sample_rows: u32,
    /// The sequence's blocks in order of position.
    pub block_table: &'a [u32],
}

/// What a stage can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// Blocks of the cache.
    pub kv_blocks: u32,
    /// Rows of a batch.
    pub rows_max: usize,
    /// Chunks of a batch.
    pub chunks_max: usize,
}

/// Why chunks are not a batch. The sender is faulty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum BatchError {
    #[error("a batch has {count} chunks; expected 1 to {max}")]
    Chunks { count: usize, max: usize },
    #[error("a batch has more than {max} rows")]
    Rows { max: usize },
    #[error("chunk {chunk} has no token")]
    Empty { chunk: usize },
    #[error("chunk {chunk} samples {rows} rows of {tokens}")]
    SampleRows { chunk: usize, rows: u32, tokens: u32 },
    #[error("chunk {chunk} ends at position {end}, beyond the context of {ctx}")]
    Context { chunk: usize, end: u64, ctx: u32 },
    #[error("chunk {chunk} needs {needed} blocks and names {found}")]
    Table { chunk: usize, needed: usize, found: usize },
    #[error("chunk {chunk} names block {block} of {blocks}")]
    Block { chunk: usize, block: u32, blocks: u32 },
    #[error("block {block} is written twice in one batch")]
    WrittenTwice { block: u32 },
}

/// Chunks that can be computed together.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    chunks: &'a [ChunkRef<'a>],
    rows: usize,
}

impl<'a> Batch<'a> {
    /// Checks `chunks` against what the stage can take. Allocates nothing.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn new(chunks: &'a [ChunkRef<'a>], limits: &BatchLimits) -> Result<Self, BatchError> {
        if chunks.is_empty() || chunks.len() > limits.chunks_max {
            return Err(BatchError::Chunks { count: chunks.len(), max: limits.chunks_max });
        }
        let mut rows = 0usize;
        for (index, chunk) in chunks.iter().enumerate() {
            check_chunk(index, chunk, limits)?;
            rows += chunk.token_count as usize;
            if rows > limits.rows_max {
                return Err(BatchError::Rows { max: limits.rows_max });
            }
        }
        for (index, chunk) in chunks.iter().enumerate() {
            for (i, block) in written(chunk).iter().enumerate() {
                let again = written(chunk)[i + 1..].contains(block)
                    || chunks[index + 1..].iter().any(|other| written(other).contains(block));
                if again {
                    return Err(BatchError::WrittenTwice { block: *block });
                }
            }
        }
        Ok(Self { chunks, rows })
    }

    /// Its chunks, in order of rows.
    pub fn chunks(&self) -> &'a [ChunkRef<'a>] {
        self.chunks
    }

    /// Rows of all chunks.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are sampled or scored, ascending.
    pub fn sample_rows(&self) -> impl Iterator<Item = usize> + use<'a> {
        let chunks = self.chunks;
        let mut end = 0;
        chunks.iter().flat_map(move |chunk| {
            end += chunk.token_count as usize;
            end - chunk.sample_rows as usize..end
        })
    }
}

fn check_chunk(index: usize, chunk: &ChunkRef<'_>, limits: &BatchLimits) -> Result<(), BatchError> {
    let end = u64::from(chunk.position) + u64::from(chunk.token_count);
    if chunk.token_count == 0 {
        return Err(BatchError::Empty { chunk: index });
    }
    if chunk.sample_rows > chunk.token_count {
        let (rows, tokens) = (chunk.sample_rows, chunk.token_count);
        return Err(BatchError::SampleRows { chunk: index, rows, tokens });
    }
    if end > u64::from(limits.ctx_size) {
        return Err(BatchError::Context { chunk: index, end, ctx: limits.ctx_size });
    }
    let (needed, found) = ((end as usize).div_ceil(BLOCK_LEN), chunk.block_table.len());
    if found < needed {
        return Err(BatchError::Table { chunk: index, needed, found });
    }
    match chunk.block_table.iter().find(|b| **b >= limits.kv_blocks) {
        Some(block) => {
            let (block, blocks) = (*block, limits.kv_blocks);
            Err(BatchError::Block { chunk: index, block, blocks })
        }
        None => Ok(()),
    }
}

/// The blocks that a checked chunk writes to.
fn written<'a>(chunk: &ChunkRef<'a>) -> &'a [u32] {
    let (first, end) = (chunk.position as usize, (chunk.position + chunk.token_count) as usize);
    &chunk.block_table[first / BLOCK_LEN..end.div_ceil(BLOCK_LEN)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits =
        BatchLimits { ctx_size: 100, kv_blocks: 8, rows_max: 40, chunks_max: 2 };

    fn chunk(position: u32, token_count: u32, block_table: &[u32]) -> ChunkRef<'_> {
        ChunkRef { position, token_count, sample_rows: 1, block_table }
    }

    #[test]
    fn a_batch_is_refused_for_each_of_its_limits() {
        let error = |chunks: &[ChunkRef<'_>]| Batch::new(chunks, &LIMITS).expect_err("refused");
        assert_eq!(error(&[]), BatchError::Chunks { count: 0, max: 2 });
        assert_eq!(error(&[chunk(0, 0, &[1])]), BatchError::Empty { chunk: 0 });
        let many = ChunkRef { sample_rows: 2, ..chunk(0, 1, &[1]) };
        assert_eq!(error(&[many]), BatchError::SampleRows { chunk: 0, rows: 2, tokens: 1 });
        let far = chunk(u32::MAX, 2, &[1]);
        assert!(matches!(error(&[far]), BatchError::Context { .. }));
        let short = chunk(32, 1, &[1]);
        assert_eq!(error(&[short]), BatchError::Table { chunk: 0, needed: 2, found: 1 });
        let outside = chunk(0, 1, &[8]);
        assert_eq!(error(&[outside]), BatchError::Block { chunk: 0, block: 8, blocks: 8 });
        assert_eq!(error(&[chunk(0, 41, &[0, 1])]), BatchError::Rows { max: 40 });
        let twice = [chunk(0, 1, &[3]), chunk(0, 2, &[3])];
        assert_eq!(error(&twice), BatchError::WrittenTwice { block: 3 });
        assert_eq!(error(&[chunk(0, 40, &[3, 3])]), BatchError::WrittenTwice { block: 3 });
    }

    #[test]
    fn shared_blocks_may_be_read_and_sampled_rows_are_counted_from_the_end() {
        let a = ChunkRef { sample_rows: 2, ..chunk(32, 3, &[5, 1]) };
        let b = chunk(32, 2, &[5, 2]);
        let chunks = [a, b];
        let batch = Batch::new(&chunks, &LIMITS).expect("a good batch");
        assert_eq!(batch.rows(), 5);
        assert_eq!(batch.sample_rows().collect::<Vec<_>>(), [1, 2, 4]);
    }
}
