//! A coordinator played by the test, worker processes, and a tiny model.

use bytes::Bytes;
use quinn::{Connection, Endpoint, SendStream};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::time::timeout;
use woolly_engine::NUMERICS;
use woolly_engine::gguf::write::GgufWriter;
use woolly_engine::gguf::{Array, Value};
use woolly_engine::quant::TensorType;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::control::{
    Assign, Heartbeat, Hello, KvType, ModelPart, ModelSource, Neighbour, PlanLinks, StageSpec,
    StreamOpen, StreamPurpose, Welcome,
};
use woolly_protocol::endpoint::{IDLE_TIMEOUT, bind, coordinator_server};
use woolly_protocol::forward::{BlockTables, CacheLimits, CacheTables, Chunk, Forward};
use woolly_protocol::frame::{EncodedFrame, Frame, Message};
use woolly_protocol::frame_io::{FrameReader, write_frame};
use woolly_protocol::ids::{BlockId, MicrobatchId, PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::join::RenewalRequest;
use woolly_protocol::joining::{Admission, answer_join};
use woolly_protocol::kind::Kind;
use woolly_protocol::machine::machine_id;
use woolly_protocol::peer::{Peer, accept};
use woolly_protocol::preamble::{Preamble, answer_greeting};
use woolly_protocol::renewing::answer_renewal;
use woolly_protocol::sampling::{RowMode, Sampling, SamplingRow};
use woolly_protocol::token_store::{TokenOptions, TokenStore};

/// Width of the tiny model's hidden states.
pub const HIDDEN: u32 = 64;
/// Its vocabulary.
pub const VOCAB: u32 = 40;
/// Its layers.
pub const LAYERS: u32 = 2;
/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the tiny model; returns its path.
pub fn write_model(dir: &Path) -> PathBuf {
    let tokens = (0..VOCAB).map(|token| format!("t{token}")).collect();
    let mut writer =
        GgufWriter::new().kv("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    writer = writer.kv("general.architecture", Value::String("llama".into()));
    for (key, value) in [
        ("block_count", LAYERS),
        ("context_length", 256),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        writer = writer.kv(format!("llama.{key}"), Value::U32(value));
    }
    writer = writer.kv("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let (hidden, vocab) = (u64::from(HIDDEN), u64::from(VOCAB));
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![hidden, vocab]),
        ("output_norm.weight".to_owned(), vec![hidden]),
        ("output.weight".to_owned(), vec![hidden, vocab]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attn_norm", vec![hidden]),
            ("attn_q", vec![hidden, hidden]),
            ("attn_k", vec![hidden, 32]),
            ("attn_v", vec![hidden, 32]),
            ("attn_output", vec![hidden, hidden]),
            ("ffn_norm", vec![hidden]),
            ("ffn_gate", vec![hidden, 96]),
            ("ffn_up", vec![hidden, 96]),
            ("ffn_down", vec![96, hidden]),
        ] {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape));
        }
    }
    for (number, (name, shape)) in (0u32..).zip(tensors) {
        let elements: u64 = shape.iter().product();
        let bytes = (0..u32::try_from(elements).unwrap()).flat_map(|at| {
            // Values in -0.25..0.25 that no two tensors share.
            let mixed = (at ^ number.wrapping_mul(0x9e37)).wrapping_mul(2_654_435_761) >> 16;
            (f32::from(u16::try_from(mixed).unwrap()) / 131_072.0 - 0.25).to_le_bytes()
        });
        writer = writer.tensor(name, TensorType::F32, &shape, bytes.collect());
    }
    let path = dir.join("tiny.gguf");
    writer.write(&path).unwrap();
    path
}

/// A coordinator that does what the test says.
pub struct Coordinator {
    pub dir: TempDir,
    pub ca: Arc<ClusterCa>,
    pub tokens: TokenStore,
    pub endpoint: Endpoint,
    pub address: String,
    pub model: PathBuf,
}

impl Coordinator {
    pub fn start() -> Coordinator {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        // The cluster is old enough for certificates that have expired.
        let ca = ClusterCa::open(dir.path(), now - Duration::from_secs(365 * 24 * 3600)).unwrap();
        let identity = ca.issue_coordinator(now).unwrap();
        let server = coordinator_server(&identity, IDLE_TIMEOUT).unwrap();
        let bound = bind("127.0.0.1:0".parse().unwrap(), Some(server)).unwrap();
        let address = bound.endpoint.local_addr().unwrap().to_string();
        let tokens = TokenStore::open(dir.path()).unwrap();
        let model = write_model(dir.path());
        Coordinator { ca: Arc::new(ca), tokens, endpoint: bound.endpoint, address, model, dir }
    }

