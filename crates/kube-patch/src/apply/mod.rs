//! Server-side apply: a client states the fields that it has an opinion on, and the server
//! remembers who stated what.
//!
//! ```text
//!  live ──┬──▶ merge ──▶ prune what the manager no longer states and nobody else owns ──▶ object
//! applied ┘                                              │
//!                        compare live with the result ───┴──▶ conflicts, or new owners
//! ```
//!
//! [`apply`] is for the apply patch; [`update`] follows every other write (create, replace, any
//! patch) and notes that its author owns what it changed. Both keep the record in
//! `metadata.managedFields`.
//!
//! The semantics are those of sigs.k8s.io/structured-merge-diff (`merge/update.go`, `typed/`) under
//! the manager chain of k8s.io/apimachinery `pkg/util/managedfields`. Left out: conversion between
//! API versions (field sets of entries in another version are read as they are), and the refusal
//! of fields that the kind does not have (this crate's tables do not list all fields; the server
//! validates them). Objects pass without a typed decoding, so [`apply`] drops null members itself.

mod compare;
mod conflict;
mod element;
mod legacy;
mod managers;
mod merge;
mod path;
mod renew;
mod set;

use std::{borrow::Cow, sync::LazyLock};

use serde_json::Value;

use crate::error::type_name;
use crate::schema::{At, Schema};
use compare::{Comparison, fields_of};
pub use conflict::{ApplyError, Conflict, Conflicts};
use element::same;
pub use managers::{MAX_UPDATE_MANAGERS, Manager, Managers, Owned, Workflow, strip};
pub use path::{PathElement, Scalar, display_path};
pub use set::FieldSet;

/// The owner of whatever an object had before anyone applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Metadata that nobody owns: identity, and what the server writes.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// One write: by whom, through what, when.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Who writes; see [`manager_name`].
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// The subresource written through, or empty. A write through `scale` is an update of the
    /// object that it scales, noted under the subresource `scale`.
    pub subresource: &'a str,
    /// Now, as `metadata.managedFields[].time` shows it: RFC 3339, UTC, whole seconds.
    pub now: &'a str,
    /// Fields that this request cannot write and so cannot own: `status` of a write to the object,
    /// `spec` of a write to its status. See [`reset_fields`].
    pub reset: &'a FieldSet,
}

/// Longest name of a manager, in bytes: `FieldManagerMaxLength` of k8s.io/apimachinery
/// `pkg/apis/meta/v1/validation`.
pub const MAX_MANAGER_BYTES: usize = 128;

/// A place in an object as the errors of an apply name it:
/// `spec.template.spec.containers[0].nothing` is
/// `.spec.template.spec.containers[name="main"].nothing` where lists have keys.
#[must_use]
pub fn place(object: &Value, schema: &Schema, path: &str) -> String {
    let (mut value, mut at, mut shown) = (Some(object), schema.root(), String::new());
    for part in path.split('.') {
        let (name, mut rest) = part.split_once('[').unwrap_or((part, ""));
        value = value.and_then(|v| v.get(name));
        at = at.field(name);
        shown.push_str(&PathElement::Field(name.to_owned()).to_string());
        while let Some((index, after)) = rest.split_once(']') {
            let index: usize = index.parse().unwrap_or_default();
            value = value.and_then(|v| v.get(index));
            let key = value.and_then(|item| element::element_of(at.list(), item).ok());
            shown.push_str(
                &key.unwrap_or(PathElement::Index(i64::try_from(index).unwrap_or_default()))
                    .to_string(),
            );
            at = at.item();
            rest = after.strip_prefix('[').unwrap_or_default();
        }
    }
    shown
}

/// The manager of a request: its `fieldManager`, or else what its User-Agent says before the first
/// `/`, without unprintable characters, cut to [`MAX_MANAGER_BYTES`].
#[must_use]
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let product = user_agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for character in product.chars().filter(|character| !character.is_control()) {
        if name.len() + character.len_utf8() > MAX_MANAGER_BYTES {
            break;
        }
        name.push(character);
    }
    name
}

/// The fields that writes through a subresource (or none) leave alone, for a kind that has a
/// status subresource.
#[must_use]
pub fn reset_fields(subresource: &str) -> &'static FieldSet {
    static OF_MAIN: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["status"]]));
    static OF_STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["spec"]]));
    static NONE: LazyLock<FieldSet> = LazyLock::new(FieldSet::default);
    match subresource {
        "" => &OF_MAIN,
        "status" => &OF_STATUS,
        _ => &NONE,
    }
}

