//! What controllers want done, as values.
//!
//! Controllers decide in pure functions that return actions; [`Hands`] carries
//! them out. Neighbouring actions of one sort go out together, because the
//! store makes writes that wait for it durable with one fsync. Creations start
//! slowly (1, 2, 4, ...), so that a template which is refused is refused once
//! and not five hundred times.

use std::sync::Arc;

use futures_util::future::join_all;
use portolan_apiserver::{
    Kind, Status,
    registry::{
        Caller, DeleteOptions, Patch, Preconditions, Propagation, Registry, Subresource,
        WriteOptions,
    },
};
use serde_json::Value;

use super::events::Recorder;
use crate::{informer::Object, object, projection};

/// Actions that are under way at once: enough to fill a commit group, few
/// enough to leave the store's queue to others.
const CONCURRENT_MAX: usize = 256;

/// An Event to report once the action went through (or failed).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    /// The object that the Event is about.
    pub(crate) about: Object,
    /// Reason when it went through.
    pub(crate) reason: &'static str,
    /// Text when it went through; `{name}` stands for the name of the object acted on.
    pub(crate) message: String,
    /// Reason when it failed, and what the text then begins with.
    pub(crate) failure: Option<(&'static str, &'static str)>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Store a new object, in the namespace that it names.
    Create(&'static Kind, Value, Option<Note>),
    /// Store the object over the revision that it names.
    Update(&'static Kind, Value, Option<Note>),
    /// The same, through the `status` subresource.
    UpdateStatus(&'static Kind, Value),
    /// Merge this into this very object, as long as it is what was seen of it: for kinds of which
    /// informers do not keep all ([`projection`]).
    Patch(&'static Kind, Object, Value),
    /// The same, through the `status` subresource.
    PatchStatus(&'static Kind, Object, Value),
    /// Remove this very object (by uid).
    Delete(&'static Kind, Object, Option<Propagation>, Option<Note>),
}

/// Whether a creation was refused because its Namespace is on its way out: no
/// failure, for whoever asked for it goes too.
pub(crate) fn is_namespace_leaving(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice());
    causes.unwrap_or_default().iter().any(|cause| cause.reason == "NamespaceTerminating")
}

impl Action {
    fn note(&self) -> Option<&Note> {
        match self {
            Action::Create(_, _, note)
            | Action::Update(_, _, note)
            | Action::Delete(_, _, _, note) => note.as_ref(),
            Action::UpdateStatus(..) | Action::Patch(..) | Action::PatchStatus(..) => None,
        }
    }

    fn is_create(&self) -> bool {
        matches!(self, Action::Create(..))
    }
}

/// Carries out actions in the name of one controller.
#[derive(Clone)]
pub(crate) struct Hands {
    /// The door to the API.
    pub(crate) registry: Registry,
    /// In whose name.
    pub(crate) caller: Caller,
    /// Where Events go.
    pub(crate) recorder: Recorder,
    component: Arc<str>,
}

impl Hands {
    /// The hands of a controller.
    pub(crate) fn new(registry: Registry, recorder: Recorder, component: &str) -> Hands {
        // As upstream, where all controllers but the scheduler are one program.
        let program = if component == "default-scheduler" {
            "kube-scheduler"
        } else {
            "kube-controller-manager"
        };
        let caller = Caller::system(component).within(program);
        Hands { registry, caller, recorder, component: component.into() }
    }

    /// Now, in Unix seconds.
    pub(crate) fn now_unix(&self) -> u64 {
        self.registry.options().clock.unix_ms() / 1000
    }

    /// Reports an Event of type `Normal` or `Warning`.
    pub(crate) fn report(&self, about: &Value, kind: &'static str, reason: &str, message: &str) {
        self.recorder.report(&self.component, about, kind, reason, message);
    }

    /// Carries out actions in their order; stops at the first group with a
    /// failure, which is returned.
    pub(crate) async fn apply(&self, actions: Vec<Action>) -> Result<(), Status> {
        let mut rest = actions.as_slice();
        let mut slow_start = 1;
        while let Some(first) = rest.first() {
            let alike = rest.iter().take_while(|a| a.is_create() == first.is_create()).count();
            let size = if first.is_create() { slow_start } else { CONCURRENT_MAX };
            let (group, after) = rest.split_at(size.min(alike));
            let outcomes = join_all(group.iter().map(|action| self.apply_one(action))).await;
            if let Some(failure) = outcomes.into_iter().find_map(Result::err) {
                return Err(failure);
            }
            slow_start = (slow_start * 2).min(CONCURRENT_MAX);
            rest = after;
        }
        Ok(())
    }

    async fn apply_one(&self, action: &Action) -> Result<(), Status> {
        let outcome = self.send(action).await;
        if let Some(note) = action.note() {
            match (&outcome, note.failure) {
                (Ok(name), _) => {
                    let message = note.message.replace("{name}", name);
                    self.report(&note.about, "Normal", note.reason, &message);
                }
                (Err(status), Some((reason, prefix))) if !is_namespace_leaving(status) => {
                    self.report(&note.about, "Warning", reason, &format!("{prefix}{status}"));
                }
                (Err(_), _) => {}
            }
        }
        outcome.map(drop)
    }

    /// The name of the object acted on.
    async fn send(&self, action: &Action) -> Result<String, Status> {
        let options = WriteOptions::default();
        let (registry, caller) = (&self.registry, &self.caller);
        match action {
            Action::Create(kind, new, _) => {
                let namespace = object::namespace(new);
                let made = registry.create(caller, kind, namespace, new.clone(), &options).await?;
                Ok(object::name(&made).to_owned())
            }
            Action::Update(kind, new, _) => self.update(kind, None, new).await,
            Action::UpdateStatus(kind, new) => {
                self.update(kind, Some(Subresource::Status), new).await
            }
            Action::Patch(kind, old, change) => self.patch(kind, old, None, change).await,
            Action::PatchStatus(kind, old, change) => {
                self.patch(kind, old, Some(Subresource::Status), change).await
            }
            Action::Delete(kind, old, propagation, _) => {
                let (namespace, name) = (object::namespace(old), object::name(old));
                let options = DeleteOptions {
                    propagation: *propagation,
                    preconditions: Preconditions {
                        uid: Some(object::uid(old).to_owned()),
                        resource_version: None,
                    },
                    ..DeleteOptions::default()
                };
                match registry.delete(caller, kind, namespace, name, &options).await {
                    Ok(_) => Ok(name.to_owned()),
                    // Somebody else was faster: what was wanted is so.
                    Err(status) if status.is_not_found() => Ok(name.to_owned()),
                    Err(status) => Err(status),
                }
            }
        }
    }

    async fn update(
        &self,
        kind: &'static Kind,
        part: Option<Subresource>,
        new: &Value,
    ) -> Result<String, Status> {
        if !projection::is_whole(kind) {
            // A bug, but one that would cost somebody their fields.
            return Err(Status::internal(format!("{} are patched, not replaced", kind.plural)));
        }
        let (namespace, name) = (object::namespace(new), object::name(new));
        let (caller, options) = (&self.caller, WriteOptions::default());
        self.registry.update(caller, kind, namespace, name, part, new.clone(), &options).await?;
        Ok(name.to_owned())
    }

    async fn patch(
        &self,
        kind: &'static Kind,
        old: &Value,
        part: Option<Subresource>,
        change: &Value,
    ) -> Result<String, Status> {
        let (namespace, name) = (object::namespace(old), object::name(old));
        let mut change = change.clone();
        let metadata = object::map_mut(&mut change, "metadata");
        metadata.insert("uid".into(), object::uid(old).into());
        metadata.insert(
            "resourceVersion".into(),
            object::text(old, "/metadata/resourceVersion").into(),
        );
        let (caller, options) = (&self.caller, WriteOptions::default());
        let change = Patch::Merge(change);
        self.registry.patch(caller, kind, namespace, name, part, change, &options).await?;
        Ok(name.to_owned())
    }
}
