//! G-60: what our reader accepts, the reader of the `gguf` Python package accepts as well.
//!
//! Every byte of a small file's header is changed in three ways; the other reader's verdicts are
//! committed (`tests/scripts/make_flip_verdicts.py` made them).

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use woolly_engine::gguf::Gguf;

/// Changes that we accept and the other reader does not, by (mask, offset), each with a reason.
const EXCEPTIONS: [(u8, usize); 0] = [];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/flips")
}

#[test]
fn g_60_whatever_single_change_we_accept_the_other_reader_accepts() {
    let base = std::fs::read(folder().join("base.gguf")).expect("the file is committed");
    let text = std::fs::read_to_string(folder().join("verdicts.json")).expect("so are these");
    let verdicts: Value = serde_json::from_str(&text).expect("JSON");
    let end = verdicts["header_bytes"].as_u64().expect("a length") as usize;
    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("changed.gguf");
    std::fs::write(&path, &base).expect("it can be written");
    assert!(Gguf::open(&path).is_ok(), "the file itself is fine");
    let (mut ours, mut refused) = (0, 0);
    for (mask, accepted) in verdicts["accepted"].as_object().expect("one list per mask") {
        let mask: u8 = mask.parse().expect("a byte");
        let accepted: BTreeSet<u64> =
            accepted.as_array().expect("offsets").iter().filter_map(Value::as_u64).collect();
        for at in 0..end {
            let mut changed = base.clone();
            changed[at] ^= mask;
            std::fs::write(&path, &changed).expect("it can be written");
            if Gguf::open(&path).is_err() {
                refused += 1;
                continue;
            }
            ours += 1;
            let theirs = accepted.contains(&(at as u64)) || EXCEPTIONS.contains(&(mask, at));
            assert!(theirs, "byte {at} changed by {mask:#x}: we accept it, the other does not");
        }
    }
    assert!(ours > 100 && refused > 100, "{ours} accepted, {refused} refused");
}
