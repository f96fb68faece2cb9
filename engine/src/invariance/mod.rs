//! The same bits, whatever the stages, chunks, batch mates, threads and instruction set.
//!
//! A run computes one sequence at one point of the matrix and hashes the bits of all its logits; each
//! type of the cache has one hash. Cache and buffers are filled with NaN first, so that a slot read
//! before it was written shows as well.

mod blocks;
mod groups;
mod model;

use crate::batch::{Batch, ChunkRef};
use crate::gguf::Gguf;
use crate::kernels::Level;
use crate::kv::{BlockTable, GroupBlocks, KvType};
use crate::plan::{BLOCK_LEN, ModelLayout, window_blocks};
use crate::pool::Pool;
use crate::stage::{Input, Stage, StageConfig};
use crate::weights::{Resident, Weights};
use blocks::{BlockPool, Held};
use model::Kind;
pub use model::{Random, factor_places, weights};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One point of the matrix.
#[derive(Clone, Copy, Debug)]
struct Point {
    stages: u32,
    /// Rows of the sequence per forward; 0 is the whole of it at once.
    chunk: usize,
    /// Sequences beside it.
    beside: usize,
    threads: usize,
    kv: KvType,
    level: Level,
    bug: bool,
}

/// A sequence that is being computed.
struct Run {
    tokens: Vec<u32>,
    done: usize,
    chunk: usize,
    /// What it holds in each cache group.
    held: Vec<Held>,
}

impl Run {
    fn next(&self) -> Range<usize> {
        self.done..self.tokens.len().min(self.done + self.chunk)
    }
}

fn tokens(seed: u64, len: usize, vocab: u32) -> Vec<u32> {
    let mut random = Random(seed);
    (0..len).map(|_| (random.next() % u64::from(vocab)) as u32).collect()
}

/// The stages of the model at `path`, cut evenly.
fn stages(path: &Path, point: &Point, ctx: usize, caches: &[GroupBlocks]) -> Vec<Stage> {
    let gguf = Gguf::open(path).expect("the model opens");
    let layout = ModelLayout::new(&gguf).expect("its layout is known");
    let pool = Pool::with_level(point.threads, point.level);
    let stages = point.stages.min(layout.layers);
    (0..stages)
        .map(|i| {
            let layers = i * layout.layers / stages..(i + 1) * layout.layers / stages;
            let slices = layout.stage_slices(layers.clone());
            let weights =
                Weights::from_model(&gguf, &slices, &Resident::new()).expect("its weights map");
            let config = StageConfig {
                layers,
                ctx_size: ctx as u32,
                caches: caches.to_vec(),
                rows_max: ctx + 3 * 64,
                chunks_max: 4,
                kv_type: point.kv,
            };
            let mut stage =
                Stage::load(&gguf, weights, &config, Arc::clone(&pool)).expect("it loads");
            stage.poison();
            if point.bug {
                stage.plant_bug();
            }
            stage
        })
        .collect()
}

/// The sequences: the one that counts, and others of other lengths and chunks beside it; and the blocks
/// of each cache group, with a window no more than all of them need at once.
fn sequences(point: &Point, len: usize, layout: &ModelLayout) -> (Vec<Run>, Vec<GroupBlocks>) {
    let chunk = if point.chunk == 0 { len } else { point.chunk };
    let held = vec![Held::default(); layout.cache_groups().len()];
    let of = |tokens, chunk| Run { tokens, done: 0, chunk, held: held.clone() };
    let mut runs = vec![of(tokens(7, len, layout.vocab), chunk)];
    for i in 0..point.beside {
        let tokens = tokens(100 + i as u64, 60 + 25 * i, layout.vocab);
        runs.push(of(tokens, [1, 5, 64][i % 3]));
    }
    let per_run = len.max(110).div_ceil(Stage::BLOCK_LEN) as u64;
    let mut caches = layout.equal_caches(0);
    for group in &mut caches {
        let of_window =
            |window| window_blocks(window, chunk.max(64) as u32, BLOCK_LEN).min(per_run);
        let each = group.window.map_or(per_run, of_window);
        group.count = each as u32 * runs.len() as u32;
    }
    (runs, caches)
}

/// BLAKE3 of the logits' bits of all positions of the sequence that counts.
fn hash(path: &Path, point: Point, len: usize) -> blake3::Hash {
    let gguf = Gguf::open(path).expect("the model opens");
    let layout = ModelLayout::new(&gguf).expect("its layout is known");
    let (mut runs, caches) = sequences(&point, len, &layout);
    let mut pool = BlockPool::new(&caches);
    // The longest of the others has 110 tokens.
    let mut stages = stages(path, &point, len.max(110), &caches);
    let mut hasher = blake3::Hasher::new();
    while runs[0].done < len {
        step(&mut stages, &mut runs, &mut pool, &mut hasher);
    }
    hasher.finalize()
}

