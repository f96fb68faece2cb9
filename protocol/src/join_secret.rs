//! Join secrets: one text that coordinator and workers are given alike from outside, before the cluster is there.
//!
//! A join token carries the pin of the CA, so it can be made only where the CA is. Systems that start everything
//! at once, such as a Helm chart, can give a random text to all instead. From it and the pin of a CA both sides
//! derive
//!
//! * a *proof*, which the coordinator's certificate carries beside the CA: only who knows the secret can make one,
//!   and it fits no other CA, so that a worker knows the cluster before it shows anything;
//! * a *token* of that CA, with which the worker joins as with any other one. It stands in no file.
//!
//! Whoever dials the coordinator sees the proof and can try guesses against it: the text must be random. It is no
//! password; 32 characters are the least, and each guess costs `ROUNDS` hashes. Whoever has the secret can join, and
//! can pose as the coordinator to workers that have not joined yet.

use crate::certificate::KeyPin;
use crate::token::{JoinToken, TOKEN_PREFIX};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Characters of a secret.
pub const SECRET_CHARACTERS: RangeInclusive<usize> = 32..=512;
/// Different characters of a secret at least: tells a random text from one that is only long.
const DIFFERENT_MIN: usize = 8;
/// Hashes from the text to the key, one after the other: about a tenth of a second, once at the start of a program.
const ROUNDS: u32 = 1 << 20;
/// Bytes of a file that are read at most.
const FILE_BYTES_MAX: u64 = 4096;

/// What all who may join know. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret {
    key: [u8; 32],
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(…)")
    }
}

/// Why a text is no join secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinSecretError {
    /// Too short or too long.
    #[error(
        "a join secret has {least} to {most} characters, and this has {0}: `openssl rand -hex 32` prints one",
        least = SECRET_CHARACTERS.start(), most = SECRET_CHARACTERS.end()
    )]
    Length(usize),
    /// Characters that a copy may lose.
    #[error("a join secret is printable ASCII without spaces: `openssl rand -hex 32` prints one")]
    Characters,
    /// Long, but easy to guess.
    #[error("a join secret must be random, and this is not: `openssl rand -hex 32` prints one")]
    Guessable,
    /// A token.
    #[error("this is a join token and no join secret: give it with --token-file to workers only")]
    Token,
    /// The file cannot be read.
    #[error("cannot read the join secret in {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: String,
    },
}

impl FromStr for JoinSecret {
    type Err = JoinSecretError;

    /// Reads a secret; white space around it does not matter.
    fn from_str(text: &str) -> Result<Self, JoinSecretError> {
        let text = text.trim();
        if text.starts_with(TOKEN_PREFIX) {
            return Err(JoinSecretError::Token);
        }
        if !SECRET_CHARACTERS.contains(&text.chars().count()) {
            return Err(JoinSecretError::Length(text.chars().count()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(JoinSecretError::Characters);
        }
        let mut different = text.as_bytes().to_vec();
        different.sort_unstable();
        different.dedup();
        if different.len() < DIFFERENT_MIN {
            return Err(JoinSecretError::Guessable);
        }
        let first = blake3::derive_key("woolly join secret 1", text.as_bytes());
        let key = (0..ROUNDS).fold(first, |key, _| *blake3::hash(&key).as_bytes());
        Ok(Self { key })
    }
}

impl JoinSecret {
    /// The first line of a file. The second value says that every user of the machine can read it. Blocks.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no secret.
    pub fn read(path: &Path) -> Result<(Self, bool), JoinSecretError> {
        let fail = |error: std::io::Error| JoinSecretError::File {
            path: path.to_owned(),
            error: error.to_string(),
        };
        let file = File::open(path).map_err(fail)?;
        let is_open = file.metadata().map_err(fail)?.permissions().mode() & 0o007 != 0;
        let mut line = String::new();
        BufReader::new(file.take(FILE_BYTES_MAX)).read_line(&mut line).map_err(fail)?;
        Ok((line.parse()?, is_open))
    }

    /// What says that the CA with this pin is of those who know the secret. No secret itself.
    pub fn proof(&self, pin: &KeyPin) -> [u8; 32] {
        let key = blake3::derive_key("woolly join secret proof 1", &self.key);
        *blake3::keyed_hash(&key, pin).as_bytes()
    }

    /// The token of the cluster whose CA has this pin.
    pub fn token(&self, pin: KeyPin) -> JoinToken {
        let mut derive = blake3::Hasher::new_derive_key("woolly join secret token 1");
        derive.update(&self.key).update(&pin);
        JoinToken::derived(pin, &derive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

    #[test]
    fn both_sides_derive_the_same_and_others_do_not() {
        let secret: JoinSecret = TEXT.parse().unwrap();
        let same: JoinSecret = format!("  {TEXT}\n").parse().unwrap();
        let other: JoinSecret = TEXT.replace('0', "1").parse().unwrap();
        assert_eq!(secret.proof(&[1; 32]), same.proof(&[1; 32]));
        assert_ne!(secret.proof(&[1; 32]), secret.proof(&[2; 32]));
        assert_ne!(secret.proof(&[1; 32]), other.proof(&[1; 32]));
        let token = secret.token([1; 32]);
        assert_eq!(token, same.token([1; 32]));
        assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token.clone()));
        let (of_other, elsewhere) = (other.token([1; 32]), secret.token([2; 32]));
        assert!(token.id != of_other.id && token.secret() != of_other.secret());
        assert!(token.id != elsewhere.id && token.secret() != elsewhere.secret());
        assert_eq!(format!("{secret:?}"), "JoinSecret(…)");
    }

    #[test]
    fn what_can_be_guessed_or_is_something_else_is_refused() {
        let wrong = |text: &str| text.parse::<JoinSecret>().unwrap_err();
        assert_eq!(wrong("short"), JoinSecretError::Length(5));
        assert_eq!(wrong(&"ab".repeat(300)), JoinSecretError::Length(600));
        assert_eq!(wrong(&"abcdefg".repeat(6)), JoinSecretError::Guessable);
        assert_eq!(wrong(&format!("{TEXT} {TEXT}")), JoinSecretError::Characters);
        assert_eq!(wrong(&format!("{TEXT}ü")), JoinSecretError::Characters);
        let token = JoinToken::random([7; 32]).to_string();
        assert_eq!(wrong(&token), JoinSecretError::Token);
    }

    #[test]
    fn a_file_is_read_to_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(JoinSecret::read(&path).unwrap_err().to_string().contains("secret: "));
        std::fs::write(&path, format!("{TEXT}\nmore\n")).unwrap();
        for (mode, is_open) in [(0o600, false), (0o440, false), (0o644, true)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(JoinSecret::read(&path).unwrap(), (TEXT.parse().unwrap(), is_open));
        }
    }
}
