//! What Woolly's coordinator and workers say to each other, and how they trust each other.
//!
//! # Which stream carries what
//!
//! Every connection is dialled by a worker. On each, the dialling side opens the first
//! bidirectional stream and both sides begin it with their 32-byte [`preamble`]; a
//! [`Refusal`](refusal::Refusal) may stand where any frame could begin, and also closes the
//! connection.
//!
//! | connection (ALPN) | stream | opened by | carries |
//! | --- | --- | --- | --- |
//! | worker → coordinator (`woolly-join`) | first bidirectional | worker | preambles, then `JoinRequest` → `JoinAccepted`; the worker closes |
//! | worker → coordinator (`woolly`) | first bidirectional: control | worker | preambles, `Hello` → `Welcome`; then `Heartbeat` and `Drain` both ways, `Removed`, `Assign` and `Release` to the worker, `Ready` and `FaultMessage` to the coordinator; `RenewalRequest` → `JoinAccepted` |
//! | | unidirectional | coordinator | `StreamOpen(Forwards)`, then `Forward`s with token ids, to stage 0 |
//! | | unidirectional | coordinator | `StreamOpen(Samplings)`, then `Sampling`s, to the last stage |
//! | | unidirectional | worker | `StreamOpen(Results)`, then `Sampled`s, from the last stage |
//! | stage → next stage (`woolly`) | first bidirectional | sending stage | preambles; then it stays open and silent |
//! | | unidirectional | sending stage | `StreamOpen(Forwards)`, then `Forward`s with hidden states |
//! | worker → coordinator (`woolly-renew`) | first bidirectional | worker | preambles, then `RenewalRequest` → `JoinAccepted`; the worker closes |
//! | worker → coordinator (`woolly-slices`) | first bidirectional | worker | preambles, then both sides finish it |
//! | | bidirectional, one per request | worker | `SliceManifestRequest` → `SliceManifest`, or `SliceChunkRequest` → `SliceChunk` with payload, or a `FaultMessage` |
//!
//! Unidirectional streams live as long as the plan of their `StreamOpen`.
//!
//! # Which file answers which question
//!
//! | files | hold |
//! | --- | --- |
//! | `control`, `forward`, `sampling`, `fault`, `join`, `slices`, `ids` | the messages and what they may say |
//! | `kind`, `limits`, `frame`, `frame_io`, `check` | how a message becomes bytes and back, and every limit |
//! | `preamble`, `refusal` | the first bytes of a connection, and how a peer is turned away |
//! | `clock`, `certificate`, `ca`, `identity`, `token`, `token_store`, `join_secret`, `joining`, `renewing` | who belongs to the cluster, and how one comes to and stays so |
//! | `crypto`, `tls`, `windows`, `endpoint`, `peer` | QUIC connections between those who do |
//! | `gone` | whether the process at the other end of one is gone |
//! | `hidden`, `places`, `rate`, `log_limit` | what is not printed, and how much strangers and peers may take |
//! | `failpoint` | faults that tests plant in debug builds |
//! | `settings/` | options of the programs: flags, variables, a TOML file; completions and manual pages |
//! | `private_socket` | a Unix socket for its owner alone |
//! | `notify` | what a service manager is told: ready, stopping, alive |
//! | `trace` | which request a sequence is computed for |
//! | `machine`, `units` | which processes share a machine; sizes and durations as people write them |

#![forbid(unsafe_code)]

pub mod ca;
pub mod certificate;
pub mod check;
pub mod clock;
pub mod control;
pub mod crypto;
pub mod endpoint;
pub mod failpoint;
pub mod fault;
mod files;
pub mod forward;
pub mod frame;
pub mod frame_io;
pub mod gone;
pub mod hidden;
pub mod identity;
pub mod ids;
pub mod join;
pub mod join_secret;
pub mod joining;
pub mod kind;
pub mod limits;
pub mod log_limit;
pub mod machine;
pub mod notify;
pub mod peer;
pub mod places;
pub mod preamble;
pub mod private_socket;
pub mod rate;
pub mod refusal;
pub mod renewing;
pub mod sampling;
pub mod settings;
pub mod slices;
pub mod tls;
pub mod token;
pub mod token_store;
pub mod trace;
pub mod units;
pub mod windows;

/// The version of everything on the wire. Before 1.0 both sides must have the same.
pub const PROTOCOL: u32 = 7;
