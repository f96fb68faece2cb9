//! Predictions: figures that can be reckoned by hand, and what must hold whatever the machines are.

use super::layout;
use crate::plan::{Decode, KvType, Limit, Link, ModelLayout, Pipeline, StageSpeed};
use proptest::prelude::*;
use std::ops::Range;

/// No time for messages.
const NO_WAY: Link = Link { round_trip_s: 0.0, bytes_per_s: 1e18 };
/// What a forward gets of what was measured.
const PART: f64 = 0.9;

fn speed(read: f64, macs: f64) -> StageSpeed {
    StageSpeed { read_bytes_per_s: read, macs_per_s: macs }
}

fn pipeline(
    layout: &ModelLayout,
    stages: Vec<(Range<u32>, StageSpeed)>,
    links: Vec<Link>,
) -> Pipeline<'_> {
    let in_flight_max = 2 * stages.len() as u32;
    Pipeline::new(layout, KvType::F16, stages, links, (256, in_flight_max))
}

/// All layers on one worker.
fn alone(layout: &ModelLayout, speed: StageSpeed) -> Pipeline<'_> {
    pipeline(layout, vec![(0..layout.layers, speed)], vec![NO_WAY; 2])
}

/// Two equal halves on equal workers, and links of the same kind.
fn halves(layout: &ModelLayout, speed: StageSpeed, link: Link) -> Pipeline<'_> {
    let half = layout.layers / 2;
    let stages = vec![(0..half, speed), (half..layout.layers, speed)];
    pipeline(layout, stages, vec![link; 3])
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} instead of {expected}");
}

/// Bytes of keys and values of one position, and multiplications of attention to it, in all layers.
fn of_position(layout: &ModelLayout) -> (f64, f64) {
    let layers = f64::from(layout.layers);
    let (kv, head) = (f64::from(layout.kv_heads * layout.head_dim), f64::from(layout.head_dim));
    (layers * kv * 2.0 * 2.0, layers * f64::from(layout.heads) * 2.0 * head)
}

#[test]
fn one_stream_alone_reads_and_multiplies_once() {
    let layout = layout(4);
    let (read, macs, positions) = (1e9, 1e12, 100);
    let (kv_bytes, attention) = of_position(&layout);
    let bytes = layout.stage_bytes_per_token(0..4) as f64 + 100.0 * kv_bytes;
    let work = layout.stage_macs_per_token(0..4) as f64 + 4.0 * 100.0 * attention;
    let expected = bytes / (PART * read) + work / (PART * macs);
    let found = alone(&layout, speed(read, macs)).decode(1, positions);
    near(found.period_s, expected);
    near(found.tokens_per_s(), 1.0 / expected);
    assert_eq!((found.groups, found.limit, found.stage), (1, Limit::Stage, 0));
    assert!(found.links_s < 1e-12);
}

#[test]
fn links_are_half_a_round_trip_and_what_they_carry() {
    let layout = layout(4);
    let link = Link { round_trip_s: 0.010, bytes_per_s: 1e6 };
    let fast = speed(1e15, 1e18);
    // Three links of 5 ms; 32 bytes there and back, and a row of hidden states between.
    let hidden = 4.0 * f64::from(layout.hidden);
    let expected = 3.0 * 0.005 + (2.0 * 32.0 + hidden) / 1e6;
    let found = halves(&layout, fast, link).decode(1, 0);
    assert!((found.period_s - expected).abs() < 1e-6, "{} {expected}", found.period_s);
    assert_eq!((found.limit, found.link), (Limit::Round, 1));
    near(found.links_s, expected);
}

#[test]
fn many_streams_keep_the_slowest_stage_busy() {
    let layout = layout(4);
    // So slow at multiplying that reading is nothing: each row takes as long as another.
    let slow = speed(1e18, 1e6);
    let rows = |layers: Range<u32>| layout.stage_macs_per_token(layers) as f64 / (PART * 1e6);
    let (first, second) = (rows(0..2), rows(2..4));
    assert!(second > first, "the head is on the second");
    let found = halves(&layout, slow, NO_WAY).decode(8, 0);
    near(found.period_s, 8.0 * second);
    assert_eq!((found.limit, found.stage), (Limit::Stage, 1));
    assert!(found.groups > 1, "one group would leave each stage idle while the other computes");
}

#[test]
fn a_link_that_carries_little_holds_all_up() {
    let layout = layout(4);
    let fast = speed(1e15, 1e18);
    let stages = vec![(0..2, fast), (2..4, fast)];
    let thin = Link { round_trip_s: 0.0, bytes_per_s: 1e3 };
    let found = pipeline(&layout, stages, vec![NO_WAY, thin, NO_WAY]).decode(64, 0);
    let hidden = 4.0 * f64::from(layout.hidden);
    assert!((found.period_s - 64.0 * hidden / 1e3).abs() < 1e-3, "{}", found.period_s);
    assert_eq!((found.limit, found.link), (Limit::Link, 1));
}

