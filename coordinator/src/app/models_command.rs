//! `models list | pull | rm | load | unload`: downloads, and what a running `serve` is asked on its socket in the
//! state directory.

use crate::announce::{Announcer, stderr_line, stdout_line};
use crate::app::admin_client::ask;
use crate::app::get_model::{fatal, fetcher, remote};
use crate::config::{LogFormat, ModelsCommand, state_dir};
use crate::exit::Fatal;
use crate::fetch::Held;
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
    match command {
        ModelsCommand::Pull { name, cache } => {
            let source = remote(&name)?;
            stdout_line(fetcher(&cache, people())?.get(&source).map_err(fatal)?.display());
        }
        ModelsCommand::Rm { name, cache } => {
            let freed = cache.store()?.remove(&remote(&name)?).map_err(fatal)?;
            stderr_line(format_args!("{name} is removed: {} are free again", show_size(freed)));
        }
        ModelsCommand::List { downloaded, cache, state } => {
            let held = cache.store()?.list().map_err(fatal)?;
            if downloaded {
                return Ok(list(&held, None)?);
            }
            let socket = StateDir::open(state_dir(state.state_dir)?)?.admin_socket();
            let asked = ask(&socket, Method::GET, "/admin/v1/models", None);
            list(&held, Some(runtime.block_on(asked)))?;
        }
        ModelsCommand::Load(mut args) => {
            if let Some(source) = args.download()? {
                args.path = Some(fetcher(&args.cache, people())?.get(&source).map_err(fatal)?);
                args.name = None;
            }
            let body = args.request()?;
            let socket = StateDir::open(state_dir(args.state.state_dir)?)?.admin_socket();
            let asked = ask(&socket, Method::POST, "/admin/v1/models/load", Some(body));
            say(&runtime.block_on(asked)?)?;
        }
        ModelsCommand::Unload { name, drain, state } => {
            let body = json!({ "name": name, "drain_s": drain.as_secs() });
            let socket = StateDir::open(state_dir(state.state_dir)?)?.admin_socket();
            let asked = ask(&socket, Method::POST, "/admin/v1/models/unload", Some(body));
            say(&runtime.block_on(asked)?)?;
        }
    }
    Ok(())
}

fn people() -> Announcer {
    Announcer(LogFormat::Text)
}

/// Prints what was downloaded and what a server has. No server is an error only where nothing else was asked for
/// or found.
fn list(held: &[Held], asked: Option<anyhow::Result<Value>>) -> anyhow::Result<()> {
    let answer = match asked {
        Some(Err(error)) if held.is_empty() => return Err(error),
        Some(Err(error)) => {
            stderr_line(format_args!("{error:#}"));
            None
        }
        Some(Ok(answer)) => Some(answer),
        None => None,
    };
    if let Some(answer) = answer {
        stdout_line(table(&answer).trim_end());
    }
    if held.is_empty() {
        return Ok(());
    }
    stdout_line(downloads(held).trim_end());
    Ok(())
}

/// One line for each model that was downloaded, with a head.
fn downloads(held: &[Held]) -> String {
    let width = held.iter().map(|one| one.name.len()).max().unwrap_or(0).max(32);
    let mut out = format!("{:<width$} {:<10} {}\n", "DOWNLOADED", "STATE", "SIZE");
    for one in held {
        let state = if one.is_complete { "complete" } else { "begun" };
        let _ = writeln!(out, "{:<width$} {state:<10} {}", one.name, show_size(one.size));
    }
    out
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
    fn downloads_are_listed_also_where_no_server_answers() {
        let held = |name: &str, is_complete| Held { name: name.into(), size: 3 << 20, is_complete };
        let text = downloads(&[held("hf:o/r:Q4_0", true), held("https://host/m.gguf", false)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("hf:o/r:Q4_0 ") && lines[1].contains("complete"), "{text}");
        assert!(lines[2].contains("begun") && lines[2].ends_with("3 MiB"), "{text}");
        let away = || Some(Err(anyhow::anyhow!("no server answers")));
        assert!(list(&[], away()).is_err());
        assert!(list(&[held("hf:o/r:Q4_0", true)], away()).is_ok());
    }

    #[test]
    fn what_did_not_succeed_is_an_error_in_the_servers_words() {
        assert!(say(&json!({"success": true, "message": "done"})).is_ok());
        let error = say(&json!({"success": false, "message": "still loading"})).unwrap_err();
        assert_eq!(error.to_string(), "still loading");
    }
}
