//! Each limit answers with the Status that kube-apiserver v1.33 gives. The one
//! that differs says so.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use portolan_apiserver::{
    http::Service,
    registry::{self, Registry},
    store::{Backend, Options, Store},
};
use portolan_runtime::Shutdown;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/namespaces";

fn service(options: Options) -> Service {
    let store = Store::open(Backend::Memory, options).unwrap();
    let registry = Registry::new(store, registry::Options::default());
    Service::new(registry, "admin", Shutdown::new())
}

fn request(method: &str, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request =
        Request::builder().method(method).uri(path).header("authorization", "Bearer admin");
    request.header("content-type", "application/json").body(Full::new(body)).unwrap()
}

/// Status code and the first thing said: the whole answer, or the first event of a stream.
async fn ask(service: &Service, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = service.call(request(method, path, body)).await;
    let code = answer.status().as_u16();
    let mut body = std::pin::pin!(answer.into_body());
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    (code, serde_json::from_slice(&first).unwrap())
}

async fn make(service: &Service, name: &str) {
    let (code, made) = ask(service, "POST", PATH, &json!({"metadata": {"name": name}})).await;
    assert_eq!(code, 201, "{made}");
}

/// Both windows, of events and of bytes, end in the same answers.
#[tokio::test]
async fn what_is_older_than_the_history_has_expired() {
    for options in [
        Options { history_events: 3, ..Options::default() },
        Options { history_bytes: 2_000, ..Options::default() },
    ] {
        let service = service(options);
        make(&service, "first").await;
        make(&service, "second").await;
        let (_, page) = ask(&service, "GET", &format!("{PATH}?limit=1"), &Value::Null).await;
        let token = page["metadata"]["continue"].as_str().unwrap();
        for number in 0..20 {
            make(&service, &format!("n{number}")).await;
        }
        let exact = format!("{PATH}?resourceVersion=2&resourceVersionMatch=Exact");
        let (code, status) = ask(&service, "GET", &exact, &Value::Null).await;
        assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
        assert_eq!(status["message"], "The resourceVersion for the provided list is too old.");

        let next = format!("{PATH}?limit=1&continue={token}");
        let (code, status) = ask(&service, "GET", &next, &Value::Null).await;
        assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("The provided continue parameter is too old"), "{message}");
        // What it offers instead goes on behind the first page.
        let token = status["metadata"]["continue"].as_str().expect("a token that goes on");
        let rest = format!("{PATH}?limit=1&continue={token}");
        let (code, page) = ask(&service, "GET", &rest, &Value::Null).await;
        assert_eq!((code, &page["items"][0]["metadata"]["name"]), (200, &json!("n0")));

        let watch = format!("{PATH}?watch=true&resourceVersion=2");
        let (code, event) = ask(&service, "GET", &watch, &Value::Null).await;
        assert_eq!((code, &event["type"]), (200, &json!("ERROR")));
        let status = &event["object"];
        assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("too old resource version: 2 ("), "{message}");
        service.store().close().await;
    }
}

#[tokio::test]
async fn watches_beyond_the_limit_are_asked_to_come_back() {
    let service = service(Options::default());
    let path = format!("{PATH}?watch=true&resourceVersion=1");
    let mut watches = Vec::new();
    let refused = loop {
        let answer = service.call(request("GET", &path, &Value::Null)).await;
        if answer.status() != 200 {
            break answer;
        }
        watches.push(answer);
        assert!(watches.len() <= 10_000, "no limit");
    };
    assert_eq!(watches.len(), 10_000);
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    let status = refused.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["reason"], "TooManyRequests");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    // One that ends makes room.
    watches.pop();
    assert_eq!(service.call(request("GET", &path, &Value::Null)).await.status(), 200);
    service.store().close().await;
}

#[tokio::test]
async fn objects_annotations_and_bodies_have_a_largest_size() {
    let service = service(Options::default());
    let object = |annotations: usize, name: &str| json!({"metadata": {"name": name, "annotations": {"a": "x".repeat(annotations)}}});
    let (code, status) = ask(&service, "POST", PATH, &object((256 << 10) - 1, "fits")).await;
    assert_eq!(code, 201, "{status}");
    let (code, status) = ask(&service, "POST", PATH, &object(256 << 10, "large")).await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    let cause = &status["details"]["causes"][0];
    assert_eq!(
        (&cause["reason"], &cause["field"]),
        (&json!("FieldValueTooLong"), &json!("metadata.annotations"))
    );
    assert_eq!(cause["message"], "Too long: may not be more than 262144 bytes");

    let revision = |letters: usize| json!({"metadata": {"name": "r"}, "revision": 1, "data": {"a": "x".repeat(letters)}});
    let (code, _) = ask(&service, "POST", PATH, &json!({"metadata": {"name": "default"}})).await;
    assert_eq!(code, 201);
    let path = "/apis/apps/v1/namespaces/default/controllerrevisions";
    // Upstream this is a 500 with etcd's words; ours names the limit.
    let (code, status) = ask(&service, "POST", path, &revision(1_600_000)).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")), "{status}");
    let (code, _) = ask(&service, "POST", path, &revision(1_500_000)).await;
    assert_eq!(code, 201);
    let (code, status) = ask(&service, "POST", path, &revision(3_200_000)).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    assert_eq!(status["message"], "Request entity too large: limit is 3145728");
    service.store().close().await;
}

/// A token that was made up is refused, whatever it says.
#[tokio::test]
async fn continue_tokens_are_read_or_refused() {
    let service = service(Options::default());
    make(&service, "only").await;
    for (token, expected) in [
        (json!({"v": "meta.k8s.io/v1", "rv": 2, "start": "only"}), 200),
        (json!({"v": "meta.k8s.io/v1", "rv": -1, "start": "/"}), 200),
        (json!({"v": "meta.k8s.io/v1", "rv": 2, "start": 5}), 400),
        (json!({"rv": 2}), 400),
        (json!([]), 400),
    ] {
        let text = URL_SAFE_NO_PAD.encode(token.to_string());
        let path = format!("{PATH}?limit=1&continue={text}");
        let (code, answer) = ask(&service, "GET", &path, &Value::Null).await;
        assert_eq!(code, expected, "{token}: {answer}");
    }
    service.store().close().await;
}
