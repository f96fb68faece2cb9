//! Slices that come damaged, late, too long, twice or not at all; disks that fill; files that rot.

use super::files::{self, CHUNK_LEN, Manifest};
use super::part::{Opened, Part};
use super::*;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use tempfile::TempDir;
use woolly_protocol::slices::{SliceKey, SliceManifest};

const FINGERPRINT: [u8; 32] = [7; 32];
const LAYER: SliceKey = SliceKey::Layer(3);

/// What the fake coordinator does instead of answering with the right bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    FlippedBit(usize),
    TooLong,
    TooShort,
    Silent,
    Lost,
    Refused,
}

/// A coordinator that serves one slice and misbehaves as often as it is told to.
struct Fake {
    content: Vec<u8>,
    manifest: SliceManifest,
    bad: Mutex<HashMap<u32, (Bad, u32)>>,
    manifests_asked: AtomicU32,
    chunks_asked: AtomicU32,
}

impl Fake {
    fn new(content: Vec<u8>) -> Arc<Fake> {
        let chunks = content.chunks(CHUNK_LEN as usize).map(|c| *blake3::hash(c).as_bytes());
        let manifest = SliceManifest { length: content.len() as u64, chunks: chunks.collect() };
        Arc::new(Fake {
            content,
            manifest,
            bad: Mutex::default(),
            manifests_asked: AtomicU32::new(0),
            chunks_asked: AtomicU32::new(0),
        })
    }

    fn misbehave(self: &Arc<Fake>, chunk: u32, bad: Bad, times: u32) -> Arc<Fake> {
        self.bad.lock().unwrap().insert(chunk, (bad, times));
        self.clone()
    }

    fn asked(&self) -> u32 {
        self.chunks_asked.load(Relaxed)
    }
}

impl ChunkSource for Fake {
    async fn manifest(&self, _: SliceKey) -> Result<SliceManifest, FetchError> {
        self.manifests_asked.fetch_add(1, Relaxed);
        Ok(self.manifest.clone())
    }

    async fn chunk(&self, _: SliceKey, chunk: u32) -> Result<Vec<u8>, FetchError> {
        self.chunks_asked.fetch_add(1, Relaxed);
        let at = chunk as usize * CHUNK_LEN as usize;
        let end = self.content.len().min(at + CHUNK_LEN as usize);
        let mut bytes = self.content[at..end].to_vec();
        let bad = match self.bad.lock().unwrap().get_mut(&chunk) {
            Some((bad, times)) if *times > 0 => {
                *times -= 1;
                Some(*bad)
            }
            _ => None,
        };
        match bad {
            None => return Ok(bytes),
            Some(Bad::FlippedBit(bit)) => bytes[bit / 8] ^= 1 << (bit % 8),
            Some(Bad::TooLong) => bytes.push(0),
            Some(Bad::TooShort) => drop(bytes.pop()),
            Some(Bad::Silent) => std::future::pending().await,
            Some(Bad::Lost) => return Err(FetchError::Lost("connection lost".to_owned())),
            Some(Bad::Refused) => return Err(FetchError::Refused("another model".to_owned())),
        }
        Ok(bytes)
    }
}

fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Two and a bit chunks.
fn three_chunks() -> Vec<u8> {
    content(2 * CHUNK_LEN as usize + 4321)
}

fn wanted(length: usize) -> Wanted {
    Wanted { fingerprint: FINGERPRINT, slice: LAYER, length: Length::Exactly(length as u64) }
}

fn store() -> (TempDir, SliceStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SliceStore::open(&dir.path().join("slices")).unwrap();
    (dir, store)
}

async fn ensure(store: &SliceStore, fake: &Arc<Fake>) -> Result<Stored, StoreError> {
    store.ensure(fake, wanted(fake.content.len()), &Arc::default()).await
}

