//! What a cut is best for: shapes of real models over equal and unequal workers, and every cut of small
//! ones.

use super::cut::{GIB, checked, member, request};
use crate::gguf::tests::Raw;
use crate::gguf::{Gguf, HeaderPart};
use crate::plan::{Cut, CutRequest, Member, ModelLayout, Objective, cut};
use crate::quant::TensorType;

/// The shape of a model: enough for a header with all its tensors, and no data.
#[derive(Clone)]
struct Shape {
    /// Types of each layer: of most matrices, and of `attn_v` and `ffn_down`.
    layers: Vec<(TensorType, TensorType)>,
    hidden: u64,
    heads: u32,
    kv_heads: u32,
    ffn: u64,
    vocab: u64,
    /// The type of the embedding, which is the head too.
    head: TensorType,
}

impl Shape {
    /// granite-3.3-8b, with all its layers alike.
    fn granite() -> Self {
        let (q4, q6) = (TensorType::Q4_K, TensorType::Q6_K);
        let layers = vec![(q4, q4); 40];
        Self { layers, hidden: 4096, heads: 32, kv_heads: 8, ffn: 12_800, vocab: 49_159, head: q6 }
    }

    /// With the more exact matrices of Q4_K_M in the first and last eighth of its layers and in every
    /// third of the others.
    fn mixed(mut self) -> Self {
        let count = self.layers.len();
        for (at, layer) in self.layers.iter_mut().enumerate() {
            if at < count / 8 || at >= 7 * count / 8 || (at - count / 8) % 3 == 2 {
                layer.1 = TensorType::Q6_K;
            }
        }
        self
    }

    /// Qwen2.5-1.5B: its head is as much as five to seven layers.
    fn qwen() -> Self {
        let (q4, q6) = (TensorType::Q4_K, TensorType::Q6_K);
        let layers = vec![(q4, q4); 28];
        Self { layers, hidden: 1536, heads: 12, kv_heads: 2, ffn: 8960, vocab: 151_936, head: q6 }
    }

    /// SmolLM2-135M: its head is as much as eight layers, and fourteen in bytes.
    fn smol() -> Self {
        let (q4, q8) = (TensorType::Q4_1, TensorType::Q8_0);
        let layers = vec![(q4, q4); 30];
        Self { layers, hidden: 576, heads: 9, kv_heads: 3, ffn: 1536, vocab: 49_152, head: q8 }
    }

    fn layout(&self) -> ModelLayout {
        let (q, head_dim) = (self.hidden, self.hidden / u64::from(self.heads));
        let kv = head_dim * u64::from(self.kv_heads);
        let f32 = TensorType::F32;
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), vec![self.hidden, self.vocab], self.head),
            ("output_norm.weight".to_owned(), vec![self.hidden], f32),
        ];
        for (layer, &(most, some)) in self.layers.iter().enumerate() {
            for (part, shape, ty) in [
                ("attn_norm", vec![self.hidden], f32),
                ("attn_q", vec![self.hidden, q], most),
                ("attn_k", vec![self.hidden, kv], most),
                ("attn_v", vec![self.hidden, kv], some),
                ("attn_output", vec![q, self.hidden], most),
                ("ffn_norm", vec![self.hidden], f32),
                ("ffn_gate", vec![self.hidden, self.ffn], most),
                ("ffn_up", vec![self.hidden, self.ffn], most),
                ("ffn_down", vec![self.ffn, self.hidden], some),
            ] {
                tensors.push((format!("blk.{layer}.{part}.weight"), shape, ty));
            }
        }
        let numbers = [
            ("block_count", self.layers.len() as u64),
            ("context_length", 131_072),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.ffn),
            ("attention.head_count", self.heads.into()),
            ("attention.head_count_kv", self.kv_heads.into()),
        ];
        ModelLayout::new(&header("llama", &numbers, &tensors)).unwrap()
    }
}

/// The header of a model with these numbers; of its data nothing but the length is known.
pub(super) fn header(
    architecture: &str,
    numbers: &[(&str, u64)],
    tensors: &[(String, Vec<u64>, TensorType)],
) -> Gguf {
    let mut raw = Raw::new(tensors.len() as u64, 2 + numbers.len() as u64);
    raw = raw.string("general.architecture").u32(8).string(architecture);
    for (key, value) in numbers {
        raw = raw.string(format!("{architecture}.{key}")).u32(4).u32(*value as u32);
    }
    let epsilon = format!("{architecture}.attention.layer_norm_rms_epsilon");
    raw = raw.string(&epsilon).u32(6).u32(1e-5f32.to_bits());
    let mut offset = 0;
    for (name, shape, ty) in tensors {
        raw = raw.tensor(name, shape, *ty as u32, offset);
        let rows: u64 = shape[1..].iter().product();
        offset += (rows * ty.row_bytes(shape[0] as usize) as u64).next_multiple_of(32);
    }
    let bytes = raw.data(0).0;
    let file_size = bytes.len() as u64 + offset;
    Gguf::from_headers(vec![HeaderPart { file_name: "m.gguf".into(), bytes, file_size }]).unwrap()
}

