//! A pipeline is lost or handed over: sequences wait, are computed again, and nobody is told twice.

use super::*;
use crate::generation::{FinishReason, Refusal};
use crate::status::{Failover, Recovered};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn next_plan() -> PlanLimits {
    PlanLimits { epoch: PlanEpoch(2), stages: 3, caches: CacheBlocks::all_positions(40), ..plan() }
}

/// What clients were told, without what it means.
fn tokens(events: &[(SequenceId, GenerationEvent)]) -> Vec<u64> {
    let token = |event: &GenerationEvent| matches!(event, GenerationEvent::Token(_));
    events.iter().filter(|(_, event)| token(event)).map(|(id, _)| id.0).collect()
}

#[test]
fn sequences_wait_and_go_on_from_their_logs() {
    let mut scheduler = serving(plan());
    let ids = [submit(&mut scheduler, 3, 5), submit(&mut scheduler, 70, 2)];
    let prompts = step(&mut scheduler);
    answer(&mut scheduler, &prompts);
    assert_eq!(tokens(&events(&mut scheduler)), [ids[0].0, ids[1].0]);
    let lost = step(&mut scheduler);
    scheduler.handle_pipeline_lost(s(1));
    assert_books_balance(&scheduler);
    assert_eq!(events(&mut scheduler), [], "nobody is told");
    assert!(scheduler.holds() && scheduler.poll_step(s(1)).is_none());
    // The answer was on its way; it is dropped before and after the next plan.
    scheduler.handle_sampled(s(1), answer_of(&lost)).unwrap();
    scheduler.handle_plan(s(2), next_plan());
    assert_books_balance(&scheduler);
    scheduler.handle_sampled(s(2), answer_of(&lost)).unwrap();
    assert_eq!(scheduler.counts().stale_answers, 2);
    assert_eq!((scheduler.counts().failovers, scheduler.counts().recomputed_tokens), (1, 75));

    let again = step(&mut scheduler);
    assert_eq!(again.forward.epoch, PlanEpoch(2));
    assert!(again.forward.microbatch > lost.forward.microbatch, "numbers are never used again");
    assert_eq!(chunks(&again)[0], (1, 0, 4, 1), "prompt and what was sampled");
    run_out(&mut scheduler, vec![again]);
    let told = events(&mut scheduler);
    let mut told_tokens = tokens(&told);
    told_tokens.sort_unstable();
    assert_eq!(told_tokens, [1, 1, 1, 1, 2], "none twice, none missing");
    let ends = told.iter().filter(|(_, event)| {
        matches!(event, GenerationEvent::Finished { reason: FinishReason::Length, .. })
    });
    assert_eq!(ends.count(), 2);
    assert_eq!(scheduler.counts().kv_blocks_free, 40);
}

#[test]
fn scores_that_came_are_not_asked_for_again_and_those_in_flight_are() {
    let mut scheduler = serving(PlanLimits { rows_max: 16, ..plan() });
    let request = GenerationRequest { score_prompt: true, ..greedy((0..40).collect(), 0) };
    scheduler.handle_request(T0, request).unwrap();
    let first = step(&mut scheduler);
    let scored: usize = first.sampling.as_ref().map_or(0, |sampling| sampling.rows.len());
    answer(&mut scheduler, &first);
    scheduler.handle_pipeline_lost(s(1));
    scheduler.handle_plan(s(2), next_plan());
    let steps = run_out(&mut scheduler, Vec::new());
    let again: usize = steps.iter().flat_map(|step| &step.sampling).map(|s| s.rows.len()).sum();
    assert_eq!(scored + again, 39, "each row is scored once");
    let told = events(&mut scheduler);
    let [(_, GenerationEvent::Scored(scores)), (_, GenerationEvent::Finished { .. })] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert!(scores.iter().map(|score| score.token).eq(1..40), "all of them, in order");
}

