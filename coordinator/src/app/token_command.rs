//! `token create | list | revoke`: works on the state directory, also while `serve` runs.

use crate::announce::{join_line, stderr_line, stdout_line};
use crate::config::{StateArgs, TokenCommand, state_dir};
use crate::exit::Fatal;
use crate::trust::state::{StateDir, read_bounded};
use crate::trust::tokens::Tokens;
use crate::units::show_duration;
use anyhow::{Context, anyhow};
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::token::TokenId;
use woolly_protocol::token_store::{StoredToken, TokenState};

/// Where workers dial until a `serve` has said otherwise.
const DEFAULT_JOIN_ADDRESS: &str = "127.0.0.1:7400";

/// Runs one token command.
///
/// # Errors
///
/// A wrong id is a usage error; everything else is about the files of the state directory.
pub fn run(command: TokenCommand) -> Result<(), Fatal> {
    match command {
        TokenCommand::Create { ttl, uses, quiet, state } => create(ttl, uses, quiet, state),
        TokenCommand::List { state } => {
            let (_, tokens) = open(state)?;
            let tokens = tokens.list().context("cannot list the join tokens")?;
            stdout_line(table(&tokens, SystemTime::now()).trim_end());
            Ok(())
        }
        TokenCommand::Revoke { id, state } => revoke(&id, state),
    }
}

fn open(state: StateArgs) -> Result<(StateDir, Tokens), Fatal> {
    let state = StateDir::open(state_dir(state.state_dir)?)?;
    let ca = ClusterCa::open(&state.pki(), SystemTime::now())
        .context("cannot open the cluster's certificate authority")?;
    let tokens = Tokens::open(&state, &ca).context("cannot open the join tokens")?;
    Ok((state, tokens))
}

fn create(ttl: Duration, uses: Option<u32>, quiet: bool, state: StateArgs) -> Result<(), Fatal> {
    let (state, tokens) = open(state)?;
    let token = tokens.create(ttl, uses).context("cannot make a join token")?;
    let address = join_address(&state)?;
    if quiet {
        stdout_line(&token);
    } else {
        stdout_line(join_line(&address, &token.to_string()));
        let uses = uses.map_or("any number of workers".to_owned(), |n| format!("{n} worker(s)"));
        stderr_line(format_args!(
            "Token {} is good for {} and {uses}; `token revoke {}` ends it.",
            token.id,
            show_duration(ttl.as_secs()),
            token.id
        ));
    }
    Ok(())
}

/// What the last `serve` told workers to dial.
fn join_address(state: &StateDir) -> anyhow::Result<String> {
    let path = state.join_address();
    let read = read_bounded(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = read.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let plain = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    Ok(text.filter(plain).unwrap_or_else(|| DEFAULT_JOIN_ADDRESS.to_owned()))
}

fn revoke(id: &str, state: StateArgs) -> Result<(), Fatal> {
    let parsed = id.parse::<TokenId>().map_err(|error| Fatal::Usage(anyhow!(error)))?;
    let (_, tokens) = open(state)?;
    if !tokens.revoke(parsed).context("cannot revoke the join token")? {
        return Err(Fatal::Runtime(anyhow!("no join token has the id {id}: see `token list`")));
    }
    stderr_line(format_args!(
        "Token {id} is revoked. Workers that joined with it keep their certificates; \
         `remove WORKER` takes one back."
    ));
    Ok(())
}

/// One line per token, with a head.
fn table(tokens: &[StoredToken], now: SystemTime) -> String {
    let now_seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut text = format!("{:<10} {:<8} {:>9}  {}\n", "ID", "STATE", "USES LEFT", "TIME LEFT");
    for token in tokens {
        let state = match token.state(now) {
            TokenState::Usable => "usable",
            TokenState::Expired => "expired",
            TokenState::UsedUp => "used up",
            TokenState::Revoked => "revoked",
        };
        let uses = token.uses_left.map_or("any".to_owned(), |uses| uses.to_string());
        let left = match token.expires.map(|at| u64::try_from(at).unwrap_or(0)) {
            None => "for ever".to_owned(),
            Some(at) => show_duration(at.saturating_sub(now_seconds)),
        };
        writeln!(text, "{:<10} {state:<8} {uses:>9}  {left}", token.id)
            .expect("a String takes every line");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_the_states_apart() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().to_owned()).unwrap();
        let ca = ClusterCa::open(&state.pki(), SystemTime::now()).unwrap();
        let tokens = Tokens::open(&state, &ca).unwrap();
        let kept = tokens.create(Duration::from_secs(3600), Some(3)).unwrap();
        let revoked = tokens.create(Duration::from_secs(3600), None).unwrap();
        assert!(tokens.revoke(revoked.id).unwrap());
        let now = SystemTime::now();
        let text = table(&tokens.list().unwrap(), now);
        let line = |id: TokenId| text.lines().find(|l| l.starts_with(&id.to_string())).unwrap();
        assert!(line(kept.id).contains("usable") && line(kept.id).contains(" 3 "), "{text}");
        assert!(
            line(revoked.id).contains("revoked") && line(revoked.id).contains(" any "),
            "{text}"
        );
        let later = table(&tokens.list().unwrap(), now + Duration::from_secs(3601));
        assert!(later.contains("expired") && !later.contains("usable"), "{later}");
    }
}
