//! Downloads from servers that break off, lie, redirect and refuse.

mod honest;
mod server;
mod wrong;

use super::answer::show_hex;
use super::{
    FetchError, Fetcher, HUGGING_FACE, Link, Network, Pace, Progress, Proxies, Roots, Source, Store,
};
use server::{Answer, Seen, Server};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A file of `len` bytes that begins as GGUF and repeats itself nowhere.
fn file(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = b"GGUF".to_vec();
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    show_hex(&Sha256::digest(bytes))
}

/// Four connections, short waits, small spans.
fn pace() -> Pace {
    Pace {
        first: Duration::from_millis(1),
        most: Duration::from_millis(4),
        tries: 6,
        connections: 4,
        span_min: 16 << 10,
        span_max: 64 << 10,
        silence: Duration::from_millis(400),
    }
}

/// What was said to people.
type Said = Arc<Mutex<Vec<String>>>;

/// A fetcher of a folder, whose `hf:` leads to `endpoint`.
fn fetcher(folder: &Path, endpoint: &str) -> (Fetcher, Said) {
    let said = Said::default();
    let ear = Arc::clone(&said);
    let network = Network {
        endpoint: Link::parse(endpoint).unwrap(),
        token: Some("hf_secret".into()),
        proxies: Proxies::default(),
        roots: Roots::These(Vec::new()),
    };
    let say = Box::new(move |line: &str| ear.lock().unwrap().push(line.to_owned()));
    let progress = Progress::new(false, say);
    (Fetcher { network, store: Store::new(folder), pace: pace(), progress }, said)
}

/// Gets a URL of a server into a folder.
fn get(folder: &Path, server: &Server, path: &str) -> Result<PathBuf, FetchError> {
    let url = format!("{}{path}", server.url());
    fetcher(folder, HUGGING_FACE).0.get(&Source::parse(&url).unwrap())
}

/// Gets an `hf:` name into a folder.
fn get_hf(folder: &Path, server: &Server, name: &str) -> Result<PathBuf, FetchError> {
    fetcher(folder, &server.url()).0.get(&Source::parse(name).unwrap())
}

/// The list of a repository, as the API has it.
fn tree(files: &[(&str, &[u8])]) -> Answer {
    let entry = |(path, bytes): &(&str, &[u8])| {
        serde_json::json!({
            "type": "file", "path": path, "size": 130, "oid": "1",
            "lfs": {"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 130},
        })
    };
    let entries: Vec<serde_json::Value> = files.iter().map(entry).collect();
    Answer::new(200, serde_json::to_vec(&entries).unwrap())
}

/// A repository `o/r` as Hugging Face has it: a list, and files that lie at another place.
fn hub(files: Vec<(&'static str, Vec<u8>)>) -> Server {
    Server::start(move |seen: &Seen| {
        let shown: Vec<(&str, &[u8])> =
            files.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
        if seen.path == "/api/models/o/r/tree/main?recursive=true" {
            return tree(&shown);
        }
        let (place, path) = match seen.path.strip_prefix("/o/r/resolve/main/") {
            Some(path) => ("resolve", path),
            None => ("cdn", seen.path.trim_start_matches("/cdn/")),
        };
        match files.iter().find(|(one, _)| *one == path) {
            None => Answer::new(404, "").with("x-error-message", "Entry not found"),
            Some((_, bytes)) if place == "resolve" => Answer::redirect(format!("/cdn/{path}"))
                .with("x-linked-etag", format!("\"{}\"", sha256(bytes)))
                .with("x-linked-size", bytes.len()),
            Some((_, bytes)) => Answer::file(seen, bytes),
        }
    })
}
