//! API keys: who may use the server, and which key a request came with.
//!
//! Without any key configured everyone may, under key 0. With keys, every path but the probes and the
//! page at `/` asks for one: `Authorization: Bearer KEY` as OpenAI's clients send it, `x-api-key: KEY`
//! as Anthropic's do, or `api-key: KEY` as Azure's do.

use crate::generation::KeyId;
use crate::http::error::{ApiError, Problem};
use axum::http::{HeaderMap, header};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Paths that need no key: a probe or a browser has none. What they show to those without one is up
/// to them.
const OPEN_PATHS: [&str; 7] =
    ["/health", "/v1/health", "/ping", "/livez", "/readyz", "/", "/favicon.ico"];

/// What the page at `/` consists of, which is the same for everybody.
const PAGE_FILES: &str = "/page/";

/// Headers that hold a key and nothing else.
const KEY_HEADERS: [&str; 2] = ["x-api-key", "api-key"];

/// The keys, as hashes: all have one length, so comparing tells nothing about them.
#[derive(Clone, Default)]
pub struct ApiKeys {
    hashes: Vec<[u8; 32]>,
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.hashes.len())
    }
}

impl ApiKeys {
    /// Keys in the order in which they are numbered, from 0; the same key twice is one key.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> ApiKeys {
        let mut hashes: Vec<[u8; 32]> = Vec::new();
        for key in keys {
            let hash = *blake3::hash(key.as_bytes()).as_bytes();
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
        ApiKeys { hashes }
    }

    /// What stands for a key where the key itself must not: its hash. Without keys all are one.
    pub fn hash(&self, key: KeyId) -> [u8; 32] {
        self.hashes.get(key.0 as usize).copied().unwrap_or_default()
    }

    /// The key of which a function of its hash is this.
    pub fn with(&self, wanted: &[u8; 32], of: impl Fn(&[u8; 32]) -> [u8; 32]) -> Option<KeyId> {
        if self.is_empty() {
            return (of(&<[u8; 32]>::default()) == *wanted).then(KeyId::default);
        }
        let found = (0..).zip(&self.hashes).find(|(_, hash)| of(hash) == *wanted);
        found.map(|(index, _)| KeyId(index))
    }

    /// Whether none is configured: everyone may use the server.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The key of a request to `path`; `None` if it came without one that is known to a path that
    /// needs none.
    ///
    /// # Errors
    ///
    /// 401 without a key or with another one than those configured, saying what came instead.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> Result<Option<KeyId>, ApiError> {
        if self.is_empty() {
            return Ok(Some(KeyId::default()));
        }
        let found = match given(headers) {
            Given::Key(key) => self.find(key),
            _ => None,
        };
        if found.is_some() || OPEN_PATHS.contains(&path) || path.starts_with(PAGE_FILES) {
            return Ok(found);
        }
        let text = match given(headers) {
            Given::Key(_) => "The API key is not one of those that this server knows.",
            Given::Nothing => {
                "You didn't provide an API key: send it as 'Authorization: Bearer KEY'."
            }
            Given::Basic => {
                "'Authorization' came with the scheme Basic; this server expects \
                 'Authorization: Bearer KEY'."
            }
            Given::Bare => {
                "'Authorization' came without a scheme; put 'Bearer ' before the key: \
                 'Authorization: Bearer KEY'."
            }
            Given::Several => {
                "More than one API key came with this request: send one, as 'Authorization: Bearer \
                 KEY'."
            }
        };
        Err(ApiError::new(Problem::Key, text))
    }

    /// Whether this is one of the keys.
    pub fn has(&self, given: &[u8]) -> bool {
        self.find(given).is_some()
    }

    /// Looks at every key, whether it was found or not: the time tells nothing about the place.
    fn find(&self, given: &[u8]) -> Option<KeyId> {
        let hash = *blake3::hash(given).as_bytes();
        let (mut found, mut place) = (Choice::from(0), 0);
        for (index, known) in (0_u32..).zip(&self.hashes) {
            let equal = hash.ct_eq(known);
            place.conditional_assign(&index, equal);
            found |= equal;
        }
        bool::from(found).then_some(KeyId(place))
    }
}

/// The key that a request comes with, if it is one.
pub fn bearer_of(headers: &HeaderMap) -> Option<&[u8]> {
    match given(headers) {
        Given::Key(key) => Some(key),
        _ => None,
    }
}

