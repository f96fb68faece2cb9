//! What an HTTP answer means for a download. Pure: status and headers go in.

use super::link::Link;
use super::spans::Span;
use super::trouble::{FetchError, Trouble};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::fmt::Write;
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode};

/// Characters of a server's own words that are shown.
const WORDS_MAX: usize = 300;

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It is elsewhere.
    Redirect(String),
    /// These bytes of a file of `size` follow.
    Part {
        /// Which.
        span: Span,
        /// Bytes of the whole file.
        size: u64,
    },
    /// The whole file follows.
    Whole {
        /// Its bytes, if the server says so.
        size: Option<u64>,
    },
    /// Something else.
    Trouble(Trouble),
}

/// What a server says of a file beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Bytes, from `x-linked-size`.
    pub size: Option<u64>,
    /// SHA-256 in small hexadecimal digits.
    pub sha256: Option<String>,
    /// What changes when the file changes: a strong `ETag`, else `Last-Modified`.
    pub validator: Option<String>,
}

impl Told {
    /// Reads an answer's headers.
    pub fn of(headers: &HeaderMap) -> Told {
        Told {
            size: text(headers, "x-linked-size").and_then(|size| size.parse().ok()),
            sha256: sha256(headers),
            validator: text(headers, "etag")
                .filter(|etag| etag.starts_with('"'))
                .or_else(|| text(headers, "last-modified"))
                .map(str::to_owned),
        }
    }

    /// What an earlier answer said counts; of the validator the last one.
    pub fn and(self, later: Told) -> Told {
        Told {
            size: self.size.or(later.size),
            sha256: self.sha256.or(later.sha256),
            validator: later.validator,
        }
    }
}

/// Who was asked, for the words of an error.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What was asked for.
    pub link: &'a Link,
    /// Whether a redirect led there.
    pub is_redirected: bool,
    /// Whether a token was sent.
    pub has_token: bool,
}

/// What an answer means.
pub fn meaning(status: StatusCode, headers: &HeaderMap, asked: Asked<'_>) -> Meaning {
    let code = status.as_u16();
    let words = words(headers);
    let link = asked.link;
    let what = format!("{link} answered {code}{words}");
    match code {
        200 => {
            Meaning::Whole { size: text(headers, "content-length").and_then(|n| n.parse().ok()) }
        }
        206 => match text(headers, "content-range").and_then(content_range) {
            Some((span, size)) => Meaning::Part { span, size },
            None => Meaning::Trouble(Trouble::again(format!(
                "{link} does not say which bytes it sends"
            ))),
        },
        301 | 302 | 303 | 307 | 308 => match text(headers, "location") {
            Some(location) => Meaning::Redirect(location.to_owned()),
            None => Meaning::Trouble(Trouble::failed(format!("{what} without saying where to"))),
        },
        401 | 403 | 404 | 410 if asked.is_redirected => Meaning::Trouble(Trouble::Expired(what)),
        401 | 403 => Meaning::Trouble(Trouble::Fatal(refused(&what, headers, asked))),
        404 | 410 => Meaning::Trouble(Trouble::Fatal(FetchError::Missing(what))),
        408 | 416 | 425 | 429 | 500..=599 => {
            let after = text(headers, "retry-after").and_then(|secs| secs.parse().ok());
            Meaning::Trouble(Trouble::Again { what, after: after.map(Duration::from_secs) })
        }
        _ => Meaning::Trouble(Trouble::failed(what)),
    }
}

fn refused(what: &str, headers: &HeaderMap, asked: Asked<'_>) -> FetchError {
    let gated = text(headers, "x-error-code") == Some("GatedRepo");
    let hint = match (gated, asked.has_token) {
        (true, _) => {
            "ask for it on its page first, and set HF_TOKEN to a token of the account that was let in"
        }
        (false, false) => "the name is wrong, or it is not for everyone: set HF_TOKEN",
        (false, true) => "the name is wrong, or the token in HF_TOKEN may not read it",
    };
    FetchError::Failed(format!("{what}: {hint}"))
}

/// `bytes 0-99/1000`.
fn content_range(value: &str) -> Option<(Span, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) =
        (first.trim().parse().ok()?, last.trim().parse().ok()?, size.trim().parse().ok()?);
    (first <= last && last < size).then(|| (Span { start: first, end: last + 1 }, size))
}

