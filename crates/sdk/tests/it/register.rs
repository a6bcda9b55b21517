//! Registering: what is written, in which order, and what of others stays.

use std::{collections::BTreeMap, time::Duration};

use portolan_dialects::{PodView, Standing};
use portolan_sdk::{Dialect, Error, Registration, Registry};
use serde_json::{Value, json};

use crate::{fake::Fake, registered, registry, service, until};

#[tokio::test]
async fn label_then_annotation_and_back() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let registry = registry(&fake, "p1").await;
    let both = [service("reviews", 80), service("ratings", 81)];
    let mut registered_both = registry.register_all(both.clone()).await.unwrap();
    assert_eq!(registered_both.services(), both);
    assert_eq!(registered(&fake, "p1"), both);
    let label = json!({"app": "x", "app.io/label": "app.io-value"});
    assert_eq!(fake.get("p1")["metadata"]["labels"], label);
    // The label, the annotation under its precondition, and no request besides.
    let requests = fake.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    let path = "PATCH /api/v1/namespaces/shop/pods/p1";
    assert!(requests.iter().all(|(line, _)| line.starts_with(path)), "{requests:?}");
    let labels = json!({"app.io/label": "app.io-value"});
    assert_eq!(requests[0].1, json!({"metadata": {"labels": labels}}));
    let written = &requests[1].1["metadata"];
    assert!(written["annotations"]["app.io/annotation"].is_string());
    assert_eq!((&written["resourceVersion"], &written["uid"]), (&json!("3"), &json!("p1")));

    let drained = Registration { weight: 0, ..service("reviews", 80) };
    registered_both.update([drained.clone()]).await.unwrap();
    assert_eq!(registered(&fake, "p1"), [drained]);
    registered_both.deregister().await.unwrap();
    assert_eq!(fake.get("p1")["metadata"]["annotations"], json!({}));
    assert_eq!(fake.get("p1")["metadata"]["labels"], label);
}

#[tokio::test]
async fn what_is_there_already_is_not_written_again() {
    let fake = Fake::start().await;
    fake.put(1, true, &["reviews", "ratings"]);
    let before = fake.get("p1");
    let registry = registry(&fake, "p1").await;
    registry.register(service("reviews", 80)).await.unwrap().keep();
    assert_eq!(fake.get("p1"), before);
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_written_is_told_before_anything_is() {
    let fake = Fake::start().await;
    let registry = registry(&fake, "p1").await;
    let blank = Registration { interface: "a b".into(), ..service("a", 80) };
    let huge = Registration { methods: vec!["m".repeat(200_000)], ..service("a", 80) };
    for wrong in [blank, huge] {
        let error = registry.register_all([service("fine", 81), wrong]).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    assert_eq!(fake.requests(), []);
}

#[tokio::test]
async fn a_guard_that_is_dropped_takes_back_and_one_that_is_kept_does_not() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let registry = registry(&fake, "p1").await;
    registry.register(service("kept", 80)).await.unwrap().keep();
    drop(registry.register(service("dropped", 81)).await.unwrap());
    until("one is left", || registered(&fake, "p1") == [service("kept", 80)]).await;
}

/// `guard = registry.register(..)` drops the old guard after the new one has
/// registered the same: what is held twice goes with the last.
#[tokio::test]
async fn a_guard_does_not_take_back_what_another_holds() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let registry = registry(&fake, "p1").await;
    let both = [service("reviews", 80), service("ratings", 81)];
    let first = registry.register_all(both).await.unwrap();
    let second = registry.register(service("reviews", 80)).await.unwrap();
    first.deregister().await.unwrap();
    assert_eq!(registered(&fake, "p1"), [service("reviews", 80)]);
    second.deregister().await.unwrap();
    assert_eq!(registered(&fake, "p1"), []);
}

/// Two containers of one Pod, with nothing in common but the API.
#[tokio::test]
async fn two_writers_of_one_pod_lose_nothing() {
    const EACH: u16 = 60;
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let writer = |name: &'static str| {
        let fake = fake.clone();
        tokio::spawn(async move {
            let registry = registry(&fake, "p1").await;
            for port in 1..=EACH {
                let one = registry.register(service(name, port)).await.unwrap();
                if port % 3 == 0 {
                    one.deregister().await.unwrap();
                } else {
                    one.keep();
                }
            }
        })
    };
    let (a, b) = (writer("a"), writer("b"));
    a.await.unwrap();
    b.await.unwrap();
    let all = registered(&fake, "p1");
    let expected: Vec<u16> = (1..=EACH).filter(|port| port % 3 != 0).collect();
    for name in ["a", "b"] {
        let ports = all.iter().filter(|one| one.interface == name).map(|one| one.port);
        assert_eq!(ports.collect::<Vec<_>>(), expected, "{name}");
    }
    // Alone, each of them needs two requests to put in and two to take out.
    let alone = usize::from(EACH + EACH / 3) * 2 * 2;
    assert!(fake.requests().len() > alone, "the writers never met, so this shows nothing");
}