/// Applies a configuration to the live object (`None`: there is none yet) and returns the object
/// to store, its `managedFields` brought up to date.
///
/// ```
/// use portolan_kube_patch::apply::{apply, reset_fields, ApplyError, Write};
/// use portolan_kube_patch::schema_for;
/// use serde_json::json;
///
/// let schema = schema_for("apps", "v1", "Deployment");
/// let write = |manager| Write {
///     manager,
///     api_version: "apps/v1",
///     subresource: "",
///     now: "2030-01-01T00:00:00Z",
///     reset: reset_fields(""),
/// };
/// let mine = json!({"apiVersion": "apps/v1", "kind": "Deployment",
///     "metadata": {"name": "web"}, "spec": {"replicas": 3}});
/// let live = apply(None, &mine, false, schema, &write("me"))?;
///
/// let theirs = json!({"apiVersion": "apps/v1", "kind": "Deployment",
///     "metadata": {"name": "web"}, "spec": {"replicas": 5}});
/// let refused = apply(Some(&live), &theirs, false, schema, &write("you")).unwrap_err();
/// assert_eq!(refused.to_string(), r#"Apply failed with 1 conflict: conflict with "me": .spec.replicas"#);
/// let forced = apply(Some(&live), &theirs, true, schema, &write("you"))?;
/// assert_eq!(forced["spec"]["replicas"], json!(5));
/// # Ok::<(), ApplyError>(())
/// ```
///
/// # Errors
/// Conflicts (409) unless `force`; a configuration that is no object, sets `managedFields`, is of
/// another version, or has list elements that cannot be told apart (400).
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    force: bool,
    schema: &Schema,
    write: &Write<'_>,
) -> Result<Value, ApplyError> {
    check_applied(applied, schema.root(), write)?;
    let mut state = State::before_apply(live, applied, schema, write)?;
    let manager =
        Manager::new(write.manager, Workflow::Apply, write.api_version, write.subresource);
    let pristine = state.managers.clone();
    let mut outcome = state.apply(applied, &manager, force);
    if let Err(conflicts) = &outcome
        && legacy::may_force(write.manager, conflicts, &state.live, schema.root())
    {
        state.managers = pristine;
        outcome = state.apply(applied, &manager, true);
    }
    let mut object = outcome.map_err(|conflicts| {
        let rest = legacy::remaining(write.manager, conflicts, &state.live, schema.root());
        ApplyError::Conflict(rest)
    })?;
    legacy::refresh_annotation(write.manager, &mut object, applied);
    state.managers.store(&mut object);
    Ok(object)
}

fn check_applied(applied: &Value, at: At<'_>, write: &Write<'_>) -> Result<(), ApplyError> {
    if !applied.is_object() {
        return Err(ApplyError::WrongType { found: type_name(applied) });
    }
    let text = |path: &str| applied.pointer(path).and_then(Value::as_str).unwrap_or_default();
    if text("/apiVersion") != write.api_version {
        return Err(ApplyError::Version {
            applied: text("/apiVersion").to_owned(),
            expected: write.api_version.to_owned(),
        });
    }
    if applied.pointer("/metadata/managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(ApplyError::ManagedFieldsSet);
    }
    merge::check_elements(applied, at).map_err(|reason| ApplyError::List {
        object: format!(
            "{}/{}; {}, Kind={}",
            text("/metadata/namespace"),
            text("/metadata/name"),
            text("/apiVersion"),
            text("/kind")
        ),
        reason,
    })
}

/// Notes what a write other than apply changed, and returns `new` with its `managedFields` brought
/// up to date. Never fails: `managedFields` that cannot be read count as absent.
///
/// `live` is the object as it was (`None` for a create), `new` as it is to be stored, after
/// defaulting. `new` may carry `managedFields` itself: a client may edit them, and an empty list or
/// `[{}]` makes the object forget them (unless it writes through a subresource).
#[must_use]
pub fn update(live: Option<&Value>, mut new: Value, schema: &Schema, write: &Write<'_>) -> Value {
    let (changed, removed) = changes(live, &new, schema, write);
    if let Some(live) = live
        && removed.is_empty()
        && renew::renew(live, &mut new, &changed, write).is_some()
    {
        return new;
    }
    note(live, new, schema, write, (changed, removed))
}

