//! Two writers of one Pod in 1,000 orders of their requests: nothing is lost.
//!
//! The server is a function in this process. Before each request is carried out, others may go
//! first, as often as a seed says; pauses after a conflict mix the orders further.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use portolan_dialects::{
    Dialect, ListDialect, PodView, Registration, app, app::App, native::Owner,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Registered, Writer};
use crate::direct::api::Pods;

const ORDERS: u64 = 1_000;
/// What each writer registers, one after the other.
const EACH: u16 = 2;

/// One Pod, and whether the server looks at preconditions.
struct Server {
    pod: Value,
    revision: u64,
    applied: Vec<(String, Value)>,
    looks: bool,
    conflicts: usize,
    rng: StdRng,
}

impl Server {
    fn new(seed: u64, looks: bool) -> Arc<Mutex<Self>> {
        let pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "0",
            "labels": {"app": "x"}}});
        let rng = StdRng::seed_from_u64(seed);
        Arc::new(Mutex::new(Self {
            pod,
            revision: 0,
            applied: Vec::new(),
            looks,
            conflicts: 0,
            rng,
        }))
    }

    fn answer(&mut self, method: &Method, query: &str, body: &Value) -> (u16, Value) {
        if method == Method::GET {
            return (200, self.pod.clone());
        }
        let meta = &body["metadata"];
        for precondition in ["uid", "resourceVersion"] {
            let wanted = &meta[precondition];
            if self.looks && !wanted.is_null() && *wanted != self.pod["metadata"][precondition] {
                self.conflicts += 1;
                return (409, json!({"code": 409, "reason": "Conflict", "message": "modified"}));
            }
        }
        let manager = query.split('&').find_map(|part| part.strip_prefix("fieldManager="));
        let mut changes = vec![];
        for field in ["labels", "annotations"] {
            // What a manager applied before and applies no more goes.
            let before = manager.and_then(|manager| {
                let found = self.applied.iter().find(|(name, _)| name == manager)?;
                found.1["metadata"][field].as_object().cloned()
            });
            let wanted = meta[field].as_object().cloned().unwrap_or_default();
            let gone = before.into_iter().flatten().map(|(key, _)| (key, Value::Null));
            changes.extend(gone.chain(wanted).map(|(key, value)| (field, key, value)));
        }
        for (field, key, value) in changes {
            let members = &mut self.pod["metadata"][field];
            if members.is_null() {
                *members = json!({});
            }
            let members = members.as_object_mut().expect("an object");
            match value {
                Value::Null => drop(members.remove(&key)),
                value => drop(members.insert(key, value)),
            }
        }
        if let Some(manager) = manager {
            self.applied.retain(|(name, _)| name != manager);
            self.applied.push((manager.to_owned(), body.clone()));
        }
        self.revision += 1;
        self.pod["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        (200, self.pod.clone())
    }
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let others_first = server.lock().unwrap().rng.random_range(0..4);
            for _ in 0..others_first {
                tokio::task::yield_now().await;
            }
            let query = head.uri.query().unwrap_or_default();
            let (code, answer) = server.lock().unwrap().answer(&head.method, query, &body);
            let response = Response::builder().status(code);
            let response = response.body(Body::from(answer.to_string().into_bytes())).unwrap();
            Ok::<_, kube::Error>(response)
        }
    });
    Client::new(service, "shop")
}

fn service(interface: &str, port: u16) -> Registration {
    Registration::new(interface, "http", ([10, 0, 0, 1], port).into())
}

/// Both writers do the same: register two services, change one, take the other back.
async fn write(server: Arc<Mutex<Server>>, name: &'static str, native: bool) {
    let owner = native.then(|| Owner::new(name).unwrap());
    let pods = Pods::new(client(&server), "shop", None);
    let writer = Arc::new(Writer::new(pods, "shop", "p", ListDialect::App(App::default()), owner));
    let mut held = Vec::new();
    for port in 1..=EACH {
        held.push(Registered::new(writer.clone(), vec![service(name, port)]).await.unwrap());
    }
    let heavy = Registration { weight: 7, ..service(name, 2) };
    held[1].update([heavy]).await.unwrap();
    held.remove(0).deregister().await.unwrap();
    held.into_iter().for_each(Registered::keep);
}

/// What is on the Pod after both, by interface, port and weight; and whether they met.
async fn play(seed: u64, native: bool, looks: bool) -> (Vec<(String, u16, u32)>, bool) {
    let server = Server::new(seed, looks);
    let (a, b) = (write(server.clone(), "a", native), write(server.clone(), "b", native));
    tokio::join!(a, b);
    let server = server.lock().unwrap();
    let annotations = server.pod["metadata"]["annotations"].clone();
    let all = if native {
        let annotations = serde_json::from_value(annotations).unwrap();
        let labels = Default::default();
        let (addresses, containers) = (&[], &[]);
        let view = PodView { labels: &labels, annotations: &annotations, addresses, containers };
        Dialect::Native.read(&view)
    } else {
        app::decode(annotations["app.io/annotation"].as_str().unwrap())
    };
    let mut all: Vec<_> =
        all.registrations.into_iter().map(|one| (one.interface, one.port, one.weight)).collect();
    all.sort();
    (all, server.conflicts > 0)
}

#[tokio::test]
async fn two_writers_lose_nothing_in_any_order() {
    let expected =
        [("a", 2, 7), ("b", 2, 7)].map(|(name, port, weight)| (name.to_owned(), port, weight));
    for native in [false, true] {
        let mut met = 0;
        // All at once: most of the time they wait for pauses to end.
        let plays = join_all((0..ORDERS).map(|seed| play(seed, native, true))).await;
        for (seed, (all, conflict)) in plays.into_iter().enumerate() {
            assert_eq!(all, expected, "native: {native}, seed {seed}");
            met += usize::from(conflict);
        }
        // Writers of a list run into each other and notice; owners have nothing in common.
        assert_eq!(met > 500, !native, "native: {native}, met in {met} orders");
    }
}

/// The same, where the server takes every write: what the test above would find.
#[tokio::test]
async fn without_preconditions_the_same_orders_lose_entries() {
    let plays = join_all((0..100).map(|seed| play(seed, false, false))).await;
    let lost = plays.iter().filter(|(all, _)| all.len() < 2).count();
    assert!(lost > 0, "these orders show nothing");
}
