//! Every instruction set equals the scalar definition to the bit, and that equals the mathematics.

use super::activations::{Activations, Forms};
use super::attention::cache::{Rotation, store};
use super::attention::heads::{AttentionShape, QueryChunk};
use super::attention::{RANGE, attend};
use super::elementwise::Pairing;
use super::matmul::{Product, matmul};
use super::matrix::Matrix;
use super::*;
use crate::invariance::Random;
use crate::kv::{BlockTable, Cache, CacheShape, KvType};
use crate::limits::BLOCK_LEN;
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

/// Activations with a few large values, as real hidden states have.
fn activations(
    pool: &Pool,
    random: &mut Random,
    shape: (usize, usize),
    forms: Forms,
) -> Activations {
    let (tokens, cols) = shape;
    let values: Vec<f32> =
        (0..tokens * cols).map(|i| random.value() * if i % 97 == 0 { 40.0 } else { 1.0 }).collect();
    let mut activations = Activations::new(tokens, cols, forms);
    activations.fill(pool, shape, forms, &|row, columns, out| {
        out.copy_from_slice(&values[row * cols..][columns]);
    });
    activations
}

/// What the activations stand for: `q · d` per value.
fn meant(activations: &Activations, ty: TensorType, row: usize) -> Vec<f64> {
    if ty.block_len() == 1 {
        return activations.all().row(row).iter().map(|x| f64::from(*x)).collect();
    }
    (0..activations.len() / 32)
        .flat_map(|group| {
            let record = activations.all().record(ty, row, group);
            let d = [8, 9].map(|field| f64::from(f32::from_bits(record[field] as u32)));
            (0..32).map(move |i| f64::from(record[i / 4].to_le_bytes()[i % 4] as i8) * d[i / 16])
        })
        .collect()
}

/// The products at every level, compared; the levels' own activations are compared on the way.
fn products(ty: TensorType, bytes: &[u8], shape: (usize, usize, usize), seed: u64) -> Vec<f32> {
    let (rows, cols, tokens) = shape;
    at_every_level(|pool| {
        let activations = activations(pool, &mut Random(seed), (tokens, cols), Forms::of(ty));
        let mut out = vec![f32::NAN; tokens * rows];
        let matrix = Matrix { ty, rows, cols, bytes };
        matmul(pool, &activations, [Product::new(matrix, &mut out)]);
        out
    })
}

#[test]
fn products_of_every_format_equal_the_definition_and_the_sum_in_double_precision() {
    let mut random = Random(11);
    for ty in TensorType::ALL {
        for shape in [(1, 256, 1), (9, 2304, 3), (47, 2816, 65), (33, 4352, 8), (16, 768, 9)] {
            let (rows, cols, tokens) = shape;
            let bytes = random_rows(&mut random, ty, rows, cols);
            let seed = random.next();
            let out = products(ty, &bytes, shape, seed);
            let pool = Pool::with_level(1, Level::SCALAR);
            let x = activations(&pool, &mut Random(seed), (tokens, cols), Forms::of(ty));
            let row_bytes = ty.row_bytes(cols);
            let mut weights = vec![0.0; cols];
            for r in 0..rows {
                dequantize_row(ty, &bytes[r * row_bytes..(r + 1) * row_bytes], &mut weights);
                for t in 0..tokens {
                    let x = meant(&x, ty, t);
                    let products = weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * x);
                    let size: f64 = products.clone().map(f64::abs).sum();
                    let error = (f64::from(out[t * rows + r]) - products.sum::<f64>()).abs();
                    assert!(error <= 1e-6 * size, "{ty} {rows}x{cols}: {error} of {size}");
                }
            }
        }
    }
}

/// Kernels that keep a row's products have room for so many; longer rows take another way.
#[test]
fn rows_longer_than_any_buffer_give_the_same_bits() {
    let mut random = Random(41);
    for ty in [TensorType::Q4_K, TensorType::Q6_K] {
        for cols in [32 * 1024, 32 * 1024 + 256] {
            let bytes = random_rows(&mut random, ty, 37, cols);
            products(ty, &bytes, (37, cols, 1), 3);
        }
    }
}

