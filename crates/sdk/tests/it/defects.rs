//! The 13 known defects of dubbo-go's registry on Pods, by their number in the research notes
//! (`reference/registry.md`, 1.8). Each test plays one schedule twice: to the model of that
//! registry ([`founding`](crate::founding)), which must go wrong, and to ours, which must not.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::StreamExt;
use portolan_dialects::{Dialect, app, list};
use portolan_sdk::{Delta, Discovery, Registration, Registry, Subscription};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    DEADLINE,
    fake::Fake,
    founding::{self, Consumer, Event},
    portolan::Portolan,
    registered, registry, service, until,
};

const A: &str = "/dubbo/a/providers/p1";
const B: &str = "/dubbo/a/providers/p2";

async fn follow(fake: &Fake) -> Subscription {
    registry(fake, "p1").await.subscribe("a").await.unwrap()
}

fn pods(subscription: &Subscription) -> Vec<String> {
    let current = subscription.current();
    current.instances().iter().map(|one| one.pod.clone()).collect()
}

/// What was there before is known before the first event.
#[tokio::test]
async fn defect_01_the_first_listing_is_taken() {
    let mut founding = Consumer::default();
    founding.init(&[Event::Put(vec![A]), Event::Put(vec![B])]);
    assert!(founding.providers.is_empty(), "the model has lost its defect");

    let fake = Fake::start().await;
    for number in 1..=3 {
        fake.put(number, true, &["a"]);
    }
    assert_eq!(pods(&follow(&fake).await), ["p1", "p2", "p3"]);
    // And it was no listing of any age that a cache happened to have.
    assert_eq!(fake.count("resourceVersion=0&"), 0);
}

/// A Pod that is deleted is taken from the consumers.
#[tokio::test]
async fn defect_02_a_removal_reaches_consumers() {
    let mut founding = Consumer::default();
    for event in [Event::Put(vec![A]), Event::Deleted(vec![A])] {
        founding.take(&event).unwrap();
    }
    assert!(founding.providers.contains(A), "the model has lost its defect");

    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    let a = follow(&fake).await;
    let mut deltas = a.deltas();
    assert!(matches!(deltas.next().await, Some(Delta::Added(_))));
    fake.delete("p1");
    let gone = timeout(DEADLINE, deltas.next()).await.unwrap().unwrap();
    assert!(matches!(&gone, Delta::Removed(one) if one.pod == "p1"), "{gone:?}");
    assert_eq!(pods(&a), [""; 0]);
}

/// Who does not read holds nobody up, and is told the newest when it does.
#[tokio::test]
async fn defect_03_a_reader_that_sleeps_holds_up_nobody() {
    const CHANGES: usize = 300;
    let mut founding = Consumer::default();
    founding.listen();
    let names: Vec<String> = (0..CHANGES).map(|number| format!("{A}{number}")).collect();
    let blocked = names.iter().find_map(|name| {
        let name: &'static str = Box::leak(name.clone().into_boxed_str());
        founding.take(&Event::Put(vec![name])).err()
    });
    assert!(blocked.is_some(), "the model has lost its defect");

    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    let registry = registry(&fake, "p1").await;
    let sleeping = registry.subscribe("a").await.unwrap();
    let mut unread = sleeping.deltas();
    // Subscribed many times over, as a listener that begins anew in each turn.
    for _ in 0..CHANGES {
        drop(registry.subscribe("a").await.unwrap());
    }
    let awake = registry.subscribe("a").await.unwrap();
    for number in 0..CHANGES {
        fake.put(2, number % 2 == 0, &["a"]);
    }
    fake.put(3, true, &["a"]);
    until("the last change at who reads", || pods(&awake) == ["p1", "p2", "p3"]).await;
    let mut told = BTreeSet::new();
    while told.len() < 3 {
        let delta = timeout(DEADLINE, unread.next()).await.unwrap().unwrap();
        told.insert(delta.instance().pod.clone());
    }
    assert_eq!(fake.watches(), 1, "one watch for all of them");
}

