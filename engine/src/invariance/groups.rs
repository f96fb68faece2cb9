//! Each kind of layer for a sequence that is computed again from its start, and for one that begins with
//! another's prefix. Layers with a window keep few blocks, and the bits are those of a cache that keeps all.

use super::blocks::{BlockPool, Held};
use super::{Point, fixture, plain, stages, tokens};
use crate::batch::{Batch, ChunkRef};
use crate::gguf::Gguf;
use crate::kernels::Level;
use crate::kv::{BlockTable, GroupBlocks, KvType};
use crate::plan::{BLOCK_LEN, ModelLayout, window_blocks};
use crate::stage::{Input, Stage};
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// Models with layers of every kind; the first two have windows of 32.
const MODELS: [&str; 8] = [
    "tiny-gpt-oss",
    "tiny-gemma3",
    "tiny-granitemoe-shared",
    "tiny-phi3",
    "tiny-glm4moe",
    "tiny-minimax-m2",
    "tiny-bailingmoe2",
    "tiny-hunyuan-moe",
];
const WINDOWED: &[&str] = MODELS.split_at(2).0;
const LEN: usize = 210;
/// Extents of the prefix that is shared.
const SHARED: usize = 4;

struct Model {
    stages: Vec<Stage>,
    pool: BlockPool,
    caches: Vec<GroupBlocks>,
    tokens: Vec<u32>,
}

impl Model {
    /// With blocks of a window for two sequences in chunks of up to `rows`, or for all positions.
    fn new(name: &str, point: Point, rows: usize, keeps_all: bool) -> Self {
        let path = fixture(&format!("{name}.gguf"));
        let layout = ModelLayout::new(&Gguf::open(&path).expect("it opens")).expect("known");
        let mut caches = layout.equal_caches(2 * LEN.div_ceil(32) as u32);
        let windows = caches.iter().filter(|group| group.window == Some(32)).count();
        assert_eq!(windows, usize::from(WINDOWED.contains(&name)));
        for group in &mut caches {
            let Some(window) = group.window.filter(|_| !keeps_all) else { continue };
            let most = window_blocks(window, rows as u32, BLOCK_LEN).min(LEN.div_ceil(32) as u64);
            group.count = 2 * most as u32;
        }
        let stages = stages(&path, &point, LEN, &caches);
        let tokens = tokens(9, LEN, layout.vocab);
        Self { stages, pool: BlockPool::new(&caches), caches, tokens }
    }

    /// The bits of the logits of these positions, computed together.
    fn rows(&mut self, held: &mut [Held], rows: Range<usize>) -> Vec<u32> {
        self.pool.grow(held, rows.end);
        let tables: Vec<BlockTable<'_>> = held.iter().map(Held::table).collect();
        let count = rows.len() as u32;
        let chunk = ChunkRef {
            position: rows.start as u32,
            token_count: count,
            sample_rows: count,
            tables: &tables,
        };
        let chunks = [chunk];
        let batch = Batch::new(&chunks, self.stages[0].limits()).expect("a good batch");
        let mut hidden: Vec<f32> = Vec::new();
        for stage in &mut self.stages {
            let tokens = Input::Tokens(&self.tokens[rows.clone()]);
            let input = if stage.is_first() { tokens } else { Input::Hidden(&hidden) };
            hidden = stage.forward(&batch, input, &AtomicU64::new(0)).expect("computes").to_vec();
        }
        let mut bits = Vec::new();
        let last = self.stages.last_mut().expect("a stage");
        let mut add = |logits: &[f32]| bits.extend(logits.iter().map(|logit| logit.to_bits()));
        last.logits(&batch, &mut add).expect("the last stage has logits");
        bits
    }

    /// The same, in chunks, giving back what a window leaves behind.
    fn chunks(&mut self, held: &mut [Held], rows: Range<usize>, chunk: usize) -> Vec<u32> {
        let mut bits = Vec::new();
        for start in rows.clone().step_by(chunk) {
            let end = rows.end.min(start + chunk);
            bits.extend(self.rows(held, start..end));
            self.pool.leave_behind(held, end);
        }
        bits
    }

    fn nothing(&self) -> Vec<Held> {
        vec![Held::default(); self.caches.len()]
    }
}

/// What a sequence holds that begins with the first `end` positions of another: all blocks of them,
/// and of a window those that the next row reads. The other goes on without them.
fn prefix_of(held: &[Held], caches: &[GroupBlocks], end: usize) -> Vec<Held> {
    let prefix = held.iter().zip(caches).map(|(held, group)| {
        let first = group.first_read(end as u32);
        let blocks = first - held.first..end as u32 / BLOCK_LEN - held.first;
        let blocks = held.blocks[blocks.start as usize..blocks.end as usize].to_vec();
        Held { first, blocks }
    });
    prefix.collect()
}

#[test]
fn what_was_preempted_has_the_bits_of_what_was_not_and_windows_those_of_a_cache_that_keeps_all() {
    for (name, kv) in MODELS.iter().flat_map(|name| KvType::ALL.map(|kv| (name, kv))) {
        let point = plain(Level::best(), kv);
        let mut whole = Model::new(name, point, LEN, true);
        let mut held = whole.nothing();
        let expected = whole.rows(&mut held, 0..LEN);
        let row = expected.len() / LEN;
        for (chunk, stages) in [(1, 1), (7, 2), (32, 1), (LEN, 3)] {
            let mut model = Model::new(name, Point { stages, ..point }, chunk, false);
            // Preempted half-way: all blocks go back, and it begins again.
            let mut held = model.nothing();
            let half = LEN / 2;
            let first = model.chunks(&mut held, 0..half, chunk);
            assert!(first == expected[..half * row], "{name}, chunks of {chunk}");
            model.pool.take_back(&mut held);
            // What others leave there is not what was there before.
            let mut other = model.nothing();
            model.tokens.reverse();
            model.chunks(&mut other, 0..half, chunk);
            model.tokens.reverse();
            model.pool.take_back(&mut other);
            let again = model.chunks(&mut held, 0..LEN, chunk);
            assert!(again == expected, "{name} in chunks of {chunk} on {stages} stages, resumed");
        }
    }
}

#[test]
fn after_a_prefix_the_bits_are_the_same_and_a_window_needs_its_last_positions_only() {
    let point = plain(Level::best(), KvType::F16);
    for name in MODELS {
        let mut whole = Model::new(name, point, LEN, true);
        let mut held = whole.nothing();
        let expected = whole.rows(&mut held, 0..LEN);
        let row = expected.len() / LEN;
        let end = SHARED * BLOCK_LEN as usize;
        for chunk in [1, 7, 32] {
            let mut model = Model::new(name, point, chunk, false);
            let mut first = model.nothing();
            model.chunks(&mut first, 0..end, chunk);
            let mut second = prefix_of(&first, &model.caches, end);
            let left_behind = second.iter().any(|held| held.first > 0);
            assert_eq!(left_behind, WINDOWED.contains(&name), "{name}");
            let rest = model.chunks(&mut second, end..LEN, chunk);
            assert!(rest == expected[end * row..], "{name} in chunks of {chunk} after a prefix");
        }
    }
}
