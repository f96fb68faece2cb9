//! The trace that a request belongs to: W3C Trace Context, level 1. Knows no HTTP.

use woolly_protocol::trace::{SpanId, TraceId};

/// The flag that says that the caller keeps its part of the trace.
const SAMPLED: u8 = 1;

/// A request's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace: the caller's, or a new one.
    pub trace: TraceId,
    /// The span of this request.
    pub span: SpanId,
    /// The caller's span, if it named one.
    pub parent: Option<SpanId>,
    /// Whether the caller said that it keeps this trace.
    pub sampled: bool,
}

impl Trace {
    /// A request with this `traceparent`. Without one, or with one that is wrong, it begins a trace of its own, as the standard asks. `None` if
    /// the system has no random numbers.
    pub fn begin(traceparent: Option<&str>) -> Option<Trace> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).ok()?;
        let (trace, span) = random.split_at(16);
        // An id of zeros is none.
        let span: SpanId = of_bytes(span).unwrap_or([1; 8]);
        Some(match traceparent.and_then(parse) {
            Some((trace, parent, flags)) => {
                Trace { trace, span, parent: Some(parent), sampled: flags & SAMPLED != 0 }
            }
            None => {
                let trace = of_bytes(trace).unwrap_or([1; 16]);
                Trace { trace, span, parent: None, sampled: false }
            }
        })
    }
}

/// Trace, parent and flags of `00-<32 digits>-<16 digits>-<2 digits>`. Of a later version more may follow behind a dash.
fn parse(text: &str) -> Option<(TraceId, SpanId, u8)> {
    let bytes = text.as_bytes();
    if bytes.len() < 55 || [2, 35, 52].iter().any(|at| bytes[*at] != b'-') {
        return None;
    }
    let [version] = read::<1>(&bytes[..2])?;
    let ends = match version {
        0 => bytes.len() == 55,
        0xff => false,
        _ => bytes.len() == 55 || bytes[55] == b'-',
    };
    let (trace, parent) = (read::<16>(&bytes[3..35])?, read::<8>(&bytes[36..52])?);
    let [flags] = read::<1>(&bytes[53..55])?;
    (ends && trace != [0; 16] && parent != [0; 8]).then_some((trace, parent, flags))
}

/// Hexadecimal digits, small letters only.
fn read<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// An id, unless all of it is zero.
fn of_bytes<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok().filter(|id| *id != [0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_protocol::trace::hex;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_goes_on_with_a_span_of_its_own() {
        let trace = Trace::begin(Some(GOOD)).unwrap();
        assert_eq!(hex(&trace.trace), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.parent.map(|id| hex(&id)).as_deref(), Some("b7ad6b7169203331"));
        assert!(trace.sampled && trace.parent != Some(trace.span));
        assert_ne!(Trace::begin(Some(GOOD)).unwrap().span, trace.span);
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!Trace::begin(Some(&unsampled)).unwrap().sampled);
    }

    #[test]
    fn later_versions_may_say_more_and_the_first_may_not() {
        for (text, is_good) in [
            (GOOD.replacen("00", "cc", 1), true),
            (format!("{}-what-comes", GOOD.replacen("00", "cc", 1)), true),
            (format!("{}.what-comes", GOOD.replacen("00", "cc", 1)), false),
            (format!("{GOOD}-more"), false),
            (GOOD.replacen("00", "ff", 1), false),
        ] {
            assert_eq!(parse(&text).is_some(), is_good, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_begins_a_new_trace() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for text in [
            "",
            "00",
            &GOOD[..54],
            zeros,
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "äöü7651916cd43dd8448eb211c80319cb7ad6b7169203331-010000000000",
        ] {
            let trace = Trace::begin(Some(text)).unwrap();
            assert_eq!((trace.parent, trace.sampled), (None, false), "{text}");
            assert_ne!(trace.trace, [0; 16]);
        }
        assert_ne!(Trace::begin(None).unwrap().trace, Trace::begin(None).unwrap().trace);
    }
}
