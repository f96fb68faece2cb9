//! Sizes and times as people write and read them: `4GiB`, `512M`, `4.6 GiB`, `3s`.

use std::time::Duration;

/// Suffixes of a size and what they multiply by. A bare letter is a power of 1,024.
const UNITS: [(&str, u64); 13] = [
    ("b", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Suffixes of a time and what they are in milliseconds.
const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Reads a time: `500ms`, `3s`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
///
/// A sentence that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    scaled(text, &TIMES, 1_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time such as 500ms, 3s or 2m".to_owned())
}

/// Reads a size in bytes: `4294967296`, `4GiB` or `4G` (powers of 1,024), `4GB` (powers of 1,000).
///
/// # Errors
///
/// A sentence that says what was expected; 0 and values beyond `u64` are errors too.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match scaled(text, &UNITS, 1) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("expected bytes such as 4294967296, 512MiB or 1.5GiB, more than 0".to_owned()),
    }
}

/// `digits[.digits][unit]` in the smallest unit; `None` for anything else.
fn scaled(text: &str, units: &[(&str, u64)], bare: u64) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let scale = match unit {
        "" => bare,
        _ => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    let Some((whole, fraction)) = number.split_once('.') else {
        return number.parse::<u64>().ok()?.checked_mul(scale);
    };
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let parts = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let rest = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / parts;
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(u64::try_from(rest).ok()?)
}

/// A size for people: `512 B`, `4.6 GiB`.
pub fn show_size(bytes: u64) -> String {
    const NAMES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut index = 0;
    while index + 1 < NAMES.len() && bytes >> (10 * (index + 1)) > 0 {
        index += 1;
    }
    if index == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * index);
    format!("{}.{} {}", tenths / 10, tenths % 10, NAMES[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, bytes) in [
            ("1", 1),
            ("4GiB", 4 << 30),
            ("512M", 512 << 20),
            ("4 GB", 4_000_000_000),
            ("1.5KiB", 1536),
            ("2t", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "0", "-1", "1e3", "GiB", "1.", ".5G", "4GiBs", "1..2", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text:?} was read as a size");
        }
    }

    #[test]
    fn times_are_read_in_every_unit() {
        for (text, ms) in [("3", 3000), ("500ms", 500), ("2.5s", 2500), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "-1", "3 weeks", "s", "1e3"] {
            assert!(parse_duration(text).is_err(), "{text:?} was read as a time");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(1536), "1.5 KiB");
        assert_eq!(show_size(4_940_000_000), "4.6 GiB");
    }
}
