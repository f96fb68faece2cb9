//! A socket that two hold: the connection reads and writes it, and its keeper can ask whether the
//! client is still there.
//!
//! A client that has sent its request may close its half of the connection and wait (`nc -N`), or it
//! may be gone: both look the same until something is written. So while no byte of an answer was
//! written, an interim answer is: `100 Continue`, which every HTTP/1.1 client has to skip (RFC 9110,
//! 15.2). The system of a client that is gone answers with a reset. Over TLS the interim answer goes
//! through the session like any other byte; that a client has closed its half is seen on the connection
//! below it, whether or not it took leave of the session.

use std::io;
use std::io::Write as _;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How often a connection with unread bytes, such as another request, is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long what a refused client still sends is read.
const REFUSED_GRACE: Duration = Duration::from_secs(1);

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The connection below a session, if there is one.
#[derive(Clone, Debug)]
pub struct Wire(Arc<TcpStream>);

/// TLS over it.
pub type Session = TlsStream<Wire>;

/// The connection's end.
#[derive(Debug)]
pub struct Socket {
    shared: Arc<Watched>,
}

/// The keeper's end.
#[derive(Debug)]
pub struct Watched {
    wire: Wire,
    session: Option<Mutex<Session>>,
    /// Something was written since the last request came.
    answering: AtomicBool,
}

/// Both ends of a connection in plain.
pub fn shared(stream: TcpStream) -> (Socket, Arc<Watched>) {
    both(Wire::new(stream), None)
}

/// Both ends of a connection with TLS.
pub fn shared_session(session: Session) -> (Socket, Arc<Watched>) {
    both(session.get_ref().0.clone(), Some(Mutex::new(session)))
}

fn both(wire: Wire, session: Option<Mutex<Session>>) -> (Socket, Arc<Watched>) {
    let shared = Arc::new(Watched { wire, session, answering: AtomicBool::new(false) });
    (Socket { shared: Arc::clone(&shared) }, shared)
}

impl Watched {
    /// A request has come: nothing of its answer was written.
    pub fn begin(&self) {
        self.answering.store(false, Relaxed);
    }

    /// Returns when the client has closed its half, or all, of the connection.
    pub async fn half_closed(&self) {
        loop {
            match self.wire.0.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK_EVERY).await,
                // A socket that cannot even be asked is of no use to the client either.
                _ => return,
            }
        }
    }

    /// Whether the client is gone, asked with an interim answer if none has begun. The reply takes as
    /// long as the way there and back, so it is this call or a later one that knows.
    pub fn is_gone(&self) -> bool {
        let failed = || !matches!(self.wire.0.take_error(), Ok(None));
        if self.answering.load(Relaxed) {
            return failed();
        }
        match self.write_now(INTERIM) {
            Ok(written) => written < INTERIM.len() || failed(),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Writes what can be written without waiting. What a session has sealed and could not send goes out
    /// before whatever is written next.
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &self.session else { return self.wire.0.try_write(bytes) };
        let mut session = locked(session);
        let (wire, session) = session.get_mut();
        let mut out = TryWrite(&wire.0);
        while session.wants_write() {
            session.write_tls(&mut out)?;
        }
        let written = session.writer().write(bytes)?;
        while session.wants_write() {
            match session.write_tls(&mut out) {
                Ok(0) => return Ok(0),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

fn locked(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket that is written to at once or not at all.
struct TryWrite<'a>(&'a TcpStream);

impl io::Write for TryWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a client that begins with HTTP/2 is told.
const NO_HTTP_2: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 55\r\n\r\n\
    This server speaks HTTP/1.1; do not begin with HTTP/2.\n";

impl Watched {
    /// Tells a client that began with HTTP/2 what is spoken here.
    pub async fn refuse_http_2(&self) {
        if self.write_now(NO_HTTP_2).is_ok() {
            self.wire.leave().await;
        }
    }
}

impl Wire {
    /// A connection that nothing was read from.
    pub fn new(stream: TcpStream) -> Wire {
        Wire(Arc::new(stream))
    }

    /// The first byte that the client sends, which stays to be read; `None` if it sends none.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((self.0.peek(&mut byte).await? > 0).then_some(byte[0]))
    }

    /// Sends a short answer instead of everything else.
    pub async fn refuse(&self, answer: &[u8]) {
        if self.0.try_write(answer).is_ok() {
            self.leave().await;
        }
    }

    /// Closes this side, and takes what the client has sent already, so that its system does not throw the
    /// answer away.
    async fn leave(&self) {
        let _ = socket2::SockRef::from(&*self.0).shutdown(Shutdown::Write);
        let rest = async {
            let mut buffer = [0; 4096];
            while self.0.readable().await.is_ok() {
                match self.0.try_read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let _ = tokio::time::timeout(REFUSED_GRACE, rest).await;
    }

    /// Writes with `write` as soon as the socket takes something.
    fn poll_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &self.shared.session {
            Some(session) => Pin::new(&mut *locked(session)).poll_read(cx, buffer),
            None => Pin::new(&mut self.shared.wire.clone()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.shared.answering.store(true, Relaxed);
        match &self.shared.session {
            Some(session) => Pin::new(&mut *locked(session)).poll_write(cx, bytes),
            None => Pin::new(&mut self.shared.wire.clone()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.answering.store(true, Relaxed);
        match &self.shared.session {
            Some(session) => Pin::new(&mut *locked(session)).poll_write_vectored(cx, slices),
            None => Pin::new(&mut self.shared.wire.clone()).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.shared.session {
            Some(session) => Pin::new(&mut *locked(session)).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.shared.session {
            Some(session) => Pin::new(&mut *locked(session)).poll_shutdown(cx),
            None => Pin::new(&mut self.shared.wire.clone()).poll_shutdown(cx),
        }
    }
}
