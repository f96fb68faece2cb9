//! Tools, as clients send them and as they are called.

use super::support::*;
use crate::generation::FinishReason;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// A template that writes tools as Qwen's do.
const QWEN: &str = "{% if tools %}T:{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}:{{ m.content }}\
                    {% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments.city }}{% endfor %}]\
                    {% endfor %}";
/// One that knows no tools.
const PLAIN: &str = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}";
const CALLS: &str = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n\
                     <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";

fn weather() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    json!({"type": "function", "function": {"name": "weather", "parameters": parameters}})
}

fn asked(more: Value) -> Value {
    let mut body = chat(json!({"tools": [weather()]}));
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The deltas of a stream, without the first, and why it finished.
async fn deltas(rig: &Rig, body: Value) -> (Vec<Value>, Value) {
    let text = read_text(rig.post(CHAT, body).await).await;
    let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: {"));
    let chunks: Vec<Value> =
        events.map(|event| serde_json::from_str(&format!("{{{event}")).unwrap()).collect();
    let choices: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]).collect();
    let finish = choices.last().unwrap()["finish_reason"].clone();
    let inner = &choices[1..choices.len() - 1];
    assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": ""}));
    (inner.iter().map(|choice| choice["delta"].clone()).collect(), finish)
}

#[tokio::test]
async fn calls_are_told_beside_the_text() {
    let rig = Rig::templated(QWEN, CALLS);
    let answer = rig.ok(CHAT, asked(json!({}))).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "I look.");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    for (call, city) in calls.iter().zip(["Paris", "Rome"]) {
        let id = call["id"].as_str().unwrap();
        assert!(id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        let function = json!({"name": "weather", "arguments": format!("{{\"city\": \"{city}\"}}")});
        assert_eq!(*call, json!({"id": id, "type": "function", "function": function}));
    }
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert!(rig.prompt().starts_with("T:[{"), "{}", rig.prompt());
}

#[tokio::test]
async fn a_silent_call_has_no_content() {
    let rig = Rig::templated(PLAIN, "<tool_call>{\"name\": \"weather\"}</tool_call>");
    let answer = rig.ok(CHAT, asked(json!({}))).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{}");
}

#[tokio::test]
async fn calls_are_streamed_in_the_order_that_clients_check() {
    let rig = Rig::templated(QWEN, CALLS);
    let (deltas, finish) = deltas(&rig, asked(json!({"stream": true}))).await;
    assert_eq!(finish, "tool_calls");
    let calls: Vec<&Value> = deltas.iter().filter_map(|d| d["tool_calls"].get(0)).collect();
    let texts = deltas.iter().filter_map(|delta| delta["content"].as_str());
    assert_eq!(texts.collect::<String>(), "I look.");
    for (index, city) in ["Paris", "Rome"].into_iter().enumerate() {
        let own: Vec<&&Value> = calls.iter().filter(|call| call["index"] == index).collect();
        let (first, rest) = own.split_first().unwrap();
        assert_eq!(first["type"], "function");
        assert_eq!(first["id"].as_str().unwrap().len(), 9);
        assert_eq!(first["function"], json!({"name": "weather", "arguments": ""}));
        assert!(rest.len() > 3, "arguments come in pieces");
        let pieces = rest.iter().map(|call| {
            assert_eq!(call.as_object().unwrap().len(), 2, "{call}");
            call["function"]["arguments"].as_str().unwrap()
        });
        assert_eq!(pieces.collect::<String>(), format!("{{\"city\": \"{city}\"}}"));
    }
    let second = calls.iter().position(|call| call["index"] == 1).unwrap();
    assert!(calls[second..].iter().all(|call| call["index"] == 1), "one after the other");
}

#[tokio::test]
async fn a_call_that_breaks_off_is_told_as_it_is() {
    let rig = Rig::new(|_| {
        let mut events =
            tokens("<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Pa");
        events.push(finished(FinishReason::Length));
        Script::Play(events)
    });
    rig.status.send_modify(|status| status.ctx_size = 8192);
    let answer = rig.ok(CHAT, asked(json!({}))).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Pa");
}

#[tokio::test]
async fn text_that_only_looks_like_a_call_stays_text() {
    for output in [
        "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>",
        "Write <tool_call>, then JSON.",
        "{\"name\": \"weather\", \"arguments\": {}}",
    ] {
        let rig = Rig::templated(QWEN, output);
        let answer = rig.ok(CHAT, asked(json!({}))).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        assert_eq!(choice["message"]["content"], output);
        assert!(choice["message"].get("tool_calls").is_none());
    }
}

