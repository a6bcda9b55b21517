//! Starting while nobody can be asked: what was known last, and how old it is.

use std::{path::Path, time::Duration};

use portolan_sdk::{Discovery, Error, Registry, Subscription};

use crate::{fake::Fake, portolan::Portolan, until};

fn pods(subscription: &Subscription) -> Vec<String> {
    subscription.current().instances().iter().map(|one| one.pod.clone()).collect()
}

/// Waits until the file has this text.
async fn has(path: &Path, text: &str) {
    until(text, || std::fs::read_to_string(path).is_ok_and(|all| all.contains(text))).await;
}

#[tokio::test]
async fn a_start_without_the_server_begins_with_what_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/portolan.json");
    let server = Portolan::start().await;
    server.put("a", &[(1, true)]);
    let discovery = Discovery::connect_with_file(&server.url(), &path).unwrap();
    let a = discovery.subscribe("shop", "a").await.unwrap();
    has(&path, r#""pod":"p1""#).await;
    server.put("a", &[(1, true), (2, true)]);
    has(&path, r#""pod":"p2""#).await;
    let url = server.url();
    drop((a, discovery));
    let address = server.stop().await;

    let again = Discovery::connect_with_file(&url, &path).unwrap();
    let mut a = again.subscribe("shop", "a").await.unwrap();
    assert_eq!(pods(&a), ["p1", "p2"]);
    let current = a.current();
    assert!(current.is_degraded() && current.trouble().is_some(), "{current:?}");
    assert!(current.age() > Duration::ZERO && current.available().len() == 2);
    // What was not known is not made up.
    let error = again.subscribe("shop", "b");
    let error = tokio::time::timeout(Duration::from_millis(100), error).await;
    assert!(error.is_err(), "still being tried");
    // The server is back, and has another truth.
    let _server = Portolan::at(address, "bbbb", &[("a", 3)]).await;
    while pods(&a) != ["p3"] {
        a.changed().await.unwrap();
    }
    assert!(!a.current().is_degraded());

    // A file that is of another server, or damaged, is as none.
    let other = Portolan::start().await;
    other.refuse(Some(400));
    drop((a, again));
    let foreign = Discovery::connect_with_file(&other.url(), &path).unwrap();
    assert!(matches!(foreign.subscribe("shop", "a").await, Err(Error::Refused { .. })));
}

#[tokio::test]
async fn a_start_without_the_api_begins_with_what_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pods.json");
    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    fake.put(2, true, &["a"]);
    let build =
        || Registry::builder().namespace("shop").pod("p1").api(fake.url()).keep_in(&path).build();
    let a = build().await.unwrap().subscribe("a").await.unwrap();
    has(&path, r#""pod":"p2""#).await;
    drop(a);
    fake.refuse(Some(503));
    let registry = build().await.unwrap();
    let mut a = registry.subscribe("a").await.unwrap();
    assert_eq!(pods(&a), ["p1", "p2"]);
    assert!(a.current().is_degraded());
    // Meanwhile one went: the listing says so, though no watch saw it.
    fake.delete("p2");
    fake.refuse(None);
    while pods(&a) != ["p1"] {
        a.changed().await.unwrap();
    }
    assert!(!a.current().is_degraded());
    drop((a, registry));

    // Who is not allowed to look gets no old news either.
    fake.refuse(Some(403));
    let error = build().await.unwrap().subscribe("a").await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: 403, .. }), "{error}");
}
