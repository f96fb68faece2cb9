//! Removing, banning and allowing, over restarts and under new certificates.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

const OWN: [u8; 16] = [9; 16];

fn known(worker: u64, name: &str, host: u8) -> Known {
    Known { worker: WorkerId(worker), name: name.to_owned(), host: [host; 16] }
}

/// A list, and the folder that it lies in.
fn list() -> (Exclusions, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Exclusions::open(dir.path().join("members")).unwrap(), dir)
}

/// A worker is here, and it is written down.
fn note(list: &Exclusions, known: Known) {
    list.note(known);
    list.write_noted().unwrap();
}

fn code(refusal: Option<Refusal>) -> Option<RefusalCode> {
    refusal.map(|refusal| refusal.code)
}

#[test]
fn a_removed_certificate_stays_out_over_restarts_and_no_other() {
    let (list, dir) = list();
    assert!(list.remove(WorkerId(7), "w", 5).unwrap());
    assert!(!list.remove(WorkerId(7), "w", 6).unwrap(), "it was removed before");
    let path = dir.path().join("members");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Exclusions::open(path).unwrap();
    for list in [list, again] {
        let refusal = list.refusal(WorkerId(7)).unwrap();
        assert_eq!(refusal.code, RefusalCode::Removed);
        assert!(refusal.text.contains("new --state-dir"), "{refusal}");
        assert_eq!(list.refusal(WorkerId(8)), None);
        assert_eq!(list.refusal_of("w", [1; 16]), None, "with a new certificate it may");
        assert_eq!(list.told().workers, [WorkerId(7)]);
    }
}

#[test]
fn a_ban_holds_for_name_and_machine_with_whatever_certificate() {
    let (list, dir) = list();
    for worker in [known(1, "a", 1), known(2, "b", 1), known(3, "a", 2), known(4, "c", 3)] {
        note(&list, worker);
    }
    let ban = list.ban(&known(1, "a", 1), OWN, 5).unwrap();
    assert_eq!((ban.workers, ban.host), ([1, 2, 3].map(WorkerId).to_vec(), [1; 16]));
    let list = Exclusions::open(dir.path().join("members")).unwrap();
    for worker in [1, 2, 3] {
        assert_eq!(code(list.refusal(WorkerId(worker))), Some(RefusalCode::Banned), "{worker}");
    }
    assert_eq!(list.refusal(WorkerId(4)), None);
    assert_eq!(code(list.refusal_of("a", [7; 16])), Some(RefusalCode::Banned), "by its name");
    assert_eq!(code(list.refusal_of("new", [1; 16])), Some(RefusalCode::Banned), "by its machine");
    assert_eq!(list.refusal_of("c", [3; 16]), None);
    assert_eq!(list.refusal_of("c", NO_HOST), None, "machines without an id are not one");
    let machine = list.all().1[0].machine().unwrap();
    assert_eq!(list.allow("nobody").unwrap(), []);
    assert_eq!(list.allow(&machine).unwrap().len(), 1);
    assert_eq!((list.refusal(WorkerId(1)), list.refusal_of("a", [1; 16])), (None, None));
    assert!(list.told().workers.is_empty());
}

#[test]
fn a_ban_spares_the_servers_own_machine_and_one_that_is_not_known() {
    let (list, _dir) = list();
    for host in [9, 0] {
        note(&list, known(2, "other", host));
        let ban = list.ban(&known(1, "a", host), OWN, 5).unwrap();
        assert_eq!((ban.machine(), ban.workers), (None, vec![WorkerId(1)]));
        assert_eq!(list.refusal_of("other", [host; 16]), None);
        assert_eq!(code(list.refusal_of("a", [host; 16])), Some(RefusalCode::Banned));
        assert_eq!(list.all().1.len(), 1, "the same ban stands once");
    }
    assert_eq!(list.allow("a").unwrap().len(), 1);
    assert_eq!(list.refusal(WorkerId(1)), None);
}

