//! Families whose calls are JSON objects.

use super::*;

const PARIS: &str = "{\"city\": \"Paris\"}";

#[test]
fn hermes() {
    let call = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
    check(
        HERMES,
        &[
            ("Hello!", "Hello!", "", &[]),
            (" \n", " \n", "", &[]),
            (call, "", "", &[("get_weather", PARIS)]),
            (&format!("I look.\n\n{call}"), "I look.", "", &[("get_weather", PARIS)]),
            (
                &format!("{call}\n{call}\n"),
                "",
                "",
                &[("get_weather", PARIS), ("get_weather", PARIS)],
            ),
            (&format!("{call}\nIt rains."), "It rains.", "", &[("get_weather", PARIS)]),
            (
                "<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>",
                "",
                "",
                &[("now", "{}")],
            ),
            ("<tool_call>{\"name\":\"now\"}</tool_call>", "", "", &[("now", "{}")]),
            (
                "<tool_call>{\"name\":\"now\",\"arguments\":null}</tool_call>",
                "",
                "",
                &[("now", "{}")],
            ),
            (
                "<tool_call>{\"arguments\": {\"a\": 1, \"b\": [2, {}]}, \"name\": \"add\"}</tool_call>",
                "",
                "",
                &[("add", "{\"a\": 1, \"b\": [2, {}]}")],
            ),
            (
                "<tool_call>{\"name\":\"add\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>",
                "",
                "",
                &[("add", "{\"a\":1}")],
            ),
            (
                "<tool_call>{\"name\":\"write\",\"arguments\":{\"text\":\"a } ] { [ \\\" </tool_call> <tool_call> \\\\\"}}</tool_call>!",
                "!",
                "",
                &[("write", "{\"text\":\"a } ] { [ \\\" </tool_call> <tool_call> \\\\\"}")],
            ),
            (
                "<tool_call>{\"name\":\"write\",\"arguments\":{\"text\":\"\\u00e9\\ud83e\\udd17é🤗\\n\"}}</tool_call>",
                "",
                "",
                &[("write", "{\"text\":\"\\u00e9\\ud83e\\udd17é🤗\\n\"}")],
            ),
            (
                "<tool_call>[{\"name\":\"now\"},{\"name\":\"add\",\"arguments\":{\"a\":1}}]</tool_call>",
                "",
                "",
                &[("now", "{}"), ("add", "{\"a\":1}")],
            ),
        ],
    );
}

#[test]
fn hermes_that_is_wrong() {
    let call = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
    check(
        HERMES,
        &[
            // No calls.
            (
                "<tool_call>{\"name\":\"nope\",\"arguments\":{}}</tool_call> x",
                "<tool_call>{\"name\":\"nope\",\"arguments\":{}}</tool_call> x",
                "",
                &[],
            ),
            (
                "A <tool_call> is a tag.\n<tool_call>",
                "A <tool_call> is a tag.\n<tool_call>",
                "",
                &[],
            ),
            (
                "<tool_call>{\"name\": 5}</tool_call>",
                "<tool_call>{\"name\": 5}</tool_call>",
                "",
                &[],
            ),
            ("<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", "", &[]),
            (
                "<tool_call>{\"name\":\"add\",\"arguments\":[1]}</tool_call>",
                "<tool_call>{\"name\":\"add\",\"arguments\":[1]}</tool_call>",
                "",
                &[],
            ),
            (
                "<tool_call>{\"function\":\"add\",\"arguments\":{}}</tool_call>",
                "<tool_call>{\"function\":\"add\",\"arguments\":{}}</tool_call>",
                "",
                &[],
            ),
            ("<tool_call></tool_call>", "<tool_call></tool_call>", "", &[]),
            ("Hm <tool_call>\n", "Hm <tool_call>\n", "", &[]),
            ("</tool_call> <think>", "</tool_call> <think>", "", &[]),
            // One that is none, and one that is.
            (
                &format!("<tool_call>{{\"name\":\"nope\"}}</tool_call>\n{call}"),
                "<tool_call>{\"name\":\"nope\"}</tool_call>",
                "",
                &[("get_weather", PARIS)],
            ),
            (&format!("<tool_call>\n{call}"), "<tool_call>", "", &[("get_weather", PARIS)]),
            // Wrong ends.
            (
                "<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":}</tool_call>",
                "",
                "",
                &[("add", "{\"a\":}")],
            ),
            (
                "<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":[1}</tool_call>x",
                "x",
                "",
                &[("add", "{\"a\":[1}")],
            ),
            (
                "<tool_call>{\"name\":\"now\",\"arguments\":{}} and</tool_call>",
                "and</tool_call>",
                "",
                &[("now", "{}")],
            ),
            ("<tool_call>{\"name\":\"now\",\"arguments\":{}}", "", "", &[("now", "{}")]),
        ],
    );
}

