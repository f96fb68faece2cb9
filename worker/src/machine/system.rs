//! What the operating system says about this machine: its name, its memory and its CPUs.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// The part of the machine's memory that workers may use when `--memory` is not given, in percent.
const MEMORY_SHARE_PERCENT: u64 = 80;
/// Compute threads at most.
const THREADS_MAX: u32 = 1024;
/// Units of `/proc/stat` in a second: the kernel's `USER_HZ`, 100 on x86-64 and aarch64.
const TICKS_PER_S: u64 = 100;

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

/// Time for which the host let others compute while a CPU of this virtual machine had work, since it
/// started: the sum of its CPUs. `None` if the system does not say.
pub fn stolen_time() -> Option<Duration> {
    parse_stolen(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// Of `proc_stat(5)`: a line `cpu` for all CPUs together, whose eighth number is what was stolen.
fn parse_stolen(text: &str) -> Option<Duration> {
    const STOLEN: usize = 8;
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: u64 = all.split_whitespace().nth(STOLEN - 1)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_S))
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
    fn stolen_time_is_the_eighth_number_of_the_first_line() {
        let text = "cpu  100 0 30 7000 12 0 5 250 0 0\ncpu0 50 0 10 3500 6 0 0 100 0 0\n\
                    cpu1 50 0 20 3500 6 0 5 150 0 0\nintr 12345 8\n";
        assert_eq!(parse_stolen(text), Some(Duration::from_millis(2500)));
        assert_eq!(parse_stolen("cpu  1 2 3\n"), None);
        assert_eq!(parse_stolen(""), None);
    }

    #[test]
    fn a_machine_has_memory() {
        assert!(memory_allowance().is_some_and(|bytes| bytes > 1 << 20));
    }
}
