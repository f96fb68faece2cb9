//! What is measured, what it costs at least, and how a figure is written.

use serde_json::{Value, json};
use woolly_engine::kv::KvType;
use woolly_engine::plan::{BLOCK_LEN, ModelLayout, SliceId};
use woolly_engine::probe::Limits;

/// Rows of a chunk of a prefill at most.
pub const CHUNK_ROWS: u32 = 512;

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Prefill of one sequence instead of decode.
    pub prefill: bool,
    /// Tokens of each sequence.
    pub n: u32,
    /// Sequences.
    pub batch: u32,
    /// Positions in the cache before.
    pub depth: u32,
}

impl Case {
    /// Its name in figures, as llama-bench has it.
    pub fn name(&self) -> &'static str {
        if self.prefill { "pp" } else { "tg" }
    }

    /// Positions of a sequence at the end.
    pub fn positions(&self) -> u32 {
        self.depth + self.n
    }

    /// Blocks of the cache that a sequence needs.
    pub fn blocks_each(&self) -> u32 {
        self.positions().div_ceil(BLOCK_LEN)
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> u32 {
        self.batch * self.n
    }

    /// Position and tokens of the chunks of a prefill.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (depth, n) = (self.depth, self.n);
        let starts = (0..n).step_by(CHUNK_ROWS as usize);
        starts.map(move |start| (depth + start, CHUNK_ROWS.min(n - start)))
    }
}

/// What a test must at least read and compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Bytes read from memory per token: weights, and keys and values of the positions attended to.
    pub bytes_per_token: f64,
    /// Multiply-adds per token: matrices and attention.
    pub macs_per_token: f64,
}

impl Cost {
    /// The cost of `case` on a stage with all layers.
    ///
    /// In a decode step each weight is read once for all sequences, the last norm and output matrix
    /// included, and each sequence reads its embedding row, keys and values. In a prefill the weights
    /// of the layers are read once per chunk, and the output matrix once, for the last row; this
    /// row's multiplications by it are not counted.
    pub fn of(layout: &ModelLayout, kv: KvType, case: &Case) -> Self {
        let bytes = |slice| -> f64 {
            layout.slice_tensors(slice).iter().map(|tensor| tensor.source.len as f64).sum()
        };
        let row = bytes(SliceId::Embedding) / f64::from(layout.vocab);
        let head = bytes(SliceId::Head);
        let all = layout.stage_bytes_per_token(0..layout.layers) as f64;
        let position = kv_block_bytes(layout, kv) as f64 / f64::from(BLOCK_LEN);
        // The first token attends to itself and all before it, the last one to n − 1 more.
        let attended = f64::from(case.depth) + f64::from(case.n + 1) / 2.0;
        let wide = f64::from(layout.heads) * f64::from(layout.head_dim);
        let attention = f64::from(layout.layers) * 2.0 * wide * attended;
        let macs = layout.stage_macs_per_token(0..layout.layers) as f64 + attention;
        if !case.prefill {
            let weights = (all - row) / f64::from(case.batch);
            let bytes_per_token = weights + row + position * attended;
            return Self { bytes_per_token, macs_per_token: macs };
        }
        let layers = all - row - head;
        let chunks = case.chunks().map(|(start, rows)| layers + position * f64::from(start + rows));
        let total = chunks.sum::<f64>() + head + row * f64::from(case.n);
        Self {
            bytes_per_token: total / f64::from(case.n),
            macs_per_token: macs - f64::from(layout.vocab) * f64::from(layout.hidden),
        }
    }
}

/// Bytes of a block of the cache: keys and values of [`BLOCK_LEN`] positions on all layers.
pub fn kv_block_bytes(layout: &ModelLayout, kv: KvType) -> u64 {
    layout.kv_block_bytes(0..layout.layers, kv)
}

/// Tokens per second of all sequences together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speeds {
    /// Half of the repetitions were faster, half slower.
    pub median: f64,
    /// The slowest.
    pub min: f64,
    /// The fastest.
    pub max: f64,
}

impl Speeds {
    /// Of one or more repetitions.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn of(mut speeds: Vec<f64>) -> Self {
        speeds.sort_by(f64::total_cmp);
        let (low, high) = ((speeds.len() - 1) / 2, speeds.len() / 2);
        Self {
            median: (speeds[low] + speeds[high]) / 2.0,
            min: speeds[0],
            max: speeds[speeds.len() - 1],
        }
    }
}

