//! The UDP ports of a process, as the kernel's files tell of them.

use std::fs;

/// The local UDP ports (IPv4) that a process has open now; none if it is gone.
pub(super) fn of_process(process: u32) -> Vec<u16> {
    let links = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let inodes: Vec<String> = links
        .filter_map(|link| {
            let target = fs::read_link(link.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let port = |line: &str| {
        // sl, local address, remote address, state, queues, timer, retransmits, user, timeout, inode
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_its = inodes.iter().any(|inode| words.get(9) == Some(&inode.as_str()));
        let port = words.get(1)?.rsplit(':').next()?;
        is_its.then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}
