//! The store against a model that keeps every state there ever was.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const RESOURCES: [&str; 2] = ["pods", "services"];
const NAMESPACES: [&str; 3] = ["a", "a-b", "b"];
const NAMES: [&str; 3] = ["x", "y", "z"];

/// A write to one of few objects, so that they collide; `right` is whether it
/// expects what is really there.
#[derive(Clone, Debug)]
struct Step {
    resource: usize,
    namespace: usize,
    name: usize,
    remove: bool,
    right: bool,
    size: usize,
    /// Queued together with the step before.
    together: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0..RESOURCES.len(), 0..NAMESPACES.len(), 0..NAMES.len());
    let how = (prop::bool::weighted(0.3), prop::bool::weighted(0.9), 0..60usize, any::<bool>());
    (place, how).prop_map(|((resource, namespace, name), (remove, right, size, together))| Step {
        resource,
        namespace,
        name,
        remove,
        right,
        size,
        together,
    })
}

type Objects = BTreeMap<Key, (u64, Bytes)>;

struct Change {
    kind: EventKind,
    key: Key,
    revision: u64,
    bytes: Bytes,
    previous: Option<(u64, Bytes)>,
}

/// What the store should be.
struct Model {
    /// The state at each revision, beginning with the first.
    states: Vec<Objects>,
    changes: Vec<Change>,
}

const FIRST: u64 = 1;

impl Model {
    fn new() -> Self {
        Model { states: vec![Objects::new()], changes: Vec::new() }
    }

    fn revision(&self) -> u64 {
        FIRST + self.changes.len() as u64
    }

    /// Applies a step; returns the write to make and what must come of it.
    fn apply(&mut self, step: &Step) -> (Write, Result<u64, Option<u64>>) {
        let key = key(RESOURCES[step.resource], NAMESPACES[step.namespace], NAMES[step.name]);
        let mut objects = self.states.last().unwrap().clone();
        let current = objects.get(&key).cloned();
        let truth = current.as_ref().map(|(revision, _)| *revision);
        let expect = match (truth, step.right) {
            (Some(revision), true) => Expect::Revision(revision),
            (Some(revision), false) => Expect::Revision(revision - 1),
            (None, true) => Expect::Absent,
            (None, false) => Expect::Revision(self.revision()),
        };
        let text = "x".repeat(step.size);
        let about = key.clone();
        let encode = move |revision| body(&about, &text, revision);
        let write = match step.remove {
            true => Write { expect, ..Write::delete(key.clone(), 0, encode.clone()) },
            false => Write::put(key.clone(), expect, encode.clone()),
        };
        if !step.right || (step.remove && truth.is_none()) {
            return (write, Err(truth));
        }
        let revision = self.revision() + 1;
        let bytes = encode(revision);
        let kind = match (step.remove, truth) {
            (true, _) => EventKind::Deleted,
            (false, Some(_)) => EventKind::Modified,
            (false, None) => EventKind::Added,
        };
        match step.remove {
            true => objects.remove(&key),
            false => objects.insert(key.clone(), (revision, bytes.clone())),
        };
        self.states.push(objects);
        self.changes.push(Change { kind, key, revision, bytes, previous: current });
        (write, Ok(revision))
    }

    /// Oldest revision of each resource that a history of these limits still knows.
    fn oldest(&self, resource: &str, events: usize, bytes: usize) -> u64 {
        let size = |change: &Change| {
            change.bytes.len() + change.previous.as_ref().map_or(0, |(_, bytes)| bytes.len())
        };
        let mut from = self.changes.len();
        let mut total = 0;
        while from > 0 && self.changes.len() - from < events {
            total += size(&self.changes[from - 1]);
            if total > bytes && from < self.changes.len() {
                break;
            }
            from -= 1;
        }
        let evicted =
            self.changes[..from].iter().filter(|change| &*change.key.resource == resource);
        evicted.map(|change| change.revision).max().unwrap_or(FIRST)
    }

    fn list(&self, at: u64, resource: &str, namespace: Option<&str>, after: Option<&Key>) -> Rows {
        let state = &self.states[(at - FIRST) as usize];
        let mine = state.iter().filter(|(key, _)| {
            &*key.resource == resource
                && namespace.is_none_or(|namespace| &*key.namespace == namespace)
                && after.is_none_or(|after| *key > after)
        });
        mine.map(|(key, (revision, bytes))| (key.clone(), *revision, bytes.clone())).collect()
    }
}

