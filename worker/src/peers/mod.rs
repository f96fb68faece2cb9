//! The links of this worker: streams that others open to it and that it opens to others. Knows nothing of what
//! is loaded.

pub mod accept;
pub mod arrivals;
pub mod dial;
pub mod forwards;
pub mod outbox;
pub mod removed;
pub mod results;
pub mod samplings;
pub mod traffic;
