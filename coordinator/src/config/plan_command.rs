//! The flags of `plan`.

use super::{CTX_MAX, CacheDirArgs, ObjectiveArgs, parse_cache_type};
use crate::units::parse_size;
use clap::Args;
use std::path::PathBuf;
use woolly_engine::plan::KvType;

/// The flags of `plan`; those that `serve` has, too, mean the same.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The model: a GGUF file, any part of a split one, or the name of a downloaded model
    #[arg(value_name = "FILE", conflicts_with = "model", required_unless_present = "model")]
    pub file: Option<PathBuf>,
    /// The same as FILE
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// A TOML file with the machines and the links between them, such as deploy/machines.toml; docs/planning.md
    /// explains it [default: this machine alone, measured now]
    #[arg(long, value_name = "FILE")]
    pub workers: Option<PathBuf>,
    /// Cut the layers when this many workers have joined, in the order of the file, as --workers of serve says: the
    /// others are spares, unless these are too small [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub wait_for: Option<u32>,
    /// Longest sequence in tokens, prompt and completion together; 0 is all that the model was trained for
    /// [default: the model's, at most 8192]
    #[arg(short, long, value_name = "TOKENS")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(CTX_MAX)))]
    pub ctx_size: Option<u32>,
    /// How keys and values are held: f16 or q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = parse_cache_type)]
    pub cache_type: KvType,
    /// Memory for the KV cache on each worker, bytes such as 512MiB [default: what the file says, else what is left,
    /// at most 16 sequences of full length]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub kv_memory: Option<u64>,
    /// Layers of each stage in the order of the file, such as 17,11 [default: what suits --objective]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub cut: Option<Vec<u32>>,
    /// Where downloaded models are.
    #[command(flatten)]
    pub downloads: CacheDirArgs,
    /// What the layers are cut for.
    #[command(flatten)]
    pub objective: ObjectiveArgs,
    /// One JSON object instead of lines for people; docs/planning.md explains it
    #[arg(long)]
    pub json: bool,
}
