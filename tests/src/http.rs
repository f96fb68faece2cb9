//! A minimal HTTP/1.1 client: one request per connection, plain bodies, chunked bodies, events.

use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A server that is silent for this long has hung.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// The head of an answer, and its body to read.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case with their values.
    pub headers: Vec<(String, String)>,
    body: Body,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

struct Body {
    stream: BufReader<TcpStream>,
    left: Left,
}

enum Left {
    /// So many bytes.
    Length(u64),
    /// So many bytes of this chunk, then the next one.
    Chunk(u64),
    /// Until the server closes.
    Close,
    /// Nothing.
    End,
}

/// Sends a request with an optional JSON body.
pub fn send(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<Answer> {
    send_with(server, method, path, body, "")
}

/// Sends a request with more headers, each with its line end.
fn send_with(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
    headers: &str,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_nodelay(true)?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\
         {headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    read_head(BufReader::new(stream))
}

/// `GET path`.
pub fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    send(server, "GET", path, None)
}

/// `POST path` with a JSON body.
pub fn post(server: SocketAddr, path: &str, body: &Value) -> io::Result<Answer> {
    send(server, "POST", path, Some(body))
}

/// `POST path` with a JSON body and an API key.
pub fn post_with_key(
    server: SocketAddr,
    path: &str,
    key: &str,
    body: &Value,
) -> io::Result<Answer> {
    send_with(server, "POST", path, Some(body), &format!("authorization: Bearer {key}\r\n"))
}

/// `GET path` with a key.
pub fn get_with_key(server: SocketAddr, path: &str, key: &str) -> io::Result<Answer> {
    send_with(server, "GET", path, None, &format!("authorization: Bearer {key}\r\n"))
}

/// `GET path` of a stream after the event with this id.
pub fn get_after(server: SocketAddr, path: &str, last: &str) -> io::Result<Answer> {
    send_with(server, "GET", path, None, &format!("last-event-id: {last}\r\n"))
}

fn read_head(mut stream: BufReader<TcpStream>) -> io::Result<Answer> {
    let status = line(&mut stream)?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = code.ok_or_else(|| invalid(format!("not a status line: {status:?}")))?;
    let mut headers = Vec::new();
    loop {
        let header = line(&mut stream)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| invalid(header.clone()))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let left = match (header("transfer-encoding"), header("content-length")) {
        (Some("chunked"), _) => Left::Chunk(0),
        (_, Some(length)) => Left::Length(length.parse().map_err(|_| invalid(length.to_owned()))?),
        _ => Left::Close,
    };
    Ok(Answer { status, headers, body: Body { stream, left } })
}

impl Answer {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The whole body.
    pub fn text(mut self) -> io::Result<String> {
        let mut text = String::new();
        self.body.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The whole body as JSON.
    pub fn json(self) -> io::Result<Value> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|error| invalid(format!("{error} in {text:?}")))
    }

    /// The body as a stream of events.
    pub fn events(self) -> Events {
        Events { lines: BufReader::new(self.body), coming: None, last: None }
    }
}

/// The `data:` of server-sent events, one by one; ends at the end of the body.
pub struct Events {
    lines: BufReader<Body>,
    /// The id of the event that begins.
    coming: Option<String>,
    last: Option<String>,
}

impl Events {
    /// The id of the last event that came whole.
    pub fn last_id(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Closes the connection as a client that goes away does.
    pub fn abandon(self) {
        let stream = self.lines.into_inner().stream.into_inner();
        // Already closed by the server is closed as well.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

impl Iterator for Events {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut text = String::new();
            match self.lines.read_line(&mut text) {
                Ok(0) => return None,
                Err(error) => return Some(Err(error)),
                Ok(_) => {
                    if let Some(id) = text.strip_prefix("id:") {
                        self.coming = Some(id.trim().to_owned());
                    }
                    if let Some(data) =
                        text.strip_prefix("data:").filter(|data| data.ends_with('\n'))
                    {
                        self.last = self.coming.take().or(self.last.take());
                        return Some(Ok(data.trim().to_owned()));
                    }
                }
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if matches!(self.left, Left::Chunk(0)) {
            self.next_chunk()?;
        }
        let most = match self.left {
            Left::End | Left::Length(0) => return Ok(0),
            Left::Close => buffer.len(),
            Left::Length(left) | Left::Chunk(left) => {
                buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX))
            }
        };
        let got = self.stream.read(&mut buffer[..most])?;
        match &mut self.left {
            Left::Length(left) | Left::Chunk(left) if got == 0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the body ends {left} bytes early"),
                ));
            }
            Left::Length(left) => *left -= got as u64,
            Left::Chunk(left) => {
                *left -= got as u64;
                if *left == 0 {
                    line(&mut self.stream)?;
                }
            }
            Left::Close | Left::End => {}
        }
        Ok(got)
    }
}

impl Body {
    fn next_chunk(&mut self) -> io::Result<()> {
        let size = line(&mut self.stream)?;
        let size = size.split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = u64::from_str_radix(&size, 16).map_err(|_| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("no chunk size: {size:?}"))
        })?;
        self.left = if bytes == 0 { Left::End } else { Left::Chunk(bytes) };
        Ok(())
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    stream.read_line(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
