//! Keys of the page at `/` for the admin API: one that stands in an address and works once, and those that it is exchanged for.
//!
//! `serve` on loopback prints an address with a one-use key behind `#`, which a browser sends to nobody; the page exchanges it for a key
//! that it keeps in its tab and sends as `Authorization: Bearer KEY`. Never a cookie: those are sent by pages of others, too. All of them
//! end with the process. Only hashes are kept.
//!
//! Bounded: 8 one-use keys and 64 keys of tabs; the oldest go first.

use super::keys::{ApiKeys, bearer_of};
use axum::http::HeaderMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One-use keys that were not used yet.
const OFFERED_MAX: usize = 8;
/// Tabs that hold a key.
const HELD_MAX: usize = 64;

/// The keys. Closed, it gives none and knows none.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Where the page is, as a browser of this machine writes it; `None` if the page gets no keys.
    page: Option<String>,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    offered: VecDeque<ApiKeys>,
    held: VecDeque<ApiKeys>,
}

impl Sessions {
    /// For a page at this address, such as `http://127.0.0.1:8080`.
    pub fn of(page: Option<String>) -> Sessions {
        Sessions { page, keys: Mutex::default() }
    }

    /// Whether the page gets keys.
    pub fn are_open(&self) -> bool {
        self.page.is_some()
    }

    /// An address that opens the page with a key that works once; `None` if the page gets no keys.
    ///
    /// # Errors
    ///
    /// The operating system gives no random numbers.
    pub fn offer(&self) -> Result<Option<String>, getrandom::Error> {
        let Some(page) = &self.page else { return Ok(None) };
        let key = fresh()?;
        push(&mut self.lock().offered, &key, OFFERED_MAX);
        Ok(Some(format!("{page}/#key={key}")))
    }

    /// Exchanges a one-use key for one that a tab may keep; `None` if it is none, or was used.
    ///
    /// # Errors
    ///
    /// The operating system gives no random numbers.
    pub fn exchange(&self, key: &str) -> Result<Option<String>, getrandom::Error> {
        let made = fresh()?;
        let mut keys = self.lock();
        let Some(at) = keys.offered.iter().position(|offered| offered.has(key.as_bytes())) else {
            return Ok(None);
        };
        keys.offered.remove(at);
        push(&mut keys.held, &made, HELD_MAX);
        Ok(Some(made))
    }

    /// Whether a request comes with the key of a tab.
    pub fn knows(&self, headers: &HeaderMap) -> bool {
        let given = bearer_of(headers);
        given.is_some_and(|key| self.lock().held.iter().any(|held| held.has(key)))
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(keys: &mut VecDeque<ApiKeys>, key: &str, most: usize) {
    if keys.len() == most {
        keys.pop_front();
    }
    keys.push_back(ApiKeys::new([key]));
}

/// 128 random bits in hex.
fn fresh() -> Result<String, getrandom::Error> {
    Ok(format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;

    fn with(key: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {key}").parse().unwrap());
        headers
    }

    #[test]
    fn a_key_of_the_address_works_once() {
        let sessions = Sessions::of(Some("http://127.0.0.1:8080".to_owned()));
        let address = sessions.offer().unwrap().unwrap();
        let key = address.strip_prefix("http://127.0.0.1:8080/#key=").unwrap();
        assert!(!sessions.knows(&with(key)), "it opens nothing itself");
        assert_eq!(sessions.exchange("other").unwrap(), None);
        let held = sessions.exchange(key).unwrap().unwrap();
        assert_eq!(sessions.exchange(key).unwrap(), None, "it was used");
        assert_eq!(sessions.exchange(&held).unwrap(), None, "it is of the other kind");
        assert!(sessions.knows(&with(&held)) && !sessions.knows(&HeaderMap::new()));
    }

    #[test]
    fn keys_are_bounded_and_the_oldest_go_first() {
        let sessions = Sessions::of(Some(String::new()));
        let offer = || sessions.offer().unwrap().unwrap()["/#key=".len()..].to_owned();
        let first = offer();
        for _ in 0..OFFERED_MAX {
            offer();
        }
        assert_eq!(sessions.exchange(&first).unwrap(), None);
        let mut held = Vec::new();
        for _ in 0..=HELD_MAX {
            held.push(sessions.exchange(&offer()).unwrap().unwrap());
        }
        assert!(!sessions.knows(&with(&held[0])) && sessions.knows(&with(&held[1])));
    }

    #[test]
    fn where_the_page_gets_no_keys_there_are_none() {
        let sessions = Sessions::default();
        assert_eq!(sessions.offer().unwrap(), None);
        assert!(!sessions.are_open() && sessions.exchange("").unwrap().is_none());
    }
}