#[tokio::test]
async fn refusals_that_pass_are_waited_for() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    fake.refuse_patches([409, 429, 503, 500]);
    let registry = registry(&fake, "p1").await;
    registry.register(service("a", 80)).await.unwrap().keep();
    assert_eq!(registered(&fake, "p1"), [service("a", 80)]);
}

#[tokio::test]
async fn refusals_that_do_not_pass_end() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let registry = registry(&fake, "p1").await;
    for (codes, expected) in [
        (vec![403], "403 Forbidden: the next patches are refused; fix: allow"),
        (vec![422], "422 Refused: the next patches are refused"),
        (vec![409; 100], "was changed by others in all of 12 tries"),
    ] {
        fake.refuse_patches(codes);
        let error = registry.register(service("a", 80)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(registered(&fake, "p1"), []);
}

#[tokio::test]
async fn a_pod_that_is_gone_or_another() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let nobody = registry(&fake, "missing").await;
    let error = nobody.register(service("a", 80)).await.unwrap_err();
    assert!(matches!(error, Error::PodNotFound { .. }), "{error}");

    let registry = registry(&fake, "p1").await;
    let mut first = registry.register(service("a", 80)).await.unwrap();
    let second = registry.register(service("b", 81)).await.unwrap();
    let third = registry.register(service("c", 82)).await.unwrap();
    fake.replace("p1");
    let before = fake.get("p1");
    let error = first.update([service("a", 81)]).await.unwrap_err();
    assert!(matches!(error, Error::PodReplaced { .. }), "{error}");
    second.deregister().await.unwrap();
    assert_eq!(fake.get("p1"), before);
    fake.delete("p1");
    third.deregister().await.unwrap();
}

#[tokio::test]
async fn a_prefix_of_ones_own() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let builder = Registry::builder().namespace("shop").pod("p1").api(fake.url());
    let registry = builder.prefix("corp.example").build().await.unwrap();
    registry.register(service("a", 80)).await.unwrap().keep();
    let meta = &fake.get("p1")["metadata"];
    assert_eq!(meta["labels"]["corp.example/label"], "corp.example-value");
    assert!(meta["annotations"]["corp.example/annotation"].is_string());
}

async fn native(fake: &Fake, pod: &str, owner: &str) -> Registry {
    let builder = Registry::builder().namespace("shop").pod(pod).owner(owner);
    builder.api(fake.url()).build().await.unwrap()
}

/// The records on a Pod of the fake, by owner.
fn records(fake: &Fake, pod: &str) -> BTreeMap<String, Vec<Registration>> {
    let pod = fake.get(pod);
    let annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let labels = BTreeMap::new();
    let read = |(key, text): (String, Value)| {
        let owner = key.strip_prefix("registry.portolan.dev/")?.to_owned();
        let annotations = BTreeMap::from([(key, text.as_str()?.to_owned())]);
        let view =
            PodView { labels: &labels, annotations: &annotations, addresses: &[], containers: &[] };
        let reading = Dialect::Native.read(&view);
        assert_eq!(reading.reasons, []);
        Some((owner, reading.registrations))
    };
    annotations.into_iter().filter_map(read).collect()
}

#[tokio::test]
async fn a_record_of_ones_own_takes_one_write() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let registry = native(&fake, "p1", "main").await;
    let both = [service("reviews", 80), service("ratings", 81)];
    let registered = registry.register_all(both.clone()).await.unwrap();
    assert_eq!(records(&fake, "p1"), BTreeMap::from([("main".into(), both.to_vec())]));
    let label = &fake.get("p1")["metadata"]["labels"]["registry.portolan.dev/registered"];
    assert_eq!(label, "true");
    // The uid, once, and the record.
    assert_eq!(fake.requests().len(), 2, "{:?}", fake.requests());
    let applied = &fake.requests()[1];
    assert!(applied.0.contains("fieldManager=portolan%2Fmain"), "{applied:?}");
    assert_eq!(applied.1["metadata"]["uid"], "p1");
    let more = registry.register(service("extra", 82)).await.unwrap();
    assert_eq!(records(&fake, "p1")["main"].len(), 3);
    registered.deregister().await.unwrap();
    assert_eq!(records(&fake, "p1")["main"], [service("extra", 82)]);
    more.deregister().await.unwrap();
    assert_eq!(records(&fake, "p1"), BTreeMap::new());
    assert_eq!(fake.requests().len(), 5);
}

