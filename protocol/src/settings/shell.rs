//! What shells and `man` make of a definition: completions and manual pages.

use clap::Command;
use clap_complete::{Shell, generate};
use std::io;

/// The completions of a program for a shell.
pub fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let (name, mut out) = (command.get_name().to_owned(), Vec::new());
    generate(shell, &mut command, name, &mut out);
    out
}

/// The manual page of a program, or of one of its commands, as `man` reads it.
///
/// # Errors
///
/// A sentence that names the commands, if `path` chooses none.
pub fn page(mut command: Command, path: &[String]) -> Result<Vec<u8>, String> {
    command.build();
    let mut at = &command;
    for name in path {
        let Some(below) = at.find_subcommand(name) else {
            let names: Vec<&str> = at.get_subcommands().map(Command::get_name).collect();
            return Err(format!("there is no command {name}: expected {}", names.join(", ")));
        };
        at = below;
    }
    let title = at.get_bin_name().unwrap_or(at.get_name()).replace(' ', "-");
    let mut out = Vec::new();
    let rendered: io::Result<()> = clap_mangen::Man::new(at.clone().name(title)).render(&mut out);
    // A vector takes everything.
    rendered.map_err(|error| error.to_string())?;
    Ok(out)
}
