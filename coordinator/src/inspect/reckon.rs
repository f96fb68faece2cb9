//! Bytes of a model: by format, by what tensors are for, and of one stage with all layers.

use super::report::{Cache, Format, Group, Memory, Parameters, Roles, Unused};
use crate::scheduler::ROWS_PER_STEP;
use std::collections::{BTreeMap, HashSet};
use woolly_engine::gguf::survey::SurveyTensor;
use woolly_engine::plan::{BLOCK_LEN, Findings, KvType, ModelLayout, scratch_bytes, window_blocks};

/// Tensors by their type, most bytes first.
pub fn formats(tensors: &[SurveyTensor]) -> Vec<Format> {
    let mut found: BTreeMap<String, Format> = BTreeMap::new();
    let all: u64 = tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes));
    for tensor in tensors {
        let format = tensor.format();
        let entry = found.entry(format.clone()).or_insert_with(|| {
            let is_supported = tensor.is_computed();
            Format { format, tensors: 0, bytes: 0, share: 0.0, is_supported }
        });
        entry.tensors += 1;
        entry.bytes = entry.bytes.saturating_add(tensor.bytes);
    }
    let mut formats: Vec<Format> = found.into_values().collect();
    for format in &mut formats {
        format.share = if all == 0 { 0.0 } else { format.bytes as f64 / all as f64 };
    }
    formats.sort_by_key(|format| std::cmp::Reverse(format.bytes));
    formats
}

/// The number of the layer that a tensor is of.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether a tensor is of all experts of its layer.
fn is_of_experts(name: &str) -> bool {
    name.contains("_exps.")
}

/// Tensors by what their names say that they are for.
pub fn roles(tensors: &[SurveyTensor]) -> Roles {
    let mut roles = Roles::default();
    for tensor in tensors {
        let name = tensor.name.as_str();
        let role = match layer_of(name) {
            Some(_) if is_of_experts(name) => &mut roles.experts,
            Some(_) => &mut roles.layers,
            None if name.starts_with("token_embd.") => &mut roles.embedding,
            None if name.starts_with("output.") || name.starts_with("output_norm.") => {
                &mut roles.head
            }
            None => &mut roles.other,
        };
        *role = role.saturating_add(tensor.bytes);
    }
    roles
}

/// Elements of all tensors, and of those that one token uses.
pub fn parameters(tensors: &[SurveyTensor], findings: &Findings) -> Parameters {
    let mut parameters = Parameters::default();
    for tensor in tensors {
        let elements = tensor.elements();
        let kind = layer_of(&tensor.name).and_then(|layer| findings.kinds.get(layer));
        let used = match kind.filter(|kind| is_of_experts(&tensor.name) && kind.experts > 0) {
            Some(kind) => (elements / kind.experts as u64).saturating_mul(kind.experts_used as u64),
            None => elements,
        };
        parameters.total = parameters.total.saturating_add(elements);
        parameters.of_a_token = parameters.of_a_token.saturating_add(used);
    }
    parameters
}

/// Tensors of the file that no slice of the model has.
pub fn unused(tensors: &[SurveyTensor], layout: &ModelLayout) -> Unused {
    let slices = layout.slices();
    let used: HashSet<&str> = slices
        .iter()
        .flat_map(|slice| layout.slice_tensors(*slice))
        .map(|tensor| tensor.name.as_str())
        .collect();
    let left = tensors.iter().filter(|tensor| !used.contains(tensor.name.as_str()));
    left.fold(Unused::default(), |sum, tensor| Unused {
        tensors: sum.tensors + 1,
        bytes: sum.bytes + tensor.bytes,
    })
}

/// What one stage with all layers takes, with sequences of so many positions.
pub fn memory(layout: &ModelLayout, context: u32) -> Memory {
    let layers = 0..layout.layers;
    let weights = layout.stage_bytes(layers.clone());
    let scratch = scratch_bytes(layout, &layers, ROWS_PER_STEP as u32);
    let cache = KvType::ALL.map(|ty| {
        let groups: Vec<(Group, u64)> = groups(layout, context, ty).collect();
        let bytes_per_sequence = groups.iter().map(|(_, bytes)| bytes).sum();
        Cache {
            cache_type: ty.name(),
            bytes_per_token: groups.iter().map(|(group, _)| group.bytes_per_token).sum(),
            bytes_per_sequence,
            bytes_in_all: weights + scratch + bytes_per_sequence,
            groups: groups.into_iter().map(|(group, _)| group).collect(),
        }
    });
    let read_for_a_token = layout.stage_bytes_per_token(layers);
    Memory { weights, scratch, read_for_a_token, cache: cache.into() }
}

/// The groups of layers that forget alike, each with its bytes for one sequence.
fn groups(
    layout: &ModelLayout,
    context: u32,
    ty: KvType,
) -> impl Iterator<Item = (Group, u64)> + '_ {
    layout.cache_groups().iter().map(move |group| {
        let block_bytes = layout.group_block_bytes(group, 0..layout.layers, ty);
        let first = group.layers.first().copied().unwrap_or(0) as usize;
        let window = layout.layer_shapes()[first].kind().window;
        let all = context.div_ceil(BLOCK_LEN);
        let of_window = |window| window_blocks(window, ROWS_PER_STEP as u32, BLOCK_LEN);
        let blocks = window.map_or(all, |window| {
            u32::try_from(of_window(window)).map_or(all, |blocks| blocks.min(all))
        });
        let said = Group {
            layers: group.layers.len(),
            window,
            positions: blocks * BLOCK_LEN,
            bytes_per_token: block_bytes / u64::from(BLOCK_LEN),
        };
        (said, block_bytes * u64::from(blocks))
    })
}