#[test]
fn requests_are_taken_while_a_plan_is_looked_for_and_fail_at_the_deadline() {
    let mut scheduler = serving(plan());
    let before = submit(&mut scheduler, 3, 5);
    scheduler.handle_pipeline_lost(s(10));
    let meanwhile = submit(&mut scheduler, 3, 5);
    assert!(matches!(
        scheduler.handle_request(s(11), greedy((0..1024).collect(), 1)),
        Err(Refusal::TooLong { positions_max: 1024, .. })
    ));
    assert_eq!(scheduler.poll_timeout(), Some(s(40)));
    scheduler.handle_timeout(s(39));
    assert_eq!(events(&mut scheduler), []);
    scheduler.handle_timeout(s(40));
    assert_books_balance(&scheduler);
    let told: Vec<_> = events(&mut scheduler).into_iter().map(|(id, _)| id).collect();
    assert_eq!(told, [before, meanwhile]);
    let refusal = scheduler.handle_request(s(41), greedy(vec![1], 1)).unwrap_err();
    assert!(matches!(refusal, Refusal::NotReady { .. }));
    // A plan that comes later serves those who ask then.
    scheduler.handle_plan(s(50), next_plan());
    submit(&mut scheduler, 3, 1);
    assert_eq!(step(&mut scheduler).forward.epoch, PlanEpoch(2));
}

#[test]
fn the_queue_stays_bounded_while_a_plan_is_looked_for() {
    let config = SchedulerConfig { waiting_max: 2, running_max: 1, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    (0..3).for_each(|_| _ = submit(&mut scheduler, 3, 5));
    scheduler.handle_pipeline_lost(s(1));
    assert_eq!(scheduler.counts().waiting, 3);
    assert!(matches!(
        scheduler.handle_request(s(1), greedy(vec![1], 1)),
        Err(Refusal::QueueFull { .. }),
    ));
    scheduler.handle_cancel(s(1), SequenceId(2));
    assert_books_balance(&scheduler);
    submit(&mut scheduler, 3, 5);
}

#[test]
fn who_had_run_goes_first_and_what_they_share_is_computed_once() {
    let config = SchedulerConfig { running_max: 3, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    // Two with one beginning of two blocks, then one that waits.
    (0..3).for_each(|_| _ = submit(&mut scheduler, 70, 9));
    let late = submit(&mut scheduler, 5, 9);
    let steps: Vec<_> = (0..2).map_while(|_| scheduler.poll_step(T0)).collect();
    steps.iter().for_each(|step| answer(&mut scheduler, step));
    scheduler.handle_pipeline_lost(s(1));
    scheduler.handle_plan(s(2), next_plan());
    assert_books_balance(&scheduler);
    let again = run_out(&mut scheduler, Vec::new());
    let mut order: Vec<_> = again.iter().flat_map(chunks).map(|(id, ..)| id).collect();
    order.dedup();
    assert!(order.starts_with(&[1]) && order.contains(&late.0), "{order:?}");
    let rows = |id| {
        let of = again.iter().flat_map(chunks).filter(move |(of, ..)| *of == id);
        of.map(|(_, _, rows, _)| rows).sum::<u32>()
    };
    // One token of 9 was there before; the last one is not computed.
    assert_eq!((rows(1), rows(2), rows(3)), (78, 14, 14), "two blocks of three are shared");
    // What usage says is what the first computation found: two waited for the first one's blocks.
    let cached = |event: &(SequenceId, GenerationEvent)| match event.1 {
        GenerationEvent::Finished { cached_tokens, .. } => Some((event.0.0, cached_tokens)),
        _ => None,
    };
    let mut found: Vec<_> = events(&mut scheduler).iter().filter_map(cached).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 0), (2, 64), (3, 64), (4, 0)]);
}

#[test]
fn a_second_loss_during_the_replay_is_the_same_again() {
    let mut scheduler = serving(plan());
    submit(&mut scheduler, 40, 3);
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
    scheduler.handle_pipeline_lost(s(1));
    scheduler.handle_plan(s(2), PlanLimits { rows_max: 8, ..next_plan() });
    step(&mut scheduler);
    scheduler.handle_pipeline_lost(s(3));
    scheduler.handle_pipeline_lost(s(4));
    assert_eq!(scheduler.poll_timeout(), Some(s(33)), "the search counts anew, and once");
    scheduler.handle_plan(s(5), PlanLimits { epoch: PlanEpoch(3), ..plan() });
    run_out(&mut scheduler, Vec::new());
    assert_eq!(tokens(&events(&mut scheduler)).len(), 3);
    let recovered: Vec<_> = std::iter::from_fn(|| scheduler.poll_recovered()).collect();
    let [Recovered::Plan(first), Recovered::Plan(second), rest @ ..] = &recovered[..] else {
        panic!("{recovered:?}");
    };
    assert_eq!((*first, *second), (s(1), s(2)));
    // The clock of this test stands still at the answers.
    let (epoch, tokens) = (PlanEpoch(3), 41);
    let failover = Failover { epoch, sequences: 1, tokens, search: s(2), first_token: Some(s(0)) };
    let replay = Recovered::Replay { epoch, took: s(0), tokens };
    assert_eq!(rest, [Recovered::Failover(failover), Recovered::Stream(s(0)), replay]);
}