#[tokio::test]
async fn no_tools_are_told_or_called_where_none_may_be() {
    let rig = Rig::templated(QWEN, CALLS);
    let answer = rig.ok(CHAT, asked(json!({"tool_choice": "none"}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], CALLS);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(!rig.prompt().contains("weather"), "{}", rig.prompt());
}

#[tokio::test]
async fn a_template_without_tools_gets_them_in_a_system_message() {
    let rig = Rig::templated(PLAIN, CALLS);
    let answer = rig.ok(CHAT, asked(json!({}))).await;
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 2);
    let prompt = rig.prompt();
    assert!(prompt.starts_with("[system:# Tools\n"), "{prompt}");
    assert!(prompt.contains("\"name\":\"weather\"") && prompt.ends_with("[user:hi]"), "{prompt}");
}

#[tokio::test]
async fn a_history_of_calls_reaches_the_template() {
    let call = json!({"id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}});
    let messages = json!([
        {"role": "user", "content": "Paris?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ]);
    let rig = Rig::templated(QWEN, "It rains.");
    let answer = rig.ok(CHAT, asked(json!({"messages": messages}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "It rains.");
    let prompt = rig.prompt();
    assert!(prompt.ends_with("[user:Paris?][assistant:<tool_call>Paris][tool:Rain.]"), "{prompt}");
    let rig = Rig::templated(PLAIN, "It rains.");
    rig.ok(CHAT, asked(json!({"messages": messages}))).await;
    let expected = "[user:Paris?][assistant:<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Paris\"}}\n\
                    </tool_call>][user:<tool_response>\nRain.\n</tool_response>]";
    assert!(rig.prompt().ends_with(expected), "{}", rig.prompt());
}

#[tokio::test]
async fn one_call_at_a_time_ends_the_answer_and_the_generation() {
    let rig = Rig::new(|_| Script::Hold(tokens(CALLS)));
    rig.status.send_modify(|status| status.ctx_size = 8192);
    let answer = rig.ok(CHAT, asked(json!({"parallel_tool_calls": false}))).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 1);
    rig.cancelled(&[0]).await;
}

#[tokio::test]
async fn only_tokens_of_text_have_log_probabilities() {
    let rig = Rig::templated(QWEN, CALLS);
    let answer = rig.ok(CHAT, asked(json!({"logprobs": true}))).await;
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let tokens: String = content.iter().filter_map(|entry| entry["token"].as_str()).collect();
    assert_eq!(tokens, "I look.</s>");
}

#[tokio::test]
async fn stop_strings_are_looked_for_in_text_only() {
    let rig = Rig::templated(QWEN, CALLS);
    let answer = rig.ok(CHAT, asked(json!({"stop": ["city", "\n"]}))).await;
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 2);
    let answer = rig.ok(CHAT, asked(json!({"stop": "look"}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "I ");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn calls_are_forced_by_a_grammar() {
    let rig = Rig::templated(PLAIN, "<tool_call>{\"name\": \"weather\"}</tool_call>");
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for choice in [json!("required"), named] {
        let answer = rig.ok(CHAT, asked(json!({"tool_choice": choice}))).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
        let guided = rig.requests().pop().unwrap().guided.expect("a grammar");
        // The beginning of a call follows in any case.
        let crate::guides::Next::Goes { forced, .. } = guided.first() else { panic!("it goes on") };
        let model = rig.gateway.models.first().unwrap();
        assert!(model.tokenizer.decode(forced).starts_with("<tool_call>\n{\"name\": \"weather\""));
    }
    rig.ok(CHAT, asked(json!({}))).await;
    assert!(rig.requests().pop().unwrap().guided.is_none(), "the model decides");
}

#[tokio::test]
async fn bad_tools_are_named() {
    let rig = Rig::templated(QWEN, "x");
    for (more, param) in [
        (
            json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
            "tools[0].function.name",
        ),
        (json!({"tools": "weather"}), "tools"),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "x"}}}),
            "tool_choice.function.name",
        ),
        (json!({"functions": [{"name": "f"}]}), "functions"),
    ] {
        let (status, error) = rig.error(CHAT, asked(more)).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
}

#[tokio::test]
async fn tools_count_among_the_tokens_of_a_conversation() {
    let rig = Rig::templated(QWEN, "x");
    let count = async |body: Value| rig.ok("/tokenize", body).await["count"].as_u64().unwrap();
    let messages = json!([{"role": "user", "content": "hi"}]);
    let without = count(json!({"messages": messages})).await;
    assert!(count(json!({"messages": messages, "tools": [weather()]})).await > without + 50);
}
