//! Every error of the gateway: one table decides status, type and code. It is written as an OpenAI error
//! body; APIs with other words for errors write it again (`api/shape.rs`).
//!
//! The body is `{"error":{"message","type","param","code"}}`; a prompt that is too long adds
//! `n_prompt_tokens` and `n_ctx`. Errors that can pass by themselves carry `Retry-After`.

use crate::generation::{Failure, Refusal};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Characters of a client's own words that an error repeats.
const QUOTE_MAX: usize = 80;

/// What kind of error it is: a row of the table in `Problem::row`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A field or the body is not as it must be.
    Invalid,
    /// A known field asks for something that is not supported.
    Unsupported,
    /// A field that nobody knows.
    UnknownField,
    /// Prompt and completion do not fit the context.
    ContextLength,
    /// Another model than those that are loaded.
    ModelNotFound,
    /// No such path.
    NotFound,
    /// The path exists, the method does not.
    Method,
    /// The `Host` header names somebody else.
    Host,
    /// The admin API is not for whoever asks.
    AdminClosed,
    /// Something that is there stands in the way.
    Conflict,
    /// What was there is not any more.
    Gone,
    /// The body did not come in time.
    Timeout,
    /// The body is longer than the limit.
    TooLarge,
    /// The URI is longer than the limit.
    UriTooLong,
    /// The body is not JSON by its headers.
    MediaType,
    /// No API key, or an unknown one.
    Key,
    /// Too many requests wait.
    QueueFull,
    /// Too many requests of one API key wait and run.
    KeyBusy,
    /// Every connection is at work.
    Connections,
    /// A bug or a numeric fault.
    Internal,
    /// The pipeline broke while it worked on the request.
    PipelineLost,
    /// The request's time is up.
    Expired,
    /// The path is known, and what it is for is not done here.
    NotSupported,
    /// No complete pipeline.
    NotReady,
    /// No model is named, and none is loaded.
    NoModel,
    /// The server is going down.
    ShuttingDown,
}

/// One row of the error table.
struct Row {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    retry_after_s: Option<u32>,
}

impl Problem {
    fn row(self) -> Row {
        let (status, kind, code, retry_after_s) = match self {
            Problem::Invalid => (400, "invalid_request_error", None, None),
            Problem::Unsupported => (400, "invalid_request_error", Some("unsupported_value"), None),
            Problem::UnknownField => (400, "invalid_request_error", Some("unknown_field"), None),
            Problem::ContextLength => {
                (400, "invalid_request_error", Some("context_length_exceeded"), None)
            }
            Problem::ModelNotFound => (404, "invalid_request_error", Some("model_not_found"), None),
            Problem::Key => (401, "invalid_request_error", Some("invalid_api_key"), None),
            Problem::NotFound => (404, "not_found_error", Some("not_found"), None),
            Problem::Method => (405, "invalid_request_error", Some("method_not_allowed"), None),
            Problem::Host => (403, "permission_error", Some("host_not_allowed"), None),
            Problem::AdminClosed => (403, "permission_error", Some("admin_closed"), None),
            Problem::Conflict => (409, "invalid_request_error", Some("conflict"), None),
            Problem::Gone => (410, "invalid_request_error", Some("stream_gone"), None),
            Problem::Timeout => (408, "invalid_request_error", Some("request_timeout"), None),
            Problem::TooLarge => (413, "invalid_request_error", Some("request_too_large"), None),
            Problem::UriTooLong => (414, "invalid_request_error", Some("uri_too_long"), None),
            Problem::MediaType => {
                (415, "invalid_request_error", Some("unsupported_media_type"), None)
            }
            Problem::QueueFull => (429, "rate_limit_error", Some("queue_full"), Some(1)),
            Problem::KeyBusy => (429, "rate_limit_error", Some("key_concurrency"), Some(1)),
            Problem::Connections => {
                (503, "unavailable_error", Some("too_many_connections"), Some(1))
            }
            Problem::Internal => (500, "server_error", Some("internal"), None),
            Problem::PipelineLost => (503, "unavailable_error", Some("pipeline_lost"), Some(2)),
            Problem::Expired => (504, "timeout_error", Some("request_timeout"), None),
            Problem::NotSupported => (501, "not_supported_error", Some("not_supported"), None),
            Problem::NotReady => (503, "unavailable_error", Some("no_pipeline"), Some(2)),
            Problem::NoModel => (503, "unavailable_error", Some("no_model"), Some(5)),
            Problem::ShuttingDown => (503, "unavailable_error", Some("shutting_down"), Some(5)),
        };
        let status = StatusCode::from_u16(status).expect("the table holds valid statuses");
        Row { status, kind, code, retry_after_s }
    }
}

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    problem: Problem,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    context: Option<ContextCounts>,
    /// Instead of the table's.
    retry_after_s: Option<u32>,
}

