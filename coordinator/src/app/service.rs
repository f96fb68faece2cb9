//! What the service manager is told of `serve`: that it listens, how its models stand, that it ends.
//!
//! It is ready as soon as it listens, which it does before a model is loaded: how long workers take to come and to load is nobody's fault, and
//! `/readyz` tells clients. What it waits for is its status.

use crate::app::tasks::ALL_TIME;
use crate::generation::EngineHandle;
use crate::shutdown::Shutdown;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use woolly_protocol::notify::Notifier;

/// Between two looks at how the models stand.
const LOOK: Duration = Duration::from_secs(1);

/// Tells it, for as long as the process runs. `patience` is how long running generations may go on after the end is asked for.
pub async fn tell(
    notifier: Notifier,
    engine: EngineHandle,
    mut asked: Shutdown,
    patience: Duration,
) {
    notifier.ready();
    tokio::spawn(notifier.clone().beats());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_asked = false;
    loop {
        notifier.status(&engine.status_of_all().detail);
        tokio::select! {
            _ = looks.tick() => {}
            () = asked.asked(), if !is_asked => {
                is_asked = true;
                notifier.stopping(patience + ALL_TIME);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{ModelId, seam};
    use crate::shutdown::shutdown;
    use crate::status::Status;
    use std::ffi::OsString;
    use std::os::unix::net::UnixDatagram;
    use woolly_protocol::notify::SOCKET;

    /// The next message, within five seconds.
    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 2048];
        let len = manager.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_service_manager_hears_of_listening_loading_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let notifier = Notifier::new(|name| (name == SOCKET).then(|| OsString::from(path.clone())));
        let (engine, _commands, _work) = seam();
        let (ask, asked) = shutdown();
        let model = engine.statuses().add(ModelId(1));
        let detail = "waiting for 2 workers".to_owned();
        model.send_replace(Status { detail, ..Status::default() });
        let telling = tokio::spawn(tell(notifier, engine.clone(), asked, Duration::from_secs(30)));
        assert_eq!(heard(&manager), "READY=1");
        assert_eq!(heard(&manager), "STATUS=waiting for 2 workers");
        model.send_replace(Status { detail: "serving".to_owned(), ..Status::default() });
        assert_eq!(heard(&manager), "STATUS=serving");
        ask.ask();
        let seconds = (Duration::from_secs(30) + ALL_TIME).as_micros();
        assert_eq!(heard(&manager), format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={seconds}"));
        telling.abort();
    }
}
