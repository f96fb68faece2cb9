//! Another API than OpenAI's: a function for its fields and an encoder for its answers, and nothing else.

use super::support::*;
use crate::http::api::answer::{Caller, answer};
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::input::choices::ChoiceOptions;
use crate::http::input::fields::Fields;
use crate::http::input::job::{Job, Wanted, context};
use crate::http::input::prompts::Prompt;
use crate::http::input::{sampling, stopping, tokens};
use crate::http::output::delta::{Delta, End, WholeChoice};
use crate::http::output::encoder::Encoder;
use crate::http::output::sse::Events;
use crate::http::routes::guarded;
use crate::http::usage::Usage;
use axum::Router;
use axum::extract::{Request, State};
use axum::routing::post as on_post;
use serde_json::json;
use std::sync::Arc;
use tower::ServiceExt;

/// Says `{"say": …, "live": …}` and hears what is said, a token at a time.
#[derive(Debug)]
struct Parrot;

impl Encoder for Parrot {
    fn delta(&mut self, index: usize, delta: &Delta, usage: Usage, events: &mut Events) {
        match delta {
            Delta::Start => events.message(&json!({"type": "start", "of": index})),
            Delta::Text { text, .. } => {
                events.message(
                    &json!({"type": "text", "text": text, "used": usage.completion_tokens}),
                );
            }
            Delta::End { end } => {
                events.message(&json!({"type": "end", "whole": *end == End::Stop}));
            }
            Delta::Reasoning { .. } | Delta::ToolCall { .. } | Delta::Arguments { .. } => {}
        }
    }

    fn finish(&mut self, usage: Usage, events: &mut Events) {
        events.message(&json!({"type": "bye", "used": usage.completion_tokens}));
    }

    fn error(&mut self, error: &ApiError, events: &mut Events) {
        events.message(&json!({"type": "error", "code": error.code()}));
    }

    fn whole(&self, choices: &[WholeChoice], usage: Usage) -> String {
        json!({"said": choices[0].text, "used": usage.completion_tokens}).to_string()
    }
}

fn parse(gateway: &Gateway, mut fields: Fields, caller: Caller) -> Result<(Job, Parrot), ApiError> {
    let vocab = caller.model.tokenizer.vocab_size();
    let sampling = sampling::take(&mut fields, vocab, 5)?;
    let stopping = stopping::take(&mut fields, vocab)?;
    let stream = fields.bool("live")?.unwrap_or(false);
    let text = fields.string("say", 64)?.unwrap_or_default();
    fields.finish()?;
    let ctx = context(gateway, &caller.model)?;
    let prompt = tokens::of_prompt(&caller.model, Prompt::Text(text), false, ctx)?;
    let wanted = Wanted {
        sampling,
        stopping,
        choices: ChoiceOptions::default(),
        max_tokens_default: 9,
        top_logprobs: None,
        score_prompt: false,
        guided: None,
        key: caller.key,
        identity: caller.identity,
    };
    let choices = wanted.choices(gateway, &caller.model, 0, prompt, ctx)?;
    Ok((Job { model: caller.model, choices, stream, seed: 5 }, Parrot))
}

fn router(rig: &Rig) -> Router {
    let say = async |State(gateway): State<Arc<Gateway>>, request: Request| {
        answer(&gateway, request, None, parse).await
    };
    let routes = Router::new().route("/say", on_post(say));
    guarded(routes, rig.gateway.clone(), "127.0.0.1".parse().unwrap())
}

#[tokio::test]
async fn an_api_is_a_function_and_an_encoder() {
    let rig = Rig::saying("hi");
    let said = async |body: serde_json::Value| {
        let request = post("/say", body.to_string());
        read_text(router(&rig).oneshot(request).await.unwrap()).await
    };
    assert_eq!(said(json!({"say": "x"})).await, r#"{"said":"hi","used":3}"#);
    let events = [
        r#"{"type":"start","of":0}"#,
        r#"{"type":"text","text":"h","used":1}"#,
        r#"{"type":"text","text":"i","used":2}"#,
        r#"{"type":"end","whole":true}"#,
        r#"{"type":"bye","used":3}"#,
    ];
    let events: String = events.map(|event| format!("data: {event}\n\n")).concat();
    assert_eq!(said(json!({"say": "x", "live": true, "stop": "END"})).await, events);
    let refused = said(json!({"say": "x", "loud": true})).await;
    assert!(refused.contains("Unknown field 'loud'"), "{refused}");
    assert_eq!(rig.requests()[0].max_tokens, 9);
}
