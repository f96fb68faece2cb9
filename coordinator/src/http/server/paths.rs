//! Paths as clients write them, brought to the form in which routes are named: single slashes, and
//! none at the end.
//!
//! It is done before anything looks at the path, so that what the key check sees is what is routed.
//! Nothing is decoded: `%2f` is no slash.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The URI with a clean path; the same one if it is clean or cannot be made so.
pub fn clean(uri: Uri) -> Uri {
    let path = uri.path();
    if path == "/" || !(path.contains("//") || path.ends_with('/')) {
        return uri;
    }
    let names = path.split('/').filter(|name| !name.is_empty());
    let mut text: String = names.flat_map(|name| ["/", name]).collect();
    if text.is_empty() {
        text.push('/');
    }
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    let Ok(path) = PathAndQuery::try_from(text) else { return uri };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_that_mean_nothing_are_left_out() {
        for (given, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/v1/models/", "/v1/models"),
            ("//v1///models//?a=/b/", "/v1/models?a=/b/"),
            ("/v1/models", "/v1/models"),
            ("/v1/./models", "/v1/./models"),
            ("/v1%2fmodels/", "/v1%2fmodels"),
            ("http://localhost:1//v1/", "http://localhost:1/v1"),
        ] {
            assert_eq!(clean(given.parse().unwrap()).to_string(), expected);
        }
    }
}
