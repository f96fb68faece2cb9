//! `token create | list | revoke`: works on the state directory, also while `serve` runs.

use crate::announce::{join_line, stderr_line, stdout_line};
use crate::config::{StateArgs, TokenCommand, state_dir};
use crate::exit::Fatal;
use crate::trust::state::{StateDir, read_bounded, write_private};
use crate::trust::tokens::Tokens;
use crate::units::show_duration;
use anyhow::{Context, anyhow};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::token::{JoinToken, TokenId};
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
        TokenCommand::Create { ttl, uses, quiet: _, file: Some(file), state } => {
            create_in_file(ttl, uses, &file, state)
        }
        TokenCommand::Create { ttl, uses, quiet, file: None, state } => {
            create(ttl, uses, quiet, state)
        }
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

/// For those who cannot paste: workers that are started together with their coordinator, as in a compose file.
fn create_in_file(
    ttl: Duration,
    uses: Option<u32>,
    file: &Path,
    state: StateArgs,
) -> Result<(), Fatal> {
    let (_, tokens) = open(state)?;
    let shown = file.display();
    if let Some(kept) = good_token_in(file, &tokens)? {
        stderr_line(format_args!("{shown} holds token {kept}, which is still good: it stays."));
        return Ok(());
    }
    let token = tokens.create(ttl, uses).context("cannot make a join token")?;
    write_private(file, format!("{token}\n").as_bytes())
        .with_context(|| format!("cannot write {shown}"))?;
    let id = token.id;
    stderr_line(format_args!("Token {id} is in {shown}; `token revoke {id}` ends it."));
    Ok(())
}

/// The token in a file, if workers can join this cluster with it.
fn good_token_in(file: &Path, tokens: &Tokens) -> anyhow::Result<Option<TokenId>> {
    let bytes = read_bounded(file).with_context(|| format!("cannot read {}", file.display()))?;
    let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let token: Option<JoinToken> = text.and_then(|text| text.parse().ok());
    let Some(token) = token.filter(|token| token.pin == tokens.pin()) else { return Ok(None) };
    let known = tokens.list().context("cannot list the join tokens")?;
    let now = SystemTime::now();
    let is_good = |stored: &StoredToken| {
        stored.id == token.id && matches!(stored.state(now), TokenState::Usable)
    };
    Ok(known.iter().any(is_good).then_some(token.id))
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
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn a_token_in_a_file_stays_as_long_as_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        let args = || StateArgs { state_dir: Some(root.clone()) };
        let file = dir.path().join("join-token");
        let make = || {
            create_in_file(Duration::from_secs(3600), None, &file, args()).unwrap();
            std::fs::read_to_string(&file).unwrap()
        };
        let first = make();
        assert_eq!(make(), first);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let id = first.trim().parse::<JoinToken>().unwrap().id;
        revoke(&id.to_string(), args()).unwrap();
        let second = make();
        assert_ne!(second, first);
        // One of a cluster that is no more.
        std::fs::remove_dir_all(&root).unwrap();
        assert_ne!(make(), second);
        std::fs::write(&file, "no token").unwrap();
        assert!(make().starts_with("wly1."));
    }
}
