//! The registrar against a fake API server and real listening sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use portolan_dialects::{Registration, app};
use portolan_runtime::Shutdown;
use portolan_writers::{
    Client, connect,
    registrar::{self, Progress, RegisterConfig, RegisterError},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};

/// Long enough for a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);
const PODS: &str = "/api/v1/namespaces/demo/pods";

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    pods: BTreeMap<String, Value>,
    made: u32,
    deletes: Vec<Value>,
    status_writes: u32,
}

impl Fake {
    async fn start(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(kubeconfig.path(), text.to_string()).unwrap();
        connect(Some(kubeconfig.path())).await.unwrap()
    }

    fn pod(&self, name: &str) -> Option<Value> {
        self.0.lock().unwrap().pods.get(name).cloned()
    }
}

fn refuse(code: u16) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "", "message": "no"});
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

async fn answer(State(fake): State<Fake>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut inner = fake.0.lock().unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = uri.path().strip_prefix(PODS).unwrap_or_default().trim_start_matches('/').to_owned();
    let status_of = name.strip_suffix("/status").map(str::to_owned);
    match (method, status_of) {
        (Method::POST, None) => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if inner.pods.contains_key(&name) {
                return refuse(409);
            }
            inner.made += 1;
            let mut pod = body;
            pod["metadata"]["uid"] = json!(format!("uid-{}", inner.made));
            inner.pods.insert(name, pod.clone());
            Json(pod).into_response()
        }
        (Method::PATCH, Some(name)) => {
            inner.status_writes += 1;
            let Some(pod) = inner.pods.get_mut(&name) else { return refuse(404) };
            pod["status"] = body["status"].clone();
            Json(pod.clone()).into_response()
        }
        (Method::GET, None) => match inner.pods.get(&name) {
            Some(pod) => Json(pod.clone()).into_response(),
            None => refuse(404),
        },
        (Method::DELETE, None) => {
            inner.deletes.push(body.clone());
            let Some(pod) = inner.pods.get(&name) else { return refuse(404) };
            if pod["metadata"]["uid"] != body["preconditions"]["uid"] {
                return refuse(409);
            }
            let pod = inner.pods.remove(&name);
            Json(pod).into_response()
        }
        _ => refuse(405),
    }
}

struct Running {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), RegisterError>>,
    progress: mpsc::Receiver<Progress>,
}

fn start(client: Client, pod: Option<&str>, at: SocketAddr) -> Running {
    let config = RegisterConfig {
        namespace: "demo".into(),
        pod: pod.map(str::to_owned),
        registrations: vec![Registration::new("reviews", "http", at)],
        app: app::App::default(),
    };
    let shutdown = Shutdown::new();
    let (sender, progress) = mpsc::channel(64);
    let stop = shutdown.clone();
    let task = tokio::spawn(async move {
        registrar::run(config, client, &stop, move |step| sender.try_send(step).unwrap()).await
    });
    Running { shutdown, task, progress }
}

impl Running {
    async fn next(&mut self) -> Progress {
        timeout(DEADLINE, self.progress.recv()).await.unwrap().unwrap()
    }

    async fn end(self) -> Result<(), RegisterError> {
        timeout(DEADLINE, self.task).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_process_outside_is_registered_while_it_listens() {
    let fake = Fake::default();
    let client = fake.start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut running = start(client, None, at);
    let Progress::Created { pod: name } = running.next().await else { panic!() };
    assert!(name.starts_with("reviews-"), "{name}");
    assert_eq!(running.next().await, Progress::Ready);

    let pod = fake.pod(&name).unwrap();
    assert_eq!(pod["spec"]["nodeName"], "external");
    assert_eq!(pod["spec"]["containers"][0]["image"], "portolan.dev/external");
    assert_eq!(pod["metadata"]["labels"], json!({"app.io/label": "app.io-value"}));
    let annotation = pod["metadata"]["annotations"]["app.io/annotation"].as_str().unwrap();
    assert_eq!(app::decode(annotation).registrations[0].socket_address(), at);
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    assert_eq!(pod["status"]["phase"], "Running");

    drop(listener);
    let Progress::NotReady(why) = running.next().await else { panic!() };
    assert!(why.contains(&at.to_string()), "{why}");
    let ready = |pod: &Value| pod["status"]["conditions"][3]["status"].clone();
    assert_eq!(ready(&fake.pod(&name).unwrap()), "False");
    let _listener = TcpListener::bind(at).await.unwrap();
    assert_eq!(running.next().await, Progress::Ready);
    assert_eq!(ready(&fake.pod(&name).unwrap()), "True");
    // One write per change, none in between.
    assert_eq!(fake.0.lock().unwrap().status_writes, 3);

    running.shutdown.cancel();
    assert_eq!(running.next().await, Progress::Deleted);
    running.end().await.unwrap();
    assert_eq!(fake.pod(&name), None);
    let deletes = fake.0.lock().unwrap().deletes.clone();
    assert_eq!(deletes[0]["gracePeriodSeconds"], 0);
    assert_eq!(deletes[0]["preconditions"]["uid"], "uid-1");
}

#[tokio::test]
async fn a_pod_that_others_delete_ends_it() {
    let fake = Fake::default();
    let client = fake.start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut running = start(client, Some("mine"), listener.local_addr().unwrap());
    running.next().await;
    assert_eq!(running.next().await, Progress::Ready);
    // Replaced by another of the name: that one is not ours to delete.
    fake.0.lock().unwrap().pods.get_mut("mine").unwrap()["metadata"]["uid"] = json!("other");
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, RegisterError::Removed { .. }), "{error}");
    assert!(fake.pod("mine").is_some());
}

#[tokio::test]
async fn a_taken_name_is_refused() {
    let fake = Fake::default();
    let client = fake.start().await;
    fake.0.lock().unwrap().pods.insert("mine".into(), json!({"metadata": {"uid": "u"}}));
    let running = start(client, Some("mine"), "127.0.0.1:1".parse().unwrap());
    let error = running.end().await.unwrap_err();
    assert_eq!(error.to_string(), "Pod demo/mine exists already");
}
