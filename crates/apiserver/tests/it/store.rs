//! The store from outside: what it promises to writers, readers and watchers,
//! checked against a plain model; what its disk may do to it is in `power`
//! and, at length, in `torture`; what it does with the files it finds in `files`.

mod disk;
mod files;
mod model;
mod power;
mod torture;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use portolan_apiserver::store::{
    Backend, Compacted, Event, EventKind, Expect, HISTORY_BYTES_DEFAULT, Key, OBJECT_BYTES_MAX,
    Options, Record, Store, Watcher, Write, WriteError,
};

/// Long enough for any machine; a test that hits it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
}

fn memory(options: Options) -> Store {
    Store::open(Backend::Memory, options).unwrap()
}

/// Bytes that say which write they are of.
fn body(key: &Key, text: &str, revision: u64) -> Bytes {
    format!("{key} {text} @{revision}").into()
}

async fn put(
    store: &Store,
    key: &Key,
    expect: Expect,
    text: &str,
) -> Result<Arc<Record>, WriteError> {
    let (about, text) = (key.clone(), text.to_owned());
    store.write(Write::put(key.clone(), expect, move |rev| body(&about, &text, rev))).await
}

async fn delete(store: &Store, key: &Key, revision: u64) -> Result<Arc<Record>, WriteError> {
    let about = key.clone();
    store.write(Write::delete(key.clone(), revision, move |rev| body(&about, "gone", rev))).await
}

async fn next(watcher: &mut Watcher) -> Option<Result<Arc<Event>, Compacted>> {
    tokio::time::timeout(DEADLINE, watcher.next()).await.expect("no event came")
}

/// Kind, revision and previous revision of the next event.
async fn seen(watcher: &mut Watcher) -> (EventKind, u64, Option<u64>) {
    let event = next(watcher).await.unwrap().unwrap();
    (event.kind, event.record.revision, event.previous.as_ref().map(|record| record.revision))
}

fn names(store: &Store, resource: &str, at: Option<u64>) -> Vec<String> {
    let list = store.list(resource, None, None, None, at).unwrap();
    list.items.iter().map(|r| format!("{}/{}", r.key.namespace, r.key.name)).collect()
}

#[tokio::test]
async fn an_object_lives_once() {
    let store = memory(Options::default());
    assert_eq!(store.revision(), 1);
    let pod = key("pods", "default", "a");
    let mut watcher = store.watch("pods", 1).unwrap();

    let added = put(&store, &pod, Expect::Absent, "one").await.unwrap();
    assert_eq!((added.revision, &added.bytes), (2, &body(&pod, "one", 2)));
    assert!(Arc::ptr_eq(&store.get(&pod).unwrap(), &added), "readers share what was stored");
    let modified = put(&store, &pod, Expect::Revision(2), "two").await.unwrap();
    assert_eq!(modified.revision, 3);
    assert_eq!((store.count("pods"), store.resources()), (1, vec!["pods".into()]));
    let deleted = delete(&store, &pod, 3).await.unwrap();
    assert_eq!((deleted.revision, &deleted.bytes), (4, &body(&pod, "gone", 4)));
    assert!(store.get(&pod).is_none());
    assert_eq!((store.count("pods"), store.resources()), (0, vec![]));
    assert_eq!(store.revision(), 4);

    assert_eq!(seen(&mut watcher).await, (EventKind::Added, 2, None));
    assert_eq!(seen(&mut watcher).await, (EventKind::Modified, 3, Some(2)));
    let last = next(&mut watcher).await.unwrap().unwrap();
    assert_eq!((last.kind, &last.record.bytes), (EventKind::Deleted, &body(&pod, "gone", 4)));
    assert_eq!(last.previous.as_ref().unwrap().bytes, body(&pod, "two", 3));
}

