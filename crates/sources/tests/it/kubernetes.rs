//! The Kubernetes source: listings, watches, and everything that breaks them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use portolan_dialects::{Dialect, app, list};
use portolan_model::{Code, Fact, FactKey, ObjectName};
use portolan_runtime::{Clock, Shutdown, SystemClock, Tasks};
use portolan_sources::kubernetes::{self, Config, Kinds};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{fake::Fake, mirror::Mirror};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PODS: &str = "/api/v1/pods";
const NODES: &str = "/api/v1/nodes";
const NAMESPACES: &str = "/api/v1/namespaces";

async fn config(fake: &Fake) -> Config {
    let client = kubernetes::connect(Some(fake.kubeconfig.path())).await.unwrap();
    Config::new(client)
}

fn start(config: Config) -> (Mirror, Tasks) {
    let (sink, mirror) = Mirror::new();
    let tasks = Tasks::new(Shutdown::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    kubernetes::start(config, &sink, &clock, &tasks);
    (mirror, tasks)
}

async fn finish(tasks: Tasks) {
    tasks.shutdown().cancel();
    tasks.finish(Duration::from_secs(30)).await;
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    })
}

fn pod(name: &str, annotation: Option<&str>) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app.io/label": "app.io-value"}},
        "status": {"phase": "Running", "podIP": "10.0.0.5", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    if let Some(annotation) = annotation {
        pod["metadata"]["annotations"] = json!({"app.io/annotation": annotation});
    }
    pod
}

fn registered(interfaces: &[&str]) -> String {
    let items: Vec<Value> = interfaces
        .iter()
        .map(|name| list::item((*name).to_owned(), "http://10.0.0.5:80".to_owned()))
        .collect();
    list::write(&items)
}

