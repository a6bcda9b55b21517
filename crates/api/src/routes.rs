//! The routes, from path to view.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use portolan_model::{CODES, Face, Origin, ServiceKey};
use portolan_view::{self as view, Filter, Target};
use portolan_wire as wire;
use serde::Deserialize;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{Shared, problem::Refusal, wait, watch};

/// All routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/services", get(services))
        .route("/v1/services/{origin}/{namespace}/{name}", get(service))
        .route("/v1/instances", get(instances))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/endpoints/{origin}/{namespace}/{name}", get(endpoints_of))
        .route("/v1/nodes", get(nodes))
        .route("/v1/sources", get(sources))
        .route("/v1/versions", get(versions))
        .route("/v1/status", get(status))
        .route("/v1/codes", get(codes))
        .route("/v1/why", get(why))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/convergence", get(wait::convergence))
        .fallback(not_found)
        .layer(CatchPanicLayer::new())
        .with_state(shared)
}

/// What lists take in their query.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ListQuery {
    origin: Option<String>,
    namespace: Option<String>,
    service: Option<String>,
    /// `k=v,k=v`.
    labels: Option<String>,
}

impl ListQuery {
    pub(crate) fn filter(self) -> Result<Filter, Refusal> {
        let mut labels = BTreeMap::new();
        for pair in self.labels.iter().flat_map(|all| all.split(',')).filter(|p| !p.is_empty()) {
            let (label, value) = pair.split_once('=').ok_or_else(|| {
                Refusal::bad_request(format!("{pair:?} is no label selector"))
                    .hint("write labels=key=value,key=value")
            })?;
            labels.insert(label.trim().to_owned(), value.trim_start_matches('=').to_owned());
        }
        Ok(Filter { origin: self.origin, namespace: self.namespace, name: self.service, labels })
    }
}

/// What questions about one target take.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TargetQuery {
    target: String,
    namespace: Option<String>,
    /// `dns,proxy`.
    on: Option<String>,
    /// For `/v1/convergence`.
    pub(crate) gone: Option<bool>,
    /// For `/v1/convergence`: how long to wait.
    pub(crate) timeout_ms: Option<u64>,
}

impl TargetQuery {
    pub(crate) fn target(&self, shared: &Shared) -> Result<Target, Refusal> {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        let target = Target::parse(&self.target, namespace, &shared.config.cluster_domain)
            .map_err(Refusal::bad_request)?;
        Ok(match self.namespace {
            Some(_) => target,
            None => target.locate(&shared.hub.snapshot()),
        })
    }

    pub(crate) fn faces(&self) -> Result<Vec<Face>, Refusal> {
        self.on
            .iter()
            .flat_map(|on| on.split(','))
            .filter(|face| !face.is_empty())
            .map(|face| {
                Face::parse(face).ok_or_else(|| {
                    Refusal::bad_request(format!("{face:?} is no face"))
                        .hint("faces are dns, xds, proxy, api, console")
                })
            })
            .collect()
    }
}

pub(crate) type Checked<T> = Result<Query<T>, QueryRejection>;

/// Unpacks a query; a bad one gets 400 with what is wrong.
pub(crate) fn query<T>(checked: Checked<T>) -> Result<T, Refusal> {
    checked.map(|Query(query)| query).map_err(|bad| Refusal::bad_request(bad.body_text()))
}

type Answer<T> = Result<Json<wire::Page<T>>, Refusal>;

async fn services(
    State(shared): State<Arc<Shared>>,
    checked: Checked<ListQuery>,
) -> Answer<wire::Service> {
    let filter = query(checked)?.filter()?;
    Ok(Json(view::services(&shared.hub.snapshot(), &filter, shared.now_ms())))
}

