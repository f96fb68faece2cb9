//! The model's files, as a plan names them.

use std::path::PathBuf;

/// The model as the coordinator has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// BLAKE3 root over the 1 MiB chunks of all parts.
    pub fingerprint: [u8; 32],
    /// Whether the paths are of this machine.
    pub same_machine: bool,
    /// Its files, in order.
    pub parts: Vec<PartFile>,
}

/// One file of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFile {
    /// Name without folders.
    pub file_name: String,
    /// Where the coordinator has it.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Device, inode, mtime and ctime (both in ns) on the coordinator's machine.
    pub stat: [u64; 4],
}
