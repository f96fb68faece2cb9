//! What a model file consists of: slices, their tensors, their bytes and their place in a file.
//!
//! A slice is the unit that is fetched and mapped: the header of a part, the embedding, one layer,
//! or the head. A slice file holds the slice's tensors in the order of the model file, each at a
//! multiple of [`SLICE_ALIGNMENT`], with zeros between them:
//!
//! ```text
//! tensor 0 · zeros up to a multiple of 32 · tensor 1 · …        no zeros at the end
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::PlanError;
use super::names::{file_type, model_name};
use super::slice::{ByteRange, SLICE_ALIGNMENT, Skipped, SliceId, SlicePiece, SliceTensor};
use crate::arch::error::ArchError;
use crate::arch::layer::{CacheGroup, LayerShape};
use crate::arch::tensors::{self, Role};
use crate::arch::{Arch, Cost};
use crate::gguf::{Gguf, TensorInfo};
use crate::kv::KvType;

/// Positions of a KV block.
pub const BLOCK_LEN: u32 = crate::limits::BLOCK_LEN as u32;
/// Rows of a decode step that count as few: up to about so many, a step takes as long as reading the weights
/// does, and of a mixture's experts only those are read that these rows choose.
pub const FEW_ROWS: u32 = 4;
/// Rows of a decode step that count as many: of a dense model it multiplies longer than it reads, of a mixture it
/// may still read longer.
pub const MANY_ROWS: u32 = 32;
/// Rows of a prompt that are computed together, at most and unless configured.
pub const PREFILL_ROWS: u32 = 256;
/// Numbers of rows that every cut is weighed for: their sums are kept.
const WEIGHED_ROWS: [u32; 4] = [1, FEW_ROWS, MANY_ROWS, PREFILL_ROWS];

/// The tensors of a model sorted into slices, and the arithmetic of stages.
#[derive(Clone, Debug)]
pub struct ModelLayout {
    /// The model's name by its metadata, else its file's.
    pub name: String,
    /// GGUF's name of the architecture.
    pub architecture: String,
    /// Layers.
    pub layers: u32,
    /// Width of the hidden states, in values.
    pub hidden: u32,
    /// Width of the feed-forward network, in values.
    pub ffn: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Values of a head.
    pub head_dim: u32,
    /// Positions that the model was trained on.
    pub ctx_train: u32,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all part files.
    pub file_bytes: u64,
    /// How the weights are quantised: the file's own word, such as `Q4_K_M`, or the tensor type
    /// that holds most bytes.
    pub file_type: String,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
    /// What of the file is not used.
    pub skipped: Skipped,
    headers: Vec<ByteRange>,
    embedding: Slice,
    blocks: Vec<Slice>,
    shapes: Vec<LayerShape>,
    cache_groups: Vec<CacheGroup>,
    /// Of the layers before each, and of all; without the rotary frequencies, which all layers of a
    /// stage share.
    sums: Vec<Sum>,
    /// Bytes of the rotary frequencies.
    rope_bytes: u64,
    head: Slice,
}

/// What several layers are together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    /// Bytes of the tensors.
    pub(super) bytes: u64,
    /// Those of experts.
    pub(super) expert_bytes: u64,
    /// Those that are read to compute so many rows together, in the order of [`WEIGHED_ROWS`].
    pub(super) bytes_read: [u64; WEIGHED_ROWS.len()],
    /// Multiplications to compute one row.
    macs_per_row: u64,
    /// Bytes of a KV block of each type, in the order of [`KvType::ALL`].
    kv_block_bytes: [u64; KvType::ALL.len()],
}

/// The tensors of one slice.
#[derive(Clone, Debug, Default)]
struct Slice {
    tensors: Vec<SliceTensor>,
    /// Bytes of the slice file.
    len: u64,
    /// Bytes of the tensors.
    bytes: u64,
    /// What it takes to compute with them.
    cost: Cost,
}

impl ModelLayout {
    /// Sorts the tensors of `gguf`.
    ///
    /// # Errors
    /// Hyper-parameters that are refused; a layer that Woolly does not compute; a tensor of an
    /// unknown name; a layer, or a tensor of a layer, that is missing or too many.
    pub fn new(gguf: &Gguf) -> Result<Self, PlanError> {
        Self::of(gguf, Arch::new(gguf)?)
    }

