//! Which files of a repository are meant. Pure: a list goes in, files come out.
//!
//! A model is a `.gguf` file or the parts of a split one. Projectors of pictures (`mmproj`), importance matrices
//! and adapters are no models. Its quantisation is what its name says; where a repository puts it into a folder's
//! name only, that.

use super::parts::PartName;
use super::source::{HubName, Pick, is_file};
use crate::units::show_size;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is taken when a repository has several and none is named: small and good first, then what is larger,
/// then what is worse.
pub const ORDER: [&str; 14] = [
    "Q4_K_M", "Q4_0", "Q8_0", "MXFP4", "Q5_K_M", "Q6_K", "Q4_K_S", "IQ4_XS", "IQ4_NL", "Q5_K_S",
    "Q5_0", "Q4_1", "BF16", "F16",
];

/// Words that say of a file that it is no model.
const NO_MODEL: [&str; 5] = ["mmproj", "imatrix", "lora", "adapter", "vocab"];

/// Models that an error lists at most.
const SHOWN_MAX: usize = 40;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its path in the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in small hexadecimal digits, if the server says it.
    pub sha256: Option<String>,
}

/// One model of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What its name says of its quantisation, in capital letters.
    pub quant: Option<String>,
    /// Its files, in order.
    pub files: Vec<Listed>,
    /// How many there should be.
    pub count: usize,
}

impl Candidate {
    /// The path that names it.
    pub fn path(&self) -> &str {
        self.files.first().map_or("", |file| &file.path)
    }

    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// The models of a list of files, by their paths.
pub fn candidates(list: &[Listed]) -> Vec<Candidate> {
    let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
    for file in list.iter().filter(|file| is_model(&file.path) && is_file(&file.path)) {
        let (key, count) = match PartName::of(&file.path) {
            Some(part) => (format!("{}-of-{}", part.prefix, part.count), part.count as usize),
            None => (file.path.clone(), 1),
        };
        let quant = quant(&file.path);
        let new = Candidate { quant, files: Vec::new(), count };
        found.entry(key).or_insert(new).files.push(file.clone());
    }
    let mut all: Vec<Candidate> = found.into_values().collect();
    for candidate in &mut all {
        candidate.files.sort_by(|a, b| a.path.cmp(&b.path));
        candidate.files.dedup_by(|a, b| a.path == b.path);
    }
    all
}

/// The model that a name means.
///
/// # Errors
///
/// There is none, or several: the sentence lists what there is.
pub fn choose(list: &[Listed], name: &HubName) -> Result<Candidate, String> {
    let all = candidates(list);
    if all.is_empty() {
        return Err(format!("hf:{} has no GGUF model", name.repository()));
    }
    let chosen = match &name.pick {
        Pick::File(path) => all.iter().find(|one| one.files.iter().any(|file| file.path == *path)),
        Pick::Quant(quant) => of_quant(&all, quant, name)?,
        Pick::Any if all.len() == 1 => all.first(),
        Pick::Any => {
            let first = ORDER.iter().find(|quant| !named(&all, quant).is_empty());
            first.map(|quant| of_quant(&all, quant, name)).transpose()?.flatten()
        }
    };
    let Some(chosen) = chosen else {
        let what = match &name.pick {
            Pick::Any => "which one is meant is not said".to_owned(),
            _ => "there is no such model".to_owned(),
        };
        return Err(format!("{name}: {what}; the repository has {}", shown(&all)));
    };
    if chosen.files.len() != chosen.count {
        return Err(format!(
            "{name}: the repository has {} of the {} parts of {}",
            chosen.files.len(),
            chosen.count,
            chosen.path()
        ));
    }
    Ok(chosen.clone())
}

/// All models that a name may mean: every one if it says none.
pub fn matching(list: &[Listed], pick: &Pick) -> Vec<Candidate> {
    let all = candidates(list);
    let has = |one: &Candidate, path: &String| one.files.iter().any(|file| file.path == *path);
    match pick {
        Pick::Any => all,
        Pick::Quant(quant) => named(&all, quant).into_iter().cloned().collect(),
        Pick::File(path) => all.into_iter().filter(|one| has(one, path)).collect(),
    }
}

/// What tells a model from the others of its repository: the quantisation if that does, else its path.
pub fn pick_of(all: &[Candidate], one: &Candidate) -> Pick {
    match &one.quant {
        Some(quant) if named(all, quant).len() == 1 => Pick::Quant(quant.clone()),
        _ => Pick::File(one.path().to_owned()),
    }
}

/// The only model of a quantisation.
fn of_quant<'a>(
    all: &'a [Candidate],
    quant: &str,
    name: &HubName,
) -> Result<Option<&'a Candidate>, String> {
    match &named(all, quant)[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let paths: Vec<&str> = several.iter().map(|one| one.path()).take(SHOWN_MAX).collect();
            Err(format!(
                "{name}: several models are {quant}: name one of {} as hf:{}/FILE",
                paths.join(", "),
                name.repository()
            ))
        }
    }
}

