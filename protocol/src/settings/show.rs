//! Settings as text: what is set by whom, and the table of all options.

use super::source::{is_switch, key_of};
use super::{CONFIG, Origin, Setting, Settings, is_option};
use clap::{Arg, Command};
use std::fmt::Write;

/// The column in which it stands where a value comes from.
const ORIGIN_COLUMN: usize = 44;

/// Every option with its value and where that comes from: TOML, which can be used as a file. Secrets are not
/// shown.
pub fn settings(settings: &Settings) -> String {
    let mut out = String::new();
    let mut heading = None;
    for setting in &settings.list {
        let arg = settings.command.get_arguments().find(|arg| key_of(arg) == setting.key);
        let Some(arg) = arg else { continue };
        if heading != Some(arg.get_help_heading()) {
            heading = Some(arg.get_help_heading());
            let _ = writeln!(out, "\n# {}", arg.get_help_heading().unwrap_or("Options"));
        }
        let (line, origin) = line(arg, setting);
        let pad = ORIGIN_COLUMN.saturating_sub(line.chars().count()).max(1);
        let _ = write!(out, "{line}{:pad$}# {origin}", "");
        match &setting.gave_way {
            Some(gave_way) => drop(writeln!(out, "; {gave_way}")),
            None => out.push('\n'),
        }
    }
    out.trim_start().to_owned()
}

/// The line of an option and where its value comes from. What nobody has set stands in a comment: a file made of
/// the lines sets what is set now, and nothing else.
fn line(arg: &Arg, setting: &Setting) -> (String, String) {
    let key = &setting.key;
    let is_default = setting.origin == Origin::Default;
    if setting.values.is_empty() || (is_switch(arg) && is_default) {
        let value = if is_switch(arg) { " false" } else { "" };
        let origin = if is_switch(arg) { "default" } else { "not set" };
        return (format!("#{key} ={value}"), origin.to_owned());
    }
    let origin = setting.origin.to_string();
    if arg.is_hide_env_values_set() {
        return (format!("#{key} = (hidden)"), origin);
    }
    let values: Vec<String> = setting.values.iter().map(|v| value(&v.to_string_lossy())).collect();
    let is_list = matches!(arg.get_action(), clap::ArgAction::Append);
    let text = match &values[..] {
        [one] if is_switch(arg) => one.trim_matches('"').to_owned(),
        [one] if !is_list => one.clone(),
        values => format!("[{}]", values.join(", ")),
    };
    // A word that stands alone has no key.
    let is_key = arg.get_long().is_some() || arg.get_env().is_some();
    (format!("{}{key} = {text}", if is_key && !is_default { "" } else { "#" }), origin)
}

/// A number as it is, all else as a TOML text.
fn value(text: &str) -> String {
    let is_number = text == "0" || !text.starts_with('0') && text.parse::<u64>().is_ok();
    if is_number && text.parse::<i64>().is_ok() && !text.starts_with('+') {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// All options of a command as tables in Markdown, one for each heading of its help.
pub fn table(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let listed = |arg: &&Arg| arg.get_id() == CONFIG || (is_option(arg) && !arg.is_hide_set());
    let mut out = String::new();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in command.get_arguments().filter(listed) {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        let _ = writeln!(out, "### {}\n", heading.unwrap_or("Options"));
        out.push_str("| flag | key | variable | default | meaning |\n");
        out.push_str("| --- | --- | --- | --- | --- |\n");
        let under = command.get_arguments().filter(listed);
        for arg in under.filter(|arg| arg.get_help_heading() == heading) {
            row(&mut out, arg);
        }
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

fn row(out: &mut String, arg: &Arg) {
    let names = arg.get_value_names().map_or_else(String::new, |names| names.join(" "));
    let flag = match arg.get_long() {
        Some(long) if is_switch(arg) => format!("--{long}"),
        Some(long) => format!("--{long} {names}"),
        None => names,
    };
    let has_key = arg.get_id() != CONFIG && (arg.get_long().is_some() || arg.get_env().is_some());
    let code = |text: String| if text.is_empty() { "–".to_owned() } else { format!("`{text}`") };
    let key = code(if has_key { key_of(arg) } else { String::new() });
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    let default = if is_switch(arg) { "false".to_owned() } else { defaults.join(",") };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
    let help = help.unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    let (variable, default) = (code(variable.unwrap_or_default()), code(default));
    let _ = writeln!(out, "| {} | {key} | {variable} | {default} | {help} |", code(flag));
}
