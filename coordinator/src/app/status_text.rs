//! A cluster at one moment, as text for a terminal. What is not known is a dash.

use crate::snapshot::{
    ModelSnapshot, PlanSnapshot, Snapshot, StageSnapshot, WorkerSnapshot, WorkerState,
};
use crate::units::{show_count, show_duration, show_size};
use serde_json::Value;
use std::fmt::Write;

const WORKER_HEAD: [&str; 12] = [
    "WORKER", "STATE", "ADDRESS", "MACHINE", "THREADS", "MEMORY", "HELD", "FREE", "HEARD", "RTT",
    "READS", "VERSION",
];
const STAGE_HEAD: [&str; 9] =
    ["STAGE", "WORKER", "LAYERS", "WEIGHTS", "KV", "LOADED", "BUSY", "COMPUTE", "WAIT"];

/// Characters of a machine's name that are shown: enough to tell a few apart.
const MACHINE_CHARS: usize = 8;

/// All of it.
pub fn status_text(told: &Snapshot) -> String {
    let lost = told.workers.iter().filter(|worker| worker.state == WorkerState::Lost).count();
    let here = told.workers.len() - lost;
    let mut out = format!(
        "woolly-coordinator {}, up {}: {}, {lost} lost, {}\n\n",
        told.version,
        show_duration(told.up_ms / 1000),
        count(here, "worker"),
        count(told.models.len(), "model"),
    );
    out += &workers_text(told);
    for model in &told.models {
        out.push('\n');
        write_model(&mut out, model);
    }
    if !told.events.is_empty() {
        out += "\nLast events\n";
        let rows = told.events.iter().map(|event| {
            let at = event["at_ms"].as_u64().unwrap_or(told.at_ms);
            vec![ago(told.at_ms.saturating_sub(at)), word(&event["kind"]), event_text(event)]
        });
        write_table(&mut out, rows.collect());
    }
    plain(&out)
}

/// The workers alone.
pub fn workers_text(told: &Snapshot) -> String {
    let mut rows = vec![WORKER_HEAD.map(str::to_owned).to_vec()];
    rows.extend(told.workers.iter().map(worker_row));
    let mut out = String::new();
    write_table(&mut out, rows);
    for worker in &told.workers {
        let name = &worker.worker;
        match (&worker.reason, worker.lost_ms_ago) {
            (Some(reason), Some(lost)) => {
                let _ = writeln!(out, "{name} was lost {}: {reason}", ago(lost));
            }
            (Some(reason), None) => _ = writeln!(out, "{name}: {reason}"),
            _ => {}
        }
        if let Some(left) = worker.backoff_ms {
            let _ = writeln!(out, "{name} is not placed for {}", time(left));
        }
        if let Some(ahead) = worker.clock_ahead_ms {
            let word = if ahead < 0 { "behind" } else { "ahead of" };
            let by = show_duration(ahead.unsigned_abs() / 1000);
            let _ = writeln!(
                out,
                "{name}: its clock is {by} {word} the coordinator's: set the one that is wrong"
            );
        }
    }
    for removed in &told.removed {
        let name = if removed.worker.is_empty() { "a worker" } else { &removed.worker };
        let when = ago(told.at_ms.saturating_sub(removed.at_ms));
        let _ = writeln!(out, "{name} ({}) was removed {when}", removed.worker_id);
    }
    for ban in &told.bans {
        let machine = ban.machine.as_ref().map_or(String::new(), |it| format!(" and machine {it}"));
        let when = ago(told.at_ms.saturating_sub(ban.at_ms));
        let _ = writeln!(out, "{}{machine}: banned {when}", ban.name);
    }
    plain(&out)
}

fn worker_row(worker: &WorkerSnapshot) -> Vec<String> {
    let (memory, heard) = (worker.memory.as_ref(), worker.heard.as_ref());
    let held =
        memory.map(|memory| memory.models.iter().map(|m| m.weights + m.kv + m.scratch).sum());
    let size = |bytes: Option<u64>| bytes.map(show_size);
    let reads = format!("{}/s", show_size(worker.read_bytes_per_s));
    let known = [
        size(memory.map(|memory| memory.allowance)),
        size(held),
        size(memory.map(|memory| memory.free)),
        heard.map(|heard| ago(heard.heartbeat_ms_ago)),
        heard.and_then(|heard| heard.rtt_us).map(microseconds),
    ];
    let mut row = vec![
        worker.worker.clone(),
        worker.state.to_string(),
        worker.address.clone(),
        worker.machine.chars().take(MACHINE_CHARS).collect(),
        worker.threads.to_string(),
    ];
    row.extend(known.map(|cell| cell.unwrap_or_else(dash)));
    row.extend([reads, worker.version.clone()]);
    row
}

