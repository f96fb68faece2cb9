//! Opens the journal that `serve` was asked for.

pub use crate::journal::Opened;

use crate::config::JournalArgs;
use crate::exit::Fatal;
use crate::guides::LIBRARY;
use crate::http::output::streams::Streams;
use crate::journal::{Journal, Limits, Stamp};
use crate::metrics::Metrics;
use crate::models::NUMERICS;
use anyhow::anyhow;
use std::sync::Arc;
use woolly_protocol::PROTOCOL;

/// The journal, and what it holds; `None` if there is to be none. Blocks for as long as reading it takes.
///
/// # Errors
///
/// [`Fatal::Usage`] if its folder cannot be used.
pub fn open(args: &JournalArgs) -> Result<Option<(Journal, Opened)>, Fatal> {
    let Some(folder) = &args.journal else { return Ok(None) };
    let stamp = Stamp {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        numerics: NUMERICS,
        grammar: LIBRARY.to_owned(),
    };
    let limits = Limits { bytes: args.journal_size };
    let (journal, opened) = Journal::open(folder, &stamp, limits)
        .map_err(|error| Fatal::Usage(anyhow!(error).context("cannot use --journal")))?;
    opened.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let count = opened.restored.iter().filter(|one| !one.finished).count();
    if count > 0 {
        tracing::info!("{count} streams of the journal are begun again");
    }
    Ok(Some((journal, opened)))
}

/// Its streams.
pub fn streams(
    (journal, opened): (Journal, Opened),
    args: &JournalArgs,
    metrics: &Arc<Metrics>,
) -> Streams {
    Streams::new(journal, opened, args.journal_patience, Arc::clone(metrics))
}
