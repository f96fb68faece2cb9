//! Join tokens: what a person pastes so that worker and cluster trust each other.
//!
//! ```text
//! wly1.<pin of the CA, 52>.<id, 8>.<secret, 32>.<checksum, 8>
//! ```
//!
//! All parts are base32 in lower case without `i l o u`. The checksum tells a paste that lost
//! characters from a token that is wrong; it is no secret and proves nothing.

use crate::certificate::KeyPin;
use std::fmt;
use std::str::FromStr;

/// What every token begins with; secret scanners can look for it.
pub const TOKEN_PREFIX: &str = "wly1.";
/// Random bytes of a token's secret.
pub const SECRET_LEN: usize = 20;
const ID_LEN: usize = 5;
const CHECKSUM_LEN: usize = 5;
/// Characters of a token.
pub const TOKEN_LEN: usize = 5 + 52 + 1 + 8 + 1 + 32 + 1 + 8;

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A join token with its secret. Only [`Display`](fmt::Display) shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// BLAKE3 of the cluster CA's SubjectPublicKeyInfo.
    pub pin: KeyPin,
    /// Names the token in lists; no secret.
    pub id: TokenId,
    secret: [u8; SECRET_LEN],
}

/// Names a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_LEN]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&to_base32(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        from_base32(text).map(Self).ok_or(TokenError::Id)
    }
}

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error("not a join token: it should begin with wly1.")]
    Prefix,
    /// A token of a later version.
    #[error("a join token of a newer version of Woolly: update this program")]
    Version,
    /// Too short: the end is missing.
    #[error(
        "the join token is cut off: expected {TOKEN_LEN} characters, found {0}; copy all of it"
    )]
    Truncated(usize),
    /// Characters were changed, lost or added.
    #[error("the join token is damaged (its checksum does not fit): copy it again")]
    Damaged,
    /// Not the id of a token.
    #[error("not a token's id: expected 8 characters as `token list` shows them")]
    Id,
}

impl JoinToken {
    /// Draws a new token for the cluster whose CA has this pin.
    pub fn random(pin: KeyPin) -> Self {
        let (mut id, mut secret) = ([0; ID_LEN], [0; SECRET_LEN]);
        getrandom::fill(&mut id).expect("the system's random generator works");
        getrandom::fill(&mut secret).expect("the system's random generator works");
        Self { pin, id: TokenId(id), secret }
    }

    /// The token that follows from what `derive` was given.
    pub(crate) fn derived(pin: KeyPin, derive: &blake3::Hasher) -> Self {
        let (mut id, mut secret) = ([0; ID_LEN], [0; SECRET_LEN]);
        let mut bytes = derive.finalize_xof();
        bytes.fill(&mut id);
        bytes.fill(&mut secret);
        Self { pin, id: TokenId(id), secret }
    }

    /// The secret as it stands in `JoinRequest`.
    pub fn secret(&self) -> String {
        to_base32(&self.secret)
    }

    /// What a token store keeps of the secret.
    pub(crate) fn secret_hash(&self) -> [u8; 32] {
        hash_secret(&self.secret)
    }
}

/// The hash of a secret as it stands in `JoinRequest`; `None` if it cannot be one.
pub(crate) fn hash_of_text(secret: &str) -> Option<[u8; 32]> {
    from_base32::<SECRET_LEN>(secret).map(|secret| hash_secret(&secret))
}

fn hash_secret(secret: &[u8; SECRET_LEN]) -> [u8; 32] {
    // 160 random bits need no slow hash.
    blake3::derive_key("woolly join token secret 1", secret)
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = to_base32(&self.pin);
        let text = format!("{TOKEN_PREFIX}{pin}.{}.{}", self.id, to_base32(&self.secret));
        write!(f, "{text}.{}", checksum(&text))
    }
}

