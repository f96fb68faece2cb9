//! URLs: what is accepted as one, who it belongs to, and where a redirect leads.

use std::fmt;
use std::net::IpAddr;
use ureq::http::Uri;

/// Bytes of a URL at most.
const LEN_MAX: usize = 8192;

/// An `http://` or `https://` URL with a host and without a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Link(Uri);

impl Link {
    /// Reads a whole URL.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Link, String> {
        if text.len() > LEN_MAX {
            return Err(format!("a URL has at most {LEN_MAX} bytes, not {}", text.len()));
        }
        let expected = || format!("expected a URL such as https://host/model.gguf, not {text}");
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let authority = uri.authority().ok_or_else(expected)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(expected());
        }
        if authority.as_str().contains('@') {
            return Err(
                "a URL with a user or a password is not taken: it would be shown".to_owned()
            );
        }
        Ok(Link(uri))
    }

    /// Where a redirect from here leads.
    ///
    /// # Errors
    ///
    /// It leads to no URL.
    pub fn join(&self, location: &str) -> Result<Link, String> {
        let origin = self.origin();
        if location.contains("://") {
            Link::parse(location)
        } else if let Some(rest) = location.strip_prefix("//") {
            Link::parse(&format!("{}://{rest}", self.scheme()))
        } else if location.starts_with('/') {
            Link::parse(&format!("{origin}{location}"))
        } else {
            let folder = self.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            Link::parse(&format!("{origin}{folder}/{location}"))
        }
    }

    /// The same URL with another path and nothing behind it.
    ///
    /// # Errors
    ///
    /// The path is none.
    pub fn with_path(&self, path: &str) -> Result<Link, String> {
        Link::parse(&format!("{}{path}", self.origin()))
    }

    /// The URL with another name of the file at its end; what follows it (`?…`) stays.
    ///
    /// # Errors
    ///
    /// The name is none.
    pub fn with_file_name(&self, name: &str) -> Result<Link, String> {
        let folder = self.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let query = self.0.query().map_or(String::new(), |query| format!("?{query}"));
        self.with_path(&format!("{folder}/{name}{query}"))
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or("https")
    }

    /// Scheme, host and port: who may see a token that was meant for it.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme(), self.authority())
    }

    /// `HOST` or `HOST:PORT`, in small letters; the usual port is left out.
    pub fn authority(&self) -> String {
        let usual = if self.scheme() == "https" { 443 } else { 80 };
        let host = self.host();
        match self.0.port_u16().filter(|port| *port != usual) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// The host in small letters, an IPv6 address in brackets.
    pub fn host(&self) -> String {
        self.0.host().unwrap_or_default().to_ascii_lowercase()
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        let bare = host.trim_matches(['[', ']']);
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The path, percent-encoded as it came.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// What is sent to the server.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

/// Without what follows the path: signatures of redirects are secrets for an hour.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A path as it stands in a URL: `/` stays, all but letters, digits and `-._~` is encoded.
pub fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_whole_urls() {
        let link = Link::parse("https://Host:443/a/b.gguf?x=1").unwrap();
        assert_eq!(link.origin(), "https://host");
        let to = |location: &str| link.join(location).unwrap().to_string();
        assert_eq!(to("https://cdn.example/c?sig=1"), "https://cdn.example/c");
        assert_eq!(to("//cdn.example/c"), "https://cdn.example/c");
        assert_eq!(to("/c/d"), "https://host/c/d");
        assert_eq!(to("c"), "https://host/a/c");
        let other = link.with_file_name("c.gguf").unwrap();
        assert_eq!(other.uri().to_string(), "https://host/a/c.gguf?x=1");
        assert!(link.join("ftp://host/c").is_err());
    }

    #[test]
    fn what_is_no_url_is_refused_in_a_sentence() {
        for text in ["https://", "file:///a", "https:/a", "http://user:secret@host/a.gguf", "a/b"] {
            let error = Link::parse(text).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(Link::parse("http://127.0.0.1:80/a").unwrap().is_loopback());
        assert!(Link::parse("http://[::1]:9/a").unwrap().is_loopback());
        assert!(!Link::parse("http://10.0.0.1/a").unwrap().is_loopback());
        assert_eq!(encoded("a b/c#d.gguf"), "a%20b/c%23d.gguf");
    }
}