#[test]
fn a_prompt_fills_the_pipeline_and_keeps_the_slowest_stage_busy() {
    let layout = layout(4);
    let slow = speed(1e18, 1e6);
    let found = halves(&layout, slow, NO_WAY).prompt(256);
    // Rows of 8 (reading costs nothing): 31 of the slowest stage, then one through both, and the head once.
    let (_, attention) = of_position(&layout);
    let row = |layers: Range<u32>| {
        layout.stage_prefill_macs_per_token(layers) as f64 + 4.0 * 128.0 * attention / 2.0
    };
    let head =
        (layout.stage_macs_per_token(2..4) - layout.stage_prefill_macs_per_token(2..4)) as f64;
    let (first, second) = (row(0..2), row(2..4));
    let work = 31.0 * 8.0 * first.max(second) + 8.0 * (first + second) + head;
    assert!((found.seconds / (work / (PART * 1e6)) - 1.0).abs() < 1e-6, "{}", found.seconds);
    assert_eq!((found.chunk, found.limit), (8, Limit::Stage));
}

#[test]
fn a_prompt_that_waits_for_memory_has_few_chunks() {
    let layout = layout(4);
    let found = halves(&layout, speed(1e6, 1e18), NO_WAY).prompt(512);
    assert_eq!(found.chunk, 256, "each chunk reads all weights");
    let one = alone(&layout, speed(1e6, 1e18)).prompt(16);
    assert_eq!((one.chunk, one.limit), (16, Limit::Stage));
}

#[test]
fn more_rows_than_a_forward_has_travel_in_groups() {
    let layout = layout(4);
    let found = alone(&layout, speed(1e9, 1e12)).decode(1000, 1);
    assert_eq!((found.streams, found.groups), (1000, 4));
}

/// Periods and seconds of all that is predicted.
fn figures(pipeline: &Pipeline<'_>) -> Vec<f64> {
    let decode = [1, 3, 8, 64].map(|streams| pipeline.decode(streams, 256).period_s);
    let prompts = [1, 40, 512, 4096].map(|tokens| pipeline.prompt(tokens).seconds);
    decode.into_iter().chain(prompts).collect()
}

/// Numbers of groups within this part count as equal, so that a figure may be so much worse than the best.
const TIE: f64 = 0.011;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_faster_machine_or_link_is_never_slower(
        reads in prop::collection::vec(1e8..1e12_f64, 4),
        macs in prop::collection::vec(1e9..1e14_f64, 4),
        round_trips in prop::collection::vec(0.0..0.02_f64, 5),
        bandwidths in prop::collection::vec(1e5..1e10_f64, 5),
        which in 0..18_usize,
        factor in 1.0..20.0_f64,
    ) {
        let layout = layout(8);
        let build = |reads: &[f64], macs: &[f64], trips: &[f64], bandwidths: &[f64]| {
            let stages = (0..4).map(|at: u32| {
                let place = at as usize;
                (2 * at..2 * at + 2, speed(reads[place], macs[place]))
            });
            let links = trips.iter().zip(bandwidths);
            let links = links.map(|(trip, bandwidth)| Link { round_trip_s: *trip, bytes_per_s: *bandwidth });
            figures(&pipeline(&layout, stages.collect(), links.collect()))
        };
        let before = build(&reads, &macs, &round_trips, &bandwidths);
        let (mut reads, mut macs) = (reads, macs);
        let (mut round_trips, mut bandwidths) = (round_trips, bandwidths);
        match which {
            0..4 => reads[which] *= factor,
            4..8 => macs[which - 4] *= factor,
            8..13 => round_trips[which - 8] /= factor,
            _ => bandwidths[which - 13] *= factor,
        }
        let after = build(&reads, &macs, &round_trips, &bandwidths);
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(*after <= before * (1.0 + TIE), "{after} after {before}");
            prop_assert!(after.is_finite() && *after > 0.0);
        }
    }

    #[test]
    fn more_streams_take_longer_and_give_as_many_tokens(streams in 1..200_u32, read in 1e8..1e12_f64) {
        let layout = layout(8);
        let link = Link { round_trip_s: 0.001, bytes_per_s: 1e8 };
        let pipeline = halves(&layout, speed(read, 20.0 * read), link);
        let [one, more] = [streams, streams + 1].map(|count| pipeline.decode(count, 64));
        let rate = Decode::tokens_per_s;
        prop_assert!(more.period_s >= one.period_s * (1.0 - TIE));
        // Groups of unlike size wait for each other, so that it is not quite monotone.
        prop_assert!(rate(&more) >= rate(&one) * 0.9, "{} after {}", rate(&more), rate(&one));
    }

    #[test]
    fn a_longer_prompt_takes_longer(tokens in 1..6000_u32, read in 1e8..1e12_f64) {
        let layout = layout(8);
        let link = Link { round_trip_s: 0.001, bytes_per_s: 1e8 };
        let pipeline = halves(&layout, speed(read, 20.0 * read), link);
        let [short, long] = [tokens, tokens + 50].map(|tokens| pipeline.prompt(tokens).seconds);
        prop_assert!(long >= short * (1.0 - 1e-9), "{long} after {short}");
    }
}
