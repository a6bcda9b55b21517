//! Writing on the own Pod: the label, then the annotation.
//!
//! ```text
//!   PATCH label ── the Pod as it is ──▶ annotation says it already? ── yes ──▶ done
//!                                          ▲         │ no
//!                                          │         ▼
//!                     GET Pod ◀── 409, pause ── PATCH annotation, if resourceVersion
//!                                               and uid are as read
//! ```
//!
//! The annotation is a list that all writers of the Pod share, so it is read,
//! changed and written back under a precondition: whoever comes second reads
//! again, and nobody's entries are lost.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use portolan_dialects::{
    Registration,
    app::{self, App},
    list,
};
use portolan_runtime::Backoff;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api::{Failure, Pods};
use crate::{Error, pod::Pod};

/// The first pause after a conflict: the time of a round trip or two.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The API server asks for one second when it sheds load (Retry-After of its
/// priority and fairness).
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Together some 5 s of pauses. Each round one of the writers gets through, and
/// the jitter spreads the others.
const TRIES_MAX: u32 = 12;

/// Writes on one Pod, for all registrations of this process.
pub(super) struct Writer {
    pods: Pods,
    namespace: String,
    pod: String,
    app: App,
    /// The uid that the Pod had at the first write.
    uid: OnceLock<String>,
    /// One write at a time: our own would only run into each other.
    turn: tokio::sync::Mutex<()>,
    /// What is registered now, by whom: two guards may hold the same service.
    held: Mutex<Vec<(u64, Vec<Registration>)>>,
    next_holder: AtomicU64,
}

impl Writer {
    pub(super) fn new(pods: Pods, namespace: &str, pod: &str, app: App) -> Self {
        Self {
            pods,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            app,
            uid: OnceLock::new(),
            turn: tokio::sync::Mutex::new(()),
            held: Mutex::new(Vec::new()),
            next_holder: AtomicU64::new(0),
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<(u64, Vec<Registration>)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a holder hold these services and no others.
    async fn hold(&self, holder: u64, services: Vec<Registration>) -> Result<(), Error> {
        // Before any request: what cannot be written is the caller's mistake.
        self.app.update(None, &[], &services)?;
        let _turn = self.turn.lock().await;
        let (before, others) = {
            let held = self.held();
            let of = |own: bool| -> Vec<Registration> {
                let which = held.iter().filter(|(one, _)| (*one == holder) == own);
                which.flat_map(|(_, services)| services.clone()).collect()
            };
            (of(true), of(false))
        };
        if before.is_empty() && services.is_empty() {
            return Ok(());
        }
        // Held from now on: a write that fails or is cancelled may have gone
        // through, and whoever takes back must take back that too.
        self.held().push((holder, services.clone()));
        let gone: Vec<Registration> = before
            .into_iter()
            .filter(|old| !others.iter().any(|other| other.replaces(old)))
            .collect();
        self.write(&gone, &services).await?;
        let mut held = self.held();
        held.retain(|(one, _)| *one != holder);
        if !services.is_empty() {
            held.push((holder, services));
        }
        Ok(())
    }

    /// Takes out and puts in, until it is so.
    async fn write(&self, remove: &[Registration], add: &[Registration]) -> Result<(), Error> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            let failure = match self.try_write(remove, add, backoff.failures() == 0).await {
                Ok(()) => return Ok(()),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Again(failure)) => failure,
            };
            let pause = backoff.next_pause();
            if backoff.failures() >= TRIES_MAX {
                return Err(if failure.is_code(409) {
                    Error::Contended { pod: self.pod.clone(), tries: TRIES_MAX }
                } else {
                    failure.into_error(&self.action())
                });
            }
            tracing::debug!(pod = self.pod, ?failure, "writing the registration again");
            sleep(pause).await;
        }
    }

    async fn try_write(
        &self,
        remove: &[Registration],
        add: &[Registration],
        is_first: bool,
    ) -> Result<(), Stop> {
        let (label, value) = (self.app.label_key(), self.app.label_value());
        let mut change = json!({"metadata": {"labels": {&label: &value}}});
        if let Some(uid) = self.uid.get() {
            change["metadata"]["uid"] = uid.as_str().into();
        }
        // The answer to the label's patch is the Pod: no need to read it first.
        let answer = if is_first && !add.is_empty() {
            self.pods.patch(&self.pod, &change).await
        } else {
            self.pods.get(&self.pod).await
        };
        let place = || (self.namespace.clone(), self.pod.clone());
        let mut pod = match answer {
            Ok(pod) => pod,
            // With the Pod its registrations are gone.
            Err(failure) if failure.is_code(404) && add.is_empty() => return Ok(()),
            Err(failure) if failure.is_code(404) => {
                let (namespace, pod) = place();
                return Err(Stop::Final(Error::PodNotFound { namespace, pod }));
            }
            Err(failure) => return Err(self.stop(failure)),
        };
        let uid = self.uid.get_or_init(|| pod.metadata.uid.clone());
        if *uid != pod.metadata.uid {
            if add.is_empty() {
                return Ok(());
            }
            let (namespace, pod) = place();
            return Err(Stop::Final(Error::PodReplaced { namespace, pod }));
        }
        if !add.is_empty() && pod.metadata.labels.get(&label) != Some(&value) {
            pod = self.patch(&change).await?;
        }
        let key = self.app.annotation_key();
        let current = pod.metadata.annotations.get(&key);
        let next = self.app.update(current.map(String::as_str), remove, add);
        let next = next.map_err(|error| Stop::Final(error.into()))?;
        if is_settled(current, next.as_ref(), add) {
            return Ok(());
        }
        let revision = pod.metadata.resource_version;
        let next = next.map_or(Value::Null, Value::String);
        let metadata = json!({"uid": uid, "resourceVersion": revision, "annotations": {key: next}});
        self.patch(&json!({"metadata": metadata})).await?;
        Ok(())
    }

    async fn patch(&self, change: &Value) -> Result<Pod, Stop> {
        self.pods.patch(&self.pod, change).await.map_err(|failure| self.stop(failure))
    }

    fn stop(&self, failure: Failure) -> Stop {
        if failure.is_code(409) || failure.is_passing() {
            Stop::Again(failure)
        } else {
            Stop::Final(failure.into_error(&self.action()))
        }
    }

    fn action(&self) -> String {
        format!("register on Pod {}/{}", self.namespace, self.pod)
    }
}

