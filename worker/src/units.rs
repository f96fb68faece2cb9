//! Sizes and durations as people write them; the same in all programs.

pub use woolly_protocol::units::{parse_duration, parse_size, show_rate, show_size};
