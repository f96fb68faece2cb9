//! llama-server's fields that say which samplers run, in what order and over what part of the text.
//!
//! Woolly's order is fixed: penalties over the whole text, DRY, temperature, top-k, top-p, min-p, XTC. A list
//! that names another order is accepted where the order cannot matter, and refused otherwise; what
//! a list leaves out is turned off, as llama-server does.

use super::fields::{Fields, array_of, expected, string_of};
use crate::http::error::ApiError;
use serde_json::Value;
use woolly_protocol::sampling::SamplingOptions;

/// Names in `samplers`.
const SAMPLERS_MAX: usize = 32;
/// Characters of one name.
const NAME_CHARS_MAX: usize = 32;

/// llama-server's names and letters of samplers.
const NAMES: &[(&str, char, Sampler)] = &[
    ("penalties", 'e', Sampler::Penalties),
    ("temperature", 't', Sampler::Temperature),
    ("temp", 't', Sampler::Temperature),
    ("top_k", 'k', Sampler::TopK),
    ("top_p", 'p', Sampler::TopP),
    ("min_p", 'm', Sampler::MinP),
    ("dry", 'd', Sampler::Dry),
    ("xtc", 'x', Sampler::Xtc),
    // Not here, and therefore off: see the table of known fields.
    ("typ_p", 'y', Sampler::Off),
    ("typical_p", 'y', Sampler::Off),
    ("tfs_z", 'f', Sampler::Off),
    ("top_n_sigma", 's', Sampler::Off),
    ("adaptive_p", 'a', Sampler::Off),
];

/// A sampler, in the order in which Woolly runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sampler {
    Penalties,
    Dry,
    Temperature,
    TopK,
    TopP,
    MinP,
    Xtc,
    Off,
}

/// The field that turns DRY on.
pub const DRY: &str = "dry_multiplier";
/// The largest value of it.
pub const DRY_MULTIPLIER_MAX: f64 = 100.0;

/// Takes `samplers` and `repeat_last_n`, and turns off in `options` what they turn off.
///
/// # Errors
///
/// 400 naming the field: an unknown sampler, an order that would choose other tokens, a window of
/// the penalties that is neither nothing nor all.
pub fn take(fields: &mut Fields, options: &mut SamplingOptions) -> Result<(), ApiError> {
    if let Some(list) = names(fields)? {
        turn_off(&list, options);
        if !list.contains(&Sampler::Dry) {
            fields.number(DRY, 0.0..=DRY_MULTIPLIER_MAX)?;
        }
        let has_dry = fields.peek(DRY).is_some_and(|multiplier| multiplier.as_f64() != Some(0.0));
        check_order(&list, options, has_dry)?;
    }
    for name in ["repeat_last_n", "penalty_last_n"] {
        let Some(last) = fields.signed(name, -1..=i128::from(i32::MAX))? else { continue };
        if last == 0 {
            without_penalties(options);
        } else if last > 0 && has_penalties(options) {
            let text = format!(
                "Penalties look at the whole text here: set '{name}' to -1, or leave it out."
            );
            return Err(ApiError::unsupported(name, text));
        }
    }
    Ok(())
}

/// The samplers that are named, in order: a list of names, names in one string, or letters.
fn names(fields: &mut Fields) -> Result<Option<Vec<Sampler>>, ApiError> {
    let named = |name: &str| NAMES.iter().find(|row| row.0 == name).map(|row| row.2);
    let unknown = |value: &Value| {
        let wanted = "names of samplers among penalties, temperature, top_k, top_p, min_p, dry, \
                      typ_p, tfs_z, top_n_sigma, xtc and adaptive_p";
        expected("samplers", wanted, value)
    };
    let list = match fields.take("samplers") {
        None => return Ok(None),
        Some(Value::String(text)) => {
            let words: Option<Vec<_>> = text.split([';', ',']).map(str::trim).map(named).collect();
            let letter = |letter| NAMES.iter().find(|row| row.1 == letter).map(|row| row.2);
            let letters = || text.chars().map(letter).collect::<Option<Vec<_>>>();
            let list = words.or_else(letters).ok_or_else(|| unknown(&text.into()))?;
            list.into_iter().take(SAMPLERS_MAX).collect()
        }
        Some(Value::Array(items)) => {
            let mut list = Vec::new();
            for item in array_of(Value::Array(items), "samplers", SAMPLERS_MAX)? {
                let name = string_of(item, "samplers", NAME_CHARS_MAX)?;
                list.push(named(&name).ok_or_else(|| unknown(&name.into()))?);
            }
            list
        }
        Some(other) => return Err(unknown(&other)),
    };
    Ok(Some(list))
}

/// What a list leaves out does not run.
fn turn_off(list: &[Sampler], options: &mut SamplingOptions) {
    let left_out = |sampler| !list.contains(&sampler);
    if left_out(Sampler::Penalties) {
        without_penalties(options);
    }
    if left_out(Sampler::Temperature) {
        options.temperature = 1.0;
    }
    if left_out(Sampler::TopK) {
        options.top_k = 0;
    }
    if left_out(Sampler::TopP) {
        options.top_p = 1.0;
    }
    if left_out(Sampler::MinP) {
        options.min_p = 0.0;
    }
    if left_out(Sampler::Xtc) {
        options.xtc_probability = 0.0;
    }
}

