//! How a worker comes by its certificate: from its state directory, or for a join token or a join secret.

use crate::blocking::blocking;
use crate::config::{Config, TOKEN_BYTES_MAX, TokenSource, is_credential};
use crate::convert::preamble;
use crate::peers::dial::{DialFailure, dialling_endpoint};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;
use woolly_protocol::identity::{Identity, IdentityError};
use woolly_protocol::join_secret::{JoinSecret, JoinSecretError};
use woolly_protocol::joining::{JoinError, Ticket, join, join_with_secret};
use woolly_protocol::token::TokenError;

/// What a worker has to show for itself at its start.
#[derive(Debug)]
pub enum Credentials {
    /// A certificate of the cluster that it is to join.
    Certificate(Box<Identity>),
    /// What can be exchanged for one.
    Ticket(Ticket),
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// There is neither certificate nor token.
    #[error(
        "this worker has no certificate in {0} and was given no token: paste the line that the \
         coordinator printed, or make a token with `woolly-coordinator token create`"
    )]
    Nothing(String),
    /// The token or the secret is none.
    #[error("{0}")]
    Ticket(String),
    /// The file with it cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The state directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Reads the token or the secret from where the flags say; stdin has been read already.
///
/// # Errors
///
/// If the file cannot be read, or the text is none.
pub fn ticket(
    config: &Config,
    stdin_line: Option<&str>,
) -> Result<Option<Ticket>, CredentialsError> {
    match &config.token {
        TokenSource::None => Ok(None),
        TokenSource::Given(token) => token_of(token),
        TokenSource::Stdin => token_of(stdin_line.unwrap_or_default()),
        TokenSource::File(path) => token_of(&first_line(path).map_err(|error| {
            let path = path.display();
            CredentialsError::Unreadable(format!("cannot read --token-file {path}: {error}"))
        })?),
        TokenSource::Secret(path) => secret_of(path).map(Some),
    }
}

fn token_of(text: &str) -> Result<Option<Ticket>, CredentialsError> {
    let parsed = match text {
        "" => return Ok(None),
        text => text.parse().map(|token| Some(Ticket::Token(token))),
    };
    parsed.map_err(|error: TokenError| CredentialsError::Ticket(error.to_string()))
}

fn secret_of(path: &Path) -> Result<Ticket, CredentialsError> {
    let (secret, is_open) = JoinSecret::read(path).map_err(|error| {
        let text = format!("--join-secret-file: {error}");
        match error {
            JoinSecretError::File { .. } => CredentialsError::Unreadable(text),
            _ => CredentialsError::Ticket(text),
        }
    })?;
    if is_open {
        tracing::warn!("others can read the join secret in {}", path.display());
    }
    Ok(Ticket::Secret(secret))
}

