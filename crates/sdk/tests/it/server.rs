//! Discovery through a server: one stream, what breaks it, and what is asked once.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use portolan_sdk::{Delta, Discovery, Error, Event, InstanceQuery, ServiceQuery, Subscription};
use tokio::time::timeout;

use crate::{DEADLINE, portolan::Portolan, until};

fn shown(subscription: &Subscription) -> Vec<(String, bool)> {
    let current = subscription.current();
    current.instances().iter().map(|one| (one.pod.clone(), one.is_available())).collect()
}

fn pods(all: &[(u8, bool)]) -> Vec<(String, bool)> {
    all.iter().map(|(number, up)| (format!("p{number}"), *up)).collect()
}

async fn both(server: &Portolan) -> (Discovery, Subscription, Subscription) {
    server.put("a", &[(1, true), (2, false)]);
    server.put("b", &[(3, true)]);
    server.put("other", &[(9, true)]);
    let discovery = Discovery::connect(&server.url()).unwrap();
    let (a, b) = tokio::join!(discovery.subscribe("shop", "a"), discovery.subscribe("shop", "b"));
    (discovery, a.unwrap(), b.unwrap())
}

#[tokio::test]
async fn one_stream_tells_what_was_asked_for() {
    let server = Portolan::start().await;
    let (discovery, a, b) = both(&server).await;
    assert_eq!((shown(&a), shown(&b)), (pods(&[(1, true), (2, false)]), pods(&[(3, true)])));
    let one = a.current().available()[0].clone();
    assert_eq!((one.version.as_deref(), one.protocol.as_str()), (Some("v1"), "http"));
    assert_eq!(one.metadata.keys().collect::<Vec<_>>(), ["k"]);
    let asked =
        "/v1/watch?service=registry%3Ashop%2Fa&service=registry%3Ashop%2Fb&changes=true&brief=true";
    assert_eq!(server.requests(), [asked]);

    let mut deltas = a.deltas();
    for _ in 0..2 {
        assert!(matches!(deltas.next().await, Some(Delta::Added(_))));
    }
    server.put("other", &[(9, false)]);
    server.put("a", &[(2, true), (4, true)]);
    for (kind, pod) in [("Added", "p4"), ("Modified", "p2"), ("Removed", "p1")] {
        let delta = timeout(DEADLINE, deltas.next()).await.unwrap().unwrap();
        assert!(format!("{delta:?}").starts_with(kind) && delta.instance().pod == pod, "{delta:?}");
    }
    // The last instance goes with its service.
    server.put("b", &[]);
    until("b is gone", || shown(&b).is_empty()).await;
    server.put("b", &[(5, true)]);
    until("b is back", || shown(&b) == pods(&[(5, true)])).await;

    // One service more is one stream more; what nobody registered is empty, not an error.
    let none = discovery.subscribe("shop", "none").await.unwrap();
    assert_eq!((shown(&none), server.requests().len()), (Vec::new(), 2));
    assert_eq!(shown(&a), pods(&[(2, true), (4, true)]));
}

/// That nothing happens is news too: it keeps what is known young.
#[tokio::test]
async fn what_nobody_subscribes_to_any_more_is_not_asked_for_again() {
    let server = Portolan::start().await;
    let (discovery, a, b) = both(&server).await;
    drop(b);
    let _other = discovery.subscribe("shop", "other").await.unwrap();
    let asked = server.requests().pop().unwrap();
    assert!(asked.contains("%2Fa&") && asked.contains("%2Fother&"), "{asked}");
    assert!(!asked.contains("%2Fb&"), "{asked}");
    // And is told anew to whoever comes back.
    server.put("b", &[(6, true)]);
    let b = discovery.subscribe("shop", "b").await.unwrap();
    assert_eq!((shown(&a), shown(&b)), (pods(&[(1, true), (2, false)]), pods(&[(6, true)])));
}

