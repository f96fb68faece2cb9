//! What the last stage is asked: positions, counts, scores.

use super::*;
use crate::generation::{FinishReason, TokenEvent};
use crate::scheduler::sequence::Sequence;
use crate::scheduler::step::{Room, StepBuilder};
use woolly_protocol::frame::encode;
use woolly_protocol::ids::{BlockId, MicrobatchId};
use woolly_protocol::limits::PENALTY_TOKENS_MAX;
use woolly_protocol::sampling::{SampleBy, SamplingParams, SamplingRow};

fn rows(step: &Step) -> &[SamplingRow] {
    step.sampling.as_ref().map_or(&[], |sampling| &sampling.rows)
}

/// How the last row is sampled.
fn by(step: &Step) -> SampleBy {
    match rows(step).last().unwrap().mode {
        RowMode::Sample(by) => by,
        RowMode::Score(_) => panic!("a scored row"),
    }
}

fn params(step: &Step) -> &SamplingParams {
    &step.sampling.as_ref().unwrap().params[by(step).params as usize]
}

/// Submits, answers the prompt, and returns the rows asked for by the prompt and by a decode step.
fn prompt_and_decode(request: GenerationRequest) -> (Step, Step) {
    let mut scheduler = serving(plan());
    scheduler.handle_request(T0, request).unwrap();
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
    let decode = step(&mut scheduler);
    (prompt, decode)
}

#[test]
fn the_position_is_the_one_after_the_row() {
    let (prompt, decode) = prompt_and_decode(greedy(vec![4, 5, 6], 9));
    assert_eq!((by(&prompt).position, by(&decode).position), (3, 4));
    assert_eq!(params(&prompt).options.seed, 1);
}

#[test]
fn neutral_penalties_send_no_counts() {
    let (_, decode) = prompt_and_decode(greedy(vec![4, 4, 6], 9));
    assert_eq!(params(&decode).prompt_counts, []);
    assert_eq!(params(&decode).output_counts, []);
}

#[test]
fn repetition_counts_prompt_and_completion() {
    let mut request = greedy(vec![9, 4, 9], 9);
    request.sampling.repetition_penalty = 1.1;
    let (prompt, decode) = prompt_and_decode(request);
    assert_eq!(params(&prompt).prompt_counts, [(4, 1), (9, 2)]);
    assert_eq!(params(&decode).prompt_counts, [(4, 1), (7, 1), (9, 2)]);
    assert_eq!(params(&decode).output_counts, []);
}

#[test]
fn frequency_and_presence_count_the_completion() {
    for frequency in [true, false] {
        let mut request = greedy(vec![9, 7, 9], 9);
        let penalty = if frequency {
            &mut request.sampling.frequency_penalty
        } else {
            &mut request.sampling.presence_penalty
        };
        *penalty = 0.5;
        let (prompt, decode) = prompt_and_decode(request);
        assert_eq!(params(&prompt).output_counts, []);
        assert_eq!(params(&decode).output_counts, [(7, 1)]);
        assert_eq!(params(&decode).prompt_counts, []);
    }
}

#[test]
fn a_stop_token_is_reported_and_ends() {
    let mut scheduler = serving(plan());
    let mut request = greedy(vec![1, 2], 9);
    request.stop_tokens = Arc::from([3, 7]);
    request.top_logprobs = Some(2);
    let id = scheduler.handle_request(T0, request).unwrap();
    let prompt = step(&mut scheduler);
    assert_eq!(rows(&prompt)[0].top_logprobs, 2);
    answer(&mut scheduler, &prompt);
    let token = TokenEvent { token: 7, logprob: -0.5, top: vec![(0, -1.0), (1, -1.0)] };
    let end = GenerationEvent::Finished { reason: FinishReason::Stop, cached_tokens: 0 };
    assert_eq!(events(&mut scheduler), [(id, GenerationEvent::Token(token)), (id, end)]);
    assert_eq!(scheduler.poll_step(T0), None);
}

fn scoring(prompt: u32, max_tokens: u32) -> GenerationRequest {
    let mut request = greedy((100..100 + prompt).collect(), max_tokens);
    request.score_prompt = true;
    request
}

#[test]
fn scoring_asks_for_every_row_with_the_token_that_follows() {
    let mut scheduler = serving(PlanLimits { rows_max: 3, ..plan() });
    let id = scheduler.handle_request(T0, scoring(5, 1)).unwrap();
    let first = step(&mut scheduler);
    let second = step(&mut scheduler);
    assert_eq!(chunks(&first), [(1, 0, 3, 3)]);
    assert_eq!(chunks(&second), [(1, 3, 2, 2)]);
    let targets: Vec<_> = rows(&first).iter().map(|row| row.mode.clone()).collect();
    assert_eq!(targets, [RowMode::Score(101), RowMode::Score(102), RowMode::Score(103)]);
    assert_eq!(rows(&second)[0].mode, RowMode::Score(104));
    assert_eq!(by(&second).position, 5);

    answer(&mut scheduler, &first);
    assert_eq!(events(&mut scheduler), [], "scores are told all at once");
    answer(&mut scheduler, &second);
    let told = events(&mut scheduler);
    let GenerationEvent::Scored(scores) = &told[0].1 else { panic!("{told:?}") };
    let tokens: Vec<_> = scores.iter().map(|score| score.token).collect();
    assert_eq!(tokens, [101, 102, 103, 104]);
    assert!(matches!(told[1].1, GenerationEvent::Token(_)));
    assert!(matches!(told[2], (last, GenerationEvent::Finished { .. }) if last == id));
}

