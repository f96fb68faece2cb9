//! Golden files: what llama.cpp computes, and how far from it an answer is.

use crate::fixtures;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// Where the first two candidates are further apart than this, any correct engine has the same first.
pub const CLEAR_MARGIN: f64 = 0.7;

/// One golden file.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The model, as in the file's name.
    pub model: String,
    /// The text, as in the file's name.
    pub name: String,
    /// The input.
    pub text: String,
    /// Its token ids.
    pub tokens: Vec<u32>,
    /// Per position, the likeliest next tokens with their log-probabilities, best first.
    pub top: Vec<Vec<(u32, f64)>>,
    /// Per position but the last, the log-probability of the token that follows.
    pub next: Vec<f64>,
}

impl Golden {
    /// Whether special tokens in the text are parsed.
    pub fn parses_special(&self) -> bool {
        self.name.starts_with("chat")
    }

    /// How far the first candidate at a position is from the second.
    pub fn margin(&self, position: usize) -> f64 {
        self.top[position][0].1 - self.top[position][1].1
    }
}

/// Every golden file by model; `.f32` files (the truth) only if `truth`, else only the others.
pub fn by_model(truth: bool) -> BTreeMap<String, Vec<Golden>> {
    let mut models: BTreeMap<String, Vec<Golden>> = BTreeMap::new();
    let entries = fs::read_dir(fixtures::folder().join("golden")).expect("tests/fixtures/golden");
    for entry in entries.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".json") else { continue };
        let stem = match stem.strip_suffix(".f32") {
            Some(stem) if truth => stem,
            None if !truth => stem,
            _ => continue,
        };
        let (model, name) = stem.rsplit_once('.').expect("golden files are MODEL.TEXT.json");
        let text = fs::read_to_string(entry.path()).expect("golden files are readable");
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        models.entry(model.to_owned()).or_default().push(parse(model, name, &value));
    }
    for files in models.values_mut() {
        files.sort_by(|a, b| a.name.cmp(&b.name));
    }
    models
}

fn parse(model: &str, name: &str, value: &Value) -> Golden {
    let list = |value: &Value| value.as_array().expect("an array").clone();
    let id = |value: &Value| u32::try_from(value.as_u64().expect("an id")).expect("32 bits");
    let positions = list(&value["positions"]);
    let pair = |pair: &Value| (id(&pair[0]), pair[1].as_f64().expect("a number"));
    Golden {
        model: model.to_owned(),
        name: name.to_owned(),
        text: value["text"].as_str().expect("a text").to_owned(),
        tokens: list(&value["tokens"]).iter().map(id).collect(),
        top: positions.iter().map(|p| list(&p["top"]).iter().map(pair).collect()).collect(),
        next: positions.iter().filter_map(|p| p["next"].as_f64()).collect(),
    }
}

/// The mean of |a - b| over texts, the first position of each apart: (without it, of it alone).
pub fn mean_distance<'a>(pairs: impl Iterator<Item = (&'a [f64], &'a [f64])>) -> (f64, f64) {
    let (mut rest, mut first) = ((0.0, 0.0), (0.0, 0.0));
    for (a, b) in pairs {
        assert_eq!(a.len(), b.len(), "as many log-probabilities as in the golden file");
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            let sum = if i == 0 { &mut first } else { &mut rest };
            *sum = (sum.0 + (a - b).abs(), sum.1 + 1.0);
        }
    }
    (rest.0 / rest.1, first.0 / first.1)
}
