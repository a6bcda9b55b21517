//! The HTTP face from outside: real HTTP over loopback, on the catalog of a world.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use portolan_api::{Config, Parts, WAITS_MAX};
use portolan_catalog::Ack;
use portolan_model::{Face, FaceId, ServiceKey, Transport, name};
use portolan_runtime::{ManualClock, Metrics, Problems, Readiness, Shutdown, Tasks};
use portolan_testkit::{Live, World, cluster_ip, endpoint, headless, port};
use serde_json::Value;

/// Few, so that a test can open all of them.
const WATCHES_MAX: usize = 64;

/// Everything here answers in milliseconds; a test that hangs fails after this.
const PATIENCE: Duration = Duration::from_secs(10);

struct Api {
    live: Live,
    address: SocketAddr,
    http: reqwest::Client,
    tasks: Tasks,
    readiness: Readiness,
}

fn world() -> World {
    let web = ServiceKey::kubernetes("demo", "web");
    let http = vec![port("http", Transport::Tcp, 80)];
    let one = endpoint([127, 10, 0, 1].into(), &[("http", Transport::Tcp, 8080)]);
    let odd = endpoint([127, 10, 0, 2].into(), &[("", Transport::Tcp, 9090)]);
    World::new()
        .namespace("demo")
        .service(cluster_ip("demo", "web", &[[127, 96, 0, 1].into()], http))
        .endpoints("web-x", &web, vec![one])
        .registered("registry", "demo", "com.acme/Odd Näme", vec![odd])
}

async fn api() -> Api {
    rustls::crypto::ring::default_provider().install_default().ok();
    let live = Live::new(&world());
    let tasks = Tasks::new(Shutdown::new());
    let readiness = Readiness::new();
    let parts = Parts {
        hub: live.hub().clone(),
        clock: Arc::new(ManualClock::at(live.hub().snapshot().at_ms() + 300)),
        metrics: Metrics::new(),
        readiness: readiness.clone(),
        problems: Problems::default(),
        dns: None,
    };
    let config = Config {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        cluster_domain: "cluster.local".to_owned(),
        program_version: "1.2.3".to_owned(),
        watches_max: WATCHES_MAX,
        xds: None,
    };
    let running = portolan_api::start(config, parts, &tasks).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let api = Api { live, address: running.address, http, tasks, readiness };
    // The face's own member acknowledges in a task of its own.
    until("the api member", async || api.converged("svc/web").await).await;
    api
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, poll).await.is_ok(), "{what}");
}

impl Api {
    async fn text(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("http://{}{path}", self.address)).timeout(PATIENCE);
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.text(path).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    }

    async fn converged(&self, target: &str) -> bool {
        let path = format!("/v1/convergence?target={target}&namespace=demo");
        self.json(&path).await.1["converged"] == true
    }

    async fn watch(&self, query: &str, last: Option<&str>) -> Stream {
        let mut request = self.http.get(format!("http://{}/v1/watch?{query}", self.address));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{query}");
        Stream { answer, text: String::new() }
    }
}

/// One open stream, read event by event.
struct Stream {
    answer: reqwest::Response,
    text: String,
}

#[derive(Debug)]
struct Sent {
    kind: String,
    id: Option<String>,
    data: Value,
}

impl Stream {
    async fn next(&mut self) -> Sent {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim().to_owned())
                };
                if let Some(data) = field("data:") {
                    return Sent {
                        kind: field("event:").unwrap_or_default(),
                        id: field("id:"),
                        data: serde_json::from_str(&data).unwrap(),
                    };
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.answer.chunk()).await;
            let chunk = chunk.expect("an event in time").unwrap().expect("an open stream");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The kinds of events up to and with the next `synced`, whose id comes last.
    async fn until_synced(&mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        loop {
            let sent = self.next().await;
            let named = match sent.data.pointer("/service/name").or(sent.data.get("name")) {
                Some(named) => format!("{} {}", sent.kind, named.as_str().unwrap()),
                None => sent.kind.clone(),
            };
            // Only what a client may resume from has an id.
            assert_eq!(sent.id.is_some(), sent.kind == "synced", "{sent:?}");
            kinds.push(named);
            if let Some(id) = sent.id {
                kinds.push(id);
                return kinds;
            }
        }
    }
}