async fn service(
    State(shared): State<Arc<Shared>>,
    Path((origin, namespace, name)): Path<(String, String, String)>,
) -> Result<Json<wire::Service>, Refusal> {
    let key = ServiceKey::new(Origin::from_text(&origin), &namespace, &name);
    let snapshot = shared.hub.snapshot();
    let entry = snapshot.service(&key).ok_or_else(|| missing(&key))?;
    Ok(Json(view::service(entry)))
}

fn missing(key: &ServiceKey) -> Refusal {
    Refusal::not_found(format!("there is no service {key}"))
        .hint(format!("portolan why svc/{}/{}", key.namespace, key.name))
}

async fn instances(
    State(shared): State<Arc<Shared>>,
    checked: Checked<ListQuery>,
) -> Answer<wire::Instance> {
    let filter = query(checked)?.filter()?;
    Ok(Json(view::instances(&shared.hub.snapshot(), &filter, shared.now_ms())))
}

async fn endpoints(
    State(shared): State<Arc<Shared>>,
    checked: Checked<ListQuery>,
) -> Answer<wire::Endpoint> {
    let filter = query(checked)?.filter()?;
    Ok(Json(view::endpoints(&shared.hub.snapshot(), &filter, shared.now_ms())))
}

async fn endpoints_of(
    State(shared): State<Arc<Shared>>,
    Path((origin, namespace, name)): Path<(String, String, String)>,
) -> Answer<wire::Endpoint> {
    let key = ServiceKey::new(Origin::from_text(&origin), &namespace, &name);
    let snapshot = shared.hub.snapshot();
    snapshot.service(&key).ok_or_else(|| missing(&key))?;
    Ok(Json(view::endpoints(&snapshot, &Filter::only(&key), shared.now_ms())))
}

async fn nodes(State(shared): State<Arc<Shared>>) -> Json<wire::Page<wire::Node>> {
    Json(view::nodes(&shared.hub.snapshot(), shared.now_ms()))
}

async fn sources(State(shared): State<Arc<Shared>>) -> Json<wire::Page<wire::Source>> {
    Json(view::sources(&shared.hub.snapshot(), shared.now_ms()))
}

async fn versions(State(shared): State<Arc<Shared>>) -> Json<wire::Page<wire::Version>> {
    let (snapshot, now_ms) = (shared.hub.snapshot(), shared.now_ms());
    Json(wire::Page {
        version: snapshot.version().to_string(),
        age_ms: now_ms.saturating_sub(snapshot.at_ms()),
        items: view::versions(&shared.hub.versions(), now_ms),
    })
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<wire::Status> {
    Json(view::status(
        &shared.hub.snapshot(),
        shared.readiness.blockers(),
        &shared.problems.all(),
        shared.now_ms(),
    ))
}

async fn codes() -> Json<Vec<wire::Reason>> {
    let all = CODES.iter().map(|info| wire::Reason {
        code: info.code.to_string(),
        text: info.text.to_owned(),
        fix: info.fix.to_owned(),
    });
    Json(all.collect())
}

async fn why(
    State(shared): State<Arc<Shared>>,
    checked: Checked<TargetQuery>,
) -> Result<Json<wire::Why>, Refusal> {
    let query = query(checked)?;
    let target = query.target(&shared)?;
    Ok(Json(view::why(
        &shared.hub.snapshot(),
        shared.hub.board(),
        &shared.problems.all(),
        &target,
        &query.faces()?,
        shared.now_ms(),
    )))
}

/// Ready when nothing blocks and every source has told all it knows.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut blockers = shared.readiness.blockers();
    if !shared.hub.snapshot().is_synced() {
        blockers.push("the catalog has not been filled by every source".to_owned());
    }
    if blockers.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let text = format!("not ready: {}\n", blockers.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response()
        }
    }
}

async fn not_found(uri: axum::http::Uri) -> Refusal {
    Refusal::not_found(format!("there is nothing at {}", uri.path())).hint(
        "see /v1/services, /v1/instances, /v1/watch, /v1/why, /v1/convergence, /v1/status, \
         /healthz, /readyz, /metrics",
    )
}
