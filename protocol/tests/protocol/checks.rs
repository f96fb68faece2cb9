//! What a well-formed message may not say: one case per rule, refused by the field's name.

use crate::samples;
use woolly_protocol::control::{Assign, Heartbeat, Hello, ModelPart, PlanReport};
use woolly_protocol::forward::{
    BlockLimits, BlockTables, CacheLimits, CacheTables, Forward, ForwardLimits, StateSlots,
    TableSpan,
};
use woolly_protocol::frame::Message;
use woolly_protocol::ids::{BlockId, PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::join::JoinRequest;
use woolly_protocol::limits::{
    CAPACITY_MAX, CERTIFICATE_MAX, CTX_MAX, HEARTBEAT_TIMINGS_MAX, KV_BLOCKS_MAX, LIVE_PLANS_MAX,
    LOGIT_BIAS_MAX, MASK_WORDS_MAX, SLICE_CHUNK, STATE_SLOTS_MAX,
};
use woolly_protocol::sampling::{
    RowMode, SampleBy, Sampled, SampledRow, SampledToken, Sampling, SamplingOptions,
    SamplingParams, TokenMask,
};
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
        &mut m.source.parts[0]
    }
    refused::<Assign>(
        samples::assign,
        &[
            ("epoch", &|m| m.links.epoch = PlanEpoch(0)),
            ("parts", &|m| m.source.parts.clear()),
            ("parts.file_name", &|m| part(m).file_name = "../m.gguf".to_owned()),
            ("parts.file_name", &|m| part(m).file_name = "..".to_owned()),
            ("parts.path", &|m| part(m).path = "p".repeat(4097)),
            ("parts.size", &|m| part(m).size = 0),
            ("stage_count", &|m| m.links.stage_count = 0),
            ("stage_count", &|m| m.links.stage_count = 65),
            ("stage", &|m| m.links.stage = 3),
            ("layer_end", &|m| m.stage.layer_end = 0),
            ("layer_first", &|m| m.stage.layer_first = 20),
            ("ctx_size", &|m| m.stage.ctx_size = CTX_MAX + 1),
            ("caches", &|m| m.stage.caches.clear()),
            ("caches", &|m| m.stage.caches = vec![CacheLimits::Slots(1); 9]),
            ("caches.count", &|m| m.stage.caches[0] = CacheLimits::all_positions(0)),
            ("caches.count", &|m| {
                m.stage.caches[0] = CacheLimits::all_positions(KV_BLOCKS_MAX + 1);
            }),
            ("caches.window", &|m| {
                let limits = BlockLimits { count: 1, window: Some(0) };
                m.stage.caches[1] = CacheLimits::Blocks(limits);
            }),
            ("caches.slots", &|m| m.stage.caches[2] = CacheLimits::Slots(0)),
            ("rows_max", &|m| m.stage.rows_max = 2049),
            ("in_flight_max", &|m| m.links.in_flight_max = 66),
            ("hidden", &|m| m.stage.hidden = 65_537),
            ("rows_max * hidden", &|m| (m.stage.rows_max, m.stage.hidden) = (2048, 16_385)),
            ("previous", &|m| m.links.previous = None),
            ("previous", &|m| m.links.stage = 0),
            ("next", &|m| m.links.next = None),
            ("next", &|m| m.links.stage = 2),
            ("next.address", &|m| m.links.next.as_mut().unwrap().address = "x".to_owned()),
            ("next.name", &|m| m.links.next.as_mut().unwrap().name = "a b".to_owned()),
        ],
    );
    let mut alone = samples::assign();
    let links = &mut alone.links;
    (links.stage, links.stage_count, links.next, links.previous) = (0, 1, None, None);
    alone.check().unwrap();
    alone.links.previous = Some(WorkerId(1));
    assert_eq!(alone.check().unwrap_err().field, "previous");
}

