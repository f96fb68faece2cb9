//! The inputs of a matrix product, in each form that some weight format needs.
//!
//! Quantised once per distinct input, by the producer's caller; buffers are allocated at load.

use super::{Level, per_level};

/// Which forms of an input the weights that meet it need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// Quantised per 32 values, for quant blocks of 32.
    pub by_32: bool,
    /// Quantised per 256 values, for quant blocks of 256.
    pub by_256: bool,
}

impl Forms {
    /// What weights of type `ty` need.
    pub fn of(ty: crate::quant::TensorType) -> Self {
        Self { by_32: ty.block_len() == 32, by_256: ty.block_len() == 256 }
    }

    /// What either needs.
    pub fn or(self, other: Self) -> Self {
        Self { by_32: self.by_32 || other.by_32, by_256: self.by_256 || other.by_256 }
    }
}

/// Rows of quantised values: `q` is `[rows, len]`, `scales` `[rows, len / BLOCK]`, `sums` one per 16.
#[derive(Debug, Default)]
pub struct Quantised {
    pub(super) q: Vec<i16>,
    pub(super) scales: Vec<f32>,
    pub(super) sums: Vec<i16>,
}

/// One row of a [`Quantised`].
#[derive(Clone, Copy)]
pub(super) struct QuantisedRow<'a> {
    pub q: &'a [i16],
    pub scales: &'a [f32],
    pub sums: &'a [i16],
}

impl Quantised {
    fn with_capacity(rows: usize, len: usize, block: usize) -> Self {
        Self {
            q: vec![0; rows * len],
            scales: vec![0.0; rows * len / block],
            sums: vec![0; rows * len / 16],
        }
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize, len: usize, block: usize) -> QuantisedRow<'_> {
        let (scales, sums) = (len / block, len / 16);
        QuantisedRow {
            q: &self.q[row * len..(row + 1) * len],
            scales: &self.scales[row * scales..(row + 1) * scales],
            sums: &self.sums[row * sums..(row + 1) * sums],
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
    pub(super) values: Vec<f32>,
    pub(super) by_32: Quantised,
    pub(super) by_256: Quantised,
    /// Makes one path add superblocks in the wrong order, to see that the tests notice.
    #[cfg(test)]
    pub planted_bug: bool,
}

impl Activations {
    /// Room for `rows_max` rows of at most `len_max` values in the `forms` given.
    pub fn new(rows_max: usize, len_max: usize, forms: Forms) -> Self {
        let quantised = |wanted: bool, block: usize| match wanted {
            true => Quantised::with_capacity(rows_max, len_max.next_multiple_of(block), block),
            false => Quantised::default(),
        };
        Self {
            rows: 0,
            len: 0,
            rows_max,
            len_max,
            forms: Forms::default(),
            values: vec![0.0; rows_max * len_max],
            by_32: quantised(forms.by_32, 32),
            by_256: quantised(forms.by_256, 256),
            #[cfg(test)]
            planted_bug: false,
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        let quantised = |q: &Quantised| q.q.len() * 2 + q.scales.len() * 4 + q.sums.len() * 2;
        (self.values.len() * 4 + quantised(&self.by_32) + quantised(&self.by_256)) as u64
    }

    /// The values of `rows` rows of `len`, to be written before [`quantise`](Self::quantise).
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn values_mut(&mut self, rows: usize, len: usize) -> &mut [f32] {
        assert!(rows <= self.rows_max && len <= self.len_max, "within what was allocated");
        (self.rows, self.len) = (rows, len);
        self.forms = Forms::default();
        &mut self.values[..rows * len]
    }

    /// Makes the other forms of the values; `len` must be a multiple of their block.
    pub fn quantise(&mut self, level: Level, forms: Forms) {
        let values = &self.values[..self.rows * self.len];
        if forms.by_32 {
            quantise_32(level, values, &mut self.by_32);
        }
        if forms.by_256 {
            quantise_256(level, values, &mut self.by_256);
        }
        self.forms = forms;
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

    /// The values of one row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.len..(row + 1) * self.len]
    }

    /// The forms that were made of the present values.
    pub fn forms(&self) -> Forms {
        self.forms
    }
}

per_level! {
    fn quantise_32(values: &[f32], out: &mut Quantised) = quantise_blocks::<32>;
}
per_level! {
    fn quantise_256(values: &[f32], out: &mut Quantised) = quantise_blocks::<256>;
}

#[inline(always)]
fn quantise_blocks<const BLOCK: usize>(values: &[f32], out: &mut Quantised) {
    let (values, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "rows are whole blocks of {BLOCK}");
    let (q, _) = out.q.as_chunks_mut::<BLOCK>();
    for (i, x) in values.iter().enumerate() {
        out.scales[i] = quantise_block(x, &mut q[i]);
        for (sum, q) in out.sums[i * BLOCK / 16..].iter_mut().zip(q[i].as_chunks::<16>().0) {
            *sum = q.iter().sum();
        }
    }
}

/// One block: the scale is returned, the quants are written.
#[inline(always)]
fn quantise_block<const BLOCK: usize>(x: &[f32; BLOCK], q: &mut [i16; BLOCK]) -> f32 {
    // Adding it rounds to the nearest integer, ties to even, for magnitudes below 2²².
    const MAGIC: f32 = 12_582_912.0;
    let mut max = 0.0f32;
    for x in x {
        max = if x.abs() > max { x.abs() } else { max };
    }
    // A NaN never becomes the maximum; it has to reach the logits all the same.
    let mut finite = true;
    for x in x {
        finite &= x.is_finite();
    }
    if !finite {
        q.fill(1);
        return f32::NAN;
    }
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    // Below 2⁻¹²⁰ the inverse overflows: such a block is zero for every purpose.
    if !inverse.is_finite() {
        q.fill(0);
        return 0.0;
    }
    for (q, x) in q.iter_mut().zip(x) {
        let shifted = x * inverse + MAGIC;
        *q = (shifted.to_bits().wrapping_sub(MAGIC.to_bits())) as i16;
    }
    max / 127.0
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
        let mut q = [9; 32];
        assert_eq!(quantise_block(&x, &mut q), 1.0);
        assert_eq!(q[..5], [127, 2, -4, -127, 0]);
        assert_eq!(quantise_block(&[0.0; 32], &mut q), 0.0);
        assert_eq!(q, [0; 32]);
        assert_eq!(quantise_block(&[1e-40; 32], &mut q), 0.0);
        x[7] = f32::NAN;
        assert!(quantise_block(&x, &mut q).is_nan());
    }
}
