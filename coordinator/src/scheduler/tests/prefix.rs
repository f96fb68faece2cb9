//! The prefix cache: what is found, by whom, and what is given up for others.

use super::*;
use crate::generation::FinishReason;

/// A scheduler whose every request is under the key that it names.
fn caching(prefix_cache: PrefixCache, plan: PlanLimits) -> Scheduler {
    configured(SchedulerConfig { prefix_cache, ..SchedulerConfig::default() }, plan)
}

fn submit_as(scheduler: &mut Scheduler, key: u32, prompt: u32, max_tokens: u32) -> SequenceId {
    let request = greedy((0..prompt).collect(), max_tokens);
    scheduler.handle_request(T0, GenerationRequest { key: KeyId(key), ..request }).unwrap()
}

/// Sequence, position and rows of a chunk.
type Sent = (u64, u32, u32);

/// Runs everything to its end: the chunks sent and the cached tokens that each sequence was told.
fn finish(scheduler: &mut Scheduler) -> (Vec<Sent>, Vec<(u64, u32)>) {
    let steps = run_out(scheduler, Vec::new());
    let sent = steps.iter().flat_map(chunks).map(|(id, at, rows, _)| (id, at, rows)).collect();
    let told = events(scheduler);
    let cached = told.iter().filter_map(|(id, event)| match event {
        GenerationEvent::Finished { cached_tokens, .. } => Some((id.0, *cached_tokens)),
        _ => None,
    });
    (sent, cached.collect())
}

#[test]
fn a_prompt_computes_only_what_no_full_block_holds() {
    let mut scheduler = caching(PrefixCache::Key, plan());
    submit_as(&mut scheduler, 0, 70, 1);
    assert_eq!(finish(&mut scheduler), (vec![(1, 0, 70)], vec![(1, 0)]));
    assert_eq!(scheduler.counts().kv_blocks_cached, 2, "the third is not full");
    submit_as(&mut scheduler, 0, 90, 1);
    assert_eq!(finish(&mut scheduler), (vec![(2, 64, 26)], vec![(2, 64)]));
    let counts = scheduler.counts();
    assert_eq!((counts.prefix_hit_tokens, counts.prompt_tokens), (64, 160));
    assert_eq!((counts.kv_blocks_free, counts.evictions), (counts.kv_blocks, 0));
}

#[test]
fn a_hit_never_covers_the_last_token() {
    let mut scheduler = caching(PrefixCache::Key, plan());
    for (prompt, from) in [(64, 0), (64, 32), (65, 64), (33, 32), (32, 0), (31, 0)] {
        submit_as(&mut scheduler, 0, prompt, 1);
        let (sent, _) = finish(&mut scheduler);
        assert_eq!((sent.len(), sent[0].1), (1, from), "a prompt of {prompt}");
        assert_eq!(sent[0].1 + sent[0].2, prompt);
    }
}

#[test]
fn the_client_is_told_before_the_first_token() {
    let mut scheduler = caching(PrefixCache::Key, plan());
    submit_as(&mut scheduler, 0, 40, 2);
    finish(&mut scheduler);
    let id = submit_as(&mut scheduler, 0, 40, 2);
    run_out(&mut scheduler, Vec::new());
    let told = events(&mut scheduler);
    assert_eq!(told[0], (id, GenerationEvent::Prefilled { cached_tokens: 32 }));
    assert!(matches!(told[1].1, GenerationEvent::Token(_)));
    let reason = FinishReason::Length;
    assert_eq!(told[3], (id, GenerationEvent::Finished { reason, cached_tokens: 32 }));
    assert_eq!(told.len(), 4);
}