type Rows = Vec<(Key, u64, Bytes)>;

fn rows<'a>(records: impl IntoIterator<Item = &'a Arc<Record>>) -> Rows {
    let row = |r: &Arc<Record>| (r.key.clone(), r.revision, r.bytes.clone());
    records.into_iter().map(row).collect()
}

async fn run(model: &mut Model, store: &Store, steps: &[Step]) {
    let mut rest = steps;
    while let Some(first) = rest.first() {
        let more = rest[1..].iter().take_while(|step| step.together).count();
        let (group, left) = rest.split_at(1 + more);
        rest = left;
        let (writes, expected): (Vec<_>, Vec<_>) =
            group.iter().map(|step| model.apply(step)).unzip();
        let answers = join_all(writes.into_iter().map(|write| store.write(write))).await;
        for (answer, expected) in answers.into_iter().zip(expected) {
            let answer = match answer {
                Ok(record) => Ok(record.revision),
                Err(WriteError::Conflict { current }) => Err(current.map(|r| r.revision)),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(answer, expected, "after {first:?}");
        }
    }
}

fn check_lists(model: &Model, store: &Store, events: usize, bytes: usize) {
    let after = key("", "a-b", "x");
    for resource in RESOURCES {
        let oldest = model.oldest(resource, events, bytes);
        // A resource that nothing was ever written to or watched has no name yet, and no past.
        for at in FIRST..=model.revision() {
            for namespace in [None, Some("a"), Some("a-b"), Some("c")] {
                for (after, limit) in [(None, None), (None, Some(2)), (Some(&after), Some(1))] {
                    let listed = store.list(resource, namespace, after, limit, Some(at));
                    if at < oldest {
                        assert_eq!(listed.unwrap_err().oldest, oldest);
                        continue;
                    }
                    let listed = listed.unwrap();
                    let after =
                        after.map(|after| Key { resource: resource.into(), ..after.clone() });
                    let mut expected = model.list(at, resource, namespace, after.as_ref());
                    let total = expected.len();
                    expected.truncate(limit.unwrap_or(usize::MAX));
                    assert_eq!(listed.revision, at);
                    assert_eq!(listed.remaining, total - expected.len());
                    assert_eq!(rows(&listed.items), expected, "{resource} {namespace:?} at {at}");
                }
            }
        }
    }
}

async fn check_watches(model: &Model, store: &Store, events: usize, bytes: usize) {
    for resource in RESOURCES {
        let oldest = model.oldest(resource, events, bytes);
        for since in FIRST..=model.revision() {
            let watcher = store.watch(resource, since);
            if since < oldest {
                assert_eq!(watcher.unwrap_err().oldest, oldest);
                continue;
            }
            let mut watcher = watcher.unwrap();
            let later =
                |change: &&Change| &*change.key.resource == resource && change.revision > since;
            for change in model.changes.iter().filter(later) {
                let event = next(&mut watcher).await.unwrap().unwrap();
                assert_eq!(event.kind, change.kind);
                let row = (change.key.clone(), change.revision, change.bytes.clone());
                assert_eq!(rows([&event.record]), [row]);
                let previous = event.previous.as_ref().map(|r| (r.revision, r.bytes.clone()));
                assert_eq!(previous, change.previous);
            }
            assert_eq!(watcher.position(), model.revision(), "it has seen everything");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Lists at every revision, and watches from every revision, are what was
    /// there, or refused exactly when the window no longer knows.
    #[test]
    fn the_past_is_what_it_was(
        steps in prop::collection::vec(step(), 1..60),
        events in prop_oneof![Just(100_000), 1..40usize],
        bytes in prop_oneof![Just(1 << 20), 100..3000usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let options = Options { history_events: events, history_bytes: bytes, fsync: true };
            let store = memory(options);
            let mut model = Model::new();
            run(&mut model, &store, &steps).await;
            assert_eq!(store.revision(), model.revision());
            check_lists(&model, &store, events, bytes);
            check_watches(&model, &store, events, bytes).await;
        });
    }
}
