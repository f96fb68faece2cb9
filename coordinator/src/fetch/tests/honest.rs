//! Downloads that come to something: names, ranges, going on, sharing, proxies.

use super::server::{Answer, Seen, Server, proxy};
use super::*;
use crate::fetch::part::{part_path, record_path};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::tempdir;

#[test]
fn a_repository_is_downloaded_by_quantisation_and_used_without_a_question_afterwards() {
    let (q8, first, second) = (file(100_000), file(70_000), file(50_000));
    let server = hub(vec![
        ("m-Q8_0.gguf", q8),
        ("Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", first.clone()),
        ("Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", second.clone()),
        ("mmproj-m-F16.gguf", file(10)),
    ]);
    let folder = tempdir().unwrap();
    let path = get_hf(folder.path(), &server, "hf:o/r").unwrap();
    assert!(path.ends_with("models/hf/o/r/Q4_K_M/m-Q4_K_M-00001-of-00002.gguf"), "{path:?}");
    assert_eq!(std::fs::read(&path).unwrap(), first);
    let other = path.with_file_name("m-Q4_K_M-00002-of-00002.gguf");
    assert_eq!(std::fs::read(other).unwrap(), second);
    assert!(!part_path(&path).exists() && !record_path(&path).exists());

    server.close();
    let asked = server.seen().len();
    for name in ["hf:o/r", "hf:o/r:q4_k_m", "hf:o/r/Q4_K_M/m-Q4_K_M-00002-of-00002.gguf"] {
        assert_eq!(get_hf(folder.path(), &server, name).unwrap(), path, "{name}");
    }
    assert_eq!(server.seen().len(), asked);
    let error = get_hf(folder.path(), &server, "hf:o/r:Q8_0").unwrap_err();
    assert!(error.to_string().contains("cannot reach"), "{error}");
}

#[test]
fn spans_come_in_parallel_and_each_byte_once() {
    let bytes = file(1 << 20);
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (served, peak) = (bytes.clone(), Arc::clone(&most));
    let server = Server::start(move |seen| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        now.fetch_sub(1, Ordering::SeqCst);
        Answer::file(seen, &served)
    });
    let folder = tempdir().unwrap();
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert!(most.load(Ordering::SeqCst) > 1, "one after the other");
    assert_eq!(server.sent(), (1 << 20) + 1, "and the one that asks what the file is");
}

#[test]
fn a_download_that_breaks_off_twenty_times_goes_on_where_it_was() {
    let bytes = file(1 << 20);
    let (served, broken) = (bytes.clone(), AtomicUsize::new(0));
    let digest = sha256(&bytes);
    let server = Server::start(move |seen| {
        let mut answer = Answer::file(seen, &served).with("x-checksum-sha256", &digest);
        if answer.body.len() > 5_000 && broken.fetch_add(1, Ordering::SeqCst) < 20 {
            answer.sent = Some(5_000);
        }
        answer
    });
    let folder = tempdir().unwrap();
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let (sent, size) = (server.sent(), 1 << 20);
    assert!((size..size + 20_000).contains(&sent), "{sent} bytes were sent for {size}");
}

#[test]
fn another_process_goes_on_with_what_one_has_left() {
    let bytes = file(1 << 20);
    let (served, away) = (bytes.clone(), Arc::new(Mutex::new(false)));
    let is_away = Arc::clone(&away);
    let server = Server::start(move |seen| {
        let first = seen.range().map_or(0, |(first, _)| first);
        if first >= 600_000 && !*is_away.lock().unwrap() {
            return Answer::new(503, "");
        }
        Answer::file(seen, &served).with("etag", "\"one\"")
    });
    let folder = tempdir().unwrap();
    let error = get(folder.path(), &server, "/m.gguf").unwrap_err();
    assert!(error.to_string().contains("503") && error.to_string().contains("goes on"), "{error}");
    let before = server.sent();
    *away.lock().unwrap() = true;
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let more = server.sent() - before;
    assert!(more < 700_000, "{more} bytes came again");
}

#[test]
fn a_file_that_is_another_one_now_is_begun_anew() {
    let (old, new) = (file(300_000), file(300_001)[1..].to_vec());
    let new = [b"GGUF".to_vec(), new[4..].to_vec()].concat();
    let has_changed = Arc::new(Mutex::new(false));
    let (served, changed) = ((old, new.clone()), Arc::clone(&has_changed));
    let server = Server::start(move |seen| {
        let is_new = *changed.lock().unwrap();
        let first = seen.range().map_or(0, |(first, _)| first);
        if first > 200_000 && !is_new {
            return Answer::new(500, "");
        }
        let bytes = if is_new { &served.1 } else { &served.0 };
        Answer::file(seen, bytes).with("etag", format!("\"{is_new}\""))
    });
    let folder = tempdir().unwrap();
    assert!(get(folder.path(), &server, "/m.gguf").is_err());
    *has_changed.lock().unwrap() = true;
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert!(std::fs::read(path).unwrap() == new, "bytes of both are mixed");
}

