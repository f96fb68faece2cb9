//! Gets models: `hf:OWNER/REPO…` and `https://…` become files of a folder of this machine.
//!
//! Only the command line, variables and the file of options lead here; nothing that comes over the API does.
//! A model that is there is used without a question to anyone. Of one that is not, the server is asked what it
//! is (size, digest), the disk whether it has room, and then several connections fetch it in spans. What came is
//! kept through every end of the process and gone on with. It gets its name when size and digest are right.
//!
//! ```text
//! source, link, parts, choose   what a name means, and which files that are            pure
//! answer, spans, course         what an answer means; what is asked for next, and when  pure
//! network, client, hub          HTTP: proxies, redirects, the token; a repository's list
//! part, store, progress         files on their way in; the folder; the bar
//! download                      threads that do what the course says
//! ```
//!
//! It knows nothing of what is in a model's file but its first four bytes. Everything blocks.

mod answer;
mod choose;
mod client;
mod course;
mod download;
mod hub;
mod link;
mod network;
mod part;
mod parts;
mod progress;
mod source;
mod spans;
mod store;
#[cfg(test)]
mod tests;
mod trouble;

pub use choose::ORDER;
pub use course::Pace;
pub use link::Link;
pub use network::{HUGGING_FACE, Network, Proxies, Roots};
pub use progress::{Progress, Say};
pub use source::{HubName, Pick, Source};
pub use store::{Held, Store};
pub use trouble::FetchError;

use crate::units::show_size;
use choose::choose;
use client::Client;
use download::{Probed, download, patiently, probe};
use part::{Opened, Part};
use std::path::{Path, PathBuf};

/// Bytes that a disk keeps free beyond what a download takes.
const ROOM_LEFT: u64 = 64 << 20;

/// Gets models into a store.
pub struct Fetcher {
    /// Who is asked, and how.
    pub network: Network,
    /// Where they are kept.
    pub store: Store,
    /// How patiently, and with how many connections.
    pub pace: Pace,
    /// Who is told.
    pub progress: Progress,
}

/// One file that is to come.
struct Wanted {
    link: Link,
    target: PathBuf,
    size: Option<u64>,
    sha256: Option<String>,
}

impl Fetcher {
    /// The first file of a model, which is there now.
    ///
    /// # Errors
    ///
    /// See [`FetchError`].
    pub fn get(&self, source: &Source) -> Result<PathBuf, FetchError> {
        if let Some(path) = self.store.held(source) {
            return Ok(path);
        }
        let client = Client::new(self.network.clone(), &self.pace)?;
        let wanted = match source {
            Source::File(path) => return Ok(path.clone()),
            Source::Hub(name) => self.of_hub(&client, name)?,
            Source::Url(link) => self.of_link(link)?,
        };
        let got = self.get_all(&client, source, &wanted);
        self.progress.end();
        got?;
        let first = wanted.into_iter().next().map(|wanted| wanted.target);
        first.ok_or_else(|| FetchError::Missing(format!("{source} has no files")))
    }

    fn of_hub(&self, client: &Client, name: &HubName) -> Result<Vec<Wanted>, FetchError> {
        let list =
            hub::list(client, name, &mut |action| patiently(&self.pace, &self.progress, action))?;
        let chosen = choose(&list, name).map_err(FetchError::Missing)?;
        self.store.keep_list(name, &list)?;
        let mut wanted = Vec::new();
        for file in &chosen.files {
            let link =
                client.endpoint().join(&name.path_of(&file.path)).map_err(FetchError::Usage)?;
            let target = self.store.path_of(name, &file.path);
            if target.exists() && !self.store.has(name, file) {
                self.progress.say(&format!("{}: the repository has another one now", file.path));
                let gone = std::fs::remove_file(&target);
                gone.map_err(|error| {
                    FetchError::Failed(format!("cannot remove {}: {error}", target.display()))
                })?;
            }
            let sha256 = file.sha256.clone();
            wanted.push(Wanted { link, target, size: Some(file.size), sha256 });
        }
        Ok(wanted)
    }

