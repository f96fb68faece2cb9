//! `plan`: what `serve` would do with the machines of a file, or with this one.

use crate::announce::{stderr_line, stdout_line};
use crate::app::get_model::downloaded;
use crate::app::local_workers::find_program;
use crate::cluster::PlacementConfig;
use crate::config::PlanArgs;
use crate::exit::Fatal;
use crate::models::Model;
use crate::planning::machines::{LOCAL_WIRE, Machines};
use crate::planning::{answer, lines, read, read_text};
use crate::scheduler::ROWS_PER_STEP;
use anyhow::{Context, anyhow};
use std::process::{Command, Stdio};
use woolly_engine::plan::{BLOCK_LEN, KV_CTX_MAX};

/// Prints the answer to stdout.
///
/// # Errors
///
/// A model that cannot be served; mistakes in the file of machines; flags that contradict them; after all was
/// printed, that no plan is possible.
pub fn run(args: &PlanArgs) -> Result<(), Fatal> {
    let path = args.file.as_deref().or(args.model.as_deref());
    let path = path.ok_or_else(|| Fatal::usage("a model is missing: name a GGUF file"))?;
    let model = Model::open(&downloaded(path, &args.downloads)?)?;
    let ctx_size = model.ctx_size(args.ctx_size)?;
    model.check_cut(args.cut.as_deref())?;
    let machines = match &args.workers {
        Some(path) => read(path).map_err(all_mistakes)?,
        None => this_machine()?,
    };
    let here = u32::try_from(machines.list.len()).unwrap_or(u32::MAX);
    let wanted = args.wait_for.unwrap_or(here);
    let stages = args.cut.as_ref().map_or(0, Vec::len);
    if wanted > here {
        return Err(Fatal::usage(format!("--wait-for {wanted} is more than the {here} machines")));
    }
    if stages > wanted as usize {
        let text =
            format!("--cut names {stages} stages for {wanted} workers: each stage needs one");
        return Err(Fatal::usage(text));
    }
    let config = PlacementConfig {
        name: model.layout.name.clone(),
        layout: model.layout,
        parts: model.parts,
        workers_wanted: wanted,
        objective: args.objective.objective,
        cut: args.cut.clone(),
        ctx_size,
        rows_max: ROWS_PER_STEP as u32,
        kv_type: args.cache_type,
        extent_len: BLOCK_LEN,
        contexts_max: KV_CTX_MAX,
        kv_memory: args.kv_memory,
        must_fit: false,
    };
    let report = answer(&machines, &config).map_err(Fatal::usage)?;
    if args.json {
        let json = serde_json::to_string_pretty(&report).context("cannot write the answer")?;
        stdout_line(json);
    } else {
        stdout_line(lines(&report).join("\n"));
    }
    match report.plan {
        Some(_) => Ok(()),
        None => Err(Fatal::Runtime(anyhow!("no plan is possible: see above"))),
    }
}

/// Says all mistakes but the last, which ends the program.
fn all_mistakes(mut mistakes: Vec<String>) -> Fatal {
    let last = mistakes.pop().unwrap_or_default();
    for mistake in mistakes {
        stderr_line(format_args!("error: {mistake}"));
    }
    Fatal::usage(last)
}

/// This machine, as a worker measures it when it joins.
fn this_machine() -> Result<Machines, Fatal> {
    let program = find_program()
        .context("without --workers this machine is measured, which a worker does")
        .map_err(Fatal::Runtime)?;
    let shown = program.display().to_string();
    let mut command = Command::new(&program);
    command.arg("measure").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        return Err(anyhow!("{shown} measure ended with {}", output.status).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let machines = read_text(&text, &format!("{shown} measure"));
    let machines = machines.map_err(|mistakes| {
        let why = mistakes.join("; ");
        anyhow!("{shown} is of another version, whose figures are not understood: {why}")
    })?;
    Ok(Machines { usual: LOCAL_WIRE, ..machines })
}