/// A test with what came of it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The model's file without its extension.
    pub model: String,
    /// The test.
    pub case: Case,
    /// Compute threads.
    pub threads: u32,
    /// Type of the cache.
    pub kv: KvType,
    /// Name of the instruction set.
    pub simd: &'static str,
    /// What was measured.
    pub speeds: Speeds,
    /// What the test costs.
    pub cost: Cost,
    /// What the machine can do at most, measured before and after.
    pub limits: Limits,
    /// The part of the time in which the host of a virtual machine let others compute, while the test
    /// ran. `None` if the system does not say.
    pub stolen: Option<f64>,
}

/// Titles of the columns of [`Figure::row`] and their widths. The limit stands beside what was
/// reached of it.
const COLUMNS: [(&str, usize); 17] = [
    ("test", 4),
    ("n", 6),
    ("batch", 5),
    ("depth", 6),
    ("threads", 7),
    ("kv", 4),
    ("simd", 6),
    ("tokens/s", 9),
    ("min", 9),
    ("max", 9),
    ("GB/s", 6),
    ("limit", 6),
    ("%", 5),
    ("GMAC/s", 7),
    ("limit", 7),
    ("%", 5),
    ("stolen", 6),
];

impl Figure {
    /// The part of the read bandwidth that the median takes.
    pub fn fraction_of_read(&self) -> f64 {
        self.speeds.median * self.cost.bytes_per_token / self.limits.read_bytes_per_s
    }

    /// The part of the int8 peak that the median takes.
    pub fn fraction_of_peak(&self) -> f64 {
        self.speeds.median * self.cost.macs_per_token / self.limits.macs_per_s
    }

    /// One object; numbers with as many digits as mean something.
    pub fn json(&self) -> Value {
        let Self { case, speeds, cost, limits, .. } = self;
        json!({
            "model": self.model,
            "test": case.name(),
            "n": case.n,
            "batch": case.batch,
            "depth": case.depth,
            "threads": self.threads,
            "kv": self.kv.name(),
            "simd": self.simd,
            "tok_s": {
                "median": rounded(speeds.median, 3),
                "min": rounded(speeds.min, 3),
                "max": rounded(speeds.max, 3),
            },
            "bytes_per_token": cost.bytes_per_token.round() as u64,
            "read_gb_s": rounded(limits.read_bytes_per_s / 1e9, 3),
            "fraction_of_read": rounded(self.fraction_of_read(), 4),
            "macs_per_token": cost.macs_per_token.round() as u64,
            "peak_gmac_s": rounded(limits.macs_per_s / 1e9, 3),
            "fraction_of_peak": rounded(self.fraction_of_peak(), 4),
            "stolen": self.stolen.map(|part| rounded(part, 4)),
        })
    }

    /// A line of the table.
    pub fn row(&self) -> String {
        let Self { case, speeds, cost, limits, .. } = self;
        let billions = |value: f64, digits: usize| format!("{:.digits$}", value / 1e9);
        line([
            case.name().to_owned(),
            case.n.to_string(),
            case.batch.to_string(),
            case.depth.to_string(),
            self.threads.to_string(),
            self.kv.name().to_owned(),
            self.simd.to_owned(),
            format!("{:.2}", speeds.median),
            format!("{:.2}", speeds.min),
            format!("{:.2}", speeds.max),
            billions(speeds.median * cost.bytes_per_token, 2),
            billions(limits.read_bytes_per_s, 2),
            format!("{:.1}", 100.0 * self.fraction_of_read()),
            billions(speeds.median * cost.macs_per_token, 1),
            billions(limits.macs_per_s, 1),
            format!("{:.1}", 100.0 * self.fraction_of_peak()),
            self.stolen.map_or_else(|| "?".to_owned(), |part| format!("{:.1}%", 100.0 * part)),
        ])
    }

    /// The line above the rows.
    pub fn titles() -> String {
        line(COLUMNS.map(|(title, _)| title.to_owned()))
    }
}

