//! What a model thinks before it answers, as clients ask for it and get it.

use super::support::*;
use crate::generation::FinishReason;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// A template that opens the thinking unless it is turned off, as Qwen 3.5's does.
const QWEN: &str = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}{% if add_generation_prompt %}A:\
                    {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n\
                    {% else %}<think>\n{% endif %}{% endif %}";
const ANSWER: &str = "Hm.\n</think>\n\nYes.";

#[tokio::test]
async fn thinking_stands_beside_the_text_and_is_counted() {
    let rig = Rig::templated(QWEN, ANSWER);
    let answer = rig.ok(CHAT, chat(json!({}))).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("Yes."), &json!("Hm."))
    );
    assert!(rig.prompt().ends_with("A:<think>\n"));
    let details = &answer["usage"]["completion_tokens_details"];
    // "Hm.\n" and the eight letters of the mark, which is no token here.
    assert_eq!(details["reasoning_tokens"], 12);
    assert_eq!(answer["usage"]["completion_tokens"], ANSWER.len() + 1);
}

#[tokio::test]
async fn thinking_is_streamed_before_the_text() {
    let rig = Rig::templated(QWEN, ANSWER);
    let text = read_text(rig.post(CHAT, chat(json!({"stream": true}))).await).await;
    let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: {"));
    let deltas: Vec<Value> = events
        .map(|event| serde_json::from_str::<Value>(&format!("{{{event}")).unwrap())
        .map(|chunk| chunk["choices"][0]["delta"].clone())
        .collect();
    let all = |name: &str| deltas.iter().filter_map(|d| d[name].as_str()).collect::<String>();
    assert_eq!((all("reasoning_content").as_str(), all("content").as_str()), ("Hm.", "Yes."));
    let last_thought = deltas.iter().rposition(|d| d.get("reasoning_content").is_some()).unwrap();
    let first_said =
        deltas.iter().position(|d| d["content"].as_str().is_some_and(|c| !c.is_empty()));
    assert!(last_thought < first_said.unwrap());
}

#[tokio::test]
async fn a_request_says_whether_and_where() {
    let rig = Rig::templated(QWEN, "Yes.");
    for off in [
        json!({"enable_thinking": false}),
        json!({"think": false}),
        json!({"reasoning_effort": "none"}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
    ] {
        let answer = rig.ok(CHAT, chat(off)).await;
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["content"], "Yes.");
        assert!(message.get("reasoning_content").is_none());
        assert!(rig.prompt().ends_with("</think>\n\n"), "{}", rig.prompt());
    }
    let rig = Rig::templated(QWEN, ANSWER);
    let content = async |more: Value| {
        let answer = rig.ok(CHAT, chat(more)).await;
        assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 12);
        let message = answer["choices"][0]["message"].clone();
        assert!(message.get("reasoning_content").is_none());
        message["content"].clone()
    };
    assert_eq!(content(json!({"reasoning_format": "none"})).await, ANSWER);
    assert_eq!(content(json!({"include_reasoning": false})).await, "Yes.");
    assert_eq!(content(json!({"reasoning": {"exclude": true}})).await, "Yes.");
    let (status, error) = rig.error(CHAT, chat(json!({"reasoning_format": "odd"}))).await;
    assert_eq!((status, &error["param"]), (400, &json!("reasoning_format")));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_while_it_thinks_has_no_text() {
    let mut events = tokens("Hm. So");
    events.push(finished(FinishReason::Length));
    let rig = Rig::templated_script(QWEN, move |_| Script::Play(events.clone()));
    let answer = rig.ok(CHAT, chat(json!({"max_tokens": 6}))).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    let message = &choice["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!(""), &json!("Hm. So"))
    );
}

#[tokio::test]
async fn an_answer_may_go_on_in_the_middle_of_its_thinking() {
    let rig = Rig::templated(QWEN, ANSWER);
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "<think>\nWell", "prefix": true},
    ]);
    let answer = rig.ok(CHAT, chat(json!({ "messages": messages }))).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("Yes."), &json!("Hm."))
    );
}
