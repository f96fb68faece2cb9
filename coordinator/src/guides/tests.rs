//! Grammars over a vocabulary of single bytes and a few words.

use super::*;
use crate::http::tests::support::metadata;
use serde_json::{Value, json};
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;
use woolly_protocol::sampling::TokenMask;

const END: u32 = 257;
const OPEN: u32 = 258;
const CLOSE: u32 = 259;

fn guides() -> Guides {
    Guides::new(Arc::new(Tokenizer::from_metadata(&metadata()).unwrap()), &[]).unwrap()
}

fn is_allowed(mask: &Option<Arc<TokenMask>>, token: u32) -> bool {
    match mask.as_deref() {
        None => true,
        Some(TokenMask::Only(ids)) => ids.contains(&token),
        Some(TokenMask::AllBut(ids)) => !ids.contains(&token),
        Some(TokenMask::Bits(words)) => words[token as usize / 64] >> (token % 64) & 1 == 1,
    }
}

/// Writes `text` byte by byte as far as it may; whether it may be written whole and end there.
fn accepts(guided: &Guided, text: &str) -> bool {
    let mut guide = guided.again().take().unwrap();
    let mut next = guided.first().clone();
    let mut rest = text.bytes();
    loop {
        let (forced, mask) = match next {
            Next::Goes { forced, mask } => (forced, Some(mask)),
            Next::Ends { forced } => (forced, None),
            Next::Fails(why) => panic!("{why}"),
        };
        for token in forced {
            if token == END {
                return rest.next().is_none();
            }
            let spelled: &[u8] = match token {
                261 => b"he",
                262 => b"hel",
                _ => &[u8::try_from(token).unwrap()],
            };
            if !spelled.iter().all(|byte| rest.next() == Some(*byte)) {
                return false;
            }
        }
        let Some(mask) = mask else { return rest.next().is_none() };
        let Some(byte) = rest.next() else { return is_allowed(&mask, END) };
        if !is_allowed(&mask, byte.into()) {
            return false;
        }
        next = guide.next(byte.into());
    }
}

fn guided(grammar: &Grammar) -> Guided {
    guides().guide(grammar, None).unwrap()
}

fn refused(grammar: Grammar) -> String {
    guides().guide(&grammar, None).unwrap_err().0
}

