//! Generations under a grammar: when rows are sent, what is forced, and how they end.

use super::*;
use crate::generation::FinishReason;
use crate::guides::{Guided, Next};
use woolly_protocol::sampling::TokenMask;

fn goes(forced: &[u32], allowed: &[u32]) -> Next {
    let mask = (!allowed.is_empty()).then(|| Arc::new(TokenMask::Only(allowed.to_vec())));
    Next::Goes { forced: forced.to_vec(), mask }
}

fn guided(prompt: u32, max_tokens: u32, first: Next) -> GenerationRequest {
    let guided = Some(Guided::scripted(first));
    GenerationRequest { guided, ..greedy((0..prompt).collect(), max_tokens) }
}

fn tokens(scheduler: &mut Scheduler) -> Vec<u32> {
    let token = |(_, event)| match event {
        GenerationEvent::Token(event) => Some(event.token),
        _ => None,
    };
    events(scheduler).into_iter().filter_map(token).collect()
}

/// The mask of the only sampled row.
fn mask(step: &Step) -> Option<&TokenMask> {
    let sampling = step.sampling.as_ref().unwrap();
    let RowMode::Sample(by) = &sampling.rows.last().unwrap().mode else { panic!("{sampling:?}") };
    by.mask.map(|index| &sampling.masks[index as usize])
}

#[test]
fn a_row_is_sampled_under_the_mask_of_its_guide_and_waits_for_it() {
    let mut scheduler = serving(plan());
    let id = scheduler.handle_request(T0, guided(5, 9, goes(&[], &[7, 8]))).unwrap();
    let first = step(&mut scheduler);
    assert_eq!(mask(&first), Some(&TokenMask::Only(vec![7, 8])));
    let sent = scheduler.counts().mask_bytes;
    assert!((8..100).contains(&sent), "two ids and their head, not {sent} bytes");
    answer(&mut scheduler, &first);
    assert_eq!(scheduler.poll_question(), Some((id, 7)));
    assert_eq!(scheduler.poll_question(), None);
    assert!(scheduler.poll_step(T0).is_none(), "nobody knows what may come next");
    scheduler.handle_next(T0, id, goes(&[], &[]));
    assert_eq!(mask(&step(&mut scheduler)), None, "everything may");
}

#[test]
fn a_slow_guide_delays_nobody_else() {
    let mut scheduler = serving(plan());
    scheduler.handle_request(T0, guided(5, 9, goes(&[], &[7]))).unwrap();
    let other = submit(&mut scheduler, 4, 9);
    let first = step(&mut scheduler);
    answer(&mut scheduler, &first);
    for _ in 0..3 {
        let next = step(&mut scheduler);
        assert_eq!(next.forward.chunks.iter().map(|c| c.sequence).collect::<Vec<_>>(), [other]);
        answer(&mut scheduler, &next);
    }
}

#[test]
fn forced_tokens_travel_with_the_newest_one_and_are_not_sampled() {
    let mut scheduler = serving(plan());
    let id = scheduler.handle_request(T0, guided(5, 20, goes(&[30, 31], &[7]))).unwrap();
    assert_eq!(tokens(&mut scheduler), [30, 31], "they are known at once");
    let first = step(&mut scheduler);
    assert_eq!((chunks(&first), &first.tokens[5..]), (vec![(1, 0, 7, 1)], &[30, 31][..]));
    answer(&mut scheduler, &first);
    scheduler.handle_next(T0, id, goes(&[40, 41, 42], &[7]));
    assert_eq!(tokens(&mut scheduler), [7, 40, 41, 42]);
    let second = step(&mut scheduler);
    assert_eq!((chunks(&second), &second.tokens[..]), (vec![(1, 7, 4, 1)], &[7, 40, 41, 42][..]));
    assert_eq!(scheduler.counts().prefilling, 0, "a few rows are no prompt");
    answer(&mut scheduler, &second);
    scheduler.handle_next(T0, id, goes(&[50; 20], &[7]));
    assert!(run_out(&mut scheduler, Vec::new()).is_empty(), "max_tokens is reached");
    let last = events(&mut scheduler).pop().unwrap().1;
    let reason = FinishReason::Length;
    assert_eq!(last, GenerationEvent::Finished { reason, cached_tokens: 0 });
}

#[test]
fn many_forced_tokens_are_computed_as_a_prompt() {
    let mut scheduler = serving(PlanLimits { rows_max: 16, ..plan() });
    let id = scheduler.handle_request(T0, guided(5, 99, goes(&[], &[7]))).unwrap();
    let first = step(&mut scheduler);
    answer(&mut scheduler, &first);
    scheduler.handle_next(T0, id, goes(&[9; 40], &[7]));
    assert_eq!(scheduler.counts().prefilling, 1);
    let sent = run_out(&mut scheduler, Vec::new());
    assert_eq!(sent.iter().map(|step| step.tokens.len()).sum::<usize>(), 41);
    assert_eq!(scheduler.poll_question(), Some((id, 7)));
}

