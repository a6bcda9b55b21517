//! Bodies and queries, read strictly: what is not known is refused, with its place.

use axum::{
    extract::{Query, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A query that has been read, or not.
pub(crate) type Checked<T> = Result<Query<T>, QueryRejection>;

const SCHEMA: &str = "GET /agent/v1/openapi.json has what is expected";

/// Unpacks a query.
pub(crate) fn query<T>(checked: Checked<T>) -> Result<T, Problem> {
    checked.map(|Query(query)| query).map_err(|bad| {
        let text = bad.body_text();
        let text = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, rest)| rest);
        // serde_urlencoded names the parameter first.
        let (field, detail) = text.split_once(": ").unwrap_or(("query", text));
        Problem::field(field, detail).fix(SCHEMA)
    })
}

/// Reads a body that says it is JSON. Pages of a browser cannot send such a body to another
/// origin without asking first.
pub(crate) fn body<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let problem = Problem::field("content-type", format!("{kind:?} is not understood here"));
        return Err(Problem { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..problem }
            .fix("send JSON with the header content-type: application/json"));
    }
    json(bytes)
}

/// Reads JSON; what is wrong comes with its place.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let said = error.inner().to_string();
        match said.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
            Some((missing, _)) => Problem::field(missing, "it is missing").within_some(&path),
            None => Problem::field(path, said),
        }
        .fix(SCHEMA)
    })?;
    let whole = reader.end();
    whole.map_err(|error| Problem::field("", format!("after the JSON: {error}")).fix(SCHEMA))?;
    Ok(value)
}

impl Problem {
    fn within_some(self, path: &str) -> Self {
        if path.is_empty() { self } else { self.within(path) }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        all: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        port: u16,
        #[serde(default)]
        name: String,
    }

    #[test]
    fn the_field_is_named() {
        for (text, field, said) in [
            (r#"{"all":[{"port":1},{"port":70000}]}"#, "all[1].port", "70000"),
            (r#"{"all":[{"port":1,"prot":"x"}]}"#, "all[0].prot", "unknown field `prot`"),
            (r#"{"all":[{"name":"x"}]}"#, "all[0].port", "missing"),
            (r#"{"all":[{"port":1,"name":7}]}"#, "all[0].name", "expected a string"),
            ("{}", "all", "missing"),
            ("", "", "EOF"),
            ("[]x", "", ""),
            (r#"{"all":[]}{}"#, "", "trailing"),
        ] {
            let problem = json::<Outer>(text.as_bytes()).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field), "{text}: {problem:?}");
            assert!(problem.detail.contains(said) && !problem.fix.is_empty(), "{problem:?}");
        }
    }
}