/// A deletion that no watch has seen is found by the listing that follows.
#[tokio::test]
async fn defect_04_a_deletion_that_was_missed_is_made_up_for() {
    let mut founding = Consumer::default();
    for event in [Event::Put(vec![A]), Event::Put(vec![B]), Event::Tombstone] {
        founding.take(&event).unwrap();
    }
    assert!(founding.store.contains(B), "the model has lost its defect");

    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    fake.put(2, true, &["a"]);
    let a = follow(&fake).await;
    fake.refuse(Some(503));
    fake.delete("p2");
    fake.compact();
    fake.refuse(None);
    until("p2 is gone", || pods(&a) == ["p1"]).await;
}

/// A service that leaves the annotation while the Pod stays is gone.
#[tokio::test]
async fn defect_05_what_leaves_an_annotation_is_gone() {
    let mut founding = Consumer::default();
    for event in [Event::Put(vec![A, B]), Event::Put(vec![B])] {
        founding.take(&event).unwrap();
    }
    assert!(founding.store.contains(A), "the model has lost its defect");

    let fake = Fake::start().await;
    fake.put(1, true, &["a", "b"]);
    let a = follow(&fake).await;
    assert_eq!(pods(&a), ["p1"]);
    fake.put(1, true, &["b"]);
    until("a is gone", || pods(&a).is_empty()).await;
}

/// What two Pods say alike goes with the second of them.
#[tokio::test]
async fn defect_06_a_pod_takes_away_only_its_own() {
    const SHARED: &str = "/dubbo/a/providers";
    let mut founding = Consumer::default();
    for event in
        [Event::Put(vec![SHARED, A]), Event::Put(vec![SHARED, B]), Event::Deleted(vec![SHARED, A])]
    {
        founding.take(&event).unwrap();
    }
    assert!(!founding.store.contains(SHARED), "the model has lost its defect");

    // The same words on both, to the last byte: Pods of the host's network, say.
    let fake = Fake::start().await;
    for name in ["p1", "p2"] {
        fake.put_object(
            name,
            json!({
                "metadata": {
                    "labels": {"app.io/label": "app.io-value"},
                    "annotations": {"app.io/annotation": app::encode(&[service("a", 80)]).unwrap()},
                },
                "status": {"phase": "Running", "podIP": "10.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}]},
            }),
        );
    }
    let a = follow(&fake).await;
    assert_eq!(pods(&a), ["p1", "p2"]);
    fake.delete("p1");
    until("p1 is gone", || pods(&a) == ["p2"]).await;
}

/// Events count in the order in which they came, and a revision that is gone is listed anew
/// instead of being asked for again and again.
#[tokio::test]
async fn defect_07_events_keep_their_order_and_410_is_listed_anew() {
    let events = [Event::Put(vec![A]), Event::Deleted(vec![A])];
    let mut founding = Consumer::default();
    founding.take_in_goroutines(&events);
    assert!(founding.store.contains(A), "the model has lost its defect");

    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    let a = follow(&fake).await;
    until("the watch", || fake.watches() == 1).await;
    for _ in 0..50 {
        fake.put(2, true, &["a"]);
        fake.put(2, false, &["a"]);
        fake.delete("p2");
    }
    fake.put(3, true, &["a"]);
    until("p3", || pods(&a) == ["p1", "p3"]).await;

    let before = fake.requests().len();
    fake.put(4, true, &["a"]);
    fake.compact();
    fake.cut();
    until("p4", || pods(&a).last().is_some_and(|pod| pod == "p4")).await;
    until("the watch", || fake.watches() == 1).await;
    // The watch that was told 410, two pages of a list, a watch.
    assert!(fake.requests().len() - before <= 4, "{:?}", &fake.requests()[before..]);
}

/// A container that starts again in its Pod replaces what it wrote, and what an appending writer
/// left behind is one instance.
#[tokio::test]
async fn defect_08_starting_again_adds_nothing() {
    const STARTS: usize = 40;
    let record = |start: usize| {
        format!("/dubbo/a/providers/dubbo%3A%2F%2F10.0.0.1%3A80%2Fa%3Ftimestamp%3D{start}")
    };
    let text =
        (0..STARTS).fold(String::new(), |text, start| founding::append(&text, &record(start)));
    assert_eq!(list::read(&text).unwrap().len(), STARTS, "the model has lost its defect");

    let fake = Fake::start().await;
    fake.put_plain("p1");
    for start in 0..STARTS {
        let mut one = service("a", 80);
        one.params.insert("timestamp".into(), start.to_string());
        registry(&fake, "p1").await.register(one).await.unwrap().keep();
    }
    let all = registered(&fake, "p1");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].params["timestamp"], (STARTS - 1).to_string());

    fake.put_object(
        "p2",
        json!({
            "metadata": {
                "labels": {"dubbo.io/label": "dubbo.io.provider"},
                "annotations": {"dubbo.io/annotation": text},
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}]},
        }),
    );
    let builder = Registry::builder().namespace("shop").api(fake.url());
    let reader = builder.also_read(Dialect::Dubbo).build().await.unwrap();
    let found = reader.list("a").await.unwrap();
    let of_p2: Vec<_> = found.iter().filter(|one| one.pod == "p2").collect();
    assert_eq!(of_p2.len(), 1);
    assert_eq!(of_p2[0].metadata["timestamp"], (STARTS - 1).to_string());
}