#[test]
fn forced_tokens_that_a_cache_holds_are_no_cached_prompt() {
    let mut scheduler = configured(SchedulerConfig::default(), plan());
    for (cached_tokens, sent) in [(0, 80), (40, 16)] {
        scheduler.handle_request(T0, guided(40, 41, goes(&[9; 40], &[7]))).unwrap();
        let steps = run_out(&mut scheduler, Vec::new());
        assert_eq!(steps.iter().map(|step| step.tokens.len()).sum::<usize>(), sent);
        let last = events(&mut scheduler).pop().unwrap().1;
        let reason = FinishReason::Length;
        assert_eq!(last, GenerationEvent::Finished { reason, cached_tokens });
    }
}

#[test]
fn forced_tokens_are_scored_if_log_probabilities_are_wanted() {
    let mut scheduler = serving(plan());
    let request =
        GenerationRequest { top_logprobs: Some(1), ..guided(3, 9, goes(&[30, 31], &[7])) };
    let id = scheduler.handle_request(T0, request).unwrap();
    assert_eq!(tokens(&mut scheduler), [0; 0], "nobody knows yet how likely they are");
    let first = step(&mut scheduler);
    let modes: Vec<_> =
        first.sampling.as_ref().unwrap().rows.iter().map(|r| r.mode.clone()).collect();
    assert_eq!(modes[..2], [RowMode::Score(30), RowMode::Score(31)]);
    answer(&mut scheduler, &first);
    let told = events(&mut scheduler);
    let likely = |(_, event): &(SequenceId, GenerationEvent)| match event {
        GenerationEvent::Token(event) => (event.token, event.logprob, event.top.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        told.iter().map(likely).collect::<Vec<_>>(),
        [(30, -0.5, 1), (31, -0.5, 1), (7, -0.5, 1)]
    );
    // The last ones are scored too, and nothing is sampled after them.
    scheduler.handle_next(T0, id, Next::Ends { forced: vec![40, 41] });
    let last = step(&mut scheduler);
    assert_eq!((chunks(&last), &last.tokens[..]), (vec![(1, 5, 2, 2)], &[7, 40][..]));
    answer(&mut scheduler, &last);
    assert_eq!(tokens(&mut scheduler), [40, 41]);
    assert_eq!(scheduler.counts().running, 0);
}

#[test]
fn an_answer_that_the_grammar_forces_whole_needs_no_forward() {
    let mut scheduler = serving(plan());
    let first = Next::Ends { forced: vec![1, 2, 3] };
    scheduler.handle_request(T0, guided(5, 9, first)).unwrap();
    assert!(scheduler.poll_step(T0).is_none());
    let told = events(&mut scheduler);
    assert_eq!(told.len(), 4);
    let reason = FinishReason::Stop;
    assert_eq!(told[3].1, GenerationEvent::Finished { reason, cached_tokens: 0 });
}

#[test]
fn a_guide_that_cannot_go_on_fails_its_generation() {
    let mut scheduler = serving(plan());
    let id = scheduler.handle_request(T0, guided(5, 9, goes(&[], &[7]))).unwrap();
    let first = step(&mut scheduler);
    answer(&mut scheduler, &first);
    scheduler.handle_next(T0, id, Next::Fails("too large".to_owned()));
    let Some((_, GenerationEvent::Failed(failure))) = events(&mut scheduler).pop() else {
        panic!()
    };
    assert_eq!(failure.code, "grammar_limit");
    assert_books_balance(&scheduler);
    scheduler.handle_next(T0, id, goes(&[], &[7]));
    assert_eq!(events(&mut scheduler), [], "it has ended");
}

#[test]
fn the_answer_of_a_guide_stays_with_a_sequence_whose_pipeline_is_lost() {
    let mut scheduler = serving(plan());
    let id = scheduler.handle_request(T0, guided(5, 9, goes(&[], &[7]))).unwrap();
    let first = step(&mut scheduler);
    answer(&mut scheduler, &first);
    scheduler.handle_pipeline_lost(T0);
    scheduler.handle_next(T0, id, goes(&[30], &[8]));
    scheduler.handle_plan(T0, PlanLimits { epoch: PlanEpoch(2), ..plan() });
    let again = step(&mut scheduler);
    assert_eq!(
        (chunks(&again), mask(&again)),
        (vec![(1, 0, 7, 1)], Some(&TokenMask::Only(vec![8])))
    );
    // And while its guide is asked, all but the last row is computed again.
    answer(&mut scheduler, &again);
    scheduler.handle_pipeline_lost(T0);
    scheduler.handle_plan(T0, PlanLimits { epoch: PlanEpoch(3), ..plan() });
    let replay = step(&mut scheduler);
    assert_eq!(chunks(&replay), [(1, 0, 7, 0)]);
    answer(&mut scheduler, &replay);
    assert!(scheduler.poll_step(T0).is_none());
    scheduler.handle_next(T0, id, goes(&[], &[9]));
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 7, 1, 1)]);
}

#[test]
fn equal_masks_stand_once() {
    let mut scheduler = serving(plan());
    for allowed in [7, 8, 7] {
        scheduler.handle_request(T0, guided(3, 9, goes(&[], &[allowed]))).unwrap();
    }
    let step = step(&mut scheduler);
    assert_eq!(step.sampling.unwrap().masks.len(), 2);
}