/// What a request has where a key is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given<'a> {
    Nothing,
    Key(&'a [u8]),
    /// A name and a password.
    Basic,
    /// Something without a scheme that is known.
    Bare,
    /// Different keys.
    Several,
}

/// Looks at all headers that may hold a key. The same key in two of them is one key.
fn given(headers: &HeaderMap) -> Given<'_> {
    let bearers = headers.get_all(header::AUTHORIZATION).iter().map(|v| bearer(v.as_bytes()));
    let plain = KEY_HEADERS.iter().flat_map(|name| headers.get_all(*name));
    let plain = plain.map(|value| Given::Key(value.as_bytes().trim_ascii()));
    let mut found = Given::Nothing;
    for next in bearers.chain(plain) {
        found = match (found, next) {
            (Given::Nothing, next) => next,
            (found, next) if found == next => found,
            _ => return Given::Several,
        };
    }
    found
}

/// The key of an `Authorization` header.
fn bearer(value: &[u8]) -> Given<'_> {
    let value = value.trim_ascii();
    let scheme_of = |scheme: &[u8]| {
        let (start, rest) = value.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
    };
    match (scheme_of(b"bearer "), scheme_of(b"basic ")) {
        (Some(key), _) => Given::Key(key),
        (None, Some(_)) => Given::Basic,
        (None, None) => Given::Bare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], path: &str, value: Option<&str>) -> Option<u32> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let found = ApiKeys::new(keys.iter().copied()).check(path, &headers).ok()?;
        Some(found.map_or(u32::MAX, |key| key.0))
    }

    #[test]
    fn without_keys_everyone_is_key_0() {
        assert_eq!(check(&[], "/v1/models", None), Some(0));
        assert_eq!(check(&[], "/v1/models", Some("Bearer anything")), Some(0));
    }

    #[test]
    fn a_key_is_found_by_all_of_its_bytes() {
        let keys = ["sk-first", "sk-second", "sk-first"];
        assert_eq!(check(&keys, "/v1/models", Some("Bearer sk-first")), Some(0));
        assert_eq!(check(&keys, "/v1/models", Some("bearer  sk-second ")), Some(1));
        for bad in
            ["Bearer sk-firs", "Bearer sk-first1", "Basic sk-first", "sk-first", "Bearer ", ""]
        {
            assert_eq!(check(&keys, "/v1/models", Some(bad)), None, "{bad}");
        }
        assert_eq!(check(&keys, "/v1/models", None), None);
    }

    #[test]
    fn probes_need_no_key() {
        for path in OPEN_PATHS {
            assert_eq!(check(&["sk-first"], path, None), Some(u32::MAX), "{path}");
            assert_eq!(check(&["sk-first"], path, Some("Bearer sk-first")), Some(0), "{path}");
        }
    }

    #[test]
    fn a_key_may_come_in_other_headers_and_what_came_instead_is_said() {
        let keys = ApiKeys::new(["sk-first", "sk-second"]);
        let answer = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            match keys.check("/v1/models", &headers) {
                Ok(key) => key.unwrap().0.to_string(),
                Err(error) => error.body()["error"]["message"].as_str().unwrap().to_owned(),
            }
        };
        assert_eq!(answer(&[("x-api-key", "sk-second")]), "1");
        assert_eq!(answer(&[("api-key", " sk-first")]), "0");
        assert_eq!(answer(&[("x-api-key", "sk-first"), ("authorization", "Bearer sk-first")]), "0");
        let two = answer(&[("x-api-key", "sk-first"), ("authorization", "Bearer sk-second")]);
        assert!(two.contains("More than one"), "{two}");
        assert!(answer(&[]).contains("didn't provide"));
        assert!(answer(&[("authorization", "Basic eDp5")]).contains("Basic"));
        let bare = answer(&[("authorization", "sk-first")]);
        assert!(bare.contains("without a scheme"), "{bare}");
        assert!(answer(&[("x-api-key", "sk-third")]).contains("not one of those"));
    }

    #[test]
    fn two_keys_in_one_request_are_none() {
        let mut headers = HeaderMap::new();
        for value in ["Bearer sk-first", "Bearer sk-second"] {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        let keys = ApiKeys::new(["sk-first", "sk-second"]);
        assert!(keys.check("/v1/models", &headers).is_err());
    }
}
