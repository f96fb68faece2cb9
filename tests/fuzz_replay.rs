//! The inputs that a fuzzer kept, and inputs near them, given to every target again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use woolly_tests::fuzz::TARGETS;
use woolly_tests::source::workspace_root;

/// Changed copies of each input.
const COPIES: u64 = 20;
/// Bytes of an input whose copies are tried: larger ones take their time.
const COPIED_MAX: usize = 64 << 10;

fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// A copy with some bytes changed, left out or doubled; it follows from the number.
fn changed(bytes: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bytes.len() as u64;
    let mut roll = |sides: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % sides.max(1) as u64).unwrap()
    };
    let mut copy = bytes.to_vec();
    for _ in 0..=roll(4) {
        if copy.is_empty() {
            break;
        }
        let at = roll(copy.len());
        match roll(4) {
            0 => copy[at] = u8::try_from(roll(256)).unwrap(),
            1 => copy.truncate(at),
            2 => drop(copy.remove(at)),
            _ => copy[at] ^= 1 << roll(8),
        }
    }
    copy
}

#[test]
fn every_target_takes_every_kept_input_and_what_is_near() {
    for (name, target) in TARGETS {
        let kept = inputs(&workspace_root().join("tests/fuzz/corpus").join(name));
        assert!(!kept.is_empty(), "{name} has no inputs");
        for (file, bytes) in kept {
            // A panic's message does not say which input it was.
            println!("{name} {file}");
            target(&bytes);
            let copies = if bytes.len() > COPIED_MAX { 0 } else { COPIES };
            for number in 0..copies {
                println!("{name} {file}, copy {number}");
                target(&changed(&bytes, number + 1));
            }
        }
    }
}
