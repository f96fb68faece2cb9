//! A report as lines for people, at most 100 columns wide where names allow it.

use super::report::{DecodeSaid, Fewer, LinkSaid, Loss, PlanSaid, PromptSaid, Refused, Report};
use crate::units::{show_count, show_rate, show_size};

/// Columns of a line.
const WIDTH: usize = 100;
/// Stages whose layers are told of a plan that follows a loss.
const STAGES_SHOWN: usize = 16;

/// The lines.
pub fn lines(report: &Report) -> Vec<String> {
    let mut lines = head(report);
    if let Some(plan) = &report.plan {
        lines.extend(stages(plan));
        lines.push(cache(plan));
        lines.push(String::new());
        lines.extend(speeds(plan));
    }
    if let Some(refused) = &report.refused {
        lines.push(String::new());
        lines.push("No plan is possible.".to_owned());
        lines.extend(refusal(refused, "  "));
    }
    spares(&mut lines, report);
    if !report.fewer.is_empty() {
        lines.push(String::new());
        lines.push("Fewer machines are better at some of it:".to_owned());
        lines.extend(report.fewer.iter().map(fewer));
    }
    losses(&mut lines, report);
    lines
}

fn head(report: &Report) -> Vec<String> {
    let model = &report.model;
    let machines = report.machines.len();
    let (allowance, read, macs) =
        report.machines.iter().fold((0_u64, 0_u64, 0_u64), |(a, r, m), machine| {
            let add = u64::saturating_add;
            let read = add(r, machine.read_bytes_per_s);
            (add(a, machine.allowance_bytes), read, add(m, machine.macs_per_s))
        });
    let s = if machines == 1 { "" } else { "s" };
    vec![
        format!(
            "{}: {} layers, {} of weights, {} read for a token; context {}, {} cache, {}",
            printable(&model.name),
            model.layers,
            show_size(model.weights_bytes),
            show_size(model.read_for_a_token_bytes),
            show_count(report.ctx_size.into()),
            report.cache_type,
            report.objective
        ),
        format!(
            "{machines} machine{s}: {} may be used, {}, {} multiply-adds",
            show_size(allowance),
            show_rate(read, "B"),
            show_rate(macs, "")
        ),
    ]
}

/// What a file says may hold control characters: none of them reaches a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn stages(plan: &PlanSaid) -> Vec<String> {
    let width = plan.stages.iter().map(|stage| stage.machine.chars().count()).max().unwrap_or(0);
    let width = width.max("machine".len());
    let head = format!(
        "stage  {:<width$}  {:>9}  {:>10}  {:>10}  {:>10}  {:>10}",
        "machine", "layers", "weights", "KV cache", "buffers", "left"
    );
    let mut lines = vec![String::new(), head];
    for (number, stage) in plan.stages.iter().enumerate() {
        let layers = format!("{}-{}", stage.layer_first, stage.layer_last);
        lines.push(format!(
            "{number:>5}  {:<width$}  {layers:>9}  {:>10}  {:>10}  {:>10}  {:>10}",
            stage.machine,
            show_size(stage.weights_bytes),
            show_size(stage.kv_bytes),
            show_size(stage.buffer_bytes),
            show_size(stage.left_bytes)
        ));
    }
    lines
}

fn cache(plan: &PlanSaid) -> String {
    let by = if plan.is_kv_limited_by_memory {
        format!("limited by the memory of {}", plan.kv_limit_machine)
    } else {
        "as many as are taken by default".to_owned()
    };
    format!("KV cache for {} tokens, {by}", show_count(plan.kv_tokens))
}

fn speeds(plan: &PlanSaid) -> Vec<String> {
    let mut lines = vec![format!(
        "Predicted, each stream with {} tokens behind it:",
        show_count(plan.prediction.positions.into())
    )];
    let said = plan.prediction.decode.iter().map(decode);
    for line in said.chain(plan.prediction.prompts.iter().map(prompt)) {
        if line.chars().count() > WIDTH {
            lines.extend(wrapped(&line, "  "));
        } else {
            lines.push(line);
        }
    }
    lines
}

fn decode(said: &DecodeSaid) -> String {
    let s = if said.streams == 1 { " " } else { "s" };
    let running = if said.running < said.streams {
        format!(" ({} at a time: the KV cache holds no more)", said.running)
    } else {
        String::new()
    };
    let limit = match said.limit {
        "round" => format!(
            "slowest stage {}, {:.0} % on links",
            said.slowest_stage,
            said.part_on_links * 100.0
        ),
        "stage" => format!("limited by the stage on {}", said.slowest_stage),
        _ => format!("limited by the link {}", way(&said.slowest_link)),
    };
    format!(
        "  {:>4} stream{s}  {:>8} tokens/s, {} apart; {limit}{running}",
        said.streams,
        figure(said.tokens_per_s),
        time(said.gap_s)
    )
}

