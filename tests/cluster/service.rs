//! Under a service manager: what real processes tell the socket of `NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use woolly_tests::cluster::{READY_LIMIT, Setup, temporary_folder};
use woolly_tests::fixtures;

/// A socket as systemd listens on, and where it is.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = temporary_folder();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Manager { socket, path: path.display().to_string(), _folder: folder }
    }

    /// Everything that is said until a message begins so, that one included.
    fn until(&self, begin: &str) -> Vec<String> {
        let (until, mut said) = (Instant::now() + READY_LIMIT, Vec::new());
        while Instant::now() < until {
            let mut buffer = [0; 2048];
            if let Ok(len) = self.socket.recv(&mut buffer) {
                said.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
                if said.last().is_some_and(|message| message.starts_with(begin)) {
                    return said;
                }
            }
        }
        panic!("no message begins with {begin}: {said:#?}");
    }
}

#[test]
fn a_service_manager_is_told_of_start_state_and_end() {
    let (of_coordinator, of_worker) = (Manager::new(), Manager::new());
    let mut cluster = Setup::new(fixtures::granite_tiny())
        .workers(1)
        .coordinator_variable("NOTIFY_SOCKET", &of_coordinator.path)
        .worker_variable("NOTIFY_SOCKET", &of_worker.path)
        .worker_variable("WATCHDOG_USEC", "400000")
        .start_coordinator();
    // It listens, and says what it waits for: nobody has come yet.
    let said = of_coordinator.until("READY=1");
    assert_eq!(said, ["STATUS=getting the model", "READY=1"]);
    of_coordinator.until("STATUS=waiting for workers: 0 of 1 ");

    cluster.add_worker();
    let said = of_worker.until("STATUS=in the cluster of 127.0.0.1:");
    assert!(said.contains(&"READY=1".to_owned()), "{said:?}");
    assert!(said.last().unwrap().ends_with(" as worker-1"), "{said:?}");
    of_worker.until("WATCHDOG=1");
    of_coordinator.until("STATUS=serving ");

    cluster.coordinator.kill();
    of_worker.until("STATUS=lost the coordinator at 127.0.0.1:");
    let worker = &mut cluster.workers[0];
    worker.interrupt();
    let said = of_worker.until("STOPPING=1");
    assert_eq!(said.last().unwrap(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000");
    assert!(worker.wait(READY_LIMIT).success());
}

#[test]
fn a_worker_is_ready_before_its_coordinator_is_there() {
    let manager = Manager::new();
    let mut cluster = Setup::new(fixtures::granite_tiny())
        .workers(1)
        .worker_variable("NOTIFY_SOCKET", &manager.path)
        .start_coordinator();
    let words = cluster.join_words();
    cluster.coordinator.interrupt();
    cluster.coordinator.wait(READY_LIMIT);
    let mut worker = cluster.start_worker("worker-1", &words);
    manager.until("READY=1");
    manager.until("STATUS=cannot reach the coordinator at 127.0.0.1:");
    worker.interrupt();
    manager.until("STOPPING=1");
    assert!(worker.wait(READY_LIMIT).success());
}
