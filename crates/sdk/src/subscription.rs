//! What a subscriber holds: the newest snapshot of one interface.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{sync::watch, time::Instant};

use crate::{Instance, instance::Key};

/// When something was confirmed; it may have been before the machine's clock began to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    at: Instant,
    before: Duration,
}

impl Observed {
    pub(crate) fn now() -> Self {
        Self::ago(Duration::ZERO)
    }

    pub(crate) fn ago(age: Duration) -> Self {
        Self { at: Instant::now(), before: age }
    }

    pub(crate) fn age(&self) -> Duration {
        self.at.elapsed().saturating_add(self.before)
    }
}

/// The instances of one interface at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: u64,
    instances: Arc<[Arc<Instance>]>,
    available: Arc<[Arc<Instance>]>,
    observed: Observed,
    trouble: Option<Arc<str>>,
}

impl Snapshot {
    pub(crate) fn new(
        version: u64,
        instances: Vec<Arc<Instance>>,
        observed: Observed,
        trouble: Option<Arc<str>>,
    ) -> Self {
        let available = instances.iter().filter(|instance| instance.is_available()).cloned();
        Self {
            version,
            available: available.collect(),
            instances: instances.into(),
            observed,
            trouble,
        }
    }

    pub(crate) fn with_health(&self, observed: Observed, trouble: Option<Arc<str>>) -> Self {
        Self { observed, trouble, ..self.clone() }
    }

    /// Grows with each change that the watch brings; starts anew with each
    /// watch, so it compares only snapshots of one subscription.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All instances, in a stable order: also those that take no calls now.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// Those that take new calls.
    pub fn available(&self) -> &[Arc<Instance>] {
        &self.available
    }

    /// The list of [`Snapshot::available`], shared.
    pub(crate) fn available_list(&self) -> &Arc<[Arc<Instance>]> {
        &self.available
    }

    /// Whether this is the list of instances that take calls.
    pub(crate) fn is_of(&self, available: &Arc<[Arc<Instance>]>) -> bool {
        Arc::ptr_eq(&self.available, available)
    }

    /// How long ago this state was last confirmed: by a change, a bookmark
    /// (one a minute) or a new watch. What was kept on disk goes on being as old as it was.
    pub fn age(&self) -> Duration {
        self.observed.age()
    }

    /// The API cannot be followed at present: this is the last good state.
    pub fn is_degraded(&self) -> bool {
        self.trouble.is_some()
    }

    /// Why it is degraded.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

/// One change of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// It was not there before.
    Added(Arc<Instance>),
    /// It says something else than before, or its state is another.
    Modified(Arc<Instance>),
    /// It is gone; this is how it was last.
    Removed(Arc<Instance>),
}

impl Delta {
    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        let (Self::Added(instance) | Self::Modified(instance) | Self::Removed(instance)) = self;
        instance
    }
}

/// A subscription to one interface. Cheap to clone; all subscriptions of a
/// [`Registry`](crate::Registry) share one watch, which goes on until the last
/// of them is dropped.
#[derive(Clone)]
pub struct Subscription {
    interface: Arc<str>,
    receiver: watch::Receiver<Arc<Snapshot>>,
    /// What keeps the snapshots coming.
    _feed: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("interface", &self.interface)
            .field("current", &self.receiver.borrow())
            .finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn new(
        interface: &str,
        receiver: watch::Receiver<Arc<Snapshot>>,
        feed: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { interface: interface.into(), receiver, _feed: feed }
    }

    /// A subscription to a list that never changes: the static list of a
    /// configuration file, or a test.
    ///
    /// ```
    /// use portolan_sdk::{Instance, Registration, Subscription};
    ///
    /// let student = ["192.0.2.1:8081", "192.0.2.2:8081"]
    ///     .map(|at| Instance::fixed(Registration::new("student", "http", at.parse().unwrap())));
    /// let student = Subscription::fixed("student", student);
    /// assert_eq!(student.current().available().len(), 2);
    /// ```
    pub fn fixed(interface: &str, instances: impl IntoIterator<Item = Instance>) -> Self {
        let by_key: BTreeMap<Key, Arc<Instance>> =
            instances.into_iter().map(|instance| (instance.key(), Arc::new(instance))).collect();
        let instances = by_key.into_values().collect();
        let sender =
            watch::Sender::new(Arc::new(Snapshot::new(0, instances, Observed::now(), None)));
        let receiver = sender.subscribe();
        Self::new(interface, receiver, Arc::new(sender))
    }

    /// The interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The newest snapshot. Takes no I/O and never waits for the API.
    pub fn current(&self) -> Arc<Snapshot> {
        self.receiver.borrow().clone()
    }

    /// Whether the newest snapshot has this list of instances that take calls.
    pub(crate) fn is_current(&self, available: &Arc<[Arc<Instance>]>) -> bool {
        self.receiver.borrow().is_of(available)
    }

