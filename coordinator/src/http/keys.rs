//! API keys: who may use the server, and which key a request came with.
//!
//! Without any key configured everyone may, under key 0. With keys, every path but the probes asks
//! for `Authorization: Bearer KEY`, as OpenAI's clients send it.

use super::error::{ApiError, Problem};
use crate::generation::KeyId;
use axum::http::{HeaderMap, header};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Paths that need no key: a probe has none, and tells nothing about requests.
const OPEN_PATHS: [&str; 3] = ["/health", "/livez", "/readyz"];

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

    /// Whether none is configured: everyone may use the server.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The key of a request to `path`.
    ///
    /// # Errors
    ///
    /// 401 without a key or with another one than those configured.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> Result<KeyId, ApiError> {
        if self.is_empty() || OPEN_PATHS.contains(&path) {
            return Ok(KeyId::default());
        }
        let Some(given) = bearer(headers) else {
            let text = "You didn't provide an API key: send it as 'Authorization: Bearer KEY'.";
            return Err(ApiError::new(Problem::Key, text));
        };
        self.find(given).ok_or_else(|| {
            ApiError::new(Problem::Key, "The API key is not one of those that this server knows.")
        })
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

/// The token of a single `Authorization: Bearer …` header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], path: &str, value: Option<&str>) -> Option<u32> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        ApiKeys::new(keys.iter().copied()).check(path, &headers).ok().map(|key| key.0)
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
            assert_eq!(check(&["sk-first"], path, None), Some(0), "{path}");
        }
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