#[test]
fn a_failover_is_told_once_with_the_first_token_after_it_or_at_once_without_any() {
    let mut scheduler = serving(plan());
    scheduler.handle_pipeline_lost(s(1));
    scheduler.handle_plan(s(3), next_plan());
    let told = |scheduler: &mut Scheduler| -> Vec<Failover> {
        let all = std::iter::from_fn(|| scheduler.poll_recovered());
        let failovers = all.filter_map(|recovered| match recovered {
            Recovered::Failover(failover) => Some(failover),
            _ => None,
        });
        failovers.collect()
    };
    let (epoch, search) = (next_plan().epoch, s(2));
    let nothing = Failover { epoch, sequences: 0, tokens: 0, search, first_token: None };
    assert_eq!(told(&mut scheduler), [nothing]);
    // What computed its prompt has no token yet, and only waits longer for the first.
    submit(&mut scheduler, 3, 4);
    submit(&mut scheduler, 4, 4);
    let prompts = step(&mut scheduler);
    answer(&mut scheduler, &prompts);
    submit(&mut scheduler, 5, 4);
    scheduler.handle_pipeline_lost(s(4));
    let epoch = PlanEpoch(9);
    scheduler.handle_plan(s(5), PlanLimits { epoch, ..plan() });
    assert_eq!(told(&mut scheduler), [], "nobody has gone on");
    run_out(&mut scheduler, Vec::new());
    let failover =
        Failover { epoch, sequences: 2, tokens: 4 + 5, search: s(1), first_token: Some(s(0)) };
    assert_eq!(told(&mut scheduler), [failover]);
}

#[test]
fn a_hand_over_waits_for_what_is_in_flight_and_loses_none_of_it() {
    let mut scheduler = serving(plan());
    submit(&mut scheduler, 3, 5);
    let prompt = step(&mut scheduler);
    scheduler.handle_hand_over();
    submit(&mut scheduler, 3, 5);
    assert!(scheduler.poll_step(T0).is_none() && !scheduler.is_drained());
    answer(&mut scheduler, &prompt);
    assert!(scheduler.poll_step(T0).is_none() && scheduler.is_drained());
    scheduler.handle_plan(s(1), next_plan());
    assert_books_balance(&scheduler);
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0, 4, 1), (2, 0, 3, 1)]);
    assert_eq!(scheduler.counts().failovers, 0, "nothing was lost");
}

#[test]
fn what_may_kill_whoever_computes_it_is_not_replayed_for_ever() {
    let config = SchedulerConfig { running_max: 1, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    let deadly = submit(&mut scheduler, 3, 5);
    let other = submit(&mut scheduler, 3, 1);
    for number in 0..16 {
        assert_eq!(events(&mut scheduler), [], "after {number} losses");
        assert_eq!(chunks(&step(&mut scheduler)), [(deadly.0, 0, 3, 1)]);
        scheduler.handle_pipeline_lost(s(number));
        assert_books_balance(&scheduler);
        let epoch = PlanEpoch(2 + u32::try_from(number).unwrap());
        scheduler.handle_plan(s(number), PlanLimits { epoch, ..plan() });
    }
    let told = events(&mut scheduler);
    let [(id, GenerationEvent::Failed(failure))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*id, failure.code), (deadly, "pipeline_lost"));
    run_out(&mut scheduler, Vec::new());
    assert_eq!(tokens(&events(&mut scheduler)), [other.0]);
}

#[test]
fn without_a_plan_there_was_nothing_to_lose() {
    let mut scheduler = Scheduler::new(SchedulerConfig::default());
    scheduler.handle_pipeline_lost(s(1));
    assert!(!scheduler.holds());
    assert!(scheduler.handle_request(s(1), greedy(vec![1], 1)).is_err());
}