#[test]
fn small_messages() {
    refused(samples::welcome, &[("heartbeat_ms", &|m| m.heartbeat_ms = 0)]);
    let report = |epoch| PlanReport { epoch: PlanEpoch(epoch), timings: vec![] };
    refused::<Heartbeat>(
        samples::heartbeat,
        &[
            ("number", &|m| m.number = 0),
            ("plans", &|m| m.plans = (1..=LIVE_PLANS_MAX as u32 + 1).map(report).collect()),
            ("plans.epoch", &|m| m.plans[1].epoch = PlanEpoch(0)),
            ("plans.epoch", &|m| m.plans[1].epoch = m.plans[0].epoch),
            ("plans.timings", &|m| {
                let timing = m.plans[0].timings[0];
                m.plans[1].timings = vec![timing; HEARTBEAT_TIMINGS_MAX];
            }),
        ],
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
            ("chunks.sequence", &|m| m.chunks[1].sequence = SequenceId(100)),
            ("rows", &|m| m.chunks[0].token_count = 2048),
            ("traces", &|m| m.traces = vec![m.traces[0]; 3]),
            ("traces.chunk", &|m| m.traces[0].chunk = 2),
            ("traces.chunk", &|m| m.traces = vec![m.traces[0]; 2]),
            ("traces.trace", &|m| m.traces[0].trace = [0; 16]),
            ("traces.trace", &|m| m.traces[0].span = [0; 8]),
            ("caches", &|m| m.caches.clear()),
            ("caches", &|m| m.caches = vec![m.caches[0].clone(); 9]),
            ("caches.spans", &|m| _ = blocks(m).spans.pop()),
            ("caches.spans.len in all", &|m| blocks(m).spans[0].len = u32::MAX),
            ("caches.spans.len in all", &|m| blocks(m).blocks.truncate(2)),
            ("caches.spans.first", &|m| blocks(m).spans[0].first = 1),
            ("caches.spans.first", &|m| blocks(m).spans[1].first = u32::MAX),
            ("caches.spans.len", &|m| {
                blocks(m).spans[0].len = 1;
                blocks(m).spans[1].len = 2;
            }),
            ("caches.spans.len", &|m| {
                blocks(m).spans[0].len = 32_769;
                blocks(m).blocks = vec![BlockId(0); 32_770];
            }),
            ("caches.blocks", &|m| blocks(m).blocks[2] = BlockId(KV_BLOCKS_MAX)),
            ("caches.slots", &|m| _ = slots(m).pop()),
            ("caches.slots", &|m| slots(m)[0].read = Some(8)),
            ("caches.slots", &|m| slots(m)[1].write = STATE_SLOTS_MAX),
            ("caches.slots", &|m| slots(m)[0].read = Some(STATE_SLOTS_MAX)),
        ],
    );
}

fn blocks(message: &mut Forward) -> &mut BlockTables {
    match &mut message.caches[0] {
        CacheTables::Blocks(tables) => tables,
        CacheTables::Slots(_) => unreachable!("the sample's first group has blocks"),
    }
}

fn slots(message: &mut Forward) -> &mut Vec<StateSlots> {
    match &mut message.caches[1] {
        CacheTables::Slots(slots) => slots,
        CacheTables::Blocks(_) => unreachable!("the sample's second group has slots"),
    }
}

#[test]
fn forward_against_a_plan() {
    let caches = [CacheLimits::all_positions(10), CacheLimits::Slots(10)];
    let plan = ForwardLimits {
        rows_max: 3,
        ctx_size: 33,
        caches: &caches,
        hidden: 64,
        first_stage: false,
    };
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
    let [blocks, slots] = caches;
    let field = |caches: &[CacheLimits]| field(ForwardLimits { caches, ..plan }, 768);
    assert_eq!(field(&[blocks]), "caches");
    assert_eq!(field(&[slots, blocks]), "caches");
    assert_eq!(field(&[CacheLimits::all_positions(9), slots]), "caches.blocks");
    assert_eq!(field(&[blocks, CacheLimits::Slots(9)]), "caches.slots");
}

#[test]
fn a_window_lets_go_of_the_blocks_behind_it_and_of_no_other() {
    let forward = |position: u32, first: u32| {
        let mut forward = samples::forward();
        forward.chunks.truncate(1);
        (forward.chunks[0].position, forward.chunks[0].token_count) = (position, 1);
        let blocks = (first..=position / 32).map(BlockId).collect::<Vec<_>>();
        let spans = vec![TableSpan { first, len: blocks.len() as u32 }];
        forward.caches = vec![CacheTables::Blocks(BlockTables { blocks, spans })];
        forward
    };
    let check = |forward: Forward, window| {
        let caches = [CacheLimits::Blocks(BlockLimits { count: 100, window })];
        let (rows_max, ctx_size, hidden) = (3, 1000, 1);
        let limits =
            ForwardLimits { rows_max, ctx_size, caches: &caches, hidden, first_stage: true };
        forward.check_against(&limits, 4).is_ok()
    };
    // Position 100 with a window of 40 reads from 61 on: block 1.
    assert!(check(forward(100, 1), Some(40)) && check(forward(100, 0), Some(40)));
    assert!(!check(forward(100, 2), Some(40)) && !check(forward(100, 1), None));
    // Position 103 reads from 64 on: block 2.
    assert!(check(forward(103, 2), Some(40)) && !check(forward(103, 3), Some(40)));
}

fn params(message: &mut Sampling) -> &mut SamplingParams {
    &mut message.params[0]
}

fn options(message: &mut Sampling) -> &mut SamplingOptions {
    &mut message.params[0].options
}

