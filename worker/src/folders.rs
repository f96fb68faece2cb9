//! Where a worker keeps its state and its slices unless told otherwise.

use std::path::{Path, PathBuf};

/// The folders that the environment names, read once.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// `$XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `$XDG_CACHE_HOME`.
    pub cache_home: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
}

impl Folders {
    /// The worker's state directory.
    pub fn state_dir(&self, given: Option<&Path>) -> Result<PathBuf, String> {
        if let Some(dir) = given {
            return absolute(dir);
        }
        let base =
            self.state_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")));
        base.map(|base| base.join("woolly/worker"))
            .ok_or_else(|| "HOME is not set: say where to keep state with --state-dir".to_owned())
    }

    /// The slice store's folder.
    pub fn slices_dir(&self, state_dir: Option<&Path>) -> Result<PathBuf, String> {
        if let Some(dir) = state_dir {
            return Ok(absolute(dir)?.join("slices"));
        }
        let base = self.cache_home.clone().or_else(|| Some(self.home.as_ref()?.join(".cache")));
        base.map(|base| base.join("woolly/slices"))
            .ok_or_else(|| "HOME is not set: say where to keep slices with --state-dir".to_owned())
    }
}

/// A path that does not depend on the working directory.
pub fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}