/// The names in the store with this extension.
fn names(store: &SliceStore, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(&store.dir).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[tokio::test]
async fn a_slice_is_fetched_once_and_counted_once() {
    let (_dir, store) = store();
    let fake = Fake::new(three_chunks());
    let counters = Arc::new(Counters::default());
    let length = fake.content.len() as u64;
    let stored = store.ensure(&fake, wanted(fake.content.len()), &counters).await.unwrap();
    assert_eq!(fs::read(&stored.path).unwrap(), fake.content);
    assert_eq!((stored.length, stored.fetched_bytes), (length, length));
    assert_eq!(counters.loaded.load(Relaxed), length);
    let again = store.ensure(&fake, wanted(fake.content.len()), &counters).await.unwrap();
    assert_eq!(again.fetched_bytes, 0);
    assert_eq!(counters.loaded.load(Relaxed), 2 * length);
    assert_eq!((fake.asked(), fake.manifests_asked.load(Relaxed)), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn s_01_a_flipped_bit_is_fetched_again_and_never_stored() {
    let last = 4321 * 8 - 1;
    for (chunk, bit) in [(0, 0), (1, 5_000_001), (2, last)] {
        let (_dir, store) = store();
        let fake = Fake::new(three_chunks()).misbehave(chunk, Bad::FlippedBit(bit), 3);
        let stored = ensure(&store, &fake).await.unwrap();
        assert_eq!(fs::read(&stored.path).unwrap(), fake.content);
        assert_eq!(fake.asked(), 3 + 3);
    }
    let (_dir, store) = store();
    let fake = Fake::new(three_chunks()).misbehave(1, Bad::FlippedBit(9), 4);
    let error = ensure(&store, &fake).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { chunk: 1, times: 4, .. }), "{error}");
    assert!(names(&store, "slice").is_empty());
}

#[tokio::test(start_paused = true)]
async fn s_02_another_models_slice_of_the_same_length_is_refused() {
    let (_dir, store) = store();
    let right = Fake::new(three_chunks());
    let mut swapped = Fake::new(three_chunks().into_iter().rev().collect());
    Arc::get_mut(&mut swapped).unwrap().manifest = right.manifest.clone();
    let error = ensure(&store, &swapped).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(names(&store, "slice").is_empty());
}

#[tokio::test(start_paused = true)]
async fn s_04_too_many_too_few_and_no_bytes_are_given_up() {
    for bad in [Bad::TooLong, Bad::TooShort] {
        let (_dir, store) = store();
        let fake = Fake::new(three_chunks()).misbehave(0, bad, 4);
        let error = ensure(&store, &fake).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { chunk: 0, .. }), "{bad:?}: {error}");
    }
    for (bad, limit_s) in [(Bad::Silent, 120), (Bad::Lost, 5)] {
        let (_dir, store) = store();
        let fake = Fake::new(three_chunks()).misbehave(2, bad, 4);
        let start = tokio::time::Instant::now();
        let error = ensure(&store, &fake).await.unwrap_err();
        assert!(matches!(error, StoreError::Fetch { .. }), "{bad:?}: {error}");
        assert!(start.elapsed() < Duration::from_secs(limit_s), "{bad:?}: {:?}", start.elapsed());
    }
    let (_dir, store) = store();
    let fake = Fake::new(three_chunks()).misbehave(1, Bad::Silent, 1);
    assert!(ensure(&store, &fake).await.is_ok(), "one silence is survived");
}

