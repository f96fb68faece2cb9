//! The web page at `/`: files of the folder `coordinator/page`, served as they are.
//!
//! The page is the same for everybody and holds nothing of this server: what it shows it asks for, with the keys that its reader
//! has. It asks no other host for anything, and its policy forbids it to: no code but these files, nothing inline.

use crate::http::error::{ApiError, Problem, quote};
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What a browser may do for this page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file by its name.
macro_rules! served {
    ($name:literal, $kind:expr) => {
        ($name, $kind, include_str!(concat!("../../../page/", $name)))
    };
}

/// Name, media type and content of each file.
const FILES: [(&str, &str, &str); 14] = [
    served!("index.html", HTML),
    served!("style.css", "text/css; charset=utf-8"),
    served!("icon.svg", "image/svg+xml"),
    served!("main.js", SCRIPT),
    served!("dom.js", SCRIPT),
    served!("units.js", SCRIPT),
    served!("server.js", SCRIPT),
    served!("markdown.js", SCRIPT),
    served!("conversations.js", SCRIPT),
    served!("answer.js", SCRIPT),
    served!("chat.js", SCRIPT),
    served!("plots.js", SCRIPT),
    served!("cluster.js", SCRIPT),
    served!("cluster_parts.js", SCRIPT),
];

/// The page itself.
pub async fn page(headers: HeaderMap) -> Response {
    answer("index.html", &headers)
}

/// A file that the page names.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&name, &headers)
}

/// A browser that asks without having read the page.
pub async fn favicon(headers: HeaderMap) -> Response {
    answer("icon.svg", &headers)
}

fn answer(name: &str, asked: &HeaderMap) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        let text = format!("The page has no file '{}'.", quote(name));
        return ApiError::new(Problem::NotFound, text).into_response();
    };
    let tag = format!("\"{}\"", &blake3::hash(text.as_bytes()).to_hex()[..16]);
    let known =
        asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response =
        if known { StatusCode::NOT_MODIFIED.into_response() } else { (*text).into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Asked for anew each time, as another version of the server may be behind the same address.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_a_file_names_is_served() {
        let names = |text: &str| -> Vec<String> {
            let quoted = text.split(['"', '\'']).skip(1).step_by(2);
            let path = |quoted: &str| {
                let name = quoted.strip_prefix("/page/").or(quoted.strip_prefix("./"))?;
                Some(name.to_owned())
            };
            quoted.filter_map(path).collect()
        };
        let mut named = vec!["index.html".to_owned()];
        for (_, _, text) in FILES {
            named.extend(names(text));
        }
        for (name, ..) in FILES {
            assert!(named.iter().any(|known| known == name), "nothing names {name}");
        }
        for name in named {
            assert!(FILES.iter().any(|(known, ..)| *known == name), "there is no {name}");
        }
    }

    #[test]
    fn the_page_asks_no_other_host_and_has_nothing_inline() {
        for (name, kind, text) in FILES {
            let allowed = ["http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"];
            let hosts = text
                .split("http")
                .skip(1)
                .filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
            for rest in hosts {
                let url = format!(
                    "http{}",
                    rest.split(['"', '\'', ')', '>', ' ']).next().unwrap_or_default()
                );
                assert!(allowed.contains(&url.as_str()), "{name}: {url}");
            }
            assert!(!text.contains("innerHTML") && !text.contains("insertAdjacentHTML"), "{name}");
            assert!(!text.contains("eval(") && !text.contains("new Function"), "{name}");
            if kind == HTML {
                assert!(
                    !text.contains("<script>") && !text.contains("<style") && !text.contains(" on"),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn the_page_is_small() {
        // As it is, without compression.
        let bytes: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes < 150_000, "{bytes}");
    }
}
