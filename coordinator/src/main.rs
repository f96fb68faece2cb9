//! The `woolly-coordinator` command.

use clap::Parser;
use clap::error::ErrorKind;
use std::process::ExitCode;
use woolly_coordinator::app::{log, models_command, serve, token_command};
use woolly_coordinator::bench;
use woolly_coordinator::config::{Cli, CliCommand, LogFormat};
use woolly_coordinator::inspect;

fn main() -> ExitCode {
    let result = match parse().command {
        CliCommand::Serve(args) => serve::run(*args),
        CliCommand::Bench(args) => {
            log::start(LogFormat::Text);
            bench::run(&args)
        }
        CliCommand::Inspect(args) => inspect::run(&args),
        CliCommand::Models(args) => models_command::run(args.command),
        CliCommand::Token(args) => token_command::run(args.command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            fatal.report();
            ExitCode::from(fatal.code())
        }
    }
}

/// Reads the command line; says what to use here if it cannot and the words are another server's.
fn parse() -> Cli {
    let error = match Cli::try_parse() {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    let words = std::env::args_os().skip(1).filter_map(|word| word.into_string().ok());
    let tip = woolly_coordinator::config::tip(words);
    let code = match (error.kind(), &tip) {
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, _) => {
            // A closed stderr is no reason to end in another way.
            let _ = error.print();
            error.exit_code()
        }
        // `-hf` reads as `-h -f`, and whoever writes it wants no help.
        (ErrorKind::DisplayHelp, Some((word, _))) if word.starts_with("-h") => {
            eprintln!("error: unexpected argument '{word}' found");
            2
        }
        _ => error.exit(),
    };
    if let Some((word, tip)) = tip {
        eprintln!("\n  tip: '{word}': {tip}");
    }
    std::process::exit(code);
}
