//! What `serve` says on a terminal: the join line alone on stdout, all else on stderr.

use crate::config::LogFormat;
use crate::units::show_count;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Writes one line to stdout. A closed stdout (a pipe into `head`) is no reason to stop serving.
pub fn stdout_line(line: impl fmt::Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Writes one line to stderr; a closed stderr is ignored.
pub fn stderr_line(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Says things on stderr: as lines for people, or as JSON logs if that is what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Announcer(pub LogFormat);

impl Announcer {
    /// Says one or more lines.
    pub fn say(self, text: impl fmt::Display) {
        match self.0 {
            LogFormat::Text => stderr_line(text),
            LogFormat::Json => tracing::info!("{text}"),
        }
    }
}

/// The command that joins a worker.
pub fn join_line(address: &str, token: &str) -> String {
    format!("woolly-worker join {address} --token {token}")
}

/// `host:port`, an IPv6 host in brackets.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Says how other machines can join, when only this one can.
pub fn loopback_hint(listen: SocketAddr) -> Option<String> {
    listen.ip().is_loopback().then(|| {
        format!(
            "The line above is for this machine. For others: --listen 0.0.0.0:{} --advertise \
             ADDRESS-OF-THIS-MACHINE",
            listen.port()
        )
    })
}

/// The address that workers dial when the listener is on all addresses: that of the default route.
/// No packet is sent.
pub fn outward_address(listen: SocketAddr) -> io::Result<IpAddr> {
    // Addresses reserved for documentation: routed like any other, and nobody's.
    let (any, far) = match listen {
        SocketAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        SocketAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(far)?;
    Ok(socket.local_addr()?.ip())
}

/// The line that says where the API is, with a command to try it.
pub fn http_line(address: SocketAddr, model: &str) -> String {
    let dial = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => {
            SocketAddr::from(([127, 0, 0, 1], address.port()))
        }
        ip if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), address.port())
        }
        _ => address,
    };
    let body = serde_json::json!({
        "model": model,
        "messages": [{"role": "user", "content": "Hello!"}],
    });
    // Inside single quotes of a shell, a quote is closed, escaped and opened again.
    let body = body.to_string().replace('\'', r"'\''");
    format!(
        "http://{dial}/v1 is ready. Try:\n  curl http://{dial}/v1/chat/completions -H \
         'content-type: application/json' -d '{body}'"
    )
}

/// The KV capacity in positions and in blocks of `block_len`, and what limits it.
pub fn kv_line(
    kv_type: &str,
    positions: u64,
    block_len: u32,
    ctx_size: u32,
    limited_by: &str,
) -> String {
    format!(
        "KV cache ({kv_type}): {} tokens in {} blocks of {block_len}, limited by {limited_by}; a sequence has at \
         most {} tokens",
        show_count(positions),
        show_count(positions / u64::from(block_len)),
        show_count(u64::from(ctx_size)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_join_line_is_what_a_shell_takes() {
        assert_eq!(
            join_line(&host_port("192.168.1.10", 7400), "wly1.a.b.c"),
            "woolly-worker join 192.168.1.10:7400 --token wly1.a.b.c"
        );
        assert_eq!(host_port("fd00::1", 7400), "[fd00::1]:7400");
    }

    #[test]
    fn only_loopback_needs_a_hint() {
        assert!(loopback_hint("127.0.0.1:7400".parse().unwrap()).unwrap().contains("--advertise"));
        assert!(loopback_hint("0.0.0.0:7400".parse().unwrap()).is_none());
    }

    #[test]
    fn the_example_survives_a_model_name_with_quotes() {
        let line = http_line("0.0.0.0:8080".parse().unwrap(), "it's");
        assert!(line.contains("http://127.0.0.1:8080/v1/chat/completions"), "{line}");
        assert!(line.contains(r#""model":"it'\''s""#), "{line}");
    }

    #[test]
    fn kv_is_told_in_tokens() {
        let line = kv_line("q8_0", 131_072, 32, 8192, "stage 1");
        assert!(line.contains("131,072 tokens in 4,096 blocks of 32"), "{line}");
    }
}
