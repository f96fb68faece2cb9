//! What tests and measurements do to a stage beside computing: caches that are full, buffers that
//! show what is read unwritten.

use super::Stage;
use crate::kernels::attention::cache::{Rotation, store};
use crate::kernels::attention::heads::QueryChunk;
use crate::kv::BlockTable;
use crate::limits::BLOCK_LEN;

impl Stage {
    /// Fills cache and buffers with NaN, so that a read of what was never written shows.
    pub fn poison(&mut self) {
        self.cache.poison();
        self.scratch.poison();
        self.x.fill(f32::NAN);
    }

    /// Fills the whole cache with numbers such as a sequence leaves there, so that rows at any
    /// position can be computed without those before them (measurements only).
    pub fn fill_cache(&mut self) {
        let shape = self.layers[0].shape().clone();
        let attention = shape.attention_shape();
        let len = BLOCK_LEN * attention.kv_heads * attention.head_dim;
        // Spread over −1 to 1; the values are others than the keys.
        let number = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9) as i32 as f32 / 2147483648.0;
        let values: Vec<f32> = (len..2 * len).map(number).collect();
        let angles = [[1.0, 0.0]; BLOCK_LEN];
        for layer in 0..self.layers.len() {
            for block in 0..self.cache.blocks(layer) {
                let mut keys: Vec<f32> = (0..len).map(number).collect();
                let mut q = vec![0.0; len * attention.group()];
                let rotation = Rotation {
                    attention: &attention,
                    pairing: shape.pairing,
                    eps: shape.eps,
                    q_norm: None,
                    k_norm: None,
                    is_normed_after: false,
                    angles: &angles,
                    pairs: 1,
                };
                let block = [block];
                let table = BlockTable::whole(&block);
                let chunk = QueryChunk { first_row: 0, rows: BLOCK_LEN, position: 0, table };
                let to = self.cache.layer_mut(layer);
                let rows = (&mut q[..], &mut keys[..], &values[..]);
                store(&self.pool, &rotation, std::iter::once(chunk), to, rows);
            }
        }
    }

    /// Makes one path add superblocks in the wrong order (tests only).
    #[cfg(test)]
    pub(crate) fn plant_bug(&mut self) {
        self.scratch.plant_bug();
    }
}
