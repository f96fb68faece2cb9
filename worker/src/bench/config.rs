//! Flags of `bench`, and what they mean once they are checked.

use crate::machine::simd::Simd;
use crate::machine::system::{parse_threads, threads_available};
use crate::weights::pages::Pages;
use clap::Args;
use std::path::PathBuf;
use woolly_engine::kv::KvType;

/// Tokens of one test, and positions before it, at most.
const TOKENS_MAX: i64 = 1 << 20;
/// Sequences that decode together at most: as many as a prefill has rows.
const BATCH_MAX: i64 = 512;
/// Repetitions at most.
const REPETITIONS_MAX: i64 = 1000;
/// Bytes that the read probe reads: many times what caches hold.
const PROBE_BYTES: u64 = 2 << 30;
/// Values of one list at most.
const LIST_MAX: usize = 64;

/// Flags of `bench`, as typed.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// The model's GGUF file, of several parts the first
    #[arg(long, value_name = "FILE", env = "WOOLLY_MODEL")]
    pub model: PathBuf,
    /// Prefill: tokens of one sequence, in chunks of at most 512; 0 measures none
    #[arg(short = 'p', value_name = "TOKENS,…", value_delimiter = ',', default_value = "512",
          value_parser = clap::value_parser!(u32).range(0..=TOKENS_MAX))]
    pub prefill: Vec<u32>,
    /// Decode: tokens of each sequence, one after another; 0 measures none
    #[arg(short = 'n', value_name = "TOKENS,…", value_delimiter = ',', default_value = "64",
          value_parser = clap::value_parser!(u32).range(0..=TOKENS_MAX))]
    pub decode: Vec<u32>,
    /// Decode: sequences that are computed together
    #[arg(short = 'b', value_name = "SEQUENCES,…", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    pub batch: Vec<u32>,
    /// Compute threads [default: the number of CPUs this process may use]
    #[arg(short = 't', long, value_name = "N,…", value_delimiter = ',', env = "WOOLLY_THREADS",
          value_parser = parse_threads)]
    pub threads: Vec<u32>,
    /// Positions of every sequence that are in the cache before a test begins
    #[arg(long, value_name = "POSITIONS,…", value_delimiter = ',', default_value = "0",
          value_parser = clap::value_parser!(u32).range(0..=TOKENS_MAX))]
    pub depth: Vec<u32>,
    /// Type of the KV cache: f16 or q8_0
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',', default_value = "f16",
          value_parser = parse_kv)]
    pub kv: Vec<KvType>,
    /// Runs of each test that count; one more warms up
    #[arg(long, value_name = "N", default_value = "5",
          value_parser = clap::value_parser!(u32).range(1..=REPETITIONS_MAX))]
    pub repetitions: u32,
    /// Instruction set: auto, scalar, avx2, avxvnni, avx512 or neon. The limits are
    /// measured with the best one all the same
    #[arg(long, value_name = "LEVEL", env = "WOOLLY_SIMD", default_value = "auto",
          value_parser = Simd::parse)]
    pub simd: Simd,
    /// How the weights are held in memory.
    #[command(flatten)]
    pub pages: Pages,
    /// One JSON object per figure and line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What is to be measured, checked.
#[derive(Clone, Debug)]
pub struct BenchConfig {
    /// The model's file.
    pub model: PathBuf,
    /// Tokens of the prefills; none to measure none.
    pub prefill: Vec<u32>,
    /// Tokens of the decodes; none to measure none.
    pub decode: Vec<u32>,
    /// Sequences of the decodes.
    pub batch: Vec<u32>,
    /// Compute threads.
    pub threads: Vec<u32>,
    /// Positions before each test.
    pub depth: Vec<u32>,
    /// Types of the cache.
    pub kv: Vec<KvType>,
    /// Runs that count.
    pub repetitions: u32,
    /// Instruction set of the kernels.
    pub simd: Simd,
    /// How the weights are held in memory.
    pub pages: Pages,
    /// JSON instead of a table.
    pub json: bool,
    /// Bytes that the threads of the read probe read together, if there is memory for them.
    pub probe_bytes: u64,
}

