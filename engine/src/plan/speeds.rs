//! How fast the workers are beside each other: bandwidth that a machine's workers share, and
//! measurements with noise.

use super::cut_request::Member;
use super::slowness::within_percent;

/// Speeds that differ by less than this many percent count as equal.
const SPEED_NOISE_PERCENT: u64 = 25;
/// The fastest that a worker counts: more than a petabyte per second, so that sums and products of
/// speeds fit their integers.
const SPEED_MAX: u64 = 1 << 50;

/// What each member does in a second, sharing and noise counted.
pub(super) struct Speeds {
    /// Bytes read.
    pub(super) read: Vec<u64>,
    /// Multiplications; if they are not known of every member, the bytes read stand for them.
    pub(super) macs: Vec<u64>,
}

impl Speeds {
    /// The speeds of `members`.
    ///
    /// Workers of one machine share its bandwidth, which few threads use up: each has its part at
    /// most. Multiplications are not shared: each worker measured those of its own threads, and local
    /// workers have the machine's CPUs parted among them. Workers that were started by hand with more
    /// threads than there are CPUs for all of them count as faster than they are beside other machines.
    pub(super) fn new(members: &[Member]) -> Self {
        let share = |member: &Member| {
            let mates = || members.iter().filter(|mate| mate.machine == member.machine);
            let machine = mates().map(|mate| mate.read_bytes_per_s).max().unwrap_or(0);
            member.read_bytes_per_s.min(machine / mates().count() as u64)
        };
        let read = without_noise(members.iter().map(share).collect());
        let all_known = members.iter().all(|member| member.macs_per_s > 0);
        let macs = if all_known {
            without_noise(members.iter().map(|member| member.macs_per_s).collect())
        } else {
            read.clone()
        };
        Self { read, macs }
    }
}

/// The speeds with those that differ by noise made equal; at least 1 each.
fn without_noise(speeds: Vec<u64>) -> Vec<u64> {
    let speeds: Vec<u64> = speeds.into_iter().map(|speed| speed.clamp(1, SPEED_MAX)).collect();
    let mut sorted = speeds.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.dedup();
    // Groups from the fastest down; all of a group count as its fastest.
    let mut leaders: Vec<u64> = Vec::new();
    for speed in sorted {
        match leaders.last() {
            Some(&leader) if within_percent(leader, speed, SPEED_NOISE_PERCENT) => {}
            _ => leaders.push(speed),
        }
    }
    let leader =
        |speed: &u64| *leaders.iter().rev().find(|leader| *leader >= speed).unwrap_or(speed);
    speeds.iter().map(leader).collect()
}
