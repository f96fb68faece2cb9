//! Whether a value is one that an option takes: the definition's own check, one value at a time.

use super::source::{Given, Origin, is_switch, key_of};
use clap::builder::{OsStringValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use std::error::Error as _;
use std::ffi::{OsStr, OsString};

/// Characters of a wrong value that are shown.
const SHOWN_MAX: usize = 80;

/// The definition of a command, ready to look at one option alone.
pub struct Check {
    alone: Command,
}

impl Check {
    /// For the options of this command.
    pub fn new(command: &Command) -> Check {
        Check { alone: relaxed(command.clone(), false).no_binary_name(true) }
    }

    /// What is wrong with a value; `None` if it is good.
    pub fn mistake(&self, arg: &Arg, given: &Given) -> Option<String> {
        let reason = self.reason(arg, given)?;
        let said = match &given.origin {
            Origin::Flag(name) => name.clone(),
            origin => format!("{origin}: {}", key_of(arg)),
        };
        Some(format!("{said}: {reason}"))
    }

    fn reason(&self, arg: &Arg, given: &Given) -> Option<String> {
        let got = |value: &OsStr| {
            if arg.is_hide_env_values_set() {
                return String::new();
            }
            format!(", got {:?}", shortened(&value.to_string_lossy()))
        };
        if is_switch(arg) {
            let value = given.values.first()?;
            return match given.flag {
                Some(_) => None,
                None => Some(format!("expected true or false{}", got(value))),
            };
        }
        if let (Origin::File { .. }, Some(delimiter)) = (&given.origin, arg.get_value_delimiter())
            && given.values.len() > 1
            && let Some(value) =
                given.values.iter().find(|v| v.to_string_lossy().contains(delimiter))
        {
            return Some(format!("an element holds a {delimiter:?}{}: write two", got(value)));
        }
        let error = self.alone.clone().try_get_matches_from(typed(arg, given)).err()?;
        let wrong = match error.get(ContextKind::InvalidValue) {
            Some(ContextValue::String(value)) => got(OsStr::new(value)),
            _ => given.values.first().map(|value| got(value)).unwrap_or_default(),
        };
        Some(format!("{}{wrong}", reason_of(&error)))
    }
}

/// What an error of `clap` says of a value, without repeating the value.
fn reason_of(error: &clap::Error) -> String {
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("expected {}", valid.join(", "))
        }
        (ErrorKind::InvalidValue, _) => "expected a value, not an empty one".to_owned(),
        (ErrorKind::ValueValidation, _) => {
            error.source().map_or_else(|| "it cannot be read".to_owned(), |why| why.to_string())
        }
        (ErrorKind::InvalidUtf8, _) => "expected UTF-8".to_owned(),
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A value as it would be typed.
pub fn typed(arg: &Arg, given: &Given) -> Vec<OsString> {
    let Some(long) = arg.get_long() else { return given.values.clone() };
    if is_switch(arg) {
        let on = given.flag == Some(true);
        return if on { vec![OsString::from(format!("--{long}"))] } else { Vec::new() };
    }
    let word = |value: &OsString| {
        let mut word = OsString::from(format!("--{long}="));
        word.push(value);
        word
    };
    given.values.iter().map(word).collect()
}

/// A definition in which nothing is required or excluded and variables do not count; with `any_value` every
/// value is taken.
pub fn relaxed(command: Command, any_value: bool) -> Command {
    let relax = |arg: Arg| {
        let arg = arg
            .env(Resettable::Reset)
            .required(false)
            .conflicts_with(Resettable::Reset)
            .requires(Resettable::Reset);
        if any_value && arg.get_action().takes_values() && !is_count(&arg) {
            arg.value_parser(OsStringValueParser::new())
        } else {
            arg
        }
    };
    command.mut_args(relax).mut_subcommands(|command| relaxed(command, any_value))
}

/// Help, version and counters have types of their own.
fn is_count(arg: &Arg) -> bool {
    use clap::ArgAction::{Append, Set};
    !matches!(arg.get_action(), Set | Append)
}
