//! Why the worker ends, and with which exit status.

/// Exit status of a mistake in the flags.
pub const EXIT_USAGE: u8 = 2;
/// Exit status when the coordinator was never reached and `--retry` is used up.
pub const EXIT_UNREACHABLE: u8 = 3;
/// Exit status of a refusal: token, cluster, certificate or version.
pub const EXIT_REFUSED: u8 = 4;
/// Exit status of every other error.
pub const EXIT_ERROR: u8 = 1;

/// Exit status when a page of a mapped model or slice file could not be read any more: the file became
/// shorter, or its disk fails.
pub const EXIT_LOST_PAGES: u8 = 70;
/// What is said then; written by a signal's handler, so that it is whole.
pub const LOST_PAGES: &str = "error: a mapped model file became shorter or could not be read while it was \
                              in use; put the whole file back and start this worker again\n";

/// Why the worker ends.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The exit status.
    pub code: u8,
    /// One sentence: what happened and what to do.
    pub text: String,
}

impl Failure {
    /// One with this exit status.
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }
}

/// One with [`EXIT_ERROR`].
pub fn error(text: impl std::fmt::Display) -> Failure {
    Failure::new(EXIT_ERROR, text.to_string())
}
