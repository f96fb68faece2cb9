//! Servers that lie, refuse, are slow or lead astray; disks that are full.

use super::server::{Answer, Seen, Server};
use super::*;
use crate::fetch::answer::Told;
use crate::fetch::client::{Client, Place};
use crate::fetch::download::{download, probe};
use crate::fetch::part::{Opened, Part, part_path, record_path};
use crate::fetch::spans::Spans;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tempfile::tempdir;

/// An error's words; nothing of the download has got a name.
fn refused(result: Result<PathBuf, FetchError>) -> String {
    result.map(|path| panic!("{path:?} is there")).unwrap_err().to_string()
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_is_kept() {
    let digest = "0".repeat(64);
    let said = digest.clone();
    let server = Server::start(move |seen| {
        Answer::file(seen, &file(300_000)).with("x-linked-etag", format!("\"{said}\""))
    });
    let folder = tempdir().unwrap();
    let error = refused(get(folder.path(), &server, "/m.gguf"));
    let found = sha256(&file(300_000));
    assert!(error.contains(&found) && error.contains(&digest), "{error}");
    assert_eq!(Store::new(folder.path()).list().unwrap(), []);
}

#[test]
fn a_server_that_contradicts_itself_is_refused_before_a_byte_is_kept() {
    let bytes = file(50_000);
    let folder = tempdir().unwrap();
    let listed = file(60_000);
    let served = bytes.clone();
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/api/") {
            tree(&[("m.gguf", &listed)])
        } else {
            Answer::file(seen, &served)
        }
    });
    let error = refused(get_hf(folder.path(), &server, "hf:o/r"));
    assert!(error.contains("50000 bytes") && error.contains("60000"), "{error}");

    let served = bytes.clone();
    let other = sha256(b"other");
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/api/") {
            tree(&[("m.gguf", &served)])
        } else {
            Answer::file(seen, &served).with("x-linked-etag", &other)
        }
    });
    let error = refused(get_hf(folder.path(), &server, "hf:o/r"));
    assert!(error.contains("two digests"), "{error}");

    let calls = AtomicUsize::new(0);
    let server = Server::start(move |seen| {
        let more = calls.fetch_add(1, Ordering::SeqCst);
        Answer::file(seen, &file(50_000 + more))
    });
    let error = refused(get(folder.path(), &server, "/m.gguf"));
    assert!(error.contains("has changed"), "{error}");
}

#[test]
fn other_bytes_than_those_asked_for_are_not_taken() {
    let server = Server::start(move |seen: &Seen| {
        let bytes = file(200_000);
        let shifted = seen.range().filter(|(first, _)| *first > 0).map(|(first, end)| {
            let range = format!("bytes {}-{}/200000", first - 1, end - 2);
            Answer::new(206, &bytes[first as usize - 1..end as usize - 1])
                .with("content-range", range)
        });
        shifted.unwrap_or_else(|| Answer::file(seen, &bytes))
    });
    let folder = tempdir().unwrap();
    let error = refused(get(folder.path(), &server, "/m.gguf"));
    assert!(error.contains("other bytes"), "{error}");
}

#[test]
fn a_page_instead_of_a_model_is_refused() {
    let server = Server::start(|_| Answer::new(200, "<html>Please log in</html>"));
    let folder = tempdir().unwrap();
    let error = refused(get(folder.path(), &server, "/m.gguf"));
    assert!(error.contains("no GGUF file") && error.contains("<html>"), "{error}");
    assert_eq!(Store::new(folder.path()).list().unwrap(), []);
}

#[test]
fn busy_servers_are_asked_again_when_they_say_and_refusals_are_not() {
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |seen| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(429, "").with("retry-after", 1),
        2 => Answer::new(416, ""),
        3 => Answer::new(500, ""),
        _ => Answer::file(seen, &file(20_000)),
    });
    let folder = tempdir().unwrap();
    let began = Instant::now();
    get(folder.path(), &server, "/m.gguf").unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not wait");

    for (status, word) in [(404, "404"), (403, "HF_TOKEN"), (401, "HF_TOKEN"), (418, "418")] {
        let server = Server::start(move |_| Answer::new(status, ""));
        let error = refused(get(folder.path(), &server, "/n.gguf"));
        assert!(error.contains(word), "{error}");
        assert_eq!(server.seen().len(), 1, "{status} was asked for again");
    }
}

