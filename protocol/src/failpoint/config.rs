//! Which failpoints there are, and which of them `WOOLLY_FAILPOINTS` arms.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The environment variable.
const VARIABLE: &str = "WOOLLY_FAILPOINTS";
/// Names that a process reaches: a worker before it computes a forward, with a loaded stage before it says
/// so, before it stores a fetched chunk of a slice (`wrong`: the disk is full), and before it sends what it
/// has computed (`wrong`: it sends it twice); the coordinator before it accounts an answer.
const HITS: [&str; 5] =
    ["worker.forward", "worker.loaded", "worker.chunk", "worker.answer", "coordinator.sampled"];
/// Bugs that can be planted: a worker takes a chunk of a slice whatever its hash is. In the coordinator, after
/// a loss: the last token of a log is computed as another one; the newest token is forgotten, which clients
/// were told of; an answer of the plan before is taken for one of the present; prefixes are found in blocks
/// of the plan before. A cancel keeps a block. Of a broken link the end that is accused is to blame.
const BUGS: [&str; 7] = [
    "accept-wrong-chunk-hash",
    "skip-last-token-in-replay",
    "send-before-commit",
    "ignore-epoch",
    "keep-old-prefix-names",
    "leak-block-on-cancel",
    "believe-first-accuser",
];
/// What is armed at once, at most.
const ARMED_MAX: usize = 64;
/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// What happens to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It ends as if the system had killed it.
    Kill,
    /// It stops where it is until somebody continues it.
    Stop,
    /// The thread that reached the failpoint sleeps.
    Sleep(Duration),
    /// What is done there goes wrong, as its place says.
    Wrong,
}

/// What is armed in this process.
#[derive(Debug, Default)]
pub(super) struct Failpoints {
    bugs: Vec<&'static str>,
    hits: Vec<Armed>,
}

#[derive(Debug)]
struct Armed {
    name: &'static str,
    /// The time that counts, from 1.
    number: u64,
    action: Action,
    reached: AtomicU64,
}

/// What the variable arms; nothing if it is not set.
pub(super) fn from_environment() -> Result<Failpoints, String> {
    match std::env::var_os(VARIABLE) {
        None => Ok(Failpoints::default()),
        Some(text) => Failpoints::parse(&text.to_string_lossy()),
    }
}

impl Failpoints {
    fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            found.add(word).map_err(|what| format!("{VARIABLE}: {word:?}: {what}"))?;
            if found.bugs.len() + found.hits.len() > ARMED_MAX {
                return Err(format!("{VARIABLE}: expected {ARMED_MAX} entries at most"));
            }
        }
        Ok(found)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        let Some((name, what)) = word.split_once('=') else {
            self.bugs.push(known(&BUGS, word)?);
            return Ok(());
        };
        let name = known(&HITS, name)?;
        let expected = || "expected NAME or NAME=N:kill, N:stop, N:wrong or N:sleep:MS".to_owned();
        let (number, action) = what.split_once(':').ok_or_else(expected)?;
        let number = number.parse().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| "expected a number from 1 on after =".to_owned())?;
        let action = match (action, action.strip_prefix("sleep:")) {
            ("kill", _) => Action::Kill,
            ("stop", _) => Action::Stop,
            ("wrong", _) => Action::Wrong,
            (_, Some(ms)) => {
                let time = ms.parse().ok().map(Duration::from_millis);
                let time = time.filter(|time| *time <= SLEEP_MAX);
                Action::Sleep(time.ok_or_else(|| {
                    format!("expected up to {} ms after sleep:", SLEEP_MAX.as_millis())
                })?)
            }
            _ => return Err(expected()),
        };
        self.hits.push(Armed { name, number, action, reached: AtomicU64::new(0) });
        Ok(())
    }

    /// Counts that `name` is reached; what is to be done now.
    pub(super) fn reached(&self, name: &str) -> impl Iterator<Item = Action> {
        debug_assert!(HITS.contains(&name), "no failpoint is called {name:?}");
        let of_name = self.hits.iter().filter(move |armed| armed.name == name);
        let due = of_name.filter(|armed| armed.reached.fetch_add(1, Relaxed) + 1 == armed.number);
        due.map(|armed| armed.action)
    }

    /// Whether the bug `name` is planted.
    pub(super) fn is_planted(&self, name: &str) -> bool {
        debug_assert!(BUGS.contains(&name), "no bug is called {name:?}");
        self.bugs.contains(&name)
    }
}

fn known(names: &[&'static str], name: &str) -> Result<&'static str, String> {
    let found = names.iter().find(|known| **known == name).copied();
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(failpoints: &Failpoints, name: &str) -> Vec<Action> {
        failpoints.reached(name).collect()
    }

    #[test]
    fn the_time_that_counts_is_counted_for_each_name() {
        let text = "worker.forward=3:kill, accept-wrong-chunk-hash,worker.chunk=1:sleep:20,\
                    worker.forward=2:stop,worker.answer=1:wrong,";
        let found = Failpoints::parse(text).unwrap();
        assert!(found.is_planted("accept-wrong-chunk-hash"));
        assert_eq!(reached(&found, "worker.forward"), []);
        assert_eq!(reached(&found, "worker.chunk"), [Action::Sleep(Duration::from_millis(20))]);
        assert_eq!(reached(&found, "worker.chunk"), []);
        assert_eq!(reached(&found, "worker.forward"), [Action::Stop]);
        assert_eq!(reached(&found, "worker.forward"), [Action::Kill]);
        assert_eq!(reached(&found, "worker.forward"), []);
        assert_eq!(reached(&found, "worker.answer"), [Action::Wrong]);
        assert_eq!(reached(&found, "coordinator.sampled"), []);
    }

    #[test]
    fn nothing_is_armed_by_nothing() {
        let found = Failpoints::parse("").unwrap();
        assert!(!found.is_planted("accept-wrong-chunk-hash"));
        assert_eq!(reached(&found, "worker.loaded"), []);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_what_was_expected() {
        for (text, expected) in [
            ("worker.forward", "expected one of accept-wrong-chunk-hash"),
            ("accept-wrong-chunk-hash=1:kill", "expected one of worker.forward"),
            ("worker.forwards=1:kill", "expected one of worker.forward"),
            ("worker.forward=kill", "expected NAME or NAME=N:kill"),
            ("worker.forward=0:kill", "from 1 on"),
            ("worker.forward=x:kill", "from 1 on"),
            ("worker.forward=1:die", "expected NAME or NAME=N:kill"),
            ("worker.forward=1:sleep", "expected NAME or NAME=N:kill"),
            ("worker.forward=1:sleep:", "up to 600000 ms"),
            ("worker.forward=1:sleep:600001", "up to 600000 ms"),
        ] {
            let mistake = Failpoints::parse(text).unwrap_err();
            assert!(mistake.contains(expected) && mistake.contains(text), "{mistake}");
        }
        let many = vec!["worker.loaded=1:stop"; ARMED_MAX + 1].join(",");
        assert!(Failpoints::parse(&many).unwrap_err().contains("64 entries"));
    }
}