    /// The layout of a model of this architecture, whether it can be computed or not.
    pub(crate) fn of(gguf: &Gguf, arch: Arch) -> Result<Self, PlanError> {
        let mut embedding = Vec::new();
        let mut rope_freqs = Vec::new();
        let mut head = Vec::new();
        let mut skipped = Vec::new();
        let mut blocks: BTreeMap<u32, Vec<(&TensorInfo, bool)>> = BTreeMap::new();
        for tensor in gguf.tensors() {
            match tensors::role(tensor, &arch)? {
                Role::Embedding => embedding.push(tensor),
                Role::RopeFreqs => rope_freqs.push(tensor),
                Role::Head => head.push(tensor),
                Role::Skipped => skipped.push(tensor),
                Role::Layer { index, is_of_experts } => {
                    blocks.entry(index).or_default().push((tensor, is_of_experts));
                }
            }
        }
        let tied = gguf.tensor(tensors::OUTPUT).is_none();
        if tied {
            head.extend(&embedding);
        }
        if let Some(name) = tensors::required(&arch).find(|name| gguf.tensor(name).is_none()) {
            return Err(ArchError::MissingTensor { name }.into());
        }
        let blocks = blocks.into_values().zip(&arch.layers).map(|(tensors, shape)| {
            let cost = Cost::new(shape.feed_forward, tensors.iter().copied());
            let rope_freqs = rope_freqs.iter().map(|tensor| (*tensor, false));
            Slice::new(tensors.into_iter().chain(rope_freqs).collect(), cost)
        });
        let blocks: Vec<Slice> = blocks.collect();
        let rope_bytes = rope_freqs.iter().map(|tensor| tensor.len).sum();
        let mut sums = vec![Sum::default()];
        for (index, (block, shape)) in blocks.iter().zip(&arch.layers).enumerate() {
            sums.push(sums[index].and(block, block.bytes - rope_bytes, shape));
        }
        let cache_groups = arch.cache_groups();
        let Arch { hyper, layers: shapes, .. } = arch;
        Ok(Self {
            name: model_name(gguf)?,
            layers: hyper.layers,
            hidden: hyper.hidden,
            ffn: hyper.ffn,
            vocab: hyper.vocab,
            heads: hyper.heads,
            kv_heads: hyper.kv_heads,
            head_dim: hyper.head_dim_k,
            ctx_train: hyper.ctx_train,
            parameters: gguf.tensors().iter().map(TensorInfo::elements).sum(),
            file_bytes: gguf.parts().iter().map(|part| part.size).sum(),
            file_type: file_type(gguf)?,
            tied,
            skipped: Skipped {
                layers: hyper.skipped_layers,
                tensors: skipped.len(),
                bytes: skipped.iter().map(|tensor| tensor.len).sum(),
            },
            headers: headers(gguf),
            embedding: Slice::whole(embedding),
            blocks,
            sums,
            rope_bytes,
            head: Slice::whole(head),
            shapes,
            cache_groups,
            architecture: hyper.architecture,
        })
    }

    /// Every slice of the model: headers, embedding, layers in order, head.
    pub fn slices(&self) -> Vec<SliceId> {
        let headers = (0..self.headers.len()).map(|part| SliceId::Header(part as u32));
        headers.chain(self.stage_slices(0..self.layers)).collect()
    }

    /// Whether the model has this slice.
    pub fn has_slice(&self, id: SliceId) -> bool {
        match id {
            SliceId::Header(part) => (part as usize) < self.headers.len(),
            SliceId::Layer(layer) => layer < self.layers,
            SliceId::Embedding | SliceId::Head => true,
        }
    }

    /// The slice's tensors in the order of the model file; none for a header.
    ///
    /// # Panics
    /// If the model does not have the slice, as do the other functions that take one.
    pub fn slice_tensors(&self, id: SliceId) -> &[SliceTensor] {
        self.slice(id).map_or(&[], |slice| &slice.tensors)
    }

