//! The list of a repository's files, as Hugging Face's API has it: pages of JSON.

use super::answer::hex;
use super::choose::Listed;
use super::client::Client;
use super::link::Link;
use super::source::HubName;
use super::trouble::{FetchError, Trouble};
use serde::Deserialize;

/// Pages of a list at most; the server's have up to 1,000 files.
const PAGES_MAX: usize = 50;
/// Bytes of a page at most.
const PAGE_MAX: u64 = 8 << 20;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// A request, which may be made again.
pub type Try<'a> = &'a mut dyn FnMut() -> Result<(), Trouble>;

/// The GGUF files of a repository. `patiently` tries a request again where that may help.
///
/// # Errors
///
/// There is no such repository, or the server cannot be asked.
pub fn list(
    client: &Client,
    name: &HubName,
    patiently: &mut dyn FnMut(Try<'_>) -> Result<(), FetchError>,
) -> Result<Vec<Listed>, FetchError> {
    let endpoint = client.endpoint();
    let first = endpoint.join(&name.path_of_list()).map_err(FetchError::Usage)?;
    let (mut at, mut files) = (Some(first), Vec::new());
    for _ in 0..PAGES_MAX {
        let Some(link) = at.take() else { return Ok(files) };
        let mut page = None;
        patiently(&mut || {
            page = Some(client.text(&link, PAGE_MAX)?);
            Ok(())
        })?;
        let (text, next) = page.unwrap_or_default();
        files.extend(entries(&text, &link)?);
        at = next.map(|next| next_of(endpoint, &link, &next)).transpose()?;
    }
    Err(FetchError::Failed(format!("hf:{} has too many files to list", name.repository())))
}

fn entries(text: &[u8], link: &Link) -> Result<Vec<Listed>, FetchError> {
    let entries: Vec<Entry> = serde_json::from_slice(text)
        .map_err(|error| FetchError::Failed(format!("{link} is no list of files: {error}")))?;
    let is_gguf = |entry: &Entry| entry.kind == "file" && entry.path.ends_with(".gguf");
    let listed = |entry: Entry| Listed {
        size: entry.lfs.as_ref().map_or(entry.size, |lfs| lfs.size),
        sha256: entry.lfs.and_then(|lfs| hex(&lfs.oid)),
        path: entry.path,
    };
    Ok(entries.into_iter().filter(is_gguf).map(listed).collect())
}

/// The next page, of the same server only.
fn next_of(endpoint: &Link, link: &Link, next: &str) -> Result<Link, FetchError> {
    let next = link.join(next).map_err(FetchError::Failed)?;
    if next.origin() != endpoint.origin() {
        return Err(FetchError::Failed(format!("{link} goes on at another server, {next}")));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_says_of_large_files_counts() {
        let digest = "a".repeat(64);
        let text = format!(
            r#"[{{"type":"directory","oid":"1","size":0,"path":"Q8_0"}},
                {{"type":"file","oid":"2","size":134,"path":"m.gguf",
                  "lfs":{{"oid":"{digest}","size":9000,"pointerSize":134}},"xetHash":"3"}},
                {{"type":"file","oid":"4","size":7,"path":"README.md"}}]"#
        );
        let link = Link::parse("https://host/api").unwrap();
        let files = entries(text.as_bytes(), &link).unwrap();
        let expected = Listed { path: "m.gguf".into(), size: 9000, sha256: Some(digest) };
        assert_eq!(files, [expected]);
        assert!(entries(b"<html>", &link).unwrap_err().to_string().contains("no list of files"));
        assert!(next_of(&link, &link, "https://other/api?cursor=1").is_err());
        assert!(next_of(&link, &link, "/api?cursor=1").is_ok());
    }
}
