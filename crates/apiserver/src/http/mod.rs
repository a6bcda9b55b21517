//! The door for everything outside the process: HTTPS, as the real API server
//! speaks it.
//!
//! ```text
//! accept ─▶ TLS ─▶ HTTP/1.1 or 2 ─▶ who (auth) ─▶ what (route) ─▶ may they (access)
//!                                        ─▶ read the body ─▶ verbs ─▶ registry ─▶ answer
//! ```
//!
//! Handlers are functions from a parsed request to `Result<Answer, Status>`;
//! only [`server`] knows sockets. Every request is bounded in time and size,
//! except watches and followed logs, which are bounded in number.

mod accept;
mod auth;
mod body;
mod counts;
mod discovery;
mod files;
mod filter;
mod json;
mod list;
mod logs;
mod options;
mod parts;
mod patches;
mod query;
mod respond;
mod reviews;
mod route;
mod server;
mod streams;
mod table;
mod tls;
mod verbs;
mod watch;
mod write_options;

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use http_body::Body as HttpBody;
use hyper::upgrade::OnUpgrade;
use portolan_runtime::Shutdown;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::{
    auth::Authenticator,
    query::Query,
    respond::Answer,
    route::{Discovery, Route},
    table::{Include, Shape},
};
pub use self::{
    server::{Config, Running, StartError, start},
    tls::TlsError,
};
use crate::{
    Status,
    registry::{Caller, Registry, access::Action},
    schema::openapi,
    store::Store,
};

/// The version of Kubernetes whose behaviour is served.
pub const KUBERNETES_VERSION: &str = "v1.33.4+portolan";
/// Watches at a time. Each holds a task and a socket, no queue.
const WATCHES_MAX: usize = 10_000;
/// Requests that are worked on at a time, streams aside; more wait for their turn. The sum of the
/// real server's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
const REQUESTS_MAX: usize = 600;
/// Time for everything that is no stream; the real server's `--request-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What handlers share: the API, without a socket.
pub struct Service {
    pub(crate) registry: Registry,
    pub(crate) authenticator: Authenticator,
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) counts: Arc<counts::Counts>,
    requests: Semaphore,
    /// A permit for each byte of bodies that are held.
    bodies: Semaphore,
    pub(crate) shutdown: Shutdown,
}

impl Service {
    /// The API of a registry. `admin_token` lets in the administrator.
    pub fn new(registry: Registry, admin_token: &str, shutdown: Shutdown) -> Service {
        Service {
            authenticator: Authenticator::new(registry.clone(), admin_token),
            registry,
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            sessions: Arc::new(Semaphore::new(streams::SESSIONS_MAX)),
            counts: Arc::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            bodies: Semaphore::new(body::BODIES_BYTES_MAX),
            shutdown,
        }
    }

