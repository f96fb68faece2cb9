//! Blocks: on demand, preempted from the youngest, and given back when nothing is in flight.

use super::*;
use crate::generation::{FinishReason, Refusal};

fn free(scheduler: &Scheduler) -> u32 {
    scheduler.counts().kv_blocks_free
}

#[test]
fn blocks_are_taken_as_the_sequence_grows() {
    let mut scheduler =
        serving(PlanLimits { caches: CacheBlocks::all_positions(10), rows_max: 32, ..plan() });
    submit(&mut scheduler, 63, 40);
    let first = step(&mut scheduler);
    assert_eq!(free(&scheduler), 9);
    let second = step(&mut scheduler);
    assert_eq!(free(&scheduler), 8);
    answer(&mut scheduler, &first);
    answer(&mut scheduler, &second);
    let decode = step(&mut scheduler);
    assert_eq!((chunks(&decode)[0].1, free(&scheduler)), (63, 8));
    answer(&mut scheduler, &decode);
    let decode = step(&mut scheduler);
    assert_eq!((chunks(&decode)[0].1, free(&scheduler)), (64, 7));
    assert_eq!(table(&decode.forward, 0).len(), 3);
}

#[test]
fn the_end_gives_the_blocks_back() {
    let mut scheduler = serving(PlanLimits { caches: CacheBlocks::all_positions(10), ..plan() });
    let id = submit(&mut scheduler, 40, 1);
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
    assert_eq!(free(&scheduler), 10);
    let last = events(&mut scheduler).pop().unwrap();
    let reason = FinishReason::Length;
    assert_eq!(last, (id, GenerationEvent::Finished { reason, cached_tokens: 0 }));
}

/// Two sequences of two blocks each fill a plan of four; the older one needs four at its end.
fn two_that_fill_the_plan() -> (Scheduler, Vec<Step>) {
    let mut scheduler =
        serving(PlanLimits { caches: CacheBlocks::all_positions(4), in_flight_max: 1, ..plan() });
    submit(&mut scheduler, 31, 90);
    submit(&mut scheduler, 31, 90);
    let steps = vec![step(&mut scheduler)];
    (scheduler, steps)
}

#[test]
fn the_youngest_is_preempted_and_computed_again_from_its_log() {
    let (mut scheduler, steps) = two_that_fill_the_plan();
    let steps = run_out(&mut scheduler, steps);
    assert_eq!(scheduler.counts().preemptions, 1);
    let again = steps.iter().skip(1).find(|s| chunks(s).iter().any(|c| c.0 == 2 && c.1 == 0));
    let chunk = chunks(again.expect("the second starts again"))[0];
    // Prompt and emitted tokens in one go; only the next new token is sampled.
    assert_eq!((chunk.0, chunk.1, chunk.3), (2, 0, 1));
    assert!(chunk.2 > 31);
    let told = events(&mut scheduler);
    for id in [1, 2] {
        let tokens = told.iter().filter(|(sequence, event)| {
            sequence.0 == id && matches!(event, GenerationEvent::Token(_))
        });
        assert_eq!(tokens.count(), 90, "tokens of {id}");
    }
    assert_eq!(free(&scheduler), 4);
}

#[test]
fn the_oldest_never_waits_for_blocks() {
    let (mut scheduler, steps) = two_that_fill_the_plan();
    run_out(&mut scheduler, steps);
    let told = events(&mut scheduler);
    let finished: Vec<_> = told
        .iter()
        .filter(|(_, event)| matches!(event, GenerationEvent::Finished { .. }))
        .map(|(id, _)| id.0)
        .collect();
    assert_eq!(finished, [1, 2]);
}

#[test]
fn blocks_in_flight_come_back_with_the_answer() {
    let mut scheduler = serving(PlanLimits { caches: CacheBlocks::all_positions(4), ..plan() });
    let id = submit(&mut scheduler, 100, 5);
    let prompt = step(&mut scheduler);
    assert_eq!(free(&scheduler), 0);
    scheduler.handle_cancel(T0, id);
    assert_eq!(free(&scheduler), 0, "stages may still write to them");
    let next = submit(&mut scheduler, 40, 5);
    assert_eq!(scheduler.poll_step(T0), None, "no block for the next one yet");
    answer(&mut scheduler, &prompt);
    assert_eq!(free(&scheduler), 4);
    assert_eq!(chunks(&step(&mut scheduler)), [(next.0, 0, 40, 1)]);
    assert_eq!(events(&mut scheduler), [], "nobody listens to a cancelled sequence");
}

