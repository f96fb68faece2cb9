//! What the tests share: fixtures, the source tree as text, and clusters of real processes.

pub mod source;
