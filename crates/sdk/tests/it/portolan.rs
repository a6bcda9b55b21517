//! A small Portolan server: services of namespace `shop`, and `/v1/watch` of them with changes,
//! resumption and resets. Lists answer with what the test gave them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use portolan_sdk::wire::{Instance, Service, WatchEvent};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

pub(crate) struct Portolan {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<std::io::Result<()>>,
}

struct Shared {
    state: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    epoch: String,
    number: u64,
    services: BTreeMap<String, Vec<Instance>>,
    log: Vec<(u64, String, WatchEvent)>,
    /// Watches of an older generation end.
    generation: u64,
    greetings: usize,
    refusal: Option<u16>,
    requests: Vec<String>,
    bytes: usize,
}

impl Portolan {
    pub(crate) async fn start() -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), "aaaa", &[]).await
    }

    /// At an address, in an epoch of its own, with services that each have one Pod.
    pub(crate) async fn at(address: SocketAddr, epoch: &str, services: &[(&str, u8)]) -> Self {
        let mut inner = Inner { epoch: epoch.to_owned(), ..Inner::default() };
        for (name, number) in services {
            inner.put(name, vec![instance(name, *number, true)]);
        }
        let shared = Arc::new(Shared { state: Mutex::new(inner), changed: watch::Sender::new(0) });
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared, task }
    }

    /// Ends it: its streams break off, and nobody answers any more.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.cut();
        self.task.abort();
        // Its socket is free then.
        assert!(self.task.await.unwrap_err().is_cancelled());
        self.address
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

    /// A service has these instances: `p<number>`, ready or not.
    pub(crate) fn put(&self, name: &str, pods: &[(u8, bool)]) {
        self.state()
            .put(name, pods.iter().map(|(number, up)| instance(name, *number, *up)).collect());
        self.wake();
    }

    /// Tells all watches that it is there, as a server does every 15 s.
    pub(crate) fn greet(&self) {
        self.state().greetings += 1;
        self.wake();
    }

    pub(crate) fn cut(&self) {
        self.state().generation += 1;
        self.wake();
    }

    pub(crate) fn refuse(&self, code: Option<u16>) {
        self.state().refusal = code;
        self.cut();
    }

    /// Forgets what older versions were.
    pub(crate) fn forget(&self) {
        self.state().log.clear();
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Bytes of events that were sent.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }
}

