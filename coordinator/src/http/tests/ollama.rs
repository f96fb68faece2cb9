//! Ollama's API.

use super::support::*;
use crate::generation::{Failure, FinishReason, GenerationEvent};
use crate::http::api::ollama::encoder::{OllamaEncoder, Words};
use crate::http::output::delta::{Delta, End, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::sse::Events;
use crate::http::server::keys::ApiKeys;
use crate::http::usage::Usage;
use axum::body::Body;
use axum::http::{Request, header};
use axum::response::Response;
use serde_json::{Value, json};

fn with(mut body: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn chat(more: Value) -> Value {
    with(json!({"model": "tiny:latest", "messages": [{"role": "user", "content": "hi"}]}), &more)
}

fn generate(more: Value) -> Value {
    with(json!({"model": "tiny", "prompt": "hi"}), &more)
}

fn lines(text: &str) -> Vec<Value> {
    text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The status and the text of an error in Ollama's shape.
async fn refused(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = read_json(response).await;
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    (status, body["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_chat_is_streamed_in_lines_unless_it_is_not_wanted() {
    let rig = Rig::saying("ab");
    let response = rig.post("/api/chat", chat(json!({}))).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let lines = lines(&read_text(response).await);
    assert_eq!(lines.len(), 3);
    for (line, text) in lines.iter().zip(["a", "b", ""]) {
        assert_eq!(line["message"], json!({"role": "assistant", "content": text}));
        assert_eq!(line["model"], "tiny:latest");
    }
    assert_eq!((&lines[0]["done"], &lines[0]["done_reason"]), (&json!(false), &Value::Null));
    let whole = rig.ok("/api/chat", chat(json!({"stream": false}))).await;
    assert_eq!(whole["message"], json!({"role": "assistant", "content": "ab"}));
    for last in [&lines[2], &whole] {
        assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
        assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(10), &json!(3)));
        let times = ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"];
        let [total, load, prompt, eval] = times.map(|name| last[name].as_u64().unwrap());
        assert_eq!((load, prompt + eval), (0, total));
        assert!(prompt > 0, "the first token took its time");
    }
}

#[tokio::test]
async fn a_prompt_becomes_a_conversation_or_stays_a_text() {
    let rig =
        Rig::new(|_| Script::Play([tokens("ab"), vec![finished(FinishReason::Length)]].concat()));
    let whole = rig.ok("/api/generate", generate(json!({"stream": false, "system": "s"}))).await;
    assert_eq!((&whole["response"], &whole["done_reason"]), (&json!("ab"), &json!("length")));
    let raw = generate(json!({"stream": false, "raw": true}));
    assert_eq!(rig.ok("/api/generate", raw).await["response"], "ab");
    let shown: Vec<String> = rig.requests().iter().map(|request| shown(&request.prompt)).collect();
    assert_eq!(shown, ["|s:s||u:hi||a:", "hi"]);
    let text = read_text(rig.post("/api/generate", generate(json!({}))).await).await;
    let responses: Vec<Value> = lines(&text).iter().map(|line| line["response"].clone()).collect();
    assert_eq!(json!(responses), json!(["a", "b", ""]));
}

/// A prompt as text, without BOS and with bars for the marks of turns.
fn shown(prompt: &[u32]) -> String {
    let text: String = prompt.iter().map(|id| char::from_u32(*id).unwrap_or('?')).collect();
    text.replace('\u{100}', "").replace(['\u{102}', '\u{103}'], "|")
}

#[tokio::test]
async fn options_are_mapped() {
    let rig = Rig::saying("x");
    let options = json!({
        "num_ctx": CTX, "num_predict": 5, "seed": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.25,
        "min_p": 0.125, "repeat_penalty": 1.5, "repeat_last_n": -1, "presence_penalty": 0.5,
        "frequency_penalty": 0.75, "stop": ["Q"], "num_thread": 8, "num_gpu": 99, "use_mmap": true,
        "mirostat": 0, "tfs_z": 1.0, "penalize_newline": true, "num_keep": 4,
    });
    let body = chat(json!({
        "stream": false, "options": options, "keep_alive": "5m", "format": "", "think": false, "tools": [],
    }));
    rig.ok("/api/chat", body).await;
    let request = rig.requests()[0].clone();
    let sampling = &request.sampling;
    assert_eq!((request.max_tokens, sampling.seed), (5, 7));
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.5, 3, 0.25));
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.125, 1.5));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (0.5, 0.75));
    for unlimited in [-1, -2] {
        let body = chat(json!({"stream": false, "options": {"num_predict": unlimited}}));
        rig.ok("/api/chat", body).await;
        let request = rig.requests().pop().unwrap();
        assert_eq!(request.max_tokens as usize, CTX as usize - request.prompt.len());
    }
}

