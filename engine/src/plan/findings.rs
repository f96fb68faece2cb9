//! All that speaks against a model, and its layout as far as it can be told: [`ModelLayout::new`] ends with
//! the first reason, a person who converts a file wants every one.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::ModelLayout;
use crate::arch::error::ArchError;
use crate::arch::families::FAMILIES;
use crate::arch::tensors;
use crate::arch::{Arch, LayerKind};
use crate::gguf::{Gguf, Problem};

/// Keys that are refused one after the other at most.
const KEYS_MAX: usize = 32;

/// What was found of a model.
#[derive(Debug, Default)]
pub struct Findings {
    /// Its layout, if metadata and tensors give one; whether it can be computed is another matter.
    pub layout: Option<ModelLayout>,
    /// What each layer is, if the metadata say it.
    pub kinds: Vec<LayerKind>,
    /// Why it is refused, a sentence each; what is the same in several layers is said once.
    pub refusals: Vec<String>,
}

impl Findings {
    /// Looks at the metadata, and at the tensors. If the files were not read to their ends (`is_whole`), what
    /// is absent is not missed.
    pub fn of(gguf: &Gguf, is_whole: bool) -> Findings {
        let refusals = refused_keys(gguf, is_whole);
        let arch = if refusals.is_empty() { Arch::declared(gguf, &FAMILIES).ok() } else { None };
        let Some(arch) = arch else {
            return Findings { refusals, ..Findings::default() };
        };
        let mut findings = Findings { layout: None, kinds: Vec::new(), refusals };
        findings.kinds = arch.layers.iter().map(|layer| layer.kind()).collect();
        findings.refusals.extend(not_computed(&arch));
        let wrong = wrong_tensors(gguf, &arch, is_whole);
        if wrong.is_empty() && is_whole {
            match ModelLayout::of(gguf, arch) {
                Ok(layout) => findings.layout = Some(layout),
                Err(error) => findings.refusals.push(error.to_string()),
            }
        }
        findings.refusals.extend(wrong);
        findings
    }
}

/// The keys that are refused: each is left out after it was found, until nothing more is refused or what is
/// refused follows from a key that was left out.
fn refused_keys(gguf: &Gguf, is_whole: bool) -> Vec<String> {
    let (mut gguf, mut refusals) = (gguf.clone(), Vec::new());
    let mut left_out: BTreeSet<String> = BTreeSet::new();
    while refusals.len() < KEYS_MAX {
        let Err(error) = Arch::declared(&gguf, &FAMILIES) else { break };
        let text = error.to_string();
        let ArchError::Gguf(error) = error else {
            refusals.push(text);
            break;
        };
        let is_absent =
            matches!(error.problem(), Problem::MissingKey { .. } | Problem::MissingTensor { .. });
        if is_absent && !is_whole || left_out.iter().any(|key| names(&text, key)) {
            break;
        }
        refusals.push(text);
        match error.problem() {
            Problem::KeyValue { key, .. } | Problem::KeyType { key, .. } => {
                gguf = gguf.with_metadata(gguf.metadata().without(key));
                left_out.insert(key.clone());
            }
            _ => break,
        }
    }
    refusals
}

/// Whether a sentence names the key as a word.
fn names(text: &str, key: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    text.match_indices(key).any(|(at, _)| !text[at + key.len()..].starts_with(is_part))
}

/// What layers have that is declared and not computed.
fn not_computed(arch: &Arch) -> Vec<String> {
    let found = (0u32..).zip(&arch.layers).filter_map(|(index, layer)| {
        let what = layer.not_computed()?;
        let text = ArchError::NotComputed { layer: index, what }.to_string();
        Some((text.replacen(&format!("layer {index} "), "layer N ", 1), Some(index)))
    });
    said_once(found)
}

/// Tensors that are missing, unknown, or of another shape or type than the metadata say.
fn wrong_tensors(gguf: &Gguf, arch: &Arch, is_whole: bool) -> Vec<String> {
    let found = gguf.tensors().iter().filter_map(|tensor| {
        tensors::role(tensor, arch).err().map(|error| pattern(&error.to_string(), &tensor.name))
    });
    let missing = tensors::required(arch).filter(|name| is_whole && gguf.tensor(name).is_none());
    let missing = missing.map(|name| {
        let text = ArchError::MissingTensor { name: name.clone() }.to_string();
        pattern(&text, &name)
    });
    said_once(found.chain(missing))
}

/// A sentence with `blk.N.` for the number of the tensor's layer, and the number.
fn pattern(text: &str, name: &str) -> (String, Option<u32>) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
    match layer.and_then(|layer| layer.parse::<u32>().ok()) {
        Some(layer) => (text.replace(&format!("blk.{layer}."), "blk.N."), Some(layer)),
        None => (text.to_owned(), None),
    }
}

/// Sentences that are the same for several layers once, with the layers: in the order in which they came.
fn said_once(found: impl Iterator<Item = (String, Option<u32>)>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut layers: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (text, layer) in found {
        if !layers.contains_key(&text) {
            order.push(text.clone());
        }
        layers.entry(text).or_default().extend(layer);
    }
    let said = order.into_iter().map(|text| {
        let of: Vec<u32> = layers[&text].iter().copied().collect();
        match of[..] {
            [] => text,
            [one] => text
                .replace("blk.N.", &format!("blk.{one}."))
                .replace("layer N ", &format!("layer {one} ")),
            _ => format!("{text} (N is {})", ranges(&of)),
        }
    });
    said.collect()
}

/// Ascending numbers as `0 to 3, 5, 7 to 9`.
fn ranges(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == number => run.1 = number,
            _ => runs.push((number, number)),
        }
    }
    let said = runs.iter().map(|&(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first} to {last}"),
    });
    said.collect::<Vec<_>>().join(", ")
}
