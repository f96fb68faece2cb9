//! Tools in the messages of a model whose template writes none: the same words that Hermes and Qwen 2.5 are
//! told, as a system message.
//!
//! The tools stand in the first system message, after its text, or in one of their own. A call in the history
//! becomes the text that calls it; what a tool gave is the user's, between `<tool_response>` tags, results
//! that follow each other in one message.

use super::tools::{ToolChoice, Tools};
use serde_json::{Value, json};
use std::fmt::Write;

const BEFORE: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
                      You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
const AFTER: &str = "</tools>\n\nFor each function call, return a json object with function name and \
                     arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": \
                     <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

/// Puts tools into messages: the list that a template is given.
pub fn tools_into(messages: &mut Vec<Value>, tools: &Tools) {
    if tools.choice == ToolChoice::None {
        return;
    }
    let mut text = BEFORE.to_owned();
    for tool in tools.list.iter() {
        writeln!(text, "{}", tool.template).expect("a String takes everything");
    }
    text.push_str(AFTER);
    match messages.first_mut().filter(|first| first["role"] == "system") {
        Some(system) => {
            let said = system["content"].as_str().unwrap_or_default();
            system["content"] =
                if said.is_empty() { text } else { format!("{said}\n\n{text}") }.into();
        }
        None => messages.insert(0, json!({"role": "system", "content": text})),
    }
}

/// Turns the calls in messages, and what tools gave, into text.
pub fn history_into_text(messages: &mut Vec<Value>) {
    let mut written: Vec<Value> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for mut message in messages.drain(..) {
        let is_result = message["role"] == "tool";
        if is_result {
            let text = message["content"].as_str().unwrap_or_default();
            let text = format!("<tool_response>\n{text}\n</tool_response>");
            match written.last_mut().filter(|_| after_result) {
                Some(last) => {
                    let said = last["content"].as_str().unwrap_or_default();
                    last["content"] = format!("{said}\n{text}").into();
                }
                None => written.push(json!({"role": "user", "content": text})),
            }
        } else {
            calls_into_text(&mut message);
            written.push(message);
        }
        after_result = is_result;
    }
    *messages = written;
}

fn calls_into_text(message: &mut Value) {
    let Some(calls) = message.as_object_mut().and_then(|m| m.shift_remove("tool_calls")) else {
        return;
    };
    let mut text = message["content"].as_str().unwrap_or_default().to_owned();
    for call in calls.as_array().into_iter().flatten() {
        let function = &call["function"];
        let written = function["arguments"].as_str().unwrap_or("{}");
        // What an earlier answer broke off stays the text that it is.
        let arguments = serde_json::from_str(written).unwrap_or_else(|_| Value::from(written));
        let call = json!({"name": function["name"], "arguments": arguments});
        let line = if text.is_empty() { "" } else { "\n" };
        write!(text, "{line}<tool_call>\n{call}\n</tool_call>").expect("a String takes everything");
    }
    message["content"] = text.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_stand_in_the_first_system_message() {
        let template = json!({"type": "function", "function": {"name": "f"}});
        let tool = super::super::Tool {
            name: "f".into(),
            parameters: json!({"type": "object"}),
            strict: false,
            template,
        };
        let mut tools = Tools { list: [tool].into(), choice: ToolChoice::Auto, parallel: true };
        let user = json!({"role": "user", "content": "Hi"});
        let mut messages = vec![json!({"role": "system", "content": "Be brief."}), user.clone()];
        tools_into(&mut messages, &tools);
        let text = messages[0]["content"].as_str().unwrap();
        assert!(text.starts_with("Be brief.\n\n# Tools\n"), "{text}");
        assert!(
            text.contains(
                "<tools>\n{\"type\":\"function\",\"function\":{\"name\":\"f\"}}\n</tools>"
            )
        );
        let mut messages = vec![user.clone()];
        tools_into(&mut messages, &tools);
        assert_eq!((messages.len(), &messages[1]), (2, &user));
        tools.choice = ToolChoice::None;
        let mut messages = vec![user.clone()];
        tools_into(&mut messages, &tools);
        assert_eq!(messages, [user]);
    }

    #[test]
    fn calls_and_results_become_text() {
        let call = |name: &str, arguments: &str| json!({"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}});
        let mut messages = vec![
            json!({"role": "assistant", "content": "", "tool_calls": [call("f", "{\"a\":1}"), call("g", "{\"b\":")]}),
            json!({"role": "tool", "content": "x", "tool_call_id": "1"}),
            json!({"role": "tool", "content": "y", "tool_call_id": "2"}),
            json!({"role": "user", "content": "Hi"}),
        ];
        history_into_text(&mut messages);
        let calls = "<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>\n<tool_call>\n\
                     {\"name\":\"g\",\"arguments\":\"{\\\"b\\\":\"}\n</tool_call>";
        let results = "<tool_response>\nx\n</tool_response>\n<tool_response>\ny\n</tool_response>";
        let expected = json!([
            {"role": "assistant", "content": calls},
            {"role": "user", "content": results},
            {"role": "user", "content": "Hi"},
        ]);
        assert_eq!(Value::Array(messages), expected);
    }
}
