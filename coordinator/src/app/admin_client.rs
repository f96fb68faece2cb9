//! Asks a running `serve` on its socket in the state directory.

use anyhow::{Context, anyhow, bail};
use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, StatusCode, header};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::Path;
use tokio::net::UnixStream;

/// Bytes of an answer.
const ANSWER_MAX: usize = 16 << 20;

/// Asks, and reads the answer; what the server refuses is an error in its words.
///
/// # Errors
///
/// No server answers, or it refuses.
pub async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<Value> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no server answers on {}: start `woolly-coordinator serve`, or name its --state-dir",
            socket.display()
        )
    })?;
    let (status, bytes) = exchange(stream, method, path, body).await?;
    let answer: Value = serde_json::from_slice(&bytes).context("the answer is not JSON")?;
    if status.is_success() || status == StatusCode::ACCEPTED {
        return Ok(answer);
    }
    Err(anyhow!("{}", answer["error"]["message"].as_str().unwrap_or("the server refused")))
}

/// Asks on a connection, which ends with the answer: its status and its bytes.
///
/// # Errors
///
/// The connection broke, or the answer is too long.
pub async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("cannot speak with the server")?;
    tokio::spawn(connection);
    let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)?;
    let response = sender.send_request(request).await.context("the server did not answer")?;
    let status = response.status();
    let bytes = whole(Body::new(response.into_body()).into_data_stream()).await?;
    Ok((status, bytes))
}

async fn whole(mut body: BodyDataStream) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(more) = body.next().await {
        bytes.extend_from_slice(&more.context("the answer broke off")?);
        if bytes.len() > ANSWER_MAX {
            bail!("the answer is longer than {} MiB", ANSWER_MAX >> 20);
        }
    }
    Ok(bytes)
}
