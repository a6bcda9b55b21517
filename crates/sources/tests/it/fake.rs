//! A small API server over plain HTTP: lists in pages, watches with revisions,
//! 410 for what was compacted, and a switch that makes it fail. It keeps an
//! event log and nothing else of a real one.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) struct Fake {
    pub(crate) kubeconfig: tempfile::NamedTempFile,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Inner>,
    /// Changes at every event and at every cut.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    revision: u64,
    objects: BTreeMap<(String, String), Value>,
    log: Vec<(u64, String, Value)>,
    /// Watches from this revision and older are refused.
    compacted: u64,
    down: bool,
    silent: bool,
    /// Watches of an older generation end.
    generation: u64,
    pub(crate) requests: Vec<String>,
}

/// A page of the fake, small so that every list has several.
const PAGE: usize = 3;

impl Fake {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(0) });
        shared.state.lock().unwrap().revision = 1;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(kubeconfig.path(), text.to_string()).unwrap();
        Self { kubeconfig, shared }
    }

    /// Creates or replaces an object, named by its collection and metadata.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.shared.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let key = (path.to_owned(), id(&object));
        let kind = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        state.objects.insert(key, object.clone());
        state.log.push((revision, path.to_owned(), json!({"type": kind, "object": object})));
        drop(state);
        self.wake();
    }

    /// Puts an object where no watch tells of it, as if the event had been lost.
    pub(crate) fn put_unheard(&self, path: &str, mut object: Value) {
        let mut state = self.shared.state.lock().unwrap();
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let key = (path.to_owned(), id(&object));
        state.objects.insert(key, object);
    }

    pub(crate) fn delete(&self, path: &str, namespace: &str, name: &str) {
        let mut state = self.shared.state.lock().unwrap();
        let key = (path.to_owned(), format!("{namespace}/{name}"));
        let Some(mut object) = state.objects.remove(&key) else { return };
        state.revision += 1;
        let revision = state.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        state.log.push((revision, path.to_owned(), json!({"type": "DELETED", "object": object})));
        drop(state);
        self.wake();
    }

    /// Ends all watches and forgets all events: every watcher must list anew.
    pub(crate) fn compact(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.revision += 1;
        state.compacted = state.revision - 1;
        state.log.clear();
        state.generation += 1;
        drop(state);
        self.wake();
    }

    /// Ends all watches; nothing is forgotten.
    pub(crate) fn cut(&self) {
        self.shared.state.lock().unwrap().generation += 1;
        self.wake();
    }

    /// Answers everything with 500 from now on, or no longer.
    pub(crate) fn set_down(&self, down: bool) {
        self.shared.state.lock().unwrap().down = down;
        self.cut();
    }

    /// Takes requests and says nothing to them from now on, or goes on with them.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.shared.state.lock().unwrap().silent = silent;
        self.cut();
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    fn wake(&self) {
        self.shared.changed.send_modify(|number| *number += 1);
    }
}

fn id(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message})
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let path = uri.path().to_owned();
    shared.state.lock().unwrap().requests.push(uri.to_string());
    let mut changed = shared.changed.subscribe();
    changed.wait_for(|_| !shared.state.lock().unwrap().silent).await.unwrap();
    let state = shared.state.lock().unwrap();
    if state.down {
        let body = Json(status(500, "InternalError", "the fake is down"));
        return (StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
    }
    if query.get("watch").is_some_and(|watch| watch == "true") {
        let since: u64 = query["resourceVersion"].parse().unwrap();
        let generation = state.generation;
        drop(state);
        return watch_from(shared, path, since, generation);
    }
    list(&state, &path, query.get("continue").map_or("", String::as_str)).into_response()
}

fn list(state: &Inner, path: &str, after: &str) -> Json<Value> {
    let mut items: Vec<(&String, &Value)> = state
        .objects
        .iter()
        .filter(|((collection, id), _)| collection == path && id.as_str() > after)
        .map(|((_, id), object)| (id, object))
        .collect();
    let more = items.len() > PAGE;
    items.truncate(PAGE);
    let next = if more { items[PAGE - 1].0.as_str() } else { "" };
    let objects: Vec<&Value> = items.iter().map(|(_, object)| *object).collect();
    Json(json!({
        "kind": "List",
        "metadata": {"resourceVersion": state.revision.to_string(), "continue": next},
        "items": objects,
    }))
}

fn watch_from(shared: Arc<Shared>, path: String, since: u64, generation: u64) -> Response {
    let changed = shared.changed.subscribe();
    let lines = stream::unfold(
        (shared, path, since, changed, false),
        move |(shared, path, mut since, mut changed, ended)| async move {
            if ended {
                return None;
            }
            loop {
                let mut text = String::new();
                let mut ended = false;
                {
                    let state = shared.state.lock().unwrap();
                    if since < state.compacted {
                        let error = status(410, "Expired", "too old resource version");
                        text = format!("{}\n", json!({"type": "ERROR", "object": error}));
                        ended = true;
                    } else if state.generation != generation {
                        return None;
                    } else {
                        for (revision, collection, event) in &state.log {
                            if *revision > since && *collection == path {
                                text.push_str(&format!("{event}\n"));
                            }
                        }
                        since = state.revision;
                    }
                }
                if !text.is_empty() {
                    return Some((text, (shared, path, since, changed, ended)));
                }
                changed.changed().await.ok()?;
            }
        },
    );
    Body::from_stream(lines.map(Ok::<_, Infallible>)).into_response()
}
