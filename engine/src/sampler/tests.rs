//! Tests of the sampler against plain definitions.

use super::draw::uniform;
use super::*;

const PLAIN: SampleParams<'static> = SampleParams {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    xtc_probability: 0.0,
    xtc_threshold: 0.1,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    seed: 7,
    choice: 0,
    position: 1,
    logit_bias: &[],
    prompt_counts: &[],
    output_counts: &[],
    mask: None,
};

fn sampler(vocab: usize) -> Sampler {
    Sampler::new(Level::best(), vocab)
}

fn row(logits: &[f32], params: &SampleParams<'_>) -> RowResult {
    let mut logits = logits.to_vec();
    sampler(logits.len()).row(&mut logits, &RowRequest::Sample { params, top: 3 })
}

fn token(result: RowResult) -> RowToken {
    let RowResult::Token(token) = result else { panic!("{result:?}") };
    token
}

fn sample(logits: &[f32], params: &SampleParams<'_>) -> RowToken {
    token(row(logits, params))
}

#[test]
fn greedy_takes_the_lowest_of_equal_ids_and_reports_log_probabilities() {
    let result = sample(&[1.0, 3.0, 3.0, -2.0], &PLAIN);
    assert_eq!(result.token, 1);
    let total: f64 = [1.0f64, 3.0, 3.0, -2.0].iter().map(|l| l.exp()).sum();
    assert!((f64::from(result.logprob) - (3.0 - total.ln())).abs() < 1e-6);
    assert_eq!(result.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2, 0]);
    assert_eq!(result.top[0].1.to_bits(), result.logprob.to_bits());
}

#[test]
fn scoring_reports_the_target() {
    let mut logits = vec![0.0, 1.0, 2.0];
    let request = RowRequest::Score { target: 0, top: 0 };
    let result = token(sampler(3).row(&mut logits, &request));
    let total: f64 = [0.0f64, 1.0, 2.0].iter().map(|l| l.exp()).sum();
    assert_eq!((result.token, result.top.len()), (0, 0));
    assert!((f64::from(result.logprob) + total.ln()).abs() < 1e-6);
}

#[test]
fn logits_that_are_not_finite_fail_the_row() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(row(&[0.0, bad, 1.0], &PLAIN), RowResult::NonFinite);
    }
}

#[test]
fn a_mask_that_allows_nothing_is_no_fault_of_the_logits() {
    for temperature in [0.0, 1.0] {
        for mask in [TokenMask::Bits(&[0]), TokenMask::AllBut(&[0, 1]), TokenMask::Only(&[])] {
            let none = SampleParams { temperature, mask: Some(mask), ..PLAIN };
            assert_eq!(row(&[0.0, 1.0], &none), RowResult::NothingAllowed);
        }
    }
}

#[test]
fn the_three_forms_of_a_mask_allow_the_same_tokens() {
    let logits: Vec<f32> = (0..130).map(|token| (token % 11) as f32 * 0.25).collect();
    let only = [0, 63, 64, 70, 129];
    let but: Vec<u32> = (0..130).filter(|token| !only.contains(token)).collect();
    let mut bits = [0u64; 3];
    only.iter().for_each(|token| bits[*token as usize / 64] |= 1 << (token % 64));
    for position in 0..200 {
        let choose = |mask| {
            let params = SampleParams { temperature: 1.0, position, mask: Some(mask), ..PLAIN };
            sample(&logits, &params)
        };
        let chosen = choose(TokenMask::Only(&only));
        assert!(only.contains(&chosen.token));
        assert_eq!(chosen, choose(TokenMask::AllBut(&but)));
        assert_eq!(chosen, choose(TokenMask::Bits(&bits)));
    }
}