    pub fn token(&self) -> String {
        let options = TokenOptions { lifetime: None, uses: None };
        self.tokens.create(self.ca.pin(), options, SystemTime::now()).unwrap().to_string()
    }

    /// Starts a worker process with a state directory of this name; with 1 GiB unless `more` says another
    /// `--memory`.
    pub fn worker(&self, state: &str, more: &[&str]) -> Process {
        let state = self.dir.path().join(state);
        let child = Command::new(env!("CARGO_BIN_EXE_woolly-worker"))
            .args(["join", &self.address, "-t", "1", "--name"])
            .args([state.file_name().unwrap(), "--state-dir".as_ref(), state.as_os_str()])
            .args(if more.contains(&"--memory") { &[][..] } else { &["--memory", "1GiB"] })
            .args(more)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process(child)
    }

    /// Answers joins until a worker has said hello, and welcomes it.
    pub async fn welcome(&self) -> Worker {
        timeout(PATIENCE, self.welcome_next()).await.expect("no worker came")
    }

    async fn welcome_next(&self) -> Worker {
        let ours = Preamble::ours(NUMERICS);
        loop {
            let incoming = self.endpoint.accept().await.unwrap();
            let Ok((connection, peer)) = accept(incoming, SystemTime::now()).await else {
                continue;
            };
            let id = match peer {
                Peer::Joining => {
                    let admission = Admission::of_all(Arc::clone(&self.ca), self.tokens.clone());
                    // Refusals are what some tests are about.
                    let _ = answer_join(&connection, &ours, admission, Duration::ZERO).await;
                    continue;
                }
                Peer::Renewing(id) => {
                    let sign = |request: &RenewalRequest| {
                        let signed = self.ca.renew(id, &request.signing_request, SystemTime::now());
                        Ok(signed.unwrap())
                    };
                    answer_renewal(&connection, &ours, sign).await.unwrap();
                    continue;
                }
                Peer::Worker(id) => id,
                other => panic!("{other:?} dialled"),
            };
            let (mut send, recv) = answer_greeting(&connection, &ours).await.unwrap();
            let mut reader = FrameReader::new(recv);
            let hello = reader.read(&[Kind::Hello]).await.unwrap().unwrap();
            let welcome = Welcome { cluster: self.ca.cluster(), heartbeat_ms: 100 };
            write_frame(&mut send, EncodedFrame::new(&welcome).unwrap()).await.unwrap();
            return Worker { id, hello: hello.message().unwrap(), connection, send, reader };
        }
    }

    /// The whole model as one stage on this worker.
    pub fn assign(&self, epoch: u32) -> Assign {
        let data = self.model.metadata().unwrap();
        let ns = |s: i64, rest: i64| u64::try_from(s * 1_000_000_000 + rest).unwrap();
        let source = ModelSource {
            machine: machine_id(),
            parts: vec![ModelPart {
                file_name: "tiny.gguf".to_owned(),
                path: self.model.to_str().unwrap().to_owned(),
                size: data.len(),
                stat: [
                    data.dev(),
                    data.ino(),
                    ns(data.mtime(), data.mtime_nsec()),
                    ns(data.ctime(), data.ctime_nsec()),
                ],
            }],
        };
        let stage = StageSpec {
            fingerprint: [9; 32],
            layer_first: 0,
            layer_end: LAYERS,
            ctx_size: 64,
            caches: vec![CacheLimits::all_positions(4)],
            rows_max: 32,
            kv_type: KvType::F16,
            hidden: HIDDEN,
            from_disk: false,
        };
        let links = PlanLinks {
            epoch: PlanEpoch(epoch),
            stage: 0,
            stage_count: 1,
            in_flight_max: 3,
            next: None,
            previous: None,
            replaces: None,
        };
        Assign { source, stage, links }
    }

    /// The model as two stages of one layer each.
    pub fn assign_two(&self, epoch: u32, first: &Worker, last: &Worker) -> [Assign; 2] {
        let [mut front, mut back] = [self.assign(epoch), self.assign(epoch)];
        front.stage.layer_end = 1;
        back.stage.layer_first = 1;
        let next = Neighbour {
            worker: last.id,
            address: last.hello.advertise.clone(),
            name: last.hello.name.clone(),
        };
        (front.links.stage_count, front.links.next) = (2, Some(next));
        (back.links.stage, back.links.stage_count) = (1, 2);
        back.links.previous = Some(first.id);
        [front, back]
    }
}