#[test]
fn scoring_alone_does_not_compute_the_last_token() {
    let mut scheduler = serving(plan());
    scheduler.handle_request(T0, scoring(5, 0)).unwrap();
    let prompt = step(&mut scheduler);
    assert_eq!(chunks(&prompt), [(1, 0, 4, 4)]);
    answer(&mut scheduler, &prompt);
    let told = events(&mut scheduler);
    assert!(matches!(&told[0].1, GenerationEvent::Scored(scores) if scores.len() == 4));
    let reason = FinishReason::Length;
    assert_eq!(told[1].1, GenerationEvent::Finished { reason, cached_tokens: 0 });
    assert_eq!(scheduler.poll_step(T0), None);
}

#[test]
fn a_prompt_of_one_token_has_nothing_to_score() {
    let mut scheduler = serving(plan());
    let id = scheduler.handle_request(T0, scoring(1, 0)).unwrap();
    let end = GenerationEvent::Finished { reason: FinishReason::Length, cached_tokens: 0 };
    assert_eq!(events(&mut scheduler), [(id, GenerationEvent::Scored(Vec::new())), (id, end)]);
    assert_eq!(scheduler.counts(), serving(plan()).counts());
    scheduler.handle_request(T0, scoring(1, 1)).unwrap();
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
    assert_eq!(events(&mut scheduler).len(), 3, "no scores, one token, the end");
}

#[test]
fn a_score_is_not_asked_for_twice() {
    let limits = PlanLimits {
        caches: CacheBlocks::all_positions(4),
        in_flight_max: 1,
        rows_max: 48,
        ..plan()
    };
    let mut scheduler = serving(limits);
    submit(&mut scheduler, 31, 60);
    scheduler.handle_request(T0, scoring(63, 20)).unwrap();
    let steps = run_out(&mut scheduler, Vec::new());
    assert!(scheduler.counts().preemptions > 0, "the test is about a preempted sequence");
    let scored = steps.iter().flat_map(rows).filter(|row| matches!(row.mode, RowMode::Score(_)));
    assert_eq!(scored.count(), 62);
}

#[test]
fn long_counts_are_spread_over_microbatches() {
    let limits =
        PlanLimits { ctx_size: 1 << 20, caches: CacheBlocks::all_positions(1 << 20), ..plan() };
    let room = Room::whole(&limits, 256);
    let mut request = greedy((0..u32::try_from(PENALTY_TOKENS_MAX).unwrap()).collect(), 2);
    request.sampling.repetition_penalty = 1.5;
    let mut builder = StepBuilder::default();
    builder.begin(None, (1, 32));
    for id in 1..=256 {
        let mut sequence = Sequence::new(request.clone(), T0);
        sequence.sent = PENALTY_TOKENS_MAX - 1;
        let blocks = (0..PENALTY_TOKENS_MAX as u32 / 32).map(BlockId).collect();
        sequence.tables = vec![Table { blocks, ..Table::default() }];
        if !builder.fits(room, &sequence, 1) {
            break;
        }
        builder.push(SequenceId(id), &mut sequence, 1);
    }
    let (step, _) = builder.finish(&limits, MicrobatchId(1), T0).unwrap();
    assert_eq!(step.forward.chunks.len(), 15, "0.5 MiB each");
    encode(&step.sampling.unwrap(), &[]).expect("it fits a frame");
}

#[test]
fn long_block_tables_are_spread_over_microbatches() {
    let limits =
        PlanLimits { ctx_size: 1 << 20, caches: CacheBlocks::all_positions(1 << 20), ..plan() };
    let room = Room::whole(&limits, 256);
    let mut builder = StepBuilder::default();
    builder.begin(None, (1, 32));
    for id in 1..=256 {
        let mut sequence = Sequence::new(greedy(vec![1; 1 << 19], 2), T0);
        sequence.sent = (1 << 19) - 1;
        let blocks = (0..1 << 14).map(BlockId).collect();
        sequence.tables = vec![Table { blocks, ..Table::default() }];
        if !builder.fits(room, &sequence, 1) {
            break;
        }
        builder.push(SequenceId(id), &mut sequence, 1);
    }
    let (step, _) = builder.finish(&limits, MicrobatchId(1), T0).unwrap();
    assert_eq!(step.forward.chunks.len(), 64, "64 KiB each");
    let payload = step.tokens.len() * 4;
    encode(&step.forward, &vec![0; payload]).expect("it fits a frame");
}
