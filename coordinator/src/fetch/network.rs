//! Which hosts are asked, in which way: the endpoint of `hf:`, its token, proxies, and who may be asked in clear.

use super::link::Link;
use rustls::pki_types::CertificateDer;
use woolly_protocol::hidden::Hidden;

/// Where `hf:` leads unless `HF_ENDPOINT` says otherwise.
pub const HUGGING_FACE: &str = "https://huggingface.co";

/// What the environment says of the network.
#[derive(Clone, Debug)]
pub struct Network {
    /// The server of `hf:`.
    pub endpoint: Link,
    /// Sent to that server, and to no other.
    pub token: Option<Hidden>,
    /// Which connections go through a proxy.
    pub proxies: Proxies,
    /// Who says that a server is who it is.
    pub roots: Roots,
}

/// Trusted certificates.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// Those of this machine, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    #[default]
    Machine,
    /// These alone.
    These(Vec<CertificateDer<'static>>),
}

/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, read once.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `https://`. It may hold a password.
    pub https: Option<Hidden>,
    /// For `http://`.
    pub http: Option<Hidden>,
    /// Hosts that are asked directly, with commas between them.
    pub none_for: String,
}

impl Network {
    /// Whether a place may be asked; `from` is where a redirect to it came from.
    ///
    /// # Errors
    ///
    /// It would be asked in clear.
    pub fn check(&self, link: &Link, from: Option<&Link>) -> Result<(), String> {
        if link.scheme() == "https" {
            return Ok(());
        }
        if let Some(from) = from.filter(|from| from.scheme() == "https") {
            return Err(format!("{from} leads from https to {link}: that is not followed"));
        }
        if link.is_loopback() || link.origin() == self.endpoint.origin() {
            return Ok(());
        }
        Err(format!(
            "{link} would come in clear, and anyone on the way could change it: use https://"
        ))
    }

    /// The token, where it may be seen.
    pub fn token_for(&self, link: &Link) -> Option<&Hidden> {
        self.token.as_ref().filter(|_| link.origin() == self.endpoint.origin())
    }
}

impl Proxies {
    /// The proxy on the way to a place. This machine is always asked directly.
    pub fn way_to(&self, link: &Link) -> Option<&Hidden> {
        let proxy = if link.scheme() == "https" { &self.https } else { &self.http };
        let direct = link.is_loopback() || self.is_exempt(link);
        proxy.as_ref().filter(|_| !direct)
    }

    /// `*`, `host`, `.domain`, `*.domain`, each also with `:port`; a name stands for those below it, too.
    fn is_exempt(&self, link: &Link) -> bool {
        let (host, authority) = (link.host(), link.authority());
        let host = host.trim_matches(['[', ']']);
        self.none_for.split([',', ' ']).map(str::trim).filter(|one| !one.is_empty()).any(|one| {
            let one = one.to_ascii_lowercase();
            let name = one.trim_start_matches('*').trim_start_matches('.').trim_matches(['[', ']']);
            one == "*" || one == authority || host == name || host.ends_with(&format!(".{name}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(text: &str) -> Link {
        Link::parse(text).unwrap()
    }

    fn network(endpoint: &str) -> Network {
        Network {
            endpoint: link(endpoint),
            token: Some("secret".into()),
            proxies: Proxies::default(),
            roots: Roots::Machine,
        }
    }

    #[test]
    fn in_clear_only_this_machine_and_a_named_endpoint_are_asked() {
        let usual = network(HUGGING_FACE);
        assert!(usual.check(&link("http://127.0.0.1:9/m"), None).is_ok());
        assert!(usual.check(&link("http://mirror/m"), None).unwrap_err().contains("https://"));
        let from = link("https://huggingface.co/m");
        assert!(usual.check(&link("http://127.0.0.1:9/m"), Some(&from)).is_err());
        assert!(network("http://mirror").check(&link("http://mirror/m"), None).is_ok());
        assert!(network("http://mirror").check(&link("http://mirror:81/m"), None).is_err());
    }

    #[test]
    fn the_token_is_for_the_endpoint_alone() {
        let network = network(HUGGING_FACE);
        assert!(network.token_for(&link("https://huggingface.co:443/a")).is_some());
        for other in ["https://cdn.huggingface.co/a", "http://huggingface.co/a", "https://host/a"] {
            assert!(network.token_for(&link(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn proxies_are_used_as_their_variables_say() {
        let proxies = Proxies {
            https: Some("http://proxy:3128".into()),
            http: None,
            none_for: "localhost, .lan,example.com,10.0.0.7,other:8443".to_owned(),
        };
        let through = |text: &str| proxies.way_to(&link(text)).is_some();
        assert!(through("https://huggingface.co/a") && through("https://notexample.com/a"));
        assert!(through("https://other/a"));
        for direct in [
            "http://huggingface.co/a",
            "https://127.0.0.1/a",
            "https://example.com/a",
            "https://a.example.com/a",
            "https://mirror.lan/a",
            "https://10.0.0.7/a",
            "https://other:8443/a",
        ] {
            assert!(!through(direct), "{direct}");
        }
    }
}
