//! The rows of one forward on one stage, checked before anything is computed.

use crate::kv::{BlockTable, GroupBlocks};
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
    /// The sequence's blocks in each cache group of the model: all that the chunk reads and writes.
    pub tables: &'a [BlockTable<'a>],
}

/// What a stage can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// Blocks of each cache group.
    pub caches: Vec<GroupBlocks>,
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
    #[error("chunk {chunk} has {found} block tables, the stage has {expected} cache groups")]
    Tables { chunk: usize, expected: usize, found: usize },
    #[error(
        "chunk {chunk} reads block {most} of its sequence, its table begins with block {first}"
    )]
    TableFirst { chunk: usize, most: u32, first: u32 },
    #[error("chunk {chunk} needs {needed} blocks and its table ends with block {found}")]
    Table { chunk: usize, needed: u64, found: u64 },
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
        (0..limits.caches.len()).try_for_each(|group| check_written(chunks, group))?;
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
    let (expected, found) = (limits.caches.len(), chunk.tables.len());
    if expected != found {
        return Err(BatchError::Tables { chunk: index, expected, found });
    }
    let mut tables = chunk.tables.iter().zip(&limits.caches);
    tables.try_for_each(|(table, group)| check_table(index, (chunk.position, end), table, group))
}

/// Whether a table has what the rows from `position` to before `end` read and write.
fn check_table(
    chunk: usize,
    (position, end): (u32, u64),
    table: &BlockTable<'_>,
    group: &GroupBlocks,
) -> Result<(), BatchError> {
    let (most, first) = (group.first_read(position), table.first);
    if first > most {
        return Err(BatchError::TableFirst { chunk, most, first });
    }
    let needed = end.div_ceil(BLOCK_LEN as u64);
    let found = u64::from(first) + table.blocks.len() as u64;
    if found < needed {
        return Err(BatchError::Table { chunk, needed, found });
    }
    match table.blocks.iter().find(|block| **block >= group.count) {
        Some(&block) => Err(BatchError::Block { chunk, block, blocks: group.count }),
        None => Ok(()),
    }
}

/// Whether no block of a cache group is written twice.
fn check_written(chunks: &[ChunkRef<'_>], group: usize) -> Result<(), BatchError> {
    for (index, chunk) in chunks.iter().enumerate() {
        for (i, block) in written(chunk, group).iter().enumerate() {
            let again = written(chunk, group)[i + 1..].contains(block)
                || chunks[index + 1..].iter().any(|other| written(other, group).contains(block));
            if again {
                return Err(BatchError::WrittenTwice { block: *block });
            }
        }
    }
    Ok(())
}

/// The blocks of a cache group that a checked chunk writes to.
fn written<'a>(chunk: &ChunkRef<'a>, group: usize) -> &'a [u32] {
    let (start, end) = (chunk.position as usize, (chunk.position + chunk.token_count) as usize);
    let BlockTable { first, blocks } = chunk.tables[group];
    &blocks[start / BLOCK_LEN - first as usize..end.div_ceil(BLOCK_LEN) - first as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One cache group of 8 blocks.
    fn limits() -> BatchLimits {
        let caches = vec![GroupBlocks { window: None, count: 8 }];
        BatchLimits { ctx_size: 100, caches, rows_max: 40, chunks_max: 2 }
    }

    fn chunk<'a>(position: u32, token_count: u32, tables: &'a [BlockTable<'a>]) -> ChunkRef<'a> {
        ChunkRef { position, token_count, sample_rows: 1, tables }
    }

    #[test]
    fn a_batch_is_refused_for_each_of_its_limits() {
        let error = |chunks: &[ChunkRef<'_>]| Batch::new(chunks, &limits()).expect_err("refused");
        let table = BlockTable::whole;
        assert_eq!(error(&[]), BatchError::Chunks { count: 0, max: 2 });
        assert_eq!(error(&[chunk(0, 0, &[table(&[1])])]), BatchError::Empty { chunk: 0 });
        let many = [table(&[1])];
        let many = ChunkRef { sample_rows: 2, ..chunk(0, 1, &many) };
        assert_eq!(error(&[many]), BatchError::SampleRows { chunk: 0, rows: 2, tokens: 1 });
        let far = error(&[chunk(u32::MAX, 2, &[table(&[1])])]);
        assert!(matches!(far, BatchError::Context { .. }));
        let none = BatchError::Tables { chunk: 0, expected: 1, found: 0 };
        assert_eq!(error(&[chunk(0, 1, &[])]), none);
        let short = BatchError::Table { chunk: 0, needed: 2, found: 1 };
        assert_eq!(error(&[chunk(32, 1, &[table(&[1])])]), short);
        let outside = BatchError::Block { chunk: 0, block: 8, blocks: 8 };
        assert_eq!(error(&[chunk(0, 1, &[table(&[8])])]), outside);
        assert_eq!(error(&[chunk(0, 41, &[table(&[0, 1])])]), BatchError::Rows { max: 40 });
        let tables = [table(&[3])];
        let twice = [chunk(0, 1, &tables), chunk(0, 2, &tables)];
        assert_eq!(error(&twice), BatchError::WrittenTwice { block: 3 });
        let twice = BatchError::WrittenTwice { block: 3 };
        assert_eq!(error(&[chunk(0, 40, &[table(&[3, 3])])]), twice);
    }

    #[test]
    fn shared_blocks_may_be_read_and_sampled_rows_are_counted_from_the_end() {
        let tables = [[BlockTable::whole(&[5, 1])], [BlockTable::whole(&[5, 2])]];
        let a = ChunkRef { sample_rows: 2, ..chunk(32, 3, &tables[0]) };
        let b = chunk(32, 2, &tables[1]);
        let chunks = [a, b];
        let batch = Batch::new(&chunks, &limits()).expect("a good batch");
        assert_eq!(batch.rows(), 5);
        assert_eq!(batch.sample_rows().collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[test]
    fn the_table_of_a_window_begins_where_the_first_row_reads() {
        let windowed = GroupBlocks { window: Some(33), count: 2 };
        let mut limits = limits();
        limits.caches.push(windowed);
        let whole = BlockTable::whole(&[0, 1, 2]);
        let of_window = |first, blocks| [whole, BlockTable { first, blocks }];
        // The row at 64 reads from 32 on: the first block is left behind.
        let good = of_window(1, &[1, 0]);
        Batch::new(&[chunk(64, 2, &good)], &limits).expect("a good batch");
        let late = of_window(1, &[1]);
        let error = Batch::new(&[chunk(63, 1, &late)], &limits).expect_err("31 is read");
        assert_eq!(error, BatchError::TableFirst { chunk: 0, most: 0, first: 1 });
        let short = Batch::new(&[chunk(64, 2, &late)], &limits).expect_err("no block is written");
        assert_eq!(short, BatchError::Table { chunk: 0, needed: 3, found: 2 });
        let outside = of_window(1, &[1, 2]);
        let error = Batch::new(&[chunk(64, 2, &outside)], &limits).expect_err("of 2 blocks");
        assert_eq!(error, BatchError::Block { chunk: 0, block: 2, blocks: 2 });
        // Each group has blocks of its own.
        let other = of_window(1, &[0, 1]);
        let both = [chunk(64, 1, &good), chunk(64, 1, &other)];
        let error = Batch::new(&both, &limits).expect_err("the first group's is the same");
        assert_eq!(error, BatchError::WrittenTwice { block: 2 });
    }
}