#[test]
fn those_that_come_together_are_written_together_and_nobody_twice() {
    let (list, dir) = list();
    let first: Vec<bool> = (1..=3).map(|worker| list.note(known(worker, "w", 1))).collect();
    assert_eq!(first, [true, false, false]);
    list.write_noted().unwrap();
    assert!(!list.note(known(2, "w", 1)), "nothing has changed");
    assert!(list.note(known(2, "renamed", 1)));
    list.write_noted().unwrap();
    let again = Exclusions::open(dir.path().join("members")).unwrap();
    assert_eq!(
        (again.find("w").len(), again.find(&WorkerId(2).hex())[0].name.as_str()),
        (2, "renamed")
    );
}

#[test]
fn a_removal_outlasts_a_ban() {
    let (list, _dir) = list();
    list.remove(WorkerId(1), "a", 5).unwrap();
    list.ban(&known(1, "a", 1), OWN, 6).unwrap();
    assert_eq!(list.allow("a").unwrap().len(), 1);
    assert_eq!(code(list.refusal(WorkerId(1))), Some(RefusalCode::Removed));
}

#[test]
fn a_damaged_list_is_told_and_lets_nobody_in() {
    let (list, dir) = list();
    note(&list, known(1, "a", 1));
    list.ban(&known(1, "a", 1), OWN, 5).unwrap();
    list.remove(WorkerId(2), "", 5).unwrap();
    let path = dir.path().join("members");
    let text = fs::read_to_string(&path).unwrap();
    for damaged in [
        &text[..text.len() / 2],
        "",
        &text.replace("\"format\": 1", "\"format\": 2"),
        &text.replace("0000000000000002", "2"),
        &text.replace("\"a\"", "\"a b\""),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = format!("{:#}", Exclusions::open(path.clone()).unwrap_err());
        assert!(error.contains("members is damaged") && error.contains("backup"), "{error}");
    }
    fs::write(&path, text).unwrap();
    Exclusions::open(path).unwrap();
}

#[test]
fn all_that_grows_has_a_limit() {
    let (list, dir) = list();
    let path = dir.path().join("members");
    let mut full = List::default();
    for worker in 0..REMOVED_MAX as u64 {
        let worker = WorkerId(worker);
        full.removed.push(Removal { worker, name: String::new(), at_ms: 0 });
    }
    full.write(&path).unwrap();
    let full = Exclusions::open(path).unwrap();
    assert!(matches!(full.remove(WorkerId(u64::MAX), "w", 1), Err(ExclusionError::Full)));
    assert!(matches!(full.ban(&known(u64::MAX, "w", 1), OWN, 1), Err(ExclusionError::Full)));
    assert_eq!(full.refusal(WorkerId(u64::MAX)), None, "nothing has changed");
    let mut many = List::default();
    (0..=KNOWN_MAX as u64).for_each(|worker| many.note(known(worker, "w", 1)));
    assert_eq!(many.find("w").len(), KNOWN_MAX);
    assert!(many.find(&WorkerId(0).hex()).is_empty(), "the first one is forgotten");
    drop(list);
}

#[test]
fn what_cannot_be_written_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let list = Exclusions::open(dir.path().join("gone/members")).unwrap();
    let error = list.remove(WorkerId(1), "w", 1).unwrap_err();
    assert!(error.to_string().contains("gone/members"), "{error}");
    assert_eq!(list.refusal(WorkerId(1)), None);
}

#[tokio::test]
async fn whoever_is_connected_hears_of_it() {
    let (list, _dir) = list();
    let list = Arc::new(list);
    let waiting = tokio::spawn({
        let list = Arc::clone(&list);
        async move { list.until_refused(WorkerId(1)).await }
    });
    list.remove(WorkerId(2), "other", 1).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    list.remove(WorkerId(1), "w", 1).unwrap();
    assert_eq!(waiting.await.unwrap().code, RefusalCode::Removed);
}