/// So many workers, each on a machine of its own.
pub(super) fn equal(count: u8) -> Vec<Member> {
    let speeds = |member| Member { macs_per_s: 100_000_000_000, ..member };
    (0..count).map(|machine| speeds(member(machine, 64 * GIB, 20_000_000_000))).collect()
}

fn best(layout: &ModelLayout, members: &[Member], objective: Objective) -> Cut {
    checked(layout, members, &CutRequest { objective, ..request() })
}

pub(super) fn by_hand(layout: &ModelLayout, members: &[Member], counts: &[u32]) -> Cut {
    let request = CutRequest { cut: Some(counts.to_vec()), ..request() };
    cut(layout, members, &request).unwrap_or_else(|error| panic!("{error}"))
}

/// Mean over maximum of the stages' multiplications in prefill.
fn prefill_efficiency(layout: &ModelLayout, cut: &Cut) -> f64 {
    let macs = cut.layers.iter().map(|layers| layout.stage_prefill_macs_per_token(layers.clone()));
    let macs: Vec<f64> = macs.map(|macs| macs as f64).collect();
    let mean = macs.iter().sum::<f64>() / macs.len() as f64;
    mean / macs.iter().copied().fold(0.0, f64::max)
}

#[test]
fn granite_over_eight_equal_workers_gives_each_five_layers() {
    for layout in [Shape::granite().layout(), Shape::granite().mixed().layout()] {
        let found = best(&layout, &equal(8), Objective::Balanced);
        assert_eq!(found.counts(), [5; 8]);
        assert_eq!(prefill_efficiency(&layout, &found), 1.0);
        assert_eq!(found.slowness.prefill, 1_000_000);
        // What the fastest decode of one row alone asks for.
        let old = by_hand(&layout, &equal(8), &[6, 5, 5, 5, 5, 5, 5, 4]);
        assert!((prefill_efficiency(&layout, &old) - 0.833).abs() < 0.001);
        assert!((old.slowness.many_rows).abs_diff(found.slowness.many_rows) < 3_000, "0.3 %");
    }
}

#[test]
fn the_head_moves_layers_where_it_is_worth_more_than_it_costs_prefill() {
    let granite = Shape::granite().mixed().layout();
    let counts = |layout: &ModelLayout, workers, objective| {
        best(layout, &equal(workers), objective).counts()
    };
    for (workers, layers) in [(2, 20), (4, 10), (5, 8), (10, 4), (20, 2)] {
        let expected = vec![layers; usize::from(workers)];
        assert_eq!(counts(&granite, workers, Objective::Balanced), expected);
    }
    // 40 layers make no 16 equal stages: the head goes to a stage of one layer.
    let sixteen = counts(&granite, 16, Objective::Balanced);
    assert_eq!((sixteen.iter().max(), sixteen.last()), (Some(&3), Some(&1)));
    // A head of few multiplications leaves 28 layers in equal parts; one of five layers does not.
    assert_eq!(counts(&super::layout(28), 4, Objective::Balanced), [7; 4]);
    assert_eq!(counts(&Shape::qwen().mixed().layout(), 4, Objective::Balanced), [8, 9, 9, 2]);
}

#[test]
fn a_head_of_many_layers_takes_no_stage_for_itself() {
    let layout = Shape::smol().layout();
    for workers in [2, 3, 4] {
        let members = equal(workers);
        for objective in Objective::ALL {
            let found = best(&layout, &members, objective);
            let counts = found.counts();
            assert!(counts.is_sorted_by(|a, b| a >= b || b - a <= 1), "{counts:?}");
            let equal_parts = 30 / u32::from(workers);
            assert!(*counts.last().unwrap() <= equal_parts, "{counts:?}");
            // What suits few rows alone is 22 and 8 layers, and prefill half as slow again.
            assert!(found.slowness.prefill <= 1_450_000, "{counts:?}: {:?}", found.slowness);
            assert!(found.slowness.few_rows <= 1_350_000, "{counts:?}: {:?}", found.slowness);
        }
    }
    let counts = |objective| best(&layout, &equal(2), objective).counts();
    assert!(counts(Objective::Latency)[1] < counts(Objective::Balanced)[1]);
    assert_eq!(counts(Objective::Throughput), [15, 15]);
}