/// One forward through all stages.
fn step(stages: &mut [Stage], runs: &mut [Run], pool: &mut BlockPool, hasher: &mut blake3::Hasher) {
    let progress = AtomicU64::new(0);
    // The sequence that counts comes last, so that its rows do not start at 0.
    let order: Vec<usize> = (0..runs.len()).rev().filter(|i| !runs[*i].next().is_empty()).collect();
    for i in &order {
        let end = runs[*i].next().end;
        pool.grow(&mut runs[*i].held, end);
    }
    let tables: Vec<Vec<BlockTable<'_>>> =
        order.iter().map(|i| runs[*i].held.iter().map(Held::table).collect()).collect();
    let chunks: Vec<ChunkRef<'_>> = order
        .iter()
        .zip(&tables)
        .map(|(i, tables)| ChunkRef {
            position: runs[*i].done as u32,
            token_count: runs[*i].next().len() as u32,
            sample_rows: if *i == 0 { runs[*i].next().len() as u32 } else { 0 },
            tables,
        })
        .collect();
    let batch = Batch::new(&chunks, stages[0].limits()).expect("a good batch");
    let ids: Vec<u32> =
        order.iter().flat_map(|i| runs[*i].tokens[runs[*i].next()].to_vec()).collect();
    let mut hidden: Vec<f32> = Vec::new();
    for stage in stages.iter_mut() {
        let input = if stage.is_first() { Input::Tokens(&ids) } else { Input::Hidden(&hidden) };
        hidden = stage.forward(&batch, input, &progress).expect("it computes").to_vec();
    }
    let last = stages.last_mut().expect("at least one stage");
    last.logits(&batch, &mut |logits| {
        assert!(logits.iter().all(|l| l.is_finite()), "nothing unwritten was read");
        for logit in logits {
            hasher.update(&logit.to_bits().to_le_bytes());
        }
    })
    .expect("the last stage has logits");
    for i in order {
        runs[i].done = runs[i].next().end;
        let done = runs[i].done;
        pool.leave_behind(&mut runs[i].held, done);
    }
}

/// As [`hash`], on a thread of its own: a pool belongs to the thread that made it.
fn hash_apart(path: &Path, point: Point, len: usize) -> blake3::Hash {
    let path = path.to_owned();
    std::thread::spawn(move || hash(&path, point, len)).join().expect("the run ends well")
}

/// The hashes of all points, some computed at a time.
fn hashes(
    path: &Path,
    points: &[Point],
    len: usize,
    at_a_time: usize,
) -> Vec<(Point, blake3::Hash)> {
    let next = AtomicUsize::new(0);
    let hashes = Mutex::new(Vec::new());
    let work = || {
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hash = hash_apart(path, *point, len);
            hashes.lock().expect("no run panics while it holds the lock").push((*point, hash));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(work);
        }
    });
    hashes.into_inner().expect("all have ended")
}

/// Threads that wait for each other lose much time beside others, so only one check runs at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The one hash of all points. Those with one thread are computed two at a time.
fn check(path: &Path, points: &[Point], len: usize) -> blake3::Hash {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (alone, together): (Vec<Point>, Vec<Point>) = points.iter().partition(|p| p.threads == 1);
    let mut found = hashes(path, &alone, len, 2);
    found.extend(hashes(path, &together, len, 1));
    drop(turn);
    assert_eq!(found.len(), points.len());
    let (reference, expected) = found[0];
    for (point, hash) in found {
        assert_eq!(hash, expected, "{point:?} differs from {reference:?}");
    }
    expected
}

/// The points of all types of the cache, checked; no two types may have the same hash.
fn check_each_kv(path: &Path, points: impl Fn(KvType) -> Vec<Point>, len: usize) {
    let [halves, bytes] = KvType::ALL.map(|kv| check(path, &points(kv), len));
    assert_ne!(halves, bytes, "the type of the cache is obeyed");
}

fn plain(level: Level, kv: KvType) -> Point {
    Point { stages: 1, chunk: 0, beside: 0, threads: 1, kv, level, bug: false }
}

/// The levels that long runs are made at: all but the definition, if there are others.
fn fast_levels() -> Vec<Level> {
    let fast: Vec<Level> =
        Level::available().into_iter().filter(|level| *level != Level::SCALAR).collect();
    if fast.is_empty() { vec![Level::SCALAR] } else { fast }
}

fn synthetic(kind: Kind) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the model");
    let path = folder.path().join("every-format.gguf");
    model::write(&path, kind);
    (folder, path)
}

/// 1,100 positions: more than one range of the attention, and not a multiple of a block.
const LEN: usize = 1100;

/// Of all combinations those that together have every choice of three dimensions (halves) or of two
/// (bytes).
fn matrix(kv: KvType) -> Vec<Point> {
    let mut points = Vec::new();
    for stages in [1, 2, 3] {
        for (c, chunk) in [0, 1, 7, 32].into_iter().enumerate() {
            for (b, beside) in [0, 3].into_iter().enumerate() {
                let wanted = kv == KvType::F16 || b == (stages + c) % 2;
                let threads = match kv {
                    KvType::F16 => 1 + (stages + c + b) % 2,
                    KvType::Q8_0 => 1 + (stages + c / 2) % 2,
                };
                let stages = stages as u32;
                let point = Point { stages, chunk, beside, threads, ..plain(Level::best(), kv) };
                points.extend(wanted.then_some(point));
            }
        }
    }
    assert_eq!(points.len(), if kv == KvType::F16 { 24 } else { 12 });
    points
}

