//! The journal: accepted requests on disk, so that their streams survive the coordinator's death.
//!
//! Tokens are not written down: they follow from the request, its seed and the model. So a record is the request
//! itself, as it came, with all that was by chance or by the clock (`number`, `created`, `seed`). Who starts again
//! computes it again from the beginning; a few kilobytes are written for a request, and nothing for a token.
//!
//! | file | holds |
//! | --- | --- |
//! | `format.rs` | the bytes of the file: its head, its records, what is read of a damaged one |
//! | `file.rs` | the file: appended to, written anew when it is full, and what to do when that fails |
//! | `writer.rs` | the thread that writes, and syncs in groups |
//!
//! # The file
//!
//! One file, `streams.journal`, in a folder of its own, with 0600 and 0700. Its head of 256 bytes names the version of
//! the form and all that tokens depend on beside the model: the program's version, `PROTOCOL`, `NUMERICS` and the
//! library of grammars. A file whose head says something else is not gone on with: its streams end explicitly
//! ([`Gone::Foreign`]). Records follow, each with a checksum of its head (so that the next one is found behind a damaged
//! one) and one of all of it. A last record that is torn is dropped; a damaged one before ends its own stream only
//! ([`Gone::Damaged`]).
//!
//! | record | says | is synced |
//! | --- | --- | --- |
//! | accepted | an [`Entry`] | before the first byte of the answer, with all that came within 2 ms |
//! | cached | how many tokens of a choice's prompt a cache held, which is part of its usage | with the next |
//! | finished | the answer is complete: it is computed again only if someone asks for it | with the next |
//! | ended | nobody can ask for it any more | with the next |
//!
//! What was not synced is lost with the machine, never with the process.
//!
//! # Limits
//!
//! The file and the one that is written in its place are together at most [`Limits::bytes`]: requests that have not
//! ended take a third at most, the file two. A request that has no room is served without the journal
//! ([`NotKept::Full`]). When writing fails (a full disk), requests go on without it, and after 10 s it is tried again
//! ([`NotKept::Failing`]).
//!
//! # What it never knows
//!
//! An API key (only a hash that is worth nothing without the file's salt), what a request means, a token, HTTP, the
//! engine.

mod file;
mod format;
#[cfg(test)]
mod tests;
mod writer;

pub use file::{Limits, OpenError, Opened, Restored};
pub use format::{Entry, Note, Stamp};
pub use writer::{Journal, Standing};

/// The version of the file's form.
pub const VERSION: u32 = 1;

/// Why a stream of the journal cannot be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The file was written by another build: which of its facts differ.
    Foreign(String),
    /// Its record cannot be read.
    Damaged,
}

/// Why a request is not in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// Requests that have not ended leave no room for it.
    #[error("full")]
    Full,
    /// Writing fails at the moment.
    #[error("failing")]
    Failing,
}