#[tokio::test]
async fn errors_are_strings_and_name_the_option() {
    let rig = Rig::saying("x");
    for (path, body, named) in [
        ("/api/chat", chat(json!({"options": {"num_ctx": 1 << 20}})), "--ctx-size"),
        ("/api/chat", chat(json!({"options": {"temperature": "hot"}})), "'options.temperature'"),
        ("/api/chat", chat(json!({"options": {"num_predict": 0}})), "'options.num_predict'"),
        ("/api/chat", chat(json!({"options": {"mirostat": 2}})), "'options.mirostat'"),
        ("/api/chat", chat(json!({"options": {"f16_kv": false}})), "'options.f16_kv'"),
        ("/api/chat", chat(json!({"options": {"colour": 1}})), "Unknown field 'options.colour'"),
        ("/api/chat", chat(json!({"format": "xml"})), "'format' must be"),
        ("/api/chat", chat(json!({"think": 7})), "'think' must be"),
        ("/api/chat", chat(json!({"keep_alive": []})), "'keep_alive' must be"),
        ("/api/chat", chat(json!({"n": 2})), "'n'"),
        ("/api/generate", generate(json!({"template": "{{ .Prompt }}"})), "'template'"),
        ("/api/generate", generate(json!({"context": [1, 2]})), "'context'"),
        ("/api/generate", generate(json!({"images": ["aGk="]})), "'images'"),
        ("/api/generate", generate(json!({"raw": true, "system": "s"})), "'system'"),
        ("/api/show", json!({"model": "tiny", "template": "x"}), "'template'"),
    ] {
        let (status, text) = refused(rig.post(path, body).await).await;
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(named), "{text}");
    }
    let (status, _) = refused(rig.post("/api/chat", chat(json!({"model": "llama3"}))).await).await;
    assert_eq!(status, 404);
    let (status, text) = refused(rig.post("/api/pull", json!({"model": "llama3"})).await).await;
    assert_eq!((status, text.contains("operator")), (501, true), "{text}");
    let request = Request::delete("/api/delete").body(Body::from("{\"model\":\"x\"}")).unwrap();
    assert_eq!(refused(rig.send(request).await).await.0, 501);
    assert_eq!(refused(rig.get("/api/nothing").await).await.0, 404);
    assert_eq!(refused(rig.get("/api/chat").await).await.0, 405);
    let locked =
        Rig::with(|config| config.keys = ApiKeys::new(["sk-1"]), |_| Script::Play(say("x")));
    assert_eq!(refused(locked.post("/api/chat", chat(json!({}))).await).await.0, 401);
}

#[tokio::test]
async fn an_error_ends_a_stream_as_a_line() {
    let rig = Rig::new(|_| {
        let failure = Failure { code: "pipeline_lost", message: "gone".into() };
        Script::Play([tokens("a"), vec![GenerationEvent::Failed(failure)]].concat())
    });
    let text = read_text(rig.post("/api/chat", chat(json!({}))).await).await;
    assert_eq!(lines(&text).pop().unwrap(), json!({"error": "gone"}));
}

