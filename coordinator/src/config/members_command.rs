//! The words of `remove`, `ban` and `allow`: who may belong to a running server's cluster.

use super::StateArgs;
use clap::Args;

/// The flags of `remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name or id, as `workers` shows them; it need not be connected
    pub worker: String,
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// The flags of `ban`.
#[derive(Debug, Args)]
pub struct BanArgs {
    /// Its name or id, as `workers` shows them; it need not be connected
    pub worker: String,
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// The flags of `allow`.
#[derive(Debug, Args)]
pub struct AllowArgs {
    /// The name or the machine of a ban, as `workers` lists them
    #[arg(value_name = "NAME|MACHINE")]
    pub who: String,
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}
