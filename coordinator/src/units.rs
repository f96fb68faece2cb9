//! Sizes and durations as people write them; the same in all programs.

pub use woolly_protocol::units::{
    parse_bandwidth, parse_duration, parse_rate, parse_round_trip, parse_size, show_count,
    show_rate, show_size,
};

/// The two largest units: `23h 59m`.
pub fn show_duration(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).filter(|(count, _)| *count > 0);
    let text: Vec<String> = shown.map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(show_duration(0), "0s");
        assert_eq!(show_duration(59), "59s");
        assert_eq!(show_duration(86_400), "1d");
        assert_eq!(show_duration(86_399), "23h 59m");
        assert_eq!(show_duration(3601), "1h");
    }
}
