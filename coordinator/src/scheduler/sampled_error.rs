//! What can be wrong with an answer of the last stage.

use woolly_protocol::ids::MicrobatchId;

/// An answer that the last stage must not give. Nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampledError {
    /// Answered before, or never sent.
    #[error("microbatch {microbatch} is not in flight; it was answered before or never sent")]
    NotInFlight {
        /// The microbatch of the answer.
        microbatch: MicrobatchId,
    },
    /// Stages compute in the order of arrival, so answers come in the order sent.
    #[error("microbatch {found} was answered before microbatch {expected}, which was sent earlier")]
    OutOfOrder {
        /// The oldest microbatch in flight.
        expected: MicrobatchId,
        /// The microbatch of the answer.
        found: MicrobatchId,
    },
    /// One row per sampled or scored row.
    #[error("microbatch {microbatch} asked for {expected} rows, the answer has {found}")]
    RowCount {
        /// The microbatch.
        microbatch: MicrobatchId,
        /// Rows asked for.
        expected: usize,
        /// Rows of the answer.
        found: usize,
    },
    /// A scored row reports the token that it was given.
    #[error(
        "microbatch {microbatch}, row {row}: token {found} was scored, {expected} was asked for"
    )]
    Target {
        /// The microbatch.
        microbatch: MicrobatchId,
        /// Row of the answer.
        row: usize,
        /// The token to score.
        expected: u32,
        /// The token of the answer.
        found: u32,
    },
    /// Ids are below the vocabulary's length.
    #[error("microbatch {microbatch}, row {row}: token {found} of a vocabulary of {vocab}")]
    Vocabulary {
        /// The microbatch.
        microbatch: MicrobatchId,
        /// Row of the answer.
        row: usize,
        /// Tokens of the vocabulary.
        vocab: u32,
        /// The id of the answer.
        found: u32,
    },
    /// At most as many other tokens as asked for.
    #[error(
        "microbatch {microbatch}, row {row}: {found} most likely tokens, {expected} were asked for"
    )]
    TopCount {
        /// The microbatch.
        microbatch: MicrobatchId,
        /// Row of the answer.
        row: usize,
        /// Tokens asked for.
        expected: u8,
        /// Tokens of the answer.
        found: usize,
    },
}
