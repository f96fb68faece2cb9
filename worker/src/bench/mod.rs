//! `bench`: how fast this machine computes a model, and what part that is of what it could.
//!
//! The whole model is one stage in this process: no coordinator, no network.

pub mod config;
pub mod figures;
pub mod runner;

use crate::machine::system;
use crate::stage::load::locked;
use crate::units::show_size;
use config::BenchConfig;
use figures::{CHUNK_ROWS, Case, Cost, Figure, Speeds, kv_block_bytes};
use runner::Runner;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use woolly_engine::gguf::Gguf;
use woolly_engine::kv::KvType;
use woolly_engine::plan::ModelLayout;
use woolly_engine::pool::Pool;
use woolly_engine::probe::{Limits, Probe};
use woolly_engine::stage::{Stage, StageConfig};
use woolly_engine::weights::{Resident, Weights};

/// Fewer than these measure caches instead of memory.
const PROBE_BYTES_MIN: u64 = 256 << 20;
/// Memory that is left alone: the stage's buffers, other processes.
const SPARE_BYTES: u64 = 512 << 20;

/// Measures what `config` asks for and writes each figure to `out` as soon as it is there.
///
/// # Errors
///
/// The sentence to print: a model that cannot be loaded, too little memory, a closed output.
pub fn run(config: &BenchConfig, out: &mut (dyn Write + Send)) -> Result<(), String> {
    let gguf = Gguf::open(&config.model).map_err(|error| error.to_string())?;
    let layout = ModelLayout::new(&gguf).map_err(|error| error.to_string())?;
    let cases = cases(config);
    let probe_bytes = check_memory(config, &layout, &cases)?;
    if !config.json {
        about(config, &layout, out).map_err(closed)?;
    }
    for threads in &config.threads {
        let bench =
            Bench { config, gguf: &gguf, layout: &layout, cases: &cases, threads: *threads };
        // A thread of its own: a pool belongs to the thread that makes it, and binds it.
        let done = std::thread::scope(|scope| {
            let bench = std::thread::Builder::new()
                .name("compute-0".to_owned())
                .spawn_scoped(scope, || bench.run(probe_bytes, out))
                .map_err(|error| format!("cannot start the compute thread: {error}"))?;
            bench.join().map_err(|_| "the compute thread has failed; see above".to_owned())
        });
        done??;
    }
    Ok(())
}

/// All tests, those of one depth together.
fn cases(config: &BenchConfig) -> Vec<Case> {
    let mut cases = Vec::new();
    for &depth in &config.depth {
        let prefill = |&n: &u32| Case { prefill: true, n, batch: 1, depth };
        cases.extend(config.prefill.iter().map(prefill));
        for &batch in &config.batch {
            let decode = |&n: &u32| Case { prefill: false, n, batch, depth };
            cases.extend(config.decode.iter().map(decode));
        }
    }
    cases
}

/// Blocks of the cache that the largest test needs.
fn blocks(cases: &[Case]) -> u64 {
    let all = cases.iter().map(|case| u64::from(case.batch) * u64::from(case.blocks_each()));
    all.max().unwrap_or(1)
}

/// Bytes that the probe may take. The model is mapped, but must stay in memory all the same.
fn check_memory(config: &BenchConfig, layout: &ModelLayout, cases: &[Case]) -> Result<u64, String> {
    let kv = |kv: &KvType| blocks(cases).saturating_mul(kv_block_bytes(layout, *kv));
    let kv = config.kv.iter().map(kv).max().unwrap_or(0);
    let weights = layout.stage_bytes(0..layout.layers);
    let needed = weights.saturating_add(kv).saturating_add(SPARE_BYTES);
    let there = system::memory_available().unwrap_or(u64::MAX);
    let left = there.saturating_sub(needed);
    let least = PROBE_BYTES_MIN.min(config.probe_bytes);
    if left < least || u32::try_from(blocks(cases)).is_err() {
        return Err(format!(
            "--depth, -p, -n, -b: the largest test needs {} beside the weights ({}) and the probe \
             ({} or more); {} are free",
            show_size(kv),
            show_size(weights),
            show_size(least),
            show_size(there),
        ));
    }
    let bytes = config.probe_bytes.min(left);
    if bytes < config.probe_bytes {
        let (less, usual) = (show_size(bytes), show_size(config.probe_bytes));
        tracing::warn!("memory is short: the probe reads {less} instead of {usual}");
    }
    Ok(bytes)
}