/// Models of that quantisation; `UD-Q4_K_XL` is one of Q4_K_XL where there is no plain one.
fn named<'a>(all: &'a [Candidate], quant: &str) -> Vec<&'a Candidate> {
    let of = |wanted: &str| -> Vec<&'a Candidate> {
        all.iter()
            .filter(|one| one.quant.as_ref().is_some_and(|has| has.eq_ignore_ascii_case(wanted)))
            .collect()
    };
    let plain = of(quant);
    if plain.is_empty() { of(&format!("UD-{quant}")) } else { plain }
}

/// What an error lists: quantisations with sizes, or paths where they do not tell models apart.
fn shown(all: &[Candidate]) -> String {
    let mut shown: Vec<String> = Vec::new();
    for one in all.iter().take(SHOWN_MAX) {
        let (Pick::Quant(told) | Pick::File(told)) = pick_of(all, one) else { continue };
        shown.push(format!("{told} ({})", show_size(one.size())));
    }
    if all.len() > SHOWN_MAX {
        shown.push(format!("{} more", all.len() - SHOWN_MAX));
    }
    shown.join(", ")
}

fn is_model(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let has =
        |word: &str| name.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word);
    name.ends_with(".gguf") && !NO_MODEL.into_iter().any(has)
}

/// The quantisation that a path says, in capital letters: the last one of the file's name, else of its folders.
pub fn quant(path: &str) -> Option<String> {
    let stem = match PartName::of(path) {
        Some(part) => part.prefix,
        None => path.strip_suffix(".gguf").unwrap_or(path),
    };
    stem.to_ascii_uppercase().rsplit('/').find_map(last_quant)
}

fn last_quant(name: &str) -> Option<String> {
    let starts = name
        .char_indices()
        .filter(|(at, _)| *at == 0 || !name.as_bytes()[at - 1].is_ascii_alphanumeric());
    let mut found = starts.filter_map(|(at, _)| Some((at, quant_at(&name[at..])?)));
    let (at, quant) = found.next_back()?;
    let dynamic = name[..at].ends_with("UD-");
    Some(if dynamic { format!("UD-{quant}") } else { quant.to_owned() })
}

