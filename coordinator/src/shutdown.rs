//! Ending politely: the first signal asks everyone to finish, the second ends the process at once.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The exit code after a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// Tells tasks that the process is to end. Clones see the same.
#[derive(Clone, Debug)]
pub struct Shutdown {
    asked: watch::Receiver<bool>,
}

/// Asks for the end. Dropping the last one without asking asks too: nobody is left who could.
#[derive(Clone, Debug)]
pub struct ShutdownTrigger {
    ask: watch::Sender<bool>,
}

/// A shutdown that `ShutdownTrigger::ask` starts.
pub fn shutdown() -> (ShutdownTrigger, Shutdown) {
    let (ask, asked) = watch::channel(false);
    (ShutdownTrigger { ask }, Shutdown { asked })
}

impl ShutdownTrigger {
    /// Asks everyone to finish.
    pub fn ask(&self) {
        self.ask.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when the process is to end.
    pub async fn asked(&mut self) {
        // An error means that the trigger is gone, which asks as well.
        let _ = self.asked.wait_for(|asked| *asked).await;
    }

    /// Whether the process is to end.
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow() || self.asked.has_changed().is_err()
    }
}

/// SIGINT (Ctrl-C), SIGTERM and SIGHUP.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal that asks for the end. With `reload`, SIGHUP calls it and asks for nothing.
    async fn next(&mut self, reload: Option<&Reload>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => match reload {
                    None => return "SIGHUP",
                    Some(reload) => reload(),
                },
            }
        }
    }
}

/// What SIGHUP does where there is something to read again; it must not block for long.
pub type Reload = Box<dyn Fn() + Send + Sync>;

/// Watches for signals from now on: the first one pulls `trigger`, after which generations may go on
/// for `patience`, the second ends the process with code 130. Children see the end of their stdin and end by
/// themselves. Where there is something to reload, SIGHUP reloads it instead of asking for the end.
///
/// # Errors
///
/// When the system does not let signals be handled.
pub fn watch_signals(
    trigger: ShutdownTrigger,
    patience: Duration,
    reload: Option<Reload>,
) -> io::Result<()> {
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        let name = signals.next(reload.as_ref()).await;
        tracing::info!(
            "{name}: running generations may finish within {patience:?} (--shutdown-timeout); a second \
             signal ends at once"
        );
        trigger.ask();
        let name = signals.next(reload.as_ref()).await;
        tracing::warn!("{name} again: ending at once");
        std::process::exit(EXIT_AT_ONCE);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_is_told_once_it_is_asked() {
        let (trigger, shutdown) = shutdown();
        let mut early = shutdown.clone();
        let waiting = tokio::spawn(async move { early.asked().await });
        assert!(!shutdown.is_asked());
        trigger.ask();
        waiting.await.unwrap();
        assert!(shutdown.is_asked());
        shutdown.clone().asked().await;
    }

    #[tokio::test]
    async fn a_lost_trigger_counts_as_asked() {
        let (trigger, mut shutdown) = shutdown();
        drop(trigger);
        assert!(shutdown.is_asked());
        shutdown.asked().await;
    }
}
