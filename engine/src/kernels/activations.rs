//! The inputs of a matrix product, in each form that some weight format needs.
//!
//! Quantised once per distinct input, by the threads that compute it. Tokens lie in tiles of at most
//! [`TILE_TOKENS`]; a tile has one record per group of 32 values, with the tokens side by side in
//! each field, so that a kernel reads it from front to back:
//!
//! ```text
//! tile → group → field (13) → token      32 bits each
//! fields 0–7   the quants, four bytes each
//! fields 8–9   the scales of the first and of the last 16 quants, floats
//! field  10    Σ scale · q over all 32, a float
//! fields 11–12 −Σ q of the first and of the last 16 quants
//! ```
//!
//! The two scales are one for the K-quants, whose kernels have scales of their own to apply; for the
//! formats of 32 weights they differ, which brings the products closer to the truth.

mod groups;
pub mod part;

use super::tile::{FIELDS, OFFSET_SUM, SCALE, SUMS, TILE_TOKENS};
use super::{Level, per_level};
use crate::memory::Buffer;
use crate::pool::{Pool, Shared};
use crate::quant::{GROUP, TensorType};
use part::Part;
use std::ops::Range;

/// Values that a producer writes at a time.
const PIECE: usize = 512;

/// Which forms of an input the weights that meet it need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// As they are, for weights that are floats.
    pub values: bool,
    /// Quantised per 32 values, for weights in superblocks of 256.
    pub by_32: bool,
    /// Quantised per 16 values, for weights in quant blocks of 32.
    pub by_16: bool,
}

impl Forms {
    /// What weights of type `ty` need.
    pub fn of(ty: TensorType) -> Self {
        let len = ty.block_len();
        Self { values: len == 1, by_32: len == 256, by_16: len == 32 }
    }

    /// What either needs.
    pub fn or(self, other: Self) -> Self {
        Self {
            values: self.values || other.values,
            by_32: self.by_32 || other.by_32,
            by_16: self.by_16 || other.by_16,
        }
    }
}

/// Rows of an input with whichever forms were asked for.
#[derive(Debug)]
pub struct Activations {
    rows: usize,
    len: usize,
    rows_max: usize,
    len_max: usize,
    forms: Forms,
    values: Buffer<f32>,
    by_32: Buffer<i32>,
    by_16: Buffer<i32>,
    /// Makes one path add groups in the wrong order, to see that the tests notice.
    #[cfg(test)]
    pub planted_bug: bool,
}

/// Writes a row's values of a range of columns.
pub trait Producer: Fn(usize, Range<usize>, &mut [f32]) + Sync {}
impl<P: Fn(usize, Range<usize>, &mut [f32]) + Sync> Producer for P {}

impl Activations {
    /// Room for `rows_max` rows of at most `len_max` values in the `forms` given.
    pub fn new(rows_max: usize, len_max: usize, forms: Forms) -> Self {
        let values = if forms.values { rows_max * len_max } else { 0 };
        let records = rows_max * len_max.div_ceil(GROUP) * FIELDS;
        Self {
            rows: 0,
            len: 0,
            rows_max,
            len_max,
            forms,
            values: Buffer::new(values),
            by_32: Buffer::new(if forms.by_32 { records } else { 0 }),
            by_16: Buffer::new(if forms.by_16 { records } else { 0 }),
            #[cfg(test)]
            planted_bug: false,
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        (self.values.bytes() + self.by_32.bytes() + self.by_16.bytes()) as u64
    }

    /// Fills the buffers with NaN: what is read without having been written shows.
    pub fn poison(&mut self) {
        self.values.fill(f32::NAN);
        self.by_32.fill(f32::NAN.to_bits() as i32);
        self.by_16.fill(f32::NAN.to_bits() as i32);
    }

    /// Makes the forms `forms` of `rows` rows of `len` values that `producer` computes piece by
    /// piece, on all threads.
    ///
    /// # Panics
    ///
    /// If they do not fit, a form was not provided for, or quants are asked for and `len` is no
    /// multiple of 32.
    pub fn fill(
        &mut self,
        pool: &Pool,
        (rows, len): (usize, usize),
        forms: Forms,
        producer: &impl Producer,
    ) {
        self.begin(rows, len, forms);
        // Many rows are shared out by tiles, few by columns.
        let tiles = rows.div_ceil(TILE_TOKENS);
        let pieces = len.div_ceil(PIECE);
        let splits = if tiles >= pool.threads() { 1 } else { pool.threads().min(pieces) };
        let (level, target) = (pool.level(), self.target(forms));
        pool.each(tiles * splits, &|_, unit| {
            let (tile, split) = (unit / splits, unit % splits);
            let columns = split * pieces / splits * PIECE..(split + 1) * pieces / splits * PIECE;
            let columns = columns.start..columns.end.min(len);
            let first = tile * TILE_TOKENS;
            let tile = first..rows.min(first + TILE_TOKENS);
            target.fill(level, tile, columns, producer);
        });
    }

    fn begin(&mut self, rows: usize, len: usize, forms: Forms) {
        assert!(rows <= self.rows_max && len <= self.len_max, "within what was allocated");
        assert!(self.forms.or(forms) == self.forms, "the form was provided for");
        let quants = forms.by_32 || forms.by_16;
        assert!(!quants || len.is_multiple_of(GROUP), "rows are whole groups of {GROUP}");
        (self.rows, self.len) = (rows, len);
    }

    fn target(&mut self, forms: Forms) -> Target<'_> {
        Target {
            values: Shared::new(&mut self.values),
            by_32: Shared::new(&mut self.by_32),
            by_16: Shared::new(&mut self.by_16),
            len: self.len,
            forms,
        }
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The forms that there is room for.
    pub fn forms(&self) -> Forms {
        self.forms
    }

    /// All rows.
    pub fn all(&self) -> Part<'_> {
        self.part(0..self.rows)
    }

