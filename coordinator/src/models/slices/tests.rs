//! Slices over real QUIC on loopback, with the worker's side played by the test.

use super::*;
use std::time::SystemTime;
use tempfile::TempDir;
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::gguf::{Array, Gguf, Value};
use woolly_engine::plan::{ModelLayout, SliceId, SlicePiece};
use woolly_engine::quant::TensorType;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::endpoint::{
    IDLE_TIMEOUT, bind, coordinator_server, dial_coordinator, slices_client,
};
use woolly_protocol::identity::SigningRequest;
use woolly_protocol::limits::SLICE_CHUNK;
use woolly_protocol::peer::{Peer, accept};
use woolly_protocol::preamble::greet;
use woolly_protocol::slices::{SliceKey, SliceManifest};

const FINGERPRINT: [u8; 32] = [5; 32];
/// Wide enough that a layer has more than one chunk.
const HIDDEN: u64 = 512;
const FFN: u64 = 1024;
const VOCAB: u64 = 64;

struct Model {
    file: Vec<u8>,
    layout: Arc<ModelLayout>,
    server: Arc<SliceServer>,
    dir: TempDir,
}

/// A model of two layers whose bytes are a running count.
fn model() -> Model {
    let tokens = (0..VOCAB).map(|token| format!("t{token}")).collect();
    let mut writer =
        GgufWriter::new().kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    writer = writer.kv("general.architecture", Value::String("llama".into()));
    for (key, value) in [
        ("block_count", 2),
        ("context_length", 256),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FFN),
        ("attention.head_count", 8),
        ("attention.head_count_kv", 8),
    ] {
        writer = writer.kv(format!("llama.{key}"), Value::U32(value.try_into().unwrap()));
    }
    writer = writer.kv("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![HIDDEN, VOCAB]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..2 {
        for (name, shape) in [
            ("attn_norm", vec![HIDDEN]),
            ("attn_q", vec![HIDDEN, HIDDEN]),
            ("attn_k", vec![HIDDEN, HIDDEN]),
            ("attn_v", vec![HIDDEN, HIDDEN]),
            ("attn_output", vec![HIDDEN, HIDDEN]),
            ("ffn_norm", vec![HIDDEN]),
            ("ffn_gate", vec![HIDDEN, FFN]),
            ("ffn_up", vec![HIDDEN, FFN]),
            ("ffn_down", vec![FFN, HIDDEN]),
        ] {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape));
        }
    }
    for (number, (name, shape)) in (0u32..).zip(tensors) {
        let ty = if shape.len() == 1 { TensorType::F32 } else { TensorType::Q8_0 };
        let elements: u64 = shape.iter().product();
        let len = ty.row_bytes(elements.try_into().unwrap());
        let bytes = (0u32..).map(|at| (at.wrapping_mul(31) ^ number).to_le_bytes()[0]).take(len);
        writer = writer.tensor(name, ty, &shape, bytes.collect());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    writer.write(&path).unwrap();
    let layout = Arc::new(ModelLayout::new(&Gguf::open(&path).unwrap()).unwrap());
    let source =
        SliceSource::open(Arc::clone(&layout), std::slice::from_ref(&path), FINGERPRINT).unwrap();
    let server = Arc::new(SliceServer::new());
    server.offer(source);
    Model { file: std::fs::read(&path).unwrap(), layout, server, dir }
}

impl Model {
    /// What a slice must be, put together from the file in memory.
    fn expected(&self, id: SliceId) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in self.layout.slice_ranges(id) {
            match piece {
                SlicePiece::Zeros(len) => {
                    bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0)
                }
                SlicePiece::Source(range) => {
                    let start = usize::try_from(range.offset).unwrap();
                    let end = start + usize::try_from(range.len).unwrap();
                    bytes.extend_from_slice(&self.file[start..end]);
                }
            }
        }
        bytes
    }
}

/// A worker's connection to the server.
struct Client {
    connection: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

async fn client(server: &Arc<SliceServer>) -> Client {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = ClusterCa::open(dir.path(), now).unwrap();
    let coordinator = ca.issue_coordinator(now).unwrap();
    let request = SigningRequest::new().unwrap();
    let (_, accepted) = ca.sign(request.der(), now).unwrap();
    let worker = request.complete(&accepted, &ca.pin(), now).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let bound = bind(any, Some(coordinator_server(&coordinator, IDLE_TIMEOUT).unwrap())).unwrap();
    let address = bound.endpoint.local_addr().unwrap();
    let (listening, server) = (bound.endpoint.clone(), Arc::clone(server));
    tokio::spawn(async move {
        let (connection, peer) =
            accept(listening.accept().await.unwrap(), SystemTime::now()).await.unwrap();
        let Peer::Slices(worker) = peer else { panic!("{peer:?}") };
        server.serve(connection, worker).await;
    });
    let dialling = bind(any, None).unwrap();
    let config = slices_client(&worker, IDLE_TIMEOUT).unwrap();
    let connection = dial_coordinator(&dialling.endpoint, config, address).await.unwrap();
    greet(&connection, &Preamble::ours(NUMERICS)).await.unwrap();
    Client { connection, _endpoints: [bound.endpoint, dialling.endpoint] }
}

impl Client {
    async fn ask<M: Message>(&self, request: &M) -> Frame {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        write_frame(&mut send, EncodedFrame::new(request).unwrap()).await.unwrap();
        send.finish().unwrap();
        let kinds = [Kind::SliceManifest, Kind::SliceChunk, Kind::Fault];
        read_frame(&mut recv, &kinds).await.unwrap().unwrap()
    }

