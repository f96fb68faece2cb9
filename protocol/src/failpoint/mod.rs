//! Faults and bugs that tests plant in a process, in builds with debug assertions only.
//!
//! `WOOLLY_FAILPOINTS` lists them, with commas between them: `NAME` is a planted bug that is on, and
//! `NAME=N:ACTION` does something to the process when the failpoint is reached for the N-th time:
//! `kill` (SIGKILL), `stop` (SIGSTOP), `sleep:MS`, which blocks the thread that reached it, an async
//! runtime's as well, or `wrong`: what is done there goes wrong. In a release build nothing is read, and
//! no name is in the binary.

#[cfg(debug_assertions)]
mod config;

#[cfg(debug_assertions)]
mod armed {
    use super::config::{Action, Failpoints, from_environment};
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::LazyLock;

    /// Read when it is first asked for. Whoever sets it is a test, and told of a mistake by a panic.
    static FAILPOINTS: LazyLock<Failpoints> =
        LazyLock::new(|| from_environment().unwrap_or_else(|mistake| panic!("{mistake}")));

    /// Says that the failpoint `name` is reached. Does what is to be done now, if anything is; whether what
    /// follows is to go wrong.
    pub fn hit(name: &str) -> bool {
        let mut goes_wrong = false;
        for action in FAILPOINTS.reached(name) {
            match action {
                Action::Kill => signal(Signal::KILL),
                Action::Stop => signal(Signal::STOP),
                Action::Sleep(time) => std::thread::sleep(time),
                Action::Wrong => goes_wrong = true,
            }
        }
        goes_wrong
    }

    /// Whether the bug `name` is planted in this process.
    pub fn planted(name: &str) -> bool {
        FAILPOINTS.is_planted(name)
    }

    fn signal(signal: Signal) {
        kill_process(getpid(), signal).expect("a process may end and stop itself");
    }
}

#[cfg(debug_assertions)]
pub use armed::{hit, planted};

/// Nothing, and no: there are no failpoints in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hit(_name: &str) -> bool {
    false
}

/// No: there are no planted bugs in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn planted(_name: &str) -> bool {
    false
}
