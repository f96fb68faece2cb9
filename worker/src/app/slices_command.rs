//! `slices list|verify|prune`: what the slice store of this machine holds.

use crate::config::{Folders, SlicesAction, SlicesArgs};
use crate::units::show_size;
use crate::weights::slice_store::{Inventory, SliceState, SliceStore};
use std::io::{self, Write};
use woolly_protocol::slices::SliceKey;

/// Characters of a fingerprint that tell models apart for people.
const FINGERPRINT_SHOWN: usize = 12;

/// Does what the command asks; `false` if slices are damaged.
///
/// # Errors
///
/// A sentence that names the folder or file.
pub fn run(args: &SlicesArgs, folders: &Folders) -> Result<bool, String> {
    let dir = folders.slices_dir(args.state_dir.as_deref())?;
    if !dir.exists() {
        // Looking must not make a folder.
        return print(&[format!("no slices in {}", dir.display())]).map(|()| true);
    }
    let store = SliceStore::open(&dir).map_err(|error| error.to_string())?;
    if args.action == SlicesAction::Prune {
        let (files, bytes) = store.prune().map_err(|error| error.to_string())?;
        return print(&[format!("removed {files} files, {}", show_size(bytes))]).map(|()| true);
    }
    let read = args.action == SlicesAction::Verify;
    let found = store.inventory(read).map_err(|error| error.to_string())?;
    let bytes =
        found.iter().filter(|slice| is_complete(slice.state)).map(|slice| slice.length).sum();
    let mut lines: Vec<String> = found.iter().map(line).collect();
    let count = found.len();
    lines.push(format!("{count} slices, {} complete, in {}", show_size(bytes), dir.display()));
    print(&lines)?;
    Ok(!found.iter().any(|slice| matches!(slice.state, SliceState::Damaged(_))))
}

fn is_complete(state: SliceState) -> bool {
    matches!(state, SliceState::Verified | SliceState::Unverified | SliceState::Good)
}

fn line(slice: &Inventory) -> String {
    let model: String = (slice.fingerprint.iter())
        .flat_map(|byte| format!("{byte:02x}").chars().collect::<Vec<_>>())
        .take(FINGERPRINT_SHOWN)
        .collect();
    let name = match slice.slice {
        SliceKey::Header(part) => format!("header {part}"),
        SliceKey::Embedding => "embedding".to_owned(),
        SliceKey::Layer(layer) => format!("layer {layer}"),
        SliceKey::Head => "head".to_owned(),
    };
    let state = match slice.state {
        SliceState::Verified => "verified".to_owned(),
        SliceState::Unverified => "to be verified".to_owned(),
        SliceState::Good => "good".to_owned(),
        SliceState::Damaged(chunks) => format!("damaged in {chunks} chunks; it is fetched again"),
        SliceState::Partial => "partly fetched".to_owned(),
        SliceState::Missing => "not here".to_owned(),
    };
    format!("{model}  {name:<12} {:>10}  {state}", show_size(slice.length))
}

/// A reader that has gone, such as `head`, is no error.
fn print(lines: &[String]) -> Result<(), String> {
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