#[test]
fn json_is_compact_and_what_the_schema_says() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
        "required": ["a", "b"], "additionalProperties": false});
    let guided = guided(&Grammar::JsonSchema(schema));
    assert!(accepts(&guided, r#"{"a":12,"b":"x"}"#));
    assert!(accepts(&guided, r#"{"a":-1,"b":"y"}"#));
    for other in [
        r#"{"a": 1,"b":"x"}"#,
        r#"{"a":1}"#,
        r#"{"a":1,"b":"z"}"#,
        r#"{"a":1.5,"b":"x"}"#,
        "[]",
        "",
    ] {
        assert!(!accepts(&guided, other), "{other}");
    }
}

#[test]
fn a_json_object_is_any_object() {
    let guided = guided(&Grammar::JsonObject);
    for object in ["{}", r#"{"a":[1,{"b":null}],"c":"é\n"}"#.replace('\n', "\\n").as_str()] {
        assert!(accepts(&guided, object), "{object}");
    }
    for other in ["[1]", "1", "{", r#"{"a":1,}"#] {
        assert!(!accepts(&guided, other), "{other}");
    }
}

#[test]
fn what_the_grammar_forces_is_not_asked_of_the_model() {
    let schema = json!({"type": "object", "properties": {"hello": {"type": "boolean"}},
        "required": ["hello"], "additionalProperties": false});
    let guided = guided(&Grammar::JsonSchema(schema));
    let Next::Goes { forced, mask } = guided.first() else { panic!() };
    // The model's own tokens: "hel" is one.
    let expected: Vec<u32> = [vec![b'{'.into(), b'"'.into(), 262], bytes("lo\":")].concat();
    assert_eq!(*forced, expected);
    let Some(TokenMask::Only(ids)) = mask.as_deref() else { panic!("{mask:?}") };
    assert_eq!(ids[..], [u32::from(b'f'), u32::from(b't')]);
    let mut guide = guided.take().unwrap();
    assert_eq!(guide.next(b't'.into()), Next::Ends { forced: bytes("rue}") });
    assert!(guided.take().is_none(), "a generation has one guide");
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn the_same_tokens_get_the_same_answers() {
    let schema = json!({"type": "array", "items": {"type": "string", "maxLength": 9}});
    let guided = guided(&Grammar::JsonSchema(schema));
    let mut guides = [guided.again().take().unwrap(), guided.take().unwrap()];
    for token in bytes(r#"["ab","#) {
        let [one, other] = guides.each_mut().map(|guide| guide.next(token));
        assert_eq!(one, other);
    }
}

#[test]
fn regular_expressions_and_choices_are_whole_answers() {
    let regex = guided(&Grammar::Regex("[a-c]{2,3}|x+".to_owned()));
    assert!(accepts(&regex, "abc") && accepts(&regex, "xx"));
    assert!(!accepts(&regex, "a") && !accepts(&regex, "abca") && !accepts(&regex, "ax"));
    let choice = guided(&Grammar::Choice(vec!["foo".into(), "foobar".into(), "a \"b\"".into()]));
    assert!(["foo", "foobar", "a \"b\""].iter().all(|text| accepts(&choice, text)));
    assert!(!accepts(&choice, "foob") && !accepts(&choice, "a"));
}

#[test]
fn thinking_is_free_and_the_grammar_begins_behind_it() {
    let guides = guides();
    let one = Grammar::Choice(vec!["yes".into(), "no".into()]);
    let open = Thinking { open: Some(OPEN), close: CLOSE, is_open: true };
    let guided = guides.guide(&one, Some(open)).unwrap();
    let free = Next::Goes { forced: vec![], mask: None };
    assert_eq!(*guided.first(), free);
    let mut guide = guided.take().unwrap();
    assert_eq!(guide.next(b'?'.into()), free);
    let Next::Goes { mask, .. } = guide.next(CLOSE) else { panic!() };
    assert!(is_allowed(&mask, b'y'.into()) && !is_allowed(&mask, b'?'.into()));
    // The model may begin to think, or not.
    let may = Thinking { is_open: false, ..open };
    let guided = guides.guide(&one, Some(may)).unwrap();
    let Next::Goes { mask, .. } = guided.first() else { panic!() };
    assert!(
        is_allowed(mask, OPEN) && is_allowed(mask, b'n'.into()) && !is_allowed(mask, b'?'.into())
    );
    assert_eq!(guided.again().take().unwrap().next(OPEN), free);
    assert_eq!(guided.take().unwrap().next(b'n'.into()), Next::Ends { forced: bytes("o") });
}

#[test]
fn control_tokens_are_no_text() {
    let guided = guided(&Grammar::JsonObject);
    let mut guide = guided.take().unwrap();
    // The brace is forced.
    let Next::Goes { mask, .. } = guide.next(b'"'.into()) else { panic!() };
    assert!(is_allowed(&mask, b'x'.into()) && is_allowed(&mask, 261));
    assert!([256, END, OPEN, CLOSE].iter().all(|token| !is_allowed(&mask, *token)));
}

#[test]
fn what_cannot_be_enforced_is_named() {
    for (schema, word) in [
        (json!({"type": "hiccup"}), "hiccup"),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"not": {"type": "string"}}), "not"),
        (json!({"type": "string", "format": "pigeon"}), "pigeon"),
        (json!({"$ref": "https://example.com/schema.json"}), "example.com"),
        (json!({"x-guidance": {"lenient": true}, "uniqueItems": true}), "x-guidance"),
        (json!({"type": "object", "dependentRequired": {"a": ["b"]}}), "dependentRequired"),
        (json!(7), "object"),
    ] {
        let why = refused(Grammar::JsonSchema(schema.clone()));
        assert!(why.contains(word), "{schema}: {why}");
    }
    for (regex, word) in [("[", "["), ("foo(", "("), ("(?=a)b", "?=")] {
        let why = refused(Grammar::Regex(regex.to_owned()));
        assert!(why.contains(word) && why.len() < 600, "{regex}: {why}");
    }
    assert!(refused(Grammar::Regex("x".repeat(300_000))).contains("bytes"));
    let dead_end = json!({"type": "string", "minLength": 5, "maxLength": 2});
    refused(Grammar::JsonSchema(dead_end));
}

#[test]
fn hostile_schemas_are_refused_or_small() {
    let many: Vec<Value> = (0..100_000).map(|i| json!(i)).collect();
    let deep =
        (0..60).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner}));
    for schema in [
        json!({"enum": many}),
        json!({"type": "array", "items": {"type": "string"}, "maxItems": 1_000_000_000}),
        json!({"type": "array", "items": {"type": "string"}, "minItems": 1_000_000_000}),
        json!({"type": "string", "pattern": "(a+)+b"}),
        json!({"type": "string", "maxLength": 1_000_000_000}),
        json!({"type": "string", "pattern": "(.{1,1000}){1,1000}"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}),
        deep,
    ] {
        // Either way: an answer, soon, and no panic.
        if let Ok(guided) = guides().guide(&Grammar::JsonSchema(schema), None) {
            assert!(!matches!(guided.first(), Next::Fails(_)));
        }
    }
}