#[test]
fn a_redirect_that_is_no_longer_good_is_followed_anew() {
    let bytes = file(400_000);
    let (served, given) = (bytes.clone(), AtomicUsize::new(0));
    let server = Server::start(move |seen: &Seen| match seen.path.strip_prefix("/cdn/") {
        None => Answer::redirect(format!("/cdn/{}", given.fetch_add(1, Ordering::SeqCst))),
        // The first place is good for the question what the file is, each other one for as long as it is the last.
        Some(number) => {
            let is_good = number != "0" || seen.range() == Some((0, 1));
            if is_good { Answer::file(seen, &served) } else { Answer::new(403, "expired") }
        }
    });
    let folder = tempdir().unwrap();
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[test]
fn the_token_is_sent_to_the_endpoint_and_to_nobody_else() {
    let bytes = file(50_000);
    let served = bytes.clone();
    let other = Server::start(move |seen| Answer::file(seen, &served));
    let to = other.url();
    let server = Server::start(move |seen: &Seen| {
        if seen.path.starts_with("/api/") {
            tree(&[("m.gguf", &bytes)])
        } else {
            Answer::redirect(format!("{to}/x"))
        }
    });
    let folder = tempdir().unwrap();
    get_hf(folder.path(), &server, "hf:o/r").unwrap();
    let token = |seen: &Seen| seen.headers.get("authorization").cloned();
    assert!(server.seen().iter().all(|seen| token(seen).as_deref() == Some("Bearer hf_secret")));
    assert!(!other.seen().is_empty() && other.seen().iter().all(|seen| token(seen).is_none()));
}

#[test]
fn in_clear_nothing_comes_from_other_machines_and_redirects_do_not_lead_there() {
    let folder = tempdir().unwrap();
    let (fetcher, _) = fetcher(folder.path(), HUGGING_FACE);
    let source = Source::parse("http://models.example/m.gguf").unwrap();
    let error = refused(fetcher.get(&source));
    assert!(error.contains("in clear") && error.contains("https://"), "{error}");
    for to in ["http://models.example/m.gguf", "file:///etc/passwd", "/again"] {
        let server = Server::start(move |_| Answer::redirect(to));
        let error = refused(get(folder.path(), &server, "/m.gguf"));
        let words = ["in clear", "expected a URL", "10 other places"];
        assert!(words.iter().any(|word| error.contains(word)), "{to}: {error}");
    }
    let (server, certificate) =
        Server::start_tls("localhost", |_| Answer::redirect("http://127.0.0.1:1/m.gguf"));
    let (mut fetcher, _) = super::fetcher(folder.path(), HUGGING_FACE);
    fetcher.network.roots = Roots::These(vec![certificate]);
    let source = Source::parse(&format!("https://localhost:{}/m.gguf", server.at.port())).unwrap();
    let error = refused(fetcher.get(&source));
    assert!(error.contains("from https to"), "{error}");
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let (bytes, calls) = (file(100_000), AtomicUsize::new(0));
    let served = bytes.clone();
    let server = Server::start(move |seen| {
        let mut answer = Answer::file(seen, &served);
        if calls.fetch_add(1, Ordering::SeqCst) == 2 {
            answer.silence = Duration::from_secs(5);
        }
        answer
    });
    let folder = tempdir().unwrap();
    let began = Instant::now();
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert!(began.elapsed() < Duration::from_secs(4), "it waited for the silent one");
}

#[test]
fn what_no_disk_holds_is_said_before_the_start() {
    let server = Server::start(|_| {
        Answer::new(206, "G").with("content-range", format!("bytes 0-0/{}", 1_u64 << 60))
    });
    let folder = tempdir().unwrap();
    let result = get(folder.path(), &server, "/m.gguf");
    let Err(FetchError::NoRoom { needed, free, .. }) = &result else { panic!("{result:?}") };
    assert!(*needed == 1 << 60 && *free > 0 && free < needed);
    assert!(refused(result).contains("--cache-dir"));
    assert!(server.sent() <= 1, "more than the question what it is was answered");
}

#[test]
fn a_disk_that_becomes_full_is_said_and_what_came_is_kept() {
    let bytes = file(600_000);
    let served = bytes.clone();
    let server = Server::start(move |seen| Answer::file(seen, &served).with("etag", "\"1\""));
    let folder = tempdir().unwrap();
    let (fetcher, _) = fetcher(folder.path(), HUGGING_FACE);
    let link = Link::parse(&format!("{}/m.gguf", server.url())).unwrap();
    let target = fetcher.store.path_of_link(&link);
    let client = Client::new(fetcher.network.clone(), &pace()).unwrap();
    let probed = probe(&client, &link, None).unwrap();
    {
        let Opened::Mine(mut part) = Part::open(&target).unwrap() else { panic!("it is busy") };
        part.room = Some(300_000);
        let into = (&part, Spans::default());
        let result = download(&client, &link, &probed, &pace(), into, &fetcher.progress);
        let Err(FetchError::NoRoom { needed, .. }) = result else { panic!("{result:?}") };
        assert!((300_000..600_000).contains(&needed), "{needed} bytes are missing");
    }
    assert!(part_path(&target).exists() && record_path(&target).exists());
    let before = server.sent();
    let path = get(folder.path(), &server, "/m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert!(server.sent() - before < 500_000, "what came was not kept");
}

#[test]
fn a_damaged_record_is_not_believed() {
    let bytes = file(100_000);
    let served = bytes.clone();
    let server = Server::start(move |seen| Answer::file(seen, &served).with("etag", "\"1\""));
    for record in [
        "{",
        r#"{"identity":{"size":100000,"sha256":null,"validator":"\"1\""},"whole":[{"start":0,"end":90000}]}"#,
    ] {
        let folder = tempdir().unwrap();
        let link = Link::parse(&format!("{}/m.gguf", server.url())).unwrap();
        let target = Store::new(folder.path()).path_of_link(&link);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(part_path(&target), "GGUF, but short").unwrap();
        std::fs::write(record_path(&target), record).unwrap();
        let path = get(folder.path(), &server, "/m.gguf").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }
}

#[test]
fn an_unknown_quantisation_lists_those_that_are_there() {
    let server = hub(vec![("m-Q8_0.gguf", file(20_000)), ("m-Q4_0.gguf", file(10_000))]);
    let folder = tempdir().unwrap();
    let error = refused(get_hf(folder.path(), &server, "hf:o/r:Q5_K_M"));
    assert!(error.contains("Q4_0 (") && error.contains("Q8_0 ("), "{error}");
    assert_eq!(server.seen().len(), 1, "the list alone is asked for");
    let error = refused(get_hf(folder.path(), &server, "hf:o/other"));
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_redirect_says_what_the_file_is_before_its_place_does() {
    let server = hub(vec![("m-Q8_0.gguf", file(20_000))]);
    let (fetcher, _) = fetcher(tempdir().unwrap().path(), &server.url());
    let client = Client::new(fetcher.network.clone(), &pace()).unwrap();
    let link = Link::parse(&format!("{}/o/r/resolve/main/m-Q8_0.gguf", server.url())).unwrap();
    let reply = client.get(&Place::first(&link), None, None).unwrap();
    let sha256 = Some(sha256(&file(20_000)));
    assert_eq!(reply.told, Told { size: Some(20_000), sha256, validator: None });
    assert!(reply.place.is_redirected && reply.place.link.path() == "/cdn/m-Q8_0.gguf");
}
