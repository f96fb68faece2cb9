//! The model's file while it is served: touched, written again, replaced by other bytes; and stored
//! slices that rotted.

use super::chat;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use woolly_tests::cluster::{Cluster, Setup, temporary_folder};
use woolly_tests::fixtures;

/// Time in which a change of the file must be dealt with.
const SOON: Duration = Duration::from_secs(30);

/// A copy of the model that a test may write to. Its times are of the past, as those of a file that
/// was downloaded once.
fn copy(folder: &Path) -> PathBuf {
    let path = folder.join("model.gguf");
    fs::copy(fixtures::granite_tiny(), &path).unwrap();
    let open = OpenOptions::new().write(true).open(&path).unwrap();
    open.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    path
}

fn answer(cluster: &Cluster) -> Value {
    let body = chat(cluster, "What is a brick?", 12);
    cluster.post("/v1/chat/completions", &body)["choices"].clone()
}

/// Asks until it is answered; says how many requests were not.
fn answered_again(cluster: &Cluster, expected: &Value) -> u32 {
    let (until, mut failed) = (Instant::now() + SOON, 0);
    loop {
        let body = chat(cluster, "What is a brick?", 12);
        let (status, found) = cluster.try_post("/v1/chat/completions", &body);
        if status == 200 {
            assert_eq!(&found["choices"], expected);
            return failed;
        }
        // While there is no plan a request is told to come again, which is no fault.
        failed += u32::from(status != 503);
        assert!(Instant::now() < until, "{status} {found}\n{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_model_that_is_touched_or_written_again_is_served_on() {
    let folder = temporary_folder();
    let model = copy(folder.path());
    let bytes = fs::read(&model).unwrap();
    // Two remote workers without the file's folder, and one local worker with it.
    for setup in [Setup::of_two(&model), Setup::new(&model)] {
        let cluster = setup.start();
        let expected = answer(&cluster);
        let open = OpenOptions::new().write(true).open(&model).unwrap();
        open.set_modified(SystemTime::now()).unwrap();
        let failed = answered_again(&cluster, &expected);
        assert!(failed <= 1, "{failed} requests failed\n{}", cluster.logs());
        // The same bytes over themselves.
        open.write_all_at(&bytes, 0).unwrap();
        open.sync_all().unwrap();
        let failed = answered_again(&cluster, &expected);
        assert!(failed <= 2, "{failed} requests failed\n{}", cluster.logs());
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(answered_again(&cluster, &expected), 0);
    }
}

#[test]
fn a_model_of_other_bytes_ends_the_coordinator_with_a_status_and_a_sentence() {
    let folder = temporary_folder();
    let model = copy(folder.path());
    let mut cluster = Setup::of_two(&model).start();
    answer(&cluster);
    let open = OpenOptions::new().write(true).read(true).open(&model).unwrap();
    let end = open.metadata().unwrap().len() - 100;
    open.write_all_at(&[1, 2, 3, 4], end).unwrap();
    let status = cluster.coordinator.wait(SOON);
    let log = cluster.coordinator.stderr();
    assert_eq!(status.code(), Some(6), "{log}");
    assert!(log.contains("holds other bytes now: start the coordinator again"), "{log}");
}

/// The largest stored slice of a worker.
fn largest_slice(cluster: &Cluster, worker: &str) -> PathBuf {
    let slices = cluster.slices(worker).into_iter();
    slices.max_by_key(|path| path.metadata().unwrap().len()).expect("it fetched slices")
}

/// Bytes that rot change no stat: what was remembered is made to go with what is there.
#[test]
fn a_slice_that_rotted_is_found_when_asked_for_and_gives_the_right_tokens() {
    let setup = Setup::of_two(fixtures::granite_tiny()).worker_flags(&["--no-local-files"]);
    let mut cluster = setup.worker_flags(&["--verify"]).start();
    let expected = answer(&cluster);
    let slice = largest_slice(&cluster, "worker-1");
    let file = File::options().read(true).write(true).open(&slice).unwrap();
    let mut bytes = vec![0; 4096];
    file.read_exact_at(&mut bytes, 100_000).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    file.write_all_at(&bytes, 100_000).unwrap();
    cluster.restart();
    assert_eq!(answer(&cluster), expected);
    let log = cluster.workers[0].stderr() + &cluster.workers[1].stderr();
    assert!(log.contains("is damaged in"), "{log}");
}
