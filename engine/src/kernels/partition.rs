//! How the rows of several matrices are shared out to threads: the size of a unit of work, and whose it is.

use super::dispatch::FEW;
use super::matrix::Matrix;
use super::scratch::{PASS_ROWS, PASS_TOKENS};
use super::tile::TILE_TOKENS;

/// Bytes of weights that a thread takes at a time, so that taking them costs nothing beside them.
const UNIT_BYTES: usize = 512 << 10;
/// Rows of a unit at most: their products with a few tokens have to fit the thread's buffer.
pub const UNIT_ROWS: usize = PASS_TOKENS * PASS_ROWS / SEVERAL;
/// Tokens up to which unpacking a panel again for each [`FEW`] costs less than keeping it unpacked.
pub const SEVERAL: usize = 2 * FEW;
const _: () = assert!(SEVERAL <= TILE_TOKENS);
/// Units per thread at least, so that all end at about the same time.
const UNITS: usize = 8;
/// As [`UNITS`] for one token, which leaves a unit's beginning and end little to hide behind.
const UNITS_OF_ONE: usize = 4;
/// Rows of such a unit at least, for the same reason.
const ROWS_OF_ONE: usize = 64;

/// Rows of one unit of work for `threads` threads: a multiple of [`PASS_ROWS`], or of half of it. `rows` are
/// those of all such matrices that are shared out together.
pub fn unit_rows(threads: usize, matrix: &Matrix<'_>, tokens: usize, rows: usize) -> usize {
    // Lanes whose rows begin at the same place of a page contend for the same lines of the cache.
    const PAGE: usize = 4096;
    const APART: usize = 256;
    if tokens > SEVERAL {
        return PASS_ROWS;
    }
    let (row_bytes, lanes) = (matrix.ty.row_bytes(matrix.cols), PASS_ROWS / 2);
    let enough = (UNIT_BYTES / row_bytes).min(UNIT_ROWS) / lanes;
    let (units, least) = if tokens == 1 { (UNITS_OF_ONE, ROWS_OF_ONE) } else { (UNITS, lanes) };
    let share = (rows / (units * threads)).clamp(least, matrix.rows.max(least)) / lanes;
    let length = enough.min(share).max(1);
    let collides = |length: &usize| {
        let offset = length * row_bytes % PAGE;
        offset.min(PAGE - offset) < APART
    };
    (1..=length).rev().find(|length| !collides(length)).unwrap_or(length) * lanes
}

/// Which matrix, and which of its units, is number `index` of all units; matrix `i` has `units[i]`.
///
/// First comes the first thread's part of each matrix, then the second's, and so on: what reads the
/// outputs of several matrices side by side finds them with the thread that computed them.
///
/// # Panics
///
/// If there are not so many units.
pub fn unit_at(units: &[usize], threads: usize, index: usize) -> (usize, usize) {
    let mut left = index;
    for thread in 0..threads {
        for (matrix, units) in units.iter().enumerate() {
            let first = thread * units / threads;
            let part = (thread + 1) * units / threads - first;
            if left < part {
                return (matrix, first + left);
            }
            left -= part;
        }
    }
    unreachable!("there are no more units than those of all threads")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::TensorType;

    #[test]
    fn every_unit_of_every_matrix_has_one_number() {
        for threads in [1, 2, 3, 5] {
            for units in [&[1][..], &[7], &[16, 16], &[8, 4, 4], &[3, 0, 11]] {
                let mut found: Vec<_> =
                    (0..units.iter().sum()).map(|i| unit_at(units, threads, i)).collect();
                found.sort_unstable();
                let all = units.iter().enumerate().flat_map(|(i, n)| (0..*n).map(move |u| (i, u)));
                assert_eq!(found, all.collect::<Vec<_>>(), "{threads} threads, {units:?}");
            }
        }
    }

    #[test]
    fn a_thread_has_the_same_part_of_matrices_of_one_shape() {
        let part = |range: std::ops::Range<usize>| -> Vec<_> {
            range.map(|index| unit_at(&[4, 4], 2, index)).collect()
        };
        assert_eq!(part(0..4), [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(part(4..8), [(0, 2), (0, 3), (1, 2), (1, 3)]);
    }

    #[test]
    fn units_fit_the_buffers_and_are_whole_panels() {
        for tokens in [1, 2, SEVERAL, SEVERAL + 1, 600] {
            for (rows, cols) in
                [(16, 256), (256, 1536), (8960, 1536), (4096, 12800), (150_000, 512)]
            {
                let matrix = Matrix { ty: TensorType::Q4_K, rows, cols, bytes: &[] };
                for threads in [1, 2, 64] {
                    let unit = unit_rows(threads, &matrix, tokens, rows);
                    assert!(unit.is_multiple_of(PASS_ROWS / 2) && unit > 0);
                    assert!(tokens > SEVERAL || unit * tokens <= PASS_TOKENS * PASS_ROWS);
                }
            }
        }
    }
}
