//! `config`, `completions` and `man`: what is set, and what the command line can be told.

use crate::config::{Cli, ConfigCommand, ServeArgs};
use crate::exit::Fatal;
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{self, ErrorKind, Write};
use woolly_protocol::settings::{Origin, Settings, shell, show};

/// `config print`, `config check` and `config docs`. `settings` are those of the command that runs.
///
/// # Errors
///
/// All that serve would refuse before it opens a socket, and a stdout that cannot be written to.
pub fn run(command: ConfigCommand, settings: Option<&Settings>) -> Result<(), Fatal> {
    match (command, settings) {
        (ConfigCommand::Print(_), Some(settings)) => {
            notes(settings);
            out(show::settings(settings).as_bytes())
        }
        (ConfigCommand::Check(args), Some(settings)) => {
            notes(settings);
            check(&args)?;
            out(b"no mistakes\n")
        }
        (ConfigCommand::Docs, _) => out(docs().as_bytes()),
        (ConfigCommand::Print(_) | ConfigCommand::Check(_), None) => {
            Err(Fatal::usage("the options could not be read"))
        }
    }
}

/// The table of the options of serve.
pub fn docs() -> String {
    let cli = Cli::command();
    cli.find_subcommand("serve").map(show::table).unwrap_or_default()
}

/// What is known to be wrong before a model is read.
fn check(args: &ServeArgs) -> Result<(), Fatal> {
    let found = [
        args.model.source().err(),
        args.worker_counts().err(),
        args.door.addresses().err(),
        args.door.certificates().err(),
        args.access.keys().err(),
        args.runtime.shelf().err(),
        args.runtime.admin_key().err(),
    ];
    let mistakes: Vec<Fatal> = found.into_iter().flatten().collect();
    let Some((last, others)) = mistakes.split_last() else { return Ok(()) };
    others.iter().for_each(Fatal::report);
    Err(Fatal::usage(last.line()))
}

fn notes(settings: &Settings) {
    for warning in warnings(settings) {
        crate::announce::stderr_line(format_args!("warning: {warning}"));
    }
}

/// What the owner of the settings should look at.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = settings.warnings.clone();
    for key in ["api-key", "admin-key"] {
        if let Some(Origin::Flag(flag)) = settings.get(key).map(|setting| &setting.origin) {
            let variable = format!("WOOLLY_{}", key.to_uppercase().replace('-', "_"));
            warnings.push(format!(
                "{flag} shows its keys to everyone who lists this machine's processes: use \
                 {flag}-file or {variable}"
            ));
        }
    }
    warnings
}

/// `completions`.
///
/// # Errors
///
/// A stdout that cannot be written to.
pub fn completions(shell: Shell) -> Result<(), Fatal> {
    out(&shell::completions(Cli::command(), shell))
}

/// `man`.
///
/// # Errors
///
/// There is no such command, or stdout cannot be written to.
pub fn page(command: &[String]) -> Result<(), Fatal> {
    out(&shell::page(Cli::command(), command).map_err(Fatal::usage)?)
}

/// Writes to stdout; whoever closes it has seen enough.
fn out(bytes: &[u8]) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")?
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_option_of_serve() {
        let page = include_str!("../../../docs/configuration.md");
        assert!(
            page.contains(&docs()),
            "write `woolly-coordinator config docs` to docs/configuration.md"
        );
    }
}
