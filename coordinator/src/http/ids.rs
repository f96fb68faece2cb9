//! What makes an answer one of its kind: its time, and numbers that nobody can guess.

use super::error::{ApiError, Problem};
use std::time::SystemTime;

/// Digits of a call's id.
const CALL_ID_DIGITS: usize = 9;

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A random number of 63 bits: a seed that a client could have sent, or an id.
///
/// # Errors
///
/// 500 if the operating system gives none.
pub fn random() -> Result<u64, ApiError> {
    getrandom::u64().map(|number| number >> 1).map_err(|error| none(&error))
}

fn none(error: &getrandom::Error) -> ApiError {
    ApiError::new(Problem::Internal, format!("No random number: {error}."))
}

/// All that is by chance or by the clock in an answer. With the request and the model it says every byte of the
/// answer, times apart; so the same request with the same identity is the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 128 random bits: who knows them may ask for the answer again, with its key.
    pub number: u128,
    /// When the request came, in seconds since 1970.
    pub created: u64,
    /// What random choices follow from if the client gives no seed.
    pub seed: u64,
}

impl Identity {
    /// Of a request that comes now.
    ///
    /// # Errors
    ///
    /// 500 if the operating system gives no random number.
    pub fn new() -> Result<Identity, ApiError> {
        let mut number = [0; 16];
        getrandom::fill(&mut number).map_err(|error| none(&error))?;
        let number = u128::from_le_bytes(number);
        Ok(Identity { number, created: unix_seconds(), seed: random()? })
    }

    /// The answer's id, as its API begins it.
    pub fn named(&self, beginning: &str) -> String {
        format!("{beginning}{:032x}", self.number)
    }

    /// Names a call of a tool in one of the answer's choices: 9 letters and digits, as Mistral's templates want it.
    pub fn call_id(&self, choice: u32, call: usize) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("woolly 2026 ids of tool calls");
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&choice.to_le_bytes()).update(&(call as u64).to_le_bytes());
        let bytes = hasher.finalize();
        let digit = |byte: &u8| char::from_digit(u32::from(*byte) % 36, 36);
        bytes.as_bytes().iter().take(CALL_ID_DIGITS).filter_map(digit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_an_identity_is_always_the_same_and_each_time_another() {
        let (one, other) = (Identity::new().unwrap(), Identity::new().unwrap());
        assert_ne!(one.number, other.number);
        assert_eq!(one.named("chatcmpl-").len(), "chatcmpl-".len() + 32);
        let ids = [one.call_id(0, 0), one.call_id(0, 1), one.call_id(1, 0), other.call_id(0, 0)];
        assert_eq!(ids[0], one.call_id(0, 0));
        let plain = |id: &String| id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        assert!(ids.iter().all(plain), "{ids:?}");
        let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
