//! What `serve` says on a terminal: the join line alone on stdout, all else on stderr.

use crate::config::{CurlKey, LogFormat};
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

/// The lines that say where the API is, with a command to try it. The key itself is never shown.
/// `urls` are those of the listeners, such as `http://127.0.0.1:8080`.
pub fn ready_lines(urls: &[String], model: &str, key: CurlKey) -> String {
    let body = serde_json::json!({
        "model": model,
        "messages": [{"role": "user", "content": "Hello!"}],
    });
    let (said, header) = match key {
        CurlKey::None => ("Try:", String::new()),
        CurlKey::OfFile(file) => {
            let first = format!("$(grep -m 1 '^[^#]' {})", quoted(&file));
            ("Try:", format!(" -H \"authorization: Bearer {first}\""))
        }
        CurlKey::OfVariable => (
            "Try, with one of the API keys in WOOLLY_API_KEY:",
            " -H \"authorization: Bearer $WOOLLY_API_KEY\"".to_owned(),
        ),
    };
    let places: Vec<String> = urls.iter().map(|url| format!("{url}/v1")).collect();
    let (at, body) = (places.first().cloned().unwrap_or_default(), quoted(&body.to_string()));
    let is_ready = if places.len() == 1 { "is" } else { "are" };
    format!(
        "{} {is_ready} ready. {said}\n  curl {at}/chat/completions{header} -H 'content-type: \
         application/json' -d {body}",
        places.join(" and "),
    )
}

/// The address to dial for one that is listened on.
pub fn dial(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => {
            SocketAddr::from(([127, 0, 0, 1], address.port()))
        }
        ip if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), address.port())
        }
        _ => address,
    }
}

/// One word of a shell: inside single quotes, a quote is closed, escaped and opened again.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
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

/// What there is beside it for layers that see the last `window` tokens only.
pub fn window_line(window: u32, blocks: u32, sequences: u64) -> String {
    format!(
        "  layers that see the last {} tokens: {} blocks of 32, enough for {} sequences of any length at once",
        show_count(u64::from(window)),
        show_count(u64::from(blocks)),
        show_count(sequences),
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
        let at = [format!("http://{}", dial("0.0.0.0:8080".parse().unwrap()))];
        let line = ready_lines(&at, "it's", CurlKey::None);
        assert!(line.contains("curl http://127.0.0.1:8080/v1/chat/completions -H"), "{line}");
        assert!(line.contains(r#""model":"it'\''s""#), "{line}");
    }

    #[test]
    fn the_example_sends_a_key_where_one_is_asked_for() {
        let at = ["http://127.0.0.1:1".to_owned(), "http://[::1]:2".to_owned()];
        let line = ready_lines(&at, "m", CurlKey::OfVariable);
        assert!(
            line.starts_with("http://127.0.0.1:1/v1 and http://[::1]:2/v1 are ready."),
            "{line}"
        );
        assert!(line.contains("-H \"authorization: Bearer $WOOLLY_API_KEY\""), "{line}");
        // What the shell makes of it.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my 'keys'");
        std::fs::write(&file, "# team\n\nsk-first\nsk-second\n").unwrap();
        let key = CurlKey::OfFile(file.to_str().unwrap().to_owned());
        let line = ready_lines(&at, "m", key);
        let command = line.split_once("curl ").unwrap().1;
        let script = format!("printf '%s|' {command}");
        let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let words = String::from_utf8(shell.stdout).unwrap();
        assert!(words.contains("|-H|authorization: Bearer sk-first|-H|"), "{words}");
    }

    #[test]
    fn kv_is_told_in_tokens() {
        let line = kv_line("q8_0", 131_072, 32, 8192, "stage 1");
        assert!(line.contains("131,072 tokens in 4,096 blocks of 32"), "{line}");
        let line = window_line(128, 208, 16);
        assert!(line.contains("last 128 tokens: 208 blocks of 32, enough for 16"), "{line}");
    }
}
