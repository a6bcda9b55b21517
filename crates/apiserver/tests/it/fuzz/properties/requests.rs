//! Whole requests, without a socket: paths, queries, continue tokens, headers,
//! bodies, one after the other on one small cluster.

use std::{sync::LazyLock, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use portolan_apiserver::{
    Caller,
    http::Service,
    kinds,
    registry::{self, Registry, WriteOptions},
    store::{Backend, Options, Store},
};
use portolan_runtime::Shutdown;
use portolan_testkit::fuzz::Choices;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::objects::{self, Manners, anything, object};

const TOKEN: &str = "fuzz";
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "FROB"];
const PATCHES: [&str; 6] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json",
    "application/vnd.kubernetes.protobuf",
];
/// The answer to a path below which there is nothing.
const NOWHERE: &str = "404 page not found\n";
const MALFORMED: &str = "400 Bad Request";
/// Bytes of one answer: the longest document of the API itself is about 1 MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
});

pub(crate) fn requests(bytes: &[u8]) {
    RUNTIME.block_on(async {
        let choices = &mut Choices::new(bytes);
        let service = service().await;
        for _ in 0..6 {
            ask(&service, choices).await;
            if choices.is_empty() {
                break;
            }
        }
        service.store().close().await;
    });
}

async fn service() -> Service {
    let store = Store::open(Backend::Memory, Options::default()).expect("memory");
    let options = registry::Options {
        service_cidrs: vec!["10.96.0.0/24".parse().expect("a range")],
        ..registry::Options::default()
    };
    let registry = Registry::new(store, options);
    let namespace = json!({"metadata": {"name": "main"}});
    let caller = Caller::system("fuzz");
    let made =
        registry.create(&caller, &kinds::NAMESPACES, "", namespace, &WriteOptions::default()).await;
    made.expect("a namespace");
    Service::new(registry, TOKEN, Shutdown::new())
}

fn path(choices: &mut Choices<'_>) -> String {
    let kind = objects::kind(choices);
    let mut path = match kind.group {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/{}", kind.version),
    };
    if choices.rarely(12) {
        path.push_str("/watch");
    }
    if kind.namespaced && !choices.rarely(6) {
        path.push_str("/namespaces/main");
    }
    path.push('/');
    path.push_str(kind.plural);
    for _ in 0..choices.below(4) {
        path.push('/');
        match choices.rarely(6) {
            // What a request line can carry; the rest never gets here.
            true => path.extend(choices.text(12).chars().filter(char::is_ascii_graphic)),
            false => path.push_str(choices.one(&[
                "main",
                "status",
                "scale",
                "token",
                "binding",
                "eviction",
                "log",
                "finalize",
                "..",
                "%2e%2e",
                "a%2Fb",
                "%00",
                "%FF",
                "%",
                "",
                "resize",
                "ephemeralcontainers",
                "exec",
            ])),
        }
    }
    path.replace(['?', '#'], "")
}

fn query(choices: &mut Choices<'_>) -> String {
    let keys = [
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "labelSelector",
        "fieldSelector",
        "watch",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "timeoutSeconds",
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
        "gracePeriodSeconds",
        "propagationPolicy",
        "includeObject",
        "timeout",
        "pretty",
        "sinceSeconds",
        "container",
    ];
    let values = [
        "",
        "1",
        "0",
        "-1",
        "x",
        "true",
        "false",
        "maybe",
        "All",
        "Strict",
        "Exact",
        "NotOlderThan",
        "a%3Db",
        "a+in+(b,c)",
        "metadata.name%3Dmain",
        "99999999999999999999",
        "%FF",
        "%zz",
        "Foreground",
        "Orphan",
        "Metadata",
    ];
    let mut query = String::new();
    for _ in 0..choices.below(5) {
        query.push_str(choices.one(&keys));
        query.push('=');
        match choices.below(8) {
            0 => {
                let token = match choices.below(3) {
                    0 => anything(choices, 2),
                    _ => json!({
                        "v": "meta.k8s.io/v1",
                        "rv": choices.one(&[-1, 0, 1, 2, 3, i64::MAX]),
                        "start": choices.one(&["main/main", "main", "/", "", "../x", "\0"]),
                    }),
                };
                query.push_str(&URL_SAFE_NO_PAD.encode(token.to_string()));
            }
            1 => query.extend(choices.text(16).chars().filter(char::is_ascii_graphic)),
            _ => query.push_str(choices.one(&values)),
        }
        query.push('&');
    }
    query.replace('#', "")
}

fn body(choices: &mut Choices<'_>) -> Vec<u8> {
    let kind = objects::kind(choices);
    match choices.below(8) {
        0 => anything(choices, 5).to_string().into_bytes(),
        1 => choices.text(60).into_bytes(),
        2 => object(kind, Manners::Bad, choices).to_string().into_bytes(),
        3 => object(kind, Manners::Patch, choices).to_string().into_bytes(),
        4 => Vec::new(),
        _ => object(kind, Manners::Good, choices).to_string().into_bytes(),
    }
}

async fn ask(service: &Service, choices: &mut Choices<'_>) {
    // Half of the bytes belong to objects; the path is of the same kind when the first choice is.
    let method = choices.one(&METHODS);
    let target = format!("{}?{}", path(choices), query(choices));
    let content_type = choices.one(&PATCHES);
    let mut request =
        Request::builder().method(method).uri(&target).header("content-type", content_type);
    if !choices.rarely(12) {
        request = request.header("authorization", format!("Bearer {TOKEN}"));
    }
    if choices.rarely(4) {
        request = request.header(
            "accept",
            choices.one(&[
                "application/json;as=Table;v=v1;g=meta.k8s.io",
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                "text/html",
                ";;;",
                "application/json;as=Frob",
            ]),
        );
    }
    let Ok(request) = request.body(Full::new(Bytes::from(body(choices)))) else { return };
    let before = service.store().revision();
    let answer = service.call(request).await;
    let code = answer.status().as_u16();
    let mut body = std::pin::pin!(answer.into_body());
    let mut bytes = Vec::new();
    // A stream says what it has to say at once, and is let go.
    while let Ok(Some(Ok(frame))) =
        tokio::time::timeout(Duration::from_millis(1), body.frame()).await
    {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        assert!(bytes.len() <= ANSWER_BYTES_MAX, "{method} {target}: {} bytes", bytes.len());
    }
    // Upstream's outer dispatcher knows nothing of the path, and says so in plain text; what is no
    // path does not get so far.
    if code == 404 && bytes == NOWHERE.as_bytes() || code == 400 && bytes == MALFORMED.as_bytes() {
        return;
    }
    if code >= 400 {
        let status: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{method} {target}: {code} is no Status: {error}"));
        assert_eq!(status["kind"], "Status", "{method} {target}: {status}");
        assert_eq!(status["code"], json!(code), "{method} {target}: {status}");
        // 500 without a reason is what upstream says of input that it did not foresee.
        assert_ne!(status["reason"], "InternalError", "{method} {target}: {status}");
        assert_eq!(service.store().revision(), before, "{method} {target}: refused, and written");
    }
}
