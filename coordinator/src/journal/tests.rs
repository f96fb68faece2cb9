//! The file's form, and what becomes of one that is torn, damaged, full, foreign or cannot be written.

use super::file::JournalFile;
use super::format::{self, Entry, Note, Stamp};
use super::{Gone, Journal, Limits, NotKept, OpenError, Opened};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMITS: Limits = Limits { bytes: 30_000 };

fn stamp() -> Stamp {
    Stamp { program: "1.2.3".into(), protocol: 6, numerics: 2, grammar: "g 1".into() }
}

fn entry(number: u128) -> Entry {
    let body = format!("{{\"prompt\":\"{number}\"}}").into_bytes();
    let (key, fingerprint, meaning) = ([1; 32], [2; 32], [3; 32]);
    Entry { number, created: 9, seed: u64::MAX, api: 3, key, fingerprint, meaning, body }
}

fn open(folder: &Path) -> (JournalFile, Opened) {
    let (file, _, opened) = JournalFile::open(folder, &stamp(), LIMITS).unwrap();
    (file, opened)
}

fn numbers(opened: &Opened) -> Vec<u128> {
    opened.restored.iter().map(|one| one.entry.number).collect()
}

/// A folder whose journal holds these.
fn with(count: u128) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = open(folder.path());
    let entries: Vec<Entry> = (0..count).map(entry).collect();
    assert!(file.accept(&entries, Instant::now()).iter().all(Result::is_ok));
    folder
}

fn change(folder: &Path, with: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join("streams.journal");
    let mut bytes = fs::read(&path).unwrap();
    with(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn what_has_not_ended_is_there_again_in_order_with_what_is_known_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, opened) = open(folder.path());
    assert!(opened.restored.is_empty() && opened.gone.is_empty());
    let now = Instant::now();
    assert_eq!(file.accept(&[entry(7), entry(3), entry(5)], now), [Ok(()); 3]);
    file.note(7, Note::Cached { choice: 1, tokens: 32 }, now);
    file.note(3, Note::Ended, now);
    file.note(5, Note::Finished, now);
    file.note(99, Note::Ended, now);
    drop(file);
    // Twice: what was read is written anew.
    for _ in 0..2 {
        let (_, opened) = open(folder.path());
        assert_eq!(numbers(&opened), [7, 5]);
        assert_eq!(opened.restored[0].entry, entry(7));
        assert_eq!(opened.restored[0].cached, [(1, 32)].into());
        assert_eq!([opened.restored[0].finished, opened.restored[1].finished], [false, true]);
    }
}

#[test]
fn a_torn_last_record_is_dropped_wherever_it_is_torn() {
    let whole = fs::read(with(2).path().join("streams.journal")).unwrap();
    let second = format::accepted(&entry(1)).len();
    for cut in 1..second {
        let folder = with(0);
        change(folder.path(), |bytes| *bytes = whole[..whole.len() - cut].to_vec());
        let (_, opened) = open(folder.path());
        assert_eq!((numbers(&opened), opened.gone.len()), (vec![0], 0), "{cut} bytes are missing");
    }
}

#[test]
fn a_damaged_record_ends_its_own_stream_and_no_other() {
    let record = format::accepted(&entry(0)).len();
    for at in 0..record {
        let folder = with(3);
        change(folder.path(), |bytes| bytes[format::FILE_HEAD + record + at] ^= 0x10);
        let (_, opened) = open(folder.path());
        assert_eq!(numbers(&opened), [0, 2], "byte {at}");
        let named: Vec<_> = opened.gone.iter().map(|(number, _, gone)| (*number, gone)).collect();
        // Of a damaged head nobody knows whose it was.
        let of_head = at < format::RECORD_BYTES - 8;
        let expected = if of_head { vec![] } else { vec![(1, &Gone::Damaged)] };
        assert_eq!((named, opened.warnings.len()), (expected, 1), "byte {at}");
    }
}

#[test]
fn a_file_of_another_build_is_not_gone_on_with() {
    let changes: [fn(&mut Stamp); 4] = [
        |stamp| stamp.program.push('x'),
        |stamp| stamp.protocol += 1,
        |stamp| stamp.numerics += 1,
        |stamp| stamp.grammar = "g 2".into(),
    ];
    for (change, word) in changes.into_iter().zip(["1.2.3", "PROTOCOL 6", "NUMERICS 2", "g 1"]) {
        let folder = with(2);
        let mut other = stamp();
        change(&mut other);
        let (file, _, opened) = JournalFile::open(folder.path(), &other, LIMITS).unwrap();
        assert!(opened.restored.is_empty());
        for ((number, key, gone), expected) in opened.gone.iter().zip([0, 1]) {
            assert_eq!((*number, *key), (expected, Some([1; 32])));
            assert!(matches!(gone, Gone::Foreign(text) if text.contains(word)), "{gone:?}");
        }
        assert_eq!(opened.gone.len(), 2);
        drop(file);
        let (_, _, again) = JournalFile::open(folder.path(), &other, LIMITS).unwrap();
        assert!(again.gone.is_empty() && again.restored.is_empty());
    }
}

