//! Short measurements of a machine, for the planner.

use crate::kernels::activations::{Activations, Forms};
use crate::kernels::matmul::{Matrix, matmul};
use crate::pool::Pool;
use crate::quant::TensorType;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes read per round: more than the caches of an ordinary server.
const READ_BYTES: usize = 128 << 20;
/// A measurement ends after the first round that passes it.
const ENOUGH: Duration = Duration::from_millis(60);

/// Bytes per second that all threads read from memory together.
pub fn read_bytes_per_s(pool: &Pool) -> u64 {
    // Written once, so that the pages are there.
    let memory = vec![1u64; READ_BYTES / 8];
    let piece = memory.len() / pool.threads();
    best_per_s(READ_BYTES as u64, || {
        let total = AtomicU64::new(0);
        pool.enter(|| {
            pool.for_ranges(memory.len(), piece, &|range| {
                let sum = memory[range].iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
                total.fetch_add(sum, Ordering::Relaxed);
            });
        });
        black_box(total.into_inner());
    })
}

/// Multiply-adds per second of the matrix product with many tokens.
pub fn macs_per_s(pool: &Pool) -> u64 {
    let (rows, cols, tokens) = (256, 2048, 64);
    let ty = TensorType::Q4_K;
    let bytes = vec![0x11u8; rows * ty.row_bytes(cols)];
    let forms = Forms::of(ty);
    let mut activations = Activations::new(tokens, cols, forms);
    activations.values_mut(tokens, cols).fill(0.5);
    activations.quantise(pool.level(), forms);
    let mut out = vec![0.0; tokens * rows];
    best_per_s((rows * cols * tokens) as u64, || {
        let matrix = Matrix { ty, rows, cols, bytes: &bytes };
        pool.enter(|| matmul(pool, matrix, &activations, &mut out));
        black_box(&out);
    })
}

/// The best rate of rounds of `amount`, over [`ENOUGH`] time.
fn best_per_s(amount: u64, mut round: impl FnMut()) -> u64 {
    let start = Instant::now();
    let mut best = 0.0f64;
    while start.elapsed() < ENOUGH {
        let begin = Instant::now();
        round();
        best = best.max(amount as f64 / begin.elapsed().as_secs_f64());
    }
    best as u64
}
