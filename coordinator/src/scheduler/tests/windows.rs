//! Cache groups with a window: what goes back and when, what a prefix needs, and how many run at once.

use super::*;
use crate::scheduler::caches::Caches;
use woolly_engine::plan::window_blocks;
use woolly_protocol::forward::BlockLimits;

/// A group with a window before one that remembers all positions.
fn with_window(window: u32, (windowed, all): (u32, u32), limits: PlanLimits) -> PlanLimits {
    let groups = [(windowed, Some(window)), (all, None)];
    let groups = groups.map(|(count, window)| BlockLimits { count, window });
    PlanLimits { caches: CacheBlocks::new(groups), ..limits }
}

/// Where the table of the first chunk begins in each group, and its blocks.
fn spans(step: &Step) -> [(u32, u32); 2] {
    [0, 1].map(|group| {
        let span = tables(&step.forward, group).spans[0];
        (span.first, span.len)
    })
}

/// Blocks that are held in each group.
fn held(scheduler: &Scheduler) -> Vec<usize> {
    let groups = scheduler.caches.groups().iter();
    groups.map(|group| group.blocks.count() as usize - group.blocks.free()).collect()
}

#[test]
fn what_a_window_leaves_behind_goes_back_when_the_rows_are_sent() {
    let limits = PlanLimits { rows_max: 64, ..plan() };
    let mut scheduler = serving(with_window(64, (8, 20), limits));
    submit(&mut scheduler, 200, 60);
    // Rows 0 to 63 read and write two blocks; the next reads from 1 on.
    let first = step(&mut scheduler);
    assert_eq!((spans(&first), held(&scheduler)), ([(0, 2), (0, 2)], vec![2, 2]));
    let second = step(&mut scheduler);
    assert_eq!(spans(&second), [(0, 4), (0, 4)]);
    assert_eq!(held(&scheduler), [2, 4], "of the first two nothing is read from row 128 on");
    answer(&mut scheduler, &first);
    assert_eq!(spans(&step(&mut scheduler)), [(2, 4), (0, 6)]);
    answer(&mut scheduler, &second);
    assert_eq!(spans(&step(&mut scheduler)), [(4, 3), (0, 7)]);
    assert_eq!(held(&scheduler), [3, 7], "row 200 reads from 137 on, in block 4");
}

#[test]
fn a_sequence_claims_what_it_may_hold_and_less_once_it_decodes() {
    let limits = PlanLimits { rows_max: 64, ..plan() };
    let mut scheduler = serving(with_window(64, (9, 1000), limits));
    let most = |rows| window_blocks(64, rows, 32) as usize;
    assert_eq!((most(64), most(1)), (5, 3));
    submit(&mut scheduler, 200, 300);
    submit(&mut scheduler, 200, 300);
    assert_eq!(scheduler.counts().running, 1, "both might need ten blocks at once");
    let mut in_flight = Vec::new();
    while scheduler.counts().prefilling > 0 {
        in_flight.extend(scheduler.poll_step(T0));
        if in_flight.len() == 2 {
            answer(&mut scheduler, &in_flight.remove(0));
        }
    }
    assert_eq!(scheduler.counts().running, 2, "the first left room as its prompt was computed");
    assert_eq!(scheduler.caches.groups()[0].claimed, 2 * 3);
    run_out(&mut scheduler, in_flight);
    assert_eq!(scheduler.counts().preemptions, 0);
    let short = submit(&mut scheduler, 20, 10);
    assert_eq!(scheduler.sequence(short).tables[0].claimed, 1, "it ends before its 32nd position");
}

/// Runs as many sequences of full length as the plan has room for, until the first ends. The most blocks that
/// were held in each group.
fn full_contexts(window: u32, prompt: u32) -> Vec<usize> {
    let (ctx_size, sequences) = (8192, 16);
    let most = u32::try_from(window_blocks(window, 256, 32)).unwrap();
    let blocks = (sequences * most, sequences * ctx_size / 32);
    let limits = PlanLimits { ctx_size, rows_max: 256, in_flight_max: 4, ..plan() };
    let mut scheduler = serving(with_window(window, blocks, limits));
    for _ in 0..sequences {
        submit(&mut scheduler, prompt, ctx_size - prompt);
    }
    assert_eq!(scheduler.counts().running, sequences as usize, "all at once");
    if prompt > ctx_size / 2 {
        submit(&mut scheduler, prompt, ctx_size - prompt);
        assert_eq!(scheduler.counts().waiting, 1, "there is no room for another");
    }
    let all = scheduler.sequences.len();
    let (mut in_flight, mut most_held) = (Vec::new(), vec![0; 2]);
    while scheduler.tally.preemptions == 0 && scheduler.sequences.len() == all {
        in_flight.extend(std::iter::from_fn(|| scheduler.poll_step(T0)));
        let held = held(&scheduler);
        most_held.iter_mut().zip(held).for_each(|(most, held)| *most = held.max(*most));
        scheduler.handle_sampled(T0, answer_of(&in_flight.remove(0))).unwrap();
    }
    assert_books_balance(&scheduler);
    assert_eq!(scheduler.counts().preemptions, 0);
    most_held
}

