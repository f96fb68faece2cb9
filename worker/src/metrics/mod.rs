//! `--metrics`: what this worker counts, as Prometheus reads it. Off unless an address is given.
//!
//! | file | holds |
//! | --- | --- |
//! | `text.rs` | the figures and their text |
//! | `server.rs` | the only HTTP of a worker: `GET /metrics` and nothing else |
//!
//! It reads what others count and changes nothing. Who reaches the address can read it: there is no key.

pub mod server;
pub mod text;