    /// The rows of `rows`, which are all, or one of the groups that they were filled by.
    pub fn part(&self, rows: Range<usize>) -> Part<'_> {
        // What lies before the rows of a group are whole tiles, and an unfilled form is read by nobody.
        let records = rows.start * (self.len / GROUP) * FIELDS;
        Part {
            rows: rows.len(),
            len: self.len,
            values: self.values.get(rows.start * self.len..).unwrap_or_default(),
            by_32: self.by_32.get(records..).unwrap_or_default(),
            by_16: self.by_16.get(records..).unwrap_or_default(),
            #[cfg(test)]
            planted_bug: self.planted_bug,
        }
    }
}

/// Where the threads write.
struct Target<'a> {
    values: Shared<'a, f32>,
    by_32: Shared<'a, i32>,
    by_16: Shared<'a, i32>,
    len: usize,
    forms: Forms,
}

impl Target<'_> {
    /// Columns of the rows of a tile.
    fn fill(
        &self,
        level: Level,
        tile: Range<usize>,
        columns: Range<usize>,
        producer: &impl Producer,
    ) {
        let (first, width) = (tile.start, tile.len());
        let groups = self.len / GROUP;
        let mut piece = [0.0f32; PIECE];
        for row in tile {
            for start in columns.clone().step_by(PIECE) {
                let end = columns.end.min(start + PIECE);
                let piece = &mut piece[..end - start];
                producer(row, start..end, piece);
                if self.forms.values {
                    // SAFETY: this tile's rows and these columns are this unit's alone.
                    let to =
                        unsafe { self.values.part(row * self.len + start..row * self.len + end) };
                    to.copy_from_slice(piece);
                }
                let record = first * groups * FIELDS + start / GROUP * FIELDS * width;
                let at = Place { record, width, token: row - first };
                if self.forms.by_32 {
                    quantise_by_32(level, piece, &self.by_32, at);
                }
                if self.forms.by_16 {
                    quantise_by_16(level, piece, &self.by_16, at);
                }
            }
        }
    }
}

/// Where the records of a token's consecutive groups are.
#[derive(Clone, Copy)]
struct Place {
    record: usize,
    width: usize,
    token: usize,
}