#[test]
fn llama() {
    check(
        LLAMA,
        &[
            ("Hello {you}!", "Hello {you}!", "", &[]),
            (
                "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}",
                "",
                "",
                &[("get_weather", PARIS)],
            ),
            (
                "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}",
                "",
                "",
                &[("get_weather", PARIS)],
            ),
            (
                "\n\n{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}",
                "",
                "",
                &[("now", "{}")],
            ),
            (
                "{\"name\":\"now\",\"parameters\":{}}; {\"name\":\"add\",\"parameters\":{\"a\":1}}",
                "",
                "",
                &[("now", "{}"), ("add", "{\"a\":1}")],
            ),
            (
                "{\"name\":\"now\",\"parameters\":{}}\n<|python_tag|>{\"name\":\"now\",\"parameters\":{}}",
                "",
                "",
                &[("now", "{}"), ("now", "{}")],
            ),
            ("{\"name\":\"now\",\"parameters\":{}} Done.", "Done.", "", &[("now", "{}")]),
            ("{\"name\": \"Ann\", \"age\": 7}", "{\"name\": \"Ann\", \"age\": 7}", "", &[]),
            ("{\"city\": \"Paris\"}", "{\"city\": \"Paris\"}", "", &[]),
            ("{}", "{}", "", &[]),
            (
                "Text {\"name\":\"now\",\"parameters\":{}}",
                "Text {\"name\":\"now\",\"parameters\":{}}",
                "",
                &[],
            ),
            ("<|python_tag|>print(1)", "<|python_tag|>print(1)", "", &[]),
            (
                "{\"name\":\"write\",\"parameters\":{\"text\":\"<|python_tag|>{\"}}",
                "",
                "",
                &[("write", "{\"text\":\"<|python_tag|>{\"}")],
            ),
        ],
    );
}

#[test]
fn granite() {
    let call = "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}";
    check(
        GRANITE,
        &[
            ("Hello!", "Hello!", "", &[]),
            (&format!("<|tool_call|>[{call}]"), "", "", &[("get_weather", PARIS)]),
            (
                &format!("<|tool_call|> [{call}, {{\"name\": \"now\"}}]"),
                "",
                "",
                &[("get_weather", PARIS), ("now", "{}")],
            ),
            (&format!("<|tool_call|>{call}"), "", "", &[("get_weather", PARIS)]),
            (
                &format!("Well.\n<|tool_call|>[{call}]\nSo."),
                "Well.So.",
                "",
                &[("get_weather", PARIS)],
            ),
            ("<think>Hm.</think><response>Yes.</response>", "Yes.", "Hm.", &[]),
            ("<think>\nHm\n</think>\n<response>\nYes.\n</response>\n", "Yes.", "Hm", &[]),
            ("<response>Yes.</response>", "<response>Yes.</response>", "", &[]),
            ("<|tool_call|>[{\"name\": \"nope\"}]", "<|tool_call|>[{\"name\": \"nope\"}]", "", &[]),
            (
                &format!("<|tool_call|>[{call}, {{\"name\": \"nope\"}}]"),
                ", {\"name\": \"nope\"}]",
                "",
                &[("get_weather", PARIS)],
            ),
            ("<|tool_call|>[]", "<|tool_call|>[]", "", &[]),
        ],
    );
}

#[test]
fn mistral() {
    let call = "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}";
    for source in [MISTRAL, MAGISTRAL] {
        check(
            source,
            &[
                ("Hello [you]!", "Hello [you]!", "", &[]),
                (&format!("[TOOL_CALLS][{call}]"), "", "", &[("get_weather", PARIS)]),
                (
                    &format!(
                        "[TOOL_CALLS] [{call},\n{{\"name\":\"now\",\"arguments\":{{}},\"id\":\"abc123def\"}}]"
                    ),
                    "",
                    "",
                    &[("get_weather", PARIS), ("now", "{}")],
                ),
                (
                    "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}",
                    "",
                    "",
                    &[("get_weather", PARIS)],
                ),
                (
                    "[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{\"city\": \"Paris\"}",
                    "",
                    "",
                    &[("get_weather", PARIS)],
                ),
                (
                    "[TOOL_CALLS]now{}[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}",
                    "",
                    "",
                    &[("now", "{}"), ("get_weather", PARIS)],
                ),
                ("[TOOL_CALLS]nope[ARGS]{}", "[TOOL_CALLS]nope[ARGS]{}", "", &[]),
                (
                    "[TOOL_CALLS][{\"name\": \"nope\"}]",
                    "[TOOL_CALLS][{\"name\": \"nope\"}]",
                    "",
                    &[],
                ),
                (
                    "[TOOL_CALLS]write[ARGS]{\"text\":\"[TOOL_CALLS]now[ARGS]{}\"} ok",
                    "ok",
                    "",
                    &[("write", "{\"text\":\"[TOOL_CALLS]now[ARGS]{}\"}")],
                ),
                ("[TOOL_CALLS] is a mark", "[TOOL_CALLS] is a mark", "", &[]),
            ],
        );
    }
    check(
        MAGISTRAL,
        &[
            ("[THINK]Hm.[/THINK]Yes.", "Yes.", "Hm.", &[]),
            ("[THINK]Hm.[/THINK]\n[TOOL_CALLS]now[ARGS]{}", "", "Hm.", &[("now", "{}")]),
        ],
    );
}