#[tokio::test]
async fn lists_have_the_envelope_and_instances_their_fields() {
    let api = api().await;
    let version = api.live.hub().snapshot().version().to_string();
    for path in [
        "/v1/services",
        "/v1/services/kubernetes/demo/web",
        "/v1/instances",
        "/v1/endpoints",
        "/v1/endpoints/kubernetes/demo/web",
        "/v1/workloads",
        "/v1/nodes",
        "/v1/sources",
        "/v1/versions",
        "/v1/codes",
    ] {
        let (status, page) = api.json(path).await;
        assert_eq!((status, page["version"].as_str()), (200, Some(&*version)), "{path}");
        assert_eq!(page["ageMs"], 300, "{path}");
        assert!(page["items"].is_array(), "{path}: {page}");
    }
    let (_, page) = api.json("/v1/instances?service=demo/web").await;
    let mut instance = page["items"][0].as_object().unwrap().clone();
    let expected = serde_json::json!({
        "origin": "kubernetes", "namespace": "demo", "service": "web", "name": "127.10.0.1",
        "address": "127.10.0.1", "port": 8080, "portName": "http", "protocol": "http",
        "state": "serving", "source": "kubernetes", "weight": 100, "metadata": {}, "reasons": [],
    });
    assert_eq!(Value::Object(instance.clone()), expected);
    // What is not known is absent, never null or zero.
    assert!(instance.remove("node").is_none());

    let (_, status) = api.json("/v1/status").await;
    assert_eq!(
        (&status["program"], &status["clusterDomain"]),
        (&"1.2.3".into(), &"cluster.local".into())
    );
}