fn first_line(path: &Path) -> std::io::Result<String> {
    let mut line = String::new();
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 && !is_credential(path) {
        let path = path.display();
        tracing::warn!("others can read the token in {path}; chmod 600 it");
    }
    BufReader::new(file.take(TOKEN_BYTES_MAX)).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Decides what to show: a certificate of the token's cluster, or else the token. A join secret does not say of
/// which cluster it is before one asks: any certificate goes before it. One that has expired will be renewed with
/// the coordinator.
///
/// # Errors
///
/// See [`CredentialsError`].
pub fn credentials(
    state_dir: &Path,
    ticket: Option<Ticket>,
    now: SystemTime,
) -> Result<Credentials, CredentialsError> {
    let saved = match (Identity::load(state_dir, now), &ticket) {
        (Ok(saved), _) => saved,
        // A new token is the remedy that this error names.
        (Err(IdentityError::Invalid { .. }), Some(_)) => None,
        (Err(error), _) => return Err(error.into()),
    };
    match (saved, ticket) {
        (Some(identity), None | Some(Ticket::Secret(_))) => {
            Ok(Credentials::Certificate(Box::new(identity)))
        }
        (Some(identity), Some(Ticket::Token(token))) if identity.ca_pin() == token.pin => {
            Ok(Credentials::Certificate(Box::new(identity)))
        }
        (_, Some(ticket)) => Ok(Credentials::Ticket(ticket)),
        (None, None) => Err(CredentialsError::Nothing(state_dir.display().to_string())),
    }
}

/// Exchanges a token or a secret for a certificate and keeps it in the state directory.
///
/// # Errors
///
/// See [`DialFailure`]; a state directory that cannot be written is reported as such.
pub async fn exchange(
    ticket: &Ticket,
    coordinator: SocketAddr,
    config: &Config,
) -> Result<Identity, DialFailure> {
    let (endpoint, _) = dialling_endpoint(coordinator)?;
    let (name, ours) = (config.name.as_str(), preamble());
    let (joined, hint) = match ticket {
        Ticket::Token(token) => (
            join(&endpoint, coordinator, token, name, &ours).await,
            "the token is of another cluster than the coordinator",
        ),
        Ticket::Secret(secret) => (
            join_with_secret(&endpoint, coordinator, secret, name, &ours).await,
            "the same --join-secret-file was not given to the coordinator",
        ),
    };
    let identity = match joined {
        Ok(identity) => identity,
        Err(JoinError::Dial(error)) => {
            return Err(match DialFailure::from(error) {
                DialFailure::Untrusted(text) => {
                    DialFailure::Untrusted(format!("{text}: {hint} at {coordinator}"))
                }
                failure => failure,
            });
        }
        Err(error) => return Err(error.into()),
    };
    let dir = config.state_dir.clone();
    let (saved, identity) = blocking(move || (identity.save(&dir), identity)).await;
    saved.map_err(|error| DialFailure::Untrusted(error.to_string()))?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_protocol::ca::ClusterCa;
    use woolly_protocol::identity::SigningRequest;
    use woolly_protocol::token::JoinToken;

    fn joined(ca: &ClusterCa, dir: &Path) -> Identity {
        let request = SigningRequest::new().unwrap();
        let (_, answer) = ca.sign(request.der(), SystemTime::now()).unwrap();
        let identity = request.complete(&answer, &ca.pin(), SystemTime::now()).unwrap();
        identity.save(dir).unwrap();
        identity
    }

    #[test]
    fn a_certificate_needs_no_token_and_another_clusters_token_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let ca = ClusterCa::open(&dir.path().join("a"), now).unwrap();
        let other = ClusterCa::open(&dir.path().join("b"), now).unwrap();
        let state = dir.path().join("worker");
        assert!(matches!(credentials(&state, None, now), Err(CredentialsError::Nothing(_))));
        let token = JoinToken::random(ca.pin()).to_string();
        let secret = Ticket::Secret("0123456789abcdef0123456789abcdef".parse().unwrap());
        for ticket in [token_of(&token).unwrap(), Some(secret.clone())] {
            let found = credentials(&state, ticket.clone(), now).unwrap();
            assert!(matches!(found, Credentials::Ticket(_)), "{ticket:?}");
        }
        joined(&ca, &state);
        for ticket in [token_of("").unwrap(), token_of(&token).unwrap(), Some(secret)] {
            let found = credentials(&state, ticket.clone(), now).unwrap();
            assert!(matches!(found, Credentials::Certificate(_)), "{ticket:?}");
        }
        let foreign = token_of(&JoinToken::random(other.pin()).to_string()).unwrap();
        assert!(matches!(credentials(&state, foreign, now), Ok(Credentials::Ticket(_))));
        let cut = &token[..token.len() - 3];
        assert!(matches!(token_of(cut), Err(CredentialsError::Ticket(_))));
    }

    #[test]
    fn a_damaged_certificate_is_told_or_replaced_by_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let ca = ClusterCa::open(&dir.path().join("a"), now).unwrap();
        let state = dir.path().join("worker");
        joined(&ca, &state);
        let file = state.join(woolly_protocol::identity::WORKER_FILE);
        std::fs::write(&file, "nonsense").unwrap();
        assert!(matches!(credentials(&state, None, now), Err(CredentialsError::Identity(_))));
        let token = token_of(&JoinToken::random(ca.pin()).to_string()).unwrap();
        assert!(matches!(credentials(&state, token, now), Ok(Credentials::Ticket(_))));
    }
}
