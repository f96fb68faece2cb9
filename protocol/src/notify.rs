//! What a service manager is told of a program: systemd's `sd_notify`, and nothing where there is none.
//!
//! A message is one datagram of lines `NAME=value` to the socket that `NOTIFY_SOCKET` names, a path or, behind an `@`, a name of Linux's
//! own. `READY=1` is said once, `STATUS=` whenever it changes, `STOPPING=1` at the end, and `WATCHDOG=1` twice within the time of
//! `WATCHDOG_USEC`, as long as the runtime's tasks run.
//!
//! It never fails and hardly waits: a manager that is gone, or does not read, is no reason to end. The first message that cannot be sent is logged.
//! It knows nothing of who uses it, and reads no variable by itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The variable that names the socket.
pub const SOCKET: &str = "NOTIFY_SOCKET";
/// The variable with the microseconds within which the manager must hear of this process.
pub const WATCHDOG_TIME: &str = "WATCHDOG_USEC";
/// The variable with the process that this is asked of.
pub const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";
/// What is meant for this process alone: its children must not see it.
pub const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG_TIME, WATCHDOG_PROCESS];

/// Time that one message may take where the manager does not read.
const SEND_TIME: Duration = Duration::from_millis(200);
/// Bytes of a status at most; a longer one is cut.
const STATUS_MAX: usize = 500;
/// The shortest pause between two signs of life.
const BEAT_MIN: Duration = Duration::from_millis(10);

/// Tells the service manager. Clones speak to the same one; the default one speaks to nobody.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    beat: Option<Duration>,
    status: Mutex<String>,
    is_stopping: AtomicBool,
    has_failed: AtomicBool,
}

impl Notifier {
    /// Speaks to whom the variables name. One that is set and of no use is a warning in the log.
    pub fn new(read: impl Fn(&OsStr) -> Option<OsString>) -> Notifier {
        let variable = |name: &str| read(OsStr::new(name)).filter(|value| !value.is_empty());
        let Some(name) = variable(SOCKET) else { return Notifier::default() };
        let beat = watchdog(variable(WATCHDOG_TIME), variable(WATCHDOG_PROCESS));
        let opened = address(&name).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SEND_TIME))?;
            Ok((socket, address))
        });
        match opened {
            Ok((socket, address)) => {
                let (is_stopping, has_failed) = (AtomicBool::new(false), AtomicBool::new(false));
                let status = Mutex::default();
                let manager = Manager { socket, address, beat, status, is_stopping, has_failed };
                Notifier(Some(Arc::new(manager)))
            }
            Err(error) => {
                tracing::warn!("cannot use {SOCKET}={}: {error}", name.display());
                Notifier::default()
            }
        }
    }

    /// This process does what it is for.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// This process ends, and may take so long for it. What is said first counts.
    pub fn stopping(&self, time: Duration) {
        let Some(manager) = &self.0 else { return };
        if manager.is_stopping.swap(true, Relaxed) {
            return;
        }
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    /// What `systemctl status` shows: one line for people. The same again is not sent.
    pub fn status(&self, text: &str) {
        let Some(manager) = &self.0 else { return };
        let text = one_line(text);
        let mut said = manager.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != text {
            self.send(&format!("STATUS={text}"));
            *said = text;
        }
    }

    /// Gives signs of life for ever, if they are asked for: whoever runs this shows that tasks run.
    pub async fn beats(self) {
        let Some(beat) = self.0.as_ref().and_then(|manager| manager.beat) else {
            return std::future::pending().await;
        };
        loop {
            self.send("WATCHDOG=1");
            tokio::time::sleep(beat).await;
        }
    }

    fn send(&self, message: &str) {
        let Some(manager) = &self.0 else { return };
        let sent = manager.socket.send_to_addr(message.as_bytes(), &manager.address);
        if let Err(error) = sent
            && !manager.has_failed.swap(true, Relaxed)
        {
            tracing::warn!("the service manager does not hear this process: {error}");
        }
    }
}

