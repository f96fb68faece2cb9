//! The histories that are run.

use super::*;

/// Histories per run of the tests, unless `WOOLLY_SIM_SEEDS` says which at compile time (`FROM..TO`).
const SEEDS: std::ops::Range<u64> = 0..2_000;

/// A few workers, a few requests, many faults.
const SMALL: Scale = Scale {
    workers: 5,
    wanted: 3,
    requests: 12,
    arrivals: 14 * SECOND,
    faults: 8,
    faulty: 15 * SECOND,
    running_max: 256,
};

fn seeds() -> std::ops::Range<u64> {
    let Some(given) = option_env!("WOOLLY_SIM_SEEDS") else { return SEEDS };
    let (from, to) = given.split_once("..").expect("FROM..TO such as 0..50000");
    from.parse().unwrap()..to.parse().unwrap()
}

impl Met {
    fn add(&mut self, other: Met) {
        self.faults += other.faults;
        self.failovers += other.failovers;
        self.recomputed += other.recomputed;
        self.hand_overs += other.hand_overs;
        self.tokens += other.tokens;
        self.cancelled += other.cancelled;
        self.lost += other.lost;
        self.stale += other.stale;
        self.shrunk += other.shrunk;
    }
}

#[test]
fn a_cluster_under_faults_keeps_its_promises() {
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let mut all = Met::default();
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| history(seed, SMALL));
        let Ok(met) = std::panic::catch_unwind(run) else { panic!("seed {seed} fails, see above") };
        all.add(met);
    }
    println!("{count} histories: {all:?}");
    // Histories that meet none of these would prove little.
    assert!(all.faults > 5 * count, "{all:?}");
    assert!(all.failovers > 2 * count && all.recomputed > 100 * count, "{all:?}");
    assert!(all.hand_overs > count / 20 && all.shrunk > count / 10, "{all:?}");
    assert!(all.cancelled > count / 4 && all.stale > count / 20, "{all:?}");
    // Only where no worker was well for longer than the deadline.
    assert!(all.lost * 500 < 12 * count, "{} requests were lost: {all:?}", all.lost);
}
