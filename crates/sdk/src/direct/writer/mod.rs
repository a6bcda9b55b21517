//! Writing on the own Pod.
//!
//! ```text
//!   Registered (guards) ── what each holds ──▶ Writer ── all of it ──▶ list: one text that all
//!                                                                      writers share
//!                                                   └──────────────▶ native: a text of one's own
//! ```
//!
//! [`list`] writes the dialect of `app.io`, [`native`] the one of `registry.portolan.dev`. A
//! write is tried again, with pauses, while the API says that another try may work.

#[cfg(test)]
mod interleavings;
mod list;
mod native;

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use portolan_dialects::{ListDialect, Registration, Standing, native::Owner};
use portolan_runtime::Backoff;
use tokio::time::sleep;

use self::{list::List, native::Native};
use super::api::{Failure, Pods};
use crate::Error;

/// The first pause after a conflict: the time of a round trip or two.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The API server asks for one second when it sheds load (Retry-After of its
/// priority and fairness).
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Together some 5 s of pauses. Each round one of the writers gets through, and
/// the jitter spreads the others.
const TRIES_MAX: u32 = 12;

/// The Pod that this process runs in.
#[derive(Clone)]
struct Place {
    pods: Pods,
    namespace: String,
    pod: String,
    /// The uid that the Pod had at the first write.
    uid: OnceLock<String>,
}

/// How it is written.
enum Form {
    List(List),
    Native(Native),
}

impl Form {
    /// A service that takes no new calls.
    fn drained(&self, service: &Registration) -> Registration {
        match self {
            Self::List(_) => Registration { weight: 0, ..service.clone() },
            Self::Native(_) => Registration { standing: Standing::Draining, ..service.clone() },
        }
    }
}

/// What is to be written: the difference, and the whole.
struct Wanted<'a> {
    gone: &'a [Registration],
    new: &'a [Registration],
    all: &'a [Registration],
}

/// Writes on one Pod, for all registrations of this process.
pub(super) struct Writer {
    place: Place,
    form: Form,
    /// One write at a time: our own would only run into each other.
    turn: tokio::sync::Mutex<()>,
    /// What is registered now, by whom: two guards may hold the same service.
    held: Mutex<Vec<(u64, Vec<Registration>)>>,
    next_holder: AtomicU64,
}

impl Writer {
    /// Writes in a dialect whose list all writers share, or natively if the process has a name as an owner.
    pub(super) fn new(
        pods: Pods,
        namespace: &str,
        pod: &str,
        dialect: ListDialect,
        owner: Option<Owner>,
    ) -> Self {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        let form = match owner {
            None => Form::List(List::new(dialect)),
            Some(owner) => Form::Native(Native::new(owner)),
        };
        Self::at(Place { pods, namespace, pod, uid: OnceLock::new() }, form)
    }

    /// Writes natively on the same Pod, in a life that begins now.
    pub(super) fn as_owner(&self, owner: Owner) -> Self {
        Self::at(self.place.clone(), Form::Native(Native::new(owner)))
    }

    fn at(place: Place, form: Form) -> Self {
        Self {
            place,
            form,
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
        match &self.form {
            Form::List(list) => list.check(&services)?,
            Form::Native(native) => native.check(&services)?,
        }
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
        let mut all = others;
        all.retain(|other| !services.iter().any(|service| service.replaces(other)));
        all.extend(services.iter().cloned());
        self.write(&Wanted { gone: &gone, new: &services, all: &all }).await?;
        let mut held = self.held();
        held.retain(|(one, _)| *one != holder);
        if !services.is_empty() {
            held.push((holder, services));
        }
        Ok(())
    }

    /// Writes natively that there is nothing, whoever wrote it before under this name.
    pub(super) async fn withdraw(&self) -> Result<(), Error> {
        if matches!(self.form, Form::List(_)) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        self.held().clear();
        self.write(&Wanted { gone: &[], new: &[], all: &[] }).await
    }

    /// Writes, until it is written.
    async fn write(&self, wanted: &Wanted<'_>) -> Result<(), Error> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            let is_first = backoff.failures() == 0;
            let tried = match &self.form {
                Form::List(list) => list.try_write(&self.place, wanted, is_first).await,
                Form::Native(native) => native.try_write(&self.place, wanted).await,
            };
            let failure = match tried {
                Ok(()) => return Ok(()),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Again(failure)) => failure,
            };
            let pause = backoff.next_pause();
            if backoff.failures() >= TRIES_MAX {
                return Err(if failure.is_code(409) {
                    Error::Contended { pod: self.place.pod.clone(), tries: TRIES_MAX }
                } else {
                    failure.into_error(&self.place.action())
                });
            }
            tracing::debug!(pod = self.place.pod, ?failure, "writing the registration again");
            sleep(pause).await;
        }
    }
}

impl Place {
    /// Why a request did not do it.
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

    fn not_found(&self) -> Stop {
        let (namespace, pod) = (self.namespace.clone(), self.pod.clone());
        Stop::Final(Error::PodNotFound { namespace, pod })
    }

    fn replaced(&self) -> Stop {
        let (namespace, pod) = (self.namespace.clone(), self.pod.clone());
        Stop::Final(Error::PodReplaced { namespace, pod })
    }
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
            .field("pod", &self.writer.place.pod)
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

    /// Takes no more calls (weight 0, or draining in a native record), gives callers the time to hear of it and calls under way
    /// the time to end, and then takes the registration back. Cancelled, it is taken back at
    /// once, in the background.
    pub async fn drain(self, grace: Duration) -> Result<(), Error> {
        self.drain_while(grace, std::future::pending::<()>()).await
    }

    /// The same, over as soon as `work` is done, which may be the shutdown of a server that
    /// waits for its calls: at the latest after `deadline`.
    pub async fn drain_while(
        mut self,
        deadline: Duration,
        work: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let form = &self.writer.form;
        let drained: Vec<Registration> = self.services.iter().map(|s| form.drained(s)).collect();
        if let Err(error) = self.update(drained).await {
            // Callers find out by what they are answered; the time is theirs all the same.
            tracing::warn!(pod = self.writer.place.pod, %error, "draining was not announced");
        }
        // Either way it ends.
        drop(tokio::time::timeout(deadline, work).await);
        self.deregister().await
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
        let pod = self.writer.place.pod.clone();
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