#[test]
fn a_waiting_sequence_that_is_cancelled_is_forgotten() {
    let config = SchedulerConfig { running_max: 1, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    submit(&mut scheduler, 3, 5);
    let waiting = submit(&mut scheduler, 3, 5);
    scheduler.handle_cancel(T0, waiting);
    scheduler.handle_cancel(T0, waiting);
    assert_eq!(scheduler.counts().waiting, 0);
    let steps = run_out(&mut scheduler, Vec::new());
    assert!(steps.iter().all(|step| chunks(step)[0].0 != waiting.0));
}

#[test]
fn nobody_starts_into_blocks_that_are_promised() {
    let mut scheduler =
        serving(PlanLimits { caches: CacheBlocks::all_positions(8), rows_max: 32, ..plan() });
    submit(&mut scheduler, 32 * 5, 5);
    submit(&mut scheduler, 32 * 4, 5);
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (1, 1));
    // A shorter one does not overtake: it would be overtaken itself one day.
    submit(&mut scheduler, 1, 5);
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (1, 2));
    run_out(&mut scheduler, Vec::new());
    assert_eq!(free(&scheduler), 8);
}

#[test]
fn a_stream_of_new_requests_starves_nobody() {
    let mut scheduler = serving(PlanLimits {
        caches: CacheBlocks::all_positions(8),
        in_flight_max: 2,
        stages: 2,
        ..plan()
    });
    // The old one needs seven of the eight blocks at its end.
    let old = submit(&mut scheduler, 60, 150);
    let mut in_flight = Vec::new();
    for turn in 0..10_000 {
        if scheduler.counts().waiting < 3 {
            submit(&mut scheduler, 1 + turn % 50, 40);
        }
        in_flight.extend(std::iter::from_fn(|| scheduler.poll_step(T0)));
        answer(&mut scheduler, &in_flight.remove(0));
        let finished = |(id, event): &(SequenceId, GenerationEvent)| {
            *id == old && matches!(event, GenerationEvent::Finished { .. })
        };
        if events(&mut scheduler).iter().any(finished) {
            assert!(turn < 400, "150 tokens took {turn} microbatches");
            return;
        }
    }
    panic!("the old request starved: {:?}", scheduler.counts());
}

#[test]
fn what_can_never_fit_is_refused_with_the_numbers() {
    let by_blocks = PlanLimits { caches: CacheBlocks::all_positions(2), ..plan() };
    let mut scheduler = serving(by_blocks);
    let refusal = scheduler.handle_request(T0, greedy(vec![1; 64], 1)).unwrap_err();
    assert_eq!(refusal, Refusal::TooLong { prompt_tokens: 64, positions_max: 64 });
    let mut scheduler = serving(PlanLimits { ctx_size: 50, ..plan() });
    let refusal = scheduler.handle_request(T0, greedy(vec![1; 51], 1)).unwrap_err();
    assert_eq!(refusal, Refusal::TooLong { prompt_tokens: 51, positions_max: 50 });
    submit(&mut scheduler, 49, 1);
}

#[test]
fn the_end_of_the_context_ends_the_completion() {
    let mut scheduler = serving(PlanLimits { ctx_size: 50, ..plan() });
    submit(&mut scheduler, 40, 1000);
    run_out(&mut scheduler, Vec::new());
    let told = events(&mut scheduler);
    assert_eq!(told.len(), 11, "ten tokens and the end");
    let reason = FinishReason::Length;
    assert_eq!(told[10].1, GenerationEvent::Finished { reason, cached_tokens: 0 });
}

#[test]
fn a_full_queue_refuses() {
    let config = SchedulerConfig { waiting_max: 2, running_max: 1, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    for _ in 0..3 {
        submit(&mut scheduler, 3, 3);
    }
    let refusal = scheduler.handle_request(T0, greedy(vec![1], 1)).unwrap_err();
    assert!(matches!(refusal, Refusal::QueueFull { waiting: 2, .. }), "{refusal:?}");
}

#[test]
fn nobody_starts_before_a_preempted_sequence_waits() {
    let limits = PlanLimits {
        caches: CacheBlocks::all_positions(10),
        rows_max: 4,
        stages: 2,
        in_flight_max: 2,
        ..plan()
    };
    let mut scheduler = serving(limits);
    let old = submit(&mut scheduler, 127, 150);
    let preempted = submit(&mut scheduler, 129, 100);
    let late = submit(&mut scheduler, 32, 100);
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (2, 1));
    let mut in_flight = Vec::new();
    for _ in 0..1000 {
        in_flight.extend(std::iter::from_fn(|| scheduler.poll_step(T0)));
        if scheduler.preempting > 0 {
            break;
        }
        answer(&mut scheduler, &in_flight.remove(0));
    }
    // In flight, the preempted one cannot wait yet; the way for the late one seems free.
    assert_eq!(scheduler.preempting, 1, "the test is about this moment");
    assert_eq!(scheduler.sequence(preempted).phase, Phase::Preempting);
    scheduler.handle_cancel(T0, old);
    assert_books_balance(&scheduler);
    assert_eq!(scheduler.counts().running, 0);
    let steps = run_out(&mut scheduler, in_flight);
    let first = |id: SequenceId| {
        steps
            .iter()
            .rposition(|step| chunks(step).iter().any(|chunk| chunk.0 == id.0 && chunk.1 == 0))
    };
    assert!(first(preempted) <= first(late), "it starts again, and first");
}