/// With the temperature at 0 the most likely token is the choice, whatever was cut off before; DRY says only
/// which that is, as penalties do.
fn check_order(list: &[Sampler], options: &SamplingOptions, has_dry: bool) -> Result<(), ApiError> {
    if options.temperature == 0.0 {
        return Ok(());
    }
    let runs = |sampler: &Sampler| match sampler {
        Sampler::Penalties => has_penalties(options),
        Sampler::Temperature => options.temperature != 1.0,
        Sampler::TopK => options.top_k > 0,
        Sampler::TopP => options.top_p < 1.0,
        Sampler::MinP => options.min_p > 0.0,
        Sampler::Dry => has_dry,
        Sampler::Xtc => options.xtc_probability > 0.0,
        Sampler::Off => false,
    };
    let running: Vec<Sampler> = list.iter().copied().filter(runs).collect();
    if running.is_sorted_by(|a, b| a < b || !matters(*a, *b)) {
        Ok(())
    } else {
        let text = "The order of samplers is penalties, dry, temperature, top_k, top_p, min_p, xtc here, \
                        and these would choose other tokens in another order: leave 'samplers' out.";
        Err(ApiError::unsupported("samplers", text))
    }
}

/// Temperature does not change which tokens are the `k` most likely, so these two may change places.
fn matters(first: Sampler, second: Sampler) -> bool {
    (first, second) != (Sampler::TopK, Sampler::Temperature)
}

fn has_penalties(options: &SamplingOptions) -> bool {
    options.repetition_penalty != 1.0
        || options.frequency_penalty != 0.0
        || options.presence_penalty != 0.0
}

fn without_penalties(options: &mut SamplingOptions) {
    options.repetition_penalty = 1.0;
    options.frequency_penalty = 0.0;
    options.presence_penalty = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(body: Value, options: SamplingOptions) -> Result<SamplingOptions, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let mut options = options;
        take(&mut fields, &mut options)?;
        fields.finish()?;
        Ok(options)
    }

    fn warm() -> SamplingOptions {
        SamplingOptions { temperature: 0.8, top_k: 40, ..SamplingOptions::greedy() }
    }

    #[test]
    fn an_order_that_cannot_matter_is_accepted() {
        let servers =
            json!(["penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "temperature"]);
        let letters = json!("edkypmxt");
        let words = json!("top_k;typ_p;top_p;min_p;temperature");
        for list in [&servers, &letters, &words] {
            assert_eq!(with(json!({ "samplers": list }), warm()), Ok(warm()), "{list}");
            let cold = SamplingOptions { temperature: 0.0, top_p: 0.9, min_p: 0.1, ..warm() };
            assert_eq!(with(json!({ "samplers": list }), cold.clone()), Ok(cold), "{list}");
            let cut = SamplingOptions { top_p: 0.9, ..warm() };
            let error = with(json!({ "samplers": list }), cut).unwrap_err();
            assert_eq!(error.body()["error"]["param"], "samplers");
        }
        let ours = json!({"samplers": ["temperature", "top_k", "top_p", "min_p"]});
        let cut = SamplingOptions { top_p: 0.9, min_p: 0.1, ..warm() };
        assert_eq!(with(ours, cut.clone()), Ok(cut));
    }

    #[test]
    fn what_a_list_leaves_out_is_off() {
        let options = SamplingOptions { top_p: 0.5, repetition_penalty: 1.1, ..warm() };
        let found = with(json!({"samplers": ["top_k"]}), options).unwrap();
        assert_eq!(found, SamplingOptions { temperature: 1.0, ..warm() });
        let options = SamplingOptions { xtc_probability: 0.5, ..warm() };
        let body = json!({"samplers": ["temperature", "top_k"], "dry_multiplier": 0.8});
        assert_eq!(with(body, options), Ok(warm()));
        assert!(with(json!({"samplers": ["magic"]}), warm()).is_err());
        assert!(with(json!({"samplers": 7}), warm()).is_err());
    }

    #[test]
    fn dry_and_xtc_have_their_places() {
        let options = SamplingOptions { xtc_probability: 0.5, ..warm() };
        let order = |list: Value, dry: f64| {
            let mut fields =
                Fields::of_body(json!({"samplers": list, "dry_multiplier": dry})).unwrap();
            take(&mut fields, &mut options.clone())
        };
        assert_eq!(order(json!("dtkx"), 0.8), Ok(()));
        assert!(order(json!("dtxk"), 0.8).is_err());
        assert!(order(json!("tkdx"), 0.8).is_err());
        assert_eq!(order(json!("tkdx"), 0.0), Ok(()));
    }

    #[test]
    fn a_window_of_penalties_is_nothing_or_all() {
        let options = SamplingOptions { repetition_penalty: 1.1, ..warm() };
        assert_eq!(with(json!({"repeat_last_n": -1}), options.clone()), Ok(options.clone()));
        assert_eq!(with(json!({"repeat_last_n": 0}), options.clone()), Ok(warm()));
        assert_eq!(with(json!({"repeat_last_n": 64}), warm()), Ok(warm()));
        assert!(with(json!({"repeat_last_n": 64}), options).is_err());
    }
}