/// Prompts nearly as long as the context start together; and sequences that begin short grow until each is as
/// long as the context. Either way nobody is preempted.
fn check_full_contexts(window: u32) {
    full_contexts(window, 8000);
    let most_held = full_contexts(window, 64);
    assert_eq!(most_held[1], 16 * 256, "sixteen whole contexts at a time");
    assert!(most_held[0] <= 17 * window_blocks(window, 1, 32) as usize, "{most_held:?}");
}

#[test]
fn claims_are_what_the_planner_has_blocks_for() {
    for (window, rows, extent_len) in [(1, 1, 32), (128, 256, 32), (512, 256, 96), (33, 7, 64)] {
        let limits = PlanLimits { rows_max: rows, extent_len, ctx_size: 1 << 17, ..plan() };
        let limits = with_window(window, (10_000, 100_000), limits);
        let mut scheduler = serving(limits);
        let id = submit(&mut scheduler, 10_000, 10_000);
        let blocks = scheduler.sequence(id).tables[0].claimed * scheduler.caches.per_extent();
        assert_eq!(blocks as u64, window_blocks(window, rows, extent_len));
    }
}

#[test]
fn as_many_full_contexts_run_at_once_as_the_blocks_of_gpt_oss_are_for() {
    check_full_contexts(128);
}

#[test]
fn as_many_full_contexts_run_at_once_as_the_blocks_of_gemma3_are_for() {
    check_full_contexts(512);
}

fn caching(limits: PlanLimits) -> Scheduler {
    configured(SchedulerConfig::default(), limits)
}

/// Computes a prompt of so many tokens and one more token; how many of them were found.
fn found(scheduler: &mut Scheduler, prompt: u32) -> (u32, Vec<Step>) {
    submit(scheduler, prompt, 1);
    let steps = run_out(scheduler, Vec::new());
    let told = events(scheduler);
    let cached = told.iter().find_map(|(_, event)| match event {
        GenerationEvent::Finished { cached_tokens, .. } => Some(*cached_tokens),
        _ => None,
    });
    (cached.expect("it ended"), steps)
}

#[test]
fn a_prefix_needs_all_of_one_group_and_the_last_positions_of_the_other() {
    let limits = PlanLimits { rows_max: 32, ..plan() };
    let mut scheduler = caching(with_window(64, (100, 100), limits));
    assert_eq!(found(&mut scheduler, 200).0, 0);
    let (cached, steps) = found(&mut scheduler, 200);
    assert_eq!(cached, 192);
    assert_eq!(chunks(&steps[0]), [(2, 192, 8, 1)]);
    // Row 192 reads from 129 on.
    assert_eq!(spans(&steps[0]), [(4, 3), (0, 7)]);
    assert_eq!(held(&scheduler), [0, 0]);
}

#[test]
fn a_prefix_without_the_positions_of_its_window_is_not_found() {
    let limits = PlanLimits { rows_max: 32, ..plan() };
    // Four blocks of the window are what one sequence needs: earlier ones are given up.
    let mut scheduler = caching(with_window(64, (4, 100), limits));
    assert_eq!(found(&mut scheduler, 200).0, 0);
    assert_eq!(scheduler.counts().evictions, 3);
    assert_eq!(found(&mut scheduler, 100).0, 0, "blocks 0 to 2 are gone");
    assert_eq!(found(&mut scheduler, 100).0, 96, "and were computed again");
    assert_eq!(found(&mut scheduler, 200).0, 96, "those of the end are gone now");
}

#[test]
fn requests_that_arrive_together_share_what_is_computed_in_front_of_them() {
    let limits = PlanLimits { rows_max: 32, ..plan() };
    let mut scheduler = caching(with_window(64, (100, 100), limits));
    for _ in 0..3 {
        submit(&mut scheduler, 200, 3);
    }
    let steps = run_out(&mut scheduler, Vec::new());
    let rows: u32 = steps.iter().flat_map(chunks).map(|chunk| chunk.2).sum();
    assert!(rows <= 200 + 2 * (32 + 8) + 3 * 3, "{rows} rows");
    assert_eq!(held(&scheduler), [0, 0]);
}

#[test]
fn looking_for_a_prefix_passes_over_what_a_window_lacks() {
    let limits = with_window(64, (100, 100), plan());
    let mut scheduler = caching(limits);
    found(&mut scheduler, 300);
    let id = submit(&mut scheduler, 300, 1);
    let names = scheduler.sequence(id).names.clone();
    let mut caches = Caches::new(&limits, 256);
    let mut tables = Vec::new();
    caches.claim(&mut tables, 300, 300);
    caches.take(&mut tables, 9);
    caches.name(&tables, &names, 0..9);
    // All of them are there, then only those from the fifth on of the window.
    assert_eq!(caches.hit(&names[..9], 0, 99), 9);
    assert_eq!(caches.hit(&names[..9], 0, 4), 4);
    let mut others = Caches::new(&limits, 256);
    let mut of_others = Vec::new();
    others.claim(&mut of_others, 300, 300);
    others.take(&mut of_others, 9);
    others.leave_behind(&mut of_others[..1], 4 * 32 + 64);
    assert_eq!(of_others[0].first, 4);
    others.name(&of_others, &names, 0..9);
    let hits: Vec<_> = (1..=9).map(|most| others.hit(&names[..most], 0, 99)).collect();
    // A row at 32 · 6 reads blocks 4 and 5.
    assert_eq!(hits, [0, 0, 0, 0, 0, 6, 7, 8, 9]);
}
