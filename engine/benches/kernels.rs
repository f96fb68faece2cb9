//! Kernels in the cache, on one core: `cargo bench -p woolly-engine --bench kernels`, with `-- FILTER`
//! for some of them.
//!
//! Criterion prints times and rates. A table of cycles follows it: the clock is measured by a chain of
//! dependent multiplications, three cycles each on every current processor and one for an or, beside
//! each figure.

use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use std::time::Instant;
use woolly_engine::kernels::Level;
use woolly_engine::kernels::activations::{Activations, Forms};
use woolly_engine::kernels::matmul::{Product, matmul};
use woolly_engine::kernels::matrix::Matrix;
use woolly_engine::pool::Pool;
use woolly_engine::quant::TensorType;

/// Weights of every format: what fits the second-level cache.
const ROWS: usize = 64;
const COLS: usize = 4096;
/// Tokens: one, few, and many.
const TOKENS: [usize; 5] = [1, 4, 8, 96, 480];

/// One product: weights, activations, outputs.
struct Case {
    ty: TensorType,
    bytes: Vec<u8>,
    activations: Activations,
    out: Vec<f32>,
}

impl Case {
    fn new(pool: &Pool, ty: TensorType, tokens: usize) -> Self {
        // Factors below 2, so that no sum grows without limit.
        let bytes = (0..ROWS * ty.row_bytes(COLS)).map(|i| ((i * 7919) >> 3) as u8 & 0x3f);
        let mut activations = Activations::new(tokens, COLS, Forms::of(ty));
        fill(pool, &mut activations, tokens, Forms::of(ty));
        Self { ty, bytes: bytes.collect(), activations, out: vec![0.0; tokens * ROWS] }
    }

    fn run(&mut self, pool: &Pool) {
        let matrix = Matrix { ty: self.ty, rows: ROWS, cols: COLS, bytes: &self.bytes };
        matmul(pool, &self.activations, [Product::new(matrix, &mut self.out)]);
    }
}

fn fill(pool: &Pool, activations: &mut Activations, tokens: usize, forms: Forms) {
    activations.fill(pool, (tokens, COLS), forms, &|row, columns, out| {
        for (out, column) in out.iter_mut().zip(columns) {
            *out = ((row * 31 + column * 17) % 101) as f32 - 50.0;
        }
    });
}

fn vector_levels() -> impl Iterator<Item = Level> {
    Level::available().into_iter().filter(|level| *level != Level::SCALAR)
}

fn products(criterion: &mut Criterion) {
    for level in vector_levels() {
        let pool = Pool::with_level(1, level);
        for ty in TensorType::ALL {
            let mut group = criterion.benchmark_group(format!("product/{}/{ty}", level.name()));
            for tokens in TOKENS {
                let mut case = Case::new(&pool, ty, tokens);
                group.throughput(Throughput::Elements((ROWS * COLS * tokens) as u64));
                group.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
                    bencher.iter(|| case.run(&pool));
                });
            }
        }
    }
}

fn quantising(criterion: &mut Criterion) {
    let pool = Pool::with_level(1, Level::best());
    let mut group = criterion.benchmark_group("quantise");
    group.throughput(Throughput::Elements((96 * COLS) as u64));
    for (name, ty) in [("by-32", TensorType::Q4_K), ("by-16", TensorType::Q4_1)] {
        let mut activations = Activations::new(96, COLS, Forms::of(ty));
        group.bench_function(name, |bencher| {
            bencher.iter(|| fill(&pool, &mut activations, 96, Forms::of(ty)));
        });
    }
}

/// What it costs to share out nothing: entering and leaving one region of a forward.
fn regions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("region");
    for threads in [1, 2] {
        let pool = Pool::with_level(threads, Level::best());
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            pool.enter(|| {
                bencher.iter(|| {
                    pool.each(threads, &|_, unit| {
                        black_box(unit);
                    })
                })
            });
        });
    }
}

/// The clock of this core, in cycles per second.
fn clock() -> f64 {
    const STEPS: u32 = 100_000;
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        let mut x = black_box(3u64);
        for _ in 0..STEPS {
            // The or keeps the compiler from combining two multiplications.
            x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        }
        black_box(x);
        best = best.min(start.elapsed().as_secs_f64());
    }
    4.0 * f64::from(STEPS) / best
}

fn table() {
    println!("\ncycles per 256 weights and token; multiply-adds per cycle; one core");
    for level in vector_levels() {
        let pool = Pool::with_level(1, level);
        for ty in TensorType::ALL {
            print!("{:8} {:5}", level.name(), ty.name());
            for tokens in TOKENS {
                let mut case = Case::new(&pool, ty, tokens);
                let mut best = f64::MAX;
                for _ in 0..if tokens > 8 { 5 } else { 60 } {
                    let start = Instant::now();
                    case.run(&pool);
                    best = best.min(start.elapsed().as_secs_f64());
                }
                let cycles = best * clock();
                let macs = (ROWS * COLS * tokens) as f64;
                print!("  {tokens:3}: {:6.1} {:5.1}", 256.0 * cycles / macs, macs / cycles);
            }
            println!();
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    products(&mut criterion);
    quantising(&mut criterion);
    regions(&mut criterion);
    criterion.final_summary();
    // Only a real run: not when tests or a list of the benchmarks are asked for.
    if std::env::args().any(|arg| arg == "--bench") {
        table();
    }
}
