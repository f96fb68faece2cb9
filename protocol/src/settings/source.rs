//! Who says what about an option: the command line, a variable, the file.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::{OsStr, OsString};
use std::fmt;

/// Where a value comes from. The later ones beat those before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody has said anything.
    Default,
    /// A key of the file.
    File {
        /// The file's name.
        path: String,
        /// Its line, from 1 on.
        line: usize,
        /// The character in the line, from 1 on.
        column: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// The command line; the flag as it is written, or the name of a word that stands alone.
    Flag(String),
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Variable(_) => 2,
            Origin::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Origin::Variable(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// What one option is set to, and by whom.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its key: the flag's long name, or the name of a word that stands alone.
    pub key: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// The value, as it would be typed; several for a list, none if nothing is set.
    pub values: Vec<OsString>,
    /// What was given and gave way to an option that excludes it.
    pub gave_way: Option<String>,
}

/// A value that was given.
#[derive(Clone, Debug)]
pub struct Given {
    /// Of which option.
    pub key: String,
    /// Where.
    pub origin: Origin,
    /// As it would be typed; several if a list has several.
    pub values: Vec<OsString>,
    /// For an option that is on or off: which, if it was said in a way that can be read.
    pub flag: Option<bool>,
}

/// All that was said about an option.
#[derive(Debug)]
pub struct Source<'a> {
    /// The option.
    pub arg: &'a Arg,
    /// Its key.
    pub key: String,
    /// What the command line says.
    flag: Option<Given>,
    /// What the variable says.
    variable: Option<Given>,
    /// What the file says.
    pub file: Option<Given>,
    /// It gives way to another option.
    gives_way: bool,
}

/// The key of an option.
pub fn key_of(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().as_str().replace('_', "-"), str::to_owned)
}

/// Whether an option is on or off and has no value.
pub fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// What people write for on and off in a variable, as `clap` reads it.
pub fn switch(text: &OsStr) -> Option<bool> {
    match text.to_str()?.to_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Some(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

impl<'a> Source<'a> {
    /// What the command line and the environment say.
    pub fn of(
        arg: &'a Arg,
        typed: &ArgMatches,
        variable: &dyn Fn(&OsStr) -> Option<OsString>,
    ) -> Source<'a> {
        let (key, id) = (key_of(arg), arg.get_id().as_str());
        let flag = (typed.value_source(id) == Some(ValueSource::CommandLine)).then(|| {
            let raw = typed.get_raw(id).unwrap_or_default();
            let name = match arg.get_long() {
                Some(long) => format!("--{long}"),
                None => arg.get_value_names().map_or(key.clone(), |names| names.join(" ")),
            };
            Given {
                key: key.clone(),
                origin: Origin::Flag(name),
                values: raw.map(OsStr::to_owned).collect(),
                flag: is_switch(arg).then_some(true),
            }
        });
        let from_variable = arg.get_env().and_then(|name| {
            let value = variable(name)?;
            Some(Given {
                key: key.clone(),
                origin: Origin::Variable(name.to_string_lossy().into_owned()),
                flag: if is_switch(arg) { switch(&value) } else { None },
                values: vec![value],
            })
        });
        Source { arg, key, flag, variable: from_variable, file: None, gives_way: false }
    }

    /// What counts: the command line's, else the variable's, else the file's.
    pub fn given(&self) -> Option<&Given> {
        self.flag.as_ref().or(self.variable.as_ref()).or(self.file.as_ref())
    }

    /// What counts, if it was not typed.
    pub fn given_elsewhere(&self) -> Option<&Given> {
        self.given().filter(|_| self.flag.is_none() && !self.gives_way)
    }

    /// What has to be right: what counts, and what stands in the file.
    pub fn all(&self) -> impl Iterator<Item = &Given> {
        let counts = self.given().filter(|given| given.origin.rank() > 1);
        counts.into_iter().chain(&self.file)
    }

    /// Whether its value must not be shown.
    pub fn is_secret(&self) -> bool {
        self.arg.is_hide_env_values_set()
    }

    /// The setting that comes of it.
    pub fn setting(&self, gave_way: Option<String>) -> Setting {
        let default = || {
            let values = self.arg.get_default_values().iter().map(|value| value.to_os_string());
            (Origin::Default, values.collect())
        };
        let given = self.given().filter(|_| !self.gives_way);
        let (origin, values) = given.map_or_else(default, |given| {
            let values = match given.flag {
                Some(on) => vec![OsString::from(if on { "true" } else { "false" })],
                None => given.values.clone(),
            };
            (given.origin.clone(), values)
        });
        Setting { key: self.key.clone(), origin, values, gave_way }
    }
}

/// Of two options that exclude each other the one of lower rank gives way. For each option, what it gave way
/// to, if it did.
pub fn give_way(command: &Command, sources: &mut [Source<'_>]) -> Vec<Option<String>> {
    let rank = |source: &Source<'_>| {
        // A switch that is off excludes nothing.
        let given = source.given().filter(|given| given.flag != Some(false));
        given.map_or(0, |given| given.origin.rank())
    };
    let mut pairs = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        for other in command.get_arg_conflicts_with(source.arg) {
            let found = sources.iter().position(|source| source.arg.get_id() == other.get_id());
            pairs.extend(found.map(|other| (at, other)));
        }
    }
    let mut gave_way = vec![None; sources.len()];
    for (a, b) in pairs {
        let (rank_a, rank_b) = (rank(&sources[a]), rank(&sources[b]));
        if rank_a == 0 || rank_b == 0 || rank_a == rank_b {
            continue;
        }
        let (low, high) = if rank_a < rank_b { (a, b) } else { (b, a) };
        let origin = |at: usize| sources[at].given().map(|given| given.origin.to_string());
        if let (Some(lower), Some(higher)) = (origin(low), origin(high)) {
            gave_way[low] = Some(format!("what {lower} says gives way to {higher}"));
        }
        sources[low].gives_way = true;
    }
    gave_way
}