    /// What the slice file consists of, in order.
    pub fn slice_ranges(&self, id: SliceId) -> Vec<SlicePiece> {
        let Some(slice) = self.slice(id) else {
            return vec![SlicePiece::Source(self.header(id))];
        };
        let mut pieces = Vec::with_capacity(2 * slice.tensors.len());
        let mut end = 0;
        for tensor in &slice.tensors {
            if tensor.at > end {
                pieces.push(SlicePiece::Zeros(tensor.at - end));
            }
            pieces.push(SlicePiece::Source(tensor.source));
            end = tensor.at + tensor.source.len;
        }
        pieces
    }

    /// Bytes of the slice file.
    pub fn slice_len(&self, id: SliceId) -> u64 {
        self.slice(id).map_or_else(|| self.header(id).len, |slice| slice.len)
    }

    /// The slices of a stage with these layers, headers excepted: the embedding if it starts at 0,
    /// the head if it ends with the last.
    pub fn stage_slices(&self, layers: Range<u32>) -> Vec<SliceId> {
        let embedding = (layers.start == 0).then_some(SliceId::Embedding);
        let head = (layers.end == self.layers).then_some(SliceId::Head);
        embedding.into_iter().chain(layers.map(SliceId::Layer)).chain(head).collect()
    }

    /// Bytes of the tensors of a stage with these layers, each tensor counted once.
    pub fn stage_bytes(&self, layers: Range<u32>) -> u64 {
        let embedding = if layers.start == 0 { self.embedding.bytes } else { 0 };
        let head = match (layers.end == self.layers, self.tied && layers.start == 0) {
            (true, true) => self.head.bytes - self.embedding.bytes,
            (true, false) => self.head.bytes,
            (false, _) => 0,
        };
        embedding + self.shared_bytes(&layers) + self.sum(&layers, |sum| sum.bytes) + head
    }

    /// Bytes that a stage with these layers reads to decode one token: its layers and the head, but
    /// of the embedding one row only.
    pub fn stage_bytes_per_token(&self, layers: Range<u32>) -> u64 {
        self.stage_bytes_read(layers, 1)
    }

    /// Bytes that a stage with these layers reads to decode so many tokens together: as
    /// [`stage_bytes_per_token`](Self::stage_bytes_per_token), and more only of experts and embedding.
    pub fn stage_bytes_read(&self, layers: Range<u32>, rows: u32) -> u64 {
        let head = if layers.end == self.layers { self.head.bytes } else { 0 };
        self.stage_prefill_bytes_read(layers, rows) + head
    }

    /// Bytes that a stage with these layers reads to compute so many tokens of a prompt together: without
    /// the head.
    pub fn stage_prefill_bytes_read(&self, layers: Range<u32>, rows: u32) -> u64 {
        let row = self.embedding.bytes / u64::from(self.vocab);
        let embedding = if layers.start == 0 { u64::from(rows) * row } else { 0 };
        self.layers_read(&layers, rows) + embedding + self.shared_bytes(&layers)
    }

    /// Bytes that so many rows together read of the layers' own.
    pub(super) fn layers_read(&self, layers: &Range<u32>, rows: u32) -> u64 {
        match WEIGHED_ROWS.iter().position(|&weighed| weighed == rows) {
            Some(at) => self.sum(layers, |sum| sum.bytes_read[at]),
            None => layers.clone().map(|layer| self.layer_cost(layer).bytes_read(rows)).sum(),
        }
    }

    /// Multiplications of a stage with these layers for one token that is decoded, attention scores
    /// excepted; the head is counted, as for a token that is sampled.
    pub fn stage_macs_per_token(&self, layers: Range<u32>) -> u64 {
        let head = if layers.end == self.layers { self.head.cost.macs(1) } else { 0 };
        self.stage_prefill_macs_per_token(layers) + head
    }

    /// Multiplications of a stage with these layers for one token of a prompt, attention scores and
    /// head excepted: of a prompt only the last token is sampled after.
    pub fn stage_prefill_macs_per_token(&self, layers: Range<u32>) -> u64 {
        self.sum(&layers, |sum| sum.macs_per_row)
    }

    /// What a forward of the layer costs, as functions of its rows.
    pub fn layer_cost(&self, layer: u32) -> &Cost {
        &self.blocks[layer as usize].cost
    }

