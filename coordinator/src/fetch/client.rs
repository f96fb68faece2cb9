//! The HTTP client: one request with its redirects. It blocks.

use super::answer::{Asked, Meaning, Told, meaning};
use super::course::Pace;
use super::link::Link;
use super::network::{Network, Roots};
use super::spans::Span;
use super::trouble::{FetchError, Trouble};
use std::io::Read;
use std::time::Duration;
use ureq::http::header;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, BodyReader, Proxy};
use woolly_protocol::crypto::provider;
use woolly_protocol::hidden::Hidden;

/// Redirects of one request at most.
const REDIRECTS_MAX: usize = 10;
/// Until a connection stands, proxy and TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Bytes of an answer's headers at most.
const HEADERS_MAX: usize = 64 << 10;

/// A client for all servers.
pub struct Client {
    network: Network,
    direct: Agent,
    through: Vec<(Hidden, Agent)>,
}

/// Where a file is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its URL.
    pub link: Link,
    /// Whether a redirect led there: then it may be good for a while only.
    pub is_redirected: bool,
}

impl Place {
    /// Where it is always.
    pub fn first(link: &Link) -> Place {
        Place { link: link.clone(), is_redirected: false }
    }
}

/// An answer with bytes of a file.
pub struct Reply {
    /// Where it came from in the end.
    pub place: Place,
    /// Which bytes follow: `Part` or `Whole`.
    pub meaning: Meaning,
    /// What was said of the file on the way.
    pub told: Told,
    /// Where the list goes on (`Link: <…>; rel="next"`).
    pub next: Option<String>,
    /// The bytes.
    pub body: BodyReader<'static>,
}

impl Client {
    /// A client that asks as `network` says.
    ///
    /// # Errors
    ///
    /// A proxy's URL that is none.
    pub fn new(network: Network, pace: &Pace) -> Result<Client, FetchError> {
        let tls = tls(&network.roots);
        let mut through = Vec::new();
        for proxy in [&network.proxies.https, &network.proxies.http].into_iter().flatten() {
            let made = Proxy::new(proxy.reveal()).map_err(|_| {
                let expected = "HTTPS_PROXY or HTTP_PROXY is no proxy: expected http://HOST:PORT";
                FetchError::Usage(expected.to_owned())
            })?;
            through.push((proxy.clone(), agent(Some(made), tls.clone(), pace)));
        }
        let direct = agent(None, tls, pace);
        Ok(Client { network, direct, through })
    }

    /// The endpoint of `hf:`.
    pub fn endpoint(&self) -> &Link {
        &self.network.endpoint
    }

    /// Asks for a file, or for some of its bytes if they are still those that `validator` stands for.
    ///
    /// # Errors
    ///
    /// [`Trouble`], when nothing of it comes.
    pub fn get(
        &self,
        place: &Place,
        span: Option<Span>,
        validator: Option<&str>,
    ) -> Result<Reply, Trouble> {
        let (mut at, mut from): (Link, Option<Link>) = (place.link.clone(), None);
        let mut told = Told::default();
        for _ in 0..=REDIRECTS_MAX {
            self.network.check(&at, from.as_ref()).map_err(Trouble::failed)?;
            let mut request =
                self.agent(&at).get(at.uri()).header(header::ACCEPT_ENCODING, "identity");
            if let Some(span) = span {
                let range = format!("bytes={}-{}", span.start, span.end.saturating_sub(1));
                request = request.header(header::RANGE, range);
                if let Some(validator) = validator {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            let token = self.network.token_for(&at);
            if let Some(token) = token {
                let value = format!("Bearer {}", token.reveal());
                request = request.header(header::AUTHORIZATION, value);
            }
            let called = request.call().map_err(|error| unreachable(&at, &error))?;
            let (parts, body) = called.into_parts();
            told = told.and(Told::of(&parts.headers));
            let is_redirected = place.is_redirected || from.is_some();
            let asked = Asked { link: &at, is_redirected, has_token: token.is_some() };
            match meaning(parts.status, &parts.headers, asked) {
                Meaning::Redirect(location) => {
                    let to = at.join(&location).map_err(Trouble::failed)?;
                    from = Some(std::mem::replace(&mut at, to));
                }
                Meaning::Trouble(trouble) => return Err(trouble),
                meaning => {
                    let next = parts
                        .headers
                        .get(header::LINK)
                        .and_then(|value| next_page(value.to_str().ok()?));
                    let place = Place { link: at, is_redirected };
                    return Ok(Reply { place, meaning, told, next, body: body.into_reader() });
                }
            }
        }
        Err(Trouble::failed(format!(
            "{} leads to more than {REDIRECTS_MAX} other places",
            place.link
        )))
    }

    /// A text of at most `most` bytes, and where it goes on.
    ///
    /// # Errors
    ///
    /// As of [`Client::get`]; a text that is longer, or breaks off.
    pub fn text(&self, link: &Link, most: u64) -> Result<(Vec<u8>, Option<String>), Trouble> {
        let reply = self.get(&Place::first(link), None, None)?;
        let mut text = Vec::new();
        let read = reply.body.take(most + 1).read_to_end(&mut text);
        read.map_err(|error| Trouble::again(format!("{link} broke off: {error}")))?;
        if text.len() as u64 > most {
            return Err(Trouble::failed(format!("{link} is longer than {} MiB", most >> 20)));
        }
        Ok((text, reply.next))
    }

    fn agent(&self, link: &Link) -> &Agent {
        let proxy = self.network.proxies.way_to(link);
        let through = proxy.and_then(|proxy| self.through.iter().find(|(one, _)| one == proxy));
        through.map_or(&self.direct, |(_, agent)| agent)
    }
}

fn agent(proxy: Option<Proxy>, tls: TlsConfig, pace: &Pace) -> Agent {
    Agent::config_builder()
        .proxy(proxy)
        .tls_config(tls)
        // What a redirect says of the file is read, and who may be asked is decided, at every step.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("woolly/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_MAX))
        .timeout_recv_response(Some(pace.silence))
        .timeout_per_read(Some(pace.silence))
        .max_response_header_size(HEADERS_MAX)
        .max_idle_connections(pace.connections * 2)
        .max_idle_connections_per_host(pace.connections)
        .build()
        .new_agent()
}

fn tls(roots: &Roots) -> TlsConfig {
    let certificates = match roots {
        // Some of a machine's certificates may be unreadable; what is trusted by the others is.
        Roots::Machine => rustls_native_certs::load_native_certs().certs,
        Roots::These(certificates) => certificates.clone(),
    };
    let certificates = certificates.iter().map(|one| Certificate::from_der(one).to_owned());
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::from(certificates.collect::<Vec<_>>()))
        .unversioned_rustls_crypto_provider(provider())
        .build()
}

fn unreachable(link: &Link, error: &ureq::Error) -> Trouble {
    let what = format!("cannot reach {link}: {error}");
    match error {
        // A certificate does not get better by itself.
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => Trouble::failed(format!(
            "{what}. Certificates are those of this machine; SSL_CERT_FILE names others"
        )),
        ureq::Error::Io(error)
            if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) =>
        {
            Trouble::failed(format!(
                "{what}. Certificates are those of this machine; SSL_CERT_FILE names others"
            ))
        }
        _ => Trouble::again(what),
    }
}

/// The URL of `<URL>; rel="next"`.
fn next_page(value: &str) -> Option<String> {
    let one = value.split(',').find(|one| one.contains("rel=\"next\""))?;
    Some(one.split_once('<')?.1.split_once('>')?.0.to_owned())
}
