//! The token store: every reason to refuse, and several processes at once.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use woolly_protocol::refusal::RefusalCode;
use woolly_protocol::token::JoinToken;
use woolly_protocol::token_store::{TOKEN_FILE, TokenOptions, TokenState, TokenStore};

const PIN: [u8; 32] = [9; 32];
const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn redeem(store: &TokenStore, token: &JoinToken, at: SystemTime) -> Option<RefusalCode> {
    let answer = store.redeem(&token.id.to_string(), &token.secret(), at).unwrap();
    answer.err().map(|refusal| {
        assert!(refusal.text.contains("token create"), "{refusal}");
        refusal.code
    })
}

#[test]
fn every_reason_to_refuse_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let store = TokenStore::open(dir.path()).unwrap();
    let options = TokenOptions { lifetime: Some(HOUR), uses: Some(2) };
    let token = store.create(PIN, options, now()).unwrap();
    assert_eq!(redeem(&store, &token, now()), None);
    assert_eq!(redeem(&store, &token, now() + HOUR - Duration::from_secs(1)), None);
    assert_eq!(redeem(&store, &token, now()), Some(RefusalCode::TokenUsedUp));

    let token = store.create(PIN, options, now()).unwrap();
    assert_eq!(redeem(&store, &token, now() + HOUR), Some(RefusalCode::TokenExpired));

    let token = store.create(PIN, TokenOptions::default(), now()).unwrap();
    assert_eq!(redeem(&store, &token, now() + 1000 * HOUR), None);
    assert!(store.revoke(token.id).unwrap());
    assert_eq!(redeem(&store, &token, now()), Some(RefusalCode::TokenRevoked));
    assert!(!store.revoke(JoinToken::random(PIN).id).unwrap());

    let stranger = JoinToken::random(PIN);
    assert_eq!(redeem(&store, &stranger, now()), Some(RefusalCode::TokenWrong));
    // Without the right secret, not even that it is revoked.
    for secret in [stranger.secret(), String::new(), "x".repeat(32)] {
        let answer = store.redeem(&token.id.to_string(), &secret, now()).unwrap();
        assert_eq!(answer.unwrap_err().code, RefusalCode::TokenWrong);
    }
}

#[test]
fn the_file_has_no_secret_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = TokenOptions { lifetime: None, uses: Some(1) };
    let token = TokenStore::open(dir.path()).unwrap().create(PIN, options, now()).unwrap();
    let text = fs::read_to_string(dir.path().join(TOKEN_FILE)).unwrap();
    assert!(text.contains(&token.id.to_string()) && !text.contains(&token.secret()), "{text}");
    let store = TokenStore::open(dir.path()).unwrap();
    let listed = store.list().unwrap();
    assert_eq!((listed.len(), listed[0].id, listed[0].uses_left), (1, token.id, Some(1)));
    assert_eq!(listed[0].created, 1_800_000_000);
    assert_eq!(redeem(&store, &token, now()), None);
    assert_eq!(store.list().unwrap()[0].state(now()), TokenState::UsedUp);
    // Forgotten a month later, when the next one is made.
    let later = now() + 31 * 24 * HOUR;
    let next = store.create(PIN, options, later).unwrap();
    let ids: Vec<_> = store.list().unwrap().iter().map(|token| token.id).collect();
    assert_eq!(ids, [next.id]);
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = TokenStore::open(dir.path()).unwrap();
    store.create(PIN, TokenOptions::default(), now()).unwrap();
    let path = dir.path().join(TOKEN_FILE);
    let good = fs::read_to_string(&path).unwrap();
    for (bad, line) in
        [("", "line 1"), ("tokens 9\n", "line 1"), (&good[..good.len() - 3], "line 2")]
    {
        fs::write(&path, bad).unwrap();
        let error = TokenStore::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(path.to_str().unwrap()), "{error}");
    }
}

/// How many of `tries` attempts succeed.
fn redeem_often(dir: &std::path::Path, token: &JoinToken, tries: usize) -> usize {
    let store = TokenStore::open(dir).unwrap();
    (0..tries).filter(|_| redeem(&store, token, now()).is_none()).count()
}

const CHILD_DIR: &str = "WOOLLY_TEST_TOKEN_DIR";
const CHILD_TOKEN: &str = "WOOLLY_TEST_TOKEN";

/// The other process of the test below: does nothing unless that one starts it.
#[test]
fn other_process() {
    let (Ok(dir), Ok(token)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_TOKEN)) else {
        return;
    };
    println!("redeemed={}", redeem_often(dir.as_ref(), &token.parse().unwrap(), 30));
}

#[test]
fn threads_and_processes_share_the_uses() {
    let dir = tempfile::tempdir().unwrap();
    let store = TokenStore::open(dir.path()).unwrap();
    let options = TokenOptions { lifetime: None, uses: Some(50) };
    let token = store.create(PIN, options, now()).unwrap();
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tokens::other_process", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_TOKEN, token.to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children = [spawn(), spawn()];
    let mut redeemed = std::thread::scope(|scope| {
        let threads = [0; 2].map(|_| scope.spawn(|| redeem_often(dir.path(), &token, 30)));
        threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>()
    });
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let count = text.split("redeemed=").nth(1).unwrap().lines().next().unwrap();
        redeemed += count.parse::<usize>().unwrap();
    }
    // 120 attempts, 50 uses: none lost, none given twice.
    assert_eq!(redeemed, 50);
    assert_eq!(store.list().unwrap()[0].uses_left, Some(0));
}
