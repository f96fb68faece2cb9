//! What templates expect of Python: `tojson`, `strftime_now`, `raise_exception`.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind, State};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// The variable that holds the time of rendering, in seconds since 1970.
pub(super) const NOW: &str = "__woolly_unix_seconds";
/// Widest indentation of `tojson`.
const INDENT_MAX: usize = 16;

/// What `raise_exception` was called with; the source of the error it raises.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub String);

/// `raise_exception(message)`: ends the rendering.
pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// `tojson(indent, ensure_ascii, sort_keys, separators)` as `json.dumps` writes it: spaces after
/// the separators, nothing escaped for HTML.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ascii: bool = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort: bool = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    kwargs.assert_all_used()?;
    if indent.is_some_and(|indent| indent > INDENT_MAX) {
        return Err(invalid(format!("tojson: indent is more than {INDENT_MAX}")));
    }
    if value.is_undefined() {
        return Err(invalid("tojson: the value is undefined".to_owned()));
    }
    let mut json = serde_json::to_value(value).map_err(|e| invalid(format!("tojson: {e}")))?;
    if sort {
        json.sort_all_objects();
    }
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(invalid("tojson: separators are not two texts".to_owned())),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let spaces = " ".repeat(indent.unwrap_or(0));
    let pretty = indent.map(|_| PrettyFormatter::with_indent(spaces.as_bytes()));
    let mut out = Vec::new();
    let style = PythonStyle { item, key, ascii, pretty };
    json.serialize(&mut Serializer::with_formatter(&mut out, style))
        .map_err(|e| invalid(format!("tojson: {e}")))?;
    Ok(Value::from(String::from_utf8(out).map_err(|e| invalid(e.to_string()))?))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Python's separators, numbers and escapes.
struct PythonStyle<'a> {
    item: String,
    key: String,
    ascii: bool,
    pretty: Option<PrettyFormatter<'a>>,
}

type Io = std::io::Result<()>;

impl Formatter for PythonStyle<'_> {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> Io {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_array(w),
            None => CompactFormatter.begin_array(w),
        }
    }

    fn end_array<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> Io {
        match &mut self.pretty {
            Some(pretty) => pretty.end_array(w),
            None => CompactFormatter.end_array(w),
        }
    }

    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> Io {
        self.begin_item(w, first)
    }

    fn end_array_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> Io {
        match &mut self.pretty {
            Some(pretty) => pretty.end_array_value(w),
            None => Ok(()),
        }
    }

    fn begin_object<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> Io {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_object(w),
            None => CompactFormatter.begin_object(w),
        }
    }

    fn end_object<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> Io {
        match &mut self.pretty {
            Some(pretty) => pretty.end_object(w),
            None => CompactFormatter.end_object(w),
        }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> Io {
        self.begin_item(w, first)
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> Io {
        w.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> Io {
        match &mut self.pretty {
            Some(pretty) => pretty.end_object_value(w),
            None => Ok(()),
        }
    }

    fn write_f64<W: ?Sized + std::io::Write>(&mut self, w: &mut W, value: f64) -> Io {
        w.write_all(python_float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(&mut self, w: &mut W, text: &str) -> Io {
        if !self.ascii {
            return w.write_all(text.as_bytes());
        }
        for character in text.chars() {
            if character.is_ascii() {
                write!(w, "{character}")?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(w, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

impl PythonStyle<'_> {
    /// What comes before an array's value or an object's key.
    fn begin_item<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> Io {
        if !first {
            w.write_all(self.item.as_bytes())?;
        }
        match &mut self.pretty {
            // As if first: the separator is written already.
            Some(pretty) => pretty.begin_array_value(w, true),
            None => Ok(()),
        }
    }
}

/// A float as Python prints it: exponents with a sign and two digits.
fn python_float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, number) =
                exponent.strip_prefix('-').map_or(('+', exponent), |number| ('-', number));
            let digits = digits.strip_suffix(".0").unwrap_or(digits);
            format!("{digits}e{sign}{number:0>2}")
        }
    }
}

/// `strftime_now(format)` in UTC.
pub(super) fn strftime_now(state: &State<'_, '_>, format: &str) -> Result<String, Error> {
    let now = state.lookup(NOW).and_then(|now| now.as_i64()).unwrap_or(0);
    strftime(now, format)
}

const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The fields of `format` for a time in seconds since 1970, UTC.
fn strftime(unix_seconds: i64, format: &str) -> Result<String, Error> {
    let (days, seconds) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let day_name = DAYS[usize::try_from(days.rem_euclid(7)).unwrap_or(0)];
    let month_name = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let field = rest.next();
        let (field, unpadded) =
            if field == Some('-') { (rest.next(), true) } else { (field, false) };
        let number = |value: i64| if unpadded { format!("{value}") } else { format!("{value:02}") };
        out.push_str(&match field {
            Some('Y') => year.to_string(),
            Some('y') => number(year.rem_euclid(100)),
            Some('m') => number(month),
            Some('d') => number(day),
            Some('e') => format!("{day:2}"),
            Some('H') => number(hour),
            Some('I') => number(hour12),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let shown = other.map(String::from).unwrap_or_default();
                return Err(invalid(format!("strftime_now: '%{shown}' is not supported")));
            }
        });
    }
    Ok(out)
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that a leap day is the last of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let at = |seconds, format| strftime(seconds, format).unwrap();
        assert_eq!(at(0, "%A %d %B %Y %H:%M:%S %p"), "Thursday 01 January 1970 00:00:00 AM");
        assert_eq!(at(951_782_400, "%Y-%m-%d %a"), "2000-02-29 Tue");
        assert_eq!(at(1_732_235_696, "%d %b %Y, %I:%M %p, %-d"), "22 Nov 2024, 12:34 AM, 22");
        assert_eq!(at(4_107_542_399, "%F %T"), "2100-02-28 23:59:59");
        assert_eq!(at(-1, "%F %j".trim_end_matches(" %j")), "1969-12-31");
        assert!(strftime(0, "%Q").is_err());
        assert!(strftime(0, "%").is_err());
    }

    #[test]
    fn floats_are_spelled_as_python_does() {
        let spelled = [1.0, 0.1, 1e20, 1.5e-7, -2.5e300, 1e16, 0.0001].map(python_float);
        assert_eq!(spelled, ["1.0", "0.1", "1e+20", "1.5e-07", "-2.5e+300", "1e+16", "0.0001"]);
    }
}
