//! The KV cache of one stage: blocks of 32 positions, allocated once when the stage is loaded.
//!
//! ```text
//! layer → block → kv head → position in block → head width     f16; keys and values apart
//! ```
//!
//! Only the coordinator allocates blocks. What a slot holds before it is written is never read.

/// Positions per block.
pub const BLOCK_LEN: usize = 32;

/// The cache of all layers of a stage.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Layer>,
    blocks: usize,
    kv_heads: usize,
    head_dim: usize,
}

#[derive(Debug)]
struct Layer {
    keys: Vec<u16>,
    values: Vec<u16>,
}

impl Cache {
    /// An empty cache of `blocks` blocks for each of `layers` layers.
    ///
    /// The memory is zeroed lazily by the system; pages are touched when a block is first written.
    pub fn new(layers: usize, blocks: usize, kv_heads: usize, head_dim: usize) -> Self {
        let len = blocks * kv_heads * BLOCK_LEN * head_dim;
        let layers =
            (0..layers).map(|_| Layer { keys: vec![0; len], values: vec![0; len] }).collect();
        Self { layers, blocks, kv_heads, head_dim }
    }

    /// Bytes of the whole cache.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|l| 2 * (l.keys.len() + l.values.len()) as u64).sum()
    }

    /// Blocks per layer.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Fills every slot with NaN: what is read without having been written shows.
    pub fn poison(&mut self) {
        for layer in &mut self.layers {
            layer.keys.fill(0x7e00);
            layer.values.fill(0x7e00);
        }
    }

    /// Writes the keys and values, `[kv_heads, head_dim]` each, of one position.
    pub fn write(&mut self, layer: usize, block: u32, offset: usize, keys: &[f32], values: &[f32]) {
        use half::slice::HalfFloatSliceExt;
        assert!(offset < BLOCK_LEN, "a position inside its block");
        let (heads, dim) = (self.kv_heads, self.head_dim);
        let layer = &mut self.layers[layer];
        for head in 0..heads {
            let at = ((block as usize * heads + head) * BLOCK_LEN + offset) * dim;
            let from = head * dim..(head + 1) * dim;
            let to = bytemuck::cast_slice_mut::<u16, half::f16>(&mut layer.keys[at..at + dim]);
            to.convert_from_f32_slice(&keys[from.clone()]);
            let to = bytemuck::cast_slice_mut::<u16, half::f16>(&mut layer.values[at..at + dim]);
            to.convert_from_f32_slice(&values[from]);
        }
    }

    /// The cache of one layer, for reading.
    pub fn layer(&self, layer: usize) -> LayerCache<'_> {
        let Layer { keys, values } = &self.layers[layer];
        LayerCache { keys, values, kv_heads: self.kv_heads, tile: BLOCK_LEN * self.head_dim }
    }
}

/// Keys and values of one layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerCache<'a> {
    keys: &'a [u16],
    values: &'a [u16],
    kv_heads: usize,
    tile: usize,
}

impl<'a> LayerCache<'a> {
    /// The keys of one block and head, `[32, head_dim]` halves.
    #[inline(always)]
    pub fn keys(&self, block: u32, kv_head: usize) -> &'a [u16] {
        let at = (block as usize * self.kv_heads + kv_head) * self.tile;
        &self.keys[at..at + self.tile]
    }

    /// The values of one block and head, `[32, head_dim]` halves.
    #[inline(always)]
    pub fn values(&self, block: u32, kv_head: usize) -> &'a [u16] {
        let at = (block as usize * self.kv_heads + kv_head) * self.tile;
        &self.values[at..at + self.tile]
    }
}