/// Every number of tokens up to two tiles, and lengths that are no multiple of what is unpacked
/// together.
#[test]
fn products_are_the_same_for_every_number_of_tokens_and_every_length() {
    let mut random = Random(29);
    for ty in TensorType::ALL {
        let block = ty.block_len().max(32);
        for blocks in [1, 2, 3] {
            let cols = blocks * block;
            let bytes = random_rows(&mut random, ty, 40, cols);
            let mut first: Option<Vec<f32>> = None;
            for tokens in 1..=25 {
                let out = products(ty, &bytes, (40, cols, tokens), 5);
                let expected = first.get_or_insert_with(|| out[..40].to_vec());
                assert_eq!(out[..40], expected[..], "{ty}, {cols} columns, {tokens} tokens");
            }
        }
    }
}

/// Bytes of all ones, all zeros and other extremes: every quant, scale and minimum at its limit, with
/// factors that are subnormal, negative, zero and large.
#[test]
fn extreme_blocks_give_the_same_bits_on_every_level() {
    let factors = [0x0001u16, 0x8001, 0x03ff, 0x7bff, 0xfbff, 0x0000, 0x8000, 0x3c00];
    for ty in TensorType::ALL.into_iter().filter(|ty| ty.block_len() > 1) {
        for fill in [0x00u8, 0xff, 0x80, 0x7f, 0x0f, 0xf0, 0x55, 0xaa] {
            let (rows, cols) = (32, 2 * ty.block_len());
            let mut bytes = vec![fill; rows * ty.row_bytes(cols)];
            for (i, block) in bytes.chunks_exact_mut(ty.block_bytes()).enumerate() {
                for at in crate::invariance::factor_places(ty) {
                    let factor = factors[(i + at) % factors.len()];
                    block[at..at + 2].copy_from_slice(&factor.to_le_bytes());
                }
                if ty == TensorType::MXFP4 {
                    // Powers of two: the two that are subnormal, and up to what sums can hold.
                    block[0] = [0, 1, 2, 100, 128, 200, 230][i % 7];
                }
            }
            for tokens in [1, 13] {
                at_every_level(|pool| {
                    let forms = Forms::of(ty);
                    let mut activations = Activations::new(tokens, cols, forms);
                    activations.fill(pool, (tokens, cols), forms, &|row, columns, out| {
                        for (out, column) in out.iter_mut().zip(columns) {
                            *out = [127.0, -127.0, 1.0, 0.0][(row + column / 16) % 4];
                        }
                    });
                    let mut out = vec![f32::NAN; tokens * rows];
                    let matrix = Matrix { ty, rows, cols, bytes: &bytes };
                    matmul(pool, &activations, [Product::new(matrix, &mut out)]);
                    assert!(out.iter().all(|v| v.is_finite()), "{ty}");
                    out
                });
            }
        }
    }
}

/// Memory whose last byte is the last one before a page that nobody may touch.
struct Guarded {
    start: *mut u8,
    pages: usize,
    len: usize,
}

impl Guarded {
    const PAGE: usize = 64 << 10;