/// The quantisation that a text begins with: `Q4_K_M`, `IQ4_XS`, `TQ1_0`, `MXFP4`, `BF16`, …
fn quant_at(text: &str) -> Option<&str> {
    const PLAIN: [&str; 7] = ["BF16", "FP16", "FP32", "F16", "F32", "MXFP4_MOE", "MXFP4"];
    let ends = |len: usize| !text[len..].starts_with(|c: char| c.is_ascii_alphanumeric());
    if let Some(plain) = PLAIN.into_iter().find(|plain| text.starts_with(plain)) {
        return ends(plain.len()).then_some(plain);
    }
    let kind = ["IQ", "TQ", "Q"].into_iter().find(|kind| text.starts_with(kind))?;
    let mut len = kind.len() + 1;
    if !text.as_bytes().get(kind.len())?.is_ascii_digit() {
        return None;
    }
    while let Some(rest) = text.get(len..).and_then(|rest| rest.strip_prefix('_')) {
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if !matches!(
            word,
            "K" | "S" | "M" | "L" | "XS" | "XL" | "XXS" | "NL" | "0" | "1" | "4" | "8"
        ) {
            break;
        }
        len += 1 + word.len();
    }
    (ends(len) && len > kind.len() + 1).then(|| &text[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(paths: &[&str]) -> Vec<Listed> {
        let file = |path: &&str| Listed { path: (*path).to_owned(), size: 1 << 30, sha256: None };
        paths.iter().map(file).collect()
    }

    fn name(pick: Pick) -> HubName {
        HubName { owner: "o".to_owned(), repo: "r".to_owned(), pick }
    }

    fn chosen(paths: &[&str], pick: Pick) -> Result<Vec<String>, String> {
        let chosen = choose(&list(paths), &name(pick))?;
        Ok(chosen.files.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn the_name_says_the_quantisation() {
        for (path, expected) in [
            ("Qwen3-4B-Q4_K_M.gguf", Some("Q4_K_M")),
            ("smollm2-135m-instruct-q8_0.gguf", Some("Q8_0")),
            ("model.q5_0.gguf", Some("Q5_0")),
            ("Granite_Q6_K.gguf", Some("Q6_K")),
            ("m-UD-Q4_K_XL-00001-of-00003.gguf", Some("UD-Q4_K_XL")),
            ("m-IQ4_XS.gguf", Some("IQ4_XS")),
            ("gpt-oss-20b-mxfp4.gguf", Some("MXFP4")),
            ("Q4_0/m-00001-of-00002.gguf", Some("Q4_0")),
            ("BF16/m-BF16-00001-of-00002.gguf", Some("BF16")),
            ("Q2-large.gguf", None),
            ("m.gguf", None),
        ] {
            assert_eq!(quant(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn without_a_quantisation_the_written_order_decides() {
        let several = ["m-Q2_K.gguf", "m-Q8_0.gguf", "m-Q4_0.gguf", "mmproj-m-Q4_K_M.gguf"];
        assert_eq!(chosen(&several, Pick::Any).unwrap(), ["m-Q4_0.gguf"]);
        assert_eq!(
            chosen(&["README.md", "only.gguf", "m.imatrix.gguf"], Pick::Any).unwrap(),
            ["only.gguf"]
        );
        let none = chosen(&["a-Q2_K.gguf", "b-Q3_K.gguf"], Pick::Any).unwrap_err();
        assert!(none.contains("Q2_K (1 GiB), Q3_K (1 GiB)"), "{none}");
    }

    #[test]
    fn an_unknown_quantisation_is_answered_with_those_that_are_there() {
        let error = chosen(&["m-Q8_0.gguf", "m-UD-Q4_K_XL.gguf"], Pick::Quant("Q5_0".into()));
        let error = error.unwrap_err();
        assert!(error.contains("hf:o/r:Q5_0") && error.contains("Q8_0 (1 GiB)"), "{error}");
        let dynamic = chosen(&["m-UD-Q4_K_XL.gguf"], Pick::Quant("q4_k_xl".into()));
        assert_eq!(dynamic.unwrap(), ["m-UD-Q4_K_XL.gguf"]);
        let twice = chosen(&["a-Q8_0.gguf", "b-Q8_0.gguf"], Pick::Quant("Q8_0".into()));
        assert!(twice.unwrap_err().contains("a-Q8_0.gguf, b-Q8_0.gguf"));
    }

    #[test]
    fn parts_belong_together_and_a_missing_one_is_told() {
        let parts = ["Q8_0/m-00002-of-00002.gguf", "Q8_0/m-00001-of-00002.gguf", "m-Q2_K.gguf"];
        let expected = ["Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"];
        assert_eq!(chosen(&parts, Pick::Quant("Q8_0".into())).unwrap(), expected);
        assert_eq!(chosen(&parts, Pick::File(parts[0].into())).unwrap(), expected);
        let error = chosen(&parts[..1], Pick::Any).unwrap_err();
        assert!(error.contains("1 of the 2 parts"), "{error}");
        assert!(chosen(&["../m.gguf"], Pick::Any).unwrap_err().contains("no GGUF model"));
    }
}
