//! A report as lines for people, at most 100 columns wide where words allow it.

use super::report::{Cache, Context, Format, Kind, Layers, Memory, Report, Rotary, Shape};
use crate::units::{show_count, show_size};

/// Columns of a line.
const WIDTH: usize = 100;
/// Columns before what is said of a word.
const INDENT: usize = 14;

/// The lines.
pub fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let verdict = if report.is_supported { "can be served" } else { "cannot be served" };
    lines.push(format!("{}: {verdict}", report.name));
    for file in &report.files {
        say(&mut lines, "file", &format!("{}, {}", file.path, show_size(file.bytes)));
    }
    // Without a word of its metadata nothing is known.
    if let Some(architecture) = &report.architecture {
        say(&mut lines, "architecture", architecture);
        of_metadata(&mut lines, report);
    }
    formats(&mut lines, report);
    roles(&mut lines, report);
    if let Some(memory) = &report.memory {
        self::memory(&mut lines, memory, &report.context);
    }
    if report.unused.tensors > 0 {
        let of = &report.unused;
        say(&mut lines, "not used", &format!("{} tensors, {}", of.tensors, show_size(of.bytes)));
    }
    sentences(&mut lines, "Warnings:", &report.warnings);
    sentences(&mut lines, "Not supported, so that serve refuses it:", &report.not_supported);
    lines
}

fn of_metadata(lines: &mut Vec<String>, report: &Report) {
    if report.parameters.total > 0 {
        say(lines, "parameters", &parameters(report));
    }
    say(lines, "layers", &layers(&report.layers));
    say(lines, "shape", &shape(&report.shape));
    say(lines, "rotary", &rotary(&report.rotary, &report.shape));
    say(lines, "context", &context(&report.context));
    say(lines, "vocabulary", &vocabulary(report));
    say(lines, "chat", &chat(report));
}

/// One word and what is said of it, in as many lines as that takes.
fn say(lines: &mut Vec<String>, word: &str, text: &str) {
    let columns = WIDTH - INDENT;
    for (index, part) in wrapped(text, columns).into_iter().enumerate() {
        let word = if index == 0 { word } else { "" };
        lines.push(format!("{word:<INDENT$}{part}"));
    }
}

fn sentences(lines: &mut Vec<String>, head: &str, sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    lines.push(head.to_owned());
    for sentence in sentences {
        for (index, part) in wrapped(sentence, WIDTH - 4).into_iter().enumerate() {
            lines.push(format!("{}{part}", if index == 0 { "  * " } else { "    " }));
        }
    }
}

/// The text in lines of at most so many columns, cut at spaces, and where a word is longer than a line. What
/// a file says may hold control characters: none of them reaches a terminal.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text: String = text.chars().map(printable).collect();
    let mut lines = vec![String::new()];
    let pieces = |word: &str| -> Vec<String> {
        let chars: Vec<char> = word.chars().collect();
        chars.chunks(columns).map(|piece| piece.iter().collect()).collect()
    };
    for word in text.split(' ').flat_map(pieces) {
        let line = lines.last_mut().expect("there is one line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(word);
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
    }
    lines
}

fn or_unknown(number: Option<u64>) -> String {
    number.map_or("?".to_owned(), show_count)
}