#[tokio::test]
async fn names_in_paths_are_percent_encoded() {
    let api = api().await;
    let path = "/v1/services/registry/demo/com.acme%2FOdd%20N%C3%A4me";
    let (status, page) = api.json(path).await;
    assert_eq!((status, page["items"][0]["name"].as_str()), (200, Some("com.acme/Odd Näme")));
    let (status, _) = api.json("/v1/endpoints/registry/demo/com.acme%2FOdd%20N%C3%A4me").await;
    assert_eq!(status, 200);
    // Not encoded, the slash is one of the path's.
    assert_eq!(api.json("/v1/services/registry/demo/com.acme/Odd").await.0, 404);
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_what_was_expected() {
    let api = api().await;
    for (path, status, words) in [
        ("/v1/nothing", 404, "/v1/instances"),
        ("/v1/services/kubernetes/demo/none", 404, "portolan why svc/demo/none"),
        ("/v1/services/kubernetes/demo/%FF", 400, "percent-encoded"),
        ("/v1/services?nonsense=1", 400, "nonsense"),
        ("/v1/services?service=", 400, "NAMESPACE"),
        ("/v1/services?version=aaaa-1", 400, "/v1/watch"),
        ("/v1/services?labels=a%20b%20c", 400, "notin"),
        ("/v1/nodes?namespace=demo", 400, "namespace"),
        ("/v1/versions?x=1", 400, "x"),
        ("/v1/codes?x=1", 400, "x"),
        ("/v1/why", 400, "svc/NAME"),
        ("/v1/why?target=a/b/c", 400, "svc/NAME"),
        ("/v1/why?target=web&on=dns,smoke", 400, "console"),
        ("/v1/why?target=web&gone=true", 400, "gone"),
        ("/v1/why?target=web&from=demo/nobody", 404, "NAMESPACE/POD"),
        ("/v1/convergence?target=web&timeoutMs=soon", 400, "timeoutMs"),
        ("/v1/convergence?target=web&timeoutMs=-1", 400, "timeoutMs"),
        ("/v1/watch?version=yesterday", 400, "k3f9-1842"),
        ("/v1/watch?labels=%3D", 400, "notin"),
        ("/v1/watch?nonsense=1", 400, "nonsense"),
        ("/v1/watch?changes=yes", 400, "true or false"),
        ("/v1/watch?service=a&service=", 400, "NAMESPACE"),
        ("/v1/services?host=web", 400, "NAME.NAMESPACE.svc.DOMAIN"),
        ("/v1/services?host=web.demo.svc&namespace=other", 400, "rule out"),
        ("/v1/instances?port=0", 400, "1 to 65535"),
        ("/v1/instances?port=70000", 400, "1 to 65535"),
        ("/v1/instances?instanceLabels=a%20b%20c", 400, "instanceLabels"),
    ] {
        let (got, refusal) = api.json(path).await;
        assert_eq!((got, &refusal["status"]), (status, &status.into()), "{path}: {refusal}");
        assert!(refusal.to_string().contains(words), "{path}: {words:?} in {refusal}");
    }
    let posted = api.http.post(format!("http://{}/v1/services", api.address));
    let posted = posted.send().await.unwrap();
    assert_eq!(posted.status(), 405);
    assert_eq!(posted.headers()["allow"], "GET, HEAD");
    let refusal: Value = serde_json::from_str(&posted.text().await.unwrap()).unwrap();
    assert!(refusal["hint"].as_str().unwrap().contains("GET"), "{refusal}");
}

#[tokio::test]
async fn filters_narrow() {
    let mut api = api().await;
    let labelled = portolan_model::Service {
        labels: Arc::new(BTreeMap::from([(name("tier"), name("front"))])),
        ..headless("demo", "front", Vec::new())
    };
    api.live.set(&world().service(labelled));
    for (query, expected) in [
        ("", 3),
        ("?service=web", 1),
        ("?service=demo/web", 1),
        ("?service=kubernetes:demo/web", 1),
        ("?service=other/web", 0),
        ("?origin=registry", 1),
        ("?namespace=demo&origin=kubernetes", 2),
        ("?labels=tier%3Dfront", 1),
        ("?labels=tier%20in%20(front%2Cback)", 1),
        ("?labels=!tier", 2),
        ("?labels=tier!%3Dfront", 2),
    ] {
        let (_, page) = api.json(&format!("/v1/services{query}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), expected, "{query}: {page}");
    }
}

#[tokio::test]
async fn the_stream_resumes_without_loss_and_without_repetition() {
    let mut api = api().await;
    let mut stream = api.watch("", None).await;
    let first = stream.until_synced().await;
    assert_eq!(first[0], "reset");
    let told: BTreeSet<&str> = first[1..first.len() - 2].iter().map(String::as_str).collect();
    assert_eq!(told, BTreeSet::from(["upsert web", "upsert com.acme/Odd Näme"]));
    let held = first.last().unwrap().clone();

    // Two services change in one version, and one goes.
    let more = World::new()
        .namespace("demo")
        .service(headless("demo", "api", Vec::new()))
        .service(headless("demo", "web", Vec::new()));
    api.live.set(&more);
    let change = stream.until_synced().await;
    let kinds = ["upsert api", "upsert web", "remove com.acme/Odd Näme", "synced"];
    assert_eq!(change[..4], kinds);

    // One that was cut off after the first of them has seen no id, and resumes
    // from the version that it held: it gets all three.
    let mut cut = api.watch("", Some(&held)).await;
    assert_eq!(cut.until_synced().await, change);
    let mut cut = api.watch(&format!("version={held}"), None).await;
    assert_eq!(cut.until_synced().await, change);

    // One that has seen all of it gets nothing again, only what comes next.
    let mut whole = api.watch("", Some(change.last().unwrap())).await;
    api.live.set(&more.clone().service(headless("demo", "late", Vec::new())));
    assert_eq!(whole.until_synced().await[0], "upsert late");

    // A version of another life, or no version at all from a browser: anew.
    for last in ["zzzz-1", "nonsense"] {
        let mut foreign = api.watch("", Some(last)).await;
        assert_eq!(foreign.until_synced().await[0], "reset", "{last}");
    }
}

#[tokio::test]
async fn a_watch_of_some_hears_of_those_and_keeps_a_young_version() {
    let mut api = api().await;
    let mut stream = api.watch("service=demo/web&labels=!gone", None).await;
    let first = stream.until_synced().await;
    assert_eq!(first[..2], ["reset", "upsert web"]);
    // What does not concern it is not told, but that time passes is.
    for number in 0..300 {
        let other = headless("demo", &format!("other-{number}"), Vec::new());
        api.live.set(&world().service(other));
    }
    let bookmark = stream.until_synced().await;
    assert_eq!(bookmark[0], "synced");
    let seq = |version: &str| version.split_once('-').unwrap().1.parse::<u64>().unwrap();
    assert!(seq(bookmark.last().unwrap()) >= seq(first.last().unwrap()) + 256);
    // Out of the selection is removed.
    let labels = Arc::new(BTreeMap::from([(name("gone"), name("yes"))]));
    let web = portolan_model::Service { labels, ..headless("demo", "web", Vec::new()) };
    api.live.set(&world().service(web));
    assert_eq!(stream.until_synced().await[0], "remove web");
}

/// The discovery interface: a service by hostname, its instances by port and labels, those on a
/// node.
#[tokio::test]
async fn services_by_hostname_and_instances_by_port_labels_and_node() {
    let mut api = api().await;
    let web = ServiceKey::kubernetes("demo", "web");
    let of = |last: u8, node: &str, port: u16| portolan_model::Endpoint {
        node: Some(name(node)),
        target: Some(portolan_model::ObjectName::new("demo", &format!("web-{last}"))),
        particulars: portolan_model::Particular {
            metadata: Some(Arc::new(BTreeMap::from([(
                name("version"),
                name(&format!("v{last}")),
            )]))),
            ..Default::default()
        }
        .into(),
        ..endpoint(
            [127, 10, 0, last].into(),
            &[("http", Transport::Tcp, port), ("admin", Transport::Tcp, 9)],
        )
    };
    let ports = vec![port("http", Transport::Tcp, 80), port("admin", Transport::Tcp, 81)];
    let more = World::new()
        .namespace("demo")
        .service(cluster_ip("demo", "web", &[[127, 96, 0, 1].into()], ports))
        .endpoints("web-x", &web, vec![of(1, "n1", 8080), of(2, "n2", 8081)])
        .registered("registry", "demo", "com.acme.Odd", vec![of(3, "n1", 7000)]);
    api.live.set(&more);
    for (query, expected) in [
        (
            "host=web.demo.svc.cluster.local",
            "127.10.0.1:8080 127.10.0.1:9 127.10.0.2:8081 127.10.0.2:9",
        ),
        ("host=WEB.demo.svc&port=80", "127.10.0.1:8080 127.10.0.2:8081"),
        ("host=web.demo.svc&port=admin", "127.10.0.1:9 127.10.0.2:9"),
        // The port in front, not the one behind.
        ("host=web.demo.svc&port=8080", ""),
        ("host=com.acme.odd.demo.registry.cluster.local&port=7000", "127.10.0.3:7000"),
        ("host=none.demo.svc", ""),
        ("service=web&port=http&instanceLabels=version%3Dv2", "127.10.0.2:8081"),
        ("service=web&instanceLabels=version%20notin%20(v1%2Cv2)", ""),
        ("node=n1&port=http", "127.10.0.1:8080 127.10.0.3:7000"),
        ("node=n1&origin=registry&port=http", "127.10.0.3:7000"),
        ("node=n9", ""),
    ] {
        let (status, page) = api.json(&format!("/v1/instances?{query}")).await;
        assert_eq!(status, 200, "{query}: {page}");
        let found: Vec<String> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{}:{}", one["address"].as_str().unwrap(), one["port"]))
            .collect();
        assert_eq!(found.join(" "), expected, "{query}");
    }
    let (_, page) = api.json("/v1/services?host=web.demo.svc.cluster.local").await;
    let names: Vec<&str> =
        page["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web"]);
}

/// One stream for several services, which tells only the instances that differ.
#[tokio::test]
async fn a_watch_of_changes_tells_what_differs_and_leads_to_the_same() {
    let mut api = api().await;
    let endpoints = |lasts: &[(u8, bool)]| -> Vec<portolan_model::Endpoint> {
        lasts
            .iter()
            .map(|(last, ready)| {
                let mut one = endpoint([127, 10, 0, *last].into(), &[("http", Transport::Tcp, 80)]);
                one.conditions.ready = *ready;
                one
            })
            .collect()
    };
    let with =
        |a: &[(u8, bool)], b: &[(u8, bool)]| {
            World::new()
                .namespace("demo")
                .registered("registry", "demo", "a", endpoints(a))
                .registered("registry", "demo", "b", endpoints(b))
        };
    api.live.set(&with(&[(1, true), (2, true)], &[(9, true)]));
    let query = "service=registry:demo/a&service=registry:demo/b&service=demo/web&changes=true";
    let mut stream = api.watch(query, None).await;
    let first = stream.until_synced().await;
    let told: BTreeSet<&str> = first[1..first.len() - 2].iter().map(String::as_str).collect();
    assert_eq!(told, BTreeSet::from(["upsert a", "upsert b"]));
    let addresses = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| {
                format!("{} {}", one["address"].as_str().unwrap(), one["state"].as_str().unwrap())
            })
            .collect()
    };
    // One changes, one comes, one goes; b and the rest stay.
    api.live.set(&with(&[(1, false), (3, true)], &[(9, true)]));
    let change = stream.next().await;
    assert_eq!((change.kind.as_str(), &change.data["name"]), ("change", &"a".into()));
    let put = addresses(&change.data["put"]);
    assert_eq!(put.len(), 2, "{put:?}");
    assert!(put[0].starts_with("127.10.0.1 ") && put[1] == "127.10.0.3 serving", "{put:?}");
    assert_eq!(change.data["gone"][0]["address"], "127.10.0.2");
    assert_ne!(change.data["put"][0]["reasons"], serde_json::json!([]));
    assert_eq!(stream.until_synced().await[0], "synced");
    // What follows at once comes together: the newest state of each, and no reasons where those
    // are not wanted.
    let mut brief = api.watch(&format!("{query}&brief=true"), None).await;
    let (mut told, mut kind) = (Vec::new(), String::new());
    while kind != "synced" {
        let sent = brief.next().await;
        told.extend(sent.data["instances"].as_array().into_iter().flatten().cloned());
        kind = sent.kind;
    }
    assert!(told.iter().any(|one| one["state"] != "serving"), "{told:?}");
    assert!(told.iter().all(|one| one["reasons"] == serde_json::json!([])), "{told:?}");
    for ready in [true, false, true] {
        api.live.set(&with(&[(1, ready), (3, true)], &[(9, true)]));
    }
    let mut last = Value::Null;
    while last != "serving" {
        let sent = brief.next().await;
        last = sent.data["put"][0]["state"].clone();
    }
    // A service that is new is told whole, one without instances is gone.
    api.live.set(&world());
    let mut kinds = Vec::new();
    while !["upsert web", "remove a"].iter().all(|kind| kinds.iter().any(|one| one == kind)) {
        kinds.extend(stream.until_synced().await);
    }
}

