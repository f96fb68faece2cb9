//! A socket that two hold: the connection reads and writes it, and its keeper can ask whether the
//! client is still there.
//!
//! A client that has sent its request may close its half of the connection and wait (`nc -N`), or it
//! may be gone: both look the same until something is written. So while no byte of an answer was
//! written, an interim answer is: `100 Continue`, which every HTTP/1.1 client has to skip (RFC 9110,
//! 15.2). The system of a client that is gone answers with a reset.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// How often a connection with unread bytes, such as another request, is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long what a refused client still sends is read.
const REFUSED_GRACE: Duration = Duration::from_secs(1);

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The connection's end.
#[derive(Debug)]
pub struct Socket {
    shared: Arc<Watched>,
}

/// The keeper's end.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    /// Something was written since the last request came.
    answering: AtomicBool,
}

/// Both ends of a connection.
pub fn shared(stream: TcpStream) -> (Socket, Arc<Watched>) {
    let shared = Arc::new(Watched { stream, answering: AtomicBool::new(false) });
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
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK_EVERY).await,
                // A socket that cannot even be asked is of no use to the client either.
                _ => return,
            }
        }
    }

    /// Whether the client is gone, asked with an interim answer if none has begun. The reply takes as
    /// long as the way there and back, so it is this call or a later one that knows.
    pub fn is_gone(&self) -> bool {
        let failed = || !matches!(self.stream.take_error(), Ok(None));
        if self.answering.load(Relaxed) {
            return failed();
        }
        match self.stream.try_write(INTERIM) {
            Ok(written) => written < INTERIM.len() || failed(),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// What a client that begins with HTTP/2 is told.
const NO_HTTP_2: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 55\r\n\r\n\
    This server speaks HTTP/1.1; do not begin with HTTP/2.\n";

impl Watched {
    /// Tells a client that began with HTTP/2 what is spoken here, and takes what it has sent already, so
    /// that its system does not throw the answer away.
    pub async fn refuse_http_2(&self) {
        if self.stream.try_write(NO_HTTP_2).is_err() {
            return;
        }
        let _ = socket2::SockRef::from(&self.stream).shutdown(Shutdown::Write);
        let rest = async {
            let mut buffer = [0; 4096];
            while self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let _ = tokio::time::timeout(REFUSED_GRACE, rest).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.shared.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(buffer.initialize_unfilled()) {
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

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.shared.answering.store(true, Relaxed);
        let stream = &self.shared.stream;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.answering.store(true, Relaxed);
        let stream = &self.shared.stream;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&self.shared.stream).shutdown(Shutdown::Write))
    }
}