/// `20.9 B`: three digits and a unit of thousands.
fn thousands(number: u64) -> String {
    let units = [(1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")];
    match units.into_iter().find(|(unit, _)| number >= *unit) {
        None => number.to_string(),
        Some((unit, name)) => {
            let value = number as f64 / unit as f64;
            let decimals = if value < 100.0 { 1 } else { 0 };
            format!("{value:.decimals$} {name}")
        }
    }
}

fn parameters(report: &Report) -> String {
    let all = &report.parameters;
    let mut text = thousands(all.total);
    if all.of_a_token != all.total {
        text += &format!(", {} of them for a token", thousands(all.of_a_token));
    }
    match &report.quantisation {
        Some(word) => format!("{text}; {word}"),
        None => text,
    }
}

fn layers(layers: &Layers) -> String {
    let mut text = or_unknown(layers.count);
    for (index, kind) in layers.kinds.iter().enumerate() {
        text += if index == 0 { ": " } else { "; " };
        if layers.kinds.len() > 1 {
            text += &format!("{} with ", kind.count);
        }
        text += &self::kind(kind);
    }
    if layers.nextn > 0 {
        text += &format!("; {} of them predict further tokens", layers.nextn);
    }
    text
}

fn kind(kind: &Kind) -> String {
    let attention = match kind.window {
        None => "full attention".to_owned(),
        Some(window) => format!("a window of {}", show_count(window.into())),
    };
    let network = match kind.experts {
        0 => format!("one network of width {}", show_count(kind.width as u64)),
        experts => format!(
            "{} of {experts} experts of width {}",
            kind.experts_used,
            show_count(kind.width as u64)
        ),
    };
    match kind.shared_width {
        0 => format!("{attention}, {network}"),
        shared => format!("{attention}, {network}, a shared one of {}", show_count(shared as u64)),
    }
}

fn shape(shape: &Shape) -> String {
    format!(
        "hidden width {}, {} heads of {}, {} key and value heads",
        or_unknown(shape.hidden),
        or_unknown(shape.heads),
        or_unknown(shape.head_dim),
        or_unknown(shape.kv_heads)
    )
}

fn rotary(rotary: &Rotary, shape: &Shape) -> String {
    let base = rotary.base.map_or("not said".to_owned(), |base| base.to_string());
    let mut text = format!("base {base}");
    if let Some(base) = rotary.base_of_windows {
        text += &format!(" ({base} in layers with a window)");
    }
    let (dims, head_dim) = (or_unknown(rotary.dims), or_unknown(shape.head_dim));
    text += &format!(", {dims} of {head_dim} values of a head");
    match (&rotary.scaling, rotary.factor) {
        (None, _) => {}
        (Some(kind), None) => text += &format!(", {kind}"),
        (Some(kind), Some(factor)) => text += &format!(", {kind} by {factor}"),
    }
    if let Some(positions) = rotary.original_context {
        text += &format!(" from {} positions", show_count(positions));
    }
    if rotary.has_divisors {
        text += ", divided by a table of the file";
    }
    text
}

fn context(context: &Context) -> String {
    let trained = or_unknown(context.trained);
    match context.reckoned {
        Some(reckoned) => format!(
            "trained for {trained} positions; {} are reckoned with below (--ctx-size)",
            show_count(reckoned.into())
        ),
        None => format!("trained for {trained} positions"),
    }
}

fn vocabulary(report: &Report) -> String {
    let tokens = &report.tokenizer;
    let model = tokens.model.as_deref().unwrap_or("none");
    let pre = tokens.pre.as_deref().map(|pre| format!(" ({pre})")).unwrap_or_default();
    format!("{} tokens, {model}{pre}", or_unknown(tokens.count))
}

fn chat(report: &Report) -> String {
    let template = &report.chat_template;
    let tools = if template.has_tool_template { ", another one for tools" } else { "" };
    match (template.family.as_str(), template.bytes) {
        ("none", _) => "no template".to_owned(),
        (family, 0) => format!("no template of its own; {family} by its vocabulary"),
        ("unknown", bytes) => format!("a template of {bytes} bytes, of no known family{tools}"),
        (family, bytes) => {
            format!("{family} template of {} bytes{tools}", show_count(bytes as u64))
        }
    }
}

fn formats(lines: &mut Vec<String>, report: &Report) {
    for (index, format) in report.formats.iter().enumerate() {
        let Format { format, tensors, bytes, share, is_supported } = format;
        let said = if *is_supported { "" } else { "  not supported" };
        let tensors = format!("{} tensor{}", tensors, if *tensors == 1 { "" } else { "s" });
        let percent = share * 100.0;
        let line =
            format!("{format:<8} {tensors:>12} {:>10} {percent:>5.1} %{said}", show_size(*bytes));
        lines.push(format!("{:<INDENT$}{line}", if index == 0 { "formats" } else { "" }));
    }
}

fn roles(lines: &mut Vec<String>, report: &Report) {
    let roles = &report.roles;
    let all = [
        ("embedding", roles.embedding),
        ("layers", roles.layers),
        ("experts", roles.experts),
        ("head", roles.head),
        ("other", roles.other),
    ];
    let some = all.iter().filter(|(_, bytes)| *bytes > 0);
    let said: Vec<String> =
        some.map(|(name, bytes)| format!("{name} {}", show_size(*bytes))).collect();
    if !said.is_empty() {
        say(lines, "weights", &said.join(", "));
    }
}

fn memory(lines: &mut Vec<String>, memory: &Memory, context: &Context) {
    let positions = show_count(context.reckoned.unwrap_or(0).into());
    let read = show_size(memory.read_for_a_token);
    say(lines, "reads", &format!("{read} of weights to decode one token of one sequence"));
    for (index, cache) in memory.cache.iter().enumerate() {
        let word = if index == 0 { "cache" } else { "" };
        say(lines, word, &self::cache(cache, &positions));
    }
    for (index, cache) in memory.cache.iter().enumerate() {
        let word = if index == 0 { "memory" } else { "" };
        let text = format!(
            "{} for one sequence with {}: weights {}, buffers {}, cache {}",
            show_size(cache.bytes_in_all),
            cache.cache_type,
            show_size(memory.weights),
            show_size(memory.scratch),
            show_size(cache.bytes_per_sequence)
        );
        say(lines, word, &text);
    }
}

fn cache(cache: &Cache, positions: &str) -> String {
    let mut text = format!(
        "{}: {} per token, {} per sequence of {positions}",
        cache.cache_type,
        show_size(cache.bytes_per_token),
        show_size(cache.bytes_per_sequence)
    );
    for group in cache.groups.iter().filter(|group| group.window.is_some()) {
        text += &format!(
            " ({} layers keep {} positions)",
            group.layers,
            show_count(group.positions.into())
        );
    }
    text
}
