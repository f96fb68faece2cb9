//! How people name a model: a path, `https://…`, or `hf:OWNER/REPO[:QUANT|/FILE]`.

use super::link::{Link, encoded};
use std::fmt;
use std::path::PathBuf;

/// Bytes of an owner's or a repository's name at most, as Hugging Face has it.
const NAME_MAX: usize = 96;
/// Bytes of a file's path in a repository at most.
const FILE_MAX: usize = 1024;
/// Bytes of one name in a path: 255 less what a download appends to it.
const SEGMENT_MAX: usize = 240;

/// What a model's name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file on this machine.
    File(PathBuf),
    /// A model of a repository.
    Hub(HubName),
    /// A file of a server.
    Url(Link),
}

/// A model of a repository on Hugging Face, or on what speaks like it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// Whose it is.
    pub owner: String,
    /// Its name.
    pub repo: String,
    /// Which of its files.
    pub pick: Pick,
}

/// Which of the models of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The only one, or the first of a written order.
    Any,
    /// The one whose name says this quantisation.
    Quant(String),
    /// This file, or the split model that it is a part of.
    File(String),
}

impl Source {
    /// Whether a text is meant as the name of a download.
    pub fn is_remote(text: &str) -> bool {
        text.starts_with("hf:") || text.contains("://")
    }

    /// Reads a name. A text that is no download's is a path.
    ///
    /// # Errors
    ///
    /// A sentence: what was expected and what came.
    pub fn parse(text: &str) -> Result<Source, String> {
        if let Some(name) = text.strip_prefix("hf:") {
            return HubName::parse(name).map(Source::Hub);
        }
        if !text.contains("://") {
            return Ok(Source::File(text.into()));
        }
        let link = Link::parse(text)?;
        if let Some(name) = HubName::of_page(&link) {
            return Ok(Source::Hub(name));
        }
        let segments: Vec<&str> = link.path().split('/').skip(1).collect();
        if !segments.iter().all(|segment| is_segment(segment)) || link.path().len() > FILE_MAX {
            return Err(format!("{link} names no file that could be kept"));
        }
        if !is_gguf(link.path()) {
            return Err(format!("expected a URL whose path ends in .gguf, not {link}"));
        }
        Ok(Source::Url(link))
    }
}

impl HubName {
    fn parse(name: &str) -> Result<HubName, String> {
        let expected = || {
            format!(
                "expected hf:OWNER/REPO, hf:OWNER/REPO:QUANT or hf:OWNER/REPO/FILE.gguf, not hf:{name}"
            )
        };
        let (owner, rest) = name.split_once('/').ok_or_else(expected)?;
        let end = rest.find([':', '/']).unwrap_or(rest.len());
        let (repo, pick) = rest.split_at(end);
        if !is_name(owner) || !is_name(repo) {
            return Err(expected());
        }
        let pick = match (pick.strip_prefix(':'), pick.strip_prefix('/')) {
            (Some(quant), _) if is_name(quant) => Pick::Quant(quant.to_owned()),
            (_, Some(file)) if is_gguf(file) && is_file(file) => Pick::File(file.to_owned()),
            _ if pick.is_empty() => Pick::Any,
            _ => return Err(expected()),
        };
        Ok(HubName { owner: owner.to_owned(), repo: repo.to_owned(), pick })
    }

    /// What people copy out of a browser: `https://huggingface.co/OWNER/REPO/resolve/main/FILE`, or `blob`.
    fn of_page(link: &Link) -> Option<HubName> {
        if link.scheme() != "https" || !matches!(&*link.authority(), "huggingface.co" | "hf.co") {
            return None;
        }
        let mut parts = link.path().splitn(6, '/').skip(1);
        let (owner, repo, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let (revision, file) = (parts.next()?, parts.next()?);
        let is_main = matches!(kind, "resolve" | "blob") && revision == "main";
        // Names that a URL encodes are left to the way of URLs.
        (is_main && !file.contains('%'))
            .then(|| HubName::parse(&format!("{owner}/{repo}/{file}")).ok())?
    }

    /// `OWNER/REPO`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }

    /// Where a file of the repository is, below the endpoint.
    pub fn path_of(&self, file: &str) -> String {
        format!("/{}/resolve/main/{}", self.repository(), encoded(file))
    }

    /// Where the list of its files is, below the endpoint.
    pub fn path_of_list(&self) -> String {
        format!("/api/models/{}/tree/main?recursive=true", self.repository())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Hub(name) => name.fmt(f),
            Source::Url(link) => link.fmt(f),
        }
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repository())?;
        match &self.pick {
            Pick::Any => Ok(()),
            Pick::Quant(quant) => write!(f, ":{quant}"),
            Pick::File(file) => write!(f, "/{file}"),
        }
    }
}

fn is_gguf(path: &str) -> bool {
    path.len() > ".gguf".len() && path.ends_with(".gguf")
}

/// A name that is the same in a URL and in a folder.
fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_allowed) && !text.starts_with('.')
}

/// A name in a path that leads nowhere else, and that no file of ours has.
fn is_segment(text: &str) -> bool {
    let is_bad = |c: char| c.is_control() || c == '\\' || c == '/';
    (1..=SEGMENT_MAX).contains(&text.len()) && !text.starts_with('.') && !text.contains(is_bad)
}

/// A path in a repository that can be kept under the same path here.
pub fn is_file(path: &str) -> bool {
    path.len() <= FILE_MAX && path.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_alike() {
        for text in [
            "hf:Qwen/Qwen3-4B-GGUF",
            "hf:Qwen/Qwen3-4B-GGUF:Q4_K_M",
            "hf:o/r/sub/m-Q8_0-00001-of-00002.gguf",
            "https://host:8443/a/m.gguf",
            "http://127.0.0.1:8000/m.gguf",
        ] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Source::parse("a/b").unwrap(), Source::File("a/b".into()));
        let page = "https://huggingface.co/o/r/blob/main/q/m.gguf?download=true";
        assert_eq!(Source::parse(page).unwrap().to_string(), "hf:o/r/q/m.gguf");
        let other = "https://huggingface.co/o/r/resolve/v1/m.gguf";
        assert!(matches!(Source::parse(other), Ok(Source::Url(_))));
    }

    #[test]
    fn a_name_that_leads_out_of_its_folder_is_refused() {
        for text in [
            "hf:o",
            "hf:o/",
            "hf:../r",
            "hf:o/r/../../m.gguf",
            "hf:o/r/m.bin",
            "hf:o/r:",
            "hf:o/r:Q4/x",
            "https://host/m.bin",
            "https://host/../m.gguf",
            "https://host//m.gguf",
            "s3://bucket/m.gguf",
        ] {
            let error = Source::parse(text).unwrap_err();
            assert!(error.contains("expected") || error.contains("no file"), "{text}: {error}");
        }
    }
}