#[tokio::test]
async fn watches_and_waits_have_a_limit_and_give_back() {
    let api = api().await;
    let mut open = Vec::new();
    for _ in 0..WATCHES_MAX {
        open.push(api.watch("", None).await);
    }
    let (status, refusal) = api.json("/v1/watch").await;
    assert_eq!(status, 503, "{refusal}");
    drop(open);
    until("a place for a watch", async || {
        let answer = api.http.get(format!("http://{}/v1/watch", api.address)).send().await;
        answer.unwrap().status() == 200
    })
    .await;

    let path = "/v1/convergence?target=svc/never&timeoutMs=300000";
    let waits: Vec<_> = (0..WAITS_MAX)
        .map(|_| tokio::spawn(api.http.get(format!("http://{}{path}", api.address)).send()))
        .collect();
    until("waits are refused", async || api.text("/v1/convergence?target=svc/web").await.0 == 503)
        .await;
    // Plain reading goes on.
    assert_eq!(api.text("/v1/services").await.0, 200);
    for wait in waits {
        wait.abort();
    }
    until("a place for a wait", async || api.text("/v1/convergence?target=svc/web").await.0 == 200)
        .await;
}

#[tokio::test]
async fn a_wait_returns_when_the_last_member_serves_it() {
    let mut api = api().await;
    let slow = FaceId { face: Face::Dns, member: name("slow") };
    let ack = |live: &Live, version| {
        live.hub().board().acknowledge(&slow, Ack { version, at_ms: 1, residue_ms: 0 });
    };
    let before = api.live.hub().snapshot().version();
    ack(&api.live, before);
    api.live.set(&world().service(headless("demo", "fresh", Vec::new())));
    // `fresh` is in no namespace that was named: the only one that has it counts.
    let (_, now) = api.json("/v1/convergence?target=svc/fresh&on=dns").await;
    assert_eq!((&now["present"], &now["converged"]), (&true.into(), &false.into()), "{now}");
    assert_eq!(now["members"][0]["id"], "dns/slow");
    assert_eq!(now["members"][0]["version"], before.to_string());

    let url = format!("http://{}/v1/convergence?target=svc/fresh&timeoutMs=10000", api.address);
    let wait = tokio::spawn(api.http.get(url).timeout(PATIENCE).send());
    ack(&api.live, api.live.hub().snapshot().version());
    let answer: Value =
        serde_json::from_str(&wait.await.unwrap().unwrap().text().await.unwrap()).unwrap();
    assert_eq!(answer["converged"], true, "{answer}");
}