#[tokio::test]
async fn a_write_that_expects_something_else_changes_nothing() {
    let store = memory(Options::default());
    let (there, gone) = (key("pods", "default", "there"), key("pods", "default", "gone"));
    put(&store, &there, Expect::Absent, "").await.unwrap();

    let check = async |key: &Key, remove: bool, expect: Expect, found: Option<u64>| {
        let about = key.clone();
        let encode = move |_| -> Bytes { panic!("{about} was encoded") };
        let mut write = Write::put(key.clone(), expect, encode);
        if remove {
            write = Write::delete(key.clone(), 0, |_| panic!("encoded"));
            write.expect = expect;
        }
        match store.write(write).await {
            Err(WriteError::Conflict { current }) => {
                assert_eq!(current.map(|record| record.revision), found);
            }
            other => panic!("{key} {expect:?}: {other:?}"),
        }
    };
    check(&there, false, Expect::Absent, Some(2)).await;
    check(&there, false, Expect::Revision(1), Some(2)).await;
    check(&there, false, Expect::Revision(3), Some(2)).await;
    check(&gone, false, Expect::Revision(2), None).await;
    check(&there, true, Expect::Absent, Some(2)).await;
    check(&there, true, Expect::Revision(1), Some(2)).await;
    check(&gone, true, Expect::Revision(2), None).await;
    check(&gone, true, Expect::Absent, None).await;
    assert_eq!((store.revision(), names(&store, "pods", None).len()), (2, 1));
}

