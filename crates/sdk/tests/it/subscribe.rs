//! Finding and following: snapshots, changes, and what happens when the API is lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use portolan_sdk::{Balancer, Call, Delta, Error, Instance, Policy, Snapshot, State, Subscription};
use tokio::time::timeout;

use crate::{DEADLINE, fake::Fake, registry, until};

/// Pods of the instances that take calls, and of all.
fn pods(snapshot: &Snapshot) -> (Vec<&str>, Vec<&str>) {
    fn names(all: &[Arc<Instance>]) -> Vec<&str> {
        all.iter().map(|one| one.pod.as_str()).collect()
    }
    (names(snapshot.available()), names(snapshot.instances()))
}

async fn shows(subscription: &mut Subscription, available: &[&str], all: &[&str]) {
    let waited = timeout(DEADLINE, async {
        while pods(&subscription.current()) != (available.to_vec(), all.to_vec()) {
            subscription.changed().await.unwrap();
        }
    });
    waited.await.unwrap_or_else(|_| {
        panic!("never {available:?} of {all:?}, but {:?}", pods(&subscription.current()))
    });
}

async fn next(deltas: &mut (impl Stream<Item = Delta> + Unpin)) -> (char, String, State) {
    let delta = timeout(DEADLINE, deltas.next()).await.unwrap().unwrap();
    let kind = match &delta {
        Delta::Added(_) => '+',
        Delta::Modified(_) => '~',
        Delta::Removed(_) => '-',
    };
    (kind, delta.instance().pod.clone(), delta.instance().state)
}

