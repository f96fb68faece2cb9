//! Why a grammar cannot be used.

/// How long an error's text may be: the library may repeat the grammar.
const ERROR_CHARS_MAX: usize = 400;

/// Why a grammar cannot be used; a sentence without its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarError(pub String);

/// The first line of what the library says, without an end.
pub(super) fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end_matches('.');
    let mut short: String = line.chars().take(ERROR_CHARS_MAX).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}
