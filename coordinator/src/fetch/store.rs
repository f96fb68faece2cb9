//! The folder of downloaded models: where each file is kept, what is there, and how it is removed.
//!
//! ```text
//! hf/OWNER/REPO/FILE            a file of a repository, under its path there
//! hf/OWNER/REPO/.files.json     the repository's list when it was asked last
//! https/HOST[:PORT]/PATH        a file of a server
//! NAME.part, NAME.part.json     a file on its way in (see `part`)
//! ```

use super::choose::{Candidate, Listed, candidates, choose, matching, pick_of};
use super::link::Link;
use super::part::{Opened, Part, part_path, record_path, write_whole};
use super::parts::PartName;
use super::source::{HubName, Pick, Source};
use super::trouble::FetchError;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The list of a repository.
const LIST: &str = ".files.json";
/// Bytes of a stored list at most.
const LIST_MAX: u64 = 64 << 20;
/// Files that are looked at, and folders below one another, at most.
const WALK_MAX: usize = 100_000;
const DEPTH_MAX: usize = 64;

/// Numbers the files that become lists.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// A folder of models. It need not exist.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A model that was downloaded, or begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name that gets it.
    pub name: String,
    /// Bytes of its files.
    pub size: u64,
    /// Whether all its files are there.
    pub is_complete: bool,
}

impl Store {
    /// The store below a cache directory.
    pub fn new(cache_dir: &Path) -> Store {
        Store { root: cache_dir.join("models") }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of a repository is kept.
    pub fn path_of(&self, name: &HubName, file: &str) -> PathBuf {
        self.folder_of(name).join(file)
    }

    /// Where a file of a server is kept.
    pub fn path_of_link(&self, link: &Link) -> PathBuf {
        let folder = self.root.join(link.scheme()).join(link.authority());
        folder.join(link.path().trim_start_matches('/'))
    }

    fn folder_of(&self, name: &HubName) -> PathBuf {
        self.root.join("hf").join(&name.owner).join(&name.repo)
    }

    /// Keeps a repository's list, so that its names mean the same without the server.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn keep_list(&self, name: &HubName, list: &[Listed]) -> Result<(), FetchError> {
        let folder = self.folder_of(name);
        let written = serde_json::to_vec(list).map_err(std::io::Error::from).and_then(|text| {
            fs::create_dir_all(&folder)?;
            // Others may write the same at the same time.
            let number = WRITTEN.fetch_add(1, Relaxed);
            let new = format!("{LIST}.{}.{number}", std::process::id());
            write_whole(&folder.join(LIST), &folder.join(new), &text)
        });
        written.map_err(|error| {
            FetchError::Failed(format!("cannot write to {}: {error}", folder.display()))
        })
    }

    fn list_of(&self, name: &HubName) -> Vec<Listed> {
        let path = self.folder_of(name).join(LIST);
        let small = fs::metadata(&path).is_ok_and(|data| data.len() <= LIST_MAX);
        let text = small.then(|| fs::read(path).ok()).flatten().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The first file of a model all of whose files are there; nobody is asked.
    pub fn held(&self, source: &Source) -> Option<PathBuf> {
        let paths: Vec<PathBuf> = match source {
            Source::File(path) => return Some(path.clone()),
            Source::Hub(name) => {
                let files = choose(&self.list_of(name), name).ok()?.files;
                let all = files.iter().all(|file| self.has(name, file));
                all.then(|| files.iter().map(|file| self.path_of(name, &file.path)).collect())?
            }
            Source::Url(link) => {
                links_of(link).ok()?.iter().map(|one| self.path_of_link(one)).collect()
            }
        };
        let is_there = |path: &PathBuf| path.is_file();
        paths.iter().all(is_there).then(|| paths.into_iter().next())?
    }

    /// Whether a file of a repository is there. It got its name when it was right.
    pub fn has(&self, name: &HubName, file: &Listed) -> bool {
        let path = self.path_of(name, &file.path);
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() == file.size)
    }

