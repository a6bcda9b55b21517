//! Delete: at once, or step by step.
//!
//! An object goes at once when nothing keeps it: no finalizer, no grace period.
//! Otherwise the deletion is written into it, and the write that takes away the
//! last obstacle removes it ([`super::update`]). Graceful are only Pods on Nodes
//! where something of this process stops them; everywhere else nobody would
//! ever confirm the end.

use serde_json::{Value, json};

use super::{
    Caller, Registry,
    commit::{Ledger, Lost},
    key, object,
    object::Encoded,
    rules, service, update,
};
use crate::{Kind, Status, store::Expect};

/// Attempts at a removal that other writes keep overtaking.
const RACE_ATTEMPTS_MAX: usize = 64;
/// Grace of a Pod that names none (`v1.DefaultTerminationGracePeriodSeconds`).
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// What must be true of an object for it to be deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preconditions {
    /// It has this uid.
    pub uid: Option<String>,
    /// It is at this revision.
    pub resource_version: Option<String>,
}

/// What happens to the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector removes them afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

impl Propagation {
    /// From the API's text.
    pub fn parse(text: &str) -> Option<Propagation> {
        match text {
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            _ => None,
        }
    }

    fn finalizer(self) -> Option<&'static str> {
        match self {
            Propagation::Background => None,
            Propagation::Foreground => Some("foregroundDeletion"),
            Propagation::Orphan => Some("orphan"),
        }
    }
}

/// Parameters of a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds that a Pod gets to end by itself.
    pub grace_period_seconds: Option<i64>,
    /// What happens to what it owns; `None` leaves the finalizers as they are.
    pub propagation: Option<Propagation>,
    /// Checked against what is stored.
    pub preconditions: Preconditions,
    /// Do everything but store.
    pub dry_run: bool,
}

/// How far a delete got.
#[derive(Clone, Debug, PartialEq)]
pub enum Deleted {
    /// The object is gone; this is its last state.
    Gone(Value),
    /// The object is on its way out: finalizers or a grace period keep it.
    Marked(Value),
}

impl Deleted {
    /// The object, gone or not.
    pub fn object(&self) -> &Value {
        match self {
            Deleted::Gone(object) | Deleted::Marked(object) => object,
        }
    }
}

impl Registry {
    /// Deletes an object.
    pub async fn delete(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        tracing::trace!(user = %caller.user, resource = kind.resource, namespace, name, "delete");
        rules::check_deletable(kind, name)?;
        for _ in 0..RACE_ATTEMPTS_MAX {
            let record = self.get_record(kind, namespace, name)?;
            let old = object::parse(&record)?;
            check_preconditions(kind, &old, &options.preconditions)?;
            match self.delete_once(kind, record.revision, old, options).await {
                Ok(deleted) => return Ok(deleted),
                Err(Lost::Race) => {}
                Err(Lost::Refused(status)) => return Err(status),
            }
        }
        Err(Status::modified(kind, name))
    }

    async fn delete_once(
        &self,
        kind: &'static Kind,
        revision: u64,
        old: Value,
        options: &DeleteOptions,
    ) -> Result<Deleted, Lost> {
        let grace = self.grace_seconds(kind, &old, options);
        let mut new = old.clone();
        propagate(&mut new, options.propagation);
        let key = key(kind, object::namespace(&old), object::name(&old));
        if grace > 0 || rules::is_kept(kind, &new) {
            if !self.mark(kind, &old, &mut new, grace) {
                return Ok(Deleted::Marked(old));
            }
            if !options.dry_run {
                let encoded = Encoded::of(kind, &new);
                let expect = Expect::Revision(revision);
                let record = self.put(key, expect, encoded, Ledger::default()).await?;
                object::set_revision(&mut new, record.revision);
            }
            return Ok(Deleted::Marked(new));
        }
        if !options.dry_run {
            let ledger = Ledger { taken: None, released: service::holdings_of(kind, &old) };
            let record = self.remove(kind, key, revision, &new, ledger).await?;
            object::set_revision(&mut new, record.revision);
        }
        if kind.is_core("pods") {
            // Upstream's Pods know a grace period, if only of no seconds; the answer shows it.
            self.mark(kind, &old, &mut new, 0);
        }
        Ok(Deleted::Gone(new))
    }

    /// Writes the deletion into the object; false when that changes nothing.
    fn mark(&self, kind: &Kind, old: &Value, new: &mut Value, grace: i64) -> bool {
        let now = self.now_unix_seconds();
        let ends = object::timestamp(now.saturating_add(u64::try_from(grace).unwrap_or(0)));
        let before =
            object::metadata(old).get("deletionGracePeriodSeconds").and_then(Value::as_i64);
        if object::is_deleting(old) {
            // A grace period may only get shorter.
            if before.is_some_and(|b| grace < b) {
                let metadata = object::metadata_mut(new);
                metadata.insert("deletionTimestamp".into(), ends.into());
                metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
            }
            return *old != *new;
        }
        let metadata = object::metadata_mut(new);
        metadata.insert("deletionTimestamp".into(), ends.into());
        metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
        if object::metadata(new).contains_key("generation") {
            update::bump_generation(new);
        }
        if kind.is_core("namespaces") {
            let status = object::map_at(object::map_of(new), "status");
            status.insert("phase".into(), "Terminating".into());
            // Namespaces have no grace period upstream either.
            object::metadata_mut(new).shift_remove("deletionGracePeriodSeconds");
        }
        true
    }

    fn grace_seconds(&self, kind: &Kind, old: &Value, options: &DeleteOptions) -> i64 {
        if !kind.is_core("pods") {
            return 0;
        }
        let text = |path| old.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let node = text("/spec/nodeName");
        let ended = matches!(text("/status/phase"), "Succeeded" | "Failed");
        if node.is_empty() || ended || !self.has_node_agent(node) {
            return 0;
        }
        let own = old.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        let asked = options.grace_period_seconds.or(own).unwrap_or(GRACE_SECONDS_DEFAULT);
        // A negative grace means the shortest that is not "at once" (Pod strategy).
        let grace = if asked < 0 { 1 } else { asked };
        let before =
            object::metadata(old).get("deletionGracePeriodSeconds").and_then(Value::as_i64);
        if object::is_deleting(old) { grace.min(before.unwrap_or(grace)) } else { grace }
    }
}

fn propagate(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = propagation.finalizer();
    let mut finalizers: Vec<String> =
        object::finalizers(object).into_iter().map(str::to_owned).collect();
    finalizers.retain(|f| !matches!(f.as_str(), "orphan" | "foregroundDeletion"));
    finalizers.extend(wanted.map(str::to_owned));
    let metadata = object::metadata_mut(object);
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), json!(finalizers));
    }
}

fn check_preconditions(kind: &Kind, old: &Value, wanted: &Preconditions) -> Result<(), Status> {
    let version = object::meta_str(old, "resourceVersion");
    let checks = [
        ("UID", &wanted.uid, object::uid(old), "deleted and then recreated"),
        ("ResourceVersion", &wanted.resource_version, version, "modified"),
    ];
    for (what, wanted, found, perhaps) in checks {
        if let Some(wanted) = wanted.as_deref().filter(|w| *w != found) {
            if kind.is_core("namespaces") {
                // Upstream's Namespaces are deleted by code of their own.
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object \
                     meta: {found}"
                );
                return Err(Status::conflict(kind, object::name(old), &why));
            }
            return Err(Status::precondition(
                kind,
                object::name(old),
                &format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in \
                     record ({found}). The object might have been {perhaps}"
                ),
            ));
        }
    }
    Ok(())
}