#[test]
fn penalties_bias_and_mask_change_the_choice_and_not_the_log_probability() {
    let logits = [2.0, 1.9, -1.0, 0.5];
    let raw = |token: usize| {
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        f64::from(logits[token]) - total.ln()
    };
    let cases: [(SampleParams<'_>, u32); 5] = [
        (SampleParams { repetition_penalty: 1.2, prompt_counts: &[(0, 1)], ..PLAIN }, 1),
        (SampleParams { frequency_penalty: 0.2, output_counts: &[(0, 2)], ..PLAIN }, 1),
        (SampleParams { presence_penalty: 0.2, output_counts: &[(0, 9)], ..PLAIN }, 1),
        (SampleParams { logit_bias: &[(2, 10.0)], ..PLAIN }, 2),
        (SampleParams { mask: Some(TokenMask::Bits(&[0b1100])), ..PLAIN }, 3),
    ];
    for (params, chosen) in cases {
        let result = sample(&logits, &params);
        assert_eq!(result.token, chosen);
        assert!((f64::from(result.logprob) - raw(chosen as usize)).abs() < 1e-6);
        let plain = RowRequest::Score { target: chosen, top: 0 };
        let scored = token(sampler(logits.len()).row(&mut logits.to_vec(), &plain));
        assert_eq!(result.logprob.to_bits(), scored.logprob.to_bits(), "the raw one, to the bit");
    }
}

#[test]
fn the_smallest_temperature_is_greedy() {
    let params = SampleParams { temperature: f32::from_bits(1), ..PLAIN };
    let result = sample(&[1.0, 3.0, 2.999], &params);
    assert_eq!(result.token, 1);
}

#[test]
fn draws_follow_the_probabilities_and_only_the_position_moves_them() {
    let logits = [0.0f32, 1.0, 2.0, -1.0];
    let mut counts = [0u32; 4];
    for position in 0..40_000 {
        let params = SampleParams { temperature: 1.0, position, ..PLAIN };
        let token = sample(&logits, &params).token;
        assert_eq!(token, sample(&logits, &params).token);
        counts[token as usize] += 1;
    }
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
    for (token, logit) in logits.iter().enumerate() {
        let (share, p) = (f64::from(counts[token]) / 40_000.0, f64::from(*logit).exp() / total);
        assert!((share - p).abs() < 0.01, "token {token}: {share} of the draws, {p} expected");
    }
    assert_ne!(uniform(1, 0, 0), uniform(1, 1, 0));
    assert_ne!(uniform(1, 0, 0), uniform(2, 0, 0));
}

/// What may be drawn, by the definition: sort everything, cut, look.
fn allowed(logits: &[f32], top_k: usize, top_p: f64, min_p: f32) -> Vec<u32> {
    let mut all: Vec<(f32, u32)> =
        (0u32..).zip(logits).map(|(t, l)| (math::exp(l - 4.0), t)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all.truncate(if top_k == 0 { all.len() } else { top_k });
    let total: f64 = all.iter().map(|(p, _)| f64::from(*p)).sum();
    let mut sum = 0.0;
    let mut kept = all.len();
    for (i, (p, _)) in all.iter().enumerate() {
        sum += f64::from(*p);
        if sum >= top_p * total {
            kept = i + 1;
            break;
        }
    }
    all.truncate(kept);
    let best = all[0].0;
    all.retain(|(p, _)| *p >= min_p * best);
    all.into_iter().map(|(_, t)| t).collect()
}

#[test]
fn top_k_top_p_and_min_p_keep_what_their_definitions_keep() {
    let mut logits: Vec<f32> =
        (0..3000).map(|i| ((i * 7919) % 3000) as f32 / 400.0 - 3.5).collect();
    logits[17] = 4.0;
    for (top_k, top_p, min_p) in
        [(5, 1.0, 0.0), (0, 0.3, 0.0), (0, 0.95, 0.0), (0, 1.0, 0.2), (50, 0.5, 0.1)]
    {
        let allowed = allowed(&logits, top_k, f64::from(top_p), min_p);
        let mut seen = std::collections::BTreeSet::new();
        for position in 0..1500 {
            let params = SampleParams {
                temperature: 1.0,
                top_k: top_k as u32,
                top_p,
                min_p,
                position,
                ..PLAIN
            };
            let token = sample(&logits, &params).token;
            assert!(allowed.contains(&token), "{token} with {top_k} {top_p} {min_p}");
            seen.insert(token);
        }
        assert!(seen.len() * 4 > allowed.len().min(400), "most of what is allowed is drawn");
    }
}

/// How often each of five tokens is drawn with these probabilities.
fn drawn(probabilities: &[f32], params: &SampleParams<'_>) -> Vec<u32> {
    let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
    let mut counts = vec![0; logits.len()];
    for position in 1..=2000 {
        let params = SampleParams { temperature: 1.0, position, ..*params };
        counts[sample(&logits, &params).token as usize] += 1;
    }
    counts
}

#[test]
fn xtc_leaves_out_all_likely_tokens_but_the_least_likely_of_them() {
    let p = [0.4, 0.05, 0.25, 0.2, 0.1];
    let xtc = |threshold, probability| SampleParams {
        xtc_threshold: threshold,
        xtc_probability: probability,
        ..PLAIN
    };
    let always = drawn(&p, &xtc(0.15, 1.0));
    assert_eq!((always[0], always[2]), (0, 0), "{always:?}");
    assert!(always[3] > 1000 && always[4] > 400 && always[1] > 200, "{always:?}");
    let half = drawn(&p, &xtc(0.15, 0.5));
    assert!((300..500).contains(&half[0]), "four tenths of half the draws: {half:?}");
    let plain = drawn(&p, &PLAIN);
    for off in [xtc(0.15, 0.0), xtc(0.51, 1.0), xtc(0.3, 1.0)] {
        assert_eq!(drawn(&p, &off), plain, "only one token reaches 0.3: {off:?}");
    }
    let one = drawn(&[0.5, 0.5], &xtc(0.5, 1.0));
    assert_eq!(one, [0, 2000], "of two equal tokens the one with the higher id is less likely");
}

#[test]
fn the_chance_of_xtc_is_another_one_than_the_draws() {
    let p = [0.5, 0.3, 0.2];
    let params = SampleParams { xtc_threshold: 0.1, xtc_probability: 0.5, ..PLAIN };
    let (plain, some) = (drawn(&p, &PLAIN), drawn(&p, &params));
    assert!(plain[0] > 900 && (400..600).contains(&some[0]), "{plain:?} {some:?}");
    assert!(some[2] > 1000, "{some:?}");
}