/// The digest of the whole file, from the headers that are meant for it: Hugging Face's, RFC 9530's and the one
/// before it, Artifactory's.
fn sha256(headers: &HeaderMap) -> Option<String> {
    let quoted = |value: &str| value.trim_start_matches("W/").trim_matches('"').to_owned();
    let linked = text(headers, "x-linked-etag").map(quoted).and_then(|value| hex(&value));
    let checksum = || text(headers, "x-checksum-sha256").and_then(hex);
    let digest = || {
        let fields = ["repr-digest", "digest"].into_iter().filter_map(|name| text(headers, name));
        fields.flat_map(|field| field.split(',')).find_map(|one| {
            let (name, value) = one.trim().split_once('=')?;
            let bytes = BASE64_STANDARD.decode(value.trim_matches(':')).ok()?;
            (name.eq_ignore_ascii_case("sha-256") && bytes.len() == 32).then(|| show_hex(&bytes))
        })
    };
    linked.or_else(checksum).or_else(digest)
}

/// 64 hexadecimal digits, made small.
pub fn hex(text: &str) -> Option<String> {
    let is_one = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_lowercase())
}

/// Bytes in hexadecimal digits.
pub fn show_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The server's own words, in brackets.
fn words(headers: &HeaderMap) -> String {
    text(headers, "x-error-message").map_or(String::new(), |words| {
        format!(" ({})", words.chars().take(WORDS_MAX).collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn mean(status: u16, pairs: &[(&'static str, &str)], is_redirected: bool) -> Meaning {
        let link = Link::parse("https://host/m.gguf").unwrap();
        let asked = Asked { link: &link, is_redirected, has_token: false };
        meaning(StatusCode::from_u16(status).unwrap(), &headers(pairs), asked)
    }

    #[test]
    fn bytes_are_what_the_server_says_they_are() {
        let part = mean(206, &[("content-range", "bytes 10-19/100")], false);
        assert_eq!(part, Meaning::Part { span: Span { start: 10, end: 20 }, size: 100 });
        for wrong in ["bytes 10-9/100", "bytes 0-100/100", "bytes 0-1/*", "0-1/2", "bytes */100"] {
            let meaning = mean(206, &[("content-range", wrong)], false);
            assert!(matches!(meaning, Meaning::Trouble(Trouble::Again { .. })), "{wrong}");
        }
        let whole = mean(200, &[("content-length", "7")], false);
        assert_eq!(whole, Meaning::Whole { size: Some(7) });
    }

    #[test]
    fn refusals_say_what_to_do_and_old_redirects_are_followed_again() {
        let words = |meaning: Meaning| match meaning {
            Meaning::Trouble(Trouble::Fatal(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(words(mean(401, &[], false)).contains("HF_TOKEN"));
        let gated = [("x-error-code", "GatedRepo"), ("x-error-message", "Access is restricted")];
        let gated = words(mean(403, &gated, false));
        assert!(gated.contains("restricted") && gated.contains("on its page"), "{gated}");
        assert!(matches!(mean(403, &[], true), Meaning::Trouble(Trouble::Expired(_))));
        let busy = mean(429, &[("retry-after", "7")], false);
        let Meaning::Trouble(Trouble::Again { after, .. }) = busy else { panic!("{busy:?}") };
        assert_eq!(after, Some(Duration::from_secs(7)));
        assert!(matches!(mean(302, &[], false), Meaning::Trouble(Trouble::Fatal(_))));
    }

    #[test]
    fn the_digest_is_taken_from_what_is_meant_as_one() {
        let hex = "A".repeat(64);
        let told =
            Told::of(&headers(&[("x-linked-etag", &format!("\"{hex}\"")), ("x-linked-size", "9")]));
        assert_eq!((told.size, told.sha256), (Some(9), Some("a".repeat(64))));
        let base64 = BASE64_STANDARD.encode([0xaa; 32]);
        for (name, value) in [
            ("repr-digest", format!("sha-512=:AAAA:, sha-256=:{base64}:")),
            ("digest", format!("SHA-256={base64}")),
            ("x-checksum-sha256", hex.clone()),
        ] {
            assert_eq!(
                Told::of(&headers(&[(name, &value)])).sha256,
                Some("a".repeat(64)),
                "{name}"
            );
        }
        let told =
            Told::of(&headers(&[("etag", &format!("\"{hex}\"")), ("last-modified", "then")]));
        assert_eq!(told.sha256, None, "an ETag may be anything");
        assert_eq!(told.validator, Some(format!("\"{hex}\"")));
        assert_eq!(Told::of(&headers(&[("etag", "W/\"1\"")])).validator, None);
    }
}