fn line(cells: [String; COLUMNS.len()]) -> String {
    let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:>width$}"));
    padded.collect::<Vec<_>>().join("  ")
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use woolly_engine::gguf::Gguf;

    fn tiny() -> ModelLayout {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/fixtures/models/granite-tiny.gguf");
        ModelLayout::new(&Gguf::open(&path).unwrap()).unwrap()
    }

    fn case(prefill: bool, n: u32, batch: u32, depth: u32) -> Case {
        Case { prefill, n, batch, depth }
    }

    #[test]
    fn a_prefill_goes_in_chunks_of_512() {
        let chunks = |n, depth| case(true, n, 1, depth).chunks().collect::<Vec<_>>();
        assert_eq!(chunks(1, 0), [(0, 1)]);
        assert_eq!(chunks(512, 7), [(7, 512)]);
        assert_eq!(chunks(1025, 100), [(100, 512), (612, 512), (1124, 1)]);
        assert_eq!(case(false, 64, 3, 4096).blocks_each(), 130);
        assert_eq!(case(false, 1, 3, 31).blocks_each(), 1);
        assert_eq!(case(false, 64, 3, 4096).tokens(), 192);
    }

    /// The tiny model by hand. Layers 2,839,552 bytes and 4,718,592 multiplications; tied head
    /// 861,184 and 1,048,576; embedding row 210. A position: 8 layers of 2 heads of 64 halves, twice,
    /// and 8 layers of 4 heads of 64 multiplications, twice: 4,096 both.
    #[test]
    fn a_decode_step_reads_the_weights_once_for_all_sequences() {
        let cost = |n, batch, depth| Cost::of(&tiny(), KvType::F16, &case(false, n, batch, depth));
        assert_eq!(
            cost(1, 1, 0),
            Cost { bytes_per_token: 3_705_042.0, macs_per_token: 5_771_264.0 }
        );
        // 12.5 positions are attended to on average.
        assert_eq!(
            cost(4, 2, 10),
            Cost { bytes_per_token: 1_901_778.0, macs_per_token: 5_818_368.0 }
        );
    }

    /// Of 64 bytes and two scales per head instead of 64 halves: 2,176 a position.
    #[test]
    fn a_cache_of_bytes_costs_less_to_read_and_the_same_to_compute() {
        let (layout, case) = (tiny(), case(false, 4, 2, 10));
        assert_eq!(KvType::ALL.map(|kv| kv_block_bytes(&layout, kv)), [32 * 4096, 32 * 2176]);
        let [halves, bytes] = KvType::ALL.map(|kv| Cost::of(&layout, kv, &case));
        assert_eq!(bytes.bytes_per_token, halves.bytes_per_token - 12.5 * (4096.0 - 2176.0));
        assert_eq!(bytes.macs_per_token, halves.macs_per_token);
    }

    #[test]
    fn a_prefill_reads_the_layers_once_per_chunk_and_the_head_once() {
        let cost = |n, depth| Cost::of(&tiny(), KvType::F16, &case(true, n, 1, depth));
        assert_eq!(cost(1, 0), Cost { bytes_per_token: 3_705_042.0, macs_per_token: 4_722_688.0 });
        // Chunks end at 612 and 700 positions; 400.5 are attended to on average.
        assert_eq!(
            cost(600, 100),
            Cost { bytes_per_token: 12_040_240.0 / 600.0, macs_per_token: 6_359_040.0 }
        );
    }

    fn figure() -> Figure {
        Figure {
            model: "tiny".to_owned(),
            case: case(false, 64, 4, 0),
            threads: 2,
            kv: KvType::F16,
            simd: "avx2",
            speeds: Speeds { median: 20.0, min: 19.12345, max: 21.0 },
            cost: Cost { bytes_per_token: 1e9, macs_per_token: 5e9 },
            limits: Limits { read_bytes_per_s: 40e9, macs_per_s: 800e9 },
            stolen: Some(0.0125),
        }
    }

    #[test]
    fn a_figure_in_json_has_the_agreed_names_in_order() {
        let text = figure().json().to_string();
        assert_eq!(
            text,
            concat!(
                r#"{"model":"tiny","test":"tg","n":64,"batch":4,"depth":0,"threads":2,"#,
                r#""kv":"f16","simd":"avx2","tok_s":{"median":20.0,"min":19.123,"max":21.0},"#,
                r#""bytes_per_token":1000000000,"read_gb_s":40.0,"fraction_of_read":0.5,"#,
                r#""macs_per_token":5000000000,"peak_gmac_s":800.0,"fraction_of_peak":0.125,"stolen":0.0125}"#,
            )
        );
    }

    #[test]
    fn a_row_has_a_cell_under_every_title() {
        let (titles, row) = (Figure::titles(), figure().row());
        assert_eq!(titles.len(), row.len());
        assert_eq!(row.split_whitespace().count(), COLUMNS.len());
        assert!(row.contains("20.00") && row.contains(" 50.0") && row.contains(" 12.5"), "{row}");
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(Speeds::of(vec![3.0, 1.0, 2.0]), Speeds { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Speeds::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Speeds::of(vec![7.0]), Speeds { median: 7.0, min: 7.0, max: 7.0 });
    }
}
