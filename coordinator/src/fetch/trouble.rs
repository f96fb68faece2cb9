//! What goes wrong: with one request, which may be tried again, and with a download, which then ends.

use crate::units::show_size;
use std::path::PathBuf;
use std::time::Duration;

/// Why a download came to nothing. Each is a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The name, a flag or a variable is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no such model.
    #[error("{0}")]
    Missing(String),
    /// Servers, networks, files.
    #[error("{0}")]
    Failed(String),
    /// The disk cannot take it.
    #[error(
        "{} more are needed in {} and {} are free there: make room, or name another folder with --cache-dir",
        show_size(*.needed), .folder.display(), show_size(*.free)
    )]
    NoRoom {
        /// Where.
        folder: PathBuf,
        /// Bytes that are missing of what is downloaded.
        needed: u64,
        /// Bytes that may be written there.
        free: u64,
    },
}

/// Why one request did not bring what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Another try may bring it.
    Again {
        /// What happened.
        what: String,
        /// How long the server wants to be left alone.
        after: Option<Duration>,
    },
    /// The place that a redirect led to is no longer good; the same redirect may lead to another.
    Expired(String),
    /// The server sends whole files only.
    NoRanges,
    /// No further try.
    Fatal(FetchError),
}

impl Trouble {
    /// Something that another try may mend.
    pub fn again(what: impl Into<String>) -> Trouble {
        Trouble::Again { what: what.into(), after: None }
    }

    /// The end, with a sentence.
    pub fn failed(what: impl Into<String>) -> Trouble {
        Trouble::Fatal(FetchError::Failed(what.into()))
    }
}