#[test]
fn latency_gives_up_prefill_for_streams() {
    let layout = Shape::granite().mixed().layout();
    let counts = best(&layout, &equal(8), Objective::Latency).counts();
    assert_eq!((counts.iter().max(), counts[7]), (Some(&6), 4));
    let throughput = best(&layout, &equal(8), Objective::Throughput);
    assert_eq!(throughput.counts(), [5; 8]);
}

#[test]
fn bandwidth_counts_for_few_rows_and_multiplications_for_many() {
    let layout = super::layout(12);
    let mut members = equal(2);
    let counts = |members: &[Member], objective| best(&layout, members, objective).counts();
    // Twice the multiplications.
    members[0].macs_per_s *= 2;
    assert_eq!(counts(&members, Objective::Throughput), [8, 4]);
    let latency = counts(&members, Objective::Latency)[0];
    assert!((6..8).contains(&latency), "{latency}");
    // A fifth more is noise.
    members[0].macs_per_s = members[1].macs_per_s * 6 / 5;
    assert_eq!(counts(&members, Objective::Throughput), [6, 6]);
    // What is not known of one worker says nothing of the others.
    members[0].macs_per_s *= 2;
    members[1].macs_per_s = 0;
    assert_eq!(counts(&members, Objective::Throughput), [6, 6]);
    members[1].read_bytes_per_s *= 2;
    assert_eq!(counts(&members, Objective::Throughput), [4, 8]);
}

#[test]
fn workers_of_one_machine_share_bandwidth_and_not_multiplications() {
    let layout = super::layout(12);
    let mut members = equal(3);
    members[1].machine = members[0].machine;
    let counts = |objective| best(&layout, &members, objective).counts();
    assert_eq!(counts(Objective::Throughput), [4, 4, 4]);
    let latency = counts(Objective::Latency);
    assert!(latency[2] > 4, "{latency:?}");
}

#[test]
fn memory_bends_the_best_cut_for_every_objective() {
    let layout = Shape::granite().mixed().layout();
    let mut members = equal(8);
    members[3].memory_bytes = 4 * layout.stage_bytes(2..3) + GIB / 16;
    for objective in Objective::ALL {
        let found = best(&layout, &members, objective);
        assert!(found.counts()[3] <= 4, "{:?}", found.counts());
        assert_eq!(found.counts().iter().max(), Some(&6));
        assert_eq!(found.limiting_stage, 3);
    }
}

#[test]
fn a_present_cut_stays_for_what_all_kinds_of_work_promise() {
    let layout = Shape::granite().mixed().layout();
    let after = |previous: &[u32]| {
        let request = CutRequest { previous: Some(previous.to_vec()), ..request() };
        checked(&layout, &equal(8), &request).counts()
    };
    let old = [6, 5, 5, 5, 5, 5, 5, 4];
    assert_eq!(after(&old), old, "the new one is two percent better on the whole");
    assert_eq!(after(&[7, 5, 5, 5, 5, 5, 5, 3]), [5; 8], "prefill alone is 40 percent better");
}

/// The counts of every cut of `layers` layers into `stages` stages.
fn every_cut(layers: u32, stages: u32) -> Vec<Vec<u32>> {
    if stages == 1 {
        return vec![vec![layers]];
    }
    let first = 1..=layers + 1 - stages;
    let with = |first: u32| {
        let rest = every_cut(layers - first, stages - 1).into_iter();
        rest.map(move |rest| [vec![first], rest].concat())
    };
    first.flat_map(with).collect()
}

#[test]
fn no_cut_of_a_small_model_is_much_better_than_the_one_chosen() {
    let mut seed = 7u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let types = [TensorType::Q4_K, TensorType::Q6_K, TensorType::Q8_0];
    for _ in 0..200 {
        let count = 2 + below(9) as u32;
        let stages = (1 + below(4) as u32).min(count);
        let mut ty = || types[below(3) as usize];
        let layers = (0..count).map(|_| (ty(), ty())).collect();
        let head = ty();
        let vocab = 100 + below(40_000);
        let shape = Shape { layers, hidden: 256, heads: 4, kv_heads: 2, ffn: 512, vocab, head };
        let layout = shape.layout();
        let mut members = equal(stages as u8);
        for member in &mut members {
            member.read_bytes_per_s = 1_000 + below(4) * 700;
            member.macs_per_s = 1_000 + below(4) * 700;
        }
        let all: Vec<Cut> = every_cut(count, stages)
            .iter()
            .map(|counts| by_hand(&layout, &members, counts))
            .collect();
        for objective in Objective::ALL {
            let found = best(&layout, &members, objective);
            let least = all.iter().map(|cut| objective.score(cut.slowness)).min().unwrap();
            let score = objective.score(found.slowness);
            let counts = found.counts();
            assert!(score <= least / 100 * 105, "{objective:?} {counts:?}: {score}, not {least}");
        }
    }
}