impl Inner {
    fn version(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    fn put(&mut self, name: &str, now: Vec<Instance>) {
        self.number += 1;
        let version = self.version(self.number);
        let before = self.services.get(name).cloned().unwrap_or_default();
        let of = |all: &[Instance], one: &Instance| {
            all.iter().find(|other| other.name == one.name).cloned()
        };
        let (origin, namespace) = ("registry".to_owned(), "shop".to_owned());
        let event = if now.is_empty() {
            WatchEvent::Remove { version, origin, namespace, name: name.to_owned() }
        } else if before.is_empty() {
            WatchEvent::Upsert { version, service: service(name), instances: now.clone() }
        } else {
            let put = now.iter().filter(|one| of(&before, one).as_ref() != Some(one)).cloned();
            let gone = before.iter().filter(|one| of(&now, one).is_none()).cloned();
            let (put, gone) = (put.collect(), gone.collect());
            WatchEvent::Change { version, origin, namespace, name: name.to_owned(), put, gone }
        };
        self.log.push((self.number, name.to_owned(), event));
        if now.is_empty() {
            self.services.remove(name);
        } else {
            self.services.insert(name.to_owned(), now);
        }
    }
}

pub(crate) fn service(name: &str) -> Service {
    let mut service = json!({
        "origin": "registry", "namespace": "shop", "name": name, "type": "Registered",
        "addresses": [], "ports": [], "configured": 0, "serving": 0, "etag": "", "changed": "",
        "reasons": [],
    });
    service["name"] = json!(name);
    serde_json::from_value(service).unwrap()
}

pub(crate) fn instance(name: &str, number: u8, up: bool) -> Instance {
    serde_json::from_value(json!({
        "origin": "registry", "namespace": "shop", "service": name, "name": format!("p{number}"),
        "address": format!("10.0.0.{number}"), "port": 80, "portName": "http", "protocol": "http",
        "state": if up { "serving" } else { "failing" }, "source": "pods", "weight": 100,
        "metadata": {"protocol": "http", "version": "v1", "k": "v"}, "reasons": [],
    }))
    .unwrap()
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let mut state = shared.state.lock().unwrap();
    state.requests.push(uri.to_string());
    if let Some(code) = state.refusal {
        let text = json!({"status": code, "message": "the server refuses", "hint": "wait"});
        return (StatusCode::from_u16(code).unwrap(), text.to_string()).into_response();
    }
    let page = |items: serde_json::Value| {
        json!({"version": "aaaa-1", "ageMs": 0, "items": items}).to_string().into_response()
    };
    match uri.path() {
        "/v1/services" => page(json!([service("a")])),
        "/v1/instances" => page(json!([instance("a", 1, true)])),
        "/v1/watch" => {
            let of = |name: &str| -> Vec<String> {
                query
                    .iter()
                    .filter(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
                    .collect()
            };
            let plain = |text: &String| text.trim_start_matches("registry:shop/").to_owned();
            let services: Vec<String> = of("service").iter().map(plain).collect();
            let since = of("version").first().and_then(|version| {
                let (epoch, number) = version.split_once('-')?;
                let number: u64 = number.parse().ok()?;
                let oldest = state.log.first().map_or(state.number + 1, |(number, ..)| *number);
                (epoch == state.epoch && number + 1 >= oldest).then_some(number)
            });
            let generation = state.generation;
            drop(state);
            stream_of(shared, services, since, generation)
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn stream_of(
    shared: Arc<Shared>,
    services: Vec<String>,
    since: Option<u64>,
    generation: u64,
) -> Response {
    let changed = shared.changed.subscribe();
    let begun = Some((shared, services, since, 0, changed));
    let texts = stream::unfold(begun, move |at| async move {
        let (shared, services, mut since, mut greeted, mut changed) = at?;
        loop {
            let text = {
                let mut state = shared.state.lock().unwrap();
                if state.generation != generation {
                    return None;
                }
                let wanted = |name: &String| services.is_empty() || services.contains(name);
                let version = state.version(state.number);
                let mut events: Vec<WatchEvent> = match since {
                    None => {
                        let all = state.services.iter().filter(|(name, _)| wanted(name));
                        let all = all.map(|(name, instances)| WatchEvent::Upsert {
                            version: version.clone(),
                            service: service(name),
                            instances: instances.clone(),
                        });
                        [WatchEvent::Reset { version: version.clone() }]
                            .into_iter()
                            .chain(all)
                            .collect()
                    }
                    Some(since) => {
                        let news = state.log.iter().filter(|(number, ..)| *number > since);
                        news.filter(|(_, name, _)| wanted(name))
                            .map(|(.., event)| event.clone())
                            .collect()
                    }
                };
                since = Some(state.number);
                if !events.is_empty() {
                    events.push(WatchEvent::Synced { version });
                }
                let text: String = events
                    .iter()
                    .map(|event| {
                        format!(
                            "event: {}\ndata: {}\n\n",
                            event.kind(),
                            serde_json::to_string(event).unwrap()
                        )
                    })
                    .collect();
                state.bytes += text.len();
                let new = std::mem::replace(&mut greeted, state.greetings) < state.greetings;
                if new { text + ": here\n\n" } else { text }
            };
            if !text.is_empty() {
                return Some((text, Some((shared, services, since, greeted, changed))));
            }
            changed.changed().await.ok()?;
        }
    });
    Body::from_stream(texts.map(Ok::<_, Infallible>)).into_response()
}
