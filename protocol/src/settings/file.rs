//! A configuration file: TOML without tables, one key for each option.

use super::source::{Given, Origin, is_switch, key_of};
use super::{nearest, shown};
use clap::{Arg, ArgAction};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of a file at most.
pub const FILE_MAX: u64 = 1 << 20;
/// Mistakes of a file that are told.
const MISTAKES_MAX: usize = 50;

/// What a file says.
#[derive(Debug, Default)]
pub struct ConfigFile {
    /// Values of options.
    pub given: Vec<Given>,
    /// What is wrong, each with its place.
    pub mistakes: Vec<String>,
    /// Others than its owner and its group may read it.
    pub open_to_others: bool,
}

impl ConfigFile {
    /// Reads the file for these options.
    pub fn read(path: &Path, options: &[&Arg]) -> ConfigFile {
        match contents(path) {
            Ok((text, open_to_others)) => {
                ConfigFile { open_to_others, ..ConfigFile::of_text(&text, &shown(path), options) }
            }
            Err(error) => {
                let mistake = format!("{}: {error}", shown(path));
                ConfigFile { mistakes: vec![mistake], ..ConfigFile::default() }
            }
        }
    }

    /// Reads a text that stands in the file `path`.
    pub fn of_text(text: &str, path: &str, options: &[&Arg]) -> ConfigFile {
        // Some editors write one.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let at = |offset: usize| {
            let before = text.get(..offset).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            Origin::File {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
            }
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut file = ConfigFile::default();
        for error in errors {
            let place = at(error.span().map_or(0, |span| span.start));
            let message = error.message().trim_end().replace('\n', " ");
            file.mistakes.push(format!("{place}: {message}"));
        }
        for (key, value) in table.get_ref() {
            let origin = at(key.span().start);
            match read_key(key.get_ref(), value, options, text) {
                Ok((values, flag)) => {
                    file.given.push(Given { key: key.get_ref().to_string(), origin, values, flag });
                }
                Err(why) => file.mistakes.push(format!("{origin}: {why}")),
            }
        }
        let more = file.mistakes.len().saturating_sub(MISTAKES_MAX);
        if more > 0 {
            file.mistakes.truncate(MISTAKES_MAX);
            file.mistakes.push(format!("{path}: and {more} more mistakes"));
        }
        file
    }
}

fn contents(path: &Path) -> Result<(String, bool), String> {
    let wrong = |error: std::io::Error| format!("cannot read the configuration: {error}");
    let file = File::open(path).map_err(wrong)?;
    let metadata = file.metadata().map_err(wrong)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("expected at most {FILE_MAX} bytes of TOML, and it is longer"));
    }
    let open = metadata.is_file() && metadata.permissions().mode() & 0o007 != 0;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("expected UTF-8; line {line} is not")
    })?;
    Ok((text, open))
}

/// The values of a key, and on or off for a switch.
fn read_key(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    options: &[&Arg],
    text: &str,
) -> Result<(Vec<OsString>, Option<bool>), String> {
    let named = options.iter().filter(|arg| is_key(arg)).map(|arg| (key_of(arg), arg));
    let known: Vec<(String, &&Arg)> = named.collect();
    let Some((_, arg)) = known.iter().find(|(name, _)| name == key) else {
        let near = nearest(&key.replace('_', "-"), known.iter().map(|(name, _)| name.as_str()));
        let near = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
        let what = match value.get_ref() {
            DeValue::Table(_) => "there are no tables here: options stand at the top",
            _ => "there is no option of this name",
        };
        return Err(format!("{}: {what}{near}", shortened(key)));
    };
    let wrong =
        |expected: &str| format!("{key}: expected {expected}, got {}", kind_of(value.get_ref()));
    if is_switch(arg) {
        return match value.get_ref() {
            DeValue::Boolean(on) => Ok((vec![on.to_string().into()], Some(*on))),
            _ => Err(wrong("true or false")),
        };
    }
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let values = match value.get_ref() {
        DeValue::Array(list) if is_list => list
            .iter()
            .map(|value| scalar(value, text).ok_or_else(|| wrong("a list of texts or numbers")))
            .collect::<Result<Vec<OsString>, String>>()?,
        _ => {
            let expected =
                if is_list { "a text, a number or a list" } else { "a text or a number" };
            vec![scalar(value, text).ok_or_else(|| wrong(expected))?]
        }
    };
    Ok((values, None))
}

/// Words that stand alone have a key only if they have a variable: others are another way to say an option.
fn is_key(arg: &Arg) -> bool {
    arg.get_long().is_some() || arg.get_env().is_some()
}

/// A text as it is, a number as it would be typed.
fn scalar(value: &Spanned<DeValue<'_>>, text: &str) -> Option<OsString> {
    match value.get_ref() {
        DeValue::String(value) => Some(value.as_ref().into()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().into()),
        DeValue::Float(_) | DeValue::Integer(_) => text.get(value.span()).map(Into::into),
        _ => None,
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn shortened(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(80).collect()
}