/// Two writers of one Pod that have read the same text lose nothing, and a process is provider
/// and consumer at once.
#[tokio::test]
async fn defect_09_writers_that_meet_lose_nothing() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let read = |pod: Value| {
        pod["metadata"]["annotations"]["dubbo.io/annotation"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    // Both have read before either writes.
    let (one, two) = (read(fake.get("p1")), read(fake.get("p1")));
    for text in [founding::append(&one, A), founding::append(&two, B)] {
        fake.merge("p1", &json!({"metadata": {"annotations": {"dubbo.io/annotation": text}}}));
    }
    let left = list::read(&read(fake.get("p1"))).unwrap();
    assert_eq!(left.len(), 1, "the model has lost its defect");

    // The same meeting for ours: whoever writes second is told so, and reads again.
    let met = Arc::new(AtomicUsize::new(0));
    let writer = |name: &'static str| {
        let (fake, met) = (fake.clone(), met.clone());
        async move {
            let registry = registry(&fake, "p1").await;
            met.fetch_add(1, Ordering::Relaxed);
            until("both are there", || met.load(Ordering::Relaxed) == 2).await;
            registry.register(service(name, 80)).await.unwrap().keep();
            registry
        }
    };
    let (provider, _other) = tokio::join!(writer("a"), writer("b"));
    let mut names: Vec<String> =
        registered(&fake, "p1").into_iter().map(|one| one.interface).collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(pods(&provider.subscribe("a").await.unwrap()), ["p1"]);
}

/// A connection that works is kept, one that does not is made anew.
#[tokio::test]
async fn defect_10_a_working_watch_is_kept_and_a_broken_one_replaced() {
    assert!(
        founding::makes_a_client(Some(true)) && !founding::makes_a_client(Some(false)),
        "the model has lost its defect"
    );

    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    let registry = registry(&fake, "p1").await;
    let a = registry.subscribe("a").await.unwrap();
    until("the watch", || fake.watches() == 1).await;
    let before = fake.requests().len();
    for _ in 0..10 {
        registry.subscribe("a").await.unwrap();
    }
    assert_eq!(fake.requests().len(), before, "valid: kept");
    fake.cut();
    fake.put(2, true, &["a"]);
    until("p2", || pods(&a) == ["p1", "p2"]).await;
    assert_eq!(fake.count("watch="), 2, "broken: another one");
}

