//! Registering: what is written, in which order, and what of others stays.

use portolan_sdk::{Error, Registration, Registry};
use serde_json::json;

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
