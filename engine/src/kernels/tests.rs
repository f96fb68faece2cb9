//! Every instruction set equals the scalar definition to the bit, and that equals the mathematics.

use super::activations::{Activations, Forms};
use super::attention::{AttentionShape, QueryChunk, RANGE, attend};
use super::matmul::{Matrix, matmul};
use super::*;
use crate::invariance::Random;
use crate::kv::{BLOCK_LEN, Cache};
use crate::pool::Pool;
use crate::quant::{TensorType, dequantize_row};

/// Random rows of any format: bytes at random, with factors that are finite.
fn random_rows(random: &mut Random, ty: TensorType, rows: usize, cols: usize) -> Vec<u8> {
    crate::invariance::weights(random, ty, (rows * cols) as u64, 1.0)
}

/// `out` at every level, with 1 and 2 threads; all equal to the bit.
fn at_every_level(compute: impl Fn(&Pool) -> Vec<f32> + Sync) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for level in Level::available() {
        for threads in [1, 2] {
            let out = std::thread::scope(|scope| {
                let run = scope.spawn(|| compute(&Pool::with_level(threads, level)));
                run.join().expect("the kernel does not panic")
            });
            let expected = first.get_or_insert_with(|| out.clone());
            for (i, (a, b)) in out.iter().zip(expected.iter()).enumerate() {
                assert_eq!(a.to_bits(), b.to_bits(), "{level:?}, {threads} threads, output {i}");
            }
        }
    }
    first.expect("there is always a level")
}

/// What the quantised activations stand for: `q · d` per value.
fn meant(activations: &Activations, ty: TensorType, row: usize) -> Vec<f64> {
    let len = activations.len();
    let of = |quantised: &super::activations::Quantised, block: usize| {
        let row = quantised.row(row, len, block);
        (0..len).map(|i| f64::from(row.q[i]) * f64::from(row.scales[i / block])).collect()
    };
    match ty.block_len() {
        32 => of(&activations.by_32, 32),
        256 => of(&activations.by_256, 256),
        _ => activations.row(row).iter().map(|x| f64::from(*x)).collect(),
    }
}

#[test]
fn products_of_every_format_equal_the_definition_and_the_sum_in_double_precision() {
    let mut random = Random(11);
    for ty in TensorType::ALL {
        for (rows, cols, tokens) in [(1, 256, 1), (9, 2304, 3), (19, 2816, 65)] {
            let bytes = random_rows(&mut random, ty, rows, cols);
            let mut activations = Activations::new(tokens, cols, Forms::of(ty));
            for (i, x) in activations.values_mut(tokens, cols).iter_mut().enumerate() {
                // A few large values, as real hidden states have.
                *x = random.value() * if i % 97 == 0 { 40.0 } else { 1.0 };
            }
            activations.quantise(Level::SCALAR, Forms::of(ty));
            let out = at_every_level(|pool| {
                let mut out = vec![f32::NAN; tokens * rows];
                matmul(pool, Matrix { ty, rows, cols, bytes: &bytes }, &activations, &mut out);
                out
            });
            let row_bytes = ty.row_bytes(cols);
            let mut weights = vec![0.0; cols];
            for r in 0..rows {
                dequantize_row(ty, &bytes[r * row_bytes..(r + 1) * row_bytes], &mut weights);
                for t in 0..tokens {
                    let x = meant(&activations, ty, t);
                    let products = weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * x);
                    let size: f64 = products.clone().map(f64::abs).sum();
                    let error = (f64::from(out[t * rows + r]) - products.sum::<f64>()).abs();
                    assert!(error <= 1e-6 * size, "{ty} {rows}x{cols}: {error} of {size}");
                }
            }
        }
    }
}

#[test]
fn quantised_activations_are_the_same_on_every_level() {
    let mut random = Random(3);
    let values: Vec<f32> = (0..2048).map(|_| random.value() * 10.0).collect();
    let forms = Forms { by_32: true, by_256: true };
    at_every_level(|pool| {
        let mut activations = Activations::new(2, 1024, forms);
        activations.values_mut(2, 1024).copy_from_slice(&values);
        activations.quantise(pool.level(), forms);
        let all = |q: &super::activations::Quantised| {
            let ints = q.q.iter().chain(&q.sums).map(|v| f32::from(*v));
            ints.chain(q.scales.iter().copied()).collect::<Vec<_>>()
        };
        [all(&activations.by_32), all(&activations.by_256)].concat()
    });
}

/// Attention by its formula, in double precision, over the halves that the cache holds.
fn reference(
    shape: &AttentionShape,
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    q: &[f32],
) -> Vec<f64> {
    let (dim, group) = (shape.head_dim, shape.group());
    let as_half = |x: f32| half::f16::from_f32(x).to_f64();
    (0..shape.heads)
        .flat_map(|head| {
            let at = head / group * dim;
            let q = &q[head * dim..(head + 1) * dim];
            let dot = |k: &Vec<f32>| -> f64 {
                (0..dim).map(|i| f64::from(q[i]) * as_half(k[at + i])).sum()
            };
            let scores: Vec<f64> = keys.iter().map(|k| dot(k) * f64::from(shape.scale)).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = p.iter().sum();
            (0..dim)
                .map(|i| {
                    p.iter().zip(values).map(|(p, v)| p * as_half(v[at + i])).sum::<f64>() / total
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn attention_equals_the_formula_across_tiles_and_ranges_on_every_level() {
    let shape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 48, scale: 0.31 };
    let (width, kv_width) = (6 * 48, 2 * 48);
    let positions = RANGE + 75;
    let mut random = Random(5);
    let mut rows = |count: usize, width: usize| -> Vec<Vec<f32>> {
        (0..count).map(|_| (0..width).map(|_| random.value()).collect()).collect()
    };
    let (keys, values) = (rows(positions, kv_width), rows(positions, kv_width));
    let blocks = positions.div_ceil(BLOCK_LEN);
    let table: Vec<u32> = (0..blocks as u32).rev().collect();
    let mut cache = Cache::new(1, blocks, 2, 48);
    cache.poison();
    for (position, (k, v)) in keys.iter().zip(&values).enumerate() {
        cache.write(0, table[position / BLOCK_LEN], position % BLOCK_LEN, k, v);
    }
    for (position, count) in [(0, 1), (30, 5), (RANGE - 3, 20), (positions - 1, 1)] {
        let q: Vec<f32> = rows(count, width).concat();
        let out = at_every_level(|pool| {
            let mut out = vec![f32::NAN; count * width];
            let chunk = QueryChunk { first_row: 0, rows: count, position, block_table: &table };
            pool.enter(|| attend(pool, &shape, cache.layer(0), &chunk, &q, &mut out));
            out
        });
        for row in 0..count {
            let end = position + row + 1;
            let q = &q[row * width..(row + 1) * width];
            let truth = reference(&shape, &keys[..end], &values[..end], q);
            for (i, truth) in truth.iter().enumerate() {
                let ours = f64::from(out[row * width + i]);
                assert!((ours - truth).abs() < 2e-6, "row {row} value {i}: {ours}, {truth}");
            }
        }
    }
}
