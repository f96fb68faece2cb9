//! `GET /`: one plain page for a person with a browser, and what a browser asks for beside it.

use crate::http::gateway::Gateway;
use crate::http::server::guard::Authorised;
use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use std::sync::Arc;

/// Says what this is and how to use it. No script, no picture, nothing from elsewhere. The model's
/// name is shown to those who may use it.
pub async fn page(
    State(gateway): State<Arc<Gateway>>,
    Extension(Authorised(authorised)): Extension<Authorised>,
) -> Response {
    let names: Vec<String> = gateway.models.iter().map(|model| escape(&model.name)).collect();
    let serves = match (authorised, &names[..]) {
        (false, _) => {
            "<p>It asks for an API key: <code>Authorization: Bearer KEY</code>.</p>".to_owned()
        }
        (true, []) => {
            "<p>No model is loaded: <code>woolly-coordinator models load NAME</code> on this \
                       server's machine loads one.</p>"
                .to_owned()
        }
        (true, names) => format!("<p>It serves <b>{}</b>.</p>", names.join("</b>, <b>")),
    };
    let named = names.into_iter().next().filter(|_| authorised);
    let model = named.unwrap_or_else(|| "MODEL".to_owned());
    let key = if gateway.config.keys.is_empty() { "" } else { "-H 'authorization: Bearer KEY' " };
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Woolly</title>\n\
         <style>body{{font-family:sans-serif;max-width:44em;margin:3em auto;padding:0 1em}}\
         pre{{background:#eee;padding:1em;overflow:auto}}</style></head>\n<body>\n\
         <h1>Woolly is running</h1>\n\
         <p>This is Woolly {version}: a language model on the CPUs of one or more machines, behind an \
         OpenAI-compatible API.</p>\n{serves}\n\
         <p>Any OpenAI client works with this address and <code>/v1</code> behind it. To try it:</p>\n\
         <pre>curl ADDRESS-OF-THIS-PAGE/v1/chat/completions {key}\\\n  -H 'content-type: application/json' \
         \\\n  -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'</pre>\n\
         <p><a href=\"/v1/models\">/v1/models</a> lists the models, <a href=\"/health\">/health</a> says how \
         it is. README.md and docs/ of the source have the rest; <code>woolly-coordinator serve --help</code> \
         explains every flag.</p>\n</body>\n</html>\n"
    );
    let mut response = Html(text).into_response();
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let policy = axum::http::HeaderValue::from_static(policy);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// There is no picture: an answer without content keeps browsers from asking again and logs quiet.
pub async fn favicon() -> StatusCode {
    StatusCode::NO_CONTENT
}

fn escape(text: &str) -> String {
    let entity = |c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(entity).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(super::escape("<b>&'\""), "&lt;b&gt;&amp;&#39;&quot;");
    }
}
