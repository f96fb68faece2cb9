//! Families whose calls are not JSON objects.

use super::*;

const PARIS: &str = "{\"city\": \"Paris\"}";

#[test]
fn glm() {
    let call = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>";
    let long = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</arg_key><arg_value>2</arg_value></tool_call>";
    check(
        GLM,
        &[
            ("\nHello!", "\nHello!", "", &[]),
            (&format!("\n<think>Hm.</think>\n{call}"), "", "Hm.", &[("get_weather", PARIS)]),
            (
                &format!("\n<think></think>\nI look.\n{call}\n{call}"),
                "I look.",
                "",
                &[("get_weather", PARIS), ("get_weather", PARIS)],
            ),
            (long, "", "", &[("get_weather", "{\"city\": \"Paris\", \"days\": 2}")]),
            ("<tool_call>now\n</tool_call>", "", "", &[("now", "{}")]),
            (
                "<tool_call>write\n<arg_key>text</arg_key>\n<arg_value> {\"a\": \"b\"}\n</tool_call> é\\ </arg_value>\n</tool_call>",
                "",
                "",
                &[("write", "{\"text\": \" {\\\"a\\\": \\\"b\\\"}\\n</tool_call> é\\\\ \"}")],
            ),
            (
                "<tool_call>nope\n<arg_key>a</arg_key>",
                "<tool_call>nope\n<arg_key>a</arg_key>",
                "",
                &[],
            ),
            ("A <tool_call> tag.", "A <tool_call> tag.", "", &[]),
            (
                "<tool_call>add<arg_key>a</arg_key>5</tool_call>",
                "5</tool_call>",
                "",
                &[("add", "{}")],
            ),
        ],
    );
}

#[test]
fn coder() {
    let call = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>";
    check(
        CODER,
        &[
            ("Hello <function!", "Hello <function!", "", &[]),
            (call, "", "", &[("get_weather", PARIS)]),
            (
                &format!("I look.\n{call}\n{call}"),
                "I look.",
                "",
                &[("get_weather", PARIS), ("get_weather", PARIS)],
            ),
            ("<function=now>\n</function>", "", "", &[("now", "{}")]),
            ("<function=now>\n</function>\n</tool_call>\nDone.", "Done.", "", &[("now", "{}")]),
            (
                "<tool_call>\n<function=add>\n<parameter=a>\n1.5\n</parameter>\n<parameter=b>\n-2\n</parameter>\n</function>\n</tool_call>",
                "",
                "",
                &[("add", "{\"a\": 1.5, \"b\": -2}")],
            ),
            (
                "<function=write><parameter=path>\na.html\n</parameter><parameter=text>\n\n<p class=\"x\">1 > 0</p>\n</function>\n\n</parameter></function>",
                "",
                "",
                &[(
                    "write",
                    "{\"path\": \"a.html\", \"text\": \"\\n<p class=\\\"x\\\">1 > 0</p>\\n</function>\\n\"}",
                )],
            ),
            (
                "<tool_call>\n<function=nope>\n</function>",
                "<tool_call>\n<function=nope>\n</function>",
                "",
                &[],
            ),
            (
                "<tool_call>\n{\"name\": \"now\"}\n</tool_call>",
                "<tool_call>\n{\"name\": \"now\"}\n</tool_call>",
                "",
                &[],
            ),
            ("<function=now>oh</function>", "oh</function>", "", &[("now", "{}")]),
        ],
    );
}

