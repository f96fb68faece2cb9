//! How workers join: the line to paste, as `serve` says it at its start, where they dial, and what opens the door.

use crate::announce::{
    Announcer, host_port, join_line, loopback_hint, outward_address, stdout_line,
};
use crate::config::ServeArgs;
use crate::exit::Fatal;
use crate::trust::join_server::JoinServer;
use crate::trust::renewals::Renewals;
use crate::trust::state::{StateDir, write_private};
use crate::trust::tokens::Tokens;
use anyhow::{Context, anyhow};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use woolly_protocol::join_secret::JoinSecret;
use woolly_protocol::preamble::Preamble;
use woolly_protocol::token_store::TokenStoreError;

/// The lifetime of the token in the printed join line.
const JOIN_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Makes a token and prints the line that joins a worker, alone on stdout, unless they have a join secret;
/// returns what workers dial.
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
    if args.join_secret_file.is_some() {
        // Who starts all at once collects what is printed, too: no token for those who read that.
        announcer.say(format_args!(
            "Workers that have the join secret find this cluster at {address}; for others `woolly-coordinator token \
             create` makes a token"
        ));
        return Ok(address);
    }
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

/// The join secret that the flags name.
///
/// # Errors
///
/// Its file cannot be read, or holds none.
pub fn secret(args: &ServeArgs) -> Result<Option<JoinSecret>, Fatal> {
    let Some(path) = &args.join_secret_file else { return Ok(None) };
    let read = JoinSecret::read(path);
    let (secret, is_open) =
        read.map_err(|error| Fatal::usage(format!("--join-secret-file: {error}")))?;
    if is_open {
        tracing::warn!("others can read the join secret in {}", path.display());
    }
    Ok(Some(secret))
}

/// Lets workers in that have a token, or the secret if there is one.
pub fn server(
    tokens: &Tokens,
    renewals: &Renewals,
    preamble: Preamble,
    secret: Option<&JoinSecret>,
) -> Arc<JoinServer> {
    let (ca, excluded) = (Arc::clone(&renewals.ca), Arc::clone(&renewals.exclusions));
    Arc::new(JoinServer::new(tokens, ca, excluded, preamble).with_secret(secret))
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
