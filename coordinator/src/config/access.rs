//! Flags about who may use the API, how much at a time and for how long.

use super::{is_credential, within};
use crate::exit::Fatal;
use crate::http::server::keys::ApiKeys;
use crate::units::parse_duration;
use anyhow::Context;
use clap::Args;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// What a client has to send, as a shell writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CurlKey {
    /// No key is asked for.
    None,
    /// A key of this file: the shell takes the first.
    OfFile(String),
    /// A key that was given on the command line or by the environment: whoever asks knows it.
    OfVariable,
}

/// API keys at most: fairness counts per key.
const KEYS_MAX: usize = 10_000;
/// Bytes of a key.
const KEY_LEN_MAX: usize = 512;
/// Bytes of a file of keys.
const KEY_FILE_MAX: u64 = 8 << 20;
/// The longest time that a request may be given.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Who may use the API, how much at a time and for how long.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// A key that clients must send (Authorization: Bearer KEY); may be given several times, or
    /// separated by commas. Other users of this machine can see it: --api-key-file hides it
    #[arg(long, env = "WOOLLY_API_KEY", value_name = "KEY", value_delimiter = ',')]
    #[arg(value_parser = parse_key, hide_env_values = true)]
    pub api_key: Vec<String>,
    /// A file with one such key per line; empty lines and lines that begin with # do not count
    #[arg(long, env = "WOOLLY_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// How many requests of one API key may wait and run at a time, each prompt of a request
    /// counted; without keys, how many of all [default: no limit of its own]
    #[arg(long, env = "WOOLLY_KEY_CONCURRENCY", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub key_concurrency: Option<u32>,
    /// How long a request may take, waiting included: 1s to 7d. It then ends with an error
    /// [default: as long as it takes]
    #[arg(long, env = "WOOLLY_REQUEST_TIMEOUT", value_name = "TIME")]
    #[arg(value_parser = parse_request_timeout)]
    pub request_timeout: Option<Duration>,
}

/// Keys are not printed.
impl std::fmt::Debug for AccessArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = format_args!("{} keys", self.api_key.len()).to_string();
        f.debug_struct("AccessArgs")
            .field("api_key", &keys)
            .field("api_key_file", &self.api_key_file)
            .field("key_concurrency", &self.key_concurrency)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

impl AccessArgs {
    /// How the printed example comes by a key.
    pub fn curl_key(&self) -> CurlKey {
        match &self.api_key_file {
            Some(path) => CurlKey::OfFile(path.display().to_string()),
            None if self.api_key.is_empty() => CurlKey::None,
            None => CurlKey::OfVariable,
        }
    }

    /// All keys, those of the file included.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that holds what is no key, or no key at all: nobody names a file
    /// to let everyone in.
    pub fn keys(&self) -> Result<ApiKeys, Fatal> {
        let mut keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let shown = path.display();
            let metadata = std::fs::metadata(path)
                .with_context(|| format!("cannot read the API keys in {shown}"))?;
            if metadata.len() > KEY_FILE_MAX {
                return Err(Fatal::usage(format!("{shown} is too long for a file of API keys")));
            }
            if is_open_to_others(&metadata) && !is_credential(path) {
                tracing::warn!(
                    "{shown} holds API keys and others on this machine may read it: chmod 600 it"
                );
            }
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the API keys in {shown}"))?;
            let before = keys.len();
            keys.extend(keys_of(&text).map_err(|error| Fatal::usage(format!("{shown}: {error}")))?);
            if keys.len() == before {
                return Err(Fatal::usage(format!("{shown} holds no API key")));
            }
        }
        if keys.len() > KEYS_MAX {
            return Err(Fatal::usage(format!("{} API keys are more than {KEYS_MAX}", keys.len())));
        }
        Ok(ApiKeys::new(keys.iter().map(String::as_str)))
    }
}

/// Whether others than its owner may read a file; a pipe or a device has no mode that says it.
fn is_open_to_others(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o077 != 0
}

fn keys_of(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).zip(1..);
    lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| parse_key(line).map_err(|error| format!("line {number}: {error}")))
        .collect()
}

fn parse_key(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=KEY_LEN_MAX).contains(&text.len()) || !plain {
        return Err(format!("expected 1 to {KEY_LEN_MAX} printable ASCII characters, no spaces"));
    }
    Ok(text.to_owned())
}

fn parse_request_timeout(text: &str) -> Result<Duration, String> {
    within(parse_duration(text)?, Duration::from_secs(1), REQUEST_TIMEOUT_MAX, "1s to 7d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_that_others_may_read_is_noticed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, open) in [(0o600, false), (0o400, false), (0o640, true), (0o644, true)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let metadata = std::fs::metadata(file.path()).unwrap();
            assert_eq!(is_open_to_others(&metadata), open, "{mode:o}");
        }
    }

    #[test]
    fn a_file_of_keys() {
        assert_eq!(keys_of("# team\n\n sk-a \nsk-b\r\n").unwrap(), ["sk-a", "sk-b"]);
        assert!(keys_of("sk-a\nsk b\n").unwrap_err().starts_with("line 2: "));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = Some(file.path().to_owned());
        let args = AccessArgs { api_key_file: path, ..AccessArgs::default() };
        assert!(args.keys().unwrap_err().to_string().contains("holds no API key"));
        std::fs::write(file.path(), "sk-a\n").unwrap();
        assert!(!args.keys().unwrap().is_empty());
        let missing = Some(file.path().join("missing"));
        let args = AccessArgs { api_key_file: missing, ..AccessArgs::default() };
        assert!(args.keys().is_err());
    }

    #[test]
    fn keys_are_not_printed() {
        let args = AccessArgs { api_key: vec!["sk-secret".to_owned()], ..AccessArgs::default() };
        assert!(!format!("{args:?} {:?}", args.keys().unwrap()).contains("secret"));
    }
}
