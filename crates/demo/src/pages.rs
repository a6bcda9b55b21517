//! What each service answers.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};

use crate::{PORT, Service, call};

/// The demo as YAML, as it also stands in `examples/`.
pub const MANIFESTS: &str = include_str!("../../../examples/demo.yaml");

pub(crate) fn details(service: Arc<Service>) -> Router {
    let answer = async |State(service): State<Arc<Service>>| {
        Json(json!({
            "service": service.name,
            "version": service.version,
            "pod": service.pod,
            "title": "The Comedy of Errors",
            "pages": 200,
        }))
    };
    router(service, "/details", get(answer))
}

pub(crate) fn ratings(service: Arc<Service>) -> Router {
    let answer = async |State(service): State<Arc<Service>>| {
        Json(json!({
            "service": service.name,
            "version": service.version,
            "pod": service.pod,
            "stars": 5,
        }))
    };
    router(service, "/ratings", get(answer))
}

/// Version 1 knows no ratings; 2 and 3 ask for them and colour the stars.
pub(crate) fn reviews(service: Arc<Service>) -> Router {
    let answer = async |State(service): State<Arc<Service>>| {
        let mut answer = json!({
            "service": service.name,
            "version": service.version,
            "pod": service.pod,
            "text": "An extremely entertaining play.",
        });
        if service.version != "v1" {
            let colour = if service.version == "v2" { "black" } else { "red" };
            let ratings = service.caller.by_name("ratings", PORT, "/ratings").await;
            answer["ratings"] = match ratings {
                Ok(mut ratings) => {
                    ratings["colour"] = json!(colour);
                    ratings
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
        }
        Json(answer)
    };
    router(service, "/reviews", get(answer))
}

pub(crate) fn productpage(service: Arc<Service>, reviews: call::Reviews) -> Router {
    let state = Arc::new((service.clone(), reviews));
    let page = async |State(state): State<Arc<(Arc<Service>, call::Reviews)>>| {
        let (service, reviews) = &*state;
        let (details, reviews) = tokio::join!(
            service.caller.by_name("details", PORT, "/details"),
            reviews.call(&service.caller, "/reviews")
        );
        let part = |answer: Result<Value, call::CallError>| match answer {
            Ok(answer) => (answer, true),
            Err(error) => (json!({ "error": error.to_string() }), false),
        };
        let ((details, details_fine), (reviews, reviews_fine)) = (part(details), part(reviews));
        let page = json!({
            "service": service.name,
            "version": service.version,
            "pod": service.pod,
            "details": details,
            "reviews": reviews,
        });
        let status =
            if details_fine && reviews_fine { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
        (status, Json(page))
    };
    Router::new().route("/productpage", get(page)).with_state(state).merge(router(
        service,
        "/",
        get(async || "try /productpage\n"),
    ))
}

fn router(
    service: Arc<Service>,
    path: &str,
    answer: axum::routing::MethodRouter<Arc<Service>>,
) -> Router {
    Router::new().route(path, answer).route("/healthz", get(async || "ok\n")).with_state(service)
}
