//! What a person configures: every option of a program as flag, environment variable and key of a TOML file.
//!
//! The program's `clap` definition is the only list of options. The key of an option is its flag's long
//! name (`ctx-size = 4096` is `--ctx-size 4096`); its variable is the one that the definition names. A flag
//! beats a variable, a variable beats the file, the file beats the default. Of two options that exclude each
//! other the one that was given higher up counts, and the other gives way.
//!
//! All mistakes are told at once: each with its option, where it stands (flag, variable, or file with line and
//! column) and what was expected. A key that no option has is a mistake. What is found is handed to `clap` as
//! if it had been typed, so that every check that holds for a flag holds for a variable and a key.
//!
//! A file has at most [`FILE_MAX`](file::FILE_MAX) bytes of UTF-8, with or without a byte order mark, lines
//! ended by LF or CRLF. Nothing here knows what an option means.

pub mod check;
pub mod file;
pub mod shell;
pub mod show;
mod source;
#[cfg(test)]
mod tests;

pub use source::{Origin, Setting};

use check::{Check, relaxed};
use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use file::ConfigFile;
use source::Source;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The option that names the file; a file cannot name another.
pub const CONFIG: &str = "config";

/// Every option of the command that runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// In the order of the help.
    pub list: Vec<Setting>,
    /// The definition that they belong to.
    pub command: Command,
    /// What its owner should look at.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The setting with this key.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.list.iter().find(|setting| setting.key == key)
    }
}

/// A command line that was understood.
#[derive(Debug)]
pub struct Understood {
    /// What `clap` made of it, of variables and of the file.
    pub matches: ArgMatches,
    /// The settings, if the command is one that can be configured.
    pub settings: Option<Settings>,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stopped {
    /// Help, a version, or a command line that cannot be read.
    Clap(clap::Error),
    /// Options that cannot be obeyed, each mistake in one line.
    Mistakes(Vec<String>),
}

/// Reads a command line, variables and the file that one of them names. `configured` are the commands that
/// a file and variables speak to, as the words that choose them; for others `clap` alone decides.
///
/// # Errors
///
/// See [`Stopped`].
pub fn understand(
    definition: &Command,
    configured: &[&[&str]],
    words: &[OsString],
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Result<Understood, Stopped> {
    let strict = || {
        let matches = definition.clone().try_get_matches_from(words).map_err(Stopped::Clap)?;
        Ok(Understood { matches, settings: None })
    };
    // With values of any kind: what is wrong with them is told together with the rest.
    let Ok(typed) = relaxed(definition.clone(), true).try_get_matches_from(words) else {
        return strict();
    };
    let (path, typed) = chosen(&typed);
    if !configured.iter().any(|words| *words == path) {
        return strict();
    }
    let mut built = definition.clone();
    built.build();
    let command = path.iter().try_fold(&built, |at, name| at.find_subcommand(name));
    let Some(command) = command else { return strict() };

    let mut mistakes = Vec::new();
    let options: Vec<&Arg> = command.get_arguments().filter(|arg| is_option(arg)).collect();
    let mut sources: Vec<Source<'_>> =
        options.iter().map(|arg| Source::of(arg, typed, variable)).collect();
    let mut warnings = Vec::new();
    if let Some(path) = config_path(command, typed, variable) {
        let file = ConfigFile::read(&path, &options);
        mistakes.extend(file.mistakes);
        for given in file.given {
            if let Some(source) = sources.iter_mut().find(|source| source.key == given.key) {
                source.file = Some(given);
            }
        }
        let secret = |source: &Source<'_>| source.is_secret() && source.file.is_some();
        if sources.iter().any(secret) && file.open_to_others {
            let shown = path.display();
            warnings.push(format!("{shown} holds a secret and others may read it: chmod 600 it"));
        }
    }
    let check = Check::new(command);
    for source in &sources {
        mistakes.extend(source.all().filter_map(|given| check.mistake(source.arg, given)));
    }
    if !mistakes.is_empty() {
        return Err(Stopped::Mistakes(mistakes));
    }
    let gave_way = source::give_way(command, &mut sources);
    let list = sources.iter().zip(gave_way).map(|(source, gave_way)| source.setting(gave_way));
    let settings = Settings { list: list.collect(), command: command.clone(), warnings };
    let words = with_settings(words, path.len() + 1, &sources);
    let matches = without_variables(definition.clone()).try_get_matches_from(words);
    match matches {
        Ok(matches) => Ok(Understood { matches, settings: Some(settings) }),
        Err(error) => Err(with_origins(error, &sources)),
    }
}

/// The words that choose a command, and what was typed behind them.
fn chosen(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let (mut path, mut at) = (Vec::new(), matches);
    while let Some((name, below)) = at.subcommand() {
        path.push(name.to_owned());
        at = below;
    }
    (path, at)
}

/// Whether an argument is an option that can be configured, by a file at least.
fn is_option(arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    let is_of_clap = matches!(id, "help" | "version");
    let is_named = arg.get_long().is_some() || arg.is_positional();
    is_named && !is_of_clap && id != CONFIG && (!arg.is_hide_set() || arg.get_env().is_some())
}

fn config_path(
    command: &Command,
    typed: &ArgMatches,
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Option<PathBuf> {
    let arg = command.get_arguments().find(|arg| arg.get_id() == CONFIG)?;
    if typed.value_source(CONFIG) == Some(ValueSource::CommandLine) {
        return typed.get_raw(CONFIG)?.next().map(PathBuf::from);
    }
    let path = variable(arg.get_env()?)?;
    (!path.is_empty()).then(|| PathBuf::from(path))
}

/// The command line with what variables and the file say behind the words that choose the command.
fn with_settings(words: &[OsString], path_end: usize, sources: &[Source<'_>]) -> Vec<OsString> {
    let (path, rest) = words.split_at(path_end.min(words.len()));
    let mut all = path.to_vec();
    for source in sources {
        if let Some(given) = source.given_elsewhere() {
            all.extend(check::typed(source.arg, given));
        }
    }
    all.extend_from_slice(rest);
    all
}

/// Variables are read by us: `clap` would count them as typed beside what beats them.
fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset)).mut_subcommands(without_variables)
}

/// An error of `clap` about options together; it says where those were set that were not typed.
fn with_origins(error: clap::Error, sources: &[Source<'_>]) -> Stopped {
    let text = error.render().to_string();
    let named = |source: &&Source<'_>| {
        let given = source.given_elsewhere().is_some();
        given && text.contains(&format!("--{}", source.key))
    };
    let origins: Vec<String> = sources
        .iter()
        .filter(named)
        .filter_map(|source| Some(format!("{} is set in {}", source.key, source.given()?.origin)))
        .collect();
    if origins.is_empty() {
        return Stopped::Clap(error);
    }
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Stopped::Mistakes(std::iter::once(first).chain(origins).collect())
}

/// A file's name as people know it, on one line.
fn shown(path: &Path) -> String {
    path.display()
        .to_string()
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The name among `known` that is nearest to `name`, if it is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Of 1.0 for equal names.
    const NEAR: f64 = 0.8;
    let rated = known.into_iter().map(|other| (strsim::jaro_winkler(name, other), other));
    let best = rated.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(near, _)| *near >= NEAR).map(|(_, other)| other)
}