/// What does not run, is not ready, is about to end or is not at this address takes no calls.
#[tokio::test]
async fn defect_11_the_pods_own_state_counts() {
    let mut founding = Consumer::default();
    founding.take(&Event::Put(vec![A])).unwrap();
    assert!(founding.providers.contains(A), "the model has lost its defect");

    let fake = Fake::start().await;
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    let annotation = app::encode(&[service("a", 80)]).unwrap();
    for (name, deleted, phase, conditions, ip) in [
        ("p1", false, "Running", ready("True"), "10.0.0.1"),
        ("p2", false, "Running", ready("False"), "10.0.0.1"),
        ("p3", true, "Running", ready("True"), "10.0.0.1"),
        ("p4", false, "Failed", ready("True"), "10.0.0.1"),
        ("p5", false, "Running", ready("True"), "10.0.0.9"),
    ] {
        let mut pod = json!({
            "metadata": {
                "labels": {"app.io/label": "app.io-value"},
                "annotations": {"app.io/annotation": annotation},
            },
            "status": {"phase": phase, "podIP": ip, "conditions": conditions},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        fake.put_object(name, pod);
    }
    let current = follow(&fake).await.current();
    let names = |all: &[Arc<portolan_sdk::Instance>]| -> Vec<String> {
        all.iter().map(|one| one.pod.clone()).collect()
    };
    assert_eq!(names(current.available()), ["p1"]);
    // Those that take no calls are seen; the one that claims another's address is not.
    assert_eq!(names(current.instances()), ["p1", "p2", "p3", "p4"]);
}

/// A process is told of the services that it asked for. In the founding design each of N clients
/// watches all N Pods, whole.
#[tokio::test]
async fn defect_12_a_client_hears_only_of_what_it_asked_for() {
    const PODS: u8 = 40;
    let name = |number: u8| format!("s{}", number % 20);
    // The founding design: the Pods themselves, one client.
    let fake = Fake::start().await;
    let direct = registry(&fake, "p1").await.subscribe("s0").await.unwrap();
    // Through a server.
    let server = Portolan::start().await;
    let discovery = Discovery::connect(&server.url()).unwrap();
    let told = discovery.subscribe("shop", "s0").await.unwrap();
    for number in 1..=PODS {
        fake.put(number, true, &[&name(number)]);
        let all = (1..=number).filter(|other| name(*other) == name(number));
        server.put(&name(number), &all.map(|other| (other, true)).collect::<Vec<_>>());
    }
    until("both know", || pods(&direct).len() == 2 && pods(&told) == ["p20", "p40"]).await;
    let (founding, ours) = (fake.bytes(), server.bytes());
    assert!(founding > 10 * ours, "{founding} bytes of Pods, {ours} bytes of services");
    assert!(server.requests().iter().all(|line| line.contains("service=registry%3Ashop%2Fs0")));
}

/// The SDK changes labels and annotations of its own on its own Pod, and nothing else; what a
/// Pod may at all is held by the server (`apiserver::registry::access`, `deploy/`).
#[tokio::test]
async fn defect_13_nothing_but_ones_own_registration_is_patched() {
    // Whoever may `patch pods` may do this to any Pod of the namespace.
    let fake = Fake::start().await;
    fake.put_plain("p1");
    fake.put_plain("p2");
    fake.merge("p2", &json!({"metadata": {"labels": {"app": "stolen"}}}));
    assert_eq!(
        fake.get("p2")["metadata"]["labels"]["app"],
        "stolen",
        "the model has lost its defect"
    );

    let before = fake.get("p2");
    for owner in [None, Some("main")] {
        let mut builder = Registry::builder().namespace("shop").pod("p1").api(fake.url());
        if let Some(owner) = owner {
            builder = builder.owner(owner);
        }
        let registry = builder.build().await.unwrap();
        let mut one = registry.register(service("a", 80)).await.unwrap();
        let more = Registration { weight: 7, ..service("a", 80) };
        one.update([more]).await.unwrap();
        one.deregister().await.unwrap();
    }
    let own = |key: &str| key.starts_with("app.io/") || key.starts_with("registry.portolan.dev/");
    for (line, body) in fake.requests().iter().filter(|(line, _)| line.starts_with("PATCH")) {
        assert!(line.starts_with("PATCH /api/v1/namespaces/shop/pods/p1"), "{line}");
        for (member, value) in body.as_object().unwrap() {
            assert!(["apiVersion", "kind", "metadata"].contains(&member.as_str()), "{body}");
            for (field, value) in value.as_object().into_iter().flatten() {
                let keys = value.as_object().into_iter().flatten().all(|(key, _)| own(key));
                let known =
                    ["name", "namespace", "uid", "resourceVersion", "labels", "annotations"];
                assert!(known.contains(&field.as_str()) && keys, "{body}");
            }
        }
    }
    assert_eq!(fake.get("p2"), before);
}