/// A process that registers for others: each owner has a record, and each life of one replaces what
/// the life before left.
#[tokio::test]
async fn one_process_writes_for_several_owners() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let registry = registry(&fake, "p1").await;
    let put = async |owner: &str, name: &str| {
        let owner = registry.as_owner(owner).unwrap();
        owner.register(service(name, 80)).await.unwrap().keep();
    };
    put("a", "reviews").await;
    put("b", "ratings").await;
    put("a", "details").await;
    let names = |owner: &str| -> Vec<String> {
        let all = records(&fake, "p1").remove(owner).unwrap_or_default();
        all.into_iter().map(|one| one.interface).collect()
    };
    assert_eq!((names("a"), names("b")), (vec!["details".into()], vec!["ratings".into()]));
    let listed = native(&fake, "p1", "c").await;
    assert_eq!(listed.interfaces().await.unwrap(), ["details", "ratings"]);

    // One that has written nothing in this life takes back what the last one left.
    registry.as_owner("a").unwrap().withdraw().await.unwrap();
    assert_eq!(records(&fake, "p1").into_keys().collect::<Vec<_>>(), ["b"]);
    fake.delete("p1");
    registry.as_owner("b").unwrap().withdraw().await.unwrap();
    assert!(registry.as_owner("a/b").is_err());
}

/// Two containers of one Pod that write at the same time: neither ever reads
/// what the other wrote, so there is nothing to lose.
#[tokio::test]
async fn two_owners_never_meet() {
    const EACH: u16 = 60;
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let writer = |name: &'static str| {
        let fake = fake.clone();
        tokio::spawn(async move {
            let registry = native(&fake, "p1", name).await;
            for port in 1..=EACH {
                registry.register(service(name, port)).await.unwrap().keep();
            }
        })
    };
    let (a, b) = (writer("a"), writer("b"));
    a.await.unwrap();
    b.await.unwrap();
    for name in ["a", "b"] {
        let ports: Vec<u16> = records(&fake, "p1")[name].iter().map(|one| one.port).collect();
        assert_eq!(ports, (1..=EACH).collect::<Vec<_>>());
    }
    assert_eq!(fake.requests().len(), 2 * (1 + usize::from(EACH)), "nothing was written twice");
}

#[tokio::test]
async fn a_record_is_not_written_on_another_pod_of_the_name() {
    let fake = Fake::start().await;
    fake.put_plain("p1");
    let registry = native(&fake, "p1", "main").await;
    let one = registry.register(service("a", 80)).await.unwrap();
    fake.replace("p1");
    let error = registry.register(service("b", 81)).await.unwrap_err();
    assert!(matches!(error, Error::PodReplaced { .. }), "{error}");
    one.deregister().await.unwrap();
    assert_eq!(records(&fake, "p1"), BTreeMap::new());
    let nobody = native(&fake, "p9", "main").await;
    let error = nobody.register(service("a", 80)).await.unwrap_err();
    assert!(matches!(error, Error::PodNotFound { .. }), "{error}");
}

#[tokio::test]
async fn records_are_found() {
    let fake = Fake::start().await;
    fake.put(1, true, &["reviews"]);
    fake.put(2, true, &[]);
    let registry = native(&fake, "p2", "main").await;
    let at = ([10, 0, 0, 2], 80).into();
    registry.register(Registration::new("reviews", "http", at)).await.unwrap().keep();
    let found = registry.list("reviews").await.unwrap();
    let pods: Vec<&str> = found.iter().map(|one| one.pod.as_str()).collect();
    assert_eq!(pods, ["p1", "p2"]);
}

#[tokio::test]
async fn draining_takes_no_calls_before_it_is_gone() {
    for owner in [None, Some("main")] {
        let fake = Fake::start().await;
        fake.put_plain("p1");
        let registry = match owner {
            None => registry(&fake, "p1").await,
            Some(owner) => native(&fake, "p1", owner).await,
        };
        let takes_calls = || -> Vec<bool> {
            let all = match owner {
                None => registered(&fake, "p1"),
                Some(owner) => records(&fake, "p1").remove(owner).unwrap_or_default(),
            };
            all.iter().map(|one| one.weight > 0 && one.standing == Standing::Up).collect()
        };
        let one = registry.register(service("a", 80)).await.unwrap();
        assert_eq!(takes_calls(), [true]);
        let (done, work) = tokio::sync::oneshot::channel::<()>();
        let hour = Duration::from_secs(3_600);
        let draining = tokio::spawn(one.drain_while(hour, async { drop(work.await) }));
        until("no new calls", || takes_calls() == [false]).await;
        done.send(()).unwrap();
        draining.await.unwrap().unwrap();
        assert_eq!(takes_calls(), [false; 0]);
        registry.register(service("b", 80)).await.unwrap().drain(Duration::ZERO).await.unwrap();
        assert_eq!(takes_calls(), [false; 0]);
    }
}
