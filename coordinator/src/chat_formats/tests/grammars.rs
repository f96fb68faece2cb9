//! The grammars that force calls.

use super::*;
use crate::guides::{Grammar, Guides, Next};
use woolly_protocol::sampling::TokenMask;

fn allows(mask: Option<&TokenMask>, token: u32) -> bool {
    match mask {
        None => true,
        Some(TokenMask::Only(ids)) => ids.contains(&token),
        Some(TokenMask::AllBut(ids)) => !ids.contains(&token),
        Some(TokenMask::Bits(words)) => (words[token as usize / 64] >> (token % 64)) & 1 == 1,
    }
}

/// Writes the tokens of a text as far as a grammar lets it; the text that was written, and whether it may end
/// there.
fn written(
    tokenizer: &Arc<Tokenizer>,
    format: &Format,
    grammar: &str,
    text: &str,
) -> (usize, bool) {
    let guides = Guides::new(Arc::clone(tokenizer), &format.mark_tokens()).unwrap();
    let guided = guides.guide(&Grammar::Lark(grammar.to_owned()), None);
    let guided = guided.unwrap_or_else(|error| panic!("{error}:\n{grammar}"));
    let mut next = guided.first().clone();
    let mut guide = guided.take().unwrap();
    let tokens = encode(tokenizer, text);
    let mut at = 0;
    loop {
        let (forced, mask) = match next {
            Next::Goes { forced, mask } => (forced, Some(mask)),
            Next::Ends { forced } => (forced, None),
            Next::Fails(why) => panic!("{why}:\n{grammar}"),
        };
        for token in forced {
            if tokenizer.is_end(token) {
                return (at, true);
            }
            if tokens.get(at) != Some(&token) {
                return (at, false);
            }
            at += 1;
        }
        let Some(mask) = mask else { return (at, true) };
        let Some(token) = tokens.get(at) else { return (at, allows(mask.as_deref(), EOS)) };
        if !allows(mask.as_deref(), *token) {
            return (at, false);
        }
        next = guide.next(*token);
        at += 1;
    }
}

const EOS: u32 = 257;