    /// The shapes of the layers, in order.
    pub fn layer_shapes(&self) -> &[LayerShape] {
        &self.shapes
    }

    /// Layers that remember alike, in the order of their first layers.
    pub fn cache_groups(&self) -> &[CacheGroup] {
        &self.cache_groups
    }

    /// Bytes of one KV block of this type on a stage with these layers: keys and values of
    /// [`BLOCK_LEN`] positions.
    pub fn kv_block_bytes(&self, layers: Range<u32>, kv_type: KvType) -> u64 {
        self.sum(&layers, |sum| sum.kv_block_bytes[kv_type as usize])
    }

    /// As [`kv_block_bytes`](Self::kv_block_bytes), of those of the layers that are in the group.
    pub fn group_block_bytes(
        &self,
        group: &CacheGroup,
        layers: Range<u32>,
        kv_type: KvType,
    ) -> u64 {
        let own = group.layers.iter().filter(|layer| layers.contains(layer));
        own.map(|&layer| self.shapes[layer as usize].kv_block_bytes(kv_type)).sum()
    }

    /// What all layers of a stage share.
    fn shared_bytes(&self, layers: &Range<u32>) -> u64 {
        if layers.is_empty() { 0 } else { self.rope_bytes }
    }

    pub(super) fn sum(&self, layers: &Range<u32>, of: impl Fn(&Sum) -> u64) -> u64 {
        of(&self.sums[layers.end as usize]) - of(&self.sums[layers.start as usize])
    }

    fn slice(&self, id: SliceId) -> Option<&Slice> {
        match id {
            SliceId::Header(_) => None,
            SliceId::Embedding => Some(&self.embedding),
            SliceId::Layer(layer) => Some(&self.blocks[layer as usize]),
            SliceId::Head => Some(&self.head),
        }
    }

    fn header(&self, id: SliceId) -> ByteRange {
        match id {
            SliceId::Header(part) => self.headers[part as usize],
            _ => unreachable!("only headers have no tensors"),
        }
    }
}

impl Sum {
    /// With one more layer, whose tensors have so many bytes.
    fn and(self, block: &Slice, bytes: u64, shape: &LayerShape) -> Self {
        let mut kv_block_bytes = self.kv_block_bytes;
        for ty in KvType::ALL {
            kv_block_bytes[ty as usize] += shape.kv_block_bytes(ty);
        }
        Self {
            bytes: self.bytes + bytes,
            expert_bytes: self.expert_bytes + block.cost.expert_bytes(),
            bytes_read: std::array::from_fn(|at| {
                self.bytes_read[at] + block.cost.bytes_read(WEIGHED_ROWS[at])
            }),
            macs_per_row: self.macs_per_row + block.cost.macs(1),
            kv_block_bytes,
        }
    }
}

impl Slice {
    /// A slice all of which is used for every row.
    fn whole(tensors: Vec<&TensorInfo>) -> Self {
        let cost = Cost::whole(tensors.iter().copied());
        Self::new(tensors.into_iter().map(|tensor| (tensor, false)).collect(), cost)
    }

    /// A slice of these tensors; those with `true` are of experts.
    fn new(mut tensors: Vec<(&TensorInfo, bool)>, cost: Cost) -> Self {
        tensors.sort_by_key(|(tensor, _)| (tensor.part, tensor.offset));
        let mut slice = Self { cost, ..Self::default() };
        for (tensor, is_of_experts) in tensors {
            let at = slice.len.next_multiple_of(SLICE_ALIGNMENT);
            let part = u32::try_from(tensor.part).expect("a model has few parts");
            let source = ByteRange { part, offset: tensor.offset, len: tensor.len };
            let name = tensor.name.clone();
            slice.tensors.push(SliceTensor { name, source, at, is_of_experts });
            slice.len = at + tensor.len;
            slice.bytes += tensor.len;
        }
        slice
    }
}

fn headers(gguf: &Gguf) -> Vec<ByteRange> {
    let parts = gguf.parts().iter().zip(0..);
    parts.map(|(part, index)| ByteRange { part: index, offset: 0, len: part.data_start }).collect()
}