/// A worker as the coordinator sees it.
pub struct Worker {
    pub id: WorkerId,
    pub hello: Hello,
    pub connection: Connection,
    pub send: SendStream,
    reader: FrameReader,
}

impl Worker {
    pub async fn tell<M: Message>(&mut self, message: &M) {
        write_frame(&mut self.send, EncodedFrame::new(message).unwrap()).await.unwrap();
    }

    /// The next message of this type; heartbeats are passed over, anything else fails the test.
    pub async fn expect<M: Message>(&mut self) -> M {
        let frame = timeout(PATIENCE, self.next_but_heartbeats(M::KIND)).await;
        frame.unwrap_or_else(|_| panic!("no {} came", M::KIND)).message().unwrap()
    }

    async fn next_but_heartbeats(&mut self, wanted: Kind) -> Frame {
        loop {
            let kinds =
                [Kind::Heartbeat, Kind::Ready, Kind::Fault, Kind::Drain, Kind::RenewalRequest];
            let frame = self.reader.read(&kinds).await.unwrap().expect("the stream ended");
            if frame.kind() == wanted {
                return frame;
            }
            let fault = frame.message::<woolly_protocol::fault::FaultMessage>();
            assert_eq!(frame.kind(), Kind::Heartbeat, "expected {wanted}, came {fault:?}");
        }
    }

    /// The next heartbeat; anything else fails the test.
    pub async fn heartbeat(&mut self) -> Heartbeat {
        let read = timeout(PATIENCE, self.reader.read(&[Kind::Heartbeat])).await;
        read.expect("no heartbeat came").unwrap().expect("the stream ended").message().unwrap()
    }

    /// Opens a stream of a plan to this worker.
    pub async fn open(&self, epoch: u32, purpose: StreamPurpose) -> SendStream {
        let mut send = self.connection.open_uni().await.unwrap();
        let open = StreamOpen { epoch: PlanEpoch(epoch), purpose };
        write_frame(&mut send, EncodedFrame::new(&open).unwrap()).await.unwrap();
        send
    }

    /// The stream of results of a plan; those of plans before it are passed over.
    pub async fn results(&self, epoch: u32) -> FrameReader {
        let expected = StreamOpen { epoch: PlanEpoch(epoch), purpose: StreamPurpose::Results };
        loop {
            let stream = timeout(PATIENCE, self.connection.accept_uni()).await.unwrap().unwrap();
            let mut reader = FrameReader::new(stream);
            // That of a plan that has ended may be gone.
            let Ok(Some(open)) = reader.read(&[Kind::StreamOpen]).await else { continue };
            let open: StreamOpen = open.message().unwrap();
            if open == expected {
                return reader;
            }
            assert_eq!(open.purpose, StreamPurpose::Results);
        }
    }
}

/// Sends a frame on a plan's stream.
pub async fn send<M: Message>(stream: &mut SendStream, message: &M, payload: &[u8]) {
    let frame = EncodedFrame::with_payload(message, Bytes::copy_from_slice(payload)).unwrap();
    write_frame(stream, frame).await.unwrap();
}

/// A prompt of one sequence whose last row is scored or sampled, with its payload.
pub fn prompt(epoch: u32, microbatch: u64, tokens: &[u32]) -> (Forward, Vec<u8>) {
    let chunk = Chunk {
        sequence: SequenceId(1),
        position: 0,
        token_count: u32::try_from(tokens.len()).unwrap(),
        sample_rows: 1,
    };
    let mut tables = BlockTables::default();
    tables.push(0, &[BlockId(0)]);
    let caches = vec![CacheTables::Blocks(tables)];
    let (epoch, microbatch) = (PlanEpoch(epoch), MicrobatchId(microbatch));
    let payload = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    (Forward { epoch, microbatch, traces: Vec::new(), chunks: vec![chunk], caches }, payload)
}

/// Scores token 3 in the prompt's last row, with five others.
pub fn score(epoch: u32, microbatch: u64) -> Sampling {
    let (epoch, microbatch) = (PlanEpoch(epoch), MicrobatchId(microbatch));
    let row = SamplingRow { top_logprobs: 5, mode: RowMode::Score(3) };
    Sampling { epoch, microbatch, params: vec![], masks: vec![], rows: vec![row] }
}

/// A worker process; killed when the test ends.
pub struct Process(pub Child);

impl Process {
    /// Waits for its end; returns its exit status and what it wrote to stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the worker does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().code(), text)
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
