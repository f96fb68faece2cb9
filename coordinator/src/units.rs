//! Sizes and durations as people write them; the same in all programs.

pub use woolly_protocol::units::{
    parse_bandwidth, parse_duration, parse_rate, parse_round_trip, parse_size, show_count, show_rate,
    show_size,
};
