//! The `woolly-coordinator` command.

use clap::Parser;
use std::process::ExitCode;
use woolly_coordinator::config::{Cli, CliCommand};
use woolly_coordinator::{bench, serve, token_command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        CliCommand::Serve(args) => serve::run(*args),
        CliCommand::Bench(args) => bench::run(&args),
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