#[test]
fn what_is_in_flight_is_shared_and_held_by_both() {
    let limits = PlanLimits { rows_max: 32, in_flight_max: 3, stages: 2, ..plan() };
    let mut scheduler = caching(PrefixCache::Key, limits);
    submit_as(&mut scheduler, 0, 70, 3);
    submit_as(&mut scheduler, 0, 80, 3);
    let first = step(&mut scheduler);
    let second = step(&mut scheduler);
    assert_eq!((chunks(&first), chunks(&second)), (vec![(1, 0, 32, 0)], vec![(1, 32, 32, 0)]));
    // The end of the first prompt, and the second from where it differs.
    let third = step(&mut scheduler);
    assert_eq!(chunks(&third), [(1, 64, 6, 1), (2, 64, 16, 1)]);
    let table = |chunk: usize| table(&third.forward, chunk).to_vec();
    assert_eq!(table(0)[..2], table(1)[..2]);
    assert_ne!(table(0)[2], table(1)[2]);
    // The one who computed it leaves; the other goes on with its blocks.
    scheduler.handle_cancel(T0, SequenceId(1));
    assert_books_balance(&scheduler);
    let counts = scheduler.counts();
    assert_eq!(counts.kv_blocks - counts.kv_blocks_free, 4);
    run_out(&mut scheduler, vec![first, second, third]);
    assert_eq!(scheduler.counts().kv_blocks_free, 1000);
}

#[test]
fn keys_find_their_own_prefixes_only() {
    for (cache, own, other) in
        [(PrefixCache::Off, 0, 0), (PrefixCache::Key, 64, 0), (PrefixCache::Shared, 64, 64)]
    {
        let mut scheduler = caching(cache, plan());
        for (key, expected) in [(1, 0), (1, own), (2, other)] {
            submit_as(&mut scheduler, key, 70, 1);
            let (_, cached) = finish(&mut scheduler);
            assert_eq!(cached[0].1, expected, "{cache:?}, key {key}");
        }
        let kept = if cache == PrefixCache::Off { 0 } else { 2 };
        assert!(scheduler.counts().kv_blocks_cached >= kept);
    }
}

#[test]
fn a_prefix_ends_at_the_first_other_token() {
    let mut scheduler = caching(PrefixCache::Key, plan());
    submit_as(&mut scheduler, 0, 130, 1);
    finish(&mut scheduler);
    let mut prompt: Vec<u32> = (0..130).collect();
    prompt[50] = 7;
    scheduler.handle_request(T0, greedy(prompt.clone(), 1)).unwrap();
    assert_eq!(finish(&mut scheduler).0, [(2, 32, 98)], "equal blocks after it do not count");
    prompt.rotate_left(32);
    scheduler.handle_request(T0, greedy(prompt, 1)).unwrap();
    assert_eq!(finish(&mut scheduler).0, [(3, 0, 130)], "nor do equal blocks elsewhere");
}

#[test]
fn a_completion_is_found_by_the_next_turn() {
    let mut scheduler = caching(PrefixCache::Key, plan());
    submit_as(&mut scheduler, 0, 40, 60);
    finish(&mut scheduler);
    let mut prompt: Vec<u32> = (0..40).collect();
    prompt.extend([7; 60]);
    scheduler.handle_request(T0, greedy(prompt, 1)).unwrap();
    assert_eq!(finish(&mut scheduler), (vec![(2, 96, 4)], vec![(2, 96)]));
}

#[test]
fn scored_prompts_are_computed_whole() {
    let mut scheduler = caching(PrefixCache::Key, plan());
    submit_as(&mut scheduler, 0, 70, 1);
    finish(&mut scheduler);
    let request = GenerationRequest { score_prompt: true, ..greedy((0..70).collect(), 1) };
    scheduler.handle_request(T0, request).unwrap();
    assert_eq!(finish(&mut scheduler), (vec![(2, 0, 70)], vec![(2, 0)]));
}

#[test]
fn the_end_of_the_prefix_that_was_not_used_for_longest_goes_first() {
    let mut scheduler =
        caching(PrefixCache::Key, PlanLimits { caches: CacheBlocks::all_positions(6), ..plan() });
    let ask = |scheduler: &mut Scheduler, first: u32, tokens: u32| {
        let prompt = (first..first + tokens).collect();
        scheduler.handle_request(T0, greedy(prompt, 1)).unwrap();
        finish(scheduler).1[0].1
    };
    assert_eq!(ask(&mut scheduler, 0, 65), 0);
    assert_eq!(ask(&mut scheduler, 500, 65), 0);
    assert_eq!(scheduler.counts().kv_blocks_cached, 4);
    assert_eq!(ask(&mut scheduler, 0, 65), 64, "used again");
    // Needs three: two are free, and one block of the other prefix is given up.
    assert_eq!(ask(&mut scheduler, 900, 65), 0);
    assert_eq!((scheduler.counts().evictions, scheduler.counts().kv_blocks_cached), (1, 5));
    assert_eq!(ask(&mut scheduler, 500, 65), 32, "its beginning is left");
    assert_eq!(ask(&mut scheduler, 0, 65), 32, "that cost the other its end");
}

