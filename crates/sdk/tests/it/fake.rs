//! A small API server for the Pods of namespace `shop`, over plain HTTP: get,
//! list in pages, watch with bookmarks and 410, merge patch with preconditions,
//! and a switch for each way in which it may fail. It keeps Pods, an event log
//! and nothing else of a real one.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use portolan_dialects::{Registration, app};
use serde_json::{Value, json};
use tokio::sync::watch;

const PODS: &str = "/api/v1/namespaces/shop/pods";
/// Small, so that every list has several.
const PAGE: usize = 2;

#[derive(Clone)]
pub(crate) struct Fake {
    address: std::net::SocketAddr,
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
    pods: BTreeMap<String, Value>,
    /// What each field manager has applied to a Pod, by both names.
    applied: BTreeMap<(String, String), Value>,
    log: Vec<(u64, Value)>,
    /// Watches from before this revision are refused.
    compacted: u64,
    /// What everything is answered with.
    refusal: Option<u16>,
    /// What the next patches are answered with.
    patch_refusals: VecDeque<u16>,
    /// Watches of an older generation end.
    generation: u64,
    watches: usize,
    /// Of events that were sent.
    bytes: usize,
    /// Method and path of every request, and its body.
    requests: Vec<(String, Value)>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let inner = Inner { revision: 1, ..Inner::default() };
        let shared = Arc::new(Shared { state: Mutex::new(inner), changed: watch::Sender::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn state(&self) -> MutexGuard<'_, Inner> {
        self.shared.state.lock().unwrap()
    }

    fn wake(&self) {
        self.shared.changed.send_modify(|number| *number += 1);
    }

    /// A Pod as its template made it: no registration.
    pub(crate) fn put_plain(&self, name: &str) {
        let pod = json!({"metadata": {"name": name, "uid": name, "labels": {"app": "x"}}});
        self.state().store(name, pod);
        self.wake();
    }

    /// The Pod `p<number>` at 10.0.0.<number>, with registrations at its port 80.
    pub(crate) fn put(&self, number: u8, ready: bool, interfaces: &[&str]) {
        let at = ([10, 0, 0, number], 80).into();
        let all: Vec<Registration> =
            interfaces.iter().map(|name| Registration::new(name, "http", at)).collect();
        let name = format!("p{number}");
        let pod = json!({
            "metadata": {
                "name": name,
                "uid": name,
                "labels": {"app.io/label": "app.io-value"},
                "annotations": {"app.io/annotation": app::encode(&all).unwrap()},
            },
            "status": {
                "phase": "Running",
                "podIP": format!("10.0.0.{number}"),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        });
        self.state().store(&name, pod);
        self.wake();
    }

    /// A Pod as it is given; its name is also its uid.
    pub(crate) fn put_object(&self, name: &str, mut pod: Value) {
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["uid"] = json!(name);
        self.state().store(name, pod);
        self.wake();
    }

    /// What a writer does that asks for nothing in return.
    pub(crate) fn merge(&self, name: &str, change: &Value) {
        assert!(self.state().patch(name, change).status().is_success());
        self.wake();
    }

    /// Another Pod takes the name.
    pub(crate) fn replace(&self, name: &str) {
        let pod = json!({"metadata": {"name": name, "uid": "another"}});
        self.state().store(name, pod);
        self.wake();
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut state = self.state();
        let mut pod = state.pods.remove(name).unwrap();
        state.revision += 1;
        let revision = state.revision;
        pod["metadata"]["resourceVersion"] = json!(revision.to_string());
        state.log.push((revision, json!({"type": "DELETED", "object": pod})));
        drop(state);
        self.wake();
    }

    pub(crate) fn get(&self, name: &str) -> Value {
        self.state().pods.get(name).cloned().unwrap_or_default()
    }

    /// Forgets the events so far.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.revision;
        state.log.clear();
    }

    /// Ends all watches.
    pub(crate) fn cut(&self) {
        self.state().generation += 1;
        self.wake();
    }

    /// Tells all watches how far they are, as a server does each minute.
    pub(crate) fn bookmark(&self) {
        let mut state = self.state();
        state.revision += 1;
        let revision = state.revision;
        let meta = json!({"resourceVersion": revision.to_string()});
        state.log.push((revision, json!({"type": "BOOKMARK", "object": {"metadata": meta}})));
        drop(state);
        self.wake();
    }

    /// Answers everything with this code, from now on or no longer.
    pub(crate) fn refuse(&self, code: Option<u16>) {
        self.state().refusal = code;
        self.cut();
    }

    /// Answers the next patches with these codes.
    pub(crate) fn refuse_patches(&self, codes: impl IntoIterator<Item = u16>) {
        self.state().patch_refusals.extend(codes);
    }

    /// Bytes of events that were sent.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Open watches.
    pub(crate) fn watches(&self) -> usize {
        self.state().watches
    }

    pub(crate) fn requests(&self) -> Vec<(String, Value)> {
        self.state().requests.clone()
    }

    /// How many requests there were whose line holds a text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.state().requests.iter().filter(|(line, _)| line.contains(text)).count()
    }
}

