//! The crate from outside: bytes on the wire, trust, and real QUIC on loopback.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod checks;
mod gone;
mod greeting;
mod join_secret;
mod links;
mod pins;
mod quic;
mod renewal;
mod samples;
mod tokens;
mod trust;
mod wire;