#[tokio::test]
async fn follows_its_interface() {
    let fake = Fake::start().await;
    fake.put(1, true, &["reviews"]);
    fake.put(2, false, &["reviews", "other"]);
    fake.put(3, true, &["other"]);
    let registry = registry(&fake, "p1").await;
    let mut reviews = registry.subscribe("reviews").await.unwrap();
    // Complete at once: both pages of the list are in.
    assert_eq!(pods(&reviews.current()), (vec!["p1"], vec!["p1", "p2"]));
    assert_eq!(fake.count("labelSelector=app.io%2Flabel%3Dapp.io-value"), fake.requests().len());
    let mut deltas = reviews.deltas();
    for expected in [('+', "p1".to_owned(), State::Serving), ('+', "p2".to_owned(), State::Failing)]
    {
        assert_eq!(next(&mut deltas).await, expected);
    }

    fake.put(2, true, &["reviews", "other"]);
    shows(&mut reviews, &["p1", "p2"], &["p1", "p2"]).await;
    assert_eq!(next(&mut deltas).await, ('~', "p2".to_owned(), State::Serving));
    // Away from the annotation, and away with the Pod: both are removals.
    fake.put(2, true, &["other"]);
    assert_eq!(next(&mut deltas).await, ('-', "p2".to_owned(), State::Serving));
    fake.delete("p1");
    assert_eq!(next(&mut deltas).await, ('-', "p1".to_owned(), State::Serving));
    fake.put(4, true, &["reviews"]);
    assert_eq!(next(&mut deltas).await, ('+', "p4".to_owned(), State::Serving));

    let listed = registry.list("other").await.unwrap();
    assert_eq!(listed.iter().map(|one| one.pod.as_str()).collect::<Vec<_>>(), ["p2", "p3"]);
    assert!(registry.list("nobody").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_balancer_follows_too() {
    let fake = Fake::start().await;
    fake.put(1, true, &["reviews"]);
    fake.put(2, true, &["reviews"]);
    let registry = registry(&fake, "p1").await;
    let mut reviews = registry.subscribe("reviews").await.unwrap();
    let balancer = Balancer::builder(reviews.clone()).policy(Policy::RoundRobin).build();
    let first = balancer.pick().unwrap();
    let second = balancer.pick().unwrap();
    assert_ne!(first.pod, second.pod);
    for _ in 0..3 {
        let call = Call { tried: &[first.socket_address()], ..Call::default() };
        let other = balancer.pick_for(&call).unwrap();
        assert_eq!(other.pod, second.pod);
    }
    fake.put(1, false, &["reviews"]);
    fake.delete("p2");
    shows(&mut reviews, &[], &["p1"]).await;
    assert!(balancer.pick().is_none());
}

#[tokio::test]
async fn all_subscriptions_share_one_watch_that_ends_with_the_last() {
    let fake = Fake::start().await;
    fake.put(1, true, &["a", "b"]);
    let registry = registry(&fake, "p1").await;
    let mut subscriptions = Vec::new();
    for interface in ["a", "b", "a", "c"] {
        subscriptions.push(registry.subscribe(interface).await.unwrap());
    }
    until("the watch", || fake.watches() == 1).await;
    assert_eq!(fake.requests().len(), 2, "{:?}", fake.requests());
    // They need the registry no longer.
    drop(registry);
    subscriptions.truncate(1);
    fake.put(2, true, &["a"]);
    shows(&mut subscriptions[0], &["p1", "p2"], &["p1", "p2"]).await;
    drop(subscriptions);
    until("no watch", || fake.watches() == 0).await;
}

#[tokio::test]
async fn loss_keeps_the_last_good_state() {
    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    let mut a = registry(&fake, "p1").await.subscribe("a").await.unwrap();
    assert!(!a.current().is_degraded());
    fake.refuse(Some(500));
    let lost = timeout(DEADLINE, a.changed()).await.unwrap().unwrap();
    assert!(lost.is_degraded());
    assert!(lost.trouble().is_some_and(|why| why.contains("the fake refuses")), "{lost:?}");
    assert_eq!(pods(&lost), (vec!["p1"], vec!["p1"]));
    let age = lost.age();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(a.current().age() > age);
    fake.put(2, true, &["a"]);
    fake.refuse(None);
    shows(&mut a, &["p1", "p2"], &["p1", "p2"]).await;
    assert!(!a.current().is_degraded());
    assert_eq!(fake.count("watch="), fake.requests().len() - 1, "one list was enough");
}

#[tokio::test]
async fn a_revision_that_is_gone_is_listed_anew_and_never_empty() {
    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    fake.put(2, true, &["a"]);
    let a = registry(&fake, "p1").await.subscribe("a").await.unwrap();
    let mut deltas = a.deltas();
    for pod in ["p1", "p2"] {
        assert_eq!(next(&mut deltas).await, ('+', pod.to_owned(), State::Serving));
    }
    // While nobody can see it, one goes, one changes, one comes.
    fake.refuse(Some(503));
    fake.put(1, false, &["a"]);
    fake.delete("p2");
    fake.put(3, true, &["a"]);
    fake.compact();
    fake.refuse(None);
    // One change from the old list to the new one, and nothing in between.
    for expected in [
        ('+', "p3".to_owned(), State::Serving),
        ('~', "p1".to_owned(), State::Failing),
        ('-', "p2".to_owned(), State::Serving),
    ] {
        assert_eq!(next(&mut deltas).await, expected);
    }
}

#[tokio::test]
async fn a_bookmark_is_where_the_next_watch_begins() {
    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    let mut a = registry(&fake, "p1").await.subscribe("a").await.unwrap();
    until("the watch", || fake.watches() == 1).await;
    let before = Instant::now();
    fake.bookmark();
    until("the bookmark", || a.current().age() < before.elapsed()).await;
    // Older revisions are no longer known.
    fake.compact();
    fake.cut();
    fake.put(2, true, &["a"]);
    shows(&mut a, &["p1", "p2"], &["p1", "p2"]).await;
    let lists = fake.requests().iter().filter(|(line, _)| !line.contains("watch=")).count();
    assert_eq!(lists, 1, "{:?}", fake.requests());
}

#[tokio::test]
async fn a_first_list_that_is_refused_is_told_at_once() {
    let fake = Fake::start().await;
    let registry = registry(&fake, "p1").await;
    fake.refuse(Some(403));
    let error = registry.subscribe("a").await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: 403, .. }), "{error}");
    assert!(error.to_string().contains("fix: allow"), "{error}");
    assert!(matches!(registry.list("a").await, Err(Error::Refused { code: 403, .. })));
    // Not for ever: the next one works.
    fake.refuse(None);
    assert!(registry.subscribe("a").await.unwrap().current().instances().is_empty());
}

#[tokio::test]
async fn a_first_list_waits_for_an_api_that_comes_up() {
    let fake = Fake::start().await;
    fake.put(1, true, &["a"]);
    fake.refuse(Some(503));
    let registry = registry(&fake, "p1").await;
    let subscribing = tokio::spawn(async move { registry.subscribe("a").await });
    until("the first try", || fake.requests().len() > 1).await;
    fake.refuse(None);
    let a = subscribing.await.unwrap().unwrap();
    assert_eq!(pods(&a.current()), (vec!["p1"], vec!["p1"]));
    assert!(!a.current().is_degraded());
}
