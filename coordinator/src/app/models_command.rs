//! `models list | load | unload`: asks a running `serve` on its socket in the state directory.

use crate::announce::{stderr_line, stdout_line};
use crate::app::admin_client::ask;
use crate::config::{ModelsCommand, state_dir};
use crate::exit::Fatal;
use crate::trust::state::StateDir;
use crate::units::show_size;
use anyhow::{Context, bail};
use axum::http::Method;
use serde_json::{Value, json};
use std::fmt::Write;

/// Runs one command.
///
/// # Errors
///
/// No server answers, or it refuses.
pub fn run(command: ModelsCommand) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match command {
            ModelsCommand::List { state } => {
                let socket = StateDir::open(state_dir(state.state_dir)?)?.admin_socket();
                let answer = ask(&socket, Method::GET, "/admin/v1/models", None).await?;
                stdout_line(table(&answer).trim_end());
            }
            ModelsCommand::Load(args) => {
                let body = args.request()?;
                let socket = StateDir::open(state_dir(args.state.state_dir)?)?.admin_socket();
                say(&ask(&socket, Method::POST, "/admin/v1/models/load", Some(body)).await?)?;
            }
            ModelsCommand::Unload { name, drain, state } => {
                let body = json!({ "name": name, "drain_s": drain.as_secs() });
                let socket = StateDir::open(state_dir(state.state_dir)?)?.admin_socket();
                say(&ask(&socket, Method::POST, "/admin/v1/models/unload", Some(body)).await?)?;
            }
        }
        Ok(())
    })
}

/// The server's own words; an error unless they are of success.
fn say(answer: &Value) -> anyhow::Result<()> {
    let message = answer["message"].as_str().unwrap_or("done");
    if answer["success"] != true {
        bail!("{message}");
    }
    stderr_line(message);
    Ok(())
}

/// One line for each model, with a head: those that are loaded, then those that can be; and what each worker's
/// memory is taken by.
fn table(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let size = |value: &Value| show_size(value.as_u64().unwrap_or(0));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut out = format!("{:<32} {:<10} {}\n", "MODEL", "STATE", "DETAIL");
    for model in list(&answer["data"]) {
        let (name, state, detail) =
            (text(&model["name"]), text(&model["state"]), text(&model["detail"]));
        let _ = writeln!(out, "{name:<32} {state:<10} {detail}");
    }
    for model in list(&answer["loadable"]).iter().filter(|model| model["loaded_as"].is_null()) {
        let _ = writeln!(out, "{:<32} {:<10} {}", text(&model["name"]), "-", size(&model["size"]));
    }
    for worker in list(&answer["workers"]) {
        let (name, allowance, free) =
            (text(&worker["worker"]), size(&worker["allowance"]), size(&worker["free"]));
        let _ = writeln!(out, "Worker {name}: {free} of {allowance} are free");
        for held in list(&worker["models"]) {
            let (model, weights, kv) =
                (text(&held["model"]), size(&held["weights"]), size(&held["kv"]));
            let _ = writeln!(out, "  {model}: {weights} of weights, {kv} of KV");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_is_loaded_what_can_be_and_who_holds_what() {
        let answer = json!({
            "data": [{"name": "a", "state": "ready", "detail": "serving"}],
            "loadable": [
                {"name": "org/a", "size": 1 << 20, "loaded_as": "a"},
                {"name": "org/b", "size": 3 << 20, "loaded_as": null},
            ],
            "workers": [{
                "worker": "w", "allowance": 4_u64 << 30, "free": 1_u64 << 30,
                "models": [{"model": "a", "weights": 1 << 20, "kv": 2 << 20, "scratch": 0}],
            }],
        });
        let text = table(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("a ") && lines[1].contains("ready"), "{text}");
        assert!(lines[2].starts_with("org/b ") && lines[2].ends_with("3 MiB"), "{text}");
        assert_eq!(lines[3], "Worker w: 1 GiB of 4 GiB are free");
        assert!(lines[4].contains("a: 1 MiB of weights, 2 MiB of KV"), "{text}");
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn what_did_not_succeed_is_an_error_in_the_servers_words() {
        assert!(say(&json!({"success": true, "message": "done"})).is_ok());
        let error = say(&json!({"success": false, "message": "still loading"})).unwrap_err();
        assert_eq!(error.to_string(), "still loading");
    }
}