    /// Waits for a snapshot newer than those that this call has given, and than
    /// the one there was when the subscription began. Being degraded, and being
    /// so no longer, are changes too. `None`: nothing will come any more, because
    /// the runtime that followed the API has ended.
    pub async fn changed(&mut self) -> Option<Arc<Snapshot>> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().clone())
    }

    /// The changes, in order, beginning with `Added` for all that is there now.
    ///
    /// They are computed from one snapshot to the next, so a reader that is slow
    /// gets fewer of them and never loses a removal. Of one snapshot, additions
    /// come first and removals last: who keeps a list by them is never left
    /// with an empty one in between.
    pub fn deltas(&self) -> impl Stream<Item = Delta> + Send + Unpin + use<> {
        let mut subscription = self.clone();
        subscription.receiver.mark_changed();
        let state = (subscription, Arc::<[Arc<Instance>]>::from([]), VecDeque::new());
        Box::pin(stream::unfold(state, async |(mut subscription, mut last, mut pending)| {
            loop {
                if let Some(delta) = pending.pop_front() {
                    return Some((delta, (subscription, last, pending)));
                }
                let next = subscription.changed().await?;
                pending.extend(diff(&last, next.instances()));
                last = next.instances.clone();
            }
        }))
    }
}

/// What changed from one list to the next.
fn diff(before: &[Arc<Instance>], after: &[Arc<Instance>]) -> Vec<Delta> {
    let by_key = |all: &[Arc<Instance>]| -> BTreeMap<Key, Arc<Instance>> {
        all.iter().map(|instance| (instance.key(), instance.clone())).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let mut deltas = Vec::new();
    let mut modified = Vec::new();
    for (key, now) in &after {
        match before.get(key) {
            None => deltas.push(Delta::Added(now.clone())),
            Some(old) if old != now => modified.push(Delta::Modified(now.clone())),
            Some(_) => {}
        }
    }
    deltas.append(&mut modified);
    let gone = before.into_iter().filter(|(key, _)| !after.contains_key(key));
    deltas.extend(gone.map(|(_, old)| Delta::Removed(old)));
    deltas
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use portolan_dialects::Registration;
    use proptest::prelude::*;

    use super::*;

    fn instance(number: u8, weight: u32) -> Arc<Instance> {
        let at = format!("10.0.0.{number}:80").parse().unwrap();
        Arc::new(Instance::fixed(Registration { weight, ..Registration::new("a", "http", at) }))
    }

    proptest! {
        /// Applying what changed to what was gives what is, and additions come
        /// before removals.
        #[test]
        fn deltas_lead_from_one_list_to_the_next(
            before in proptest::collection::btree_map(0..9_u8, 0..3_u32, 0..9),
            after in proptest::collection::btree_map(0..9_u8, 0..3_u32, 0..9),
        ) {
            let list = |all: &BTreeMap<u8, u32>| -> Vec<Arc<Instance>> {
                all.iter().map(|(number, weight)| instance(*number, *weight)).collect()
            };
            let (before, after) = (list(&before), list(&after));
            let deltas = diff(&before, &after);
            let mut state: BTreeMap<Key, Arc<Instance>> =
                before.iter().map(|one| (one.key(), one.clone())).collect();
            let rank = |delta: &Delta| match delta {
                Delta::Added(_) => 0,
                Delta::Modified(_) => 1,
                Delta::Removed(_) => 2,
            };
            prop_assert!(deltas.is_sorted_by_key(rank));
            for delta in deltas {
                let key = delta.instance().key();
                match delta {
                    Delta::Added(one) => prop_assert!(state.insert(key, one).is_none()),
                    Delta::Modified(one) => {
                        let old = state.insert(key, one.clone());
                        prop_assert!(old.is_some_and(|old| old != one));
                    }
                    Delta::Removed(one) => prop_assert_eq!(state.remove(&key), Some(one)),
                }
            }
            prop_assert_eq!(state.into_values().collect::<Vec<_>>(), after);
        }
    }

    #[tokio::test]
    async fn a_stream_begins_with_what_is_there_and_coalesces() {
        let snapshot =
            |version, instances| Arc::new(Snapshot::new(version, instances, Observed::now(), None));
        let sender = watch::Sender::new(snapshot(1, vec![instance(1, 100)]));
        let subscription = Subscription::new("a", sender.subscribe(), Arc::new(()));
        let mut deltas = subscription.deltas();
        assert_eq!(deltas.next().await, Some(Delta::Added(instance(1, 100))));
        sender.send_replace(snapshot(2, vec![instance(1, 50), instance(2, 100)]));
        sender.send_replace(snapshot(3, vec![instance(2, 100), instance(3, 100)]));
        for expected in [
            Delta::Added(instance(2, 100)),
            Delta::Added(instance(3, 100)),
            Delta::Removed(instance(1, 100)),
        ] {
            assert_eq!(deltas.next().await, Some(expected));
        }
        drop(sender);
        assert_eq!(deltas.next().await, None);
    }

    #[tokio::test]
    async fn what_takes_no_calls_is_seen_and_not_available() {
        let subscription =
            Subscription::fixed("a", [instance(1, 0), instance(2, 1)].map(|one| (*one).clone()));
        let snapshot = subscription.current();
        assert_eq!((snapshot.instances().len(), snapshot.available().len()), (2, 1));
        assert!(!snapshot.is_degraded());
    }
}
