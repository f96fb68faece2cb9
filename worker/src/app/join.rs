//! How a worker comes by its certificate: from its state directory, or for a join token.

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
use woolly_protocol::joining::{JoinError, join};
use woolly_protocol::token::JoinToken;

/// What a worker has to show for itself at its start.
#[derive(Debug)]
pub enum Credentials {
    /// A certificate of the cluster that it is to join.
    Certificate(Box<Identity>),
    /// A token to be exchanged for one.
    Token(JoinToken),
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
    /// The token is not one.
    #[error("{0}")]
    Token(String),
    /// The state directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Reads the token's text from where the flags say; stdin has been read already.
///
/// # Errors
///
/// If the file cannot be read.
pub fn token_text(config: &Config, stdin_line: Option<&str>) -> Result<String, CredentialsError> {
    match &config.token {
        TokenSource::None => Ok(String::new()),
        TokenSource::Given(token) => Ok(token.clone()),
        TokenSource::Stdin => Ok(stdin_line.unwrap_or_default().to_owned()),
        TokenSource::File(path) => first_line(path).map_err(|error| {
            CredentialsError::Token(format!("cannot read --token-file {}: {error}", path.display()))
        }),
    }
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

/// Decides what to show: a certificate of the token's cluster, or else the token. One that has expired will be
/// renewed with the coordinator.
///
/// # Errors
///
/// See [`CredentialsError`].
pub fn credentials(
    state_dir: &Path,
    token: &str,
    now: SystemTime,
) -> Result<Credentials, CredentialsError> {
    let token: Option<JoinToken> = match token {
        "" => None,
        text => Some(text.parse().map_err(|error| CredentialsError::Token(format!("{error}")))?),
    };
    let saved = match (Identity::load(state_dir, now), &token) {
        (Ok(saved), _) => saved,
        // A new token is the remedy that this error names.
        (Err(IdentityError::Invalid { .. }), Some(_)) => None,
        (Err(error), _) => return Err(error.into()),
    };
    match (saved, token) {
        (Some(identity), None) => Ok(Credentials::Certificate(Box::new(identity))),
        (Some(identity), Some(token)) if identity.ca_pin() == token.pin => {
            Ok(Credentials::Certificate(Box::new(identity)))
        }
        (_, Some(token)) => Ok(Credentials::Token(token)),
        (None, None) => Err(CredentialsError::Nothing(state_dir.display().to_string())),
    }
}

/// Exchanges the token for a certificate and keeps it in the state directory.
///
/// # Errors
///
/// See [`DialFailure`]; a state directory that cannot be written is reported as such.
pub async fn exchange(
    token: &JoinToken,
    coordinator: SocketAddr,
    config: &Config,
) -> Result<Identity, DialFailure> {
    let (endpoint, _) = dialling_endpoint(coordinator)?;
    let identity = match join(&endpoint, coordinator, token, &config.name, &preamble()).await {
        Ok(identity) => identity,
        Err(JoinError::Dial(error)) => {
            return Err(match DialFailure::from(error) {
                DialFailure::Untrusted(text) => DialFailure::Untrusted(format!(
                    "{text}: the token is of another cluster than the coordinator at {coordinator}"
                )),
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
        assert!(matches!(credentials(&state, "", now), Err(CredentialsError::Nothing(_))));
        let token = JoinToken::random(ca.pin()).to_string();
        assert!(matches!(credentials(&state, &token, now), Ok(Credentials::Token(_))));
        joined(&ca, &state);
        for text in ["", &token] {
            let found = credentials(&state, text, now).unwrap();
            assert!(matches!(found, Credentials::Certificate(_)), "{text}");
        }
        let foreign = JoinToken::random(other.pin()).to_string();
        assert!(matches!(credentials(&state, &foreign, now), Ok(Credentials::Token(_))));
        let cut = &token[..token.len() - 3];
        assert!(matches!(credentials(&state, cut, now), Err(CredentialsError::Token(_))));
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
        assert!(matches!(credentials(&state, "", now), Err(CredentialsError::Identity(_))));
        let token = JoinToken::random(ca.pin()).to_string();
        assert!(matches!(credentials(&state, &token, now), Ok(Credentials::Token(_))));
    }
}
