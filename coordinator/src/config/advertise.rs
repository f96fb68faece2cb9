//! Where workers reach the coordinator: what it listens on, and what they dial.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The host that workers dial; the port is the listener's unless given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// A host name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The port, if given.
    pub port: Option<u16>,
}

/// An address to listen on; `localhost` is 127.0.0.1.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if host == "localhost" {
        return parse_address(&format!("127.0.0.1:{port}"));
    }
    text.parse().map_err(|_| "expected IP:PORT such as 127.0.0.1:7400 or [::]:7400".to_owned())
}

/// What workers dial.
pub fn parse_advertise(text: &str) -> Result<Advertise, String> {
    let expected = "expected HOST or HOST:PORT such as 192.168.1.10 or node1.lan:7400";
    if let Ok(address) = text.parse::<SocketAddr>() {
        return checked_advertise(address.ip().to_string(), Some(address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<Ipv6Addr>() {
        return checked_advertise(ip.to_string(), None);
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| expected)?)),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(allowed) {
        return Err(expected.to_owned());
    }
    checked_advertise(host.to_owned(), port)
}

fn checked_advertise(host: String, port: Option<u16>) -> Result<Advertise, String> {
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(format!("{host} is no address that a worker can dial"));
    }
    if port == Some(0) {
        return Err("port 0 is no port that a worker can dial".to_owned());
    }
    Ok(Advertise { host, port })
}
