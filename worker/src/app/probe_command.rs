//! `probe`: asks the worker that runs with a state directory how it stands. A worker that does not run is `ended`, one that does not
//! answer in time is `silent`; neither lives.

use crate::app::probe::{ANSWER_MAX, socket_path};
use crate::config::{Folders, ProbeArgs, ProbeKind};
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How a worker stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// It answers.
    pub live: bool,
    /// It has joined and holds its stage.
    pub ready: bool,
    /// One word.
    pub state: String,
    /// One line for people.
    pub detail: String,
}

/// Prints how a worker stands; whether it is as asked.
///
/// # Errors
///
/// A sentence: nothing says where its state is.
pub fn run(args: &ProbeArgs, folders: &Folders, out: &mut impl Write) -> Result<bool, String> {
    let dir = folders.state_dir(args.state_dir.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let told = runtime.block_on(ask(&dir, args.timeout));
    let detail: String =
        told.detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Whoever closes stdout has the exit status.
    let _ = writeln!(out, "{}: {detail}", told.state).and_then(|()| out.flush());
    Ok(match args.what {
        ProbeKind::Live => told.live,
        ProbeKind::Ready => told.ready,
    })
}

/// Asks the worker with this state directory.
pub async fn ask(state_dir: &Path, patience: Duration) -> Told {
    let dead = |state: &str, detail| {
        let state = state.to_owned();
        Told { live: false, ready: false, state, detail }
    };
    match timeout(patience, read(&socket_path(state_dir))).await {
        Ok(Ok(Some(line))) => understood(&line).unwrap_or_else(|| {
            dead("silent", "the answer is none of a worker of this version".to_owned())
        }),
        Ok(Ok(None)) => {
            dead("ended", format!("no worker runs with the state in {}", state_dir.display()))
        }
        Ok(Err(error)) => dead("silent", error.to_string()),
        Err(_) => dead("silent", format!("no answer within {patience:?}")),
    }
}

/// The answer; `None` if nobody listens.
async fn read(socket: &Path) -> io::Result<Option<Vec<u8>>> {
    let Ok(stream) = UnixStream::connect(socket).await else { return Ok(None) };
    let mut line = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut line).await?;
    Ok(Some(line))
}

fn understood(line: &[u8]) -> Option<Told> {
    let answer: Value = serde_json::from_slice(line).ok()?;
    Some(Told {
        live: answer["live"].as_bool()?,
        ready: answer["ready"].as_bool()?,
        state: answer["state"].as_str()?.to_owned(),
        detail: answer["detail"].as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests;
