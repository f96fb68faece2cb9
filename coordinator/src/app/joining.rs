//! How workers join, as `serve` says it at its start: the line to paste, and where they dial.

use crate::announce::{
    Announcer, host_port, join_line, loopback_hint, outward_address, stdout_line,
};
use crate::config::ServeArgs;
use crate::exit::Fatal;
use crate::trust::state::{StateDir, write_private};
use crate::trust::tokens::Tokens;
use anyhow::{Context, anyhow};
use std::net::SocketAddr;
use std::time::Duration;
use woolly_protocol::token_store::TokenStoreError;

/// The lifetime of the token in the printed join line.
const JOIN_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Makes a token and prints the line that joins a worker, alone on stdout; returns what workers dial.
///
/// # Errors
///
/// This machine's address cannot be found, or the state directory cannot be written.
pub fn announce(
    args: &ServeArgs,
    state: &StateDir,
    tokens: &Tokens,
    listen: SocketAddr,
    announcer: Announcer,
) -> Result<String, Fatal> {
    let address = address(args, listen)?;
    let path = state.join_address();
    write_private(&path, format!("{address}\n").as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    announcer.say("To add a worker, run this where it is to compute (the token is a secret):");
    match tokens.create(JOIN_TOKEN_TTL, None) {
        Ok(token) => stdout_line(join_line(&address, &token.to_string())),
        // Those that are there can be used: no reason not to serve.
        Err(error @ TokenStoreError::Full) => tracing::warn!("no join line: {error}"),
        Err(error) => return Err(Fatal::from(anyhow!(error).context("no join token"))),
    }
    let guessed = listen.ip().is_unspecified() && args.advertise.is_none();
    if guessed {
        announcer.say(format_args!(
            "Workers dial {address}, which this machine calls its own; --advertise names \
             another address"
        ));
    } else if let Some(hint) = loopback_hint(listen) {
        announcer.say(hint);
    }
    Ok(address)
}

/// `HOST:PORT` that workers dial.
fn address(args: &ServeArgs, listen: SocketAddr) -> Result<String, Fatal> {
    if let Some(advertise) = &args.advertise {
        return Ok(host_port(&advertise.host, advertise.port.unwrap_or(listen.port())));
    }
    let mut ip = listen.ip();
    if ip.is_unspecified() {
        ip = outward_address(listen).context(
            "cannot find out this machine's address: say what workers dial with --advertise",
        )?;
    }
    Ok(host_port(&ip.to_string(), listen.port()))
}
