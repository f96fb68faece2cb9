//! How fast the workers are beside each other: bandwidth that a machine's workers share, and
//! measurements with noise.

use super::cut_request::Member;

/// Speeds that differ by less than this many percent count as equal.
const SPEED_NOISE_PERCENT: u64 = 25;

/// Bytes per second of each member: at most its part of its machine's bandwidth, with the speeds
/// that differ by noise made equal.
pub(super) fn speeds(members: &[Member]) -> Vec<u64> {
    let share = |member: &Member| {
        let mates = || members.iter().filter(|mate| mate.machine == member.machine);
        let machine = mates().map(|mate| mate.read_bytes_per_s).max().unwrap_or(0);
        member.read_bytes_per_s.min(machine / mates().count() as u64).max(1)
    };
    let shares: Vec<u64> = members.iter().map(share).collect();
    let mut sorted = shares.clone();
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
        |share: &u64| *leaders.iter().rev().find(|leader| *leader >= share).unwrap_or(share);
    shares.iter().map(leader).collect()
}

/// Whether `a` is at most `percent` percent more than `b`.
pub(super) fn within_percent(a: u64, b: u64, percent: u64) -> bool {
    u128::from(a) * 100 <= u128::from(b) * u128::from(100 + percent)
}
