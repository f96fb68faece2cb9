//! Which format a model has.

use super::*;

#[test]
fn formats_are_found_by_templates_and_vocabularies() {
    let plain = vocabulary(&[]);
    for (source, name, writes) in [
        (HERMES, "hermes", true),
        (QWEN3, "hermes", true),
        (LLAMA, "llama", true),
        (GRANITE, "granite", true),
        (MISTRAL, "mistral", true),
        (MAGISTRAL, "mistral-named", true),
        (GLM, "glm", true),
        (CODER, "qwen-coder", true),
        (DEEPSEEK, "deepseek", true),
        (R1, "deepseek-fenced", true),
        (KIMI, "kimi", true),
        ("{{ messages }}", "hermes", false),
        ("{{ tools }} <|tool_code|>", "hermes", false),
    ] {
        let format = Format::of(Some(source), source.contains("tools"), &plain);
        assert_eq!(format.name(), name, "{source}");
        let native = format.prepare(&[], Some(&tools())).tools.is_some();
        assert_eq!(native, writes, "{source}");
    }
    assert_eq!(Format::of(Some(HERMES), true, &vocabulary(&HARMONY_MARKS)).name(), "harmony");
    assert_eq!(Format::of(None, false, &plain).name(), "hermes");
}

#[test]
fn a_prompt_says_whether_it_has_begun_the_thinking() {
    let plain = vocabulary(&[]);
    let format = Format::of(Some(QWEN3), true, &plain);
    assert!(format.can_think() && !Format::of(Some(HERMES), true, &plain).can_think());
    assert!(format.is_open_at("<|im_start|>assistant\n<think>\n"));
    assert!(!format.is_open_at("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
    assert!(format.is_open_in("<think>\nHm"));
    assert!(!format.is_open_in("<think>\nHm</think>Yes") && !format.is_open_in("Yes"));
    let tokenizer = vocabulary(&["<think>", "</think>"]);
    let end = Format::of(Some(QWEN3), true, &tokenizer).thinking_end(true).unwrap();
    assert_eq!(end.begin, (tokenizer.special_token("<think>"), "<think>".to_owned()));
    assert_eq!(end.end, (tokenizer.special_token("</think>"), "</think>".to_owned()));
    assert!(end.open_at_start);
    assert_eq!(Format::of(Some(HERMES), true, &plain).thinking_end(true), None);
}