fn write_model(out: &mut String, model: &ModelSnapshot) {
    let ModelSnapshot { ctx_size, kv_type, running, waiting, in_flight, .. } = model;
    let _ = writeln!(out, "{} is {}: {}", model.model, model.state, model.detail);
    let cut = match &model.objective {
        Some(objective) => format!("cut for {objective}"),
        None => "cut by hand".to_owned(),
    };
    let _ = writeln!(
        out,
        "  {running} running, {waiting} waiting, {in_flight} microbatches in flight; {cut}, context {ctx_size}, \
         {kv_type}"
    );
    if let (Some(blocks), Some(free)) = (model.kv_blocks, model.kv_blocks_free) {
        let (used, all) =
            (show_count(u64::from(blocks - free.min(blocks))), show_count(blocks.into()));
        let cached = show_count(model.kv_blocks_cached.unwrap_or(0).into());
        let _ = writeln!(out, "  {used} of {all} KV blocks used, {cached} cached");
    }
    for (plan, word) in [(&model.plan, "plan"), (&model.next, "next plan")] {
        if let Some(plan) = plan {
            write_plan(out, plan, word);
        }
    }
}

fn write_plan(out: &mut String, plan: &PlanSnapshot, word: &str) {
    let served = match plan.served_ms {
        Some(served) => format!("served for {}", show_duration(served / 1000)),
        None => "not served yet".to_owned(),
    };
    let _ = writeln!(out, "  {word} {}, {served}: {}", plan.plan, plan.reason);
    let mut rows = vec![STAGE_HEAD.map(str::to_owned).to_vec()];
    rows.extend(plan.stages.iter().enumerate().map(|(number, stage)| stage_row(number, stage)));
    write_table(out, rows);
}

fn stage_row(number: usize, stage: &StageSnapshot) -> Vec<String> {
    let recent = stage.recent.as_ref();
    let mean = recent.and_then(|recent| recent.mean.as_ref());
    let last = stage.layer_end.saturating_sub(1);
    let known = [
        recent.map(|recent| format!("{} %", recent.busy_percent)),
        mean.map(|mean| microseconds(mean.compute_us)),
        mean.map(|mean| microseconds(mean.wait_us)),
    ];
    let mut row = vec![
        number.to_string(),
        stage.worker.clone(),
        format!("{}-{last}", stage.layer_first),
        show_size(stage.weights),
        show_size(stage.kv),
        format!("{} %", stage.loaded_percent),
    ];
    row.extend(known.map(|cell| cell.unwrap_or_else(dash)));
    row
}

/// What an event says beside its kind. Of kinds that are not known all fields are shown.
fn event_text(event: &Value) -> String {
    let text = |name: &str| word(&event[name]);
    let number = |name: &str| event[name].as_u64();
    let some =
        |name: &str, word: &str| number(name).map_or_else(dash, |count| counted(count, word));
    let (model, plan) = (text("model"), text("plan"));
    match event["kind"].as_str().unwrap_or_default() {
        "model_loading" => format!("{model}: {} %", text("progress")),
        "model_ready" => model,
        "model_unloaded" => format!("{model}: {} ended", some("unfinished", "request")),
        "model_failed" => format!("{model}: {}", text("reason")),
        "worker_joined" => text("worker"),
        "worker_removed" => format!("{} ({})", text("worker"), text("worker_id")),
        "worker_banned" => match event["machine"].as_str() {
            Some(machine) => format!("{} and machine {machine}", text("worker")),
            None => text("worker"),
        },
        "worker_lost" => format!("{}: {}", text("worker"), text("reason")),
        "plan_made" => {
            let old = match number("old_plan") {
                Some(old) => format!(" instead of {old} ({})", text("old_cut")),
                None => String::new(),
            };
            format!("{model}: plan {plan} ({}){old}: {}", text("cut"), text("reason"))
        }
        "plan_serving" => format!("{model}: plan {plan}, {}", some("stages", "stage")),
        "plan_lost" => format!("{model}: plan {plan}: {}", text("reason")),
        "failover" => {
            let first = match number("first_token_ms") {
                Some(first) => format!("the first token came after {}", time(first)),
                None => "nobody waited for a token".to_owned(),
            };
            let (tokens, sequences) = (some("tokens", "token"), some("sequences", "sequence"));
            let search = time(number("search_ms").unwrap_or(0));
            format!(
                "{model}: plan {plan} was found in {search}, {tokens} of {sequences} to replay; {first}"
            )
        }
        "replayed" => {
            let took = time(number("took_ms").unwrap_or(0));
            format!("{model}: {} in {took}", some("tokens", "token"))
        }
        _ => {
            let fields = event.as_object().into_iter().flatten();
            let own = fields.filter(|(name, _)| !["id", "at_ms", "kind"].contains(&name.as_str()));
            own.map(|(name, value)| format!("{name} {}", word(value)))
                .collect::<Vec<_>>()
                .join(", ")
        }
    }
}

/// A value as one word.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => dash(),
        other => other.to_string(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// `1 worker`, `2 workers`.
fn count(number: usize, word: &str) -> String {
    counted(number as u64, word)
}

fn counted(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

/// Milliseconds.
fn time(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => show_duration(ms / 1000),
    }
}

fn ago(ms: u64) -> String {
    format!("{} ago", time(ms))
}

fn microseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

/// Rows of cells, two spaces in and each column as wide as its widest cell; the last is as it is.
fn write_table(out: &mut String, rows: Vec<Vec<String>>) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "  {cell:<width$}");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Without what a terminal would obey: names and reasons come from workers and files.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