/// As [`update`], without the short way.
#[cfg(test)]
fn update_slowly(live: Option<&Value>, new: Value, schema: &Schema, write: &Write<'_>) -> Value {
    let changes = changes(live, &new, schema, write);
    note(live, new, schema, write, changes)
}

/// What a write other than apply changes, and what it removes.
fn changes(
    live: Option<&Value>,
    new: &Value,
    schema: &Schema,
    write: &Write<'_>,
) -> (FieldSet, FieldSet) {
    let old = with_structs(live.map(Cow::Borrowed), new, schema);
    Comparison::between(&old, new, schema.root()).without(write.reset).split()
}

fn note(
    live: Option<&Value>,
    mut new: Value,
    schema: &Schema,
    write: &Write<'_>,
    (changed, removed): (FieldSet, FieldSet),
) -> Value {
    let mut managers = managers_of_update(live, &new, write);
    strip(&mut new);
    if managers.is_empty() && live.is_some() {
        // Nobody tracks this object: it was reset, or it is from before the time of tracking.
        return new;
    }
    managers.reconcile(schema.root());
    managers.take_from_others(None, &changed);
    managers.take_from_others(None, &removed);
    note_update(&mut managers, changed, write);
    managers.cap();
    managers.store(&mut new);
    new
}

fn note_update(managers: &mut Managers, mut fields: FieldSet, write: &Write<'_>) {
    fields.subtract(&UNOWNED, false);
    if fields.is_empty() {
        return;
    }
    let manager =
        Manager::new(write.manager, Workflow::Update, write.api_version, write.subresource);
    if let Some(previous) = managers.take(&manager) {
        fields.absorb(previous.fields);
    }
    let api_version = write.api_version.to_owned();
    managers.set(manager, Owned { fields, api_version, time: Some(write.now.to_owned()) });
}

/// The managers that an update starts from: those that the client sent, else those of the live
/// object. A write through a subresource cannot edit them.
fn managers_of_update(live: Option<&Value>, new: &Value, write: &Write<'_>) -> Managers {
    let of_live = || live.and_then(|live| Managers::of(live).ok()).unwrap_or_default();
    if !write.subresource.is_empty() {
        return of_live();
    }
    if managers::asks_for_reset(new) {
        return Managers::default();
    }
    match Managers::of(new) {
        Ok(sent) if !sent.is_empty() => sent,
        _ => of_live(),
    }
}

/// An apply under way.
struct State<'a> {
    /// The live object without `managedFields`.
    live: Value,
    managers: Managers,
    at: At<'a>,
    write: Write<'a>,
    /// Whether the object is not there yet.
    creating: bool,
}

impl<'a> State<'a> {
    fn before_apply(
        live: Option<&Value>,
        applied: &Value,
        schema: &'a Schema,
        write: &Write<'a>,
    ) -> Result<Self, ApplyError> {
        let at = schema.root();
        let mut managers = match live {
            Some(live) => Managers::of(live).map_err(|reason| ApplyError::Stored { reason })?,
            None => Managers::default(),
        };
        if let Some(live) = live
            && managers.is_empty()
        {
            let before = Write { manager: BEFORE_FIRST_APPLY, ..*write };
            let changes = Comparison::between(&with_structs(None, live, schema), live, at);
            note_update(&mut managers, changes.without(write.reset).split().0, &before);
        }
        managers.reconcile(at);
        let creating = live.is_none();
        let live = live.map(|live| Cow::Owned(without_managed_fields(live)));
        let live = with_structs(live, applied, schema).into_owned();
        Ok(Self { live, managers, at, write: *write, creating })
    }

    fn apply(
        &mut self,
        applied: &Value,
        manager: &Manager,
        force: bool,
    ) -> Result<Value, Conflicts> {
        let at = self.at;
        let last = self.managers.get(manager).cloned();
        let fields = fields_of(applied, at).recursive_difference(self.write.reset);
        let owned = Owned {
            fields,
            api_version: self.write.api_version.to_owned(),
            time: last.as_ref().and_then(|last| last.time.clone()),
        };
        let merged = merge::merge(&self.live, applied, at);
        self.managers.set(manager.clone(), owned.clone());
        let mut object = match &last {
            Some(last) => prune(merged, &last.fields, &self.managers.all_fields(), at),
            None => merged,
        };
        let changes = Comparison::between(&self.live, &object, at).without(self.write.reset);
        let (changed, removed) = changes.split();
        let conflicts = self.conflicts(manager, &changed);
        if !force && !conflicts.0.is_empty() {
            return Err(conflicts);
        }
        self.managers.take_from_others(Some(manager), &changed);
        self.managers.take_from_others(Some(manager), &removed);
        let fields = owned.fields.difference(&UNOWNED);
        self.managers.set(manager.clone(), Owned { fields, ..owned });
        if self.creating || !same(&self.live, &object) {
            self.managers.set_time(manager, self.write.now);
        }
        merge::drop_nulls(&mut object);
        Ok(object)
    }

