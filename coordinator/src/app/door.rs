//! The door of the HTTP API as the process opens it: listeners, the URLs that it prints, SIGHUP.

use crate::announce::{Announcer, dial};
use crate::config::DoorArgs;
use crate::exit::Fatal;
use crate::http::server::certificates::Certificates;
use crate::http::server::keys::ApiKeys;
use crate::http::server::sessions::Sessions;
use crate::shutdown::Reload;
use anyhow::{Context, anyhow};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpListener;

/// The listeners of the HTTP API and their addresses.
///
/// # Errors
///
/// An address that cannot be listened on.
pub async fn bind(
    door: &DoorArgs,
    keys: &ApiKeys,
) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Fatal> {
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in door.addresses()? {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address} for HTTP: --http chooses another address")
        })?;
        if !address.ip().is_loopback() && keys.is_empty() {
            tracing::warn!(
                "the HTTP API on {address} can be used by everyone who reaches it: it asks for no \
                 key (--api-key-file)"
            );
        }
        addresses.push(listener.local_addr().context("the HTTP listener has no address")?);
        listeners.push(listener);
    }
    Ok((listeners, addresses))
}

/// Where the API is, as clients on this machine write it.
pub fn urls(addresses: &[SocketAddr], certificates: &Option<Arc<Certificates>>) -> Vec<String> {
    let url = |address: &SocketAddr| {
        let dialled = dial(*address);
        match certificates {
            None => format!("http://{dialled}"),
            Some(certificates) => match certificates.host(dialled.ip()) {
                Some(name) => format!("https://{name}:{}", address.port()),
                None => format!("https://{dialled}"),
            },
        }
    };
    addresses.iter().map(url).collect()
}

/// Keys for the page at `/`, where every listener is on loopback: nobody else can read an address with a key in it.
pub fn sessions(addresses: &[SocketAddr], urls: &[String]) -> Sessions {
    let is_local = addresses.iter().all(|address| address.ip().is_loopback());
    Sessions::of(urls.first().filter(|_| is_local).cloned())
}

/// Prints where the page is.
///
/// # Errors
///
/// The operating system gives no random numbers.
pub fn announce_page(sessions: &Sessions, announcer: Announcer) -> Result<(), Fatal> {
    let offered = sessions.offer().map_err(|error| anyhow!("no random numbers: {error}"))?;
    if let Some(address) = offered {
        announcer.say(format_args!(
            "To chat and to look at the cluster, open this in a browser of this machine (the key in it works once; \
             `woolly-coordinator page` prints another):\n  {address}"
        ));
    }
    Ok(())
}

/// What SIGHUP does: with HTTPS it reads the certificate again, without it asks for the end as ever.
pub fn reload(certificates: &Option<Arc<Certificates>>) -> Option<Reload> {
    let certificates = Arc::clone(certificates.as_ref()?);
    Some(Box::new(move || {
        tracing::info!("SIGHUP: reading the certificate again");
        certificates.reload_and_log(SystemTime::now());
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificates(names: &[&str]) -> Option<Arc<Certificates>> {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let (cert, private) = (folder.path().join("c"), folder.path().join("k"));
        std::fs::write(&cert, made.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        Some(Arc::new(Certificates::open(cert, private, SystemTime::now()).unwrap()))
    }

    #[test]
    fn urls_name_the_server_as_its_certificate_does() {
        let addresses = ["0.0.0.0:8443".parse().unwrap(), "[::1]:9000".parse().unwrap()];
        let urls = |certificates| urls(&addresses, &certificates);
        assert_eq!(urls(None), ["http://127.0.0.1:8443", "http://[::1]:9000"]);
        let named = urls(certificates(&["*.example", "llm.example", "::1"]));
        assert_eq!(named, ["https://llm.example:8443", "https://[::1]:9000"]);
        assert_eq!(
            urls(certificates(&["*.example"])),
            ["https://127.0.0.1:8443", "https://[::1]:9000"]
        );
        assert!(reload(&None).is_none(), "without a certificate SIGHUP asks for the end");
    }
}