#[tokio::test]
async fn a_wait_for_what_is_gone_ends_in_a_busy_catalog() {
    let mut api = api().await;
    let late = FaceId { face: Face::Dns, member: name("late") };
    api.live.hub().board().join(late.clone());
    let url =
        format!("http://{}/v1/convergence?target=svc/none&gone=true&timeoutMs=10000", api.address);
    let wait = tokio::spawn(api.http.get(url).timeout(PATIENCE).send());
    // A member that is always some versions behind, of a catalog that never rests.
    let mut wait = wait;
    let mut versions = std::collections::VecDeque::new();
    let ended = async {
        for number in 0.. {
            let other = headless("demo", &format!("other-{number}"), Vec::new());
            versions.push_back(api.live.set(&world().service(other)).version());
            if versions.len() > 3
                && let Some(version) = versions.pop_front()
            {
                let ack = Ack { version, at_ms: 1, residue_ms: 5000 };
                api.live.hub().board().acknowledge(&late, ack);
            }
            if tokio::time::timeout(Duration::from_millis(2), &mut wait).await.is_ok() {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, ended).await.is_ok(), "the goal moves away for ever");
}

#[tokio::test]
async fn a_wait_finds_what_comes_up_in_another_namespace() {
    let mut api = api().await;
    let url = format!("http://{}/v1/convergence?target=svc/later&timeoutMs=10000", api.address);
    let wait = tokio::spawn(api.http.get(url).timeout(PATIENCE).send());
    until("the wait has begun", async || {
        api.live.set(&world().service(headless("far", "later", Vec::new())));
        wait.is_finished()
    })
    .await;
    let text = wait.await.unwrap().unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&answer["target"], &answer["converged"]),
        (&"service far/later".into(), &true.into())
    );
}

