//! Which processors the compute threads run on.

/// The processors that this thread may use, ascending.
#[cfg(target_os = "linux")]
pub fn allowed() -> Vec<usize> {
    // SAFETY: a set of zero bits is a value of this plain type.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills a set of the size given, and the macros read inside it.
    unsafe {
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// Keeps the calling thread on `cpus`. Without effect where the system refuses.
#[cfg(target_os = "linux")]
pub fn keep_on(cpus: &[usize]) {
    // SAFETY: as above; a number that is too large is passed over by the macro.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET(*cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Unknown on other systems.
#[cfg(not(target_os = "linux"))]
pub fn allowed() -> Vec<usize> {
    Vec::new()
}

/// Without effect on other systems.
#[cfg(not(target_os = "linux"))]
pub fn keep_on(_cpus: &[usize]) {}
