//! One valid message of every kind, with every field used.

use woolly_protocol::control::{
    Assign, Drain, ForwardTiming, Heartbeat, Hello, KvType, ModelPart, ModelSource, Neighbour,
    PlanLinks, PlanReport, Ready, Release, StageSpec, StreamOpen, StreamPurpose, Welcome,
};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::forward::{
    BlockLimits, BlockTables, CacheLimits, CacheTables, Chunk, Forward, StateSlots, TableSpan,
};
use woolly_protocol::ids::{BlockId, MicrobatchId, PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::join::{JoinAccepted, JoinRequest, Removed, RenewalRequest};
use woolly_protocol::sampling::{
    RowMode, SampleBy, Sampled, SampledRow, SampledToken, Sampling, SamplingOptions,
    SamplingParams, SamplingRow, TokenMask,
};
use woolly_protocol::slices::{
    SliceChunk, SliceChunkRequest, SliceKey, SliceManifest, SliceManifestRequest,
};
use woolly_protocol::trace::SequenceTrace;

pub const EPOCH: PlanEpoch = PlanEpoch(7);
pub const MICROBATCH: MicrobatchId = MicrobatchId(41);

pub fn hello() -> Hello {
    Hello {
        name: "rack-1.node_7".to_owned(),
        machine: [0x11; 16],
        advertise: "10.0.0.7:7401".to_owned(),
        numerics: 3,
        threads: 8,
        memory_bytes: 16 << 30,
        memory_is_own: true,
        kv_memory_bytes: 1 << 30,
        read_bytes_per_s: 20_000_000_000,
        macs_per_s: 90_000_000_000,
        isa: "avx2".to_owned(),
        version: "0.1.0".to_owned(),
        local: false,
        weights_from_disk: true,
        host: [0x12; 16],
        time_ms: 1_795_879_598_123,
    }
}

pub fn welcome() -> Welcome {
    Welcome { cluster: [0x22; 16], heartbeat_ms: 500 }
}

pub fn assign() -> Assign {
    let source = ModelSource {
        machine: [0x44; 16],
        parts: vec![ModelPart {
            file_name: "m.gguf".to_owned(),
            path: "/models/m.gguf".to_owned(),
            size: 4_000_000_000,
            stat: [1, 2, 3, 4],
        }],
    };
    let stage = StageSpec {
        fingerprint: [0x33; 32],
        layer_first: 10,
        layer_end: 20,
        ctx_size: 8192,
        caches: vec![
            CacheLimits::all_positions(4096),
            CacheLimits::Blocks(BlockLimits { count: 512, window: Some(1024) }),
            CacheLimits::Slots(64),
        ],
        rows_max: 512,
        kv_type: KvType::Q8_0,
        hidden: 4096,
        from_disk: true,
    };
    let links = PlanLinks {
        epoch: EPOCH,
        stage: 1,
        stage_count: 3,
        in_flight_max: 4,
        next: Some(Neighbour {
            worker: WorkerId(0x1234_5678_9abc_def0),
            address: "10.0.0.8:7401".to_owned(),
            name: "rack-1.node_8".to_owned(),
        }),
        previous: Some(WorkerId(5)),
        replaces: Some(PlanEpoch(6)),
    };
    Assign { source, stage, links }
}

pub fn ready() -> Ready {
    Ready {
        epoch: EPOCH,
        mapped_bytes: 1,
        kv_bytes: 2,
        scratch_bytes: 3,
        fetched_bytes: 4,
        load_ms: 5,
    }
}

pub fn heartbeat() -> Heartbeat {
    let timing = ForwardTiming {
        microbatch: MICROBATCH,
        compute_us: 5,
        cpu_us: 6,
        wait_us: 7,
        queue_us: 13,
        wire_us: 8,
    };
    Heartbeat {
        number: 9,
        echo: 10,
        microbatch: MICROBATCH,
        progress: 1,
        load_done: 2,
        load_total: 3,
        forwards: 4,
        mappings: 11,
        populated_bytes: 12,
        plans: vec![
            PlanReport { epoch: EPOCH, timings: vec![timing] },
            PlanReport { epoch: PlanEpoch(3), timings: vec![] },
        ],
    }
}

pub fn release() -> Release {
    Release { epoch: EPOCH }
}

pub fn drain() -> Drain {
    Drain { reason: "the machine is going down".to_owned() }
}

pub fn fault() -> FaultMessage {
    let text = "no answer from 10.0.0.8:7401";
    let fault = FaultMessage::new(FaultCode::LinkFailed, EPOCH, MICROBATCH, text);
    FaultMessage { about: Some(WorkerId(0x44)), ..fault }
}

pub fn stream_open() -> StreamOpen {
    StreamOpen { epoch: EPOCH, purpose: StreamPurpose::Samplings }
}

pub fn forward() -> Forward {
    Forward {
        epoch: EPOCH,
        microbatch: MICROBATCH,
        traces: vec![SequenceTrace { chunk: 0, trace: [0x51; 16], span: [0x52; 8] }],
        chunks: vec![
            Chunk { sequence: SequenceId(100), position: 31, token_count: 2, sample_rows: 1 },
            Chunk { sequence: SequenceId(101), position: 0, token_count: 1, sample_rows: 0 },
        ],
        caches: vec![
            CacheTables::Blocks(BlockTables {
                blocks: [9, 4, 5].map(BlockId).to_vec(),
                spans: vec![TableSpan { first: 0, len: 2 }, TableSpan { first: 0, len: 1 }],
            }),
            CacheTables::Slots(vec![
                StateSlots { read: Some(7), write: 8 },
                StateSlots { read: None, write: 9 },
            ]),
        ],
    }
}

pub fn options() -> SamplingOptions {
    SamplingOptions {
        temperature: 0.75,
        top_k: 40,
        top_p: 0.5,
        min_p: 0.25,
        xtc_probability: 0.125,
        xtc_threshold: 0.375,
        repetition_penalty: 1.5,
        frequency_penalty: -0.5,
        presence_penalty: 2.0,
        seed: 0x0102_0304_0506_0708,
        choice: 1,
        logit_bias: vec![(3, -100.0), (70, 1.0)],
    }
}

pub fn params() -> SamplingParams {
    SamplingParams {
        options: options(),
        prompt_counts: vec![(1, 2), (99, 1)],
        output_counts: vec![(2, 1)],
    }
}

pub fn sampling() -> Sampling {
    let score = SamplingRow { top_logprobs: 0, mode: RowMode::Score(12) };
    let mode = |mask| RowMode::Sample(SampleBy { params: 0, position: 33, mask });
    let sample = SamplingRow { top_logprobs: 2, mode: mode(Some(0)) };
    let free = SamplingRow { top_logprobs: 0, mode: mode(None) };
    Sampling {
        epoch: EPOCH,
        microbatch: MICROBATCH,
        params: vec![params()],
        masks: vec![
            TokenMask::Bits(vec![u64::MAX, 0xf_ffff_ffff]),
            TokenMask::Only(vec![5, 98]),
            TokenMask::AllBut(vec![6]),
        ],
        rows: vec![score, sample, free],
    }
}

pub fn sampled() -> Sampled {
    let token =
        SampledToken { token: 12, logprob: -0.5, top: vec![(12, -0.5), (3, -2.0), (8, -2.0)] };
    let rows = vec![SampledRow::Token(token), SampledRow::NonFinite, SampledRow::NothingAllowed];
    Sampled { epoch: EPOCH, microbatch: MICROBATCH, rows }
}

pub fn join_request() -> JoinRequest {
    JoinRequest {
        token_id: "0123abcd".to_owned(),
        token_secret: "0123456789abcdefghjkmnpqrstvwxyz".to_owned(),
        signing_request: vec![0x30, 0x03, 1, 2, 3],
        name: "node".to_owned(),
        host: [0x12; 16],
    }
}

pub fn renewal_request() -> RenewalRequest {
    RenewalRequest { signing_request: vec![0x30, 4, 5, 6] }
}

pub fn removed() -> Removed {
    Removed { workers: vec![WorkerId(0x1234_5678_9abc_def0), WorkerId(7)] }
}

pub fn join_accepted() -> JoinAccepted {
    JoinAccepted { certificate: vec![0x30, 1, 2], ca: vec![0x30, 3], cluster: [0x22; 16] }
}

pub fn slice_manifest_request() -> SliceManifestRequest {
    SliceManifestRequest { fingerprint: [0x33; 32], slice: SliceKey::Layer(17) }
}

pub fn slice_manifest() -> SliceManifest {
    SliceManifest { length: (1 << 20) + 5, chunks: vec![[0x55; 32], [0x66; 32]] }
}

pub fn slice_chunk_request() -> SliceChunkRequest {
    SliceChunkRequest { fingerprint: [0x33; 32], slice: SliceKey::Header(1), chunk: 2 }
}

pub fn slice_chunk() -> SliceChunk {
    SliceChunk { chunk: 2 }
}
