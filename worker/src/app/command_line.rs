//! The command line as it is read: with variables, and the file of options that one of them names.

use crate::config::{CONFIGURED, Cli, variable};
use clap::{CommandFactory, FromArgMatches};
use woolly_protocol::settings::{Settings, Stopped, Understood, understand};

/// Reads the command line, variables and the file of options. Ends for a line that cannot be read, or one that
/// asks for help.
///
/// # Errors
///
/// All mistakes of options, one line each.
pub fn read() -> Result<(Cli, Option<Settings>), String> {
    let words: Vec<_> = std::env::args_os().collect();
    let understood = understand(&Cli::command(), CONFIGURED, &words, &variable);
    let understood = understood.and_then(|Understood { matches, settings }| {
        let cli = Cli::from_arg_matches(&matches).map_err(Stopped::Clap)?;
        Ok((cli, settings))
    });
    understood.map_err(|stopped| match stopped {
        Stopped::Clap(error) => error.exit(),
        Stopped::Mistakes(mistakes) => mistakes.join("\n"),
    })
}