    /// Answers one request of whoever holds its token, as one that came over the network.
    pub async fn call<B>(
        &self,
        request: http::Request<B>,
    ) -> http::Response<impl HttpBody<Data = Bytes, Error = std::io::Error> + use<B>>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.answer(request).await
    }

    /// What is stored.
    pub fn store(&self) -> &Store {
        self.registry.store()
    }

    /// Answers one request.
    pub(crate) async fn answer<B>(&self, request: http::Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut head, body) = request.into_parts();
        let upgrade = head.extensions.remove();
        let mut body = pin!(body);
        let handled = self.handle(&head, upgrade, body.as_mut());
        match tokio::time::timeout(REQUEST_TIMEOUT, handled).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => {
                body::drain(body).await;
                respond::status(&status)
            }
            Err(_) => respond::status(&Status::new(
                504,
                "Timeout",
                "the request did not complete within the allotted time",
            )),
        }
    }

    async fn handle<B>(
        &self,
        head: &http::request::Parts,
        upgrade: Option<OnUpgrade>,
        body: B,
    ) -> Result<Answer, Status>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
        let route = route::parse(uri.path());
        let query = Query::parse(uri.query().unwrap_or_default());
        match &route {
            Route::Malformed => return Ok(respond::text(400, "400 Bad Request")),
            Route::Resource(target) if verbs::is_long_running(target, &query) => {}
            _ => query.check_timeout()?,
        }
        match &route {
            Route::Health => return Ok(self.health()),
            Route::Version if *method == Method::GET => {
                return Ok(respond::json(200, &version()));
            }
            _ => {}
        }
        let caller = self.authenticator.caller(headers)?;
        let caller = self.authenticator.impersonated(caller, headers)?;
        match route {
            Route::Resource(target) => {
                let verb =
                    verbs::verb(method, &target, &query).ok_or_else(Status::method_not_allowed)?;
                self.registry.authorize(&caller, &verbs::action(verb, &target))?;
                let body = body::read(body, &self.bodies).await?;
                let _turn = self.turn().await?;
                let request = verbs::Request {
                    service: self,
                    caller: &caller,
                    method,
                    headers,
                    query: &query,
                    target: &target,
                    body: body.bytes.clone(),
                    upgrade,
                };
                request.answer().await
            }
            Route::Virtual { kind, namespace } => {
                if *method != Method::POST {
                    return Err(Status::method_not_allowed());
                }
                let action = Action {
                    verb: "create",
                    group: kind.group,
                    resource: kind.plural,
                    namespace: &namespace,
                    ..Action::default()
                };
                self.registry.authorize(&caller, &action)?;
                let form = accept::negotiate_without_table(headers)?;
                let shape = Shape { kind, form, include: Include::default() };
                let body = body::read(body, &self.bodies).await?;
                let _turn = self.turn().await?;
                let review = body::object(headers, &body.bytes, kind)?;
                let answer = reviews::answer(self, &caller, kind, &namespace, review)?;
                shape.object(&answer, 201)
            }
            other => {
                let _turn = self.turn().await?;
                self.document(&caller, method, uri, headers, &query, &other)
            }
        }
    }

    /// Waits until the request may be worked on. That begins when its body is there: clients
    /// that send slowly must not take the turns of others.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        let turn = self.requests.acquire().await;
        turn.map_err(|_| Status::unavailable("the API server is shutting down"))
    }

    /// Documents about the API itself.
    fn document(
        &self,
        caller: &Caller,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        query: &Query,
        route: &Route,
    ) -> Result<Answer, Status> {
        let verb = method.as_str().to_lowercase();
        let action = Action { verb: &verb, path: uri.path(), ..Action::default() };
        self.registry.authorize(caller, &action)?;
        let any_method = matches!(
            route,
            Route::Nowhere
                | Route::BadName(_)
                | Route::Metrics
                | Route::OpenApi(_)
                | Route::OpenApiV2
                | Route::Discovery(Discovery::Groups)
        );
        if !any_method && *method != Method::GET && *method != Method::HEAD {
            return Err(match route {
                Route::Unknown => Status::no_such_path(),
                _ => Status::method_not_allowed(),
            });
        }
        match route {
            Route::Discovery(what) => discovery::answer(what, accept::negotiate(headers)?),
            Route::OpenApi(path) => open_api(path, query.get("hash")),
            Route::OpenApiV2 => Ok(open_api_v2(headers)),
            Route::Index => Ok(respond::json(200, &index())),
            Route::Nowhere => Ok(respond::text(404, "404 page not found\n")),
            Route::BadName(why) => Err(Status::bad_request(why.as_str())),
            Route::Metrics => Ok(respond::metrics(self.metrics())),
            _ => Err(Status::no_such_path()),
        }
    }

    fn health(&self) -> Answer {
        if self.shutdown.is_cancelled() {
            return respond::text(503, "shutting down");
        }
        respond::text(200, "ok")
    }

    fn metrics(&self) -> String {
        let store = self.registry.store();
        let mut text = String::from("# TYPE apiserver_storage_objects gauge\n");
        for resource in store.resources() {
            text.push_str(&format!(
                "apiserver_storage_objects{{resource=\"{resource}\"}} {}\n",
                store.count(&resource)
            ));
        }
        text.push_str(&format!(
            "# TYPE apiserver_longrunning_requests gauge\napiserver_longrunning_requests{{verb=\"WATCH\"}} {}\n",
            store.watchers()
        ));
        text.push_str(&self.counts.text());
        text
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": KUBERNETES_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn index() -> Value {
    json!({"paths": [
        "/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version",
    ]})
}

/// In protobuf to those who ask for it, under the name that upstream gives it.
fn open_api_v2(headers: &HeaderMap) -> Answer {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("proto-openapi.spec.v2")) {
        let content_type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return respond::bytes_as(content_type, openapi::v2::protobuf());
    }
    respond::json(200, &openapi::v2::json())
}

/// A document asked for by its hash never changes, which saves kubectl a megabyte per command.
fn open_api(path: &str, hash: Option<&str>) -> Result<Answer, Status> {
    if path.is_empty() {
        // Upstream does not say what it is, and Go guesses.
        return Ok(respond::text(200, openapi::index().to_string()));
    }
    let Some(text) = openapi::document(path) else {
        // Upstream has no word for it.
        let mut answer = respond::text(404, "");
        answer.headers_mut().remove(http::header::CONTENT_TYPE);
        return Ok(answer);
    };
    let answer = respond::bytes(200, text);
    let current = openapi::hash(path);
    Ok(if hash.is_some() && hash == current { respond::keep_for_ever(answer) } else { answer })
}
