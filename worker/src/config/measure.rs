//! The flags of `measure`.

use crate::machine::simd::Simd;
use crate::machine::system::parse_threads;
use crate::units::parse_size;
use clap::Args;
use woolly_protocol::check::is_name;

/// Flags of `measure`; those that `join` has, too, mean the same.
#[derive(Args, Clone, Debug)]
pub struct MeasureArgs {
    /// Compute threads, 1 to 1024 [default: the number of CPUs this process may use]
    #[arg(short = 't', long, value_name = "N", value_parser = parse_threads)]
    pub threads: Option<u32>,
    /// Instruction set of the kernels: auto, scalar, avx2, avxvnni, avx512 or neon
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = Simd::parse)]
    pub simd: Simd,
    /// Memory that the worker is to use, in bytes or as 512MiB, 4GiB [default: 80 % of the machine's]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Name of the machine, letters, digits, `.`, `_` and `-`, at most 64 [default: host name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub name: Option<String>,
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err("expected letters, digits, ., _ and -, at most 64 of them".to_owned())
}