#[tokio::test]
async fn writes_that_wait_together_see_each_other() {
    let store = memory(Options::default());
    let pod = key("pods", "default", "a");
    // On this one thread all are queued before the first is answered.
    let (created, again, changed, deleted, reborn) = tokio::join!(
        put(&store, &pod, Expect::Absent, "1"),
        put(&store, &pod, Expect::Absent, "2"),
        put(&store, &pod, Expect::Revision(2), "3"),
        delete(&store, &pod, 3),
        put(&store, &pod, Expect::Absent, "4"),
    );
    assert_eq!(created.unwrap().revision, 2);
    match again {
        Err(WriteError::Conflict { current: Some(current) }) => assert_eq!(current.revision, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(changed.unwrap().revision, 3);
    assert_eq!(deleted.unwrap().revision, 4);
    assert_eq!(reborn.unwrap().revision, 5);
    assert_eq!(store.get(&pod).unwrap().bytes, body(&pod, "4", 5));
}

#[tokio::test]
async fn bad_writes_are_refused_and_leave_no_gap() {
    let store = memory(Options::default());
    let pod = key("pods", "default", "a");
    let large = Write::put(pod.clone(), Expect::Absent, |_| vec![0; OBJECT_BYTES_MAX + 1].into());
    assert!(matches!(
        store.write(large).await,
        Err(WriteError::TooLarge { bytes, limit: OBJECT_BYTES_MAX }) if bytes == OBJECT_BYTES_MAX + 1
    ));
    let nul = put(&store, &key("pods", "a\0b", "c"), Expect::Absent, "").await;
    assert!(matches!(nul, Err(WriteError::BadKey(_))), "{nul:?}");
    let broken = Write::put(pod.clone(), Expect::Absent, |_| panic!("on purpose"));
    assert!(matches!(store.write(broken).await, Err(WriteError::Io(_))));

    let largest = Write::put(pod.clone(), Expect::Absent, |_| vec![0; OBJECT_BYTES_MAX].into());
    assert_eq!(store.write(largest).await.unwrap().revision, 2);
}

#[tokio::test]
async fn lists_come_in_pages_and_keep_to_their_revision() {
    let store = memory(Options::default());
    for (namespace, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("c", "1"), ("a-b", "1")] {
        put(&store, &key("pods", namespace, name), Expect::Absent, "").await.unwrap();
    }
    put(&store, &key("nodes", "", "n"), Expect::Absent, "").await.unwrap();
    let then = store.revision();
    assert_eq!(names(&store, "pods", None), ["a/1", "a/2", "a-b/1", "b/1", "c/1"]);
    assert_eq!(names(&store, "nodes", None), ["/n"]);
    assert!(names(&store, "services", None).is_empty());

    let first = store.list("pods", None, None, Some(2), None).unwrap();
    assert_eq!((first.revision, first.items.len(), first.remaining), (then, 2, 3));
    // The pages that follow do not show what happens meanwhile.
    delete(&store, &key("pods", "a-b", "1"), 6).await.unwrap();
    put(&store, &key("pods", "b", "0"), Expect::Absent, "").await.unwrap();
    put(&store, &key("pods", "c", "1"), Expect::Revision(5), "new").await.unwrap();
    let after = first.items.last().map(|record| record.key.clone());
    let second = store.list("pods", None, after.as_ref(), Some(2), Some(then)).unwrap();
    let page: Vec<_> = second.items.iter().map(|r| (&*r.key.namespace, r.revision)).collect();
    assert_eq!((page, second.remaining), (vec![("a-b", 6), ("b", 2)], 1));

    let only = store.list("pods", Some("a"), None, None, None).unwrap();
    assert_eq!(only.items.len(), 2, "{:?}", only.items);
    let none = store.list("pods", Some("a"), Some(&key("pods", "b", "1")), None, None).unwrap();
    assert!(none.items.is_empty());
    let limited = store.list("pods", Some("a"), None, Some(0), None).unwrap();
    assert_eq!((limited.items.len(), limited.remaining), (0, 2));
}

#[tokio::test]
async fn revisions_outside_the_history_are_refused() {
    let store = memory(Options { history_events: 3, ..Options::default() });
    let pod = key("pods", "default", "a");
    let mut revision = put(&store, &pod, Expect::Absent, "").await.unwrap().revision;
    for _ in 0..5 {
        revision = put(&store, &pod, Expect::Revision(revision), "").await.unwrap().revision;
    }
    let refused = |requested| Compacted { requested, oldest: 4, current: 7 };
    for requested in [0, 1, 3, 8, u64::MAX] {
        let list = store.list("pods", None, None, None, Some(requested));
        assert_eq!(list.unwrap_err(), refused(requested));
    }
    assert_eq!(store.watch("pods", 3).unwrap_err(), refused(3));
    assert_eq!(store.list("pods", None, None, None, Some(4)).unwrap().items[0].revision, 4);
    assert_eq!(seen(&mut store.watch("pods", 4).unwrap()).await.1, 5);
    assert_eq!(store.watch("services", 1).unwrap().position(), 7, "nothing of services is lost");
    assert_eq!(store.watch("services", 0).unwrap_err().oldest, 1);
}

#[tokio::test]
async fn the_history_is_limited_by_bytes_too() {
    let store = memory(Options { history_bytes: 10_000, ..Options::default() });
    for name in 0..100 {
        let pod = key("pods", "default", &format!("{name}"));
        let write = Write::put(pod, Expect::Absent, |_| vec![b'x'; 1000].into());
        store.write(write).await.unwrap();
    }
    let history = store.history();
    assert_eq!((history.events, history.bytes), (10, 10_000));
    assert_eq!(names(&store, "pods", None).len(), 100, "what is stored is not history");
    // One event larger than the window is kept, or no watcher would ever see it.
    let large = key("pods", "default", "large");
    let mut watcher = store.watch("pods", store.revision()).unwrap();
    store.write(Write::put(large, Expect::Absent, |_| vec![0; 20_000].into())).await.unwrap();
    assert_eq!(seen(&mut watcher).await.0, EventKind::Added);
    const { assert!(HISTORY_BYTES_DEFAULT > OBJECT_BYTES_MAX) };
}

#[tokio::test]
async fn a_slow_watcher_is_told_and_a_quiet_one_is_not() {
    let store = memory(Options { history_events: 10, ..Options::default() });
    let service = key("services", "default", "s");
    put(&store, &service, Expect::Absent, "").await.unwrap();
    let mut slow = store.watch("pods", 2).unwrap();
    let mut quiet = store.watch("services", 2).unwrap();
    assert_eq!(store.watchers(), 2);
    for name in 0..20 {
        let pod = key("pods", "default", &format!("{name}"));
        put(&store, &pod, Expect::Absent, "").await.unwrap();
        if name == 3 {
            assert_eq!(seen(&mut slow).await, (EventKind::Added, 3, None));
        }
    }
    assert_eq!(slow.position(), 3);
    let lost = Compacted { requested: 3, oldest: 12, current: 22 };
    assert_eq!(next(&mut slow).await.unwrap().unwrap_err(), lost);
    assert!(next(&mut slow).await.is_none());
    drop(slow);
    assert_eq!((quiet.position(), store.watchers()), (22, 1));
    put(&store, &service, Expect::Revision(2), "").await.unwrap();
    assert_eq!(quiet.position(), 22, "not before it is delivered");
    assert_eq!(seen(&mut quiet).await, (EventKind::Modified, 23, Some(2)));
    assert_eq!(quiet.position(), 23);
}

#[tokio::test]
async fn a_watch_from_the_future_waits_for_it() {
    let store = memory(Options::default());
    let mut watcher = store.watch("pods", 3).unwrap();
    for name in ["a", "b", "c"] {
        put(&store, &key("pods", "default", name), Expect::Absent, "").await.unwrap();
    }
    assert_eq!(seen(&mut watcher).await, (EventKind::Added, 4, None));
}

#[tokio::test]
async fn closing_ends_watchers_and_refuses_writes() {
    let store = memory(Options::default());
    let pod = key("pods", "default", "a");
    let mut watcher = store.watch("pods", 1).unwrap();
    let mut waiting = store.watch("nodes", 1).unwrap();
    let waiting = tokio::spawn(async move { next(&mut waiting).await.is_none() });
    let (written, ()) = tokio::join!(put(&store, &pod, Expect::Absent, ""), store.close());
    assert_eq!(written.unwrap().revision, 2, "what was queued before is carried out");
    store.close().await;
    assert!(matches!(delete(&store, &pod, 2).await, Err(WriteError::Closed)));
    assert_eq!(seen(&mut watcher).await.1, 2);
    assert!(next(&mut watcher).await.is_none());
    assert!(waiting.await.unwrap());
    assert!(store.get(&pod).is_some(), "reads go on");
}

#[tokio::test]
async fn watchers_end_when_the_last_handle_goes() {
    let store = memory(Options::default());
    let mut watcher = store.watch("pods", 1).unwrap();
    drop(store);
    assert!(next(&mut watcher).await.is_none());
}

/// Tasks that count up one object each from what they last saw of it: no count
/// is lost, and the watcher sees one unbroken chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_lose_nothing() {
    const TASKS: u64 = 8;
    const COUNTS: u64 = 100;
    let store = memory(Options::default());
    let counter = key("configmaps", "default", "counter");
    put(&store, &counter, Expect::Absent, "0").await.unwrap();
    let mut watcher = store.watch("configmaps", 2).unwrap();
    let tasks = (0..TASKS).map(|_| {
        let (store, counter) = (store.clone(), counter.clone());
        tokio::spawn(async move {
            for _ in 0..COUNTS {
                let mut seen = store.get(&counter).unwrap();
                loop {
                    let text = std::str::from_utf8(&seen.bytes).unwrap();
                    let count: u64 = text.split(' ').nth(2).unwrap().parse().unwrap();
                    let expect = Expect::Revision(seen.revision);
                    match put(&store, &counter, expect, &(count + 1).to_string()).await {
                        Ok(_) => break,
                        Err(WriteError::Conflict { current: Some(current) }) => seen = current,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let last = store.get(&counter).unwrap();
    assert_eq!(last.bytes, body(&counter, &(TASKS * COUNTS).to_string(), last.revision));
    assert_eq!(last.revision, 2 + TASKS * COUNTS, "a conflict takes no revision");
    for revision in 3..=last.revision {
        assert_eq!(seen(&mut watcher).await, (EventKind::Modified, revision, Some(revision - 1)));
    }
}
