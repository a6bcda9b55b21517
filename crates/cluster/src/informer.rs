//! A parsed copy of every object of one kind, shared by whoever needs it: what
//! [`crate::projection`] keeps of it.
//!
//! ```text
//!  store ── list, then watch ──▶ feed ──▶ cache ──▶ get, list, controlled_by
//!                                 │
//!                                 └─────▶ on_change callbacks ──▶ work queues
//! ```
//!
//! The feed is pulled, not pushed: a read first applies whatever the store has
//! published, and a background task does the same whenever something changes.
//! A reader therefore sees every write that was acknowledged before it asked.
//! That replaces the "expectations" with which controllers elsewhere guard
//! against caches that lag behind their own writes: here none lags.
//!
//! Callbacks run in the order of the revisions, with the feed locked. They may
//! look at informers through [`Informer::cached`] and [`Informer::cached_list`]
//! only, and should do no more than put keys into a [`crate::queue::Queue`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures_util::FutureExt;
use portolan_apiserver::{
    kinds::Kind,
    store::{Compacted, Event, EventKind, Key, Record, Store, Watcher},
};
use portolan_runtime::Tasks;
use serde_json::Value;
use tokio::sync::watch;

use crate::{object, projection};

/// A parsed object, shared.
pub type Object = Arc<Value>;

/// Names an object within its kind; sorts by namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of a namespace and a name.
    pub fn new(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of(object: &Value) -> ObjectKey {
        ObjectKey::new(object::namespace(object), object::name(object))
    }
}

impl From<&Key> for ObjectKey {
    fn from(key: &Key) -> ObjectKey {
        ObjectKey { namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What happened to one object: `old` is absent when it came, `new` when it went.
pub struct Change<'a> {
    /// Which object.
    pub key: &'a ObjectKey,
    /// Before.
    pub old: Option<&'a Object>,
    /// After.
    pub new: Option<&'a Object>,
}

impl<'a> Change<'a> {
    /// The object as it is now, or as it was last.
    pub fn latest(&self) -> Option<&'a Object> {
        self.new.or(self.old)
    }

    /// Before and after, whichever there are: what an index over a field has to look at.
    pub fn sides(&self) -> impl Iterator<Item = &'a Object> {
        self.old.into_iter().chain(self.new)
    }
}

