//! The `woolly-coordinator` command.

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;
use woolly_coordinator::announce::stderr_line;
use woolly_coordinator::app::{
    config_command, log, members_command, models_command, plan_command, probe_command, serve,
    status_command, token_command,
};
use woolly_coordinator::bench;
use woolly_coordinator::config::{CONFIGURED, Cli, CliCommand, LogFormat, variable};
use woolly_coordinator::inspect;
use woolly_protocol::settings::{Settings, Stopped, Understood, understand};

fn main() -> ExitCode {
    let (cli, settings) = parse();
    let result = match cli.command {
        CliCommand::Serve(args) => {
            log::start(args.log_format);
            for warning in settings.iter().flat_map(config_command::warnings) {
                tracing::warn!("{warning}");
            }
            serve::run(*args)
        }
        CliCommand::Bench(args) => {
            log::start(LogFormat::Text);
            bench::run(&args)
        }
        CliCommand::Inspect(args) => inspect::run(&args),
        CliCommand::Plan(args) => plan_command::run(&args),
        CliCommand::Models(args) => models_command::run(args.command),
        CliCommand::Status(args) => status_command::status(args),
        CliCommand::Probe(args) => match probe_command::run(args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(fatal) => Err(fatal),
        },
        CliCommand::Workers(args) => status_command::workers(args),
        CliCommand::Remove(args) => members_command::remove(args),
        CliCommand::Ban(args) => members_command::ban(args),
        CliCommand::Allow(args) => members_command::allow(args),
        CliCommand::Page(args) => status_command::page(args),
        CliCommand::Token(args) => token_command::run(args.command),
        CliCommand::Config(args) => config_command::run(args.command, settings.as_ref()),
        CliCommand::Completions { shell } => config_command::completions(shell),
        CliCommand::Man { command } => config_command::page(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            fatal.report();
            ExitCode::from(fatal.code())
        }
    }
}

/// Reads the command line, variables and the file of options; says what to use here if it cannot and the words
/// are another server's.
fn parse() -> (Cli, Option<Settings>) {
    let words: Vec<_> = std::env::args_os().collect();
    let understood = understand(&Cli::command(), CONFIGURED, &words, &variable);
    let understood = understood.and_then(|Understood { matches, settings }| {
        let cli = Cli::from_arg_matches(&matches).map_err(Stopped::Clap)?;
        Ok((cli, settings))
    });
    match understood {
        Ok(understood) => understood,
        Err(Stopped::Mistakes(mistakes)) => {
            for mistake in mistakes {
                stderr_line(format_args!("error: {mistake}"));
            }
            std::process::exit(2);
        }
        Err(Stopped::Clap(error)) => give_up(&error),
    }
}

/// Ends with what the command line lacks, or with the help that it asks for.
fn give_up(error: &clap::Error) -> ! {
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
