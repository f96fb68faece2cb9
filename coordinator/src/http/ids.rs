//! What makes an answer one of its kind: its time, and numbers that nobody can guess.

use super::error::{ApiError, Problem};
use std::time::SystemTime;

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
    getrandom::u64()
        .map(|number| number >> 1)
        .map_err(|error| ApiError::new(Problem::Internal, format!("No random number: {error}.")))
}

/// Names a call of a tool: 9 letters and digits, as Mistral's templates want it.
///
/// # Errors
///
/// 500 if the operating system gives no random number.
pub fn call_id() -> Result<String, ApiError> {
    let mut number = random()?;
    let mut digit = || {
        let digit = u32::try_from(number % 36).expect("it is below 36");
        number /= 36;
        char::from_digit(digit, 36).expect("it is a digit of that base")
    };
    Ok((0..9).map(|_| digit()).collect())
}
