//! What a worker shows to be let in, as typed: a join token, or a join secret.

use clap::Args;
use std::fmt;
use std::path::PathBuf;
use woolly_protocol::hidden::Hidden;

/// A join token, or a join secret.
#[derive(Args, Clone, Debug)]
pub struct CredentialArgs {
    /// The join token that the coordinator printed; `-` reads it as one line from stdin. Not needed
    /// when the state directory holds a certificate of this cluster. Others can see a token on the
    /// command line: prefer the variable or --token-file on shared machines
    #[arg(long, value_name = "TOKEN", env = "WOOLLY_TOKEN", hide_env_values = true)]
    pub token: Option<Hidden>,
    /// A file whose first line is the join token
    #[arg(long, value_name = "FILE", env = "WOOLLY_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// A file whose first line is the join secret that the coordinator was given, too: for systems that
    /// start all at once, instead of a token
    #[arg(long, value_name = "FILE", env = "WOOLLY_JOIN_SECRET_FILE")]
    #[arg(conflicts_with_all = ["token", "token_file"])]
    pub join_secret_file: Option<PathBuf>,
}

/// Where the join token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// No token: the state directory must hold a certificate.
    None,
    /// The token itself.
    Given(String),
    /// The first line of this file.
    File(PathBuf),
    /// The first line of stdin.
    Stdin,
    /// None: the first line of this file is the join secret.
    Secret(PathBuf),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenSource::None => f.write_str("None"),
            TokenSource::Given(_) => f.write_str("Given(…)"),
            TokenSource::File(path) => write!(f, "File({})", path.display()),
            TokenSource::Stdin => f.write_str("Stdin"),
            TokenSource::Secret(path) => write!(f, "Secret({})", path.display()),
        }
    }
}

impl CredentialArgs {
    /// Where the token or the secret comes from; a child's stands in its stdin.
    pub fn source(&self, child: bool) -> TokenSource {
        // A child is handed its own token; one in the environment was meant for somebody else.
        let token = self.token.as_ref().map(|token| token.reveal().trim());
        if child || token == Some("-") {
            return TokenSource::Stdin;
        }
        match (token, &self.token_file, &self.join_secret_file) {
            (Some(token), _, _) if !token.is_empty() => TokenSource::Given(token.to_owned()),
            (_, Some(file), _) => TokenSource::File(file.clone()),
            (_, _, Some(file)) => TokenSource::Secret(file.clone()),
            _ => TokenSource::None,
        }
    }
}