#[test]
fn idle_blocks_never_stop_anyone_from_starting() {
    let mut scheduler =
        caching(PrefixCache::Key, PlanLimits { caches: CacheBlocks::all_positions(4), ..plan() });
    submit_as(&mut scheduler, 0, 127, 1);
    finish(&mut scheduler);
    assert_eq!(scheduler.counts().kv_blocks_cached, 3);
    scheduler.handle_request(T0, greedy(vec![9; 120], 1)).unwrap();
    assert_eq!(finish(&mut scheduler).0, [(2, 0, 120)]);
    assert_eq!(scheduler.counts().evictions, 3);
}

#[test]
fn a_shared_prefix_lets_more_start_at_a_time() {
    let mut scheduler =
        caching(PrefixCache::Key, PlanLimits { caches: CacheBlocks::all_positions(16), ..plan() });
    submit_as(&mut scheduler, 0, 260, 40);
    while scheduler.counts().prefilling > 0 {
        let prompt = step(&mut scheduler);
        answer(&mut scheduler, &prompt);
    }
    for _ in 0..3 {
        submit_as(&mut scheduler, 0, 260, 40);
    }
    // Eight blocks are common to all; alone, one prompt takes more than half of them.
    assert_eq!(scheduler.counts().running, 4);
    run_out(&mut scheduler, Vec::new());
    assert_eq!(scheduler.counts().preemptions, 0);
}

#[test]
fn a_preempted_sequence_finds_what_is_left_of_its_own() {
    let limits = PlanLimits { caches: CacheBlocks::all_positions(8), in_flight_max: 1, ..plan() };
    let mut scheduler = caching(PrefixCache::Key, limits);
    let log = |first: u32| (first..first + 70).collect::<Vec<u32>>();
    scheduler.handle_request(T0, greedy(log(0), 90)).unwrap();
    scheduler.handle_request(T0, greedy(log(500), 90)).unwrap();
    let (sent, cached) = finish(&mut scheduler);
    assert_eq!(scheduler.counts().preemptions, 1);
    let again: Vec<_> = sent.iter().filter(|(id, _, rows)| *id == 2 && *rows > 1).collect();
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(again[1].1 >= 32 && again[1].1.is_multiple_of(32), "{again:?}");
    assert_eq!(cached, [(1, 0), (2, 0)], "what it computed itself is no hit for the client");
}

#[test]
fn a_new_plan_begins_with_an_empty_cache() {
    let mut scheduler = caching(PrefixCache::Key, plan());
    submit_as(&mut scheduler, 0, 70, 1);
    finish(&mut scheduler);
    scheduler.handle_plan(T0, PlanLimits { epoch: PlanEpoch(2), ..plan() });
    submit_as(&mut scheduler, 0, 70, 1);
    assert_eq!(finish(&mut scheduler).1, [(2, 0)]);
}

#[test]
fn extents_of_several_blocks_are_shared_as_a_whole() {
    let limits = PlanLimits { caches: CacheBlocks::all_positions(43), extent_len: 96, ..plan() };
    let mut scheduler = caching(PrefixCache::Key, limits);
    assert_eq!(scheduler.counts().kv_blocks, 42, "14 whole extents of three blocks");
    submit_as(&mut scheduler, 0, 200, 1);
    let first = step(&mut scheduler);
    // The wire's blocks have 32 positions.
    assert_eq!(table(&first.forward, 0).len(), 7);
    assert_eq!(scheduler.counts().kv_blocks_free, 33);
    run_out(&mut scheduler, vec![first]);
    events(&mut scheduler);
    assert_eq!(scheduler.counts().kv_blocks_cached, 6);
    submit_as(&mut scheduler, 0, 150, 1);
    assert_eq!(finish(&mut scheduler), (vec![(2, 96, 54)], vec![(2, 96)]));
}
