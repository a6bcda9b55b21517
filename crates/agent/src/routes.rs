//! The routes. [`ROUTES`] is the one list of them: the router is made from it, and a test compares
//! it with the document that is served.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, put},
};
use portolan_runtime::Metrics;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{Listen, Shared, events, listen::is_own_host, owners, problem::Problem, services};

/// The longest body: eight times what the record of an owner may take.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 10;

/// The API, in OpenAPI 3.1. Kept by hand: a generator would be one more dependency, and the
/// schemas here are few.
const OPENAPI: &str = include_str!("openapi.json");

type Route = (&'static str, &'static str, fn() -> MethodRouter<Arc<Shared>>);

/// Path, method and who answers.
const ROUTES: &[Route] = &[
    ("/agent/v1/instances/{owner}", "put", || put(owners::put)),
    ("/agent/v1/instances/{owner}", "delete", || delete(owners::delete)),
    ("/agent/v1/services", "get", || get(services::names)),
    ("/agent/v1/services/{name}", "get", || get(services::service)),
    ("/agent/v1/services/{name}/events", "get", || get(events::events)),
    ("/agent/v1/openapi.json", "get", || get(openapi)),
    ("/healthz", "get", || get(async || "ok\n")),
    ("/readyz", "get", || get(readyz)),
    ("/metrics", "get", || get(metrics)),
];

/// All routes.
pub(crate) fn router(shared: Arc<Shared>, listen: &Listen) -> Router {
    let mut router = Router::new();
    for (path, _, handler) in ROUTES {
        router = router.route(path, handler());
    }
    let router = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::map_response(explain))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::new())
        .with_state(shared);
    match listen {
        Listen::Loopback(_) => router.layer(middleware::from_fn(own_host)),
        Listen::Unix(_) => router,
    }
}

/// What the framework refuses by itself (a body that is too long, a path that is no UTF-8) has a
/// plain text; here it becomes a problem like all others.
async fn explain(answer: Response) -> Response {
    let status = answer.status();
    let is_plain = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let problem = Problem::new(status, format!("more than {BODY_BYTES_MAX} bytes"));
            let problem = Problem { field: Some("body".to_owned()), ..problem };
            problem.fix("register less, or as several owners").into_response()
        }
        StatusCode::BAD_REQUEST if is_plain => {
            let problem = Problem::field("path", "it cannot be read");
            problem.fix("write names percent-encoded, in UTF-8").into_response()
        }
        _ => answer,
    }
}

async fn own_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has it in the URI.
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    match host {
        Some(host) if !is_own_host(host) => {
            let problem = Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!("{host:?} is no name of this machine"),
            );
            let problem = Problem { field: Some("host".to_owned()), ..problem };
            problem.fix("call the agent by its loopback address, or localhost").into_response()
        }
        _ => next.run(request).await,
    }
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// Ready while nothing blocks. That the server cannot be reached does not: what is known is told
/// on, and a Pod without it would be no better.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let blockers = shared.readiness.blockers();
    if !blockers.is_empty() {
        let text = format!("not ready: {}\n", blockers.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    match shared.names.trouble() {
        None => "ok\n".into_response(),
        Some(trouble) => format!("ok\ndegraded: {trouble}\n").into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())).fix(
        "GET /agent/v1/openapi.json has all paths; the name of a service goes into a path \
         percent-encoded",
    )
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} takes no {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        .fix("GET /agent/v1/openapi.json has the methods of each path")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_has_each_route_and_no_other() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let told: BTreeSet<(&str, &str)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (path.as_str(), method.as_str()))
            })
            .collect();
        let routes: BTreeSet<_> = ROUTES.iter().map(|(path, method, _)| (*path, *method)).collect();
        assert_eq!(told, routes);
    }

    /// Every reference leads somewhere, and every parameter of a path is described.
    #[test]
    fn the_document_is_whole() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        for (at, _) in OPENAPI.match_indices("\"#/") {
            let rest = &OPENAPI[at + 2..];
            let pointer = &rest[..rest.find('"').unwrap()];
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let named: Vec<&str> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|parameter| match parameter["$ref"].as_str() {
                        Some(pointer) => document.pointer(&pointer[1..]).unwrap(),
                        None => parameter,
                    })
                    .filter_map(|parameter| parameter["name"].as_str())
                    .collect();
                for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                    let part = part.trim_end_matches('}');
                    assert!(named.contains(&part), "{method} {path}: {part}");
                }
                assert!(operation["responses"].is_object(), "{method} {path}");
            }
        }
    }
}