#[tokio::test]
async fn s_05_every_name_is_64_hexadecimal_digits() {
    let (_dir, store) = store();
    let _stored = ensure(&store, &Fake::new(content(99))).await.unwrap();
    for entry in fs::read_dir(&store.dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (stem, extension) = name.split_once('.').unwrap();
        assert!(stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
        assert!(["slice", "manifest", "verified"].contains(&extension), "{name}");
    }
}

#[tokio::test]
async fn another_slice_is_on_its_way_while_one_waits() {
    let (_dir, store) = store();
    // One chunk of the first comes only after a while; the second is whole before.
    let (slow, quick) = (Fake::new(three_chunks()), Fake::new(content(99)));
    let both = Arc::new(Both { slow: slow.misbehave(1, Bad::Lost, 3), quick });
    let of = |slice, length| (slice, Wanted { slice, ..wanted(length) });
    let all = [of(LAYER, three_chunks().len()), of(SliceKey::Head, 99)];
    let stored = store.ensure_all(&both, all, &Arc::default()).await.unwrap();
    let order: Vec<_> = stored.iter().map(|(slice, _)| *slice).collect();
    assert_eq!(order, [SliceKey::Head, LAYER], "the quick one overtakes");
    // What was fetched of one stays when the other cannot be had.
    let (_dir, store) = self::store();
    let refused = Fake::new(three_chunks()).misbehave(0, Bad::Refused, 9);
    let both = Arc::new(Both { slow: refused, quick: Fake::new(content(99)) });
    assert!(store.ensure_all(&both, all, &Arc::default()).await.is_err());
    assert!(names(&store, "slice").len() <= 1);
}

/// Two slices of one model.
struct Both {
    slow: Arc<Fake>,
    quick: Arc<Fake>,
}

impl Both {
    fn of(&self, slice: SliceKey) -> &Fake {
        if slice == LAYER { &self.slow } else { &self.quick }
    }
}

impl ChunkSource for Both {
    async fn manifest(&self, slice: SliceKey) -> Result<SliceManifest, FetchError> {
        self.of(slice).manifest(slice).await
    }

    async fn chunk(&self, slice: SliceKey, chunk: u32) -> Result<Vec<u8>, FetchError> {
        self.of(slice).chunk(slice, chunk).await
    }
}

#[tokio::test]
async fn s_06_two_workers_fetch_the_same_slice_once() {
    let (_dir, store) = store();
    let fake = Fake::new(content(9 * CHUNK_LEN as usize));
    let second = SliceStore::open(&store.dir).unwrap();
    let (a, b) = tokio::join!(ensure(&store, &fake), ensure(&second, &fake));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.path, b.path);
    assert_eq!(fs::read(&a.path).unwrap(), fake.content);
    assert_eq!(a.fetched_bytes + b.fetched_bytes, a.length);
    assert_eq!(fake.asked(), 9);
}

#[tokio::test]
async fn s_07_a_killed_download_goes_on_from_its_good_chunks() {
    let (_dir, store) = store();
    let fake = Fake::new(three_chunks());
    let wanted = wanted(fake.content.len());
    let manifest = Manifest::from_wire(&wanted, fake.manifest.clone()).unwrap();
    // As kill -9 leaves it: a whole chunk, a hole, half of the last chunk.
    let mut left = fake.content[..2 * CHUNK_LEN as usize + 2000].to_vec();
    left[CHUNK_LEN as usize..2 * CHUNK_LEN as usize].fill(0);
    fs::write(manifest.part_path(&store.dir), &left).unwrap();
    let stored = ensure(&store, &fake).await.unwrap();
    assert_eq!(fs::read(&stored.path).unwrap(), fake.content);
    assert_eq!(stored.fetched_bytes, fake.content.len() as u64 - CHUNK_LEN);
    assert_eq!(fake.asked(), 2);
    assert!(names(&store, "part").is_empty());
}

#[tokio::test(start_paused = true)]
async fn s_07_a_cancelled_download_leaves_no_slice_and_no_lock() {
    let (_dir, store) = store();
    let fake = Fake::new(three_chunks()).misbehave(2, Bad::Silent, 1);
    let cut = tokio::time::timeout(Duration::from_secs(2), ensure(&store, &fake)).await;
    assert!(cut.is_err(), "the silent chunk was not waited for");
    assert!(names(&store, "slice").is_empty());
    let stored = ensure(&store, &fake).await.unwrap();
    assert_eq!(fs::read(&stored.path).unwrap(), fake.content);
}

#[tokio::test]
async fn s_08_a_full_disk_is_named_and_the_part_is_freed() {
    let (_dir, store) = store();
    let fake = Fake::new(content(100));
    let manifest = Arc::new(Manifest::from_wire(&wanted(100), fake.manifest.clone()).unwrap());
    let path = manifest.part_path(&store.dir);
    fs::write(&path, b"begun").unwrap();
    // Every write to this device fails as on a full disk.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let part = Part::over(full, path.clone(), store.dir.to_path_buf(), manifest);
    let error = part.write_chunk(0, &fake.content).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{text}");
    assert!(text.contains("100 B") && text.contains(&path.display().to_string()), "{text}");
    assert!(!path.exists(), "the room was not given back");
}