per_level! {
    fn quantise_by_32(values: &[f32], records: &Shared<'_, i32>, at: Place) = quantise_groups::<32>;
}
per_level! {
    fn quantise_by_16(values: &[f32], records: &Shared<'_, i32>, at: Place) = quantise_groups::<16>;
}

#[inline(always)]
fn quantise_groups<const BY: usize>(values: &[f32], records: &Shared<'_, i32>, at: Place) {
    for (g, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let first = at.record + g * FIELDS * at.width;
        // SAFETY: this token's places in this group's record are this unit's alone.
        let record = unsafe { records.part(first..first + FIELDS * at.width) };
        for (place, value) in
            record[at.token..].iter_mut().step_by(at.width).zip(record_of::<BY>(values))
        {
            *place = value;
        }
    }
}

/// The record of 32 values with a scale for each `BY` of them: 16 or 32.
#[inline(always)]
fn record_of<const BY: usize>(x: &[f32; GROUP]) -> [i32; FIELDS] {
    let (mut q, mut d) = ([0i8; GROUP], [0.0f32; 2]);
    for (part, (x, q)) in x.as_chunks::<BY>().0.iter().zip(q.as_chunks_mut::<BY>().0).enumerate() {
        let (quants, scale) = quantise(x);
        *q = quants;
        d[part..].fill(scale);
    }
    let mut fields = [0; FIELDS];
    for (field, q) in fields.iter_mut().zip(q.as_chunks::<4>().0) {
        *field = i32::from_le_bytes(q.map(|q| q as u8));
    }
    let sum = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum::<i32>();
    let sums = [sum(&q[..16]), sum(&q[16..])];
    let scaled_sum = match BY {
        GROUP => d[0] * (sums[0] + sums[1]) as f32,
        _ => (sums[1] as f32).mul_add(d[1], d[0] * sums[0] as f32),
    };
    fields[SCALE] = d[0].to_bits() as i32;
    fields[SCALE + 1] = d[1].to_bits() as i32;
    fields[OFFSET_SUM] = scaled_sum.to_bits() as i32;
    fields[SUMS] = -sums[0];
    fields[SUMS + 1] = -sums[1];
    fields
}

/// Values with one scale: quants and scale.
#[inline(always)]
pub(super) fn quantise<const LEN: usize>(x: &[f32; LEN]) -> ([i8; LEN], f32) {
    // Adding it rounds to the nearest integer, ties to even, for magnitudes below 2²².
    const MAGIC: f32 = 12_582_912.0;
    const SIGN: u32 = 1 << 31;
    // Magnitudes are in the order of their bits, which compilers can compare side by side; those that
    // are not finite come last, and have to reach the logits.
    let mut max = 0;
    for x in x {
        max = (x.to_bits() & !SIGN).max(max);
    }
    let max = f32::from_bits(max);
    if !max.is_finite() {
        return ([1; LEN], f32::NAN);
    }
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    // Below 2⁻¹²⁰ the inverse overflows: such values are zero for every purpose.
    if !inverse.is_finite() {
        return ([0; LEN], 0.0);
    }
    let mut q = [0i8; LEN];
    for (q, x) in q.iter_mut().zip(x) {
        let shifted = x * inverse + MAGIC;
        *q = (shifted.to_bits().wrapping_sub(MAGIC.to_bits())) as i8;
    }
    (q, max / 127.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quants_are_rounded_to_even_and_scales_are_a_127th_of_the_maximum() {
        let mut x = [0.0f32; 32];
        x[0] = 127.0;
        x[1] = 2.5;
        x[2] = -3.5;
        x[3] = -127.0;
        x[20] = 7.0;
        let (q, d) = quantise(&x);
        assert_eq!(d, 1.0);
        assert_eq!(q[..5], [127, 2, -4, -127, 0]);
        let record = record_of::<32>(&x);
        let float = |field: usize| f32::from_bits(record[field] as u32);
        assert_eq!(record[0].to_le_bytes(), [127, 2, 252, 129]);
        assert_eq!([float(SCALE), float(SCALE + 1), float(OFFSET_SUM)], [1.0, 1.0, 5.0]);
        assert_eq!(record[SUMS..], [2, -7]);
        let record = record_of::<16>(&x);
        let float = |field: usize| f32::from_bits(record[field] as u32);
        assert_eq!(record[5].to_le_bytes(), [127, 0, 0, 0]);
        assert_eq!([float(SCALE), float(SCALE + 1)], [1.0, 7.0 / 127.0]);
        assert_eq!(float(OFFSET_SUM), 127.0f32.mul_add(7.0 / 127.0, -2.0));
        assert_eq!(record[SUMS..], [2, -127]);
        assert_eq!(quantise(&[0.0; 32]), ([0; 32], 0.0));
        assert_eq!(quantise(&[1e-40; 32]), ([0; 32], 0.0));
        x[7] = f32::NAN;
        assert!(quantise(&x).1.is_nan());
    }

    #[test]
    fn every_row_has_its_record_whatever_the_rows_and_threads() {
        for (threads, rows) in [(1, 1), (2, 1), (2, 25), (3, 80)] {
            std::thread::spawn(move || {
                let pool = Pool::on_this_thread(threads);
                let forms = Forms { values: true, by_32: true, by_16: true };
                let value = |row: usize, column: usize| (row * 100 + column % 97) as f32 - 40.0;
                let mut activations = Activations::new(rows, 1120, forms);
                activations.fill(&pool, (rows, 1120), forms, &|row, columns, out| {
                    for (out, column) in out.iter_mut().zip(columns) {
                        *out = value(row, column);
                    }
                });
                for row in 0..rows {
                    let expected: Vec<f32> = (0..1120).map(|c| value(row, c)).collect();
                    assert_eq!(activations.all().row(row), expected);
                    for (g, x) in expected.as_chunks::<GROUP>().0.iter().enumerate() {
                        let (k, legacy) = (TensorType::Q4_K, TensorType::Q4_1);
                        assert_eq!(activations.all().record(k, row, g), record_of::<32>(x));
                        assert_eq!(activations.all().record(legacy, row, g), record_of::<16>(x));
                    }
                }
            })
            .join()
            .expect("the pool's thread ends well");
        }
    }
}
