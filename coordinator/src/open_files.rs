//! How many files and connections this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No more than this is asked for: some systems allow a thousand million, and some libraries make room for
/// all that are allowed.
const WANTED: u64 = 65_536;

/// Raises the limit as far as the system lets this process, and gives it. Many systems start
/// processes with 1,024 for the sake of programs that cannot cope with more.
pub fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX).min(WANTED);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(allowed), maximum: limit.maximum };
    let is_raised = allowed > current && setrlimit(Resource::Nofile, raised).is_ok();
    usize::try_from(if is_raised { allowed } else { current }).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_allows_is_used_and_asking_again_changes_nothing() {
        let first = raise();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(first as u64, now.current.unwrap_or(u64::MAX));
        assert!(now.current >= Some(now.maximum.unwrap_or(u64::MAX).min(WANTED)));
        assert_eq!(raise(), first);
    }
}
