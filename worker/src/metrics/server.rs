//! The only HTTP of a worker: `GET /metrics`.
//!
//! One request for each connection. Limits: [`CONNECTIONS_MAX`] at a time (one more is closed at once), headers of 8 KiB within
//! [`HEADER_TIME`], and [`CONNECTION_TIME`] for all of it, so nobody holds a place.

use super::text::Exposed;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at a time: Prometheus needs one.
pub const CONNECTIONS_MAX: usize = 8;
/// How long a client may take for its request's headers.
pub const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Bytes that are read ahead at most, headers included.
const BUFFER: usize = 8 << 10;
/// What is waited when the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on a listener for as long as the process lives.
pub async fn serve(listener: TcpListener, exposed: Arc<Exposed>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("metrics: cannot accept a connection: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Dropped, it is closed.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let exposed = Arc::clone(&exposed);
        tokio::spawn(async move {
            answer_one(stream, &exposed).await;
            drop(place);
        });
    }
}

async fn answer_one(stream: TcpStream, exposed: &Exposed) {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, exposed)) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("metrics: {error}"),
        Err(_) => tracing::debug!("metrics: a connection took too long"),
    }
}

fn answer<B>(request: &Request<B>, exposed: &Exposed) -> Response<String> {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let (status, kind, body) = match (request.uri().path(), is_read) {
        ("/metrics", true) => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", exposed.render())
        }
        ("/metrics", false) => {
            let text = "only GET and HEAD are answered here\n".to_owned();
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", text)
        }
        _ => {
            let text = "there is nothing here but /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn served() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::default()));
        address
    }

    /// What is answered to these bytes until the connection is closed.
    async fn told(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is closed with bytes unread ends with a reset.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn metrics_are_answered_and_nothing_else() {
        let address = served().await;
        let ask = |line: &str| format!("{line} HTTP/1.1\r\nHost: w\r\n\r\n");
        let found = told(address, &ask("GET /metrics")).await;
        assert!(found.starts_with("HTTP/1.1 200 OK\r\n"), "{found}");
        assert!(found.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
        assert!(found.contains("\nwoolly_worker_forwards_total 0\n"), "{found}");
        let head = told(address, &ask("HEAD /metrics")).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let other = told(address, &ask("GET /")).await;
        assert!(other.starts_with("HTTP/1.1 404 Not Found\r\n"), "{other}");
        let post = told(address, &ask("POST /metrics")).await;
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
        assert!(post.contains("allow: GET,HEAD"), "{post}");
        let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "w".repeat(2 * BUFFER));
        let refused = told(address, &long).await;
        assert!(!refused.contains("200 OK"), "{refused}");
    }

    #[tokio::test]
    async fn who_says_nothing_holds_no_place_for_long() {
        let address = served().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let ask = "GET /metrics HTTP/1.1\r\nHost: w\r\n\r\n";
        assert_eq!(told(address, ask).await, "", "all places are taken");
        // Half a request does not help.
        silent[0].write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        let begun = std::time::Instant::now();
        while !told(address, ask).await.contains("200 OK") {
            assert!(begun.elapsed() < HEADER_TIME + Duration::from_secs(5), "they still hold it");
            sleep(PAUSE).await;
        }
        assert!(begun.elapsed() > HEADER_TIME / 2, "they were let in at once");
    }
}
