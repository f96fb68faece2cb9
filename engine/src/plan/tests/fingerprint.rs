//! Fingerprints: the definition, every byte counts, and what is remembered.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::plan::{CHUNK_BYTES, FingerprintMemory, fingerprint};

fn of(paths: &[PathBuf]) -> [u8; 32] {
    fingerprint(paths, &AtomicU64::new(0)).unwrap()
}

fn file(directory: &Path, name: &str, len: usize) -> PathBuf {
    let path = directory.join(name);
    let bytes: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8).collect();
    fs::write(&path, bytes).unwrap();
    path
}

/// Bytes read to answer, and the answer.
fn asked(memory: &FingerprintMemory, paths: &[PathBuf], verify: bool) -> (u64, [u8; 32]) {
    let progress = AtomicU64::new(0);
    let found = memory.fingerprint(paths, verify, &progress).unwrap();
    (progress.into_inner(), found)
}

/// Longer than the time within which a file may still change unseen.
fn settle() {
    sleep(Duration::from_millis(150));
}

#[test]
fn the_definition() {
    let directory = tempfile::tempdir().unwrap();
    let chunk = CHUNK_BYTES as usize;
    for lens in [vec![0], vec![1], vec![chunk], vec![chunk + 1, 5], vec![3 * chunk - 1, 0, chunk]] {
        let mut root = blake3::Hasher::new();
        let mut paths = Vec::new();
        for (at, &len) in lens.iter().enumerate() {
            let path = file(directory.path(), &at.to_string(), len);
            root.update(&(len as u64).to_le_bytes());
            for chunk in fs::read(&path).unwrap().chunks(chunk) {
                root.update(blake3::hash(chunk).as_bytes());
            }
            paths.push(path);
        }
        let progress = AtomicU64::new(0);
        let found = fingerprint(&paths, &progress).unwrap();
        assert_eq!(&found, root.finalize().as_bytes());
        assert_eq!(progress.load(Ordering::Relaxed), lens.iter().sum::<usize>() as u64);
    }
}

#[test]
fn every_byte_and_the_place_of_every_byte_count() {
    let directory = tempfile::tempdir().unwrap();
    let a = file(directory.path(), "a", 3 * CHUNK_BYTES as usize);
    let b = file(directory.path(), "b", 100);
    let before = of(std::slice::from_ref(&a));
    assert_ne!(of(&[a.clone(), b.clone()]), of(&[b, a.clone()]));
    for at in [0, CHUNK_BYTES, 3 * CHUNK_BYTES - 1] {
        let open = fs::OpenOptions::new().read(true).write(true).open(&a).unwrap();
        let mut byte = [0];
        open.read_exact_at(&mut byte, at).unwrap();
        open.write_all_at(&[byte[0] ^ 1], at).unwrap();
        assert_ne!(of(std::slice::from_ref(&a)), before);
        open.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(of(std::slice::from_ref(&a)), before);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let progress = AtomicU64::new(0);
    for path in [directory.path().to_owned(), "/dev/zero".into(), directory.path().join("none")] {
        assert!(fingerprint(&[path], &progress).is_err());
    }
}

#[test]
fn equal_stat_is_remembered_and_verify_reads_again() {
    let directory = tempfile::tempdir().unwrap();
    let memory = FingerprintMemory::new(directory.path(), [1; 16]);
    let paths = [file(directory.path(), "a", 1000), file(directory.path(), "b", 500)];
    settle();
    let (read, first) = asked(&memory, &paths, false);
    assert_eq!(read, 1500);
    assert_eq!(asked(&memory, &paths, false), (0, first));
    assert_eq!(asked(&memory, &paths, true), (1500, first));
    assert_eq!(asked(&memory, &paths[..1], false).0, 1000, "other files, another model");
    assert_eq!(asked(&memory, &paths, false), (0, first), "both are remembered");
    fs::write(&paths[1], [1; 500]).unwrap();
    settle();
    let (read, changed) = asked(&memory, &paths, false);
    assert_eq!(read, 1500);
    assert_ne!(changed, first);
}

#[test]
fn what_was_remembered_is_forgotten_when_the_machine_boots() {
    let directory = tempfile::tempdir().unwrap();
    let path = [file(directory.path(), "a", 1000)];
    settle();
    let before = FingerprintMemory::new(directory.path(), [1; 16]);
    let (_, known) = asked(&before, &path, false);
    assert_eq!(asked(&before, &path, false), (0, known));
    let after = FingerprintMemory::new(directory.path(), [2; 16]);
    assert_eq!(asked(&after, &path, false), (1000, known));
    assert_eq!(asked(&after, &path, false), (0, known));
}

#[test]
fn a_file_that_may_still_change_is_not_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let memory = FingerprintMemory::new(directory.path(), [1; 16]);
    let path = file(directory.path(), "a", 1000);
    let open = fs::OpenOptions::new().write(true).open(&path).unwrap();
    open.set_modified(std::time::SystemTime::now() + Duration::from_secs(3600)).unwrap();
    settle();
    assert_eq!(asked(&memory, std::slice::from_ref(&path), false).0, 1000);
    assert_eq!(asked(&memory, std::slice::from_ref(&path), false).0, 1000);
}

#[test]
fn a_damaged_memory_costs_a_computation() {
    let directory = tempfile::tempdir().unwrap();
    let memory = FingerprintMemory::new(directory.path(), [1; 16]);
    let paths = [file(directory.path(), "a", 1000)];
    let stored = directory.path().join("fingerprints");
    settle();
    let (_, known) = asked(&memory, &paths, false);
    let whole = fs::read(&stored).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&stored, &bytes).unwrap();
        assert_eq!(asked(&memory, &paths, false).1, known, "byte {at}");
    }
    for bytes in [vec![], vec![0xff; 100], whole[..whole.len() / 2].to_vec(), vec![b'x'; 2 << 20]] {
        fs::write(&stored, &bytes).unwrap();
        assert_eq!(asked(&memory, &paths, false), (1000, known));
        assert_eq!(asked(&memory, &paths, false), (0, known), "and is written anew");
    }
    fs::remove_file(&stored).unwrap();
    fs::create_dir(&stored).unwrap();
    assert_eq!(asked(&memory, &paths, false), (1000, known), "it cannot be written: no error");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "no temporary file stays");
}

#[test]
fn the_oldest_models_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let memory = FingerprintMemory::new(directory.path(), [1; 16]);
    let paths: Vec<PathBuf> =
        (0..70).map(|at| file(directory.path(), &format!("m{at}"), 10 + at)).collect();
    settle();
    for path in &paths {
        asked(&memory, std::slice::from_ref(path), false);
    }
    let lines = fs::read_to_string(directory.path().join("fingerprints")).unwrap().lines().count();
    assert_eq!(lines, 64);
    assert_ne!(asked(&memory, &paths[..1], false).0, 0);
    assert_eq!(asked(&memory, &paths[69..], false).0, 0);
}
