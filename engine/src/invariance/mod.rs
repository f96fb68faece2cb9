//! The same bits, whatever the stages, chunks, batch mates, threads and instruction set.
//!
//! A run computes one sequence at one point of the matrix and hashes the bits of all its logits. Cache
//! and buffers are filled with NaN first, so that a slot read before it was written shows as well.

mod model;

use crate::batch::{Batch, ChunkRef};
use crate::gguf::Gguf;
use crate::gguf::mapped::Weights;
use crate::kernels::Level;
use crate::kv::KvType;
use crate::plan::ModelLayout;
use crate::pool::Pool;
use crate::stage::{Input, Stage, StageConfig};
pub use model::{Random, factor_places, weights};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One point of the matrix.
#[derive(Clone, Copy, Debug)]
struct Point {
    stages: u32,
    /// Rows of the sequence per forward; 0 is the whole of it at once.
    chunk: usize,
    /// Sequences beside it.
    beside: usize,
    threads: usize,
    level: Level,
    bug: bool,
}

/// A sequence that is being computed.
struct Run {
    tokens: Vec<u32>,
    done: usize,
    chunk: usize,
    table: Vec<u32>,
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
fn stages(path: &Path, point: &Point, ctx: usize, blocks: usize) -> Vec<Stage> {
    let gguf = Gguf::open(path).expect("the model opens");
    let layout = ModelLayout::new(&gguf).expect("its layout is known");
    let pool = Pool::with_level(point.threads, point.level);
    let stages = point.stages.min(layout.layers);
    (0..stages)
        .map(|i| {
            let layers = i * layout.layers / stages..(i + 1) * layout.layers / stages;
            let slices = layout.stage_slices(layers.clone());
            let weights = Weights::from_model(&gguf, &slices).expect("its weights map");
            let config = StageConfig {
                layers,
                ctx_size: ctx as u32,
                kv_blocks: blocks as u32,
                rows_max: ctx + 3 * 64,
                chunks_max: 4,
                kv_type: KvType::F16,
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

/// The sequences: the one that counts, and others of other lengths and chunks beside it. Their
/// blocks are interleaved and not in order.
fn sequences(point: &Point, len: usize, vocab: u32) -> (Vec<Run>, usize) {
    let chunk = if point.chunk == 0 { len } else { point.chunk };
    let mut runs = vec![Run { tokens: tokens(7, len, vocab), done: 0, chunk, table: Vec::new() }];
    for i in 0..point.beside {
        let tokens = tokens(100 + i as u64, 60 + 25 * i, vocab);
        runs.push(Run { tokens, done: 0, chunk: [1, 5, 64][i % 3], table: Vec::new() });
    }
    let per_run = len.max(110).div_ceil(Stage::BLOCK_LEN);
    let blocks = per_run * runs.len();
    for (i, run) in runs.iter_mut().enumerate() {
        run.table =
            (0..per_run).map(|b| (blocks - 1 - (b * (point.beside + 1) + i)) as u32).collect();
    }
    (runs, blocks)
}

/// BLAKE3 of the logits' bits of all positions of the sequence that counts.
fn hash(path: &Path, point: Point, len: usize) -> blake3::Hash {
    let vocab = {
        let gguf = Gguf::open(path).expect("the model opens");
        ModelLayout::new(&gguf).expect("its layout is known").vocab
    };
    let (mut runs, blocks) = sequences(&point, len, vocab);
    // The longest of the others has 110 tokens.
    let mut stages = stages(path, &point, len.max(110), blocks);
    let mut hasher = blake3::Hasher::new();
    while runs[0].done < len {
        step(&mut stages, &mut runs, &mut hasher);
    }
    hasher.finalize()
}

/// One forward through all stages.
fn step(stages: &mut [Stage], runs: &mut [Run], hasher: &mut blake3::Hasher) {
    let progress = AtomicU64::new(0);
    // The sequence that counts comes last, so that its rows do not start at 0.
    let order: Vec<usize> = (0..runs.len()).rev().filter(|i| !runs[*i].next().is_empty()).collect();
    let chunks: Vec<ChunkRef<'_>> = order
        .iter()
        .map(|i| ChunkRef {
            position: runs[*i].done as u32,
            token_count: runs[*i].next().len() as u32,
            sample_rows: if *i == 0 { runs[*i].next().len() as u32 } else { 0 },
            block_table: &runs[*i].table,
        })
        .collect();
    let batch = Batch::new(&chunks, stages[0].limits()).expect("a good batch");
    let ids: Vec<u32> =
        order.iter().flat_map(|i| runs[*i].tokens[runs[*i].next()].to_vec()).collect();
    let mut hidden: Vec<f32> = Vec::new();
    for stage in stages.iter_mut() {
        let input = match stage.is_first() {
            true => Input::Tokens(&ids),
            false => Input::Hidden(&hidden),
        };
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
    }
}

/// As [`hash`], on a thread of its own: a pool belongs to the thread that made it.
fn hash_apart(path: &Path, point: Point, len: usize) -> blake3::Hash {
    let path = path.to_owned();
    std::thread::spawn(move || hash(&path, point, len)).join().expect("the run ends well")
}

const PLAIN: Point =
    Point { stages: 1, chunk: 0, beside: 0, threads: 1, level: Level::SCALAR, bug: false };

/// All points have one hash; two are computed at a time.
fn check(path: &Path, points: &[Point], len: usize) {
    let next = AtomicUsize::new(0);
    let hashes = Mutex::new(Vec::new());
    let work = || {
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hash = hash_apart(path, *point, len);
            hashes.lock().expect("no run panics while it holds the lock").push((*point, hash));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let hashes = hashes.into_inner().expect("both have ended");
    assert_eq!(hashes.len(), points.len());
    let (reference, expected) = hashes[0];
    for (point, hash) in hashes {
        assert_eq!(hash, expected, "{point:?} differs from {reference:?}");
    }
}

fn synthetic() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the model");
    let path = folder.path().join("every-format.gguf");
    model::write(&path);
    (folder, path)
}

/// 1,100 positions: more than one range of the attention, and not a multiple of a block.
const LEN: usize = 1100;

#[test]
fn matrix_of_stages_chunks_batch_mates_and_threads_has_one_hash() {
    let (_folder, path) = synthetic();
    let mut points = Vec::new();
    for stages in [1, 2, 3] {
        for chunk in [0, 1, 7, 32] {
            for beside in [0, 3] {
                for threads in [1, 2] {
                    let level = Level::best();
                    points.push(Point { stages, chunk, beside, threads, level, bug: false });
                }
            }
        }
    }
    check(&path, &points, LEN);
}

#[test]
fn every_instruction_set_has_the_hash_of_the_scalar_one() {
    let (_folder, path) = synthetic();
    let points = Level::available()
        .into_iter()
        .flat_map(|level| [0, 7].map(|chunk| Point { level, chunk, ..PLAIN }))
        .collect::<Vec<_>>();
    check(&path, &points, 150);
    // Beyond the first range of the attention; the scalar level would take minutes for that.
    let vectors: Vec<Point> = points.into_iter().filter(|p| p.level != Level::SCALAR).collect();
    check(&path, &vectors, LEN);
}

#[test]
fn a_planted_bug_turns_the_matrix_red() {
    let (_folder, path) = synthetic();
    let level = Level::best();
    let points = [0, 1, 7].map(|chunk| Point { bug: true, chunk, level, ..PLAIN });
    let red = std::panic::catch_unwind(|| check(&path, &points, 60));
    assert!(red.is_err(), "tiles of several tokens are wrong, single ones are right");
    // Without the bug the same points agree.
    check(&path, &points.map(|point| Point { bug: false, ..point }), 60);
}

/// Eight named corners of the matrix for real models.
fn corners(path: &Path, len: usize) {
    let level = Level::best();
    let named = [
        ("whole, alone, one stage, one thread", Point { level, ..PLAIN }),
        ("whole, two threads", Point { level, threads: 2, ..PLAIN }),
        ("token by token", Point { level, chunk: 1, ..PLAIN }),
        (
            "token by token beside others, two stages",
            Point { level, chunk: 1, beside: 3, stages: 2, ..PLAIN },
        ),
        (
            "chunks of 7, three stages, two threads",
            Point { level, chunk: 7, stages: 3, threads: 2, ..PLAIN },
        ),
        ("chunks of 32 beside others", Point { level, chunk: 32, beside: 3, ..PLAIN }),
        (
            "whole beside others, two stages, two threads",
            Point { level, beside: 3, stages: 2, threads: 2, ..PLAIN },
        ),
        (
            "chunks of 32, lowest instruction set, three stages",
            Point { chunk: 32, stages: 3, ..PLAIN },
        ),
    ];
    let mut expected = None;
    for (name, point) in named {
        let hash = hash_apart(path, point, len);
        assert_eq!(*expected.get_or_insert(hash), hash, "corner: {name}");
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name)
}

#[test]
fn eight_corners_of_granite_tiny_have_one_hash() {
    corners(&fixture("granite-tiny.gguf"), 300);
}

#[test]
fn eight_corners_of_every_tiny_family_have_one_hash() {
    for model in ["tiny-qwen2", "tiny-qwen3", "tiny-yarn"] {
        corners(&fixture(&format!("{model}.gguf")), 70);
    }
}

#[test]
fn eight_corners_of_smollm2_have_one_hash() {
    let script = fixture("../../scripts/fetch_model.sh");
    let output = std::process::Command::new("bash").arg(script).output().expect("bash runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the model could not be fetched: {errors}");
    let path = String::from_utf8(output.stdout).expect("a path");
    corners(Path::new(path.trim_end()), 70);
}

/// If the folder that `WOOLLY_TEST_MODELS` names has it.
#[test]
fn eight_corners_of_qwen_have_one_hash_where_it_is() {
    let Some(folder) = std::env::var_os("WOOLLY_TEST_MODELS").map(PathBuf::from) else { return };
    let path = folder.join("qwen2.5-coder-1.5b-q4_k_m.gguf");
    if path.exists() {
        corners(&path, 20);
    }
}
