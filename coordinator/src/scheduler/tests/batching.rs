//! Continuous batching: what shares a microbatch, and what is in flight at a time.

use super::*;

#[test]
fn a_prompt_is_computed_in_chunks_that_follow_each_other() {
    let limits = PlanLimits { stages: 2, in_flight_max: 4, rows_max: 32, ..plan() };
    let mut scheduler = serving(limits);
    submit(&mut scheduler, 70, 2);
    let first = step(&mut scheduler);
    let second = step(&mut scheduler);
    let third = step(&mut scheduler);
    assert_eq!(chunks(&first), [(1, 0, 24, 0)]);
    assert_eq!(chunks(&second), [(1, 24, 24, 0)]);
    assert_eq!(chunks(&third), [(1, 48, 22, 1)]);
    assert_eq!(first.sampling, None);
    assert_eq!(third.tokens, (48..70).collect::<Vec<_>>());
    assert_eq!(scheduler.poll_step(T0), None, "the next token is not known yet");

    for step in [&first, &second, &third] {
        answer(&mut scheduler, step);
    }
    let decode = step(&mut scheduler);
    assert_eq!(chunks(&decode), [(1, 70, 1, 1)]);
    assert_eq!(decode.tokens, [7]);
}

#[test]
fn decode_goes_first_and_prefill_takes_what_is_left() {
    let mut scheduler = serving(PlanLimits { rows_max: 16, ..plan() });
    submit(&mut scheduler, 4, 10);
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
    submit(&mut scheduler, 40, 10);
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 4, 1, 1), (2, 0, 15, 0)]);
    // While the first waits for its token, the second goes on.
    assert_eq!(chunks(&step(&mut scheduler)), [(2, 15, 16, 0)]);
}

#[test]
fn decode_leaves_a_quarter_to_prompts() {
    let mut scheduler = serving(PlanLimits { rows_max: 8, ..plan() });
    for _ in 0..10 {
        submit(&mut scheduler, 1, 50);
    }
    let prompts = step(&mut scheduler);
    assert_eq!(chunks(&prompts).len(), 8);
    answer(&mut scheduler, &prompts);
    // Six of the eight that could decode, and the two prompts that are left.
    let positions: Vec<_> = chunks(&step(&mut scheduler)).iter().map(|c| (c.0, c.1)).collect();
    assert_eq!(positions, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (9, 0), (10, 0)]);
}

#[test]
fn a_microbatch_of_one_row_serves_prompts_and_decodes_in_turn() {
    let mut scheduler = serving(PlanLimits { rows_max: 1, in_flight_max: 1, ..plan() });
    submit(&mut scheduler, 1, 40);
    submit(&mut scheduler, 20, 1);
    let steps = run_out(&mut scheduler, Vec::new());
    let last_prompt_row = steps.iter().position(|step| chunks(step) == [(2, 19, 1, 1)]).unwrap();
    assert!(last_prompt_row <= 41, "the prompt of 20 had to wait for {last_prompt_row} rows");
}

#[test]
fn decoding_sequences_are_spread_over_the_stages() {
    let mut scheduler = serving(PlanLimits { stages: 3, in_flight_max: 4, ..plan() });
    for _ in 0..7 {
        submit(&mut scheduler, 2, 100);
    }
    let prompts: Vec<_> = std::iter::from_fn(|| scheduler.poll_step(T0)).collect();
    prompts.iter().for_each(|prompt| answer(&mut scheduler, prompt));
    let mut in_flight: Vec<_> = std::iter::from_fn(|| scheduler.poll_step(T0)).collect();
    let sizes: Vec<_> = in_flight.iter().map(|step| step.forward.chunks.len()).collect();
    assert_eq!(sizes, [3, 2, 2], "three groups for three stages, as equal as can be");
    // Group by group, each sequence gets one token per round, whoever else is in flight.
    for round in 1..20 {
        for _ in 0..3 {
            answer(&mut scheduler, &in_flight.remove(0));
            in_flight.extend(std::iter::from_fn(|| scheduler.poll_step(T0)));
        }
        let tokens = events(&mut scheduler).len();
        assert_eq!(tokens, if round == 1 { 14 } else { 7 });
        assert_eq!(in_flight.len(), 3);
    }
}

#[test]
fn one_stage_computes_all_decodes_together() {
    let mut scheduler = serving(PlanLimits { stages: 1, in_flight_max: 2, ..plan() });
    submit(&mut scheduler, 2, 100);
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
    let alone = step(&mut scheduler);
    submit(&mut scheduler, 2, 100);
    let late = step(&mut scheduler);
    answer(&mut scheduler, &alone);
    let first = step(&mut scheduler);
    assert_eq!(chunks(&first).len(), 1);
    answer(&mut scheduler, &late);
    assert_eq!(scheduler.poll_step(T0), None, "the second waits to join the first");
    answer(&mut scheduler, &first);
    assert_eq!(chunks(&step(&mut scheduler)).len(), 2);
}

#[test]
fn a_sequence_has_one_decode_row_in_flight() {
    let mut scheduler = serving(PlanLimits { stages: 4, in_flight_max: 5, ..plan() });
    submit(&mut scheduler, 2, 100);
    let prompt = step(&mut scheduler);
    answer(&mut scheduler, &prompt);
    step(&mut scheduler);
    assert_eq!(scheduler.poll_step(T0), None);
}

#[test]
fn the_plan_limits_microbatches_chunks_and_rows() {
    let limits = PlanLimits { in_flight_max: 2, stages: 2, chunks_max: 3, rows_max: 10, ..plan() };
    let mut scheduler = serving(limits);
    for _ in 0..9 {
        submit(&mut scheduler, 3, 2);
    }
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0, 3, 1), (2, 0, 3, 1), (3, 0, 3, 1)]);
    assert_eq!(chunks(&step(&mut scheduler)), [(4, 0, 3, 1), (5, 0, 3, 1), (6, 0, 3, 1)]);
    assert_eq!(scheduler.poll_step(T0), None);
    assert_eq!(scheduler.counts().in_flight, 2);
}

#[test]
fn the_row_budget_of_the_configuration_holds() {
    let config = SchedulerConfig { rows_per_step: 5, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    submit(&mut scheduler, 12, 1);
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0, 5, 0)]);
}

#[test]
fn at_most_so_many_run() {
    let config = SchedulerConfig { running_max: 2, ..SchedulerConfig::default() };
    let mut scheduler = configured(config, plan());
    for _ in 0..5 {
        submit(&mut scheduler, 3, 1);
    }
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (2, 3));
    let first = step(&mut scheduler);
    answer(&mut scheduler, &first);
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (2, 1));
}