/// A family, a call of its own form, and something that its grammar does not let pass.
const FORCED: [(&str, &str, &str); 12] = [
    (
        HERMES,
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": 5",
    ),
    (
        QWEN3,
        "\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}\n</tool_call>",
        "Hm",
    ),
    (
        LLAMA,
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}",
        "{\"name\": \"nope\"",
    ),
    (
        GRANITE,
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]",
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {}",
    ),
    (
        MISTRAL,
        "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]",
        "[TOOL_CALLS]get",
    ),
    (
        MAGISTRAL,
        "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}",
        "[TOOL_CALLS]get_weather[ARGS]{\"city\": n",
    ),
    (
        GLM,
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        "<tool_call>get_weather\n</tool_call>",
    ),
    (
        CODER,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=get_weather>\n</function>",
    ),
    (
        DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "get_weather",
    ),
    (
        R1,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\":\"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "```",
    ),
    (
        KIMI,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>",
        "functions",
    ),
    (
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Paris\"}",
        "<|channel|>final",
    ),
];

/// A grammar lets a call of its own form pass, with right arguments and no others, and what it lets pass is read
/// as that call.
#[test]
fn what_a_grammar_forces_is_read_as_calls() {
    for (source, right, wrong) in FORCED {
        let vocabularies = match source {
            HARMONY => vec![vocabulary(&HARMONY_MARKS)],
            _ => vec![vocabulary(&MARKS), vocabulary(&[])],
        };
        for tokenizer in vocabularies {
            let tokenizer = Arc::new(tokenizer);
            let format = Format::of(Some(source), true, &tokenizer);
            let asked = Tools { choice: ToolChoice::Required, ..tools() };
            let grammar = format.call_grammar(&asked).unwrap();
            let all = encode(&tokenizer, right).len();
            let found = written(&tokenizer, &format, &grammar, right);
            assert_eq!(found, (all, true), "{source}: {right}\n{grammar}");
            let (at, ends) = written(&tokenizer, &format, &grammar, wrong);
            assert!(at < encode(&tokenizer, wrong).len() && !ends, "{source}: {wrong}\n{grammar}");
            let read = read(&tokenizer, source, &reading(), right);
            assert_eq!(read.calls[0].0, "get_weather", "{source}");
            let arguments: Value = serde_json::from_str(&read.calls[0].1).unwrap();
            assert_eq!(arguments["city"], "Paris", "{source}");
        }
    }
}

/// Where the model decides, a strict tool's call is what its schema says, and text is free or what was asked for.
#[test]
fn a_model_that_decides_is_held_to_what_was_asked_for() {
    let mut asked = tools();
    let strict = Tool { strict: true, ..asked.list[0].clone() };
    asked.list = [strict].into();
    let call = "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
    let harmony = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>";
    let object = Grammar::JsonObject;
    for (source, text, right, wrong) in [
        (
            HERMES,
            None,
            format!("Well.\n<tool_call>\n{call}"),
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}".to_owned(),
        ),
        (HERMES, None, "Well. {}".to_owned(), "<tool_call>x".to_owned()),
        (HERMES, Some(&object), "{\"a\":1}".to_owned(), "Well".to_owned()),
        (HERMES, Some(&object), format!("<tool_call>\n{call}"), "<tool_call>x".to_owned()),
        (
            HARMONY,
            None,
            format!(
                "<|channel|>commentary<|message|>Hm.<|end|><|start|>assistant{harmony}{{\"city\": \"Paris\"}}"
            ),
            format!("{harmony}{{}}"),
        ),
        (
            HARMONY,
            Some(&object),
            "<|channel|>final<|message|>{}".to_owned(),
            "<|channel|>final<|message|>x".to_owned(),
        ),
    ] {
        let marks: &[&str] = if source == HARMONY { &HARMONY_MARKS } else { &MARKS };
        let tokenizer = Arc::new(vocabulary(marks));
        let format = Format::of(Some(source), true, &tokenizer);
        let Some(Grammar::Lark(grammar)) = format.free_grammar(&asked, text).unwrap() else {
            panic!("it is Lark");
        };
        let all = encode(&tokenizer, &right).len();
        assert_eq!(
            written(&tokenizer, &format, &grammar, &right),
            (all, true),
            "{right}\n{grammar}"
        );
        let (at, _) = written(&tokenizer, &format, &grammar, &wrong);
        assert!(at < encode(&tokenizer, &wrong).len(), "{wrong}\n{grammar}");
    }
    let tokenizer = vocabulary(&MARKS);
    let format = Format::of(Some(HERMES), true, &tokenizer);
    assert_eq!(format.free_grammar(&tools(), None), Ok(None), "nothing is strict");
    let text_marks = Format::of(Some(HERMES), true, &vocabulary(&[]));
    assert_eq!(text_marks.free_grammar(&asked, None), Ok(None), "a mark could be text");
}

/// What an answer has to be stands in the last message of harmony's.
#[test]
fn an_answer_of_messages_has_its_grammar_in_the_last() {
    let tokenizer = Arc::new(vocabulary(&HARMONY_MARKS));
    let format = Format::of(Some(HARMONY), true, &tokenizer);
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let Grammar::Lark(grammar) = format.answer_grammar(&Grammar::JsonSchema(schema)).unwrap()
    else {
        panic!("it is Lark");
    };
    let right = "<|channel|>analysis<|message|>{<|end|><|start|>assistant<|channel|>final<|message|>{\"a\":1}";
    let found = written(&tokenizer, &format, &grammar, right);
    assert_eq!(found, (encode(&tokenizer, right).len(), true), "{grammar}");
    assert!(!written(&tokenizer, &format, &grammar, "{\"a\":1}").1);
    for (regex, text) in [("a/b+", "a/bb"), ("a\\/b+", "a/bb"), ("a\\\\/b", "a\\/b")] {
        let regex = format.answer_grammar(&Grammar::Regex(regex.into())).unwrap();
        let Grammar::Lark(grammar) = regex else { panic!("it is Lark") };
        let right = format!("<|channel|>final<|message|>{text}");
        let found = written(&tokenizer, &format, &grammar, &right);
        assert_eq!(found, (encode(&tokenizer, &right).len(), true), "{grammar}");
    }
    assert!(format.answer_grammar(&Grammar::Gbnf("root ::= \"a\"".into())).is_err());
}

fn grammar(source: &str, marks: &[&str], choice: ToolChoice, parallel: bool) -> String {
    let tokenizer = vocabulary(marks);
    let format = Format::of(Some(source), true, &tokenizer);
    format.call_grammar(&Tools { choice, parallel, ..tools() }).unwrap()
}

#[test]
fn a_grammar_names_the_tools_that_the_choice_leaves() {
    let named = ToolChoice::Named("now".into());
    let one = grammar(HERMES, &[], named, true);
    assert!(one.contains("\\\"name\\\": \\\"now\\\"") && !one.contains("get_weather"), "{one}");
    assert!(one.contains("start: calls"), "{one}");
    let all = grammar(HERMES, &[], ToolChoice::Required, true);
    assert!(all.contains("call: call_0 | call_1 | call_2 | call_3"), "{all}");
    assert!(all.contains("items: call (\"\\n\" call){0,15}"), "{all}");
    let single = grammar(HERMES, &[], ToolChoice::Required, false);
    assert!(single.contains("items: call\n"), "{single}");
}

#[test]
fn marks_are_tokens_where_they_are() {
    let tokenizer = vocabulary(&["<tool_call>"]);
    let token = tokenizer.special_token("<tool_call>").unwrap();
    let found = grammar(HERMES, &["<tool_call>"], ToolChoice::Required, true);
    assert!(found.contains(&format!("call_0: <[{token}]> \"\\n{{")), "{found}");
    assert!(found.contains("\"</tool_call>\""), "{found}");
}

#[test]
fn a_strict_tool_is_enforced_or_refused() {
    let tokenizer = vocabulary(&[]);
    let parameters =
        json!({"type": "object", "properties": {"id": {"type": "string", "pattern": "a+"}}});
    let strict = Tool { strict: true, ..tool("f", parameters) };
    let tools = |tool: &Tool| Tools {
        list: [tool.clone()].into(),
        choice: ToolChoice::Required,
        parallel: true,
    };
    let hermes = Format::of(Some(HERMES), true, &tokenizer);
    assert!(hermes.call_grammar(&tools(&strict)).unwrap().contains("\"lenient\":false"));
    let glm = Format::of(Some(GLM), true, &tokenizer);
    let error = glm.call_grammar(&tools(&strict)).unwrap_err();
    assert!(error.contains("'pattern' of 'id'"), "{error}");
    let lenient = Tool { strict: false, ..strict };
    assert!(glm.call_grammar(&tools(&lenient)).is_ok());
}
