//! Sizes and durations as people write them on a command line: `4GiB`, `500ms`, `24h`.

use std::time::Duration;

/// Units of a size, longest first so that a suffix is matched whole. A bare letter is binary.
const SIZE_UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
];

/// Units of a duration in milliseconds, longest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a size in bytes: `4294967296`, `4GiB`, `4G` (binary) or `4GB` (decimal).
///
/// # Errors
///
/// A sentence that says what was expected; zero and values beyond `u64` are errors too.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let expected = "expected bytes such as 4GiB, 512MiB or 4294967296";
    let bytes = parse_scaled(text, &SIZE_UNITS, 1).ok_or(expected)?;
    if bytes == 0 { Err(format!("{expected}, more than 0")) } else { Ok(bytes) }
}

/// Reads a duration: `500ms`, `3s`, `10m`, `24h`, `7d`; a bare number is seconds.
///
/// # Errors
///
/// A sentence that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_scaled(text, &DURATION_UNITS, 1_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a duration such as 500ms, 3s, 10m, 24h or 7d".to_owned())
}

/// Units of what goes over a memory bus or a link in a second, in bytes; bits are eighths of them.
const BANDWIDTH_UNITS: [(&str, u64); 10] = [
    ("gbit/s", 125_000_000),
    ("mbit/s", 125_000),
    ("kib/s", 1 << 10),
    ("mib/s", 1 << 20),
    ("gib/s", 1 << 30),
    ("kb/s", 1_000),
    ("mb/s", 1_000_000),
    ("gb/s", 1_000_000_000),
    ("tb/s", 1_000_000_000_000),
    ("b/s", 1),
];

/// Units of a rate.
const RATE_UNITS: [(&str, u64); 4] =
    [("t/s", 1_000_000_000_000), ("g/s", 1_000_000_000), ("m/s", 1_000_000), ("/s", 1)];

/// Units of a round trip in nanoseconds.
const ROUND_TRIP_UNITS: [(&str, u64); 3] = [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// Reads bytes per second: `42GB/s`, `117MB/s`, `1Gbit/s`, `40GiB/s`.
///
/// # Errors
///
/// A sentence that says what was expected; zero is an error too.
pub fn parse_bandwidth(text: &str) -> Result<u64, String> {
    let expected = "expected bytes or bits per second such as 42GB/s, 117MB/s or 1Gbit/s";
    parse_more_than_0(text, &BANDWIDTH_UNITS, expected)
}

/// Reads a number of operations per second: `1.2T/s`, `450G/s`.
///
/// # Errors
///
/// A sentence that says what was expected; zero is an error too.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    parse_more_than_0(text, &RATE_UNITS, "expected a number per second such as 450G/s or 1.2T/s")
}

/// Reads the time that a message takes there and back: `300us`, `0.3ms`, `1s`.
///
/// # Errors
///
/// A sentence that says what was expected.
pub fn parse_round_trip(text: &str) -> Result<Duration, String> {
    let expected = "expected a time such as 300us, 0.3ms or 1s";
    let nanos = parse_scaled(text, &ROUND_TRIP_UNITS, 0).filter(|_| has_unit(text));
    nanos.map(Duration::from_nanos).ok_or_else(|| expected.to_owned())
}

/// Whether more than digits stand there: without a unit a figure may be a thousand times what was meant.
fn has_unit(text: &str) -> bool {
    text.trim().ends_with(|c: char| c.is_alphabetic())
}

fn parse_more_than_0(text: &str, units: &[(&str, u64)], expected: &str) -> Result<u64, String> {
    match parse_scaled(text, units, 0).filter(|_| has_unit(text)) {
        None => Err(expected.to_owned()),
        Some(0) => Err(format!("{expected}, more than 0")),
        Some(number) => Ok(number),
    }
}

/// `digits[.digits]unit` as a whole number of the smallest unit; `None` if it is anything else.
fn parse_scaled(text: &str, units: &[(&str, u64)], default_unit: u64) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let scale = match unit {
        "" => default_unit,
        _ => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let denominator = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / denominator;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// A size for people, with one decimal where it says something: `4.9 GiB`, `512 MiB`.
pub fn show_size(bytes: u64) -> String {
    const NAMES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut index = 0;
    let mut unit = 1u64;
    while index + 1 < NAMES.len() && bytes / unit >= 1024 {
        unit <<= 10;
        index += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if index == 0 || tenths >= 1000 || tenths % 10 == 0 {
        format!("{} {}", tenths / 10, NAMES[index])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, NAMES[index])
    }
}

/// A rate for people with three digits, in thousands: `41.2 G/s`, with a word such as `B` before the stroke.
pub fn show_rate(per_s: u64, of: &str) -> String {
    let units = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match units.into_iter().find(|(unit, _)| per_s >= *unit) {
        None => format!("{per_s} {of}/s"),
        Some((unit, name)) => {
            let value = per_s as f64 / unit as f64;
            let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
            format!("{value:.decimals$} {name}{of}/s")
        }
    }
}

/// A whole number with commas between thousands: `131,072`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_unit() {
        assert_eq!(parse_size("4294967296"), Ok(1 << 32));
        assert_eq!(parse_size("4GiB"), Ok(1 << 32));
        assert_eq!(parse_size("4g"), Ok(1 << 32));
        assert_eq!(parse_size("4 GB"), Ok(4_000_000_000));
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("7b"), Ok(7));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "-1", "1e3", "0", "GiB", "4XB", "4GiBs", "1.", ".5G", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text:?} was read as a size");
        }
    }

    #[test]
    fn durations_are_read_in_every_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_duration("2.5s"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("3 weeks").is_err());
    }

    #[test]
    fn what_goes_in_a_second_is_read_with_its_unit() {
        assert_eq!(parse_bandwidth("42GB/s"), Ok(42_000_000_000));
        assert_eq!(parse_bandwidth("1 Gbit/s"), Ok(125_000_000));
        assert_eq!(parse_bandwidth("2.5Gbit/s"), Ok(312_500_000));
        assert_eq!(parse_rate("1.2T/s"), Ok(1_200_000_000_000));
        assert_eq!(parse_round_trip("0.3ms"), Ok(Duration::from_micros(300)));
        assert_eq!(parse_round_trip("0us"), Ok(Duration::ZERO));
        for text in ["", "42", "42GB", "0GB/s", "-1GB/s", "fast", "1G"] {
            assert!(parse_bandwidth(text).is_err(), "{text:?} was read as a bandwidth");
        }
        for text in ["", "1.2T", "7", "0/s", "1GB/s"] {
            assert!(parse_rate(text).is_err(), "{text:?} was read as a rate");
        }
        for text in ["", "3", "soon", "-1ms", "1m"] {
            assert!(parse_round_trip(text).is_err(), "{text:?} was read as a round trip");
        }
        assert_eq!(show_rate(41_230_000_000, "B"), "41.2 GB/s");
        assert_eq!(show_rate(9_996_000, ""), "10.0 M/s");
        assert_eq!(show_rate(1_230_000_000_000, ""), "1.23 T/s");
        assert_eq!(show_rate(999, "B"), "999 B/s");
        assert!(parse_bandwidth(&show_rate(41_230_000_000, "B")).is_ok());
    }

    #[test]
    fn sizes_and_counts_are_shown_for_people() {
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(1536), "1.5 KiB");
        assert_eq!(show_size(512 << 20), "512 MiB");
        assert_eq!(show_size(4_940_000_000), "4.6 GiB");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_count(131_072), "131,072");
        assert_eq!(show_count(1_000_000), "1,000,000");
    }
}