#[test]
fn what_is_no_journal_is_begun_anew() {
    let whole = fs::read(with(1).path().join("streams.journal")).unwrap();
    for cut in [0, 1, format::FILE_HEAD - 1] {
        let folder = with(0);
        change(folder.path(), |bytes| *bytes = whole[..cut].to_vec());
        let (mut file, opened) = open(folder.path());
        assert!(opened.restored.is_empty());
        assert_eq!(file.accept(&[entry(1)], Instant::now()), [Ok(())]);
    }
}

#[test]
fn the_file_stays_within_its_limit_and_what_lives_within_a_third() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = open(folder.path());
    let now = Instant::now();
    let size = || fs::metadata(folder.path().join("streams.journal")).unwrap().len();
    for number in 0..1000 {
        assert_eq!(file.accept(&[entry(number)], now), [Ok(())], "{number}");
        file.note(number, Note::Ended, now);
        assert!(size() <= LIMITS.bytes / 3 * 2, "{}", size());
    }
    let kept = (1000..2000).take_while(|number| file.accept(&[entry(*number)], now)[0].is_ok());
    let kept = kept.count() as u64;
    let each = format::accepted(&entry(1000)).len() as u64;
    assert_eq!(kept, LIMITS.bytes / 3 / each);
    assert_eq!(file.accept(&[entry(5)], now), [Err(NotKept::Full)]);
    file.note(1000, Note::Ended, now);
    assert_eq!(file.accept(&[entry(2000)], now), [Ok(())]);
    drop(file);
    let (_, opened) = open(folder.path());
    assert_eq!(numbers(&opened).len() as u64, kept);
    assert_eq!(numbers(&opened).last(), Some(&2000));
}

#[test]
fn a_disk_that_cannot_be_written_is_tried_again_later_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = open(folder.path());
    let now = Instant::now();
    assert_eq!(file.accept(&[entry(1), entry(2)], now), [Ok(()), Ok(())]);
    file.break_it();
    let failing = [Err(NotKept::Failing); 2];
    assert_eq!(file.accept(&[entry(3), entry(4)], now), failing);
    assert_eq!(file.standing(), (2, file.standing().1, true));
    file.note(1, Note::Ended, now);
    file.mend();
    assert_eq!(file.accept(&[entry(5), entry(6)], now + Duration::from_secs(9)), failing);
    assert_eq!(file.accept(&[entry(7)], now + Duration::from_secs(10)), [Ok(())]);
    assert!(!file.standing().2);
    drop(file);
    assert_eq!(numbers(&open(folder.path()).1), [2, 7]);
}

#[test]
fn folder_and_files_are_for_their_owner_and_for_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("a/journal");
    let (file, _) = open(&journal);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&journal), mode(&journal.join("streams.journal"))), (0o700, 0o600));
    let second = JournalFile::open(&journal, &stamp(), LIMITS).unwrap_err();
    assert!(matches!(&second, OpenError::Taken(path) if *path == journal), "{second}");
    drop(file);
    fs::set_permissions(journal.join("streams.journal"), fs::Permissions::from_mode(0o644))
        .unwrap();
    drop(open(&journal));
    assert_eq!(mode(&journal.join("streams.journal")), 0o600);
    let no_folder = JournalFile::open(Path::new("/dev/null/x"), &stamp(), LIMITS).unwrap_err();
    assert!(no_folder.to_string().contains("/dev/null/x"), "{no_folder}");
}

#[tokio::test]
async fn many_requests_at_once_are_all_on_the_disk_when_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(folder.path(), &stamp(), Limits { bytes: 1 << 20 }).unwrap();
    let all = (0..300).map(|number| journal.accept(entry(number)));
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    let bytes = fs::read(folder.path().join("streams.journal")).unwrap();
    assert_eq!(format::Reader::new(&bytes).count(), 300);
    assert_eq!((journal.standing().requests, journal.standing().failing), (300, false));
    assert_ne!(journal.seal(&[1; 32]), [1; 32]);
}