#[test]
fn sampling() {
    let row = |params, position, mask| RowMode::Sample(SampleBy { params, position, mask });
    refused::<Sampling>(
        samples::sampling,
        &[
            ("epoch", &|m| m.epoch = PlanEpoch(0)),
            ("microbatch", &|m| m.microbatch.0 = 0),
            ("rows", &|m| m.rows.clear()),
            ("rows", &|m| m.rows = vec![m.rows[0].clone(); 2049]),
            ("params", &|m| m.params = vec![m.params[0].clone(); 4]),
            ("masks", &|m| m.masks = vec![m.masks[1].clone(); 4]),
            ("rows.params", &|m| m.rows[1].mode = row(1, 33, None)),
            ("rows.mask", &|m| m.rows[1].mode = row(0, 33, Some(3))),
            ("position", &|m| m.rows[1].mode = row(0, 0, None)),
            ("top_logprobs", &|m| m.rows[0].top_logprobs = 21),
            ("temperature", &|m| options(m).temperature = f32::NAN),
            ("temperature", &|m| options(m).temperature = -0.1),
            ("temperature", &|m| options(m).temperature = 100.1),
            ("top_p", &|m| options(m).top_p = 0.0),
            ("top_p", &|m| options(m).top_p = 1.1),
            ("min_p", &|m| options(m).min_p = f32::INFINITY),
            ("xtc_probability", &|m| options(m).xtc_probability = 1.1),
            ("xtc_probability", &|m| options(m).xtc_probability = f32::NAN),
            ("xtc_threshold", &|m| options(m).xtc_threshold = -0.1),
            ("repetition_penalty", &|m| options(m).repetition_penalty = 0.0),
            ("repetition_penalty", &|m| options(m).repetition_penalty = f32::INFINITY),
            ("frequency_penalty", &|m| options(m).frequency_penalty = f32::NAN),
            ("presence_penalty", &|m| options(m).presence_penalty = f32::NEG_INFINITY),
            ("logit_bias", &|m| options(m).logit_bias[0].1 = f32::NEG_INFINITY),
            ("logit_bias", &|m| options(m).logit_bias.reverse()),
            ("logit_bias", &|m| {
                options(m).logit_bias = (0..=LOGIT_BIAS_MAX as u32).map(|t| (t, 0.0)).collect();
            }),
            ("prompt_counts", &|m| params(m).prompt_counts[1].0 = 1),
            ("output_counts", &|m| params(m).output_counts[0].1 = 0),
            ("masks", &|m| m.masks[0] = TokenMask::Bits(vec![0; 2])),
            ("masks", &|m| m.masks[0] = TokenMask::Bits(vec![])),
            ("masks", &|m| m.masks[0] = TokenMask::Bits(vec![1; MASK_WORDS_MAX + 1])),
            ("masks", &|m| m.masks[1] = TokenMask::Only(vec![])),
            ("masks", &|m| m.masks[1] = TokenMask::Only(vec![5, 5])),
            ("masks", &|m| m.masks[2] = TokenMask::AllBut(vec![7, 6])),
        ],
    );
}

#[test]
fn sampling_against_a_model() {
    let message = samples::sampling();
    message.check_against(3, 100).unwrap();
    let field = |rows, vocab| message.check_against(rows, vocab).unwrap_err().field;
    assert_eq!(field(1, 100), "rows");
    assert_eq!(field(3, 12), "logit_bias");
    assert_eq!(field(3, 99), "prompt_counts");
    assert_eq!(field(3, 200), "masks");
    let mut score = samples::sampling();
    score.rows[0].mode = RowMode::Score(100);
    assert_eq!(score.check_against(3, 100).unwrap_err().field, "Score");
    for mask in [TokenMask::Only(vec![100]), TokenMask::AllBut(vec![100])] {
        let mut far = samples::sampling();
        far.masks[1] = mask;
        assert_eq!(far.check_against(3, 100).unwrap_err().field, "masks");
    }
    let mut wide = samples::sampling();
    wide.masks[0] = TokenMask::Bits(vec![u64::MAX, 0x1f_ffff_ffff]);
    assert_eq!(wide.check_against(3, 100).unwrap_err().field, "masks");
    // A vocabulary that fills its last word.
    wide.masks[0] = TokenMask::Bits(vec![u64::MAX; 2]);
    wide.check_against(3, 128).unwrap();
}

fn token(message: &mut Sampled) -> &mut SampledToken {
    match &mut message.rows[0] {
        SampledRow::Token(token) => token,
        row => unreachable!("the sample's first row is a token, not {row:?}"),
    }
}

#[test]
fn sampled() {
    refused::<Sampled>(
        samples::sampled,
        &[
            ("epoch", &|m| m.epoch = PlanEpoch(0)),
            ("microbatch", &|m| m.microbatch.0 = 0),
            ("rows", &|m| m.rows = vec![m.rows[0].clone(); 2049]),
            ("logprob", &|m| token(m).logprob = f32::NAN),
            ("logprob", &|m| token(m).logprob = f32::INFINITY),
            ("top", &|m| token(m).top[1].1 = f32::NAN),
            ("top", &|m| token(m).top.swap(0, 1)),
            ("top", &|m| token(m).top.swap(1, 2)),
            ("top", &|m| token(m).top = (0..21).map(|t| (t, 0.0)).collect()),
        ],
    );
}