/// The lines above the table.
fn about(config: &BenchConfig, layout: &ModelLayout, out: &mut dyn Write) -> io::Result<()> {
    let weights = show_size(layout.stage_bytes(0..layout.layers));
    writeln!(
        out,
        "{}: {} {}, {weights}; kernels: {}; median of {}",
        model_name(config),
        layout.architecture,
        layout.file_type,
        config.simd.name(),
        config.repetitions,
    )?;
    writeln!(out, "{}", Figure::titles())?;
    out.flush()
}

/// The file's name without its extension.
fn model_name(config: &BenchConfig) -> String {
    let stem = config.model.file_stem().unwrap_or(config.model.as_os_str());
    stem.to_string_lossy().into_owned()
}

fn closed(error: io::Error) -> String {
    format!("cannot write: {error}")
}

/// All tests with one number of threads.
struct Bench<'a> {
    config: &'a BenchConfig,
    gguf: &'a Gguf,
    layout: &'a ModelLayout,
    cases: &'a [Case],
    threads: u32,
}

impl Bench<'_> {
    fn run(&self, probe_bytes: u64, out: &mut (dyn Write + Send)) -> Result<(), String> {
        // The probe first: it remembers which CPUs this process may use before the pool binds us.
        let threads = self.threads as usize;
        let probe = Probe::new(threads, usize::try_from(probe_bytes).unwrap_or(usize::MAX))
            .map_err(|error| format!("no memory for the read probe: {error}"))?;
        let pool = Pool::with_level(threads, self.config.simd.level());
        let mut before = probe.measure();
        for &kv in &self.config.kv {
            let mut runner = Runner::new(self.stage(&pool, kv)?);
            for case in self.cases {
                let (speeds, stolen) = self.speeds(&mut runner, case)?;
                let after = probe.measure();
                let figure = self.figure(kv, case, (speeds, stolen), before.best(after));
                before = after;
                let line = if self.config.json { figure.json().to_string() } else { figure.row() };
                writeln!(out, "{line}").and_then(|()| out.flush()).map_err(closed)?;
            }
        }
        Ok(())
    }

    /// The whole model, as a worker loads a stage.
    fn stage(&self, pool: &Arc<Pool>, kv: KvType) -> Result<Stage, String> {
        let slices = self.layout.stage_slices(0..self.layout.layers);
        let weights = Weights::from_model(self.gguf, &slices, &Resident::new())
            .map_err(|error| error.to_string())?;
        self.config.pages.prepare(&weights, false);
        weights.populate(&AtomicU64::new(0));
        let stage = Stage::load(self.gguf, weights, &self.stage_config(kv), Arc::clone(pool))
            .map_err(|error| error.to_string())?;
        let stage = locked(stage, self.config.pages)?;
        if let Some(huge) = stage.weights().huge_bytes() {
            let (huge, all) = (show_size(huge), show_size(stage.mapped_bytes()));
            tracing::info!("weights in huge pages: {huge} of {all}");
        }
        Ok(stage)
    }

    fn stage_config(&self, kv_type: KvType) -> StageConfig {
        let batch_max = self.cases.iter().map(|case| case.batch).max().unwrap_or(1);
        let blocks = u32::try_from(blocks(self.cases)).expect("checked with the memory");
        StageConfig {
            layers: 0..self.layout.layers,
            ctx_size: self.cases.iter().map(Case::positions).max().unwrap_or(1),
            caches: self.layout.equal_caches(blocks),
            rows_max: batch_max.max(CHUNK_ROWS) as usize,
            chunks_max: batch_max as usize,
            kv_type,
        }
    }

    /// The speeds of all repetitions, and the part of their time that was stolen.
    fn speeds(&self, runner: &mut Runner, case: &Case) -> Result<(Speeds, Option<f64>), String> {
        runner.warm_up(case)?;
        let (began, stolen_before) = (Instant::now(), system::stolen_time());
        let per_s = |time: Duration| f64::from(case.tokens()) / time.as_secs_f64();
        let runs = (0..self.config.repetitions).map(|_| runner.run(case).map(per_s));
        let speeds = runs.collect::<Result<Vec<f64>, String>>().map(Speeds::of)?;
        let stolen = stolen_before.zip(system::stolen_time()).map(|(before, after)| {
            let cpus = self.threads.min(system::threads_available());
            let had = began.elapsed() * cpus.max(1);
            (after.saturating_sub(before).as_secs_f64() / had.as_secs_f64()).min(1.0)
        });
        Ok((speeds, stolen))
    }

    fn figure(
        &self,
        kv: KvType,
        case: &Case,
        (speeds, stolen): (Speeds, Option<f64>),
        limits: Limits,
    ) -> Figure {
        Figure {
            model: model_name(self.config),
            case: *case,
            threads: self.threads,
            kv,
            simd: self.config.simd.name(),
            speeds,
            cost: Cost::of(self.layout, kv, case),
            limits,
            stolen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::simd::Simd;
    use crate::weights::pages::{HugePages, Pages};

    /// The keys of a figure, in order.
    const KEYS: [&str; 16] = [
        "model",
        "test",
        "n",
        "batch",
        "depth",
        "threads",
        "kv",
        "simd",
        "tok_s",
        "bytes_per_token",
        "read_gb_s",
        "fraction_of_read",
        "macs_per_token",
        "peak_gmac_s",
        "fraction_of_peak",
        "stolen",
    ];

    fn config() -> BenchConfig {
        BenchConfig {
            model: concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../tests/fixtures/models/granite-tiny.gguf"
            )
            .into(),
            prefill: vec![5, 33],
            decode: vec![2],
            batch: vec![1, 3],
            threads: vec![1, 2],
            depth: vec![0, 40],
            kv: KvType::ALL.to_vec(),
            repetitions: 2,
            simd: Simd::parse("scalar").unwrap(),
            pages: Pages { huge_pages: HugePages::Auto, mlock: false },
            json: true,
            probe_bytes: 16 << 20,
        }
    }

    #[test]
    fn json_has_one_figure_per_test_and_line() {
        let mut out = Vec::new();
        run(&config(), &mut out).unwrap();
        let mut tests = Vec::new();
        for line in String::from_utf8(out).unwrap().lines() {
            let figure: serde_json::Value = serde_json::from_str(line).unwrap();
            let keys: Vec<&str> = figure.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, KEYS);
            let speeds = ["min", "median", "max"].map(|key| figure["tok_s"][key].as_f64().unwrap());
            assert!(0.0 < speeds[0] && speeds.is_sorted(), "{line}");
            assert_eq!(
                (&figure["model"], &figure["simd"]),
                (&"granite-tiny".into(), &"scalar".into())
            );
            for key in ["bytes_per_token", "read_gb_s", "macs_per_token", "peak_gmac_s"] {
                assert!(figure[key].as_f64().unwrap() > 0.0, "{key}: {line}");
            }
            let number = |key: &str| figure[key].as_u64().unwrap();
            let test = figure["test"].as_str().unwrap().to_owned();
            let kv = figure["kv"].as_str().unwrap().to_owned();
            tests.push((
                (number("threads"), kv, number("depth")),
                (test, number("n"), number("batch")),
            ));
        }
        let mut expected = Vec::new();
        for (threads, kv) in [(1, "f16"), (1, "q8_0"), (2, "f16"), (2, "q8_0")] {
            for depth in [0, 40] {
                for (test, n, batch) in [("pp", 5, 1), ("pp", 33, 1), ("tg", 2, 1), ("tg", 2, 3)] {
                    expected.push(((threads, kv.to_owned(), depth), (test.to_owned(), n, batch)));
                }
            }
        }
        assert_eq!(tests, expected);
    }

    #[test]
    fn a_closed_output_and_too_much_memory_are_told() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(run(&config(), &mut Closed).unwrap_err().contains("cannot write"));
        let deep = BenchConfig { batch: vec![512], depth: vec![1 << 20], ..config() };
        assert!(run(&deep, &mut Vec::new()).unwrap_err().contains("are free"));
    }
}
