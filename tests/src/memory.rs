//! What a process has mapped, from `/proc/PID/smaps`.

use std::fs;
use std::path::Path;

/// Bytes of a page as the kernel maps them.
pub const PAGE: u64 = 4096;

/// One mapping of a process.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// The file, or `[heap]` and the like, or empty.
    pub name: String,
    /// Address space, bytes.
    pub size: u64,
    /// Position in the file.
    pub offset: u64,
    /// Bytes that are no page of a file.
    pub anonymous: u64,
}

/// All mappings of a process.
pub fn mappings(process: u32) -> Vec<Mapping> {
    let path = format!("/proc/{process}/smaps");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let first = fields.next().unwrap_or_default();
        match (first.strip_suffix(':'), found.last_mut()) {
            (Some(key), Some(mapping)) => {
                let bytes = fields.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024;
                match key {
                    "Size" => mapping.size = bytes,
                    "Anonymous" => mapping.anonymous = bytes,
                    _ => {}
                }
            }
            (None, _) => {
                // address permissions offset device inode name
                let offset = fields.nth(1).and_then(|n| u64::from_str_radix(n, 16).ok());
                let name = fields.skip(2).collect::<Vec<_>>().join(" ");
                found.push(Mapping { name, offset: offset.unwrap_or(0), ..Mapping::default() });
            }
            (Some(_), None) => {}
        }
    }
    found
}

/// The mappings of files in or under `path`.
pub fn of_file(mappings: &[Mapping], path: &Path) -> Vec<Mapping> {
    let inside = |mapping: &&Mapping| Path::new(&mapping.name).starts_with(path);
    mappings.iter().filter(inside).cloned().collect()
}

/// Anonymous bytes of a process in all.
pub fn anonymous_bytes(mappings: &[Mapping]) -> u64 {
    mappings.iter().map(|mapping| mapping.anonymous).sum()
}

/// The fewest pages that hold `ranges` (offset, length) of one file, in bytes.
pub fn page_hull(ranges: &[(u64, u64)]) -> u64 {
    let pages = |&(offset, len): &(u64, u64)| (offset / PAGE, (offset + len).div_ceil(PAGE));
    let mut spans: Vec<(u64, u64)> = ranges.iter().filter(|r| r.1 > 0).map(pages).collect();
    spans.sort_unstable();
    let (mut total, mut end) = (0, 0);
    for (from, to) in spans {
        total += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    total * PAGE
}
