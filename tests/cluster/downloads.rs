//! Models that are named by where they come from: a server of this test stands for Hugging Face.

use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use woolly_tests::cluster::{READY_LIMIT, Setup, temporary_folder};
use woolly_tests::fixtures;
use woolly_tests::process::Process;

/// The name of the model that the server has.
const NAME: &str = "hf:woolly/tiny:Q8_0";
/// Its file.
const FILE: &str = "tiny-Q8_0.gguf";
/// Longer than what is noted of a download is apart.
const PAUSE: Duration = Duration::from_millis(2500);

/// A repository with one model. While it is `tired` it sends half of a file, pauses, sends a little more, and then
/// nothing.
struct Hub {
    url: String,
    ranges: Arc<Mutex<Vec<(usize, usize)>>>,
    is_tired: Arc<Mutex<bool>>,
}

impl Hub {
    fn start(model: &Path) -> Hub {
        let bytes = Arc::new(fs::read(model).expect("the fixture is there"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let hub = Hub { url, ranges: Arc::default(), is_tired: Arc::default() };
        let (ranges, is_tired) = (Arc::clone(&hub.ranges), Arc::clone(&hub.is_tired));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (bytes, ranges) = (Arc::clone(&bytes), Arc::clone(&ranges));
                let is_tired = *is_tired.lock().unwrap();
                // A client that is killed goes away in the middle.
                std::thread::spawn(move || answer(&stream, &bytes, &ranges, is_tired));
            }
        });
        hub
    }

    fn ranges(&self) -> Vec<(usize, usize)> {
        self.ranges.lock().unwrap().clone()
    }
}

fn answer(
    stream: &TcpStream,
    bytes: &[u8],
    ranges: &Mutex<Vec<(usize, usize)>>,
    is_tired: bool,
) -> io::Result<()> {
    let (mut lines, mut out) = (BufReader::new(stream).lines(), stream);
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if let Some((first, last)) =
            line.strip_prefix("range: bytes=").and_then(|text| text.split_once('-'))
        {
            let last: usize = last.trim().parse().unwrap_or(0);
            range = Some((first.parse().unwrap_or(0), bytes.len().min(last + 1)));
        }
        if line.is_empty() {
            break;
        }
    }
    let head = |status: &str, more: &str, len: usize| {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len}\r\n{more}\r\n")
    };
    let Some((start, end)) = range.filter(|_| first.contains(FILE)) else {
        let oid: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let size = bytes.len();
        let list = json!([{"type": "file", "path": FILE, "size": size, "lfs": {"oid": oid, "size": size}}]);
        let list = list.to_string();
        return write!(out, "{}{list}", head("200 OK", "", list.len()));
    };
    ranges.lock().unwrap().push((start, end));
    let more = format!("content-range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
    out.write_all(head("206 Partial Content", &more, end - start).as_bytes())?;
    if is_tired && end - start > 1 {
        let half = start + (end - start) / 2;
        out.write_all(&bytes[start..half])?;
        std::thread::sleep(PAUSE);
        out.write_all(&bytes[half..half + 1000])?;
        std::thread::sleep(READY_LIMIT);
    }
    out.write_all(&bytes[start..end])
}

#[test]
fn a_model_is_downloaded_served_and_served_again_without_its_server() {
    let hub = Hub::start(&fixtures::folder().join("models/tiny-qwen3.gguf"));
    let setup = Setup::of_two(Path::new(NAME)).coordinator_variable("HF_ENDPOINT", &hub.url);
    let mut cluster = setup.start();
    let ask = |cluster: &woolly_tests::cluster::Cluster| {
        let body =
            json!({"model": "tiny-Q8_0", "prompt": "Hello", "max_tokens": 8, "temperature": 0});
        cluster.post("/v1/completions", &body)["choices"][0]["text"].clone()
    };
    let (answer, asked) = (ask(&cluster), hub.ranges().len());
    assert!(asked > 0, "it came from somewhere else");
    cluster.restart();
    assert_eq!(ask(&cluster), answer);
    assert_eq!(hub.ranges().len(), asked, "what is there is not asked for");
}

#[test]
fn a_download_that_is_killed_goes_on_where_it_was() {
    let model = fixtures::granite_tiny();
    let hub = Hub::start(model);
    *hub.is_tired.lock().unwrap() = true;
    let folder = temporary_folder();
    let start = || {
        let words = ["models", "pull", NAME].map(str::to_owned);
        let variables = [("HF_ENDPOINT", &*hub.url)];
        Process::start_with("pull", "woolly-coordinator", &words, &variables, folder.path())
    };
    let target = folder.path().join("home/.cache/woolly/models/hf/woolly/tiny").join(FILE);
    let mut first = start();
    first.wait_for("a note of what came", READY_LIMIT, |_| {
        target.with_file_name(format!("{FILE}.part.json")).is_file().then_some(())
    });
    first.kill();
    *hub.is_tired.lock().unwrap() = false;
    let mut second = start();
    let status = second.wait(READY_LIMIT);
    assert!(status.success(), "{}", second.log());
    assert_eq!(second.stdout().trim(), target.display().to_string());
    assert_eq!(fs::read(&target).unwrap(), fs::read(model).unwrap());
    let (start, _) = hub.ranges()[hub.ranges().len() - 1];
    let half = fs::metadata(model).unwrap().len() as usize / 2;
    assert!(start >= half, "it began again at {start}");
}
