//! The coordinator's join tokens: one small file that `serve` and `token` share.
//!
//! Every call locks, reads, and if it changes something replaces the file, so that a token made or
//! revoked on the command line counts at once. Secrets are kept as hashes. The calls block for as
//! long as a small file takes; on an async runtime they belong on a blocking thread.

use crate::certificate::KeyPin;
use crate::clock::unix_seconds;
use crate::files::{self, FileError};
use crate::refusal::{Refusal, RefusalCode};
use crate::token::{JoinToken, TokenId, hash_of_text};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use subtle::ConstantTimeEq;

/// The file in the coordinator's state directory.
pub const TOKEN_FILE: &str = "tokens";
const TOKEN_LOCK_FILE: &str = "tokens.lock";
const FIRST_LINE: &str = "woolly-tokens 1";
/// Tokens that a store holds at most.
pub const TOKENS_MAX: usize = 10_000;
/// A token that cannot be used any more is forgotten this long after it was made.
const KEEP_SECONDS: i64 = 30 * 24 * 3600;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenStoreError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{}, line {line}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// There are too many tokens.
    #[error("there are {TOKENS_MAX} join tokens already: revoke some")]
    Full,
}

/// Whether a token can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// A worker can join with it.
    Usable,
    /// Its time is over.
    Expired,
    /// It has no uses left.
    UsedUp,
    /// It was revoked.
    Revoked,
}

/// How long and how often a token can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenOptions {
    /// From now; for ever if `None`.
    pub lifetime: Option<Duration>,
    /// Workers that can join with it; any number if `None`.
    pub uses: Option<u32>,
}

/// What the store knows of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// Its public name.
    pub id: TokenId,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// The first second in which it is not valid any more, since 1970.
    pub expires: Option<i64>,
    /// Workers that can still join with it.
    pub uses_left: Option<u32>,
    /// Whether it was revoked.
    pub revoked: bool,
    hash: [u8; 32],
}

impl StoredToken {
    /// Whether it can be used.
    pub fn state(&self, now: SystemTime) -> TokenState {
        if self.revoked {
            TokenState::Revoked
        } else if self.uses_left == Some(0) {
            TokenState::UsedUp
        } else if self.expires.is_some_and(|expires| unix_seconds(now) >= expires) {
            TokenState::Expired
        } else {
            TokenState::Usable
        }
    }

    fn to_line(&self) -> String {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let hash = blake3::Hash::from_bytes(self.hash).to_hex();
        let expires = or_dash(self.expires.map(|expires| expires.to_string()));
        let uses = or_dash(self.uses_left.map(|uses| uses.to_string()));
        let state = if self.revoked { "revoked" } else { "valid" };
        format!("{} {hash} {} {expires} {uses} {state}", self.id, self.created)
    }

    fn from_line(line: &str) -> Option<Self> {
        let parts: Vec<&str> = line.split(' ').collect();
        let [id, hash, created, expires, uses, state] = parts[..] else { return None };
        Some(Self {
            id: id.parse().ok()?,
            created: created.parse().ok()?,
            expires: if expires == "-" { None } else { Some(expires.parse().ok()?) },
            uses_left: if uses == "-" { None } else { Some(uses.parse().ok()?) },
            revoked: match state {
                "revoked" => true,
                "valid" => false,
                _ => return None,
            },
            hash: *blake3::Hash::from_hex(hash).ok()?.as_bytes(),
        })
    }
}

/// The tokens of one coordinator.
#[derive(Clone, Debug)]
pub struct TokenStore {
    path: PathBuf,
    lock: PathBuf,
}

impl TokenStore {
    /// The store in a state directory; the directory is made if need be.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made, or the file in it is not readable or broken.
    pub fn open(dir: &Path) -> Result<Self, TokenStoreError> {
        files::create_private_dir(dir)?;
        let store = Self { path: dir.join(TOKEN_FILE), lock: dir.join(TOKEN_LOCK_FILE) };
        store.list()?;
        Ok(store)
    }