#[tokio::test]
async fn without_a_message_the_model_is_loaded_already() {
    let rig = Rig::saying("x");
    for (path, body) in [
        ("/api/chat", json!({"model": "tiny", "messages": [], "stream": false})),
        ("/api/generate", json!({"model": "tiny", "keep_alive": 300, "stream": false})),
    ] {
        let answer = rig.ok(path, body).await;
        assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("load")));
    }
    let text = read_text(rig.post("/api/generate", json!({"model": "tiny"})).await).await;
    assert_eq!(lines(&text)[0]["done_reason"], "load");
    assert!(rig.requests().is_empty(), "nothing was generated");
}

#[tokio::test]
async fn models_are_what_ollamas_clients_look_for() {
    let rig = Rig::saying("x");
    let tags = read_json(rig.get("/api/tags").await).await;
    let model = &tags["models"][0];
    assert_eq!((&model["name"], &model["model"]), (&json!("tiny:latest"), &json!("tiny:latest")));
    assert_eq!(model["details"]["parameter_size"], "7");
    assert!(model["modified_at"].as_str().unwrap().ends_with('Z'));
    let ps = read_json(rig.get("/api/ps").await).await;
    assert_eq!(ps["models"][0]["context_length"], CTX);
    let shown = rig.ok("/api/show", json!({"name": "tiny"})).await;
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
    assert!(shown["template"].as_str().unwrap().contains("<|im_start|>"));
    assert_eq!(shown["model_info"]["general.parameter_count"], 7);
    let version = read_json(rig.get("/api/version").await).await;
    assert_eq!(version["woolly"], env!("CARGO_PKG_VERSION"));
    let request = Request::head("/").body(Body::empty()).unwrap();
    assert_eq!(rig.send(request).await.status(), 200);
    rig.status.send_modify(|status| status.ready = false);
    assert_eq!(read_json(rig.get("/api/ps").await).await["models"], json!([]));
}

#[test]
fn thoughts_and_calls_are_lines_of_their_own_and_the_same_whole() {
    let deltas = [
        Delta::Start,
        Delta::Reasoning { text: "hm".into() },
        Delta::Text { text: "so".into(), logprobs: Default::default() },
        Delta::ToolCall { call: 0, id: "c1".into(), name: "f".into() },
        Delta::Arguments { call: 0, text: "{\"a\"".into() },
        Delta::Arguments { call: 0, text: ":1}".into() },
        Delta::ToolCall { call: 1, id: "c2".into(), name: "g".into() },
        Delta::Arguments { call: 1, text: "{\"b\"".into() },
        Delta::End { end: End::Length },
    ];
    let mut encoder = OllamaEncoder::new("tiny".into(), Words::Chat, None);
    let (mut stream, mut whole) = (Events::default(), WholeChoice::default());
    for delta in &deltas {
        encoder.delta(0, delta, Usage::default(), &mut stream);
        whole.add(delta.clone());
    }
    encoder.finish(Usage::default(), &mut stream);
    let stream = lines(std::str::from_utf8(&stream.into_bytes()).unwrap());
    let calls: Vec<Value> = stream
        .iter()
        .flat_map(|line| line["message"]["tool_calls"].as_array().cloned().unwrap_or_default())
        .map(|call| call["function"]["arguments"].clone())
        .collect();
    assert_eq!(
        json!(calls),
        json!([{"a": 1}, {"incomplete": "{\"b\""}]),
        "a cut call is told as it is"
    );
    assert_eq!(stream[0]["message"]["thinking"], "hm");
    let whole: Value = serde_json::from_str(&encoder.whole(&[whole], Usage::default())).unwrap();
    let message = &whole["message"];
    assert_eq!((&message["content"], &message["thinking"]), (&json!("so"), &json!("hm")));
    let arguments =
        [0, 1].map(|index: usize| &message["tool_calls"][index]["function"]["arguments"]);
    assert_eq!(json!(arguments), json!(calls));
    assert_eq!(whole["done_reason"], "length");
}