/// The figures of a prompt that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContextCounts {
    prompt_tokens: usize,
    ctx: usize,
}

impl ApiError {
    /// An error of this kind with a text for people.
    pub fn new(problem: Problem, message: impl Into<String>) -> ApiError {
        let message = message.into();
        ApiError { problem, message, param: None, code: None, context: None, retry_after_s: None }
    }

    /// 400: `param` is not as it must be.
    pub fn invalid(param: &str, message: impl Into<String>) -> ApiError {
        ApiError::new(Problem::Invalid, message).at(param)
    }

    /// 400: `param` is known but asks for something that is not supported.
    pub fn unsupported(param: &str, message: impl Into<String>) -> ApiError {
        ApiError::new(Problem::Unsupported, message).at(param)
    }

    /// Names the field that the error is about.
    pub fn at(mut self, param: &str) -> ApiError {
        self.param = Some(quote(param));
        self
    }

    /// Another word for programs than the table's.
    pub fn coded(mut self, code: &'static str) -> ApiError {
        self.code = Some(code);
        self
    }

    /// Whether it may pass when a model is loaded.
    pub fn is_of_model(&self) -> bool {
        self.problem == Problem::ModelNotFound || self.is_not_ready()
    }

    /// Whether a model is there and not ready.
    pub fn is_not_ready(&self) -> bool {
        self.problem == Problem::NotReady
    }

    /// The error for a client to whom fields have other names: pairs of the name here and the client's.
    pub fn renamed(mut self, names: &[(&str, &str)]) -> ApiError {
        for (ours, theirs) in names {
            let rest = self.param.as_deref().and_then(|param| param.strip_prefix(ours));
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            {
                self.param = Some(format!("{theirs}{rest}"));
            }
            for end in ["'", ".", "["] {
                let (ours, theirs) = (format!("'{ours}{end}"), format!("'{theirs}{end}"));
                self.message = self.message.replace(&ours, &theirs);
            }
        }
        self
    }

    /// Says in how many seconds it is worth trying again.
    pub fn after(mut self, seconds: u32) -> ApiError {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 404: no model that is loaded is called `name`; `rest` says what is.
    pub fn model_not_found(name: &str, rest: &str) -> ApiError {
        let text = format!("The model '{}' does not exist here; {rest}.", quote(name));
        ApiError::new(Problem::ModelNotFound, text).at("model")
    }

    /// 400: the prompt does not fit the context. The text is the one that LiteLLM recognises.
    pub fn context_length(prompt_tokens: usize, completion_tokens: usize, ctx: usize) -> ApiError {
        let total = prompt_tokens.saturating_add(completion_tokens);
        let text = format!(
            "This model's maximum context length is {ctx} tokens. However, you requested {total} \
             tokens ({prompt_tokens} in the messages, {completion_tokens} in the completion). \
             Please reduce the length of the messages or completion."
        );
        let mut error = ApiError::new(Problem::ContextLength, text);
        error.context = Some(ContextCounts { prompt_tokens, ctx });
        error
    }

    /// A word for programs and logs.
    pub fn code(&self) -> &'static str {
        let row = self.problem.row();
        self.code.or(row.code).unwrap_or("invalid_request")
    }