#[test]
fn deepseek() {
    let call =
        "<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜>";
    let fenced = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜>";
    for source in [DEEPSEEK, R1] {
        check(
            source,
            &[
                ("Hello!", "Hello!", "", &[]),
                (
                    &format!("<｜tool▁calls▁begin｜>{call}<｜tool▁calls▁end｜>"),
                    "",
                    "",
                    &[("get_weather", PARIS)],
                ),
                (
                    &format!(
                        "<think>Hm.</think>So.<｜tool▁calls▁begin｜>{call}{call}<｜tool▁calls▁end｜>"
                    ),
                    "So.",
                    "Hm.",
                    &[("get_weather", PARIS), ("get_weather", PARIS)],
                ),
                (
                    &format!("<｜tool▁calls▁begin｜>{fenced}\n{fenced}<｜tool▁calls▁end｜>"),
                    "",
                    "",
                    &[("get_weather", PARIS), ("get_weather", PARIS)],
                ),
                (call, "", "", &[("get_weather", PARIS)]),
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>nope<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>nope<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
                    "",
                    &[],
                ),
                ("<｜tool▁calls▁begin｜>hm", "<｜tool▁calls▁begin｜>hm", "", &[]),
                (
                    "<｜tool▁call▁begin｜>write<｜tool▁sep｜>{\"text\":\"```\\n<｜tool▁call▁end｜>\"}<｜tool▁call▁end｜>",
                    "",
                    "",
                    &[("write", "{\"text\":\"```\\n<｜tool▁call▁end｜>\"}")],
                ),
                (
                    "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{<｜tool▁call▁end｜> so",
                    "so",
                    "",
                    &[("now", "{")],
                ),
            ],
        );
    }
}

#[test]
fn kimi() {
    let call = "<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|>";
    check(
        KIMI,
        &[
            ("Hello!", "Hello!", "", &[]),
            (
                &format!("I look.<|tool_calls_section_begin|>{call}<|tool_calls_section_end|>"),
                "I look.",
                "",
                &[("get_weather", PARIS)],
            ),
            (
                &format!("<|tool_calls_section_begin|>{call}{call}<|tool_calls_section_end|>"),
                "",
                "",
                &[("get_weather", PARIS), ("get_weather", PARIS)],
            ),
            (
                "<|tool_call_begin|>now:1<|tool_call_argument_begin|> {} <|tool_call_end|>",
                "",
                "",
                &[("now", "{}")],
            ),
            (
                "<|tool_calls_section_begin|><|tool_call_begin|>functions.nope:0<|tool_call_argument_begin|>{}",
                "<|tool_calls_section_begin|><|tool_call_begin|>functions.nope:0<|tool_call_argument_begin|>{}",
                "",
                &[],
            ),
            ("<|tool_calls_section_end|>", "<|tool_calls_section_end|>", "", &[]),
        ],
    );
}

#[test]
fn harmony() {
    let call = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Paris\"}";
    let thinks = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant";
    let last = "<|channel|>final<|message|>Yes.";
    check(
        HARMONY,
        &[
            (last, "Yes.", "", &[]),
            ("<|message|>At once.", "At once.", "", &[]),
            (&format!("{thinks}{last}<|return|>"), "Yes.", "Hm.", &[]),
            (&format!("{thinks}{call}<|call|>"), "", "Hm.", &[("get_weather", PARIS)]),
            (
                &format!(
                    "{thinks}<|channel|>commentary<|message|>I look.<|end|><|start|>assistant{call}"
                ),
                "I look.",
                "Hm.",
                &[("get_weather", PARIS)],
            ),
            (" to=functions.now<|channel|>commentary json<|message|>{}", "", "", &[("now", "{}")]),
            ("<|channel|>analysis to=functions.now<|message|>{}", "", "", &[("now", "{}")]),
            (
                "<|channel|>commentary to=functions.nope <|constrain|>json<|message|>{}<|call|>",
                "<|channel|>commentary to=functions.nope <|constrain|>json<|message|>{}<|call|>",
                "",
                &[],
            ),
            ("<|channel|>final <|constrain|>json<|message|>{}", "{}", "", &[]),
            ("<|channel|>finally<|message|>no", "", "", &[]),
            (&format!("{last}<|end|><|start|>assistant{last}"), "Yes.Yes.", "", &[]),
            (
                &format!("{call}<|end|><|start|>assistant{call}"),
                "",
                "",
                &[("get_weather", PARIS), ("get_weather", PARIS)],
            ),
        ],
    );
}
