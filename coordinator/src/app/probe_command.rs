//! `probe`: whether a `serve` lives and is ready, for those who keep it running. It asks the socket in the state directory, and
//! where nobody answers there it looks whether a process holds the directory.
//!
//! | state | live | ready | |
//! | --- | --- | --- | --- |
//! | `starting` | yes | no | the process runs and its API is not open: it fetches or reads its model, or is about to end |
//! | `empty` | yes | no, but with `--load-on-demand` | no model is loaded |
//! | `loading` | yes | no | workers are awaited, or load |
//! | `serving` | yes | yes | a model can be asked |
//! | `stopping` | yes | no | running generations may finish, new ones are refused |
//! | `silent` | no | no | it does not answer in time |
//! | `ended` | no | no | there is no process |

use crate::announce::stdout_line;
use crate::app::admin_client::exchange;
use crate::config::{ProbeArgs, ProbeKind, state_dir};
use crate::exit::Fatal;
use crate::trust::state::StateDir;
use anyhow::{Context, anyhow};
use axum::http::{Method, StatusCode};
use serde_json::Value;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Characters of a line.
const LINE_MAX: usize = 500;

/// How a server stands.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    state: &'static str,
    live: bool,
    ready: bool,
    detail: String,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail.chars().map(|c| if c.is_control() { ' ' } else { c });
        write!(f, "{}: {}", self.state, detail.take(LINE_MAX).collect::<String>())
    }
}

/// Says how a server stands; whether it is as asked.
///
/// # Errors
///
/// Nothing says where its state is.
pub fn run(args: ProbeArgs) -> Result<bool, Fatal> {
    let state = StateDir::at(state_dir(args.state.state_dir)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let standing = runtime.block_on(standing(&state, args.timeout));
    stdout_line(&standing);
    Ok(match args.what {
        ProbeKind::Live => standing.live,
        ProbeKind::Ready => standing.ready,
    })
}

async fn standing(state: &StateDir, patience: Duration) -> Standing {
    let dead = |word, detail| Standing { state: word, live: false, ready: false, detail };
    match timeout(patience, answer(&state.admin_socket())).await {
        Ok(Ok(Some(standing))) => standing,
        Ok(Ok(None)) if state.is_taken() => Standing {
            state: "starting",
            live: true,
            ready: false,
            detail:
                "the API is not open: the model is fetched or read, or the process is about to end"
                    .to_owned(),
        },
        Ok(Ok(None)) => {
            dead("ended", format!("no server runs with the state in {}", state.root().display()))
        }
        Ok(Err(error)) => dead("silent", format!("{error:#}")),
        Err(_) => dead("silent", format!("no answer within {patience:?}")),
    }
}

/// What the server says; `None` if nobody listens.
async fn answer(socket: &Path) -> anyhow::Result<Option<Standing>> {
    let Ok(stream) = UnixStream::connect(socket).await else { return Ok(None) };
    let (_, bytes) = exchange(stream, Method::GET, "/health", None).await?;
    let health: Value = serde_json::from_slice(&bytes).context("the answer is not JSON")?;
    let state = match health["status"].as_str() {
        Some("ok") => "serving",
        Some("starting") => "loading",
        Some("empty") => "empty",
        Some("stopping") => "stopping",
        _ => return Err(anyhow!("the answer names no state: is it of the same version?")),
    };
    // It may have gone since.
    let Ok(stream) = UnixStream::connect(socket).await else { return Ok(None) };
    let (status, _) = exchange(stream, Method::GET, "/readyz", None).await?;
    let detail = health["detail"].as_str().unwrap_or_default().to_owned();
    Ok(Some(Standing { state, live: true, ready: status == StatusCode::OK, detail }))
}

#[cfg(test)]
mod tests;
