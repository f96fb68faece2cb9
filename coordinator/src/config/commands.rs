//! The flags of the commands beside `serve`: join tokens and the configuration.

use super::{ServeArgs, within};
use crate::units::parse_duration;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// The longest life of a join token.
const TTL_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// The flags of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every option of serve with its value and where that comes from; takes the flags of serve
    Print(Box<ServeArgs>),
    /// Say all mistakes, or that there are none; takes the flags of serve
    Check(Box<ServeArgs>),
    /// Print the table of all options in Markdown
    Docs,
}

/// The flags of `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do with tokens.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print the line that joins a worker with it
    Create {
        /// How long it is good for: 1s to 3650d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_ttl)]
        #[arg(env = "WOOLLY_TTL")]
        ttl: Duration,
        /// How many workers may join with it [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        #[arg(env = "WOOLLY_USES")]
        uses: Option<u32>,
        /// Print the token alone, without `woolly-worker join HOST:PORT --token`
        #[arg(short, long)]
        quiet: bool,
        /// Write the token to FILE, readable for its owner alone, and print nothing on stdout; if FILE holds a
        /// token of this cluster that is still good, it stays
        #[arg(long, value_name = "FILE", conflicts_with = "quiet")]
        file: Option<PathBuf>,
        /// Where the tokens are kept.
        #[command(flatten)]
        state: StateArgs,
    },
    /// List the tokens: id, state, uses left, time left
    List {
        /// Where the tokens are kept.
        #[command(flatten)]
        state: StateArgs,
    },
    /// Refuse a token from now on; workers that joined with it stay
    Revoke {
        /// The token's id, as `token list` shows it
        id: String,
        /// Where the tokens are kept.
        #[command(flatten)]
        state: StateArgs,
    },
}

/// Where the coordinator's state is.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Where the coordinator keeps its keys and tokens
    /// [default: $XDG_STATE_HOME/woolly/coordinator or ~/.local/state/woolly/coordinator]
    #[arg(long, env = "WOOLLY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    within(parse_duration(text)?, Duration::from_secs(1), TTL_MAX, "1s to 3650d")
}
