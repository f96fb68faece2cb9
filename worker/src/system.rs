//! What the operating system says about this machine: its name, its memory and its CPUs.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// The part of the machine's memory that workers may use when `--memory` is not given, in percent.
const MEMORY_SHARE_PERCENT: u64 = 80;
/// Compute threads at most.
const THREADS_MAX: u32 = 1024;

/// The host's name; empty if the system does not say.
pub fn host_name() -> String {
    System::host_name().unwrap_or_default()
}

/// Bytes that workers of this machine may use together: 80 % of [`memory_limit`].
pub fn memory_allowance() -> Option<u64> {
    memory_limit().map(|limit| limit / 100 * MEMORY_SHARE_PERCENT)
}

/// Bytes of memory that this process could use at all: the machine's, or what its control group
/// allows where that is less. `None` if the system does not say.
pub fn memory_limit() -> Option<u64> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let mut limit = system.total_memory();
    if let Some(group) = system.cgroup_limits() {
        limit = limit.min(group.total_memory);
    }
    // The group of this process may be a narrower one than the root that was asked above.
    if let Ok(pid) = sysinfo::get_current_pid() {
        let wanted = ProcessesToUpdate::Some(&[pid]);
        system.refresh_processes_specifics(wanted, false, ProcessRefreshKind::nothing());
        if let Some(group) = system.process(pid).and_then(|process| process.cgroup_limits()) {
            limit = limit.min(group.total_memory);
        }
    }
    (limit > 0).then_some(limit)
}

/// Bytes of memory that this process could take now: what is free or can be freed, and not more than
/// [`memory_limit`]. `None` if the system does not say.
pub fn memory_available() -> Option<u64> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    Some(system.available_memory()).filter(|bytes| *bytes > 0).min(memory_limit())
}

/// CPU time that the calling thread has used since it began.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative.
    let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    Duration::from_nanos(nanos) + Duration::from_secs(seconds)
}

/// Reads a number of compute threads.
///
/// # Errors
///
/// A sentence that says what was expected.
pub fn parse_threads(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(threads @ 1..=THREADS_MAX) => Ok(threads),
        _ => Err(format!("expected a number from 1 to {THREADS_MAX}")),
    }
}

/// CPUs that this process may use.
pub fn threads_available() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(count).unwrap_or(u32::MAX).min(THREADS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_memory() {
        assert!(memory_allowance().is_some_and(|bytes| bytes > 1 << 20));
    }
}