#[tokio::test]
async fn a_server_that_is_there_keeps_the_age_down() {
    let server = Portolan::start().await;
    let (_discovery, a, _b) = both(&server).await;
    let before = std::time::Instant::now();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(a.current().age() >= std::time::Duration::from_millis(20));
    let version = a.current().version();
    server.greet();
    until("a greeting", || a.current().age() < before.elapsed()).await;
    assert_eq!(a.current().version(), version);
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_where_it_was() {
    let server = Portolan::start().await;
    let (_discovery, mut a, _b) = both(&server).await;
    server.refuse(Some(503));
    let lost = timeout(DEADLINE, a.changed()).await.unwrap().unwrap();
    assert!(lost.is_degraded() && lost.instances().len() == 2, "{lost:?}");
    assert!(
        lost.trouble().is_some_and(|why| why.contains("the server refuses (wait)")),
        "{lost:?}"
    );
    server.put("a", &[(1, true)]);
    server.refuse(None);
    until("what was missed", || shown(&a) == pods(&[(1, true)])).await;
    assert!(!a.current().is_degraded());
    let last = server.requests().pop().unwrap();
    assert!(last.contains("version=aaaa-3"), "{last}");

    // A version that the server knows no more: everything anew, and nothing empty in between.
    let mut seen = a.deltas();
    assert!(matches!(seen.next().await, Some(Delta::Added(_))));
    server.refuse(Some(503));
    server.put("a", &[(1, true), (6, true)]);
    server.forget();
    server.refuse(None);
    let delta = timeout(DEADLINE, seen.next()).await.unwrap().unwrap();
    assert!(matches!(&delta, Delta::Added(one) if one.pod == "p6"), "{delta:?}");
}

#[tokio::test]
async fn what_is_refused_or_out_of_reach_is_told() {
    let server = Portolan::start().await;
    server.refuse(Some(400));
    let discovery = Discovery::connect(&server.url()).unwrap();
    let error = discovery.subscribe("shop", "a").await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: 400, .. }), "{error}");
    let error = discovery.services(&ServiceQuery::default()).await.unwrap_err();
    assert!(error.to_string().contains("the server refuses (wait)"), "{error}");
    let address = server.stop().await;
    let error = discovery.service("a.shop.svc").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(Discovery::connect("localhost:8500").is_err());
}

#[tokio::test]
async fn questions_go_into_the_query() {
    let server = Portolan::start().await;
    let discovery = Discovery::connect(&server.url()).unwrap();
    let namespace = Some("shop".to_owned());
    let query = ServiceQuery { namespace, labels: Some("tier in (a,b)".into()), origin: None };
    assert_eq!(discovery.services(&query).await.unwrap()[0].name, "a");
    assert!(discovery.service("a.shop.registry.cluster.local").await.unwrap().is_some());
    let query = InstanceQuery {
        port: Some("80".into()),
        labels: Some("version=v1".into()),
        ..InstanceQuery::of_host("a.shop.svc")
    };
    assert_eq!(discovery.instances(&query).await.unwrap()[0].name, "p1");
    discovery.instances(&InstanceQuery::on_node("n1")).await.unwrap();
    assert_eq!(
        server.requests(),
        [
            "/v1/services?namespace=shop&labels=tier%20in%20%28a%2Cb%29",
            "/v1/services?host=a.shop.registry.cluster.local",
            "/v1/instances?host=a.shop.svc&port=80&instanceLabels=version%3Dv1",
            "/v1/instances?node=n1",
        ]
    );
}

fn words(event: &Event) -> String {
    match event {
        Event::ServiceAdded(one) => format!("+{}", one.name),
        Event::ServiceModified(one) => format!("~{}", one.name),
        Event::ServiceRemoved(one) => format!("-{}", one.name),
        Event::InstanceAdded(one) => format!("+{}/{}", one.service, one.name),
        Event::InstanceModified(one) => format!("~{}/{}", one.service, one.name),
        Event::InstanceRemoved(one) => format!("-{}/{}", one.service, one.name),
        Event::Synced(version) => version.clone(),
        Event::Lost(_) => "lost".to_owned(),
    }
}

/// Callbacks: in order, one at a time, over a break of the stream and over a restart of the
/// server, which knows nothing of the versions before.
#[tokio::test]
async fn callbacks_come_in_order() {
    let server = Portolan::start().await;
    server.put("a", &[(1, true)]);
    let discovery = Discovery::connect(&server.url()).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let to = heard.clone();
    let watching = discovery.on_change(&ServiceQuery::default(), move |event| {
        to.lock().unwrap().push(words(&event));
    });
    let all = || heard.lock().unwrap().clone();
    let heard_of = async |text: &str| {
        until(text, || all().last().is_some_and(|last| last == text)).await;
    };
    heard_of("aaaa-1").await;
    server.put("a", &[(1, false), (2, true)]);
    heard_of("aaaa-2").await;
    server.put("b", &[(3, true)]);
    heard_of("aaaa-3").await;
    server.put("a", &[]);
    heard_of("aaaa-4").await;
    let expected = [
        "+a", "+a/p1", "aaaa-1", "~a/p1", "+a/p2", "aaaa-2", "+b", "+b/p3", "aaaa-3", "-a/p1",
        "-a/p2", "-a", "aaaa-4",
    ];
    assert_eq!(all(), expected);

    let address = server.stop().await;
    heard_of("lost").await;
    let server = Portolan::at(address, "bbbb", &[("b", 3), ("c", 4)]).await;
    heard_of("bbbb-2").await;
    let after = all()[expected.len()..].join(" ");
    // Only what differs from before; b is as it was.
    assert_eq!(after, "lost +c +c/p4 bbbb-2");
    drop(watching);
    server.put("c", &[(5, true)]);
    until("nobody listens", || Arc::strong_count(&heard) == 1).await;
}
