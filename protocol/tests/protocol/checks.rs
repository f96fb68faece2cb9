//! What a well-formed message may not say: one case per rule, refused by the field's name.

use crate::samples;
use woolly_protocol::control::{Assign, Hello, ModelPart};
use woolly_protocol::forward::{Forward, ForwardLimits};
use woolly_protocol::frame::Message;
use woolly_protocol::ids::{BlockId, PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::join::JoinRequest;
use woolly_protocol::limits::{
    CAPACITY_MAX, CERTIFICATE_MAX, CTX_MAX, HEARTBEAT_TIMINGS_MAX, KV_BLOCKS_MAX, LOGIT_BIAS_MAX,
    MASK_WORDS_MAX, SLICE_CHUNK,
};
use woolly_protocol::sampling::{RowMode, Sampled, Sampling, SamplingParams};
use woolly_protocol::slices::{SliceKey, SliceManifest};

/// The field that must be named, and the change that makes it wrong.
type Case<'a, M> = (&'a str, &'a dyn Fn(&mut M));

fn refused<M: Message>(valid: impl Fn() -> M, cases: &[Case<'_, M>]) {
    valid().check().unwrap();
    for (field, change) in cases {
        let mut message = valid();
        change(&mut message);
        let error = message.check().expect_err(field);
        assert_eq!((error.field, error.kind), (*field, M::KIND), "{error}");
    }
}

#[test]
fn hello() {
    refused::<Hello>(
        samples::hello,
        &[
            ("name", &|m| m.name.clear()),
            ("name", &|m| m.name = "x".repeat(65)),
            ("name", &|m| m.name = "\u{1b}[31mred".to_owned()),
            ("advertise", &|m| m.advertise = "worker:7401".to_owned()),
            ("advertise", &|m| m.advertise = "0.0.0.0:7401".to_owned()),
            ("threads", &|m| m.threads = 0),
            ("threads", &|m| m.threads = 1_000_000_000),
            ("memory_bytes", &|m| m.memory_bytes = 0),
            ("memory_bytes", &|m| m.memory_bytes = u64::MAX),
            ("kv_memory_bytes", &|m| m.kv_memory_bytes = CAPACITY_MAX + 1),
            ("read_bytes_per_s", &|m| m.read_bytes_per_s = 0),
            ("macs_per_s", &|m| m.macs_per_s = u64::MAX),
            ("isa", &|m| m.isa = "a\nb".to_owned()),
            ("version", &|m| m.version = "v".repeat(257)),
        ],
    );
}

#[test]
fn assign() {
    fn part(m: &mut Assign) -> &mut ModelPart {
        &mut m.parts[0]
    }
    refused::<Assign>(
        samples::assign,
        &[
            ("epoch", &|m| m.epoch = PlanEpoch(0)),
            ("parts", &|m| m.parts.clear()),
            ("parts.file_name", &|m| part(m).file_name = "../m.gguf".to_owned()),
            ("parts.file_name", &|m| part(m).file_name = "..".to_owned()),
            ("parts.path", &|m| part(m).path = "p".repeat(4097)),
            ("parts.size", &|m| part(m).size = 0),
            ("stage_count", &|m| m.stage_count = 0),
            ("stage_count", &|m| m.stage_count = 65),
            ("stage", &|m| m.stage = 3),
            ("layer_end", &|m| m.layer_end = 0),
            ("layer_first", &|m| m.layer_first = 20),
            ("ctx_size", &|m| m.ctx_size = CTX_MAX + 1),
            ("kv_blocks", &|m| m.kv_blocks = KV_BLOCKS_MAX + 1),
            ("rows_max", &|m| m.rows_max = 2049),
            ("in_flight_max", &|m| m.in_flight_max = 66),
            ("hidden", &|m| m.hidden = 65_537),
            ("rows_max * hidden", &|m| (m.rows_max, m.hidden) = (2048, 16_385)),
            ("previous", &|m| m.previous = None),
            ("previous", &|m| m.stage = 0),
            ("next", &|m| m.next = None),
            ("next", &|m| m.stage = 2),
            ("next.address", &|m| m.next.as_mut().unwrap().address = "x".to_owned()),
            ("next.name", &|m| m.next.as_mut().unwrap().name = "a b".to_owned()),
        ],
    );
    let mut alone = samples::assign();
    (alone.stage, alone.stage_count, alone.next, alone.previous) = (0, 1, None, None);
    alone.check().unwrap();
    alone.previous = Some(WorkerId(1));
    assert_eq!(alone.check().unwrap_err().field, "previous");
}

#[test]
fn small_messages() {
    refused(samples::welcome, &[("heartbeat_ms", &|m| m.heartbeat_ms = 0)]);
    refused(
        samples::heartbeat,
        &[("timings", &|m| m.timings = vec![m.timings[0]; HEARTBEAT_TIMINGS_MAX + 1])],
    );
    refused(samples::ready, &[("epoch", &|m| m.epoch = PlanEpoch(0))]);
    refused(samples::release, &[("epoch", &|m| m.epoch = PlanEpoch(0))]);
    refused(samples::stream_open, &[("epoch", &|m| m.epoch = PlanEpoch(0))]);
    refused(samples::drain, &[("reason", &|m| m.reason = "a\tb".to_owned())]);
    refused(samples::fault, &[("text", &|m| m.text = "x".repeat(4097))]);
    refused::<JoinRequest>(
        samples::join_request,
        &[
            ("token_id", &|m| m.token_id = "a b".to_owned()),
            ("token_secret", &|m| m.token_secret.clear()),
            ("signing_request", &|m| m.signing_request = vec![0; CERTIFICATE_MAX + 1]),
            ("name", &|m| m.name = "a/b".to_owned()),
        ],
    );
    refused(
        samples::join_accepted,
        &[("certificate", &|m| m.certificate.clear()), ("ca", &|m| m.ca.clear())],
    );
}

#[test]
fn slices() {
    refused(
        samples::slice_manifest_request,
        &[("slice.Layer", &|m| m.slice = SliceKey::Layer(u32::MAX))],
    );
    refused(
        samples::slice_chunk_request,
        &[
            ("slice.Header", &|m| m.slice = SliceKey::Header(1024)),
            ("chunk", &|m| m.chunk = 65_536),
        ],
    );
    refused(samples::slice_chunk, &[("chunk", &|m| m.chunk = 65_536)]);
    refused::<SliceManifest>(
        samples::slice_manifest,
        &[
            ("chunks", &|m| m.chunks.clear()),
            ("length", &|m| m.length = 0),
            ("length", &|m| m.length = SLICE_CHUNK as u64),
            ("length", &|m| m.length = 2 * SLICE_CHUNK as u64 + 1),
        ],
    );
    let manifest = samples::slice_manifest();
    let lengths = [0, 1, 2, u32::MAX].map(|chunk| manifest.chunk_len(chunk));
    assert_eq!(lengths, [SLICE_CHUNK, 5, 0, 0]);
}

#[test]
fn forward() {
    refused::<Forward>(
        samples::forward,
        &[
            ("epoch", &|m| m.epoch = PlanEpoch(0)),
            ("microbatch", &|m| m.microbatch.0 = 0),
            ("chunks", &|m| m.chunks.clear()),
            ("chunks", &|m| m.chunks = vec![m.chunks[0].clone(); 257]),
            ("chunks.token_count", &|m| m.chunks[0].token_count = 0),
            ("chunks.token_count", &|m| m.chunks[0].token_count = u32::MAX),
            ("chunks.sample_rows", &|m| m.chunks[0].sample_rows = 3),
            ("chunks.position + token_count", &|m| m.chunks[0].position = u32::MAX),
            ("chunks.block_table entries", &|m| m.chunks[0].block_table.truncate(1)),
            ("chunks.block_table entries", &|m| {
                m.chunks[0].block_table = vec![BlockId(0); 32_769];
            }),
            ("chunks.block_table", &|m| m.chunks[1].block_table[0] = BlockId(KV_BLOCKS_MAX)),
            ("chunks.sequence", &|m| m.chunks[1].sequence = SequenceId(100)),
            ("rows", &|m| {
                m.chunks[0].token_count = 2048;
                m.chunks[0].block_table = vec![BlockId(1); 65];
            }),
        ],
    );
}

#[test]
fn forward_against_a_plan() {
    let plan =
        ForwardLimits { rows_max: 3, ctx_size: 33, kv_blocks: 10, hidden: 64, first_stage: false };
    let message = samples::forward();
    assert_eq!((message.rows(), message.sample_rows(), plan.payload_max()), (3, 1, 768));
    message.check_against(&plan, 768).unwrap();
    message.check_against(&ForwardLimits { first_stage: true, ..plan }, 12).unwrap();
    let field = |plan: ForwardLimits, len| message.check_against(&plan, len).unwrap_err().field;
    assert_eq!(field(plan, 767), "payload");
    assert_eq!(field(plan, 12), "payload");
    assert_eq!(field(ForwardLimits { rows_max: 2, ..plan }, 768), "rows");
    let short = ForwardLimits { ctx_size: 32, ..plan };
    assert_eq!(field(short, 768), "chunks.position + token_count");
    assert_eq!(field(ForwardLimits { kv_blocks: 9, ..plan }, 768), "chunks.block_table");
}

fn params(message: &mut Sampling) -> &mut SamplingParams {
    match &mut message.rows[1].mode {
        RowMode::Sample(params) => params,
        RowMode::Score(_) => unreachable!("the sample's second row samples"),
    }
}

#[test]
fn sampling() {
    refused::<Sampling>(
        samples::sampling,
        &[
            ("epoch", &|m| m.epoch = PlanEpoch(0)),
            ("microbatch", &|m| m.microbatch.0 = 0),
            ("rows", &|m| m.rows.clear()),
            ("rows", &|m| m.rows = vec![m.rows[0].clone(); 2049]),
            ("top_logprobs", &|m| m.rows[0].top_logprobs = 21),
            ("temperature", &|m| params(m).temperature = f32::NAN),
            ("temperature", &|m| params(m).temperature = -0.1),
            ("temperature", &|m| params(m).temperature = 100.1),
            ("top_p", &|m| params(m).top_p = 0.0),
            ("top_p", &|m| params(m).top_p = 1.1),
            ("min_p", &|m| params(m).min_p = f32::INFINITY),
            ("repetition_penalty", &|m| params(m).repetition_penalty = 0.0),
            ("repetition_penalty", &|m| params(m).repetition_penalty = f32::INFINITY),
            ("frequency_penalty", &|m| params(m).frequency_penalty = f32::NAN),
            ("presence_penalty", &|m| params(m).presence_penalty = f32::NEG_INFINITY),
            ("position", &|m| params(m).position = 0),
            ("logit_bias", &|m| params(m).logit_bias[0].1 = f32::NEG_INFINITY),
            ("logit_bias", &|m| params(m).logit_bias.reverse()),
            ("logit_bias", &|m| {
                params(m).logit_bias = (0..=LOGIT_BIAS_MAX as u32).map(|t| (t, 0.0)).collect();
            }),
            ("prompt_counts", &|m| params(m).prompt_counts[1].0 = 1),
            ("output_counts", &|m| params(m).output_counts[0].1 = 0),
            ("mask", &|m| params(m).mask = vec![0; 2]),
            ("mask", &|m| params(m).mask = vec![1; MASK_WORDS_MAX + 1]),
        ],
    );
}

#[test]
fn sampling_against_a_model() {
    let message = samples::sampling();
    message.check_against(2, 100).unwrap();
    let field = |rows, vocab| message.check_against(rows, vocab).unwrap_err().field;
    assert_eq!(field(1, 100), "rows");
    assert_eq!(field(2, 12), "Score");
    assert_eq!(field(2, 13), "logit_bias");
    assert_eq!(field(2, 99), "prompt_counts");
    assert_eq!(field(2, 200), "mask");
    let mut wide = samples::sampling();
    params(&mut wide).mask[1] |= 1 << 36;
    assert_eq!(wide.check_against(2, 100).unwrap_err().field, "mask");
    // A vocabulary that fills its last word.
    params(&mut wide).mask[1] = u64::MAX;
    wide.check_against(2, 128).unwrap();
}

#[test]
fn sampled() {
    refused::<Sampled>(
        samples::sampled,
        &[
            ("epoch", &|m| m.epoch = PlanEpoch(0)),
            ("microbatch", &|m| m.microbatch.0 = 0),
            ("rows", &|m| m.rows = vec![m.rows[0].clone(); 2049]),
            ("logprob", &|m| m.rows[0].logprob = f32::NAN),
            ("logprob", &|m| m.rows[0].logprob = f32::INFINITY),
            ("top", &|m| m.rows[0].top[1].1 = f32::NAN),
            ("top", &|m| m.rows[0].top.swap(0, 1)),
            ("top", &|m| m.rows[0].top.swap(1, 2)),
            ("top", &|m| m.rows[0].top = (0..21).map(|t| (t, 0.0)).collect()),
        ],
    );
}