    /// Whether the same request would meet the same fate, although its status says 5xx: its time
    /// would be up again, the same model computes the same values, and what is not done stays so.
    fn is_hopeless(&self) -> bool {
        matches!(self.problem, Problem::Expired | Problem::NotSupported)
            || self.code == Some("model_numerics")
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.problem.row().status
    }

    /// What kind of error it is.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error body in OpenAI's words.
    pub fn body(&self) -> Value {
        let row = self.problem.row();
        let mut error = json!({
            "message": self.message,
            "type": row.kind,
            "param": self.param,
            "code": self.code.or(row.code),
        });
        if let Some(counts) = self.context {
            error["n_prompt_tokens"] = counts.prompt_tokens.into();
            error["n_ctx"] = counts.ctx.into();
        }
        json!({ "error": error })
    }
}

/// Why a request was refused, for the log: an extension of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Reason(pub &'static str);

/// The error that an answer tells of, for APIs that tell errors in other words: an extension of the answer.
#[derive(Clone, Debug)]
pub struct Told(pub Arc<ApiError>);

/// What OpenAI's clients look at before they send a request again; without it they do after every
/// 5xx.
const SHOULD_RETRY: &str = "x-should-retry";

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let row = self.problem.row();
        let mut response = (row.status, Json(self.body())).into_response();
        response.extensions_mut().insert(Reason(self.code()));
        response.extensions_mut().insert(Told(Arc::new(self.clone())));
        if self.is_hopeless() {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(seconds) = self.retry_after_s.or(row.retry_after_s) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if row.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::QueueFull { waiting, retry_after } => {
                let seconds = whole_seconds(retry_after);
                let text = format!(
                    "{waiting} requests are waiting already; a place should be free in {seconds} s."
                );
                ApiError::new(Problem::QueueFull, text).after(seconds)
            }
            Refusal::KeyBusy { limit, retry_after } => {
                let text = format!(
                    "{limit} requests of this API key are waiting or running, as many as may be at \
                     a time (each prompt of a request counts); try again when one has ended."
                );
                ApiError::new(Problem::KeyBusy, text).after(whole_seconds(retry_after))
            }
            Refusal::TooLong { prompt_tokens, positions_max } => {
                ApiError::context_length(prompt_tokens, 1, positions_max)
            }
            Refusal::NoTokens => ApiError::new(
                Problem::Invalid,
                "The prompt has no tokens: there is nothing to continue.",
            ),
            Refusal::Unloaded => {
                ApiError::new(Problem::ModelNotFound, "The model was unloaded.").at("model")
            }
            Refusal::NotReady { detail } => {
                ApiError::new(Problem::NotReady, format!("The model is not ready: {detail}"))
            }
            Refusal::ShuttingDown => shutting_down(),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        let problem = match failure.code {
            "shutting_down" => Problem::ShuttingDown,
            "pipeline_lost" => Problem::PipelineLost,
            "model_unloaded" => Problem::NotReady,
            "request_timeout" => Problem::Expired,
            "grammar_limit" => Problem::Invalid,
            _ => Problem::Internal,
        };
        let mut error = ApiError::new(problem, failure.message);
        error.code = Some(failure.code);
        error
    }
}

/// Seconds as a header has them, rounded up.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// 503: the server is going down.
pub fn shutting_down() -> ApiError {
    ApiError::new(Problem::ShuttingDown, "The server is shutting down.")
}

/// 504: the time of a request was up before all of it had begun.
pub fn expired(passed: Duration) -> ApiError {
    let text = format!("the request's time is up after {} s", passed.as_secs());
    ApiError::new(Problem::Expired, text)
}

/// 500: the engine ended a generation without a word.
pub fn engine_gone() -> ApiError {
    ApiError::new(Problem::PipelineLost, "The engine stopped before the answer was complete.")
}

/// A client's own words, cut to a length that an error may repeat.
pub fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTE_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