    async fn refused<M: Message>(&self, request: &M) -> String {
        let fault: FaultMessage = self.ask(request).await.message().unwrap();
        assert_eq!(fault.code, FaultCode::SliceFailed);
        fault.text
    }
}

#[tokio::test]
async fn every_slice_arrives_as_the_layout_says() {
    let model = model();
    let client = client(&model.server).await;
    for (id, slice) in [
        (SliceId::Header(0), SliceKey::Header(0)),
        (SliceId::Embedding, SliceKey::Embedding),
        (SliceId::Layer(1), SliceKey::Layer(1)),
        (SliceId::Head, SliceKey::Head),
    ] {
        let expected = model.expected(id);
        let fingerprint = FINGERPRINT;
        let manifest: SliceManifest =
            client.ask(&SliceManifestRequest { fingerprint, slice }).await.message().unwrap();
        assert_eq!(manifest.length, expected.len() as u64);
        for ((chunk, bytes), hash) in
            (0u32..).zip(expected.chunks(SLICE_CHUNK)).zip(&manifest.chunks)
        {
            let frame = client.ask(&SliceChunkRequest { fingerprint, slice, chunk }).await;
            assert_eq!(frame.message::<SliceChunk>().unwrap(), SliceChunk { chunk });
            assert!(frame.payload() == bytes, "chunk {chunk} of {slice:?} differs");
            assert_eq!(blake3::hash(bytes), *hash);
        }
    }
    assert!(model.expected(SliceId::Layer(1)).len() > 2 * SLICE_CHUNK, "too small to test much");
}

#[tokio::test]
async fn s_03_what_no_slice_has_is_refused() {
    let model = model();
    let client = client(&model.server).await;
    let (fingerprint, slice) = (FINGERPRINT, SliceKey::Layer(0));
    for (slice, chunk) in [
        (slice, 9),
        (slice, 65_535),
        (SliceKey::Head, 1),
        (SliceKey::Layer(2), 0),
        (SliceKey::Header(1), 0),
    ] {
        let text = client.refused(&SliceChunkRequest { fingerprint, slice, chunk }).await;
        assert!(text.contains("chunk") || text.contains("no slice"), "{text}");
    }
    let text =
        client.refused(&SliceManifestRequest { fingerprint, slice: SliceKey::Layer(2) }).await;
    assert!(text.contains("no slice"), "{text}");
}

#[tokio::test]
async fn s_13_another_models_fingerprint_is_refused() {
    let model = model();
    let client = client(&model.server).await;
    let (fingerprint, slice) = ([6; 32], SliceKey::Head);
    let text = client.refused(&SliceManifestRequest { fingerprint, slice }).await;
    assert!(text.contains("another model"), "{text}");
    let text = client.refused(&SliceChunkRequest { fingerprint, slice, chunk: 0 }).await;
    assert!(text.contains("another model"), "{text}");
}

#[tokio::test]
async fn s_13_a_file_that_was_written_to_is_not_served() {
    let model = model();
    let client = client(&model.server).await;
    let mut file = model.file.clone();
    file.push(0);
    std::fs::write(model.dir.path().join("m.gguf"), file).unwrap();
    let (fingerprint, slice) = (FINGERPRINT, SliceKey::Head);
    let text = client.refused(&SliceManifestRequest { fingerprint, slice }).await;
    assert!(text.contains("written to"), "{text}");
    let text = client.refused(&SliceChunkRequest { fingerprint, slice, chunk: 0 }).await;
    assert!(text.contains("written to"), "{text}");
}

#[tokio::test]
async fn s_14_fifty_workers_share_what_is_read() {
    let model = model();
    let expected = model.expected(SliceId::Layer(0));
    let mut workers = JoinSet::new();
    for _ in 0..50 {
        let client = client(&model.server).await;
        workers.spawn(async move {
            let (fingerprint, slice) = (FINGERPRINT, SliceKey::Layer(0));
            let manifest: SliceManifest =
                client.ask(&SliceManifestRequest { fingerprint, slice }).await.message().unwrap();
            let chunk = u32::try_from(manifest.chunks.len()).unwrap() - 1;
            let frame = client.ask(&SliceChunkRequest { fingerprint, slice, chunk }).await;
            frame.payload().to_vec()
        });
    }
    let last = expected.chunks(SLICE_CHUNK).last().unwrap();
    while let Some(done) = workers.join_next().await {
        assert!(done.unwrap() == last);
    }
}

#[tokio::test]
async fn without_a_model_requests_are_refused() {
    let client = client(&Arc::new(SliceServer::new())).await;
    let request = SliceManifestRequest { fingerprint: FINGERPRINT, slice: SliceKey::Head };
    assert!(client.refused(&request).await.contains("no model yet"));
}
