//! Why a model cannot be planned, with the numbers that decide it.

use std::fmt;

use crate::arch::error::ArchError;
use crate::gguf::GgufError;

/// A model whose tensors are not those of its architecture, or workers that cannot hold it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence says what its fields are")]
pub enum PlanError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error("there is no worker to place the model on")]
    NoMembers,
    #[error("the context is {found} positions, expected 1 to {limit}")]
    Context { found: u32, limit: u32 },
    #[error("the cut {found} names {stages} stages, but there are {members} workers")]
    CutStages { found: String, stages: usize, members: usize },
    #[error(
        "the cut {found} has {sum} layers, expected {layers} in all and at least one in each stage"
    )]
    CutLayers { found: String, sum: u64, layers: u32 },
    #[error(
        "stage {stage} (layers {first} to {last}) misses {}: it needs {} for {}, {} to compute and {} \
         for the KV cache of one context of {ctx_size} positions, and {limit}. All workers together \
         may use {}, and the model needs {}. {}, or lower --ctx-size",
        Bytes(*missing), Bytes(*weights), of_weights(*is_from_disk), Bytes(*scratch), Bytes(*kv),
        Bytes(*total_allowance), Bytes(*total_needed), limit.remedy(*is_from_disk)
    )]
    Memory {
        stage: usize,
        first: u32,
        last: u32,
        missing: u64,
        weights: u64,
        is_from_disk: bool,
        scratch: u64,
        kv: u64,
        ctx_size: u32,
        limit: MemoryLimit,
        total_allowance: u64,
        total_needed: u64,
    },
}

/// What holds a worker back, and how many bytes it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// `--kv-memory`, for the KV cache alone.
    KvCache(u64),
    /// The worker's own: `--memory`, or its cgroup's.
    Own(u64),
    /// What the workers of one machine share.
    Machine(u64),
}

/// What the weights are that a stage needs memory for.
fn of_weights(is_from_disk: bool) -> &'static str {
    if is_from_disk {
        "those of its weights that cannot be left on the disk"
    } else {
        "its weights"
    }
}

impl MemoryLimit {
    /// What the operator can do. `is_from_disk` if weights are left on the disk already.
    fn remedy(self, is_from_disk: bool) -> String {
        let first = match self {
            MemoryLimit::KvCache(_) => {
                return "Raise --kv-memory or leave it out, add a worker".into();
            }
            MemoryLimit::Own(_) => "Raise --memory or the limit of its cgroup, add a worker",
            MemoryLimit::Machine(_) => "Add a worker or memory, give it more with --memory",
        };
        let slow =
            ", have it read what does not fit from its disk, slowly, with --weights-from-disk";
        format!("{first}{}", if is_from_disk { "" } else { slow })
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            MemoryLimit::KvCache(bytes) => {
                write!(f, "--kv-memory allows {} for the KV cache there", Bytes(bytes))
            }
            MemoryLimit::Own(bytes) => {
                let bytes = Bytes(bytes);
                write!(f, "{bytes} may be used there, by --memory or its cgroup's limit")
            }
            MemoryLimit::Machine(bytes) => {
                let bytes = Bytes(bytes);
                write!(
                    f,
                    "{bytes} may be used there, 80 % of the machine's memory unless --memory says more"
                )
            }
        }
    }
}

/// A number of bytes for people: exact below 10 KiB, else in binary units with one decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit && self.0 >= 10 << 10) {
            Some((unit, name)) => {
                // Tenths in whole numbers, so that the last digit is never a rounding artefact.
                let tenths = u128::from(self.0) * 10 / u128::from(unit);
                write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}