    /// All models, by name.
    ///
    /// # Errors
    ///
    /// There are too many files.
    pub fn list(&self) -> Result<Vec<Held>, FetchError> {
        let mut found = Vec::new();
        let (names, urls): (Vec<_>, Vec<_>) =
            self.groups()?.into_iter().partition(|(group, _)| group.starts_with("hf:"));
        for (group, files) in names.into_iter().chain(urls) {
            let all = candidates(&files);
            for one in &all {
                let name = match (group.strip_prefix("hf:"), pick_of(&all, one)) {
                    (Some(_), Pick::Quant(quant)) => format!("{group}:{quant}"),
                    _ => format!("{group}/{}", one.path()),
                };
                let is_there = |file: &Listed| file.sha256.is_none();
                let is_complete = one.files.len() == one.count && one.files.iter().all(is_there);
                found.push(Held { name, size: one.size(), is_complete });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes the models that a name means; all of a repository if it says no more. Returns their bytes.
    ///
    /// # Errors
    ///
    /// There is none; one is being downloaded; a file cannot be removed.
    pub fn remove(&self, source: &Source) -> Result<u64, FetchError> {
        let (folder, files): (PathBuf, Vec<Candidate>) = match source {
            Source::File(path) => {
                return Err(FetchError::Usage(format!(
                    "{} was not downloaded: expected a name that models list shows",
                    path.display()
                )));
            }
            Source::Hub(name) => {
                let folder = self.folder_of(name);
                let list = in_folder(&folder)?;
                (folder, matching(&list, &name.pick))
            }
            Source::Url(link) => {
                let path = link.path().trim_start_matches('/').to_owned();
                let folder = self.root.join(link.scheme()).join(link.authority());
                let list = in_folder(&folder)?;
                (folder, matching(&list, &Pick::File(path)))
            }
        };
        if files.is_empty() {
            return Err(FetchError::Missing(format!("nothing of {source} is there")));
        }
        let paths = files.iter().flat_map(|one| &one.files).map(|file| folder.join(&file.path));
        let paths: Vec<PathBuf> = paths.collect();
        let mut freed = 0;
        for path in &paths {
            freed += remove_file(path)?;
        }
        if in_folder(&folder)?.is_empty() {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let is_list = |name: &OsStr| name.as_encoded_bytes().starts_with(LIST.as_bytes());
            for entry in entries.filter(|entry| is_list(&entry.file_name())) {
                let _ = fs::remove_file(entry.path());
            }
        }
        for folder in paths.iter().filter_map(|path| path.parent()) {
            self.prune(folder);
        }
        Ok(freed)
    }

    /// Removes folders that are empty, from this one up.
    fn prune(&self, folder: &Path) {
        for folder in folder.ancestors().take_while(|folder| **folder != *self.root) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    /// The files of every repository (`hf:OWNER/REPO`) and server (`https://HOST`).
    fn groups(&self) -> Result<Vec<(String, Vec<Listed>)>, FetchError> {
        let mut groups = Vec::new();
        for owner in folders(&self.root.join("hf")) {
            for repo in folders(&self.root.join("hf").join(&owner)) {
                let files = in_folder(&self.root.join("hf").join(&owner).join(&repo))?;
                groups.push((format!("hf:{owner}/{repo}"), files));
            }
        }
        for scheme in ["https", "http"] {
            for host in folders(&self.root.join(scheme)) {
                let files = in_folder(&self.root.join(scheme).join(&host))?;
                groups.push((format!("{scheme}://{host}"), files));
            }
        }
        Ok(groups)
    }
}

/// The URLs of all files of a model.
///
/// # Errors
///
/// A name that is none in a URL.
pub fn links_of(link: &Link) -> Result<Vec<Link>, FetchError> {
    let name = link.path().rsplit('/').next().unwrap_or_default();
    match PartName::of(name) {
        None => Ok(vec![link.clone()]),
        Some(part) => {
            part.all().map(|name| link.with_file_name(&name).map_err(FetchError::Usage)).collect()
        }
    }
}

fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).take(WALK_MAX).collect()
}

/// The GGUF files below a folder by their paths there, parts included: what is on its way in has a digest that
/// is empty, what is there has none.
fn in_folder(folder: &Path) -> Result<Vec<Listed>, FetchError> {
    let (mut found, mut seen) = (Vec::new(), 0);
    let mut below = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = below.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > WALK_MAX {
                return Err(FetchError::Failed(format!("more than {WALK_MAX} files are there")));
            }
            let (Ok(name), Ok(data)) = (entry.file_name().into_string(), entry.metadata()) else {
                continue;
            };
            let path = format!("{prefix}{name}");
            if data.is_dir() && depth < DEPTH_MAX {
                below.push((entry.path(), format!("{path}/"), depth + 1));
            } else if data.is_file() {
                let begun = path.strip_suffix(".part");
                let path = begun.unwrap_or(&path).to_owned();
                if path.ends_with(".gguf") {
                    let sha256 = begun.map(|_| String::new());
                    found.push(Listed { path, size: data.len(), sha256 });
                }
            }
        }
    }
    // Of a file that is there and comes again the part counts.
    found.sort_by(|a, b| (&a.path, b.sha256.is_some()).cmp(&(&b.path, a.sha256.is_some())));
    found.dedup_by(|a, b| a.path == b.path);
    Ok(found)
}

/// Removes a file and what was begun of it. Who uses it keeps what is mapped.
fn remove_file(path: &Path) -> Result<u64, FetchError> {
    match Part::open(path)? {
        Opened::Busy(_) => Err(FetchError::Failed(format!(
            "{} is being downloaded by another process: end that first",
            path.display()
        ))),
        Opened::Mine(part) => {
            let size = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
            let freed = size(path) + size(&part_path(path)) + size(&record_path(path));
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(FetchError::Failed(format!("cannot remove {}: {error}", path.display())))
                }
                _ => {
                    part.discard();
                    Ok(freed)
                }
            }
        }
    }
}