/// Where the socket is.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    let bytes = name.as_encoded_bytes();
    match bytes {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', abstract_name @ ..] => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(abstract_name)
        }
        _ => Err(io::Error::other("expected a path from / on, or @ and a name")),
    }
}

/// The pause between two signs of life, if this process is the one that is asked for them.
fn watchdog(time: Option<OsString>, process: Option<OsString>) -> Option<Duration> {
    let own = std::process::id().to_string();
    if process.is_some_and(|process| process != *own) {
        return None;
    }
    let time = time?;
    match time.to_str().and_then(|text| text.parse().ok()) {
        Some(0) => None,
        Some(micros) => Some((Duration::from_micros(micros) / 2).max(BEAT_MIN)),
        None => {
            tracing::warn!("{WATCHDOG_TIME} is no number of microseconds: {}", time.display());
            None
        }
    }
}

/// The text without what would end its line, and not longer than [`STATUS_MAX`].
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > STATUS_MAX {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was received, within a second.
    fn heard(manager: &UnixDatagram) -> String {
        manager.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut buffer = [0; 2048];
        let len = manager.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    fn told(pairs: &[(&str, &str)]) -> Notifier {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Notifier::new(move |name| {
            pairs.iter().find(|pair| name == pair.0.as_str()).map(|pair| pair.1.clone().into())
        })
    }

    #[test]
    fn a_manager_hears_of_the_start_the_state_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = told(&[(SOCKET, path.to_str().unwrap())]);
        notifier.status("waiting for\nREADY=1");
        assert_eq!(heard(&manager), "STATUS=waiting for READY=1");
        notifier.status("waiting for\nREADY=1");
        notifier.ready();
        assert_eq!(heard(&manager), "READY=1", "the same status is said once");
        notifier.clone().stopping(Duration::from_secs(3));
        notifier.stopping(Duration::from_secs(1));
        assert_eq!(heard(&manager), "STOPPING=1\nEXTEND_TIMEOUT_USEC=3000000");
        notifier.status(&"ä".repeat(STATUS_MAX));
        assert_eq!(heard(&manager).len(), "STATUS=".len() + STATUS_MAX);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_manager_may_listen_on_a_name_of_linux() {
        let name = format!("woolly-notify-{}", std::process::id());
        let at =
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&at).unwrap();
        told(&[(SOCKET, &format!("@{name}"))]).ready();
        assert_eq!(heard(&manager), "READY=1");
    }

    #[tokio::test]
    async fn signs_of_life_come_twice_within_the_time_and_from_the_process_that_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let (path, own) = (path.to_str().unwrap(), std::process::id().to_string());
        let notifier = told(&[(SOCKET, path), (WATCHDOG_TIME, "100000"), (WATCHDOG_PROCESS, &own)]);
        let beat = notifier.0.as_ref().unwrap().beat;
        assert_eq!(beat, Some(Duration::from_millis(50)));
        let beating = tokio::spawn(notifier.beats());
        tokio::time::sleep(Duration::from_millis(180)).await;
        beating.abort();
        for _ in 0..3 {
            assert_eq!(heard(&manager), "WATCHDOG=1");
        }
        for (time, process) in [("100000", "1"), ("0", own.as_str()), ("soon", own.as_str())] {
            let pairs = [(SOCKET, path), (WATCHDOG_TIME, time), (WATCHDOG_PROCESS, process)];
            assert_eq!(told(&pairs).0.unwrap().beat, None, "{time} for {process}");
        }
    }

    #[test]
    fn nobody_to_tell_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        for name in ["", "notify", "vsock:2:1234", gone.to_str().unwrap()] {
            let notifier = told(&[(SOCKET, name)]);
            notifier.status("here");
            notifier.ready();
            notifier.stopping(Duration::ZERO);
        }
    }

    #[test]
    fn a_manager_that_does_not_read_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let notifier = told(&[(SOCKET, path.to_str().unwrap())]);
        let full = |notifier: &Notifier| notifier.0.as_ref().unwrap().has_failed.load(Relaxed);
        for _ in 0..10_000 {
            if full(&notifier) {
                return;
            }
            notifier.ready();
        }
        panic!("the queue of a socket that nobody reads has an end");
    }
}