/// Whether a grammar in llama.cpp's notation can be used.
pub(super) fn accepted(gbnf: &str) -> bool {
    guides().guide(&Grammar::Gbnf(gbnf.to_owned()), None).is_ok()
}

/// Checks which texts are whole answers of a grammar in llama.cpp's notation.
pub(super) fn accepts_all(gbnf: &str, whole: &[&str], others: &[&str]) {
    let guided = guided(&Grammar::Gbnf(gbnf.to_owned()));
    for text in whole {
        assert!(accepts(&guided, text), "{text:?} is an answer of {gbnf}");
    }
    for text in others {
        assert!(!accepts(&guided, text), "{text:?} is no answer of {gbnf}");
    }
}

#[test]
fn dates_and_times_are_those_that_everyone_takes() {
    let guided_by = |format: &str| {
        guided(&Grammar::JsonSchema(json!({"type": "array", "items": {"anyOf": [
            {"type": "object", "properties": {"format": {"type": "string", "format": format}},
            "additionalProperties": false, "required": ["format"]}]}})))
    };
    let check = |format: &str, good: &[&str], bad: &[&str]| {
        let guided = guided_by(format);
        let written = |text: &str| json!([{"format": text}]).to_string();
        good.iter().for_each(|text| assert!(accepts(&guided, &written(text)), "{format}: {text}"));
        bad.iter().for_each(|text| assert!(!accepts(&guided, &written(text)), "{format}: {text}"));
    };
    let days = ["2023-02-28", "2024-02-29", "2000-02-29", "0004-02-29", "1999-12-31", "0001-01-01"];
    let none = ["0000-01-20", "2023-02-29", "1900-02-29", "2024-02-30", "2024-04-31", "2024-13-01"];
    check("date", &days, &none);
    let times = ["00:00:00Z", "23:59:59.123456789+02:00"];
    check("time", &times, &["24:00:00Z", "10:00:00", "10:00:60Z", "10:00:00.1234567890Z"]);
    check("date-time", &["2024-02-29T10:00:00Z"], &["2023-02-29T10:00:00Z", "2024-02-29"]);
}

#[test]
fn a_number_comes_to_an_end() {
    let schema = json!({"type": "array", "items": {"anyOf": [
        {"type": "number"}, {"type": "string", "pattern": "^[0-9]{50}$"}]}});
    let guided = guided(&Grammar::JsonSchema(schema));
    let (most, more) = ("7".repeat(digits::DIGITS_MAX), "7".repeat(digits::DIGITS_MAX + 1));
    for good in [format!("[1.{most},2]"), format!("[{most}.5]"), format!("[{:?}]", "7".repeat(50))]
    {
        assert!(accepts(&guided, &good), "{good}");
    }
    for bad in [format!("[1.{more}]"), format!("[{more}]"), format!("[1e{more}]")] {
        assert!(!accepts(&guided, &bad), "{bad}");
    }
}

#[test]
fn an_object_has_the_properties_that_are_named() {
    let named =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let check = |schema: Value, good: &[&str], bad: &[&str]| {
        let guided = guided(&Grammar::JsonSchema(schema.clone()));
        good.iter().for_each(|text| assert!(accepts(&guided, text), "{schema}: {text}"));
        bad.iter().for_each(|text| assert!(!accepts(&guided, text), "{schema}: {text}"));
    };
    let more = r#"{"a":1,"b":2}"#;
    check(named.clone(), &[r#"{"a":1}"#], &[more]);
    let list = json!({"type": "array", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": named}});
    check(list, &[r#"[{"a":1}]"#], &[r#"[{"a":1,"b":2}]"#]);
    // Who says so has others.
    let mut open = named.clone();
    open["additionalProperties"] = json!(true);
    check(open, &[more], &[]);
    check(json!({"type": "object"}), &[more], &[]);
    check(
        json!({"type": "object", "properties": {"a": {}}, "required": ["b"]}),
        &[r#"{"a":1,"b":2}"#],
        &[],
    );
    // What is put together stays as it is.
    let b = json!({"type": "object", "properties": {"b": {"type": "integer"}}});
    check(json!({"allOf": [named.clone(), b.clone()]}), &[more], &[]);
    let mut either = named;
    either["anyOf"] = json!([b, {"type": "object", "properties": {"c": {"type": "null"}}}]);
    check(either, &[more], &[]);
}