    /// Makes a token for the cluster whose CA has this pin. Its secret is in the answer only.
    ///
    /// # Errors
    ///
    /// If the file cannot be used, or [`TokenStoreError::Full`].
    pub fn create(
        &self,
        pin: KeyPin,
        options: TokenOptions,
        now: SystemTime,
    ) -> Result<JoinToken, TokenStoreError> {
        let _lock = files::lock(&self.lock)?;
        let mut tokens = self.read()?;
        let second = unix_seconds(now);
        tokens.retain(|token| {
            token.state(now) == TokenState::Usable || token.created > second - KEEP_SECONDS
        });
        if tokens.len() >= TOKENS_MAX {
            // Why a dead token is dead is worth less than a new one.
            tokens.retain(|token| token.state(now) == TokenState::Usable);
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenStoreError::Full);
        }
        let mut token = JoinToken::random(pin);
        while tokens.iter().any(|other| other.id == token.id) {
            token = JoinToken::random(pin);
        }
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        tokens.push(StoredToken {
            id: token.id,
            created: second,
            expires: options.lifetime.map(|time| second.saturating_add(seconds(time))),
            uses_left: options.uses,
            revoked: false,
            hash: token.secret_hash(),
        });
        self.write(&tokens)?;
        Ok(token)
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    ///
    /// If the file cannot be used.
    pub fn list(&self) -> Result<Vec<StoredToken>, TokenStoreError> {
        let _lock = files::lock(&self.lock)?;
        self.read()
    }

    /// Revokes a token; `false` if there is none with this id.
    ///
    /// # Errors
    ///
    /// If the file cannot be used.
    pub fn revoke(&self, id: TokenId) -> Result<bool, TokenStoreError> {
        let _lock = files::lock(&self.lock)?;
        let mut tokens = self.read()?;
        let Some(token) = tokens.iter_mut().find(|token| token.id == id) else { return Ok(false) };
        token.revoked = true;
        self.write(&tokens)?;
        Ok(true)
    }

    /// Uses a token once: id and secret as in `JoinRequest`.
    ///
    /// # Errors
    ///
    /// The inner error is what the worker is told. Only who knows the secret learns why a token
    /// that exists cannot be used.
    pub fn redeem(
        &self,
        id: &str,
        secret: &str,
        now: SystemTime,
    ) -> Result<Result<TokenId, Refusal>, TokenStoreError> {
        let _lock = files::lock(&self.lock)?;
        let mut tokens = self.read()?;
        let hash = hash_of_text(secret).unwrap_or_default();
        let Some(token) = tokens.iter_mut().find(|token| {
            token.id.to_string() == id && bool::from(token.hash[..].ct_eq(&hash[..]))
        }) else {
            return Ok(Err(refusal(RefusalCode::TokenWrong)));
        };
        let (found, code) = (
            token.id,
            match token.state(now) {
                TokenState::Usable => None,
                TokenState::Expired => Some(RefusalCode::TokenExpired),
                TokenState::UsedUp => Some(RefusalCode::TokenUsedUp),
                TokenState::Revoked => Some(RefusalCode::TokenRevoked),
            },
        );
        if let Some(code) = code {
            return Ok(Err(refusal(code)));
        }
        if let Some(uses) = &mut token.uses_left {
            *uses -= 1;
            self.write(&tokens)?;
        }
        Ok(Ok(found))
    }

    fn read(&self) -> Result<Vec<StoredToken>, TokenStoreError> {
        let Some(text) = files::read(&self.path)? else { return Ok(Vec::new()) };
        let invalid =
            |line, problem| TokenStoreError::Invalid { path: self.path.clone(), line, problem };
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(invalid(1, "not a token file of this version of Woolly"));
        }
        let tokens = lines.enumerate().map(|(at, line)| {
            StoredToken::from_line(line).ok_or_else(|| invalid(at + 2, "not a token"))
        });
        tokens.collect()
    }

    fn write(&self, tokens: &[StoredToken]) -> Result<(), TokenStoreError> {
        let mut text = format!("{FIRST_LINE}\n");
        for token in tokens {
            text.push_str(&token.to_line());
            text.push('\n');
        }
        Ok(files::replace(&self.path, &text)?)
    }
}

fn refusal(code: RefusalCode) -> Refusal {
    let problem = match code {
        RefusalCode::TokenExpired => "the join token has expired",
        RefusalCode::TokenUsedUp => "the join token has been used as often as it may be",
        RefusalCode::TokenRevoked => "the join token was revoked",
        _ => "the coordinator does not know this join token",
    };
    let hint = "make a new one with `woolly-coordinator token create` on the coordinator";
    Refusal::new(code, &format!("{problem}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_forgets_tokens_that_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = TokenStore::open(dir.path()).unwrap();
        let now = SystemTime::now();
        store.create([1; 32], TokenOptions::default(), now).unwrap();
        let mut tokens = vec![store.list().unwrap().remove(0); TOKENS_MAX];
        store.write(&tokens).unwrap();
        let full = store.create([1; 32], TokenOptions::default(), now);
        assert!(matches!(full, Err(TokenStoreError::Full)), "{full:?}");
        tokens[7].revoked = true;
        store.write(&tokens).unwrap();
        store.create([1; 32], TokenOptions::default(), now).unwrap();
        assert_eq!(store.list().unwrap().len(), TOKENS_MAX);
    }
}