    fn conflicts(&self, manager: &Manager, changed: &FieldSet) -> Conflicts {
        let others = self.managers.iter().filter(|(other, _)| *other != manager);
        let conflicts = others.flat_map(|(other, owned)| {
            let paths = owned.fields.intersection(changed).paths();
            paths.into_iter().map(|path| Conflict { manager: other.clone(), path })
        });
        Conflicts(conflicts.collect())
    }
}

/// Takes out of `merged` what the manager stated last time (`last`), states no more, and nobody
/// else owns (`owned` is everything that anyone owns now).
fn prune(merged: Value, last: &FieldSet, owned: &FieldSet, at: At<'_>) -> Value {
    if last.is_empty() {
        return merged;
    }
    let last = last.with_fields(at);
    let all = fields_of(&merged, at).with_fields(at);
    let fields_left = |value: &Value| fields_of(value, at).with_fields(at);
    // First everything the manager stated, with all that is below; then what is owned comes back;
    // then what the manager never stated comes back.
    let bare = merge::remove(&merged, &last, at);
    let claimed = fields_left(&bare).union(&owned.with_fields(at));
    let with_owned = merge::remove(&merged, &all.difference(&claimed), at);
    let lost = all.difference(&fields_left(&with_owned));
    merge::remove(&merged, &lost.intersection(&last), at)
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    strip(&mut object);
    object
}

/// Objects that every object of a built-in kind has, empty, before anyone wrote to it: in a typed
/// server these are structs by value. Creating an object does not make its author their owner.
const BY_VALUE: &[&[&str]] = &[
    &["metadata"],
    &["spec"],
    &["spec", "strategy"],
    &["spec", "updateStrategy"],
    &["spec", "template"],
    &["spec", "template", "metadata"],
    &["spec", "template", "spec"],
    &["spec", "jobTemplate"],
    &["spec", "jobTemplate", "metadata"],
    &["spec", "jobTemplate", "spec"],
    &["spec", "jobTemplate", "spec", "template"],
    &["spec", "jobTemplate", "spec", "template", "metadata"],
    &["spec", "jobTemplate", "spec", "template", "spec"],
    &["template"],
    &["template", "metadata"],
    &["template", "spec"],
    &["status"],
    &["status", "loadBalancer"],
    // Of Events.
    &["source"],
];

/// The object before a write that results in `new`, as a typed server would see it: `old` (or
/// nothing but the kind) with the objects of [`BY_VALUE`] that `new` has, and the containers list.
fn with_structs<'v>(old: Option<Cow<'v, Value>>, new: &Value, schema: &Schema) -> Cow<'v, Value> {
    let mut old = old.unwrap_or_else(|| {
        let kind = ["apiVersion", "kind"].into_iter();
        let kind = kind.filter_map(|name| Some((name.to_owned(), new.get(name)?.clone())));
        Cow::Owned(kind.collect())
    });
    if !schema.is_typed() {
        return old;
    }
    for path in BY_VALUE {
        let Some(Value::Object(members)) = at_path(new, path) else {
            continue;
        };
        if at_path(&old, path).is_none_or(Value::is_null) {
            // A member that is null is no more than one that is absent.
            let nulls = members.iter().filter(|(_, value)| value.is_null());
            let nulls = nulls.map(|(name, value)| (name.clone(), value.clone())).collect();
            put(old.to_mut(), path, Value::Object(nulls));
        }
        let containers: Vec<&str> = path.iter().copied().chain(["containers"]).collect();
        if path.last() == Some(&"spec")
            && at_path(new, &containers).is_some_and(Value::is_array)
            && at_path(&old, &containers).is_none_or(Value::is_null)
        {
            put(old.to_mut(), &containers, Value::Array(Vec::new()));
        }
    }
    old
}

fn at_path<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

fn put(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let parent = parents.iter().try_fold(object, |object, name| object.get_mut(name));
    if let Some(Value::Object(parent)) = parent {
        parent.insert((*last).to_owned(), value);
    }
}