/// OpenMetrics: each family is described once, before its samples, and the text
/// ends with the mark of its end.
#[tokio::test]
async fn metrics_are_valid_open_metrics() {
    let api = api().await;
    for number in 0..3 {
        let id = FaceId { face: Face::Dns, member: name(&format!("udp-{number}")) };
        api.live.hub().board().join(id);
    }
    let (status, text) = api.text("/metrics").await;
    assert_eq!(status, 200);
    let mut families: BTreeSet<&str> = BTreeSet::new();
    let mut current = "";
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("TYPE"), Some(family)) => {
                assert!(families.insert(family), "{family} is described twice:\n{text}");
            }
            (Some("#"), Some("HELP"), Some(family)) => current = family,
            (Some("#"), _, _) => {}
            (Some(sample), Some(value), None) => {
                let family = sample.split('{').next().unwrap();
                assert!(family.starts_with(current), "{line} stands under {current}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
            other => panic!("{line:?}: {other:?}"),
        }
    }
    assert_eq!(text.matches("portolan_face_versions_behind{member=").count(), 4, "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_and_readiness() {
    let api = api().await;
    assert_eq!(api.text("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(api.text("/readyz").await, (200, "ok\n".to_owned()));
    let guard = api.readiness.block("the moon is not full");
    let (status, text) = api.text("/readyz").await;
    assert_eq!((status, text.contains("moon")), (503, true));
    assert_eq!(api.text("/healthz").await.0, 200, "alive all the same");
    drop(guard);
    assert_eq!(api.text("/readyz").await.0, 200);
}

#[tokio::test]
async fn it_ends_with_open_streams_and_leaves_the_board() {
    let api = api().await;
    let _stream = api.watch("", None).await;
    api.tasks.shutdown().cancel();
    let ended = tokio::time::timeout(PATIENCE, api.tasks.finish(PATIENCE * 2)).await;
    assert!(ended.is_ok(), "an open stream holds the end up");
    assert!(api.live.hub().board().members().is_empty());
}

#[tokio::test]
async fn it_listens_on_loopback_only_and_tells_who_has_the_port() {
    let api = api().await;
    for (listen, words) in [
        (SocketAddr::from(([0, 0, 0, 0], 0)), "loopback"),
        (api.address, "cannot listen on 127.0.0.1"),
    ] {
        let parts = Parts {
            hub: api.live.hub().clone(),
            clock: Arc::new(ManualClock::at(0)),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            problems: Problems::default(),
            dns: None,
        };
        let config = Config {
            listen,
            cluster_domain: "cluster.local".to_owned(),
            program_version: String::new(),
            watches_max: WATCHES_MAX,
            xds: None,
        };
        let refused = portolan_api::start(config, parts, &api.tasks).await;
        let text = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(words), "{listen}: {text}");
    }
}
