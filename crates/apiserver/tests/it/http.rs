//! What clients see on the wire, beyond what kubectl shows.

use portolan_apiserver::{Config, kinds, store};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, DEADLINE, Events, answer};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": name}})
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_refusal_is_a_status() {
    let api = Api::start().await;
    api.create(&kinds::CONFIG_MAPS, "default", config_map("there")).await.unwrap();
    let there = format!("{CONFIG_MAPS}/there");
    for (method, path, body, code, reason) in [
        (Method::GET, "/api/v1/nothing", None, 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/configmaps/x", None, 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/pods/x/exec", None, 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/pods/x/proxy", None, 501, "NotImplemented"),
        (Method::POST, &there, Some("{}"), 405, "MethodNotAllowed"),
        (Method::PUT, CONFIG_MAPS, Some("{}"), 405, "MethodNotAllowed"),
        (Method::POST, CONFIG_MAPS, Some("{"), 400, "BadRequest"),
        (Method::POST, CONFIG_MAPS, Some("[]"), 400, "BadRequest"),
        (Method::POST, CONFIG_MAPS, Some(r#"{"kind":"Pod","apiVersion":"v1"}"#), 400, "BadRequest"),
        (
            Method::POST,
            CONFIG_MAPS,
            Some(r#"{"metadata":{"name":"a","namespace":"b"}}"#),
            400,
            "BadRequest",
        ),
        (Method::POST, CONFIG_MAPS, Some(r#"{"metadata":{"name":"there"}}"#), 409, "AlreadyExists"),
        (Method::POST, CONFIG_MAPS, Some(r#"{"metadata":{"name":"Not A Name"}}"#), 422, "Invalid"),
        (Method::POST, CONFIG_MAPS, Some(r#"{"metadata":{"name":7}}"#), 400, "BadRequest"),
        (
            Method::POST,
            CONFIG_MAPS,
            Some(r#"{"metadata":{"name":"a"},"data":{"k":1}}"#),
            400,
            "BadRequest",
        ),
        (Method::PUT, &there, Some(r#"{"metadata":{"name":"other"}}"#), 400, "BadRequest"),
        (
            Method::PUT,
            &there,
            Some(r#"{"metadata":{"name":"there","resourceVersion":"1"}}"#),
            409,
            "Conflict",
        ),
        (Method::GET, "/api/v1/configmaps?labelSelector=a%3D%3D%3Db", None, 400, "BadRequest"),
        (Method::GET, "/api/v1/configmaps?fieldSelector=spec.x%3Db", None, 400, "BadRequest"),
        (Method::GET, "/api/v1/configmaps?limit=x", None, 400, "BadRequest"),
        (Method::GET, "/api/v1/configmaps?continue=nonsense", None, 400, "BadRequest"),
        (Method::GET, "/api/v1/configmaps?resourceVersion=999999", None, 504, "Timeout"),
        (Method::DELETE, &format!("{there}?propagationPolicy=Wrong"), None, 422, "Invalid"),
        (Method::DELETE, &format!("{there}?dryRun=Some"), None, 422, "Invalid"),
    ] {
        let mut request = api.request(method.clone(), path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let (found, status) = answer(request).await;
        assert_eq!(
            (found, &status["reason"]),
            (code, &json!(reason)),
            "{method} {path} {body:?}: {status}"
        );
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], code);
    }
    for (content_type, code) in [("application/xml", 415), ("application/cbor", 415)] {
        let request =
            api.request(Method::POST, CONFIG_MAPS).header("content-type", content_type).body("x");
        assert_eq!(answer(request).await.0, code);
        let request =
            api.request(Method::PATCH, &there).header("content-type", content_type).body("x");
        assert_eq!(answer(request).await.0, code);
    }
    let request = api.request(Method::GET, CONFIG_MAPS).header("accept", "text/html");
    assert_eq!(answer(request).await.0, 406);
    let (_, list) = api.get(CONFIG_MAPS).await;
    assert_eq!(names(&list), ["there"], "nothing refused was stored");
}

/// As upstream's outer dispatcher says it, which knows no Status.
#[tokio::test]
async fn where_nothing_is_plain_text_says_so() {
    let api = Api::start().await;
    for path in ["/nowhere", "/apis/no.group/v1/things"] {
        let answer = api.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(answer.text().await.unwrap(), "404 page not found\n", "{path}");
    }
}

#[tokio::test]
async fn nobody_is_anonymous() {
    let api = Api::start().await;
    let url = |path: &str| format!("https://{}{path}", api.running.address);
    for (path, code) in [
        ("/api/v1/pods", 401),
        ("/apis", 401),
        ("/version", 200),
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz", 200),
    ] {
        assert_eq!(answer(api.client.get(url(path))).await.0, code, "{path}");
        let wrong = api.client.get(url(path)).bearer_auth("wrong");
        assert_eq!(answer(wrong).await.0, code, "{path}");
    }
}

#[tokio::test]
async fn bodies_have_limits() {
    let api = Api::start().await;
    let huge = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{}"}}}}"#, "x".repeat(3 << 20));
    let request = api
        .request(Method::POST, CONFIG_MAPS)
        .header("content-type", "application/json")
        .body(huge);
    let (code, status) = answer(request).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    let large = json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(2 << 20)}});
    let (code, _) = api.ask(Method::POST, CONFIG_MAPS, Some(large)).await;
    assert!(matches!(code, 413 | 422), "{code}");
    let (code, _) = api.get(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn lists_come_in_consistent_chunks() {
    let api = Api::start().await;
    for index in 0..7 {
        api.create(&kinds::CONFIG_MAPS, "default", config_map(&format!("c{index}"))).await.unwrap();
    }
    let (_, first) = api.get(&format!("{CONFIG_MAPS}?limit=3")).await;
    assert_eq!(names(&first), ["c0", "c1", "c2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    assert!(first["items"][0].get("kind").is_none(), "items carry no type, as upstream's");
    // What changes in between does not show.
    api.create(&kinds::CONFIG_MAPS, "default", config_map("c3a")).await.unwrap();
    assert_eq!(api.ask(Method::DELETE, &format!("{CONFIG_MAPS}/c4"), None).await.0, 200);
    let mut seen = vec!["c0".to_owned(), "c1".into(), "c2".into()];
    let mut list = first.clone();
    while let Some(token) = list["metadata"]["continue"].as_str() {
        let (code, next) = api.get(&format!("{CONFIG_MAPS}?limit=3&continue={token}")).await;
        assert_eq!(code, 200, "{next}");
        assert_eq!(next["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        seen.extend(names(&next).into_iter().map(str::to_owned));
        list = next;
    }
    assert_eq!(seen, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(names(&api.get(&exact).await.1).len(), 7);
    let (_, selected) =
        api.get(&format!("{CONFIG_MAPS}?limit=2&fieldSelector=metadata.name!%3Dc0")).await;
    assert_eq!(names(&selected), ["c1", "c2"]);
    assert!(selected["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn a_continue_token_outlives_its_history() {
    let config = Config {
        store: store::Options { history_events: 2, ..store::Options::default() },
        ..Config::default()
    };
    let api = Api::start_with(config).await;
    for index in 0..4 {
        api.create(&kinds::CONFIG_MAPS, "default", config_map(&format!("c{index}"))).await.unwrap();
    }
    let (_, first) = api.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    for index in 4..8 {
        api.create(&kinds::CONFIG_MAPS, "default", config_map(&format!("c{index}"))).await.unwrap();
    }
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (code, status) = api.get(&format!("{CONFIG_MAPS}?limit=9&continue={token}")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let token = status["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = api.get(&format!("{CONFIG_MAPS}?limit=9&continue={token}")).await;
    assert_eq!(code, 200);
    assert_eq!(names(&rest), ["c2", "c3", "c4", "c5", "c6", "c7"]);

    // Both forms of 410: an event for a watch, a Status for a list.
    let old = first["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={old}");
    let mut events = Events::open(api.request(Method::GET, &path)).await;
    let event = events.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(events.next().await, None);
    let exact = format!("{CONFIG_MAPS}?resourceVersion={old}&resourceVersionMatch=Exact");
    assert_eq!(api.get(&exact).await.0, 410);
}

#[tokio::test]
async fn a_watch_streams_what_happens_in_its_view() {
    let api = Api::start().await;
    let labelled =
        |name: &str, app: &str| json!({"metadata": {"name": name, "labels": {"app": app}}});
    api.create(&kinds::CONFIG_MAPS, "default", labelled("a", "x")).await.unwrap();
    let path = format!("{CONFIG_MAPS}?watch=true&labelSelector=app%3Dx");
    let mut events = Events::open(api.request(Method::GET, &path)).await;
    assert_eq!(events.next_name().await, ("ADDED".into(), "a".into()), "what exists comes first");
    api.create(&kinds::CONFIG_MAPS, "default", labelled("b", "y")).await.unwrap();
    let relabel = |name: &'static str, app: &'static str| {
        let patch = json!({"metadata": {"labels": {"app": app}}});
        answer(
            api.request(Method::PATCH, &format!("{CONFIG_MAPS}/{name}"))
                .header("content-type", "application/merge-patch+json")
                .body(patch.to_string()),
        )
    };
    relabel("b", "x").await;
    assert_eq!(events.next_name().await, ("ADDED".into(), "b".into()), "it enters the view");
    let (_, left) = relabel("a", "y").await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "DELETED", "it leaves the view");
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "x", "shown as it last was");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    api.ask(Method::DELETE, &format!("{CONFIG_MAPS}/a"), None).await;
    api.ask(Method::DELETE, &format!("{CONFIG_MAPS}/b"), None).await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["metadata"]["name"]),
        (&json!("DELETED"), &json!("b"))
    );
    assert_eq!(event["object"]["kind"], "ConfigMap");
}

#[tokio::test]
async fn watch_lists_end_with_a_bookmark() {
    let api = Api::start().await;
    api.create(&kinds::CONFIG_MAPS, "default", config_map("a")).await.unwrap();
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=3"
    );
    let mut events = Events::open(api.request(Method::GET, &path)).await;
    assert_eq!(events.next_name().await.0, "ADDED");
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let revision: u64 =
        mark["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert_eq!(revision, api.running.registry.store().revision());
    // It ends by its timeout, with a bookmark before.
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert_eq!(last.unwrap()["type"], "BOOKMARK");
    for (query, code) in [
        ("sendInitialEvents=true", 422),
        ("resourceVersionMatch=NotOlderThan", 422),
        (
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1&resourceVersion=99999",
            504,
        ),
    ] {
        assert_eq!(api.get(&format!("{CONFIG_MAPS}?watch=1&{query}")).await.0, code, "{query}");
    }
}

#[tokio::test]
async fn tables_and_metadata_on_request() {
    let api = Api::start().await;
    api.create(&kinds::CONFIG_MAPS, "default", config_map("a")).await.unwrap();
    let get =
        |path: &str, accept: &str| answer(api.request(Method::GET, path).header("accept", accept));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, shown) = get(CONFIG_MAPS, table).await;
    assert_eq!(shown["kind"], "Table");
    assert_eq!(shown["rows"][0]["cells"][0], "a");
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, shown) = get(&format!("{CONFIG_MAPS}/a?includeObject=Object"), table).await;
    assert_eq!(shown["rows"][0]["object"]["data"]["k"], "a");
    let (_, shown) =
        get(CONFIG_MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(shown["kind"], "PartialObjectMetadataList");
    assert!(shown["items"][0].get("data").is_none());
    let request =
        api.request(Method::GET, &format!("{CONFIG_MAPS}?watch=1")).header("accept", table);
    let mut events = Events::open(request).await;
    let first = events.next().await.unwrap();
    assert!(first["object"]["columnDefinitions"].is_array());
    api.create(&kinds::CONFIG_MAPS, "default", config_map("b")).await.unwrap();
    let second = events.next().await.unwrap();
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    assert!(second["object"]["columnDefinitions"].is_null(), "columns come once");
}

#[tokio::test]
async fn a_pod_token_reads_and_registers_and_no_more() {
    let api = Api::start().await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    let mine = api.create(&kinds::PODS, "default", pod("mine")).await.unwrap();
    api.create(&kinds::PODS, "default", pod("other")).await.unwrap();
    let uid = mine["metadata"]["uid"].as_str().unwrap();
    let token = api.running.registry.mint_pod_token("default", "mine", uid);
    let pods = "/api/v1/namespaces/default/pods";
    let ask = |method: Method, path: String, body: Value| {
        let request = api
            .request_as(&token, method, &path)
            .header("content-type", "application/merge-patch+json")
            .body(body.to_string());
        answer(request)
    };
    let register = json!({"metadata": {"labels": {"app.io/label": "app.io-value"}}});
    for (method, path, body, code) in [
        (Method::GET, pods.to_owned(), Value::Null, 200),
        (Method::GET, "/api/v1/namespaces/default/secrets".to_owned(), Value::Null, 403),
        (Method::PATCH, format!("{pods}/mine"), register.clone(), 200),
        (Method::PATCH, format!("{pods}/mine"), json!({"metadata": {"labels": {"app": "x"}}}), 403),
        (Method::PATCH, format!("{pods}/other"), register.clone(), 403),
        (Method::PATCH, format!("{pods}/mine/status"), json!({"status": {"phase": "Failed"}}), 403),
        (Method::DELETE, format!("{pods}/mine"), Value::Null, 403),
        (Method::POST, pods.to_owned(), pod("new"), 403),
        (Method::DELETE, pods.to_owned(), Value::Null, 403),
    ] {
        let (found, status) = ask(method.clone(), path.clone(), body).await;
        assert_eq!(found, code, "{method} {path}: {status}");
    }
    // Another Pod of the same name is not its Pod, and without the Pod there is no token.
    assert_eq!(api.ask(Method::DELETE, &format!("{pods}/mine"), None).await.0, 200);
    assert_eq!(ask(Method::GET, pods.to_owned(), Value::Null).await.0, 401);
    api.create(&kinds::PODS, "default", pod("mine")).await.unwrap();
    assert_eq!(ask(Method::PATCH, format!("{pods}/mine"), register).await.0, 401);
}

#[tokio::test]
async fn state_and_secrets_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { data_dir: Some(folder.path().join("data")), ..Config::default() };
    let first = Api::start_with(config.clone()).await;
    first.create(&kinds::CONFIG_MAPS, "default", config_map("kept")).await.unwrap();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    first.create(&kinds::SERVICES, "default", service).await.unwrap();
    let (token, ca) = (first.running.admin_token.clone(), first.running.ca_pem.clone());
    first.shutdown.cancel();
    first.running.finish().await;
    let second = Api::start_with(config).await;
    assert_eq!((&second.running.admin_token, &second.running.ca_pem), (&token, &ca));
    assert_eq!(second.get(&format!("{CONFIG_MAPS}/kept")).await.0, 200);
    assert_eq!(second.running.registry.allocators().held(), (1, 0));
}

#[tokio::test]
async fn http_1_is_spoken_too() {
    let api = Api::start().await;
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(api.running.ca_pem.as_bytes()).unwrap()])
        .http1_only()
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/api/v1/namespaces", api.running.address.port());
    let (code, list) = answer(client.get(url).bearer_auth(&api.running.admin_token)).await;
    assert_eq!((code, &list["kind"]), (200, &json!("NamespaceList")));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let api = Api::start().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let object = json!({"metadata": {"name": name, "labels": {"app": app}}});
        api.create(&kinds::CONFIG_MAPS, "default", object).await.unwrap();
    }
    let (code, gone) =
        api.ask(Method::DELETE, &format!("{CONFIG_MAPS}?labelSelector=app%3Dx"), None).await;
    assert_eq!((code, names(&gone)), (200, vec!["a", "b"]));
    assert_eq!(names(&api.get(CONFIG_MAPS).await.1), ["c"]);
}

#[tokio::test]
async fn tokens_are_reviewed() {
    let api = Api::start().await;
    api.create(&kinds::SERVICE_ACCOUNTS, "default", json!({"metadata": {"name": "sa"}}))
        .await
        .unwrap();
    let request = json!({"spec": {"audiences": ["there"], "expirationSeconds": 600}});
    let path = "/api/v1/namespaces/default/serviceaccounts/sa/token";
    let (code, made) = api.ask(Method::POST, path, Some(request)).await;
    assert_eq!(code, 201, "{made}");
    let token = made["status"]["token"].as_str().unwrap();
    let review = |audience: &str| json!({"spec": {"token": token, "audiences": [audience]}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, answer) = api.ask(Method::POST, path, Some(review("there"))).await;
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:sa");
    let (_, answer) = api.ask(Method::POST, path, Some(review("elsewhere"))).await;
    assert!(answer["status"].get("authenticated").is_none());
    let short = json!({"spec": {"expirationSeconds": 5}});
    let path = "/api/v1/namespaces/default/serviceaccounts/sa/token";
    assert_eq!(api.ask(Method::POST, path, Some(short)).await.0, 422);
}

#[tokio::test]
async fn eviction_and_binding() {
    let api = Api::start().await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    api.create(&kinds::PODS, "default", pod).await.unwrap();
    let path = "/api/v1/namespaces/default/pods/p";
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(
        api.ask(Method::POST, &format!("{path}/binding"), Some(binding.clone())).await.0,
        201
    );
    assert_eq!(api.get(path).await.1["spec"]["nodeName"], "n");
    assert_eq!(api.ask(Method::POST, &format!("{path}/binding"), Some(binding)).await.0, 409);
    let (code, status) = api.get(&format!("{path}/log")).await;
    assert_eq!((code, &status["message"]), (404, &json!("pods \"n\" not found")));
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(api.ask(Method::POST, &format!("{path}/eviction"), Some(eviction)).await.0, 201);
    assert_eq!(api.get(path).await.0, 404);
}

#[tokio::test]
async fn endpoints_are_deprecated_and_served() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/endpoints";
    let response = api.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert!(warning.starts_with("299 - \"v1 Endpoints is deprecated"), "{warning}");
}

#[tokio::test]
async fn invalid_objects_name_every_field() {
    let api = Api::start().await;
    let wrong = json!({
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 99999}], "type": "Nonsense", "selector": {"a": "b"}},
    });
    let path = "/api/v1/namespaces/default/services";
    let (code, status) = api.ask(Method::POST, path, Some(wrong)).await;
    assert_eq!(code, 422, "{status}");
    let causes = status["details"]["causes"].as_array().unwrap();
    let fields: Vec<_> = causes.iter().map(|c| c["field"].as_str().unwrap()).collect();
    assert!(fields.contains(&"spec.ports[0].port") && fields.contains(&"spec.type"), "{fields:?}");
    assert_eq!(api.running.registry.allocators().held(), (0, 0));
    assert_eq!(api.get(&format!("{path}/web")).await.0, 404);
}

#[tokio::test]
async fn cluster_ips_have_objects() {
    let api = Api::start().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let made = api.create(&kinds::SERVICES, "default", service).await.unwrap();
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{address}");
    let until = async |code: u16| loop {
        let (found, object) = api.get(&path).await;
        if found == code {
            return object;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let object = tokio::time::timeout(DEADLINE, until(200)).await.unwrap();
    assert_eq!(object["spec"]["parentRef"]["name"], "s");
    api.ask(Method::DELETE, "/api/v1/namespaces/default/services/s", None).await;
    tokio::time::timeout(DEADLINE, until(404)).await.unwrap();
}