impl BenchArgs {
    /// Checks the flags.
    ///
    /// # Errors
    ///
    /// All mistakes, one line each with the name of its flag.
    pub fn resolve(self) -> Result<BenchConfig, String> {
        let mut mistakes = Vec::new();
        let lists = [
            ("-p", self.prefill.len()),
            ("-n", self.decode.len()),
            ("-b", self.batch.len()),
            ("-t", self.threads.len()),
            ("--depth", self.depth.len()),
            ("--kv", self.kv.len()),
        ];
        for (flag, len) in lists.into_iter().filter(|(_, len)| *len > LIST_MAX) {
            mistakes.push(format!("{flag}: {len} values, expected at most {LIST_MAX}"));
        }
        let mut some = |flag: &str, list: Vec<u32>| match list.as_slice() {
            [0] => Vec::new(),
            _ if list.contains(&0) => {
                mistakes.push(format!("{flag}: 0 stands alone; it measures none"));
                Vec::new()
            }
            _ => list,
        };
        let (prefill, decode) = (some("-p", self.prefill), some("-n", self.decode));
        if mistakes.is_empty() && prefill.is_empty() && decode.is_empty() {
            mistakes.push("-p, -n: both are 0, there is nothing to measure".to_owned());
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        let threads =
            if self.threads.is_empty() { vec![threads_available()] } else { self.threads };
        Ok(BenchConfig {
            model: self.model,
            prefill,
            decode,
            batch: self.batch,
            threads,
            depth: self.depth,
            kv: self.kv,
            repetitions: self.repetitions,
            simd: self.simd,
            pages: self.pages,
            json: self.json,
            probe_bytes: PROBE_BYTES,
        })
    }
}

fn parse_kv(text: &str) -> Result<KvType, String> {
    let named = KvType::ALL.into_iter().find(|ty| ty.name() == text);
    named.ok_or_else(|| format!("expected one of {}", KvType::ALL.map(KvType::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser;

    fn parse(words: &[&str]) -> Result<BenchConfig, String> {
        let words = ["woolly-worker", "bench", "--model", "m.gguf"].iter().chain(words);
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Bench(args) => args.resolve(),
            _ => unreachable!("the words begin with bench"),
        }
    }

    #[test]
    fn defaults_measure_one_prefill_and_one_decode() {
        let config = parse(&[]).unwrap();
        assert_eq!((config.prefill.as_slice(), config.decode.as_slice()), (&[512][..], &[64][..]));
        assert_eq!((config.batch.as_slice(), config.depth.as_slice()), (&[1][..], &[0][..]));
        assert_eq!(
            (config.kv.as_slice(), config.repetitions, config.json),
            (&[KvType::F16][..], 5, false)
        );
        assert_eq!(config.threads.len(), 1);
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let config = parse(&[
            "-p",
            "128,512",
            "-n",
            "64",
            "-b",
            "1,2,4,8,16",
            "-t",
            "1,2",
            "--depth",
            "0,4096",
            "--kv",
            "f16,q8_0",
            "--repetitions",
            "3",
            "--simd",
            "scalar",
            "--json",
        ])
        .unwrap();
        assert_eq!((config.prefill, config.decode), (vec![128, 512], vec![64]));
        assert_eq!((config.batch, config.threads), (vec![1, 2, 4, 8, 16], vec![1, 2]));
        assert_eq!((config.depth, config.kv), (vec![0, 4096], KvType::ALL.to_vec()));
        assert_eq!((config.repetitions, config.simd.name(), config.json), (3, "scalar", true));
        assert!(parse(&["-p", "0"]).unwrap().prefill.is_empty());
        assert!(parse(&["-n", "0"]).unwrap().decode.is_empty());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_the_name_of_its_flag() {
        let many = ["1"; LIST_MAX + 1].join(",");
        for (words, named) in [
            (&["-p", "0,128"][..], "-p: 0 stands alone"),
            (&["-n", "64,0"], "-n: 0 stands alone"),
            (&["-p", "0", "-n", "0"], "nothing to measure"),
            (&["-p", "128,"], "-p"),
            (&["-p=-1"], "-p"),
            (&["-p", "1048577"], "-p"),
            (&["-n", "1.5"], "-n"),
            (&["-b", "0"], "-b"),
            (&["-b", "1,513"], "-b"),
            (&["-t", "0"], "--threads"),
            (&["-t", "1,1025"], "--threads"),
            (&["--depth", "x"], "--depth"),
            (&["--kv", "f32"], "--kv"),
            (&["--kv", "f16,q4_0"], "expected one of f16, q8_0"),
            (&["--repetitions", "0"], "--repetitions"),
            (&["--simd", "mmx"], "--simd"),
            (&["-b", &many], "-b: 65 values"),
            (&["--json", "yes"], "unexpected argument"),
        ] {
            let error = parse(words).expect_err("refused");
            assert!(error.contains(named), "{words:?}: {error}");
        }
    }
}
