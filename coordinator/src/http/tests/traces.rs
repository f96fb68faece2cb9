//! `traceparent`: whose trace a request that generates belongs to.

use super::support::*;
use crate::trace::Trace;
use axum::http::HeaderValue;
use serde_json::json;
use woolly_protocol::trace::hex;

const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The traces of the choices of a request with these headers.
async fn traces(rig: &Rig, path: &str, given: &[&str], body: serde_json::Value) -> Vec<Trace> {
    let before = rig.seen.lock().unwrap().traces.len();
    let mut request = post(path, body.to_string());
    for value in given {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append("traceparent", value);
    }
    let response = rig.send(request).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("traceresponse").is_none(), "that is a draft");
    read_text(response).await;
    let traces = rig.seen.lock().unwrap().traces[before..].to_vec();
    traces.into_iter().map(|trace| trace.expect("every request belongs to a trace")).collect()
}

#[tokio::test]
async fn a_request_goes_on_with_the_callers_trace_in_a_span_of_its_own() {
    let rig = Rig::saying("abc");
    let conversation = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 4});
    for (path, body) in [
        ("/v1/completions", completion(json!({"n": 2}))),
        ("/v1/completions", completion(json!({"stream": true}))),
        ("/v1/chat/completions", conversation.clone()),
        ("/v1/messages", conversation),
    ] {
        let found = traces(&rig, path, &[GIVEN], body).await;
        let first = found[0];
        assert_eq!(hex(&first.trace), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(first.parent.map(|id| hex(&id)).as_deref(), Some("b7ad6b7169203331"));
        assert!(first.sampled);
        assert!(found.iter().all(|trace| *trace == first), "choices have the request's span");
    }
}

#[tokio::test]
async fn without_a_good_traceparent_a_request_begins_a_trace() {
    let rig = Rig::saying("abc");
    let mut seen = Vec::new();
    for given in [&[][..], &["00-nonsense"], &[GIVEN, GIVEN], &["ff-0af7"]] {
        let found = traces(&rig, "/v1/completions", given, completion(json!({}))).await;
        let [trace] = found[..] else { panic!("{found:?}") };
        assert_eq!((trace.parent, trace.sampled), (None, false), "{given:?}");
        assert!(!seen.contains(&trace.trace));
        seen.push(trace.trace);
    }
}
