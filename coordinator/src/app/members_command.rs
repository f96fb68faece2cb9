//! `remove`, `ban` and `allow`: ask a running `serve` to keep workers out, and to let them in again.

use crate::announce::stderr_line;
use crate::app::admin_client::ask;
use crate::config::{AllowArgs, BanArgs, RemoveArgs, StateArgs, state_dir};
use crate::exit::Fatal;
use crate::trust::state::StateDir;
use anyhow::Context;
use axum::http::Method;
use serde_json::{Value, json};

/// Takes a worker's certificate back.
///
/// # Errors
///
/// No server answers, or it refuses.
pub fn remove(args: RemoveArgs) -> Result<(), Fatal> {
    post(args.state, "/admin/v1/remove", json!({ "worker": args.worker }))
}

/// Bans a worker's name and machine.
///
/// # Errors
///
/// As [`remove`].
pub fn ban(args: BanArgs) -> Result<(), Fatal> {
    post(args.state, "/admin/v1/ban", json!({ "worker": args.worker }))
}

/// Lifts bans.
///
/// # Errors
///
/// As [`remove`].
pub fn allow(args: AllowArgs) -> Result<(), Fatal> {
    post(args.state, "/admin/v1/allow", json!({ "who": args.who }))
}

fn post(state: StateArgs, path: &str, body: Value) -> Result<(), Fatal> {
    let socket = StateDir::open(state_dir(state.state_dir)?)?.admin_socket();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let answer = runtime.block_on(ask(&socket, Method::POST, path, Some(body)))?;
    stderr_line(answer["message"].as_str().unwrap_or("done"));
    Ok(())
}