fn prompt(said: &PromptSaid) -> String {
    let limit = match said.limit {
        "link" => format!("limited by the link {}", way(&said.slowest_link)),
        _ => format!("slowest stage {}", said.slowest_stage),
    };
    format!(
        "  {:>5} tokens of prompt: the first token after {}, in chunks of {}; {limit}",
        show_count(said.tokens.into()),
        time(said.seconds),
        said.chunk
    )
}

fn way(link: &LinkSaid) -> String {
    format!("from {} to {}", link.from, link.to)
}

fn spares(lines: &mut Vec<String>, report: &Report) {
    if report.spares.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push("Spares, which take the place of what is lost:".to_owned());
    let spares: Vec<(&str, &str)> =
        report.spares.iter().map(|spare| (&spare.machine[..], &spare.why[..])).collect();
    for (names, why) in together(&spares) {
        lines.extend(wrapped(&format!("{names}: {why}"), "  "));
    }
}

/// Neighbours of which the same is said, each run of them once.
fn together<T: PartialEq + Copy>(said: &[(&str, T)]) -> Vec<(String, T)> {
    let runs = said.chunk_by(|a, b| a.1 == b.1);
    let run = |run: &[(&str, T)]| {
        let names = match run {
            [(one, _)] => (*one).to_owned(),
            [(first, _), (second, _)] => format!("{first}, {second}"),
            [(first, _), .., (last, _)] => format!("{first} to {last} ({})", run.len()),
            [] => String::new(),
        };
        (names, run[0].1)
    };
    runs.map(run).collect()
}

fn losses(lines: &mut Vec<String>, report: &Report) {
    if report.losses.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push("When one machine goes:".to_owned());
    let said: Vec<String> = report.losses.iter().map(loss).collect();
    let said: Vec<(&str, &str)> = report
        .losses
        .iter()
        .zip(&said)
        .map(|(loss, text)| (&loss.machine[..], &text[..]))
        .collect();
    for (names, text) in together(&said) {
        lines.extend(wrapped(&format!("{names}: {text}"), "  "));
    }
    if !report.spares.is_empty() {
        lines.push("  a spare: nothing changes".to_owned());
    }
}

fn loss(loss: &Loss) -> String {
    match (&loss.plan, &loss.refused) {
        (Some(plan), _) => {
            let counts: Vec<String> = plan
                .stages
                .iter()
                .map(|stage| (stage.layer_last - stage.layer_first + 1).to_string())
                .collect();
            let cut = match counts.len() {
                many if many > STAGES_SHOWN => format!("{many} stages"),
                _ => format!("layers {}", counts.join(",")),
            };
            let alike = match loss.stands_for {
                0 | 1 => String::new(),
                of => format!("as of {of} like it, "),
            };
            let streams = plan.prediction.decode.iter().map(|decode| figure(decode.tokens_per_s));
            let prompts = plan.prediction.prompts.iter().map(|prompt| time(prompt.seconds));
            let streams = streams.collect::<Vec<_>>().join(" / ");
            let prompts = prompts.collect::<Vec<_>>().join(" / ");
            format!(
                "{alike}{cut}, KV cache for {}; {streams} tokens/s, first token after {prompts}",
                show_count(plan.kv_tokens)
            )
        }
        (None, Some(refused)) => match refused.missing_bytes {
            Some(missing) => format!("nothing is possible, {} are missing", show_size(missing)),
            None => format!("nothing is possible: {}", refused.text),
        },
        (None, None) => "nothing is known".to_owned(),
    }
}

fn refusal(refused: &Refused, indent: &str) -> Vec<String> {
    wrapped(&refused.text, indent)
}

fn fewer(fewer: &Fewer) -> String {
    let Fewer { machines, what, of, value, instead_of } = fewer;
    let first =
        if *machines == 1 { "the first".to_owned() } else { format!("the first {machines}") };
    if *what == "prompt" {
        let (value, instead_of) = (time(*value), time(*instead_of));
        let of = show_count(u64::from(*of));
        return format!("  {first}: {of} tokens of prompt take {value} instead of {instead_of}");
    }
    let s = if *of == 1 { "" } else { "s" };
    let (value, instead_of) = (figure(*value), figure(*instead_of));
    format!("  {first}: {of} stream{s}, {value} instead of {instead_of} tokens/s")
}

/// Three digits.
fn figure(value: f64) -> String {
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$}")
}

fn time(seconds: f64) -> String {
    if seconds < 0.9995 {
        format!("{} ms", figure(seconds * 1e3))
    } else {
        format!("{} s", figure(seconds))
    }
}

/// The text in lines of at most [`WIDTH`] columns, cut at spaces; all but the first further to the right.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let mut lines = vec![indent.to_owned()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one line");
        let is_begun = line.trim() != "";
        if is_begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{indent}  {word}"));
        } else {
            if is_begun {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
