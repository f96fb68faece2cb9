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
    ctx_size: 256,
    kv_memory: 0,
    is_large: false,
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

/// Many workers and many streams; a worker of a stage is killed after each so much time.
fn large(workers: u64, requests: u64, each: Time) -> Scale {
    Scale {
        workers,
        wanted: 8,
        requests,
        arrivals: 2 * SECOND,
        faults: 4,
        faulty: each,
        running_max: 100_000,
        ctx_size: 256,
        kv_memory: 512 << 20,
        is_large: true,
    }
}

/// Runs a history; prints what the scheduler took for each token and stage.
fn scheduler_cost(name: &str, scale: Scale) -> f64 {
    let mut world = World::new(1, scale);
    world.shell.spent = Some(Duration::ZERO);
    world.run();
    let rows = world.shell.scheduler.counts().rows;
    let spent = world.shell.spent.take().unwrap_or_default();
    let lasted = world.clock();
    world.judge();
    let cost = spent.as_secs_f64() * 1e9 / (rows * u64::from(scale.wanted)) as f64;
    println!(
        "{name}: {} workers, {} streams, {rows} rows in {lasted:?}, {cost:.0} ns of the scheduler for each \
         row and stage; {:?}",
        scale.workers, scale.requests, world.met
    );
    assert!(world.met.failovers >= 1 && world.met.lost == 0, "{:?}", world.met);
    cost
}

/// The size of a large cluster, with `WOOLLY_SIM_LARGE` set when this is built; else a small part of it.
#[test]
fn many_workers_and_streams_keep_the_promises_too() {
    let small = scheduler_cost("small", large(16, 1_000, SECOND / 2));
    if option_env!("WOOLLY_SIM_LARGE").is_some() {
        let big = scheduler_cost("large", large(1_000, 100_000, 60 * SECOND));
        println!("large / small: {:.2}", big / small);
    }
}
