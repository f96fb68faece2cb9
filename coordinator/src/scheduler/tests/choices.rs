//! Several choices of one prompt: it is computed once, and each is what it would be alone.

use super::*;
use std::num::NonZeroU64;

/// Submits choices of a prompt of so many tokens, all of one request.
fn submit_choices(scheduler: &mut Scheduler, request: u64, (key, prompt): (u32, u32), count: u32) {
    for choice in 0..count {
        let mut asked = greedy((0..prompt).collect(), 2);
        (asked.key, asked.siblings) = (KeyId(key), NonZeroU64::new(request));
        asked.sampling.choice = choice;
        scheduler.handle_request(T0, asked).unwrap();
    }
}

/// Position and rows of each chunk of a prompt, in order.
fn prefills(scheduler: &mut Scheduler) -> Vec<(u64, u32, u32)> {
    let steps = run_out(scheduler, Vec::new());
    events(scheduler);
    let sent = steps.iter().flat_map(chunks).map(|(id, at, rows, _)| (id, at, rows));
    sent.filter(|(_, _, rows)| *rows > 1).collect()
}

fn with(prefix_cache: PrefixCache, plan: PlanLimits) -> Scheduler {
    configured(SchedulerConfig { prefix_cache, ..SchedulerConfig::default() }, plan)
}

#[test]
fn full_blocks_of_the_prompt_are_computed_once_whatever_the_prefix_cache() {
    for cache in [PrefixCache::Off, PrefixCache::Key, PrefixCache::Shared] {
        let mut scheduler = with(cache, plan());
        submit_choices(&mut scheduler, 1, (0, 70), 3);
        let expected = [(1, 0, 70), (2, 64, 6), (3, 64, 6)];
        assert_eq!(prefills(&mut scheduler), expected, "{cache:?}");
        assert_eq!(scheduler.counts().kv_blocks_free, 1000);
    }
}

#[test]
fn a_prompt_of_many_microbatches_is_followed_at_its_blocks() {
    let limits = PlanLimits { rows_max: 40, in_flight_max: 3, stages: 2, ..plan() };
    let mut scheduler = with(PrefixCache::Off, limits);
    submit_choices(&mut scheduler, 1, (0, 300), 4);
    let sent = prefills(&mut scheduler);
    let rows = |id| sent.iter().filter(|chunk| chunk.0 == id).map(|chunk| chunk.2).sum::<u32>();
    assert_eq!((rows(1), rows(2), rows(3), rows(4)), (300, 12, 12, 12), "{sent:?}");
}

#[test]
fn without_a_prefix_cache_the_next_request_finds_nothing() {
    for (request, key) in [(2, 0), (2, 1)] {
        let mut scheduler = with(PrefixCache::Off, plan());
        submit_choices(&mut scheduler, 1, (0, 70), 2);
        prefills(&mut scheduler);
        submit_choices(&mut scheduler, request, (key, 70), 1);
        assert_eq!(prefills(&mut scheduler), [(3, 0, 70)]);
    }
}

#[test]
fn equal_prompts_of_two_keys_are_computed_by_both() {
    let mut scheduler = with(PrefixCache::Key, plan());
    submit_choices(&mut scheduler, 1, (0, 70), 1);
    submit_choices(&mut scheduler, 2, (1, 70), 1);
    assert_eq!(prefills(&mut scheduler), [(1, 0, 70), (2, 0, 70)]);
}

#[test]
fn the_others_go_on_when_the_first_choice_is_cancelled() {
    let limits = PlanLimits { rows_max: 40, ..plan() };
    let mut scheduler = with(PrefixCache::Key, limits);
    submit_choices(&mut scheduler, 1, (0, 100), 3);
    let first = step(&mut scheduler);
    assert_eq!(chunks(&first), [(1, 0, 40, 0)]);
    scheduler.handle_cancel(T0, SequenceId(1));
    let rest = run_out(&mut scheduler, vec![first]);
    let sent: Vec<_> = rest.iter().flat_map(chunks).filter(|chunk| chunk.2 > 1).collect();
    // What the first one computed whole is used, and the second computes the rest for both.
    assert_eq!(sent[1..], [(2, 32, 40, 0), (2, 72, 28, 1), (3, 96, 4, 1)], "{sent:?}");
}

#[test]
fn choices_that_score_their_prompt_compute_it_each() {
    let mut scheduler = with(PrefixCache::Key, plan());
    for choice in 0..2 {
        let mut asked = GenerationRequest { score_prompt: true, ..greedy((0..70).collect(), 1) };
        (asked.siblings, asked.sampling.choice) = (NonZeroU64::new(1), choice);
        scheduler.handle_request(T0, asked).unwrap();
    }
    assert_eq!(prefills(&mut scheduler), [(1, 0, 70), (2, 0, 70)]);
}