#[tokio::test]
async fn s_10_a_manifest_beyond_the_assignment_is_refused() {
    let (_dir, store) = store();
    for (length, chunks) in [(1 << 40, 3), (0, 0), (300, 2), (300, 0), (299, 1)] {
        let mut fake = Fake::new(content(300));
        let manifest = SliceManifest { length, chunks: vec![[0; 32]; chunks] };
        Arc::get_mut(&mut fake).unwrap().manifest = manifest;
        let error = ensure(&store, &fake).await.unwrap_err();
        assert!(matches!(error, StoreError::Manifest { .. }), "{length}, {chunks}: {error}");
        assert_eq!(fake.asked(), 0);
    }
    let wanted = Wanted { length: Length::AtMost(299), ..wanted(300) };
    let error = store.ensure(&Fake::new(content(300)), wanted, &Arc::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Manifest { .. }), "{error}");
}

#[tokio::test]
async fn s_11_rot_on_disk_is_found_at_start_and_only_that_chunk_is_fetched() {
    let (_dir, store) = store();
    let fake = Fake::new(three_chunks());
    let path = ensure(&store, &fake).await.unwrap().path;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[fake.content[7] ^ 1], 7).unwrap();
    drop(file);
    assert_eq!(store.inventory(true).unwrap()[0].state, SliceState::Damaged(1));
    let stored = ensure(&store, &fake).await.unwrap();
    assert_eq!(fs::read(&stored.path).unwrap(), fake.content);
    assert_eq!(stored.fetched_bytes, CHUNK_LEN);
}

#[tokio::test]
async fn s_11_rot_in_a_slice_that_another_worker_maps_is_replaced_beside_it() {
    let (_dir, store) = store();
    let fake = Fake::new(content(300));
    let held = ensure(&store, &fake).await.unwrap();
    let file = fs::OpenOptions::new().write(true).open(&held.path).unwrap();
    file.write_all_at(&[fake.content[7] ^ 1], 7).unwrap();
    let stored = ensure(&store, &fake).await.unwrap();
    assert_eq!(stored.fetched_bytes, 300);
    assert_eq!(fs::read(&stored.path).unwrap(), fake.content);
}

