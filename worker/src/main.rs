//! The `woolly-worker` command.

use std::process::ExitCode;
use woolly_engine::weights::end_on_lost_pages;
use woolly_worker::app::exit::{EXIT_ERROR, EXIT_LOST_PAGES, EXIT_USAGE, LOST_PAGES};
use woolly_worker::app::{
    command_line, config_command, log, measure_command, probe_command, run, slices_command,
};
use woolly_worker::bench;
use woolly_worker::config::{Command, Config, Folders};
use woolly_worker::machine::system;

fn main() -> ExitCode {
    let (cli, settings) = match command_line::read() {
        Ok(understood) => understood,
        Err(mistakes) => return complain(&mistakes, EXIT_USAGE),
    };
    let folders = Folders::from_environment();
    log::start();
    for warning in settings.iter().flat_map(|settings| &settings.warnings) {
        tracing::warn!("{warning}");
    }
    if let Err(error) = end_on_lost_pages(LOST_PAGES, EXIT_LOST_PAGES) {
        // Whoever truncates a model that is in use finds a worker that was killed without a word.
        tracing::warn!("cannot handle SIGBUS: {error}");
    }
    match cli.command {
        Command::Join(args) => match args.resolve(&folders, &system::host_name()) {
            Ok(config) => join(config),
            Err(mistakes) => complain(&mistakes, EXIT_USAGE),
        },
        Command::Bench(args) => match args.resolve() {
            Ok(config) => match bench::run(&config, &mut std::io::stdout()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&error, EXIT_ERROR),
            },
            Err(mistakes) => complain(&mistakes, EXIT_USAGE),
        },
        Command::Measure(args) => match measure_command::run(&args, &mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, EXIT_ERROR),
        },
        Command::Config(args) => {
            match config_command::run(args.command, settings.as_ref(), &folders) {
                Ok(()) => ExitCode::SUCCESS,
                Err(mistakes) => complain(&mistakes, EXIT_USAGE),
            }
        }
        Command::Completions { shell } => {
            config_command::completions(shell);
            ExitCode::SUCCESS
        }
        Command::Man { command } => match config_command::page(&command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(mistake) => complain(&mistake, EXIT_USAGE),
        },
        Command::Slices(args) => whether(slices_command::run(&args, &folders)),
        Command::Probe(args) => {
            whether(probe_command::run(&args, &folders, &mut std::io::stdout()))
        }
    }
}

/// The exit status of a command that answers yes or no.
fn whether(answer: Result<bool, String>) -> ExitCode {
    match answer {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_ERROR),
        Err(error) => complain(&error, EXIT_ERROR),
    }
}

fn join(config: Config) -> ExitCode {
    let runtime = match run::network_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start the runtime: {error}"), EXIT_ERROR),
    };
    let ended = runtime.block_on(run::run(config));
    // Hashing or reading in the background is cut short; files are complete or marked as parts.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(&failure.text, failure.code),
    }
}

/// One `error:` line per mistake. A closed stderr is no reason to panic on the way out.
fn complain(text: &str, code: u8) -> ExitCode {
    use std::io::Write;
    let mut stderr = std::io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "error: {line}");
    }
    ExitCode::from(code)
}