    fn new(bytes: &[u8]) -> Self {
        let pages = bytes.len().next_multiple_of(Self::PAGE);
        // SAFETY: new memory of our own, of which the last page is closed again.
        unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let start = libc::mmap(std::ptr::null_mut(), pages + Self::PAGE, access, kind, -1, 0);
            assert_ne!(start, libc::MAP_FAILED, "there is memory");
            let start = start.cast::<u8>();
            assert_eq!(libc::mprotect(start.add(pages).cast(), Self::PAGE, libc::PROT_NONE), 0);
            std::ptr::copy(bytes.as_ptr(), start.add(pages - bytes.len()), bytes.len());
            Self { start, pages, len: bytes.len() }
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: written when it was made, and ours until it is dropped.
        unsafe { std::slice::from_raw_parts(self.start.add(self.pages - self.len), self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped when it was made; nothing refers to it any more.
        unsafe { libc::munmap(self.start.cast(), self.pages + Self::PAGE) };
    }
}

#[test]
fn nothing_behind_the_last_row_is_read() {
    let mut random = Random(31);
    for ty in TensorType::ALL {
        let cols = 3 * ty.block_len().max(32);
        for rows in [16, 17, 40] {
            let bytes = random_rows(&mut random, ty, rows, cols);
            let guarded = Guarded::new(&bytes);
            for tokens in [1, 6, 20] {
                let out = products(ty, guarded.bytes(), (rows, cols, tokens), 2);
                assert_eq!(out, products(ty, &bytes, (rows, cols, tokens), 2), "{ty}");
            }
        }
    }
}

#[test]
fn biases_and_scaled_sums_are_the_same_on_every_level_and_right() {
    let mut random = Random(17);
    let (rows, cols, ty) = (50, 512, TensorType::Q4_K);
    let bytes = random_rows(&mut random, ty, rows, cols);
    let bias: Vec<f32> = (0..rows).map(|_| random.value()).collect();
    for tokens in [1, 20] {
        let plain = products(ty, &bytes, (rows, cols, tokens), 3);
        let out = at_every_level(|pool| {
            let x = activations(pool, &mut Random(3), (tokens, cols), Forms::of(ty));
            let matrix = Matrix { ty, rows, cols, bytes: &bytes };
            let mut biased = vec![1.0; tokens * rows];
            let mut added = vec![1.0; tokens * rows];
            let a = Product { bias: Some(&bias), ..Product::new(matrix, &mut biased) };
            let b = Product { add_scaled: Some(0.5), ..Product::new(matrix, &mut added) };
            matmul(pool, &x, [a, b]);
            [biased, added].concat()
        });
        for (i, plain) in plain.iter().enumerate() {
            assert_eq!(out[i], plain + bias[i % rows]);
            assert_eq!(out[tokens * rows + i], plain.mul_add(0.5, 1.0));
        }
    }
}

/// What the cache holds of the keys or values of one position.
fn held(ty: KvType, row: &[f32], head_dim: usize) -> Vec<f64> {
    let half = |x: f32| half::f16::from_f32(x).to_f64();
    let groups = row.chunks(head_dim).flat_map(|head| head.chunks(32));
    groups
        .flat_map(|group| match ty {
            KvType::F16 => group.iter().map(|x| half(*x)).collect::<Vec<_>>(),
            KvType::Q8_0 => {
                let mut padded = [0.0; 32];
                padded[..group.len()].copy_from_slice(group);
                let (q, d) = super::activations::quantise(&padded);
                q[..group.len()].iter().map(|q| f64::from(*q) * half(d)).collect()
            }
        })
        .collect()
}

/// Attention by its formula, in double precision, over what the cache holds.
fn reference(
    (shape, sinks): (&AttentionShape, Option<&[f32]>),
    keys: &[Vec<f64>],
    values: &[Vec<f64>],
    q: &[f32],
) -> Vec<f64> {
    let (dim, group) = (shape.head_dim, shape.group());
    (0..shape.heads)
        .flat_map(|head| {
            let at = head / group * dim;
            let q = &q[head * dim..(head + 1) * dim];
            let dot = |k: &Vec<f64>| -> f64 { (0..dim).map(|i| f64::from(q[i]) * k[at + i]).sum() };
            let scores: Vec<f64> = keys.iter().map(|k| dot(k) * f64::from(shape.scale)).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sink = sinks.map_or(0.0, |sinks| (f64::from(sinks[head]) - max).exp());
            let total: f64 = p.iter().sum::<f64>() + sink;
            (0..dim)
                .map(|i| p.iter().zip(values).map(|(p, v)| p * v[at + i]).sum::<f64>() / total)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Writes keys and values at positions from 0, unrotated.
fn fill_cache(
    cache: &mut Cache,
    shape: &AttentionShape,
    table: &[u32],
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
) {
    let pool = Pool::with_level(1, Level::SCALAR);
    let rotation = Rotation {
        attention: shape,
        pairing: Pairing::Halves,
        eps: 1e-5,
        q_norm: None,
        k_norm: None,
        is_normed_after: false,
        angles: &vec![[1.0, 0.0]; keys.len()],
        pairs: 1,
    };
    let table = BlockTable::whole(table);
    let chunk = QueryChunk { first_row: 0, rows: keys.len(), position: 0, table };
    let mut q = vec![0.0; keys.len() * shape.heads * shape.head_dim];
    let (mut k, v) = (keys.concat(), values.concat());
    let chunks = std::iter::once(chunk);
    store(&pool, &rotation, chunks, cache.layer_mut(0), (&mut q, &mut k, &v));
}

#[test]
fn attention_equals_the_formula_across_tiles_and_ranges_on_every_level() {
    let shape = |heads, kv_heads, head_dim, window| AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: 0.31,
        window,
    };
    let sinks: Vec<f32> = (0..14).map(|head| head as f32 - 6.0).collect();
    for ty in KvType::ALL {
        for sinks in [None, Some(&*sinks)] {
            for window in [None, Some(1), Some(33), Some(64), Some(RANGE + 7)] {
                check_attention(ty, shape(6, 2, 48, window), RANGE + 75, sinks);
                check_attention(ty, shape(2, 2, 64, window), 70, sinks);
            }
            check_attention(ty, shape(14, 2, 80, Some(5)), 70, sinks);
            check_attention(ty, shape(14, 2, 80, None), 70, sinks);
        }
    }
}

fn check_attention(ty: KvType, shape: AttentionShape, positions: usize, sinks: Option<&[f32]>) {
    let (heads, kv_heads, dim) = (shape.heads, shape.kv_heads, shape.head_dim);
    let width = heads * dim;
    let mut random = Random(5);
    let mut rows = |count: usize, width: usize| -> Vec<Vec<f32>> {
        (0..count).map(|_| (0..width).map(|_| random.value()).collect()).collect()
    };
    let (keys, values) = (rows(positions, kv_heads * dim), rows(positions, kv_heads * dim));
    let blocks = positions.div_ceil(BLOCK_LEN);
    let table: Vec<u32> = (0..blocks as u32).rev().collect();
    let shape_of_cache = CacheShape { kv_heads, head_dim: dim, ty };
    let mut cache = Cache::new(std::iter::once((0, blocks as u32)), shape_of_cache);
    cache.poison();
    fill_cache(&mut cache, &shape, &table, &keys, &values);
    let [keys, values] = [keys, values]
        .map(|rows| rows.iter().map(|row| held(ty, row, dim)).collect::<Vec<Vec<f64>>>());
    for (position, count) in [(0, 1), (30, 5), (positions - 23, 20), (positions - 1, 1)] {
        let q: Vec<f32> = rows(count, width).concat();
        let out = at_every_level(|pool| {
            let mut out = vec![f32::NAN; count * width];
            // Blocks that no row reads are not in the table.
            let begin = (position + 1).saturating_sub(shape.window.unwrap_or(usize::MAX));
            let first = begin / BLOCK_LEN;
            let table = BlockTable { first: first as u32, blocks: &table[first..] };
            let chunk = QueryChunk { first_row: 0, rows: count, position, table };
            let chunks = std::iter::once(chunk);
            attend(pool, (&shape, sinks), cache.layer(0), chunks, &q, &mut out);
            out
        });
        for row in 0..count {
            let end = position + row + 1;
            let begin = end.saturating_sub(shape.window.unwrap_or(end));
            let q = &q[row * width..(row + 1) * width];
            let truth = reference((&shape, sinks), &keys[begin..end], &values[begin..end], q);
            for (i, truth) in truth.iter().enumerate() {
                let ours = f64::from(out[row * width + i]);
                assert!((ours - truth).abs() < 4e-6, "row {row} value {i}: {ours}, {truth}");
            }
        }
    }
}