#[test]
fn of_two_that_want_the_same_file_one_downloads_and_the_other_waits() {
    let bytes = file(400_000);
    let served = bytes.clone();
    let server = Server::start(move |seen| {
        std::thread::sleep(Duration::from_millis(20));
        Answer::file(seen, &served)
    });
    let folder = tempdir().unwrap();
    let source = Source::parse(&format!("{}/m.gguf", server.url())).unwrap();
    let runs: Vec<(PathBuf, Said)> = std::thread::scope(|scope| {
        let run = || {
            let (fetcher, said) = fetcher(folder.path(), HUGGING_FACE);
            (fetcher.get(&source).unwrap(), said)
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(runs.iter().all(|(path, _)| std::fs::read(path).unwrap() == bytes));
    assert!(server.sent() < 400_010, "{} bytes were sent", server.sent());
    let waited = |said: &Said| said.lock().unwrap().iter().any(|line| line.contains("waiting"));
    assert_eq!(runs.iter().filter(|(_, said)| waited(said)).count(), 2);
    assert!(!part_path(&runs[0].0).exists());
}

#[test]
fn the_parts_of_a_split_model_are_found_from_any_url_of_them() {
    let parts = [file(40_000), file(30_000)];
    let served = parts.clone();
    let server = Server::start(move |seen| match &*seen.path {
        "/d/m-00001-of-00002.gguf?key=1" => Answer::file(seen, &served[0]),
        "/d/m-00002-of-00002.gguf?key=1" => Answer::file(seen, &served[1]),
        _ => Answer::new(404, ""),
    });
    let folder = tempdir().unwrap();
    let path = get(folder.path(), &server, "/d/m-00002-of-00002.gguf?key=1").unwrap();
    assert!(path.ends_with("d/m-00001-of-00002.gguf"), "{path:?}");
    assert_eq!(std::fs::read(&path).unwrap(), parts[0]);
    assert_eq!(std::fs::read(path.with_file_name("m-00002-of-00002.gguf")).unwrap(), parts[1]);
}

#[test]
fn a_server_that_sends_whole_files_only_is_taken_as_it_is() {
    let bytes = file(500_000);
    let (served, broken) = (bytes.clone(), AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let mut answer = Answer::new(200, served.clone());
        if broken.fetch_add(1, Ordering::SeqCst) == 1 {
            answer.sent = Some(300_000);
        }
        answer
    });
    let folder = tempdir().unwrap();
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[test]
fn what_is_held_is_listed_and_removed_by_name() {
    let server = hub(vec![("m-Q8_0.gguf", file(20_000)), ("m-Q4_0.gguf", file(10_000))]);
    let folder = tempdir().unwrap();
    get_hf(folder.path(), &server, "hf:o/r:Q8_0").unwrap();
    get_hf(folder.path(), &server, "hf:o/r:Q4_0").unwrap();
    let url = format!("{}/cdn/m-Q4_0.gguf", server.url());
    let path = get(folder.path(), &server, "/cdn/m-Q4_0.gguf").unwrap();
    std::fs::write(part_path(&path.with_file_name("other.gguf")), "GG").unwrap();
    let store = Store::new(folder.path());
    let list = store.list().unwrap();
    let names: Vec<(&str, bool)> = list.iter().map(|one| (&*one.name, one.is_complete)).collect();
    let begun = url.replace("m-Q4_0", "other");
    let expected = [("hf:o/r:Q4_0", true), ("hf:o/r:Q8_0", true), (&*url, true), (&*begun, false)];
    assert_eq!(names, expected);

    let remove = |name: &str| store.remove(&Source::parse(name).unwrap());
    assert_eq!(remove("hf:o/r:Q8_0"), Ok(20_000));
    assert!(matches!(remove("hf:o/r:Q8_0"), Err(FetchError::Missing(_))));
    assert!(remove(&begun).is_ok());
    assert!(remove(&url).is_ok());
    assert!(remove("hf:o/r").is_ok());
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(std::fs::read_dir(store.root()).unwrap().count(), 0, "folders are left");
}

#[test]
fn a_long_list_comes_in_pages() {
    let bytes = file(1_000);
    let server = Server::start(move |seen: &Seen| match &*seen.path {
        "/api/models/o/r/tree/main?recursive=true" => tree(&[("a-Q2_K.gguf", &bytes)])
            .with("link", "</api/models/o/r/tree/main?cursor=2>; rel=\"next\""),
        "/api/models/o/r/tree/main?cursor=2" => tree(&[("m-Q8_0.gguf", &bytes)]),
        _ => Answer::file(seen, &bytes),
    });
    let folder = tempdir().unwrap();
    assert!(get_hf(folder.path(), &server, "hf:o/r").unwrap().ends_with("m-Q8_0.gguf"));
}

#[test]
fn https_goes_through_the_proxy_and_is_checked_against_the_trusted_certificates() {
    let bytes = file(100_000);
    let served = bytes.clone();
    let (server, certificate) =
        Server::start_tls("models.example", move |seen| Answer::file(seen, &served));
    let (at, asked) = proxy(server.at);
    let folder = tempdir().unwrap();
    let source = Source::parse("https://models.example/m.gguf").unwrap();
    let (mut fetcher, _) = fetcher(folder.path(), HUGGING_FACE);
    fetcher.network.proxies.https = Some(format!("http://user:pass@{at}").into());
    let error = fetcher.get(&source).unwrap_err();
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");

    fetcher.network.roots = Roots::These(vec![certificate]);
    let path = fetcher.get(&source).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|seen| seen.method == "CONNECT" && seen.path == "models.example:443"));
    assert_eq!(asked[0].headers["proxy-authorization"], "Basic dXNlcjpwYXNz");
    assert!(server.seen().iter().all(|seen| !seen.headers.contains_key("proxy-authorization")));
}