    fn of_link(&self, link: &Link) -> Result<Vec<Wanted>, FetchError> {
        let wanted = |link: Link| {
            let target = self.store.path_of_link(&link);
            Wanted { link, target, size: None, sha256: None }
        };
        Ok(store::links_of(link)?.into_iter().map(wanted).collect())
    }

    fn get_all(
        &self,
        client: &Client,
        source: &Source,
        wanted: &[Wanted],
    ) -> Result<(), FetchError> {
        let missing: Vec<&Wanted> = wanted.iter().filter(|one| !one.target.is_file()).collect();
        let mut probed = Vec::new();
        for one in &missing {
            let expected = one.size.map(|size| (size, one.sha256.as_deref()));
            probed.push(patiently(&self.pace, &self.progress, || {
                probe(client, &one.link, expected)
            })?);
        }
        self.check_room(&missing, &probed)?;
        let total = probed.iter().map(|one| one.identity.size).sum();
        self.progress.say(&format!(
            "Downloading {source}: {} in {} to {}",
            show_size(total),
            if missing.len() == 1 {
                "one file".to_owned()
            } else {
                format!("{} files", missing.len())
            },
            self.store.root().display()
        ));
        for (one, probed) in missing.iter().zip(&probed) {
            self.get_one(client, one, probed)?;
        }
        Ok(())
    }

    fn get_one(&self, client: &Client, wanted: &Wanted, probed: &Probed) -> Result<(), FetchError> {
        let Some(part) = self.open(&wanted.target)? else { return Ok(()) };
        let name = wanted.target.to_string_lossy();
        let (identity, there) = (&probed.identity, part.resume(&probed.identity)?);
        if there.total() > 0 && probed.ranged {
            self.progress.say(&format!("{} of it are there already", show_size(there.total())));
        }
        self.progress.begin("getting", &name, identity.size, there.total());
        download(client, &wanted.link, probed, &self.pace, (&part, there), &self.progress)?;
        if identity.sha256.is_none() {
            self.progress.say(&format!(
                "{name}: the server says no digest, so its length alone was checked"
            ));
        }
        self.progress.begin("checking", &name, identity.size, 0);
        part.finish(identity, &mut |bytes| self.progress.at(bytes))
    }

    /// The part of a file, when nobody else fills it; `None` if it is there then.
    fn open(&self, target: &Path) -> Result<Option<Part>, FetchError> {
        loop {
            match Part::open(target)? {
                Opened::Mine(part) if target.is_file() => {
                    part.discard();
                    return Ok(None);
                }
                Opened::Mine(part) => return Ok(Some(part)),
                Opened::Busy(file) => {
                    let name = target.display();
                    self.progress.say(&format!(
                        "{name} is being downloaded by another process: waiting for it"
                    ));
                    // It waits until the other one has finished, given up or died.
                    file.lock().map_err(|error| {
                        FetchError::Failed(format!("cannot wait for {name}: {error}"))
                    })?;
                    // What was waited for may have been renamed: it is looked at anew.
                }
            }
        }
    }

    /// What is missing fits the disk.
    fn check_room(&self, missing: &[&Wanted], probed: &[Probed]) -> Result<(), FetchError> {
        let left = missing
            .iter()
            .zip(probed)
            .map(|(one, probed)| probed.identity.size.saturating_sub(part::taken(&one.target)));
        let needed: u64 = left.sum();
        let root = self.store.root();
        std::fs::create_dir_all(root).map_err(|error| {
            FetchError::Failed(format!("cannot make {}: {error}", root.display()))
        })?;
        let free = part::free(root)?;
        if needed == 0 || needed.saturating_add(ROOM_LEFT) <= free {
            return Ok(());
        }
        Err(FetchError::NoRoom { folder: root.to_owned(), needed, free })
    }
}
