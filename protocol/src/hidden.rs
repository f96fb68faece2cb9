//! A text that is never printed: a join token or an API key as it was typed.

use std::fmt;

/// A secret text; its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The secret, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Hidden {
        Hidden(text)
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Hidden {
        Hidden(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Hidden::from("wly1.secret");
        assert_eq!(secret.reveal(), "wly1.secret");
        assert_eq!(format!("{:?}", Some(secret)), "Some((hidden))");
    }
}