impl Inner {
    fn store(&mut self, name: &str, mut pod: Value) -> Value {
        self.revision += 1;
        pod["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let kind = if self.pods.contains_key(name) { "MODIFIED" } else { "ADDED" };
        self.pods.insert(name.to_owned(), pod.clone());
        self.log.push((self.revision, json!({"type": kind, "object": pod})));
        pod
    }

    fn patch(&mut self, name: &str, patch: &Value) -> Response {
        if let Some(code) = self.patch_refusals.pop_front() {
            return refusal(code, "the next patches are refused");
        }
        let Some(old) = self.pods.get(name).cloned() else {
            return refusal(404, "no such Pod");
        };
        for precondition in ["uid", "resourceVersion"] {
            let wanted = &patch["metadata"][precondition];
            if !wanted.is_null() && *wanted != old["metadata"][precondition] {
                return refusal(409, "the object has been modified");
            }
        }
        let mut pod = old.clone();
        merge(&mut pod, patch);
        // What changes nothing is not written.
        Json(if pod == old { old } else { self.store(name, pod) }).into_response()
    }

    /// Server-side apply, of labels and annotations, by force.
    fn apply(&mut self, name: &str, manager: &str, wanted: &Value) -> Response {
        let place = (name.to_owned(), manager.to_owned());
        let mut patch = json!({"metadata": {"uid": wanted["metadata"]["uid"]}});
        let before = self.applied.get(&place).cloned().unwrap_or_default();
        for field in ["labels", "annotations"] {
            let keys = before["metadata"][field].as_object().cloned().unwrap_or_default();
            let gone = |key: &String| wanted["metadata"][field].get(key).is_none();
            let left = keys.keys().filter(|key| gone(key)).map(|key| (key.clone(), Value::Null));
            let mut changes: serde_json::Map<String, Value> = left.collect();
            changes.extend(wanted["metadata"][field].as_object().cloned().unwrap_or_default());
            patch["metadata"][field] = changes.into();
        }
        let response = self.patch(name, &patch);
        if response.status().is_success() {
            self.applied.insert(place, wanted.clone());
        }
        response
    }

    fn list(&self, after: &str, selected: bool) -> Response {
        let mut items: Vec<(&String, &Value)> = self
            .pods
            .iter()
            .filter(|(name, pod)| name.as_str() > after && (!selected || is_selected(pod)))
            .collect();
        let more = items.len() > PAGE;
        items.truncate(PAGE);
        let next = if more { items[PAGE - 1].0.as_str() } else { "" };
        let objects: Vec<&Value> = items.iter().map(|(_, pod)| *pod).collect();
        let meta = json!({"resourceVersion": self.revision.to_string(), "continue": next});
        Json(json!({"kind": "PodList", "metadata": meta, "items": objects})).into_response()
    }
}

fn is_selected(pod: &Value) -> bool {
    pod["metadata"]["labels"]["app.io/label"] == "app.io-value"
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in members {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn refusal(code: u16, message: &str) -> Response {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "Refused",
    };
    let status = json!({"kind": "Status", "code": code, "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    let mut state = shared.state.lock().unwrap();
    let patch: Value = serde_json::from_slice(&body).unwrap_or_default();
    state.requests.push((format!("{method} {uri}"), patch.clone()));
    if let Some(code) = state.refusal {
        return refusal(code, "the fake refuses");
    }
    let Some(rest) = uri.path().strip_prefix(PODS) else { return refusal(404, "no such path") };
    match (method, rest.strip_prefix('/')) {
        (Method::PATCH, Some(name)) => {
            let response = match query.get("fieldManager") {
                Some(manager) => state.apply(name, manager, &patch),
                None => state.patch(name, &patch),
            };
            drop(state);
            shared.changed.send_modify(|number| *number += 1);
            response
        }
        (_, Some(name)) => match state.pods.get(name) {
            Some(pod) => Json(pod.clone()).into_response(),
            None => refusal(404, "no such Pod"),
        },
        (_, None) if query.contains_key("watch") => {
            let since = query["resourceVersion"].parse().unwrap();
            let generation = state.generation;
            state.watches += 1;
            drop(state);
            watch_from(Open(shared), since, generation)
        }
        (_, None) => state.list(
            query.get("continue").map_or("", String::as_str),
            query.contains_key("labelSelector"),
        ),
    }
}

/// An open watch; counted while it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().watches -= 1;
    }
}

fn watch_from(open: Open, since: u64, generation: u64) -> Response {
    let changed = open.0.changed.subscribe();
    let lines = stream::unfold(Some((open, since, changed)), move |at| async move {
        let (open, since, mut changed) = at?;
        loop {
            if let Some((text, revision, is_last)) = next_lines(&open.0, since, generation)? {
                return Some((text, (!is_last).then_some((open, revision, changed))));
            }
            changed.changed().await.ok()?;
        }
    });
    Body::from_stream(lines.map(Ok::<_, Infallible>)).into_response()
}

/// The lines after a revision, where there are some; outer `None` at the end.
fn next_lines(shared: &Shared, since: u64, generation: u64) -> Option<Option<(String, u64, bool)>> {
    let mut state = shared.state.lock().unwrap();
    if state.generation != generation {
        return None;
    }
    if since < state.compacted {
        let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "old"});
        let text = format!("{}\n", json!({"type": "ERROR", "object": status}));
        return Some(Some((text, since, true)));
    }
    let events = state.log.iter().filter(|(revision, _)| *revision > since);
    let text: String = events.map(|(_, event)| format!("{event}\n")).collect();
    state.bytes += text.len();
    Some((!text.is_empty()).then_some((text, state.revision, false)))
}