#[test]
fn matrix_of_stages_chunks_batch_mates_and_threads_has_one_hash_per_kv_type() {
    let (_folder, path) = synthetic(Kind::Dense);
    check_each_kv(&path, matrix, LEN);
}

#[test]
fn the_matrix_of_a_mixture_has_one_hash_per_kv_type() {
    let (_folder, path) = synthetic(Kind::Mixture);
    check_each_kv(&path, matrix, 200);
}

#[test]
fn every_instruction_set_has_the_hash_of_the_scalar_one() {
    let points = |levels: &[Level], chunks: &[usize], kv| {
        let at =
            |level| chunks.iter().map(move |chunk| Point { chunk: *chunk, ..plain(level, kv) });
        levels.iter().flat_map(|level| at(*level)).collect::<Vec<_>>()
    };
    for kind in [Kind::Mixture, Kind::Dense] {
        let (_folder, path) = synthetic(kind);
        check_each_kv(&path, |kv| points(&Level::available(), &[0, 1, 7], kv), 40);
    }
    let (_folder, path) = synthetic(Kind::Dense);
    // Beyond the first range of the attention; the scalar level would take minutes for that.
    check_each_kv(&path, |kv| points(&fast_levels(), &[32], kv), LEN);
}

#[test]
fn a_planted_bug_turns_the_matrix_red() {
    let points =
        |bug| [0, 1, 7].map(|chunk| Point { bug, chunk, ..plain(Level::best(), KvType::F16) });
    for kind in [Kind::Mixture, Kind::Dense] {
        let (_folder, path) = synthetic(kind);
        let red = std::panic::catch_unwind(|| check(&path, &points(true), 20));
        assert!(red.is_err(), "tiles of several tokens are wrong, single ones are right");
        // Without the bug the same points agree.
        check(&path, &points(false), 20);
    }
}

/// Eight corners of the matrix for real models.
fn eight_corners(level: Level, kv: KvType) -> [Point; 8] {
    let plain = plain(level, kv);
    [
        plain,
        Point { threads: 2, ..plain },
        Point { chunk: 1, ..plain },
        Point { chunk: 1, beside: 3, stages: 2, ..plain },
        Point { chunk: 7, stages: 3, threads: 2, ..plain },
        Point { chunk: 32, beside: 3, ..plain },
        Point { beside: 3, stages: 2, threads: 2, ..plain },
        Point { chunk: 32, stages: 3, ..plain },
    ]
}

/// The corners at every level with `len` positions; the scalar one with `few`, because it is slow.
fn corners(path: &Path, len: usize, few: usize) {
    let all = |kv| fast_levels().iter().flat_map(|level| eight_corners(*level, kv)).collect();
    check_each_kv(path, all, len);
    let scalar = |kv| {
        let at = |level| [plain(level, kv), Point { chunk: 7, stages: 3, ..plain(level, kv) }];
        [Level::SCALAR, Level::best()].into_iter().flat_map(at).collect()
    };
    check_each_kv(path, scalar, few);
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name)
}

#[test]
fn eight_corners_of_granite_tiny_have_one_hash_per_kv_type() {
    corners(&fixture("granite-tiny.gguf"), 300, 70);
}

#[test]
fn eight_corners_of_every_tiny_family_have_one_hash_per_kv_type() {
    for model in ["tiny-qwen2", "tiny-qwen3", "tiny-yarn", "tiny-granitemoe-shared", "tiny-gpt-oss"]
    {
        corners(&fixture(&format!("{model}.gguf")), 70, 70);
    }
}

#[test]
fn eight_corners_of_every_kind_of_layer_have_one_hash_per_kv_type() {
    // Norms after and two rotations; fused matrices; part of a head rotated, biases; norms of whole rows;
    // groups of experts; norms after the rotation.
    for model in ["gemma3", "phi3", "glm4moe", "minimax-m2", "bailingmoe2", "hunyuan-moe"] {
        corners(&fixture(&format!("tiny-{model}.gguf")), 70, 40);
    }
}

#[test]
fn eight_corners_of_smollm2_have_one_hash_per_kv_type() {
    let script = fixture("../../scripts/fetch_model.sh");
    let output = std::process::Command::new("bash").arg(script).output().expect("bash runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the model could not be fetched: {errors}");
    let path = String::from_utf8(output.stdout).expect("a path");
    corners(Path::new(path.trim_end()), 70, 12);
}

/// If the folder that `WOOLLY_TEST_MODELS` names has it.
#[test]
fn eight_corners_of_qwen_have_one_hash_per_kv_type_where_it_is() {
    let Some(folder) = std::env::var_os("WOOLLY_TEST_MODELS").map(PathBuf::from) else { return };
    let path = folder.join("qwen2.5-coder-1.5b-q4_k_m.gguf");
    if path.exists() {
        corners(&path, 20, 8);
    }
}
