//! Connections to workers: frames in become [`LinkEvent`]s, frames out wait in bounded queues.
//!
//! Nothing here decides: a link reads, checks and hands over. The task that reads never writes, so
//! that no two processes can wait for each other; the driver never waits at all, and a queue that is
//! full is a broken link, because every queue holds all that can be under way.

mod control;
mod link;
mod streams;

pub use control::{Shared, run};
pub use link::{EVENTS_MAX, HEARTBEAT_MS, Link, LinkError, LinkEvent, LinkId, News, SendError};
pub use streams::FrameQueue;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
