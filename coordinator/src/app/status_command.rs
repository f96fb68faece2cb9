//! `status`, `workers` and `page`: ask a running `serve` how its cluster stands, or where its page is, and show it.

use crate::announce::stdout_line;
use crate::app::admin_client::ask;
use crate::app::status_text::{status_text, workers_text};
use crate::config::{PageArgs, StateArgs, StatusArgs, WorkersArgs, state_dir};
use crate::exit::Fatal;
use crate::snapshot::Snapshot;
use crate::trust::state::StateDir;
use anyhow::Context;
use axum::http::Method;
use serde_json::Value;
use std::future::Future;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};

/// Puts the cursor of a terminal to its first place and clears all.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Shows all that is known of a cluster.
///
/// # Errors
///
/// No server answers, or it refuses.
pub fn status(args: StatusArgs) -> Result<(), Fatal> {
    let socket = socket(args.state)?;
    run(async {
        loop {
            let told = told(&socket).await?;
            match (args.json, args.watch) {
                (true, Some(_)) => stdout_line(&told),
                (true, None) => stdout_line(format_args!("{told:#}")),
                (false, watch) => {
                    let clear = if watch.is_some() && stdout().is_terminal() { CLEAR } else { "" };
                    stdout_line(format_args!("{clear}{}", status_text(&read(told)?).trim_end()));
                }
            }
            let Some(pause) = args.watch else { return Ok(()) };
            tokio::time::sleep(pause).await;
        }
    })
}

/// Lists the workers.
///
/// # Errors
///
/// As [`status`].
pub fn workers(args: WorkersArgs) -> Result<(), Fatal> {
    let socket = socket(args.state)?;
    run(async {
        let told = told(&socket).await?;
        if args.json {
            stdout_line(format_args!("{:#}", told["workers"]));
        } else {
            stdout_line(workers_text(&read(told)?).trim_end());
        }
        Ok(())
    })
}

/// Prints an address of the page with a key that works once.
///
/// # Errors
///
/// As [`status`]; a server that does not listen on loopback refuses.
pub fn page(args: PageArgs) -> Result<(), Fatal> {
    let socket = socket(args.state)?;
    run(async {
        let told = ask(&socket, Method::POST, "/admin/v1/page", None).await?;
        stdout_line(told["address"].as_str().context("the server named no address")?);
        Ok(())
    })
}

fn socket(state: StateArgs) -> Result<PathBuf, Fatal> {
    Ok(StateDir::open(state_dir(state.state_dir)?)?.admin_socket())
}

fn run(asking: impl Future<Output = Result<(), Fatal>>) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(asking)
}

async fn told(socket: &Path) -> Result<Value, Fatal> {
    Ok(ask(socket, Method::GET, "/admin/v1/cluster", None).await?)
}

fn read(told: Value) -> Result<Snapshot, Fatal> {
    let text = "the server tells of its cluster in other words: use the same version of woolly-coordinator, or --json";
    Ok(serde_json::from_value(told).context(text)?)
}
