//! Thinking, and requests that say how answers are read.

use super::*;

fn whole(source: &str, reading: &Reading, output: &str) -> Whole {
    if source == HARMONY {
        return read(&vocabulary(&HARMONY_MARKS), source, reading, output);
    }
    let found = read(&vocabulary(&MARKS), source, reading, output);
    let as_text = read(&vocabulary(&[]), source, reading, output);
    assert_eq!(Whole { thinking: 0, ..as_text }, Whole { thinking: 0, ..found.clone() });
    found
}

fn texts(source: &str, reading: &Reading, output: &str) -> (String, String) {
    let Whole { text, reasoning, calls, .. } = whole(source, reading, output);
    assert_eq!(calls, []);
    (text, reasoning)
}

fn pair(text: &str, reasoning: &str) -> (String, String) {
    (text.to_owned(), reasoning.to_owned())
}

#[test]
fn thinking_before_calls_and_text() {
    check(
        QWEN3,
        &[
            ("<think>\nHm.\n\nWell.\n</think>\n\nYes.", "Yes.", "Hm.\n\nWell.", &[]),
            ("<think>\n\n</think>\n\nYes.\n", "Yes.\n", "", &[]),
            ("\n<think>Hm.</think>", "", "Hm.", &[]),
            (
                "<think>a<tool_call>{\"name\":\"now\"}</tool_call>",
                "",
                "a<tool_call>{\"name\":\"now\"}</tool_call>",
                &[],
            ),
            ("Yes. <think>no</think>", "Yes. <think>no</think>", "", &[]),
            ("no</think>Yes.", "no</think>Yes.", "", &[]),
            (
                "<think>a</think>\n<tool_call>{\"name\":\"now\"}</tool_call>\n<think>b</think>\n<tool_call>{\"name\":\"now\"}</tool_call>",
                "",
                "ab",
                &[("now", "{}"), ("now", "{}")],
            ),
        ],
    );
}

#[test]
fn a_prompt_may_have_begun_the_thinking() {
    let open = Reading { thinks_at_start: true, ..reading() };
    assert_eq!(texts(QWEN3, &open, "Hm.\n</think>\n\nYes."), pair("Yes.", "Hm."));
    assert_eq!(texts(QWEN3, &open, "Hm."), pair("", "Hm."));
    assert_eq!(texts(HERMES, &open, "Hm.</think>"), pair("Hm.</think>", ""), "none that thinks");
}

#[test]
fn thinking_is_counted_and_goes_where_the_request_wants_it() {
    let output = "<think>\nHm.\n</think>\n\nYes.";
    // The marks, two line ends and three letters.
    let counted = whole(QWEN3, &reading(), output).thinking;
    assert_eq!(counted, 7);
    let hidden = Reading { reasoning: Reasoning::Hidden, ..reading() };
    let found = whole(QWEN3, &hidden, output);
    assert_eq!((found.text.as_str(), found.reasoning.as_str(), found.thinking), ("Yes.", "", 7));
    let in_text = Reading { reasoning: Reasoning::InText, ..reading() };
    let found = whole(QWEN3, &in_text, output);
    assert_eq!((found.text.as_str(), found.reasoning.as_str(), found.thinking), (output, "", 7));
    let harmony =
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.";
    assert_eq!(texts(HARMONY, &hidden, harmony), pair("Yes.", ""));
    let all = "<|channel|>analysis<|message|>Hm.<|end|>Yes.";
    assert_eq!(texts(HARMONY, &in_text, harmony), pair(all, ""));
    // The text, and the marks at both of its ends.
    assert_eq!(whole(HARMONY, &reading(), harmony).thinking, 5);
}

#[test]
fn without_tools_all_but_thinking_is_text() {
    let call = "<tool_call>{\"name\":\"now\"}</tool_call>";
    let none = Reading::default();
    assert_eq!(texts(HERMES, &none, call), pair(call, ""));
    assert_eq!(
        texts(QWEN3, &none, &format!("<think>a</think>{call} ")),
        pair(&format!("{call} "), "a")
    );
    let never = Tools { choice: ToolChoice::None, ..tools() };
    let never = Reading { tools: Some(Arc::new(never)), ..none.clone() };
    assert_eq!(texts(HERMES, &never, call), pair(call, ""));
    let harmony = "<|channel|>commentary to=functions.now<|message|>{}";
    assert_eq!(texts(HARMONY, &none, harmony), pair("", ""), "nobody hears it");
    assert_eq!(texts(HARMONY, &none, "<|channel|>commentary<|message|>Hm."), pair("", ""));
}

#[test]
fn an_answer_of_one_call_ends_with_it() {
    let tokenizer = vocabulary(&MARKS);
    let one = Tools { parallel: false, ..tools() };
    let reading = Reading { tools: Some(Arc::new(one)), ..Reading::default() };
    let call = "{\"name\":\"now\",\"arguments\":{}}";
    for (source, output) in [
        (HERMES, format!("<tool_call>{call}</tool_call><tool_call>{call}</tool_call>")),
        (GRANITE, format!("<|tool_call|>[{call},{call}]")),
        (LLAMA, format!("{call};{call}")),
        (CODER, "<function=now></function><function=now></function>".to_owned()),
    ] {
        let format = Format::of(Some(source), true, &tokenizer);
        let mut parser = format.parser(&reading).unwrap();
        let mut detokenizer = Detokenizer::new(&tokenizer);
        let (mut whole, mut ended) = (Whole::default(), false);
        for token in encode(&tokenizer, &output) {
            let read = parser.push(&mut detokenizer, &tokenizer, token);
            ended |= read.ends;
            whole.add(read);
        }
        assert!(ended, "{source}");
        assert_eq!(whole.calls, [("now".to_owned(), "{}".to_owned())], "{source}");
        assert_eq!(whole.text, "", "{source}");
    }
}

#[test]
fn what_may_be_a_call_is_not_held_back_for_ever() {
    let long = format!("{{\"id\": \"{}", "x".repeat(70 << 10));
    let found = whole(LLAMA, &reading(), &long);
    assert_eq!((found.text.len(), found.calls.len()), (long.len(), 0));
    let tokenizer = vocabulary(&MARKS);
    let format = Format::of(Some(HERMES), true, &tokenizer);
    let mut parser = format.parser(&reading()).unwrap();
    let told: usize = parser
        .push_piece(&"\n".repeat(1000))
        .parts
        .iter()
        .map(|part| if let Part::Text(text) = part { text.len() } else { 0 })
        .sum();
    assert!(told > 0 || parser.push_piece("x").parts == [Part::Text("\n".repeat(1000) + "x")]);
}

#[test]
fn letters_of_a_mark_are_text_where_it_is_a_token() {
    let tokenizer = vocabulary(&MARKS);
    let format = Format::of(Some(HERMES), true, &tokenizer);
    let mut parser = format.parser(&reading()).unwrap();
    let mut detokenizer = Detokenizer::new(&tokenizer);
    let mut whole = Whole::default();
    let call = "<tool_call>{\"name\":\"now\"}</tool_call>";
    for byte in call.bytes() {
        whole.add(parser.push(&mut detokenizer, &tokenizer, byte.into()));
    }
    whole.add(parser.finish(&mut detokenizer));
    assert_eq!((whole.text.as_str(), whole.calls.len()), (call, 0));
}
