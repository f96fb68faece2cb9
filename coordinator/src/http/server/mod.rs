//! Connections and what holds for every request on them: places, stalls, hosts, keys, bodies, the log.
//!
//! Nothing here knows what a request asks for or how an answer is written.
//!
//! | file | holds |
//! | --- | --- |
//! | `listener.rs`, `local_socket.rs`, `places.rs` | listeners, places for connections, the orderly end |
//! | `connection.rs`, `socket.rs`, `stall.rs` | one connection: its requests, and clients that are gone |
//! | `certificates.rs`, `handshake.rs` | TLS: the certificate, and how a connection begins with it |
//! | `paths.rs`, `guard.rs`, `keys.rs`, `admin.rs` | path, URI, `Host`, API key, who may administer, id, wrong paths |
//! | `body.rs` | the bytes of a request, within limits |
//! | `request_log.rs` | a line in the log for each request |

pub mod admin;
pub mod body;
pub mod certificates;
pub mod connection;
pub mod guard;
pub mod handshake;
pub mod keys;
pub mod listener;
pub mod local_socket;
pub mod paths;
pub mod places;
pub mod request_log;
pub mod sessions;
pub mod socket;
pub mod stall;
