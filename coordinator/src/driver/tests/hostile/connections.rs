//! Clients that are slow, that leave at every point, and that come again and again.

use super::Bed;
use crate::http::server::connection::HEADER_TIMEOUT;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A forward takes this long: a completion of 40 tokens is seen in its middle.
const FORWARD: Duration = Duration::from_millis(5);

fn request(stream: bool) -> Vec<u8> {
    let body = format!(
        "{{\"model\":\"tiny\",\"prompt\":\"abcdefgh\",\"max_tokens\":40,\"seed\":1,\"ignore_eos\":true,\
         \"stream\":{stream}}}"
    );
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// The system says that nothing more comes, and everything after is reset.
    Close,
    /// At once.
    Reset,
}

fn leave(stream: TcpStream, how: Leave) {
    if let Leave::Reset = how {
        let _ = stream.set_zero_linger();
    }
    drop(stream);
}

/// Waits until something runs or waits.
async fn at_work(bed: &Bed) {
    let asked = async {
        loop {
            let status = bed.rig.status();
            if status.running + status.waiting > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("nothing runs");
}

#[tokio::test]
async fn h71_clients_that_leave_at_every_point() {
    let bed = Bed::new(FORWARD).await;
    for stream in [false, true] {
        let bytes = request(stream);
        for how in [Leave::Close, Leave::Reset] {
            // In the head, after it, in the body, and after the whole request at once.
            let ends = [0, 1, 20, bytes.len() / 2, bytes.len() - 60, bytes.len() - 1, bytes.len()];
            for end in ends {
                let mut client = bed.connect().await;
                client.write_all(&bytes[..end]).await.unwrap();
                leave(client, how);
            }
            bed.after(&format!("H-71 while it is sent, {how:?}")).await;
            // While it is computed; a stream after so many bytes of the answer.
            for count in [0, 1, 200, 1000, 3000] {
                let mut client = bed.connect().await;
                client.write_all(&bytes).await.unwrap();
                at_work(&bed).await;
                if stream {
                    let mut answer = vec![0; count];
                    client.read_exact(&mut answer).await.unwrap();
                }
                leave(client, how);
                bed.after(&format!("H-71 {count} bytes into the answer, {how:?}")).await;
            }
        }
    }
}

#[tokio::test]
async fn h72_a_thousand_that_come_and_go() {
    let bed = Bed::new(Duration::from_millis(1)).await;
    for number in 0..1000 {
        let mut client = bed.connect().await;
        client.write_all(&request(number % 2 == 0)).await.unwrap();
        let how = if number % 3 == 0 { Leave::Close } else { Leave::Reset };
        if number % 5 == 0 {
            at_work_or_done().await;
        }
        leave(client, how);
    }
    bed.after("H-72").await;
}

async fn at_work_or_done() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

#[tokio::test]
async fn h51_h52_slow_senders_are_reaped_beside_good_ones() {
    let bed = Bed::new(Duration::ZERO).await;
    let start = Instant::now();
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut client = bed.connect().await;
        let begun: &[u8] = if number % 2 == 0 { b"GET /livez HTTP/1.1\r\nhost: loc" } else { b"" };
        client.write_all(begun).await.unwrap();
        slow.push(client);
    }
    for _ in 0..20 {
        let asked = Instant::now();
        let answer = bed
            .bytes(
                "a good client",
                b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
    for client in &mut slow {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(2 * HEADER_TIMEOUT, client.read_to_end(&mut answer)).await;
        let _ = read.expect("H-52: a slow sender is not cut off");
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "H-52");
    }
    assert!(start.elapsed() < 3 * HEADER_TIMEOUT, "H-52: {:?}", start.elapsed());
    drop(slow);
    bed.after("H-51, H-52").await;
}

#[tokio::test]
async fn h55_a_thousand_requests_at_once_on_one_connection() {
    let bed = Bed::new(Duration::ZERO).await;
    let one = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let last = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let bytes = [one.repeat(999), last.to_vec()].concat();
    let answer = bed.bytes("H-55", &bytes).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1000, "H-55");
    // Half closed after the request.
    let mut client = bed.connect().await;
    client.write_all(&request(true)).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("data: [DONE]"), "H-55: {answer}");
    drop(client);
    bed.after("H-55").await;
}

#[tokio::test]
async fn h76_two_hundred_that_read_nothing_hold_up_nobody() {
    let bed = Bed::new(Duration::ZERO).await;
    let mut deaf = Vec::new();
    for _ in 0..200 {
        let mut client = bed.connect().await;
        client.write_all(&request(true)).await.unwrap();
        deaf.push(client);
    }
    // All are computed to the end although nobody reads; the next one is served.
    let asked = tokio::time::timeout(Duration::from_secs(30), bed.ask_canary()).await;
    assert_eq!(asked.expect("H-76: the canary waits for those who do not read"), bed.canary);
    drop(deaf);
    bed.after("H-75, H-76").await;
}
