//! The flags of `inspect`.

use clap::Args;
use std::path::PathBuf;
use woolly_protocol::limits::CTX_MAX;

/// The flags of `inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// The model: a GGUF file, or any part of a split one (NAME-00001-of-0000N.gguf)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Positions of a sequence whose cache is reckoned; 0 is all that the model was trained for
    /// [default: that of serve, the model's and at most 8192]
    #[arg(short, long, value_name = "TOKENS")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(CTX_MAX)))]
    pub ctx_size: Option<u32>,
    /// Read the weights of MXFP4, too, and name scales that stand for no number
    #[arg(long)]
    pub weights: bool,
    /// One JSON object instead of lines for people; docs/models.md explains it
    #[arg(long)]
    pub json: bool,
}