/// Whether the annotation says all of it already. Its text may still differ:
/// what is put in goes to the end of the list, which nobody needs to be told.
fn is_settled(current: Option<&String>, next: Option<&String>, add: &[Registration]) -> bool {
    let (Some(current), Some(next)) = (current, next) else { return current == next };
    let count = |text| list::read(text).map(|items| items.len()).ok();
    let present = app::decode(current).registrations;
    // As many items: nothing leaves, and nothing is there twice.
    current == next
        || (count(current) == count(next) && add.iter().all(|one| present.contains(one)))
}

/// Why one try did not do it.
enum Stop {
    Again(Failure),
    Final(Error),
}

/// What this process has registered, until it is taken back. Dropping it takes
/// it back in the background, as well as that goes: prefer
/// [`deregister`](Self::deregister) at shutdown, where there may be no later.
#[must_use = "dropping it takes the registration back"]
pub struct Registered {
    writer: Arc<Writer>,
    holder: u64,
    services: Vec<Registration>,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered")
            .field("pod", &self.writer.pod)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl Registered {
    pub(super) async fn new(
        writer: Arc<Writer>,
        services: Vec<Registration>,
    ) -> Result<Self, Error> {
        let holder = writer.next_holder.fetch_add(1, Ordering::Relaxed);
        // Made first: a write that is cancelled half way is then taken back.
        let registered = Self { writer, holder, services };
        registered.writer.hold(holder, registered.services.clone()).await?;
        Ok(registered)
    }

    /// What is registered.
    pub fn services(&self) -> &[Registration] {
        &self.services
    }

    /// Replaces what is registered by these services, in one write.
    pub async fn update(
        &mut self,
        services: impl IntoIterator<Item = Registration>,
    ) -> Result<(), Error> {
        let services: Vec<Registration> = services.into_iter().collect();
        self.writer.hold(self.holder, services.clone()).await?;
        self.services = services;
        Ok(())
    }

    /// Takes the registration back. The label stays: it may belong to the Pod's
    /// template, and says nothing by itself. That the Pod is gone is no error.
    pub async fn deregister(mut self) -> Result<(), Error> {
        let outcome = self.writer.hold(self.holder, Vec::new()).await;
        // Also after an error: it was tried as often as it will be.
        self.services.clear();
        outcome
    }

    /// Leaves the registration on the Pod when this value goes.
    pub fn keep(mut self) {
        drop(mem::take(&mut self.services));
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.services.is_empty() {
            return;
        }
        let (writer, holder) = (self.writer.clone(), self.holder);
        let pod = self.writer.pod.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                if let Err(error) = writer.hold(holder, Vec::new()).await {
                    tracing::warn!(pod, %error, "the registration was not taken back");
                }
            })),
            Err(_) => tracing::warn!(pod, "no runtime is left to take the registration back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(interface: &str, port: u16, weight: u32) -> Registration {
        let at = std::net::SocketAddr::from(([10, 0, 0, 1], port));
        Registration { weight, ..Registration::new(interface, "http", at) }
    }

    #[test]
    fn what_needs_no_write() {
        let app = App::default();
        let (a, b) = (service("a", 1, 100), service("b", 2, 100));
        let both = app::encode(&[a.clone(), b.clone()]).unwrap();
        let twice = app::encode(&[a.clone(), a.clone(), b.clone()]).unwrap();
        let heavy = service("a", 1, 200);
        for (current, remove, add, expected) in [
            (None, vec![], vec![], true),
            (None, vec![a.clone()], vec![], true),
            (None, vec![], vec![a.clone()], false),
            (Some(&both), vec![], vec![a.clone()], true),
            (Some(&both), vec![a.clone()], vec![a.clone()], true),
            (Some(&both), vec![], vec![a.clone(), b.clone()], true),
            (Some(&both), vec![b], vec![a.clone()], false),
            (Some(&both), vec![], vec![heavy], false),
            // Left behind by a writer that only appends.
            (Some(&twice), vec![], vec![a], false),
        ] {
            let next = app.update(current.map(String::as_str), &remove, &add).unwrap();
            assert_eq!(is_settled(current, next.as_ref(), &add), expected, "{remove:?} {add:?}");
        }
    }

    proptest! {
        /// What others wrote stays, what was put in is there once, what was
        /// taken out is not.
        #[test]
        fn merges(
            present in proptest::collection::vec((0..3_usize, 1..4_u16, 1..3_u32), 0..8),
            remove in proptest::collection::vec((0..3_usize, 1..4_u16), 0..3),
            add in proptest::collection::btree_map((0..3_usize, 1..4_u16), 1..3_u32, 0..3),
        ) {
            let name = |at: usize| ["a", "b", "c"][at];
            let present: Vec<_> = present.iter().map(|(n, p, w)| service(name(*n), *p, *w)).collect();
            let remove: Vec<_> = remove.iter().map(|(n, p)| service(name(*n), *p, 1)).collect();
            let add: Vec<_> = add.iter().map(|((n, p), w)| service(name(*n), *p, *w)).collect();
            let text = app::encode(&present).unwrap();
            let next = App::default().update(Some(&text), &remove, &add).unwrap();
            let before = app::decode(&text).registrations;
            let after = next.as_deref().map(|text| app::decode(text).registrations).unwrap_or_default();
            for one in &add {
                prop_assert_eq!(after.iter().filter(|r| one.replaces(r)).collect::<Vec<_>>(), [one]);
            }
            let touched = |r: &Registration| remove.iter().chain(&add).any(|one| one.replaces(r));
            for one in before.iter().filter(|r| !touched(r)) {
                prop_assert!(after.contains(one));
            }
            prop_assert!(after.iter().all(|r| add.contains(r) || (before.contains(r) && !touched(r))));
            if is_settled(Some(&text), next.as_ref(), &add) {
                let sorted = |mut all: Vec<Registration>| { all.sort(); all };
                prop_assert_eq!(sorted(before), sorted(after));
            }
        }
    }
}
