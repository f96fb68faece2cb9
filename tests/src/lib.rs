//! What the tests share: fixtures, and clusters of real processes.