type OnChange = Box<dyn Fn(&Change<'_>) + Send + Sync>;

#[derive(Default)]
struct Cache {
    objects: BTreeMap<ObjectKey, Object>,
    /// Controller's uid (empty: none), then key.
    by_controller: BTreeSet<(Box<str>, ObjectKey)>,
}

impl Cache {
    fn put(&mut self, key: &ObjectKey, new: Option<&Object>) -> Option<Object> {
        let old = match new {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        if let Some(old) = &old {
            self.by_controller.remove(&(object::controller_uid(old).into(), key.clone()));
        }
        if let Some(new) = new {
            self.by_controller.insert((object::controller_uid(new).into(), key.clone()));
        }
        old
    }
}

struct Feed {
    /// `None` until the first list, and after the history window has moved past it.
    watcher: Option<Watcher>,
    callbacks: Vec<OnChange>,
}

struct Shared {
    kind: &'static Kind,
    store: Store,
    cache: RwLock<Cache>,
    feed: Mutex<Feed>,
    /// Signals that the cache changed.
    changed: watch::Sender<()>,
}

/// The objects of one kind. Clones show the same cache.
#[derive(Clone)]
pub struct Informer {
    shared: Arc<Shared>,
}

impl Informer {
    fn new(store: Store, kind: &'static Kind) -> Informer {
        let feed = Mutex::new(Feed { watcher: None, callbacks: Vec::new() });
        let changed = watch::Sender::new(());
        let shared = Shared { kind, store, cache: RwLock::default(), feed, changed };
        Informer { shared: Arc::new(shared) }
    }

    /// The kind of the objects.
    pub fn kind(&self) -> &'static Kind {
        self.shared.kind
    }

    /// Applies what the store has published, so that the `cached` reads that
    /// follow are no older than this. Not for callbacks.
    pub fn refresh(&self) {
        self.shared.drain();
    }

    /// The object as the store has it now. Not for callbacks.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Object> {
        self.shared.drain();
        self.cached(namespace, name)
    }

    /// The objects of one namespace, or of all, as the store has them now. Not for callbacks.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Object> {
        self.shared.drain();
        self.cached_list(namespace)
    }

    /// The objects of a namespace whose controller has this uid; the empty uid
    /// stands for having no controller. As the store has them now. Not for callbacks.
    pub fn controlled_by(&self, namespace: &str, uid: &str) -> Vec<Object> {
        self.shared.drain();
        let cache = self.shared.cache();
        let from = (Box::from(uid), ObjectKey::new(namespace, ""));
        cache
            .by_controller
            .range(from..)
            .take_while(|(owner, key)| **owner == *uid && *key.namespace == *namespace)
            .filter_map(|(_, key)| cache.objects.get(key).cloned())
            .collect()
    }

    /// The object as last seen, which may be a moment behind the store. For callbacks.
    pub fn cached(&self, namespace: &str, name: &str) -> Option<Object> {
        self.shared.cache().objects.get(&ObjectKey::new(namespace, name)).cloned()
    }

    /// The objects as last seen, which may be a moment behind the store. For callbacks.
    pub fn cached_list(&self, namespace: Option<&str>) -> Vec<Object> {
        let cache = self.shared.cache();
        match namespace {
            None => cache.objects.values().cloned().collect(),
            Some(namespace) => cache
                .objects
                .range(ObjectKey::new(namespace, "")..)
                .take_while(|(key, _)| *key.namespace == *namespace)
                .map(|(_, object)| object.clone())
                .collect(),
        }
    }

    /// Calls back for every object there is (as one that came), and then for every change.
    pub fn on_change(&self, callback: impl Fn(&Change<'_>) + Send + Sync + 'static) {
        self.shared.drain();
        let mut feed = self.shared.feed();
        let present: Vec<_> =
            self.shared.cache().objects.iter().map(|(k, o)| (k.clone(), o.clone())).collect();
        for (key, object) in &present {
            callback(&Change { key, old: None, new: Some(object) });
        }
        feed.callbacks.push(Box::new(callback));
    }

    /// Waits until the objects are as `find` wants them, and returns what it finds.
    pub async fn until<T>(&self, mut find: impl FnMut(&Informer) -> Option<T>) -> T {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = find(self) {
                return found;
            }
            if changed.changed().await.is_err() {
                // The sender lives in `self.shared`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Keeps the cache fresh while nobody reads, so that callbacks come at once.
    async fn follow(self, tasks: Tasks) {
        loop {
            let shared = &self.shared;
            // A second place in the history, only to be woken by: the first one
            // belongs to whoever reads.
            let Ok(mut signal) = shared.store.watch(shared.kind.resource, shared.store.revision())
            else {
                continue; // The window moved on between the two calls.
            };
            shared.drain();
            loop {
                let next = tokio::select! {
                    next = signal.next() => next,
                    () = tasks.shutdown().cancelled() => return,
                };
                match next {
                    Some(Ok(_)) => shared.drain(),
                    Some(Err(_)) => break,
                    None => return,
                }
            }
        }
    }
}

impl Shared {
    fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_mut(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies all that the store has published.
    fn drain(&self) {
        let mut feed = self.feed();
        loop {
            let Feed { watcher, callbacks } = &mut *feed;
            let Some(open) = watcher else {
                // Fails if the window moved on between list and watch: once more.
                *watcher = self.relist(callbacks).ok();
                continue;
            };
            match open.next().now_or_never() {
                // Caught up, or the store is closed and stays as it is.
                None | Some(None) => return,
                Some(Some(Ok(event))) => self.apply(callbacks, &event),
                Some(Some(Err(lost))) => {
                    tracing::info!(kind = self.kind.plural, %lost, "listing anew");
                    *watcher = None;
                }
            }
        }
    }

    fn apply(&self, callbacks: &[OnChange], event: &Event) {
        let key = ObjectKey::from(&event.record.key);
        let new = match event.kind {
            EventKind::Added | EventKind::Modified => {
                let Some(object) = parse(self.kind, &event.record) else { return };
                Some(object)
            }
            EventKind::Deleted => None,
        };
        self.put(callbacks, &key, new);
    }

    fn put(&self, callbacks: &[OnChange], key: &ObjectKey, new: Option<Object>) {
        let old = self.cache_mut().put(key, new.as_ref());
        if old.is_none() && new.is_none() {
            return;
        }
        let change = Change { key, old: old.as_ref(), new: new.as_ref() };
        for callback in callbacks {
            callback(&change);
        }
        self.changed.send_replace(());
    }

    /// Replaces the cache by a list; callbacks see the difference.
    fn relist(&self, callbacks: &[OnChange]) -> Result<Watcher, Compacted> {
        let listing = self.store.list(self.kind.resource, None, None, None, None)?;
        let watcher = self.store.watch(self.kind.resource, listing.revision)?;
        let listed: HashMap<ObjectKey, &Arc<Record>> =
            listing.items.iter().map(|record| (ObjectKey::from(&record.key), record)).collect();
        let known: Vec<(ObjectKey, u64)> = (self.cache().objects.iter())
            .map(|(key, object)| (key.clone(), object::revision(object)))
            .collect();
        for (key, _) in known.iter().filter(|(key, _)| !listed.contains_key(key)) {
            self.put(callbacks, key, None);
        }
        let known: HashMap<ObjectKey, u64> = known.into_iter().collect();
        for record in &listing.items {
            let key = ObjectKey::from(&record.key);
            if known.get(&key) != Some(&record.revision)
                && let Some(object) = parse(self.kind, record)
            {
                self.put(callbacks, &key, Some(object));
            }
        }
        Ok(watcher)
    }
}

/// What is stored was checked on its way in; if it does not parse all the same,
/// the rest goes on without it.
fn parse(kind: &Kind, record: &Record) -> Option<Object> {
    match projection::read(kind, &record.bytes) {
        Ok(value) => Some(Arc::new(value)),
        Err(error) => {
            tracing::error!(key = %record.key, %error, "a stored object does not parse");
            None
        }
    }
}

/// One informer per kind, made when first asked for.
#[derive(Clone)]
pub struct Informers {
    store: Store,
    tasks: Tasks,
    made: Arc<Mutex<HashMap<&'static Kind, Informer>>>,
}

impl Informers {
    /// Informers of what a store holds, which end with `tasks`.
    pub fn new(store: Store, tasks: Tasks) -> Informers {
        Informers { store, tasks, made: Arc::default() }
    }

    /// The informer of a kind. The first read of it lists; must run inside a tokio runtime.
    pub fn of(&self, kind: &'static Kind) -> Informer {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(kind)
            .or_insert_with(|| {
                let informer = Informer::new(self.store.clone(), kind);
                self.tasks.spawn("informer", informer.clone().follow(self.tasks.clone()));
                informer
            })
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use portolan_apiserver::{
        kinds,
        store::{Backend, Expect, Options, Write},
    };
    use portolan_runtime::Shutdown;
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key {
            resource: kinds::PODS.resource.into(),
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn pod(name: &str, owner: &str) -> impl FnOnce(u64) -> Bytes + Send + 'static {
        let mut object = json!({"kind": "Pod", "metadata": {"name": name, "namespace": "default"}});
        if !owner.is_empty() {
            object["metadata"]["ownerReferences"] = json!([{"uid": owner, "controller": true}]);
        }
        move |revision| {
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            object.to_string().into()
        }
    }

    fn names(objects: &[Object]) -> Vec<&str> {
        objects.iter().map(|object| object::name(object)).collect()
    }

    async fn put(store: &Store, name: &str, owner: &str) {
        let expect = store.get(&key(name)).map_or(Expect::Absent, |r| Expect::Revision(r.revision));
        store.write(Write::put(key(name), expect, pod(name, owner))).await.unwrap();
    }

    #[tokio::test]
    async fn reads_see_every_write_that_was_acknowledged() {
        let options = Options { history_events: 2, ..Options::default() };
        let store = Store::open(Backend::Memory, options).unwrap();
        let tasks = Tasks::new(Shutdown::new());
        let informer = Informers::new(store.clone(), tasks.clone()).of(&kinds::PODS);
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = seen.clone();
        informer.on_change(move |change| {
            let sign = match (change.old, change.new) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            log.lock().unwrap().push(format!("{sign}{}", change.key.name));
        });
        assert_eq!(names(&informer.list(None)), Vec::<&str>::new());
        put(&store, "a", "").await;
        assert_eq!(names(&informer.list(Some("default"))), ["a"]);
        // More changes than the history holds, between two reads on one thread.
        for name in ["b", "c", "d"] {
            put(&store, name, "u1").await;
        }
        put(&store, "c", "u2").await;
        let revision = store.get(&key("b")).unwrap().revision;
        store.write(Write::delete(key("b"), revision, |_| Bytes::new())).await.unwrap();
        assert_eq!(names(&informer.list(None)), ["a", "c", "d"]);
        assert_eq!(names(&informer.controlled_by("default", "u1")), ["d"]);
        assert_eq!(names(&informer.controlled_by("default", "")), ["a"]);
        assert_eq!(names(&informer.controlled_by("other", "u1")), Vec::<&str>::new());
        assert!(informer.get("default", "b").is_none());
        let mut seen = seen.lock().unwrap().clone();
        seen.retain(|change| !change.contains('b') && !change.starts_with('~'));
        assert_eq!(seen, ["+a", "+c", "+d"]);
        tasks.shutdown().cancel();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn readers_on_other_threads_see_their_own_writes() {
        let options = Options { history_events: 50, ..Options::default() };
        let store = Store::open(Backend::Memory, options).unwrap();
        let tasks = Tasks::new(Shutdown::new());
        let informer = Informers::new(store.clone(), tasks.clone()).of(&kinds::PODS);
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (store, informer) = (store.clone(), informer.clone());
            writers.spawn(async move {
                let name = format!("p{writer}");
                for _ in 0..200 {
                    put(&store, &name, "").await;
                    let written = store.get(&key(&name)).unwrap().revision;
                    let seen = informer.get("default", &name).unwrap();
                    assert_eq!(object::revision(&seen), written);
                }
            });
        }
        writers.join_all().await;
        assert_eq!(informer.list(None).len(), 8);
        tasks.shutdown().cancel();
    }
}
