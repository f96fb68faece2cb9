//! Flags about where the HTTP API listens and who may reach it through what.

use crate::exit::Fatal;
use crate::http::server::certificates::Certificates;
use anyhow::anyhow;
use axum::http::{HeaderValue, Uri};
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Where the API listens unless told otherwise.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Addresses at most.
const LISTENERS_MAX: usize = 16;
/// Bytes of a host's name.
const HOST_MAX: usize = 253;

/// Where the HTTP API listens, and which names and pages it answers.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct DoorArgs {
    /// Where the HTTP API listens, IP:PORT or a port of 127.0.0.1; port 0 takes a free one and prints
    /// it; may be given several times, or separated by commas [default: 127.0.0.1:8080]
    #[arg(long, env = "WOOLLY_HTTP", value_name = "ADDR", value_delimiter = ',')]
    #[arg(value_parser = parse_http)]
    pub http: Vec<SocketAddr>,
    /// The IP of the HTTP API, as llama-server and vLLM call it: the same as --http IP:PORT
    #[arg(long, value_name = "IP", conflicts_with = "http", hide_short_help = true)]
    #[arg(value_parser = parse_host)]
    pub host: Option<IpAddr>,
    /// The port of the HTTP API, as llama-server and vLLM call it: the same as --http IP:PORT
    #[arg(long, value_name = "PORT", conflicts_with = "http", hide_short_help = true)]
    pub port: Option<u16>,
    /// A name besides localhost that is answered on a loopback address, as a proxy in front of it
    /// passes it on; may be given several times, or separated by commas. Other names are refused
    /// there, so that a web page cannot make its own name mean this machine
    #[arg(long, env = "WOOLLY_ALLOW_HOST", value_name = "NAME", value_delimiter = ',')]
    #[arg(value_parser = parse_allowed)]
    pub allow_host: Vec<String>,
    /// An origin such as `https://chat.example` whose web pages may use the API and read its answers;
    /// * is every origin; may be given several times, or separated by commas [default: none]
    #[arg(long, env = "WOOLLY_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    #[arg(value_parser = parse_origin)]
    pub cors_origin: Vec<HeaderValue>,
    /// Speak HTTPS with this certificate: a PEM file with the server's certificate first and those that
    /// lead to its root behind it. All addresses of --http then speak HTTPS (TLS 1.2 or 1.3). SIGHUP reads
    /// both files again
    #[arg(long, env = "WOOLLY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    #[arg(aliases = ["ssl-cert-file", "ssl-certfile"])]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert: a PEM file, not encrypted; ECDSA, RSA or Ed25519
    #[arg(long, env = "WOOLLY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    #[arg(aliases = ["ssl-key-file", "ssl-keyfile"])]
    pub tls_key: Option<PathBuf>,
}

impl DoorArgs {
    /// The certificate to show, read and checked; `None` for plain HTTP.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] for files that cannot be used.
    pub fn certificates(&self) -> Result<Option<Arc<Certificates>>, Fatal> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        let opened = Certificates::open(certificate.clone(), key.clone(), SystemTime::now());
        let opened = opened.map_err(|error| {
            Fatal::Usage(anyhow!(error).context("cannot use --tls-cert and --tls-key"))
        })?;
        Ok(Some(Arc::new(opened)))
    }

    /// The addresses to listen on, at least one.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] for too many of them.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Fatal> {
        if self.http.len() > LISTENERS_MAX {
            let text = format!("--http names more than {LISTENERS_MAX} addresses");
            return Err(Fatal::usage(text));
        }
        if !self.http.is_empty() {
            return Ok(self.http.clone());
        }
        let ip = self.host.unwrap_or(DEFAULT.ip());
        Ok(vec![SocketAddr::new(ip, self.port.unwrap_or(DEFAULT.port()))])
    }
}

fn parse_http(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(DEFAULT.ip(), port));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let text = if host == "localhost" { format!("127.0.0.1:{port}") } else { text.to_owned() };
    text.parse().map_err(|_| "expected IP:PORT such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

fn parse_host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(DEFAULT.ip());
    }
    text.parse().map_err(|_| "expected an IP such as 127.0.0.1 or 0.0.0.0".to_owned())
}

fn parse_allowed(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.len() <= HOST_MAX && !text.is_empty() && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("expected a name without scheme and port, such as llm.example".to_owned())
    }
}

/// An origin is a scheme and a host, perhaps with a port, and nothing behind (RFC 6454).
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || "expected an origin such as https://chat.example or *".to_owned();
    let value = HeaderValue::from_str(text).map_err(|_| wrong())?;
    if text == "*" {
        return Ok(value);
    }
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let bare = uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/";
    if bare && !text.ends_with('/') && uri.query().is_none() { Ok(value) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_several_words() {
        let of = |http: &[&str], host: Option<&str>, port| {
            let http = http.iter().map(|text| parse_http(text).unwrap()).collect();
            let host = host.map(|text| parse_host(text).unwrap());
            let found = DoorArgs { http, host, port, ..DoorArgs::default() }.addresses().unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&[], None, None), ["127.0.0.1:8080"]);
        assert_eq!(of(&["9000", "[::1]:80"], None, None), ["127.0.0.1:9000", "[::1]:80"]);
        assert_eq!(of(&["localhost:0"], None, None), ["127.0.0.1:0"]);
        assert_eq!(of(&[], Some("0.0.0.0"), None), ["0.0.0.0:8080"]);
        assert_eq!(of(&[], Some("localhost"), Some(1)), ["127.0.0.1:1"]);
        assert!(parse_http("everywhere").unwrap_err().contains("127.0.0.1:8080"));
        assert!(parse_http("65536").is_err());
    }

    #[test]
    fn names_and_origins_are_what_they_must_be() {
        for good in ["llm.example", "my-box", "a_b.lan"] {
            assert!(parse_allowed(good).is_ok(), "{good}");
        }
        for bad in ["", "http://llm.example", "llm.example:80", "a b", "*"] {
            assert!(parse_allowed(bad).is_err(), "{bad}");
        }
        for good in ["*", "https://chat.example", "http://localhost:3000", "app://obsidian.md"] {
            assert!(parse_origin(good).is_ok(), "{good}");
        }
        for bad in ["chat.example", "https://chat.example/", "https://a/b", "https://a?b", ""] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }
}