#[tokio::test]
async fn lists_every_kind_and_follows_it() {
    let fake = Fake::start().await;
    // More than a page.
    for i in 0..7 {
        fake.put(SERVICES, service(&format!("s{i}")));
    }
    fake.put(NODES, json!({"metadata": {"name": "n1"}}));
    fake.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
    fake.put(PODS, pod("p1", Some(&registered(&["reviews"]))));
    fake.put(
        SLICES,
        json!({
            "metadata": {"name": "s0-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s0"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.5"]}], "ports": [{"port": 80}],
        }),
    );
    let config = config(&fake).await;
    let parts: BTreeSet<(String, String)> = kubernetes::parts(&config)
        .into_iter()
        .flat_map(|(source, parts)| {
            parts.into_iter().map(move |part| (source.to_string(), part.to_string()))
        })
        .collect();
    let (mut mirror, tasks) = start(config);
    mirror
        .until("all parts complete", |m| {
            m.complete.keys().cloned().collect::<BTreeSet<_>>() == parts
        })
        .await;
    assert_eq!(parts.len(), 6);
    for i in 0..7 {
        assert!(mirror.has(&format!("kubernetes service shop/s{i}")));
    }
    for key in [
        "kubernetes node n1",
        "kubernetes namespace shop",
        "kubernetes pod shop/p1",
        "kubernetes endpoints shop/s0-x",
        "pods endpoints shop/p1#reviews",
    ] {
        assert!(mirror.has(key), "{key} {:?}", mirror.keys());
    }

    fake.delete(SERVICES, "shop", "s3");
    fake.put(SERVICES, service("late"));
    mirror
        .until("a change", |m| {
            m.has("kubernetes service shop/late") && !m.has("kubernetes service shop/s3")
        })
        .await;
    finish(tasks).await;
}

#[tokio::test]
async fn what_a_pod_no_longer_registers_is_gone() {
    let fake = Fake::start().await;
    let (mut mirror, tasks) = start(config(&fake).await);
    fake.put(PODS, pod("p1", Some(&registered(&["a", "b"]))));
    mirror.until("both", |m| m.has("pods endpoints shop/p1#b")).await;
    fake.put(PODS, pod("p1", Some(&registered(&["b", "c"]))));
    mirror
        .until("a replaced by c", |m| {
            m.has("pods endpoints shop/p1#c") && !m.has("pods endpoints shop/p1#a")
        })
        .await;
    assert!(mirror.has("pods endpoints shop/p1#b"));

    fake.put(PODS, pod("p1", Some("no base64!")));
    let rejected = "pods rejected Pod shop/p1";
    mirror.until("the rejection", |m| m.has(rejected) && !m.has("pods endpoints shop/p1#b")).await;
    let key = FactKey::Rejection(portolan_model::name("Pod"), ObjectName::new("shop", "p1"));
    let Some(Fact::Rejection(rejection)) = mirror.fact(&key) else { panic!() };
    assert_eq!(rejection.reasons[0].code, Code::ANNOTATION_UNREADABLE);
    assert!(rejection.reasons[0].detail.contains("Invalid symbol"), "{rejection:?}");
    // The Pod itself is as it was.
    assert!(mirror.has("kubernetes pod shop/p1"));

    fake.put(PODS, pod("p1", Some(&registered(&["a"]))));
    mirror.until("mended", |m| m.has("pods endpoints shop/p1#a") && !m.has(rejected)).await;
    fake.delete(PODS, "shop", "p1");
    mirror.until("all gone", |m| m.keys().is_empty()).await;
    finish(tasks).await;
}

#[tokio::test]
async fn an_object_of_a_wrong_shape_costs_only_itself() {
    let fake = Fake::start().await;
    let mut bad = service("bad");
    bad["spec"]["ports"] = json!([{"port": "eighty"}]);
    fake.put(SERVICES, service("good"));
    fake.put(SERVICES, bad.clone());
    let (mut mirror, tasks) = start(config(&fake).await);
    mirror.until("listed", |m| m.has("kubernetes rejected Service shop/bad")).await;
    assert!(mirror.has("kubernetes service shop/good"));
    assert!(!mirror.has("kubernetes service shop/bad"));
    // By watch as well as by list, and back.
    fake.put(SERVICES, service("bad"));
    mirror
        .until("mended", |m| {
            m.has("kubernetes service shop/bad") && !m.has("kubernetes rejected Service shop/bad")
        })
        .await;
    fake.put(SERVICES, bad);
    mirror
        .until("broken", |m| {
            m.has("kubernetes rejected Service shop/bad") && !m.has("kubernetes service shop/bad")
        })
        .await;
    finish(tasks).await;
}

#[tokio::test]
async fn loss_keeps_everything_and_is_told() {
    let fake = Fake::start().await;
    fake.put(SERVICES, service("a"));
    let (mut mirror, tasks) = start(config(&fake).await);
    mirror.until("listed", |m| m.has("kubernetes service shop/a")).await;
    fake.set_down(true);
    let part = ("kubernetes".to_owned(), "services".to_owned());
    mirror.until("lost", |m| m.lost.contains_key(&part)).await;
    assert!(mirror.lost[&part].contains("the fake is down"), "{:?}", mirror.lost);
    assert!(mirror.has("kubernetes service shop/a"));
    // What happened meanwhile is not missed.
    fake.put(SERVICES, service("b"));
    fake.delete(SERVICES, "shop", "a");
    fake.set_down(false);
    mirror
        .until("back", |m| {
            m.lost.is_empty()
                && m.has("kubernetes service shop/b")
                && !m.has("kubernetes service shop/a")
        })
        .await;
    assert_eq!(mirror.complete[&part], 1, "the watch went on; nothing was listed anew");
    finish(tasks).await;
}

#[tokio::test]
async fn a_compacted_revision_is_listed_anew() {
    let fake = Fake::start().await;
    fake.put(SERVICES, service("a"));
    let (mut mirror, tasks) = start(config(&fake).await);
    mirror.until("listed", |m| m.has("kubernetes service shop/a")).await;
    fake.set_down(true);
    fake.delete(SERVICES, "shop", "a");
    fake.put(SERVICES, service("b"));
    fake.compact();
    fake.set_down(false);
    let part = ("kubernetes".to_owned(), "services".to_owned());
    mirror.until("listed anew", |m| m.complete[&part] == 2).await;
    assert!(mirror.has("kubernetes service shop/b") && !mirror.has("kubernetes service shop/a"));
    finish(tasks).await;
}

#[tokio::test]
async fn watches_only_what_is_asked_for() {
    let fake = Fake::start().await;
    let kinds = Kinds { services: true, registrations: true, ..Kinds::NONE };
    let config = Config {
        kinds,
        namespaces: vec!["shop".into(), "demo".into()],
        dialects: vec![Dialect::App(app::App::default())],
        ..config(&fake).await
    };
    let parts: Vec<String> = kubernetes::parts(&config)
        .into_iter()
        .flat_map(|(source, parts)| parts.into_iter().map(move |part| format!("{source} {part}")))
        .collect();
    assert_eq!(
        parts,
        [
            "kubernetes services/shop",
            "kubernetes services/demo",
            "pods registrations/shop",
            "pods registrations/demo",
        ]
    );
    fake.put("/api/v1/namespaces/demo/pods", pod("p1", Some(&registered(&["a"]))));
    let (mut mirror, tasks) = start(config);
    mirror.until("all complete", |m| m.complete.len() == 4).await;
    assert_eq!(mirror.keys(), ["pods endpoints shop/p1#a"]);
    for request in fake.requests() {
        let (path, query) = request.split_once('?').unwrap();
        assert!(path.starts_with("/api/v1/namespaces/"), "{request}");
        // One dialect: the API server leaves the other Pods out.
        let selected = query.contains("labelSelector=app.io%2Flabel%3Dapp.io-value");
        assert_eq!(selected, path.ends_with("/pods"), "{request}");
    }
    finish(tasks).await;
}

/// Random changes, cuts, losses and compactions; in the end the reports have
/// told exactly what there is.
#[tokio::test]
async fn whatever_breaks_the_end_is_the_truth() {
    for seed in 0..8 {
        let mut random = StdRng::seed_from_u64(seed);
        let fake = Fake::start().await;
        let (mut mirror, tasks) = start(config(&fake).await);
        let mut truth: BTreeSet<String> = BTreeSet::new();
        for step in 0..120 {
            let name = format!("p{}", random.random_range(0..6));
            match random.random_range(0..12) {
                0..=6 => {
                    let interfaces: Vec<&str> =
                        ["a", "b", "c"].into_iter().filter(|_| random.random_bool(0.5)).collect();
                    truth.retain(|key| !is_of(key, &name));
                    truth.insert(format!("kubernetes pod shop/{name}"));
                    truth.extend(
                        interfaces.iter().map(|i| format!("pods endpoints shop/{name}#{i}")),
                    );
                    fake.put(PODS, pod(&name, Some(&registered(&interfaces))));
                }
                7 | 8 => {
                    truth.retain(|key| !is_of(key, &name));
                    fake.delete(PODS, "shop", &name);
                }
                9 => fake.cut(),
                10 => fake.compact(),
                _ => fake.set_down(random.random_bool(0.3)),
            }
            if step % 5 == 0 {
                // Lets the source see some of the states on the way, by chance.
                mirror.take_for(Duration::from_millis(random.random_range(0..8))).await;
            }
        }
        fake.set_down(false);
        let wanted: Vec<String> = truth.into_iter().collect();
        let same = |m: &Mirror| {
            let mut keys = m.keys();
            keys.sort();
            keys == wanted && m.lost.is_empty()
        };
        mirror.until(&format!("seed {seed}: {wanted:?}"), same).await;
        finish(tasks).await;
    }
}

fn is_of(key: &str, pod: &str) -> bool {
    key.ends_with(&format!("shop/{pod}")) || key.contains(&format!("shop/{pod}#"))
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let missing = std::path::Path::new("/nonexistent/kubeconfig");
    let Err(error) = kubernetes::connect(Some(missing)).await else { panic!("connected") };
    assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
}

fn services_alone(config: Config) -> Config {
    Config { kinds: Kinds { services: true, ..Kinds::NONE }, ..config }
}

#[tokio::test]
async fn what_a_watch_has_missed_is_found() {
    let fake = Fake::start().await;
    fake.put(SERVICES, service("a"));
    let config = Config { verify_every: Duration::ZERO, ..services_alone(config(&fake).await) };
    let (mut mirror, tasks) = start(config);
    mirror.until("the listing", |m| m.has("kubernetes service shop/a")).await;
    // A watch that begins after this knows its revision.
    fake.put(SERVICES, service("b"));
    mirror.until("a change", |m| m.has("kubernetes service shop/b")).await;
    fake.put_unheard(SERVICES, service("missed"));
    fake.cut();
    mirror.until("what was missed", |m| m.has("kubernetes service shop/missed")).await;
    assert!(mirror.verified > 0);
    let exact = fake.requests().into_iter().any(|request| {
        request.contains("resourceVersionMatch=Exact") && request.contains("resourceVersion=3")
    });
    assert!(exact, "{:?}", fake.requests());
    finish(tasks).await;
}

#[tokio::test]
async fn a_verification_that_fails_changes_nothing() {
    let fake = Fake::start().await;
    fake.put(SERVICES, service("a"));
    let config = Config { verify_every: Duration::ZERO, ..services_alone(config(&fake).await) };
    let (mut mirror, tasks) = start(config);
    mirror.until("the listing", |m| m.has("kubernetes service shop/a")).await;
    fake.set_down(true);
    mirror.until("the loss", |m| !m.lost.is_empty()).await;
    assert!(mirror.has("kubernetes service shop/a"));
    fake.set_down(false);
    fake.put(SERVICES, service("b"));
    mirror.until("the return", |m| m.has("kubernetes service shop/b") && m.lost.is_empty()).await;
    finish(tasks).await;
}

#[tokio::test]
async fn what_was_listed_is_told_again_without_an_api() {
    let fake = Fake::start().await;
    for number in 0..4 {
        fake.put(SERVICES, service(&format!("s{number}")));
    }
    let folder = tempfile::tempdir().unwrap();
    let config = |folder: &std::path::Path, config: Config| Config {
        last_known: Some(folder.to_owned()),
        ..services_alone(config)
    };
    let part = ("kubernetes".to_owned(), "services".to_owned());
    let first = config(folder.path(), self::config(&fake).await);
    let (mut mirror, tasks) = start(first.clone());
    mirror.until("the listing", |m| m.complete.contains_key(&part)).await;
    let file = folder.path().join("services.jsonl");
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    finish(tasks).await;

    fake.set_down(true);
    let before = SystemClock.unix_ms();
    let (mut mirror, tasks) = start(first.clone());
    mirror.until("the listing of before", |m| m.complete.contains_key(&part)).await;
    mirror.until("the loss", |m| m.lost.contains_key(&part)).await;
    assert!(mirror.has("kubernetes service shop/s3"));
    assert!(mirror.observed_at_ms <= before, "it is as old as its listing");
    fake.delete(SERVICES, "shop", "s0");
    fake.set_down(false);
    mirror
        .until("the API's own listing", |m| {
            !m.has("kubernetes service shop/s0") && m.lost.is_empty()
        })
        .await;
    finish(tasks).await;

    // It takes the request and says nothing, as one that is overwhelmed.
    fake.set_silent(true);
    let (mut mirror, tasks) = start(first.clone());
    mirror.until("the listing of before", |m| m.complete.contains_key(&part)).await;
    mirror.until("its age", |m| m.lost.contains_key(&part)).await;
    assert!(mirror.has("kubernetes service shop/s3"));
    fake.delete(SERVICES, "shop", "s1");
    fake.set_silent(false);
    let late = |m: &Mirror| !m.has("kubernetes service shop/s1") && m.lost.is_empty();
    mirror.until("the listing that came late", late).await;
    finish(tasks).await;

    // Nothing was kept: nothing is told.
    fake.set_down(true);
    let (mut mirror, tasks) = start(config(&folder.path().join("other"), first));
    mirror.until("the loss", |m| m.lost.contains_key(&part)).await;
    assert!(mirror.complete.is_empty() && mirror.keys().is_empty());
    finish(tasks).await;
}
