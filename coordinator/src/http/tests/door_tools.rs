//! Tools through the doors of other APIs than chat completions.

use super::support::*;
use serde_json::{Value, json};

const CALL: &str = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";

/// A model that calls a tool, with room for the tools in its prompt.
fn calling() -> Rig {
    let rig = Rig::saying(CALL);
    rig.status.send_modify(|status| status.ctx_size = 4096);
    rig
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "integer"}}})
}

#[tokio::test]
async fn a_call_is_a_block_of_anthropics() {
    let body = json!({
        "max_tokens": 200, "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": "f", "input_schema": schema()}], "tool_choice": {"type": "auto"},
    });
    let message = calling().ok("/v1/messages", body).await;
    assert_eq!(message["stop_reason"], "tool_use");
    let block = &message["content"][0];
    assert_eq!((&block["type"], &block["name"]), (&json!("tool_use"), &json!("f")));
    assert_eq!(block["input"], json!({"a": 1}));
}

#[tokio::test]
async fn a_call_is_an_item_of_a_response() {
    let tool = json!({"type": "function", "name": "f", "parameters": schema(), "strict": false});
    let body = json!({"input": "hi", "tools": [tool], "tool_choice": "auto"});
    let response = calling().ok("/v1/responses", body).await;
    let item = &response["output"][0];
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("f")));
    let arguments: Value = serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap();
    assert_eq!((arguments, &response["status"]), (json!({"a": 1}), &json!("completed")));
}

#[tokio::test]
async fn a_call_is_a_part_of_ollamas_message() {
    let function = json!({"name": "f", "parameters": schema()});
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "stream": false,
        "tools": [{"type": "function", "function": function}],
    });
    let answer = calling().ok("/api/chat", body).await;
    let call = &answer["message"]["tool_calls"][0]["function"];
    assert_eq!((&call["name"], &call["arguments"]), (&json!("f"), &json!({"a": 1})));
}