#[tokio::test]
async fn s_12_links_are_not_followed() {
    let (dir, store) = store();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&*store.dir, &link).unwrap();
    assert!(matches!(SliceStore::open(&link), Err(StoreError::Folder { .. })));
    let fake = Fake::new(content(300));
    let manifest = Manifest::from_wire(&wanted(300), fake.manifest.clone()).unwrap();
    let target = dir.path().join("precious");
    fs::write(&target, b"precious").unwrap();
    let paths = [manifest.part_path(&store.dir), manifest.slice_path(&store.dir)];
    for planted in paths {
        std::os::unix::fs::symlink(&target, &planted).unwrap();
        let error = ensure(&store, &fake).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        fs::remove_file(&planted).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[tokio::test]
async fn s_13_a_refusal_is_not_asked_again() {
    let (_dir, store) = store();
    let fake = Fake::new(three_chunks()).misbehave(0, Bad::Refused, 9);
    let error = ensure(&store, &fake).await.unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
    assert!(fake.asked() <= 3);
}

#[tokio::test]
async fn a_damaged_manifest_is_fetched_again() {
    let (_dir, store) = store();
    let fake = Fake::new(content(300));
    drop(ensure(&store, &fake).await.unwrap());
    let path = names(&store, "manifest").remove(0);
    let whole = fs::read(&path).unwrap();
    for bytes in [&whole[..whole.len() - 1], b"", &[0; 4096]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(ensure(&store, &fake).await.unwrap().fetched_bytes, 0);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[tokio::test]
async fn prune_keeps_what_is_in_use_and_what_is_not_its_own() {
    let (_dir, store) = store();
    let (a, b) = (Fake::new(content(300)), Fake::new(content(301)));
    let held = ensure(&store, &a).await.unwrap();
    let other = Wanted { slice: SliceKey::Head, ..wanted(301) };
    drop(store.ensure(&b, other, &Arc::default()).await.unwrap());
    fs::write(store.dir.join("notes.txt"), "mine").unwrap();
    let listed = store.inventory(false).unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|slice| slice.state == SliceState::Verified));
    let (files, bytes) = store.prune().unwrap();
    assert!(files == 3 && bytes > 301, "{files} files, {bytes} bytes");
    assert!(held.path.exists() && store.dir.join("notes.txt").exists());
    assert_eq!(ensure(&store, &a).await.unwrap().fetched_bytes, 0);
    drop(held);
    store.prune().unwrap();
    assert!(names(&store, "slice").is_empty() && names(&store, "manifest").is_empty());
}

#[test]
fn a_part_is_locked_against_a_second_worker() {
    let (_dir, store) = store();
    let fake = Fake::new(content(300));
    let manifest = Arc::new(Manifest::from_wire(&wanted(300), fake.manifest.clone()).unwrap());
    let first = Part::open(&store.dir, manifest.clone()).unwrap();
    assert!(matches!(first, Opened::Mine(_)));
    let second = Part::open(&store.dir, manifest.clone()).unwrap();
    assert!(matches!(second, Opened::Busy { .. }));
    drop(first);
    assert!(matches!(Part::open(&store.dir, manifest).unwrap(), Opened::Mine(_)));
}

#[test]
fn names_differ_by_model_and_slice() {
    let slices = [SliceKey::Header(0), SliceKey::Header(1), SliceKey::Embedding, SliceKey::Head];
    let mut names: Vec<String> =
        slices.iter().chain([&LAYER]).map(|slice| files::key_name(&FINGERPRINT, *slice)).collect();
    names.push(files::key_name(&[8; 32], LAYER));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Changes a stored slice, and what was remembered of it to go with the change: a disk that rotted
/// while the machine was off tells no other time.
fn rot(store: &SliceStore, slice: &Path, at: u64, boot: Option<[u8; 16]>) {
    let file = File::options().write(true).read(true).open(slice).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let stem = slice.file_stem().unwrap().to_str().unwrap();
    let key = files::key_name(&FINGERPRINT, LAYER);
    let manifest = Manifest::load(&store.dir, &key).unwrap();
    assert_eq!(manifest.root_name(), stem);
    files::mark_verified(&store.dir, &manifest, &file).unwrap();
    if let Some(boot) = boot {
        let marker = manifest.verified_path(&store.dir);
        let mut bytes = fs::read(&marker).unwrap();
        let end = bytes.len() - 16;
        bytes[end..].copy_from_slice(&boot);
        fs::write(&marker, bytes).unwrap();
    }
}

#[tokio::test]
async fn what_rotted_without_a_new_time_is_found_after_a_boot_or_when_asked_for() {
    let (bytes, counters) = (three_chunks(), Arc::new(Counters::default()));
    let verify = Verify { verify: true, verify_interval: Duration::ZERO };
    for (boot, verify) in [(Some([9; 16]), None), (None, Some(verify))] {
        let (_dir, store) = store();
        let fake = Fake::new(bytes.clone());
        let stored = store.ensure(&fake, wanted(bytes.len()), &counters).await.unwrap();
        let path = stored.path.clone();
        drop(stored);
        rot(&store, &path, CHUNK_LEN + 5, boot);
        let next = SliceStore::open(&store.dir).unwrap();
        let next = match verify {
            Some(verify) => next.verifying(verify, &counters),
            None => next,
        };
        let before = (fake.asked(), counters.damaged_chunks.load(Relaxed));
        let stored = next.ensure(&fake, wanted(bytes.len()), &counters).await.unwrap();
        assert_eq!(fs::read(&stored.path).unwrap(), bytes);
        let after = (fake.asked(), counters.damaged_chunks.load(Relaxed));
        assert_eq!(after, (before.0 + 1, before.1 + 1), "the damaged chunk alone is fetched");
        // Once compared, it is not read again by this process.
        drop(stored);
        let loaded = counters.loaded.load(Relaxed);
        next.ensure(&fake, wanted(bytes.len()), &counters).await.unwrap();
        assert_eq!(counters.loaded.load(Relaxed) - loaded, bytes.len() as u64);
    }
}

#[tokio::test]
async fn without_a_boot_equal_stat_is_believed() {
    let (bytes, counters) = (three_chunks(), Arc::new(Counters::default()));
    let (_dir, store) = store();
    let fake = Fake::new(bytes.clone());
    let path = store.ensure(&fake, wanted(bytes.len()), &counters).await.unwrap().path.clone();
    rot(&store, &path, 5, None);
    store.ensure(&fake, wanted(bytes.len()), &counters).await.unwrap();
    assert_ne!(fs::read(&path).unwrap(), bytes, "a restart reads nothing");
}
