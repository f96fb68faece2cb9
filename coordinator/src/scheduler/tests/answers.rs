//! Answers that do not fit, answers of another plan, and the loss of the pipeline.

use super::*;
use crate::generation::Refusal;
use crate::scheduler::SampledError;
use woolly_protocol::ids::MicrobatchId;

/// A prompt in two chunks, both in flight.
fn two_in_flight() -> (Scheduler, Step, Step) {
    let mut scheduler = serving(PlanLimits { rows_max: 4, ..plan() });
    submit(&mut scheduler, 6, 5);
    let first = step(&mut scheduler);
    let second = step(&mut scheduler);
    (scheduler, first, second)
}

/// Refuses the answer and stays as it was: the right answers still work.
fn refuses(mut scheduler: Scheduler, wrong: Sampled, error: &SampledError, right: [&Step; 2]) {
    let before = scheduler.counts();
    assert_eq!(scheduler.handle_sampled(T0, wrong).unwrap_err(), *error);
    assert_eq!(scheduler.counts(), before);
    for step in right {
        answer(&mut scheduler, step);
    }
    assert_eq!(events(&mut scheduler).len(), 1);
}

#[test]
fn an_unknown_microbatch_is_an_error() {
    let (scheduler, first, second) = two_in_flight();
    let microbatch = MicrobatchId(99);
    let wrong = Sampled { microbatch, ..answer_of(&first) };
    refuses(scheduler, wrong, &SampledError::NotInFlight { microbatch }, [&first, &second]);
}

#[test]
fn a_second_answer_is_an_error() {
    let (mut scheduler, first, second) = two_in_flight();
    answer(&mut scheduler, &first);
    let microbatch = first.forward.microbatch;
    let error = scheduler.handle_sampled(T0, answer_of(&first)).unwrap_err();
    assert_eq!(error, SampledError::NotInFlight { microbatch });
    answer(&mut scheduler, &second);
}

#[test]
fn an_answer_before_its_turn_is_an_error() {
    let (scheduler, first, second) = two_in_flight();
    let expected = first.forward.microbatch;
    let found = second.forward.microbatch;
    let error = SampledError::OutOfOrder { expected, found };
    refuses(scheduler, answer_of(&second), &error, [&first, &second]);
}

#[test]
fn a_wrong_number_of_rows_is_an_error() {
    let (scheduler, first, second) = two_in_flight();
    let microbatch = first.forward.microbatch;
    let wrong = Sampled { microbatch, ..answer_of(&second) };
    let error = SampledError::RowCount { microbatch, expected: 0, found: 1 };
    refuses(scheduler, wrong, &error, [&first, &second]);
}

#[test]
fn a_wrong_target_or_too_many_others_is_an_error() {
    let mut scheduler = serving(plan());
    let mut request = greedy(vec![3, 4], 0);
    request.score_prompt = true;
    scheduler.handle_request(T0, request).unwrap();
    let prompt = step(&mut scheduler);
    let microbatch = prompt.forward.microbatch;
    let mut wrong = answer_of(&prompt);
    token(&mut wrong.rows[0]).token = 5;
    let error = SampledError::Target { microbatch, row: 0, expected: 4, found: 5 };
    assert_eq!(scheduler.handle_sampled(T0, wrong), Err(error));
    let mut wrong = answer_of(&prompt);
    token(&mut wrong.rows[0]).top = vec![(1, -1.0)];
    let error = SampledError::TopCount { microbatch, row: 0, expected: 0, found: 1 };
    assert_eq!(scheduler.handle_sampled(T0, wrong), Err(error));
    answer(&mut scheduler, &prompt);
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let mut scheduler = serving(PlanLimits { vocab: 8, ..plan() });
    submit(&mut scheduler, 3, 5);
    let prompt = step(&mut scheduler);
    let microbatch = prompt.forward.microbatch;
    let mut wrong = answer_of(&prompt);
    token(&mut wrong.rows[0]).token = 8;
    let error = SampledError::Vocabulary { microbatch, row: 0, vocab: 8, found: 8 };
    assert_eq!(scheduler.handle_sampled(T0, wrong), Err(error));
    answer(&mut scheduler, &prompt);
}

#[test]
fn a_prompt_without_tokens_is_refused_and_nothing_else_suffers() {
    let mut scheduler = serving(plan());
    let refusal = scheduler.handle_request(T0, greedy(Vec::new(), 1)).unwrap_err();
    assert_eq!(refusal, Refusal::NoTokens);
    submit(&mut scheduler, 3, 1);
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
}

fn failure_code(event: &GenerationEvent) -> &'static str {
    match event {
        GenerationEvent::Failed(failure) => failure.code,
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn values_that_are_not_finite_fail_their_request_only() {
    let mut scheduler = serving(plan());
    let bad = submit(&mut scheduler, 3, 5);
    let good = submit(&mut scheduler, 3, 5);
    let prompts = step(&mut scheduler);
    let mut sampled = answer_of(&prompts);
    sampled.rows[0] = SampledRow::NonFinite;
    scheduler.handle_sampled(T0, sampled).unwrap();
    let told = events(&mut scheduler);
    assert_eq!((told[0].0, failure_code(&told[0].1)), (bad, "model_numerics"));
    assert!(matches!(told[1], (id, GenerationEvent::Token(_)) if id == good));
    assert_eq!(told.len(), 2);
    assert_eq!(scheduler.counts().running, 1);
}

#[test]
fn a_mask_that_allows_nothing_fails_its_request_under_a_name_of_its_own() {
    let mut scheduler = serving(plan());
    submit(&mut scheduler, 3, 5);
    let prompt = step(&mut scheduler);
    let mut sampled = answer_of(&prompt);
    sampled.rows[0] = SampledRow::NothingAllowed;
    scheduler.handle_sampled(T0, sampled).unwrap();
    assert_eq!(failure_code(&events(&mut scheduler)[0].1), "no_token_allowed");
    assert_eq!(scheduler.counts().running, 0);
}

#[test]
fn a_failure_amid_chunks_in_flight_gives_the_blocks_back_at_the_end() {
    let mut scheduler =
        serving(PlanLimits { rows_max: 4, caches: CacheBlocks::all_positions(5), ..plan() });
    let mut request = greedy((0..6).collect(), 1);
    request.score_prompt = true;
    scheduler.handle_request(T0, request).unwrap();
    let first = step(&mut scheduler);
    let second = step(&mut scheduler);
    let mut sampled = answer_of(&first);
    sampled.rows[1] = SampledRow::NonFinite;
    scheduler.handle_sampled(T0, sampled).unwrap();
    assert_books_balance(&scheduler);
    assert_eq!(scheduler.counts().kv_blocks_free, 4);
    answer(&mut scheduler, &second);
    assert_eq!(scheduler.counts().kv_blocks_free, 5);
    assert_eq!(events(&mut scheduler).len(), 1, "one failure and nothing after it");
}

#[test]
fn the_scheduler_has_no_deadline_of_its_own() {
    let (mut scheduler, first, _) = two_in_flight();
    assert_eq!(scheduler.poll_timeout(), None);
    answer(&mut scheduler, &first);
    assert_eq!(scheduler.poll_timeout(), None);
}
