//! A server that tests write: each request is answered by a function, which may lie and break off.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use woolly_protocol::crypto::provider;

/// A request, as far as tests look at it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `GET` or `CONNECT`.
    pub method: String,
    /// Path and query, or what is connected to.
    pub path: String,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
}

impl Seen {
    /// The bytes asked for, `first..behind the last`.
    pub fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse::<u64>().ok()? + 1))
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines, beside the length.
    pub headers: Vec<(&'static str, String)>,
    /// The body that is announced.
    pub body: Vec<u8>,
    /// How much of it is sent before the connection is closed.
    pub sent: Option<usize>,
    /// How long nothing is sent between the headers and the body.
    pub silence: Duration,
}

impl Answer {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, body: body.into(), ..Answer::default() }
    }

    /// With one more header.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Answer {
        self.headers.push((name, value.to_string()));
        self
    }

    /// What an honest server says to a request for a file: the range if one is asked for.
    pub fn file(seen: &Seen, file: &[u8]) -> Answer {
        match seen.range() {
            None => Answer::new(200, file),
            Some((first, end)) => {
                let end = end.min(file.len() as u64);
                let part = &file[first as usize..end as usize];
                let range = format!("bytes {first}-{}/{}", end - 1, file.len());
                Answer::new(206, part).with("content-range", range)
            }
        }
    }

    /// It leads elsewhere.
    pub fn redirect(to: impl ToString) -> Answer {
        Answer::new(302, "").with("location", to)
    }
}

/// A server on a free port of loopback, until the process ends.
pub struct Server {
    /// Where it listens.
    pub at: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    sent: Arc<Mutex<u64>>,
    closed: Arc<Mutex<bool>>,
}

impl Server {
    /// Plain HTTP.
    pub fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
        Server::accept(Arc::new(answer), None)
    }

    /// HTTPS with a certificate of `name`, and the certificate that has to be trusted.
    pub fn start_tls(
        name: &str,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> (Server, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        (Server::accept(Arc::new(answer), Some(Arc::new(config))), certificate)
    }

    fn accept(
        answer: Arc<dyn Fn(&Seen) -> Answer + Send + Sync>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server =
            Server { at, seen: Arc::default(), sent: Arc::default(), closed: Arc::default() };
        let (seen, sent) = (Arc::clone(&server.seen), Arc::clone(&server.sent));
        let closed = Arc::clone(&server.closed);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *closed.lock().unwrap() {
                    continue;
                }
                let (answer, tls) = (Arc::clone(&answer), tls.clone());
                let (seen, sent) = (Arc::clone(&seen), Arc::clone(&sent));
                std::thread::spawn(move || {
                    // A client that goes away is none of the test's business.
                    let _ = match tls {
                        None => serve(stream, &*answer, &seen, &sent),
                        Some(config) => {
                            let session = rustls::ServerConnection::new(config).unwrap();
                            serve(rustls::StreamOwned::new(session, stream), &*answer, &seen, &sent)
                        }
                    };
                });
            }
        });
        server
    }

    /// Everything that was asked.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Bytes of bodies that were sent.
    pub fn sent(&self) -> u64 {
        *self.sent.lock().unwrap()
    }

    /// Answers nothing any more.
    pub fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }
}

fn serve(
    stream: impl Read + Write,
    answer: &(dyn Fn(&Seen) -> Answer + Send + Sync),
    seen: &Mutex<Vec<Seen>>,
    sent: &Mutex<u64>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = head(&mut stream)?;
    seen.lock().unwrap().push(request.clone());
    let answer = answer(&request);
    let mut text = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| *name == "transfer-encoding") {
        text.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let out = stream.get_mut();
    out.write_all(format!("{text}\r\n").as_bytes())?;
    out.flush()?;
    std::thread::sleep(answer.silence);
    let body = &answer.body[..answer.sent.unwrap_or(answer.body.len())];
    for piece in body.chunks(8 << 10) {
        out.write_all(piece)?;
        *sent.lock().unwrap() += piece.len() as u64;
    }
    out.flush()
}

fn head(stream: &mut impl BufRead) -> io::Result<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let mut seen = Seen { method: word(), path: word(), headers: BTreeMap::new() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(seen) };
        seen.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

/// A proxy that connects whatever is asked for to `to`, and says what that was.
pub fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Seen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            noted.lock().unwrap().push(head(&mut reader).unwrap());
            let server = TcpStream::connect(to).unwrap();
            (&client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
            let (mut up, mut down) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || io::copy(&mut reader, &mut up));
            std::thread::spawn(move || {
                let _ = io::copy(&mut &server, &mut down);
                let _ = down.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (at, seen)
}
