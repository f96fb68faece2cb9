//! Keys take turns, and deadlines.

use super::*;
use crate::generation::Failure;

fn of_key(key: u32, prompt: Vec<u32>, max_tokens: u32) -> GenerationRequest {
    GenerationRequest { key: KeyId(key), ..greedy(prompt, max_tokens) }
}

#[test]
fn keys_take_turns_to_start() {
    let config = SchedulerConfig { running_max: 1, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    for key in [1, 1, 1, 1, 2, 2, 3] {
        scheduler.handle_request(T0, of_key(key, vec![5; 3], 1)).unwrap();
    }
    let steps = run_out(&mut scheduler, Vec::new());
    let order: Vec<u64> = steps.iter().flat_map(chunks).map(|chunk| chunk.0).collect();
    // The first of each key, then the second, and at last those of the key that asked for most.
    assert_eq!(order, [1, 5, 7, 2, 6, 3, 4]);
}

#[test]
fn a_flood_of_one_key_does_not_hold_up_another() {
    let config = SchedulerConfig { running_max: 2, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    for _ in 0..300 {
        scheduler.handle_request(T0, of_key(1, vec![5; 3], 4)).unwrap();
    }
    let late = scheduler.handle_request(T0, of_key(2, vec![5; 3], 4)).unwrap();
    let steps = run_out(&mut scheduler, Vec::new());
    let first = steps.iter().position(|step| chunks(step).iter().any(|c| c.0 == late.0)).unwrap();
    assert!(first < 8, "its turn came with microbatch {first}");
}

#[test]
fn who_was_preempted_goes_before_any_key_in_turn() {
    let limits = PlanLimits { caches: CacheBlocks::all_positions(8), in_flight_max: 1, ..plan() };
    let config = SchedulerConfig { prefix_cache: PrefixCache::Off, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, limits);
    for (key, token) in [(1, 1), (2, 2), (3, 3)] {
        scheduler.handle_request(T0, of_key(key, vec![token; 70], 100)).unwrap();
    }
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (2, 1));
    let steps = run_out(&mut scheduler, Vec::new());
    assert!(scheduler.counts().preemptions > 0);
    let starts: Vec<u64> =
        steps.iter().flat_map(chunks).filter(|c| c.1 == 0).map(|c| c.0).collect();
    assert_eq!(starts, [1, 2, 2, 3], "the second again before the third");
}

#[test]
fn whose_time_is_up_fails_and_frees_its_blocks() {
    let config = SchedulerConfig { running_max: 2, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    let s = Duration::from_secs;
    let timed =
        |limit: u64| GenerationRequest { time_limit: Some(s(limit)), ..greedy(vec![5; 40], 9) };
    assert_eq!(scheduler.poll_timeout(), None);
    let running = scheduler.handle_request(s(10), timed(30)).unwrap();
    let timeless = submit(&mut scheduler, 3, 9);
    let waiting = scheduler.handle_request(s(10), timed(20)).unwrap();
    assert_eq!(scheduler.poll_timeout(), Some(s(30)));
    let prompts = step(&mut scheduler);
    scheduler.handle_timeout(s(29));
    assert_eq!(events(&mut scheduler), []);
    scheduler.handle_timeout(s(30));
    let failed = |waited: u64, made: u32| {
        let message =
            format!("the request's time is up after {waited} s, with {made} of at most 9 tokens");
        GenerationEvent::Failed(Failure { code: "request_timeout", message })
    };
    assert_eq!(events(&mut scheduler), [(waiting, failed(20, 0))]);
    assert_eq!(scheduler.poll_timeout(), Some(s(40)));
    answer(&mut scheduler, &prompts);
    let decodes = step(&mut scheduler);
    scheduler.handle_timeout(s(50));
    assert_books_balance(&scheduler);
    assert_eq!(events(&mut scheduler).last(), Some(&(running, failed(40, 1))));
    assert_eq!((scheduler.poll_timeout(), scheduler.counts().expired), (None, 2));
    assert_eq!(scheduler.counts().leaving, 1, "a stage may still write to its blocks");
    run_out(&mut scheduler, vec![decodes]);
    let told = events(&mut scheduler);
    assert!(told.iter().all(|(id, _)| *id == timeless), "{told:?}");
    assert_eq!(scheduler.counts().kv_blocks_free, 1000);
}

#[test]
fn who_ends_in_time_has_no_deadline_left() {
    let mut scheduler = serving(plan());
    let time_limit = Some(Duration::from_secs(5));
    let request = GenerationRequest { time_limit, ..greedy(vec![5; 4], 2) };
    scheduler.handle_request(T0, request.clone()).unwrap();
    run_out(&mut scheduler, Vec::new());
    assert_eq!(scheduler.poll_timeout(), None);
    let id = scheduler.handle_request(T0, request).unwrap();
    scheduler.handle_cancel(T0, id);
    assert_eq!(scheduler.poll_timeout(), None);
}
