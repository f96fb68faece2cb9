//! `config`, `completions` and `man`: what join would be set to, and what the command line can be told.

use crate::config::{Cli, ConfigCommand, Folders};
use crate::machine::system;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{self, Write};
use woolly_protocol::settings::{Settings, shell, show};

/// `config print`, `config check` and `config docs`. `settings` are those of the command that runs.
///
/// # Errors
///
/// All mistakes, one line each.
pub fn run(
    command: ConfigCommand,
    settings: Option<&Settings>,
    folders: &Folders,
) -> Result<(), String> {
    match (command, settings) {
        (ConfigCommand::Print(_), Some(settings)) => print(show::settings(settings).as_bytes()),
        (ConfigCommand::Check(args), Some(_)) => {
            args.resolve(folders, &system::host_name())?;
            print(b"no mistakes\n");
        }
        (ConfigCommand::Docs, _) => print(docs().as_bytes()),
        (ConfigCommand::Print(_) | ConfigCommand::Check(_), None) => {
            return Err("the options could not be read".to_owned());
        }
    }
    Ok(())
}

/// The table of the options of join.
pub fn docs() -> String {
    let cli = Cli::command();
    cli.find_subcommand("join").map(show::table).unwrap_or_default()
}

/// `completions`.
pub fn completions(shell: Shell) {
    print(&shell::completions(Cli::command(), shell));
}

/// `man`.
///
/// # Errors
///
/// There is no such command.
pub fn page(command: &[String]) -> Result<(), String> {
    print(&shell::page(Cli::command(), command)?);
    Ok(())
}

/// Writes to stdout; whoever closes it has seen enough.
fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_option_of_join() {
        let page = include_str!("../../../docs/configuration.md");
        assert!(
            page.contains(&docs()),
            "write `woolly-worker config docs` to docs/configuration.md"
        );
    }
}
