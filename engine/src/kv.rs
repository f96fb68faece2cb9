//! The KV cache of one stage: blocks of 32 positions, allocated once when the stage is loaded.
//!
//! ```text
//! layer → block → kv head → tile       keys and values apart
//! tile of keys    head width × 32 positions
//! tile of values  32 positions × head width
//! ```
//!
//! Keys lie with positions side by side, so that scores of neighbouring positions are neighbouring
//! lanes; values with the head's width side by side, for the same reason. A tile holds halves, or
//! signed bytes followed by one half per 32 values of a position: the scale.
//!
//! Layers that forget by the same rule are one cache group: they have as many blocks as each other, and a
//! sequence has one block table for all of them. Only the coordinator allocates blocks. What a slot holds
//! before it is written is never used.

use crate::limits::BLOCK_LEN;
use crate::memory::Buffer;

/// Values of a position that share a scale, if the cache has scales.
pub const SCALE_LEN: usize = 32;

/// How keys and values are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Halves: 16 bits per value.
    #[default]
    F16,
    /// Signed bytes with a half-precision scale per 32 values: 8.5 bits per value.
    Q8_0,
}

impl KvType {
    /// Every type.
    pub const ALL: [Self; 2] = [Self::F16, Self::Q8_0];

    /// Its name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes of a tile: the keys or the values of 32 positions of a head.
    pub fn tile_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F16 => 2 * BLOCK_LEN * head_dim,
            Self::Q8_0 => BLOCK_LEN * (head_dim + 2 * head_dim.div_ceil(SCALE_LEN)),
        }
    }
}

/// The blocks of one cache group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBlocks {
    /// Positions that its layers remember, the present one included; `None` remembers all.
    pub window: Option<u32>,
    /// Blocks of 32 positions for each of its layers.
    pub count: u32,
}

impl GroupBlocks {
    /// The place in the sequence of the first block that a row at `position` reads.
    pub fn first_read(&self, position: u32) -> u32 {
        let begin = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        begin / BLOCK_LEN as u32
    }
}

/// A sequence's blocks in one cache group.
#[derive(Clone, Copy, Debug)]
pub struct BlockTable<'a> {
    /// The place of the first in the sequence: 0 unless a window has left blocks behind.
    pub first: u32,
    /// In order of position, without a gap.
    pub blocks: &'a [u32],
}

impl<'a> BlockTable<'a> {
    /// A table of all blocks of a sequence.
    pub fn whole(blocks: &'a [u32]) -> Self {
        Self { first: 0, blocks }
    }

    /// The block at `place` in the sequence.
    ///
    /// # Panics
    ///
    /// If the table does not have it.
    #[inline(always)]
    pub fn block(&self, place: usize) -> u32 {
        self.blocks[place - self.first as usize]
    }
}

/// The cache of all layers of a stage.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Layer>,
    shape: CacheShape,
}

/// What is the same for all tiles.
#[derive(Clone, Copy, Debug)]
pub struct CacheShape {
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// How values are held.
    pub ty: KvType,
}

impl CacheShape {
    /// Where the tile of a block and head starts.
    #[inline(always)]
    pub fn tile(&self, block: u32, kv_head: usize) -> usize {
        (block as usize * self.kv_heads + kv_head) * self.ty.tile_bytes(self.head_dim)
    }
}

#[derive(Debug)]
struct Layer {
    /// Its cache group.
    group: usize,
    blocks: u32,
    keys: Buffer<u8>,
    values: Buffer<u8>,
}

impl Cache {
    /// An empty cache. Of each layer `layers` says its cache group and how many blocks that has.
    ///
    /// The memory is zeroed lazily by the system; pages are touched when a block is first written.
    pub fn new(layers: impl Iterator<Item = (usize, u32)>, shape: CacheShape) -> Self {
        let of_block = shape.kv_heads * shape.ty.tile_bytes(shape.head_dim);
        let layer = |(group, blocks): (usize, u32)| {
            let len = blocks as usize * of_block;
            Layer { group, blocks, keys: Buffer::new(len), values: Buffer::new(len) }
        };
        Self { layers: layers.map(layer).collect(), shape }
    }

    /// Bytes of the whole cache.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|l| (l.keys.bytes() + l.values.bytes()) as u64).sum()
    }

    /// Keeps the cache in memory.
    ///
    /// # Errors
    ///
    /// The system's, most often because the process may not lock that much.
    pub fn lock(&self) -> std::io::Result<()> {
        self.layers.iter().try_for_each(|l| l.keys.lock().and_then(|()| l.values.lock()))
    }

    /// Blocks of a layer.
    pub fn blocks(&self, layer: usize) -> u32 {
        self.layers[layer].blocks
    }

    /// The cache group of a layer.
    pub fn group(&self, layer: usize) -> usize {
        self.layers[layer].group
    }

    /// Fills every slot with NaN: what is read without having been written shows.
    pub fn poison(&mut self) {
        for layer in &mut self.layers {
            // As a half it is NaN, and so is the scale of bytes.
            layer.keys.fill(0x7e);
            layer.values.fill(0x7e);
        }
    }

    /// The cache of one layer, for reading.
    pub fn layer(&self, layer: usize) -> LayerCache<'_> {
        let Layer { keys, values, .. } = &self.layers[layer];
        LayerCache { keys, values, shape: self.shape }
    }

    /// The keys and the values of one layer, for writing.
    pub fn layer_mut(&mut self, layer: usize) -> (CacheShape, &mut [u8], &mut [u8]) {
        let Layer { keys, values, .. } = &mut self.layers[layer];
        (self.shape, keys, values)
    }
}

/// Keys and values of one layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerCache<'a> {
    keys: &'a [u8],
    values: &'a [u8],
    /// What its tiles are like.
    pub shape: CacheShape,
}

impl<'a> LayerCache<'a> {
    /// The tile of keys of one block and head.
    #[inline(always)]
    pub fn keys(&self, block: u32, kv_head: usize) -> &'a [u8] {
        let at = self.shape.tile(block, kv_head);
        &self.keys[at..at + self.shape.ty.tile_bytes(self.shape.head_dim)]
    }

    /// The tile of values of one block and head.
    #[inline(always)]
    pub fn values(&self, block: u32, kv_head: usize) -> &'a [u8] {
        let at = self.shape.tile(block, kv_head);
        &self.values[at..at + self.shape.ty.tile_bytes(self.shape.head_dim)]
    }
}
