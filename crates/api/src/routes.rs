//! The routes, from path to view.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use portolan_catalog::Snapshot;
use portolan_model::{CODES, Face, ServiceKey};
use portolan_runtime::Metrics;
use portolan_view::{self as view, Aspect, Filter};
use portolan_wire as wire;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    Shared, dns,
    problem::Refusal,
    query::{
        Checked, InstanceQuery, KeyPath, ListQuery, NoQuery, WhyQuery, WorkloadQuery, key, query,
    },
    wait, watch,
};

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
        .route("/v1/workloads", get(workloads))
        .route("/v1/nodes", get(nodes))
        .route("/v1/sources", get(sources))
        .route("/v1/versions", get(versions))
        .route("/v1/clients", get(clients))
        .route("/v1/status", get(status))
        .route("/v1/codes", get(codes))
        .route("/v1/why", get(why))
        .route("/v1/resolve", get(dns::resolve))
        .route("/v1/dns-clients", get(dns::clients))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/convergence", get(wait::convergence))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::new())
        .with_state(shared)
}

/// An answer made from the current snapshot.
type Answer = Result<Response, Refusal>;

/// Makes a list of what may be the whole catalog. That takes a while (100,000
/// instances are 40 MB of JSON), so it happens beside the threads that serve
/// everybody else, and a few at a time.
async fn list<T: Serialize>(
    shared: &Arc<Shared>,
    make: impl FnOnce(&Snapshot, u64) -> wire::Page<T> + Send + 'static,
) -> Answer {
    let stopped = |error: String| Refusal::internal(format!("the list could not be made: {error}"));
    let _permit = shared.lists.acquire().await.map_err(|error| stopped(error.to_string()))?;
    let (snapshot, now_ms) = (shared.hub.snapshot(), shared.now_ms());
    let made =
        tokio::task::spawn_blocking(move || serde_json::to_vec(&make(&snapshot, now_ms))).await;
    let json = made.map_err(|error| stopped(error.to_string()))?;
    let json = json.map_err(|error| stopped(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn services(State(shared): State<Arc<Shared>>, checked: Checked<ListQuery>) -> Answer {
    let filter = query(checked)?.filter(&shared)?;
    list(&shared, move |snapshot, now_ms| view::services(snapshot, &filter, now_ms)).await
}

async fn instances(State(shared): State<Arc<Shared>>, checked: Checked<InstanceQuery>) -> Answer {
    let (filter, which) = query(checked)?.read(&shared)?;
    list(&shared, move |snapshot, now_ms| view::instances_where(snapshot, &filter, &which, now_ms))
        .await
}

async fn endpoints(State(shared): State<Arc<Shared>>, checked: Checked<ListQuery>) -> Answer {
    let filter = query(checked)?.filter(&shared)?;
    list(&shared, move |snapshot, now_ms| view::endpoints(snapshot, &filter, now_ms)).await
}

async fn workloads(State(shared): State<Arc<Shared>>, checked: Checked<WorkloadQuery>) -> Answer {
    let WorkloadQuery { namespace, name } = query(checked)?;
    list(&shared, move |snapshot, now_ms| {
        view::workloads(snapshot, namespace.as_deref(), name.as_deref(), now_ms)
    })
    .await
}

async fn versions(State(shared): State<Arc<Shared>>, checked: Checked<NoQuery>) -> Answer {
    query(checked)?;
    let kept = shared.hub.versions();
    list(&shared, move |_, now_ms| view::versions(&kept, now_ms)).await
}

async fn service(
    State(shared): State<Arc<Shared>>,
    path: KeyPath,
    checked: Checked<NoQuery>,
) -> Result<Json<wire::Page<wire::Service>>, Refusal> {
    query(checked)?;
    let key = key(path)?;
    let page = view::one_service(&shared.hub.snapshot(), &key, shared.now_ms());
    page.map(Json).ok_or_else(|| missing(&key))
}

async fn endpoints_of(
    State(shared): State<Arc<Shared>>,
    path: KeyPath,
    checked: Checked<NoQuery>,
) -> Result<Json<wire::Page<wire::Endpoint>>, Refusal> {
    query(checked)?;
    let key = key(path)?;
    let snapshot = shared.hub.snapshot();
    snapshot.service(&key).ok_or_else(|| missing(&key))?;
    Ok(Json(view::endpoints(&snapshot, &Filter::only(&key), shared.now_ms())))
}

fn missing(key: &ServiceKey) -> Refusal {
    Refusal::not_found(format!("there is no service {key}"))
        .hint(format!("portolan why svc/{}/{}", key.namespace, key.name))
}

async fn nodes(
    State(shared): State<Arc<Shared>>,
    checked: Checked<NoQuery>,
) -> Result<Json<wire::Page<wire::Node>>, Refusal> {
    query(checked)?;
    Ok(Json(view::nodes(&shared.hub.snapshot(), shared.now_ms())))
}

async fn sources(
    State(shared): State<Arc<Shared>>,
    checked: Checked<NoQuery>,
) -> Result<Json<wire::Page<wire::Source>>, Refusal> {
    query(checked)?;
    Ok(Json(view::sources(&shared.hub.snapshot(), shared.now_ms())))
}

async fn clients(State(shared): State<Arc<Shared>>, checked: Checked<NoQuery>) -> Answer {
    query(checked)?;
    let hub = shared.hub.clone();
    list(&shared, move |snapshot, now_ms| view::clients(snapshot, hub.board(), now_ms)).await
}

async fn status(
    State(shared): State<Arc<Shared>>,
    checked: Checked<NoQuery>,
) -> Result<Json<wire::Status>, Refusal> {
    query(checked)?;
    let process = view::Process {
        program: shared.config.program_version.clone(),
        cluster_domain: shared.config.cluster_domain.clone(),
        blockers: shared.readiness.blockers(),
        xds: shared.config.xds.map(|address| address.to_string()),
    };
    let snapshot = shared.hub.snapshot();
    Ok(Json(view::status(&snapshot, process, &shared.problems.all(), shared.now_ms())))
}

async fn codes(
    State(shared): State<Arc<Shared>>,
    checked: Checked<NoQuery>,
) -> Result<Json<wire::Page<wire::Reason>>, Refusal> {
    query(checked)?;
    let snapshot = shared.hub.snapshot();
    let items = CODES.iter().map(|info| wire::Reason {
        code: info.code.to_string(),
        text: info.text.to_owned(),
        fix: info.fix.to_owned(),
    });
    Ok(Json(wire::Page {
        version: snapshot.version().to_string(),
        age_ms: shared.now_ms().saturating_sub(snapshot.at_ms()),
        items: items.collect(),
    }))
}

async fn why(
    State(shared): State<Arc<Shared>>,
    checked: Checked<WhyQuery>,
) -> Result<Json<wire::Why>, Refusal> {
    let query = query(checked)?;
    let from = query.from(&shared)?;
    let target = query.target(&shared, from.as_ref())?;
    let (problems, faces) = (shared.problems.all(), query.faces()?);
    let aspect = Aspect { problems: &problems, faces: &faces, from: from.as_ref() };
    let hub = &shared.hub;
    let mut why = view::why(&hub.snapshot(), hub.board(), &target, &aspect, shared.now_ms());
    if faces.contains(&Face::Dns) {
        why.resolution = dns::of_target(&shared, &target, query.text(), from.as_ref());
    }
    Ok(Json(why))
}

/// Ready when nothing blocks and every source has told all it knows.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut blockers = shared.readiness.blockers();
    if !shared.hub.snapshot().is_synced() {
        blockers.push("the catalog has not been filled by every source".to_owned());
    }
    if blockers.is_empty() {
        let notes = shared.readiness.notes();
        let lines = std::iter::once("ok".to_owned()).chain(notes);
        let text: String = lines.map(|line| line + "\n").collect();
        return (StatusCode::OK, text).into_response();
    }
    let text = format!("not ready: {}\n", blockers.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    numbers(&shared.metrics)
}

/// All metrics as a page.
pub(crate) fn numbers(metrics: &Metrics) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is nothing at {}", uri.path())).hint(
        "see /v1/services, /v1/instances, /v1/endpoints, /v1/workloads, /v1/nodes, /v1/sources, \
         /v1/versions, /v1/clients, /v1/watch, /v1/why, /v1/resolve, /v1/dns-clients, /v1/convergence, \
         /v1/status, /v1/codes, /healthz, /readyz, /metrics; the name of a service goes into a path percent-encoded",
    )
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let refusal = Refusal::method_not_allowed(format!("{} takes no {method}", uri.path()))
        .hint("the API reads: use GET");
    ([(header::ALLOW, "GET, HEAD")], refusal).into_response()
}