impl fmt::Debug for JoinToken {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Reads a pasted token; white space around it does not matter.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(TOKEN_PREFIX) else {
            let other = text.strip_prefix("wly").and_then(|rest| rest.split_once('.'));
            let newer = other.is_some_and(|(n, _)| n.parse::<u32>().is_ok_and(|n| n > 1));
            return Err(if newer { TokenError::Version } else { TokenError::Prefix });
        };
        if text.len() < TOKEN_LEN && text.is_ascii() {
            return Err(TokenError::Truncated(text.len()));
        }
        let (signed, sum) = text.rsplit_once('.').ok_or(TokenError::Damaged)?;
        if sum != checksum(signed) {
            return Err(TokenError::Damaged);
        }
        let parts: Vec<&str> = body.split('.').collect();
        let [pin, id, secret, _] = parts[..] else { return Err(TokenError::Damaged) };
        let pin = from_base32(pin).ok_or(TokenError::Damaged)?;
        let id = TokenId(from_base32(id).ok_or(TokenError::Damaged)?);
        let secret = from_base32(secret).ok_or(TokenError::Damaged)?;
        Ok(Self { pin, id, secret })
    }
}

fn checksum(text: &str) -> String {
    let hash = blake3::derive_key("woolly join token checksum 1", text.as_bytes());
    to_base32(&hash[..CHECKSUM_LEN])
}

/// Five bits per character, the highest first; the last character is filled up with zeros.
fn to_base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    for at in (0..bytes.len() * 8).step_by(5) {
        let byte = |index: usize| u16::from(bytes.get(index).copied().unwrap_or(0));
        let window = byte(at / 8) << 8 | byte(at / 8 + 1);
        let digit = window >> (11 - at % 8) & 31;
        text.push(char::from(DIGITS[usize::from(digit)]));
    }
    text
}

/// Reads what [`to_base32`] wrote for `N` bytes; `None` for anything else.
fn from_base32<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut bytes = [0; N];
    let (mut window, mut bits, mut len) = (0u32, 0, 0);
    for character in text.bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == character)?;
        window = window << 5 | u32::try_from(digit).expect("32 digits");
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes[len] = u8::try_from(window >> bits & 0xff).expect("masked");
            len += 1;
        }
        window &= (1 << bits) - 1;
    }
    (window == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_gives_back_every_length() {
        for fill in [0x00, 0xff, 0xa5] {
            let bytes = [fill; 32];
            assert_eq!(from_base32::<32>(&to_base32(&bytes)), Some(bytes));
            let bytes = [fill; 5];
            assert_eq!(from_base32::<5>(&to_base32(&bytes)), Some(bytes));
        }
        assert_eq!(to_base32(&[0, 0x44, 0x32, 0x14, 0xc7]), "01234567");
        // 256 bits leave four spare bits in the last character: they must be zero.
        assert_eq!(from_base32::<32>(&format!("{}1", "0".repeat(51))), None);
    }

    #[test]
    fn tokens_survive_their_text() {
        let token = JoinToken::random([7; 32]);
        let text = token.to_string();
        assert_eq!(text.len(), TOKEN_LEN);
        assert_eq!(format!(" {text}\n").parse::<JoinToken>(), Ok(token.clone()));
        assert_eq!(hash_of_text(&token.secret()), Some(token.secret_hash()));
        assert!(!format!("{token:?}").contains(&token.secret()));
    }

    #[test]
    fn a_cut_token_is_told_from_a_changed_one() {
        let text = JoinToken::random([7; 32]).to_string();
        for len in TOKEN_PREFIX.len()..text.len() {
            assert_eq!(text[..len].parse::<JoinToken>(), Err(TokenError::Truncated(len)));
        }
        for at in TOKEN_PREFIX.len()..text.len() {
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(changed.parse::<JoinToken>(), Err(TokenError::Damaged), "{changed}");
        }
        assert_eq!(format!("{text}0").parse::<JoinToken>(), Err(TokenError::Damaged));
        assert_eq!("".parse::<JoinToken>(), Err(TokenError::Prefix));
        assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::Prefix));
        assert_eq!("wly2.abc".parse::<JoinToken>(), Err(TokenError::Version));
    }
}
