//! Tells probes how this worker stands, on a socket in its state directory that only its owner can open. Who connects is told one line
//! of JSON, `{"live":true,"ready":…,"state":"…","detail":"…"}`, and asks nothing. One is told at a time; the system lets some more wait.

use crate::counters::Counters;
use crate::shutdown::{Order, Shutdown};
use crate::standing::{Report, Standing};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use woolly_protocol::private_socket::PrivateSocket;

/// Characters of a detail.
pub const DETAIL_MAX: usize = 500;
/// Bytes of an answer at most, however its characters are written.
pub const ANSWER_MAX: u64 = 8 << 10;
/// How long one may take to be told: a line fits what the system keeps for a reader.
const TELL_TIME: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a worker with this state directory is asked.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("worker.sock")
}

/// The socket; without one there are no probes, which is no reason not to work.
pub fn listen(state_dir: &Path) -> Option<PrivateSocket> {
    let path = socket_path(state_dir);
    let bound = PrivateSocket::bind(&path);
    let say = |error: &std::io::Error| {
        let path = path.display();
        tracing::warn!(
            "no probes on {path}: {error}; if the path is too long, a shorter --state-dir helps"
        );
    };
    bound.inspect_err(say).ok()
}

/// Tells whoever connects, for as long as it is polled.
pub async fn answer(
    socket: Option<PrivateSocket>,
    standing: Arc<Standing>,
    counters: Arc<Counters>,
    shutdown: Shutdown,
) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.accept().await {
            Ok(stream) => {
                let leaving = shutdown.order() != Order::Run;
                tell(stream, standing.report(leaving, &counters)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a probe");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn tell(mut stream: UnixStream, report: Report) {
    let Report { ready, state, detail } = report;
    let detail: String = detail.chars().take(DETAIL_MAX).collect();
    let line = json!({ "live": true, "ready": ready, "state": state, "detail": detail });
    // Whoever has gone again needs no answer.
    let _ = timeout(TELL_TIME, stream.write_all(format!("{line}\n").as_bytes())).await;
}
