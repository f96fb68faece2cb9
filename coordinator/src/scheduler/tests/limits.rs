//! Which tokens may come, and which become less likely: functions of the log, on every row that is sampled.

use super::*;
use crate::guides::limits::{Limits, only};
use crate::guides::{Breakers, Dry};
use woolly_protocol::sampling::{SampleBy, TokenMask};

fn limited(limits: Limits) -> GenerationRequest {
    GenerationRequest { limits: Some(Arc::new(limits)), ..greedy(vec![1, 2, 3], 5) }
}

fn list(ids: &[u32]) -> Option<Arc<TokenMask>> {
    Some(Arc::new(only(ids, 1 << 17)))
}

/// The mask of each sampled row.
fn masks(step: &Step) -> Vec<Option<&TokenMask>> {
    let sampling = step.sampling.as_ref().unwrap();
    let mask = |by: &SampleBy| by.mask.map(|mask| &sampling.masks[mask as usize]);
    let rows = sampling.rows.iter().map(|row| match &row.mode {
        RowMode::Sample(by) => mask(by),
        RowMode::Score(_) => panic!("nothing is scored"),
    });
    rows.collect()
}

#[test]
fn ends_are_masked_until_there_are_enough_tokens() {
    let mut scheduler = serving(plan());
    let limits = Limits { min_tokens: 2, ends: [9, 4].into(), ..Limits::default() };
    scheduler.handle_request(T0, limited(limits)).unwrap();
    let ends = TokenMask::AllBut(vec![4, 9]);
    for expected in [Some(&ends), Some(&ends), None] {
        let next = step(&mut scheduler);
        assert_eq!(masks(&next), [expected]);
        answer(&mut scheduler, &next);
    }
}

#[test]
fn choices_with_one_list_send_it_once() {
    let mut scheduler = serving(plan());
    let limits = Limits { only: list(&[7, 8]), ..Limits::default() };
    (0..3).for_each(|_| _ = scheduler.handle_request(T0, limited(limits.clone())).unwrap());
    let next = step(&mut scheduler);
    assert_eq!(masks(&next), [Some(&TokenMask::Only(vec![7, 8])); 3]);
    assert_eq!(next.sampling.unwrap().masks.len(), 1);
}

#[test]
fn a_list_that_is_used_up_ends_with_a_failure() {
    let mut scheduler = serving(plan());
    let bad_words: Arc<[Vec<u32>]> = [vec![7, 7]].into();
    let limits = Limits { only: list(&[7]), bad_words, ..Limits::default() };
    let id = scheduler.handle_request(T0, limited(limits)).unwrap();
    run_out(&mut scheduler, Vec::new());
    let told = events(&mut scheduler);
    let [(_, GenerationEvent::Token(_)), (of, GenerationEvent::Failed(failure))] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((*of, failure.code), (id, "no_token_allowed"));
    assert_eq!(scheduler.counts().kv_blocks_free, 1000);
}

#[test]
fn long_lists_go_out_as_bits_and_fit_beside_each_other() {
    let mut scheduler = serving(plan());
    let only = list(&(0..1 << 17).step_by(2).collect::<Vec<_>>());
    for seed in 0..64 {
        let mut request = limited(Limits { only: only.clone(), ..Limits::default() });
        request.sampling.seed = seed;
        scheduler.handle_request(T0, request).unwrap();
    }
    let next = step(&mut scheduler);
    // The last prompt may be cut, and then it samples nothing yet.
    let rows = next.forward.sample_rows();
    assert!(rows > 10, "{rows} prompts in a microbatch");
    let sampling = next.sampling.unwrap();
    assert_eq!(sampling.masks, [TokenMask::Bits(vec![0x5555_5555_5555_5555; 2048])]);
    sampling.check_against(rows, 1 << 17).unwrap();
}

#[test]
fn dry_takes_from_what_the_request_itself_adds() {
    let mut scheduler = serving(plan());
    let breakers = Breakers::default();
    let dry = Dry { multiplier: 0.5, base: 2.0, allowed_length: 1, last: 99, breakers };
    let mut request = greedy(vec![5, 7, 6, 5], 9);
    request.dry = Some(Arc::new(dry));
    request.sampling.logit_bias = vec![(3, 1.0), (7, 2.0)];
    scheduler.handle_request(T0, request).unwrap();
    let bias = |step: &Step| step.sampling.as_ref().unwrap().params[0].options.logit_bias.clone();
    let next = step(&mut scheduler);
    assert_eq!(bias(&next), [(3, 1.0), (7, 1.5)]);
    answer(&mut scheduler, &next);
    // 5 7 6 5 7: "5 7" goes on with 6.
    let next = step(&mut scheduler);
    assert_eq!(bias(&next), [(3, 1.0), (6, -1.0), (7, 2.0)]);
}

#[test]
fn a_row_has_so_many_biases_at_most_whatever_dry_finds() {
    let mut scheduler = serving(plan());
    let breakers = Breakers::default();
    let dry = Dry { multiplier: 0.5, base: 2.0, allowed_length: 0, last: 999, breakers };
    let mut request = greedy((0..1000).collect(), 9);
    request.dry = Some(Arc::new(dry));
    request.sampling.logit_bias = (100_000..100_100).map(|token| (token, 1.0)).collect();
    scheduler.handle_request(T0, request).unwrap();
    let steps = run_out(&mut scheduler, Vec::new());
    let sampling = steps.iter().find_map(|step| step.sampling.as_ref()).unwrap();
    let bias = &sampling.params[0].options.logit_bias;
    assert_eq!(bias.len(), 1024);
    assert_eq!(bias.iter().filter(|(_, bias)| *bias == 1.0).count(), 100);
    sampling.check_against(1, 1 << 17).unwrap();
}
