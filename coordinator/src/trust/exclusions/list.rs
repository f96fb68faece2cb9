//! The list as it stands in its file: JSON, written whole.

use crate::trust::state::{read_bounded, write_private};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use woolly_protocol::check::is_name;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::limits::REMOVED_MAX;

/// The form of the file; another one is refused.
const FORMAT: u32 = 1;
/// Bans at a time.
pub const BANS_MAX: usize = 1024;
/// Workers that are remembered so that they can be named while they are away; the one that was noted longest ago
/// is forgotten for a new one.
pub const KNOWN_MAX: usize = 2048;
/// A machine that is not known: the system has no id, or it is this server's own.
pub const NO_HOST: [u8; 16] = [0; 16];

/// All that is kept. Lists are in order of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    format: u32,
    pub(super) removed: Vec<Removal>,
    pub(super) bans: Vec<Ban>,
    known: Vec<Known>,
}

/// A worker whose certificate was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// Which.
    #[serde(with = "hex::worker")]
    pub worker: WorkerId,
    /// Its name; empty if that was not known.
    pub name: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A name and a machine that may not be here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// The name.
    pub name: String,
    /// The machine, as `JoinRequest::host` has it; [`NO_HOST`] if the name alone is banned.
    #[serde(with = "hex::host")]
    pub host: [u8; 16],
    /// Workers of that name or machine which had certificates by then.
    #[serde(with = "hex::workers")]
    pub workers: Vec<WorkerId>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A worker that was here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Which.
    #[serde(with = "hex::worker")]
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// Its machine, as `JoinRequest::host` has it.
    #[serde(with = "hex::host")]
    pub host: [u8; 16],
}

impl Ban {
    /// The machine in 32 hexadecimal digits; `None` if the name alone is banned.
    pub fn machine(&self) -> Option<String> {
        (self.host != NO_HOST).then(|| hex::text(&self.host))
    }
}

impl Default for List {
    fn default() -> List {
        List { format: FORMAT, removed: Vec::new(), bans: Vec::new(), known: Vec::new() }
    }
}

impl List {
    /// The list in a file; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or holds something else: an empty list in its place would let everybody in.
    pub(super) fn read(path: &Path) -> anyhow::Result<List> {
        let what = || format!("cannot read the list of removed workers {}", path.display());
        let Some(bytes) = read_bounded(path).with_context(what)? else {
            return Ok(List::default());
        };
        let list: List = serde_json::from_slice(&bytes).map_err(anyhow::Error::new).and_then(|it| {
            List::check(&it)?;
            Ok(it)
        }).with_context(|| {
            format!(
                "the list of removed workers {} is damaged: put it back from a backup; if it is moved away, those \
                 that were removed or banned can join again",
                path.display()
            )
        })?;
        Ok(list)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.format != FORMAT {
            bail!("expected format {FORMAT}, found {}", self.format);
        }
        if self.told().len() > REMOVED_MAX
            || self.bans.len() > BANS_MAX
            || self.known.len() > KNOWN_MAX
        {
            bail!("it is longer than it may be");
        }
        let known = self.known.iter().map(|known| &known.name);
        let named = self.bans.iter().map(|ban| &ban.name).chain(known);
        let removed =
            self.removed.iter().map(|removal| &removal.name).filter(|name| !name.is_empty());
        match named.chain(removed).find(|name| !is_name(name)) {
            Some(name) => bail!("{name:?} is no worker's name"),
            None => Ok(()),
        }
    }

    /// Replaces the file.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self)?)
    }

    /// Whose certificates do not count.
    pub(super) fn told(&self) -> BTreeSet<WorkerId> {
        let banned = self.bans.iter().flat_map(|ban| &ban.workers).copied();
        self.removed.iter().map(|removal| removal.worker).chain(banned).collect()
    }

    pub(super) fn is_removed(&self, worker: WorkerId) -> bool {
        self.removed.iter().any(|removal| removal.worker == worker)
    }

    /// The ban that holds for workers of this name or machine.
    pub(super) fn ban_of(&self, name: &str, host: [u8; 16]) -> Option<&Ban> {
        let of_host = |ban: &Ban| ban.host != NO_HOST && ban.host == host;
        self.bans.iter().find(|ban| ban.name == name || of_host(ban))
    }

    /// The workers that a name or an id means.
    pub(super) fn find(&self, text: &str) -> Vec<Known> {
        let id = WorkerId::from_hex(text);
        let meant = |known: &&Known| known.name == text || Some(known.worker) == id;
        self.known.iter().filter(meant).cloned().collect()
    }

    pub(super) fn is_known(&self, known: &Known) -> bool {
        self.known.contains(known)
    }

    /// A worker is here.
    pub(super) fn note(&mut self, known: Known) {
        self.known.retain(|other| other.worker != known.worker);
        if self.known.len() == KNOWN_MAX {
            self.known.remove(0);
        }
        self.known.push(known);
    }

    /// Those that a ban of this worker is meant for: its name, and its machine unless that is `own`.
    pub(super) fn ban_for(&self, target: &Known, own: [u8; 16], at_ms: u64) -> Ban {
        let host = if target.host == own { NO_HOST } else { target.host };
        let meant = |known: &&Known| {
            known.worker == target.worker
                || known.name == target.name
                || (host != NO_HOST && known.host == host)
        };
        let mut workers: Vec<WorkerId> =
            self.known.iter().filter(meant).map(|k| k.worker).collect();
        if !workers.contains(&target.worker) {
            workers.push(target.worker);
        }
        Ban { name: target.name.clone(), host, workers, at_ms }
    }
}

/// Ids as people see them.
pub(super) mod hex {
    /// Two digits for each byte.
    pub fn text(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 32 digits.
    pub fn bytes(text: &str) -> Option<[u8; 16]> {
        let is_hex =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
    }

    /// A worker's id.
    pub mod worker {
        use serde::de::Error;
        use serde::{Deserialize, Deserializer, Serializer};
        use woolly_protocol::ids::WorkerId;

        pub fn serialize<S: Serializer>(id: &WorkerId, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(&id.hex())
        }

        pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<WorkerId, D::Error> {
            let text = String::deserialize(from)?;
            WorkerId::from_hex(&text).ok_or_else(|| D::Error::custom("expected a worker's id"))
        }
    }

    /// Several.
    pub mod workers {
        use serde::de::Error;
        use serde::{Deserialize, Deserializer, Serializer};
        use woolly_protocol::ids::WorkerId;

        pub fn serialize<S: Serializer>(ids: &[WorkerId], to: S) -> Result<S::Ok, S::Error> {
            to.collect_seq(ids.iter().map(|id| id.hex()))
        }

        pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<WorkerId>, D::Error> {
            let texts = Vec::<String>::deserialize(from)?;
            let ids = texts.iter().map(|text| WorkerId::from_hex(text)).collect::<Option<_>>();
            ids.ok_or_else(|| D::Error::custom("expected workers' ids"))
        }
    }

    /// A machine.
    pub mod host {
        use serde::de::Error;
        use serde::{Deserialize, Deserializer, Serializer};

        pub fn serialize<S: Serializer>(host: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(&super::text(host))
        }

        pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<[u8; 16], D::Error> {
            let text = String::deserialize(from)?;
            super::bytes(&text).ok_or_else(|| D::Error::custom("expected 32 hexadecimal digits"))
        }
    }
}
