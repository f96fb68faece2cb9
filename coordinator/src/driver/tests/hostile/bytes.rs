//! What is no decent HTTP: lengths, encodings, heads, paths, other protocols, keys. Each row on a connection of
//! its own, as bytes.

use super::Bed;
use std::time::Duration;

const HEAD: &str =
    "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
const BODY: &str = "{\"model\":\"tiny\",\"prompt\":\"a\",\"max_tokens\":1,\"seed\":1}";

/// Sends rows and expects the first line of the answer to have one of these numbers; an empty number is a
/// connection that is closed without a word.
async fn refused(bed: &Bed, rows: &[(&str, String, &[&str])]) {
    for (row, bytes, expected) in rows {
        let answer = bed.bytes(row, bytes.as_bytes()).await;
        let line = answer.lines().next().unwrap_or_default();
        let number = line.split(' ').nth(1).unwrap_or_default();
        assert!(expected.contains(&number), "{row}: {line:?} instead of {expected:?}");
    }
}

fn with(more: &str) -> String {
    format!("{HEAD}connection: close\r\n{more}\r\n\r\n")
}

#[tokio::test]
async fn h50_lengths_and_encodings() {
    let bed = Bed::new(Duration::ZERO).await;
    let good = format!("{HEAD}connection: close\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    let chunked = |chunks: &str| format!("{}{chunks}", with("transfer-encoding: chunked"));
    let one = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let trailers: String = (0..10_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    refused(
        &bed,
        &[
            ("the good one", good, &["200"]),
            ("the good one in chunks", chunked(&one), &["200"]),
            ("H-50 -1", with("content-length: -1"), &["400"]),
            ("H-50 +5", with("content-length: +5"), &["400"]),
            ("H-50 2^63", with("content-length: 9223372036854775808"), &["400", "413"]),
            ("H-50 2^64", with("content-length: 18446744073709551616"), &["400"]),
            ("H-50 abc", with("content-length: abc"), &["400"]),
            ("H-50 two", with("content-length: 2\r\ncontent-length: 3"), &["400"]),
            ("H-50 list", with("content-length: 2, 3"), &["400"]),
            (
                "H-50 smuggling: length and chunks",
                format!(
                    "{HEAD}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
                     GET /admin HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                ),
                &["400"],
            ),
            (
                "H-50 encoding twice",
                with("transfer-encoding: chunked\r\ntransfer-encoding: identity"),
                &["400"],
            ),
            (
                "H-50 encoding unknown",
                format!("{}{one}", with("transfer-encoding: gzip, chunked")),
                &["415"],
            ),
            ("H-50 chunked not last", with("transfer-encoding: chunked, gzip"), &["400", "501"]),
            ("H-50 bad size", chunked("zz\r\n{}\r\n0\r\n\r\n"), &["400"]),
            ("H-50 negative size", chunked("-1\r\n{}\r\n0\r\n\r\n"), &["400"]),
            ("H-50 2^64", chunked("10000000000000000\r\n{}\r\n0\r\n\r\n"), &["400"]),
            (
                "H-50 long extension",
                chunked(&format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(1 << 20))),
                &["", "400"],
            ),
            (
                "H-50 trailers",
                chunked(&format!("2\r\n{{}}\r\n0\r\n{trailers}\r\n")),
                &["", "400", "431"],
            ),
            ("H-53 expect", with("expect: 100-continue\r\ncontent-length: 8388609"), &["413"]),
            ("H-54 announced", with("content-length: 1073741824"), &["413"]),
            ("H-54 gzip", with("content-encoding: gzip\r\ncontent-length: 0"), &["415"]),
        ],
    )
    .await;
    // Endless chunks: refused once they are too many, not read for ever.
    let endless = chunked(&format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20)).repeat(9));
    let answer = bed.bytes("H-54 endless chunks", endless.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    bed.after("H-50, H-53, H-54").await;
}

#[tokio::test]
async fn h60_heads() {
    let bed = Bed::new(Duration::ZERO).await;
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    refused(
        &bed,
        &[
            ("H-60 16 KiB", with(&format!("x: {}", "a".repeat(16 << 10))), &["", "431"]),
            ("H-60 100 MiB", with(&format!("x: {}", "a".repeat(100 << 20))), &["", "431"]),
            ("H-60 65", format!("{HEAD}{}\r\n", many(65)), &["431"]),
            ("H-60 10^4", format!("{HEAD}{}\r\n", many(10_000)), &["", "431"]),
            ("H-60 no colon", with("nonsense"), &["400"]),
            ("H-60 NUL", with("x: a\0b"), &["400"]),
            ("H-60 fold", with("x: a\r\n b"), &["400"]),
            ("H-60 space before colon", with("x : a"), &["400"]),
            ("H-60 empty name", with(": a"), &["400"]),
            ("H-60 CR alone", with("x: a\rb"), &["400"]),
            ("H-60 two hosts", with("host: evil.example"), &["400", "403", "411"]),
            (
                "H-60 no host",
                "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(),
                &["400", "403"],
            ),
        ],
    )
    .await;
    bed.after("H-60").await;
}

#[tokio::test]
async fn h61_h62_paths_and_other_protocols() {
    let bed = Bed::new(Duration::ZERO).await;
    let get = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    };
    refused(
        &bed,
        &[
            ("H-61 2 KiB", get(&format!("/{}", "a".repeat(2049))), &["414"]),
            ("H-61 1 MiB", get(&format!("/{}", "a".repeat(1 << 20))), &["", "414", "431"]),
            ("H-61 %00", get("/v1/models/%00"), &["400", "404"]),
            ("H-61 dots", get("/v1/%2e%2e/health"), &["404"]),
            ("H-61 ..;", get("/v1/..;/health"), &["404"]),
            ("H-61 space", get("/v1/mo dels"), &["400"]),
            ("H-61 absolute", get("http://evil.example/health"), &["403"]),
            ("H-61 authority", get("localhost:80"), &["400", "404"]),
            ("H-61 star", "OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &["404", "405", "400"]),
            ("H-61 CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &["400", "403", "404", "405"]),
            ("H-61 fragment", get("/health#x"), &["200", "400", "404"]),
            ("H-61 backslash", get("/v1\\models"), &["400", "404"]),
            ("H-62 HTTP/0.9", "GET /health\r\n\r\n".to_owned(), &["", "400"]),
            ("H-62 HTTP/9.9", "GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n".to_owned(), &["", "400", "505"]),
            ("H-62 HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &["505"]),
            ("H-62 no method", " /health HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), &["400"]),
            ("H-62 TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\r\n\r\n".to_owned(), &["400"]),
            ("H-62 SSH", "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(), &["400"]),
            ("H-62 zeros", "\0".repeat(4096), &["400"]),
            (
                "H-62 upgrade",
                format!("{HEAD}connection: upgrade, close\r\nupgrade: h2c\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len()),
                &["200"],
            ),
        ],
    )
    .await;
    bed.after("H-61, H-62").await;
}
