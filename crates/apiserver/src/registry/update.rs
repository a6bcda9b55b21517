//! Update: what a request may change, put over what is stored.
//!
//! PUT, PATCH and scale differ only in how they make the new object out of the
//! old one; [`Registry::modify`] does the rest, and does it again when another
//! write came first, unless the client named the revision that it meant.

use serde_json::{Value, json};

use super::{
    Caller, Registry, Subresource, WriteOptions, Written,
    commit::{Ledger, Lost},
    create::{NAMESPACE_MISMATCH, check_place},
    key, object,
    object::Encoded,
    rules, scale, service,
};
use crate::{Cause, Kind, Status, go, kinds, schema, store::Expect};

/// Attempts at a write that others keep overtaking. Each failure means that another write went
/// through, so this is reached only under a storm on one object.
const RACE_ATTEMPTS_MAX: usize = 64;

/// Which object a request changes, through which door, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) part: Option<Subresource>,
    pub(crate) options: &'a WriteOptions,
}

/// Who keeps the record of field owners for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// The new object is compared with the old one.
    Compare,
    /// The change has done it (server-side apply).
    Done,
}

/// Makes the new object out of the stored one.
pub(crate) type Change<'a> = &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync);

impl Registry {
    /// Replaces an object, or one part of it.
    #[expect(clippy::too_many_arguments, reason = "the address of an object is three of them")]
    pub async fn update(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        subresource: Option<Subresource>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.update_written(caller, kind, namespace, name, subresource, object, options)
            .await
            .map(|w| w.object)
    }

    /// Replaces an object, or one part of it; tells what there is to tell about it.
    #[expect(clippy::too_many_arguments, reason = "the address of an object is three of them")]
    pub async fn update_written(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        subresource: Option<Subresource>,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let place = Place { caller, kind, namespace, name, part: subresource, options };
        if subresource == Some(Subresource::Scale) {
            return self.update_scale(place, object).await;
        }
        // Whatever there is to say of the body goes before what is stored; warnings come again.
        drop(rules::read(kind, &mut object, options)?);
        let twice = rules::unite_owners(&mut object, "").into_iter().collect();
        match self.update_read(place, object).await {
            Ok(written) => Ok(written.after(twice)),
            Err(status) => Err(status.with_warnings(twice)),
        }
    }

    async fn update_read(&self, place: Place<'_>, mut object: Value) -> Result<Written, Status> {
        let Place { caller, kind, namespace, name, part, options } = place;
        check_place(kind, namespace, &object)?;
        let named = object::name(&object);
        if !named.is_empty() && named != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({name})"
            )));
        }
        let is_missing = self.inner.store.get(&key(kind, namespace, name)).is_none();
        if is_missing {
            // An object that is not there has no uid.
            check_uid(kind, &json!({"metadata": {"name": name}}), &object)?;
        }
        let creates = kind.create_on_update && part.is_none() && object::revision(&object) == 0;
        if is_missing && creates {
            object::metadata_mut(&mut object).insert("name".into(), name.into());
            match self.create_written(caller, kind, namespace, object.clone(), options).await {
                Err(status) if status.is_already_exists() => {}
                outcome => return outcome,
            }
        }
        let change = |old: &Value| {
            check_uid(kind, old, &object)?;
            if kind.needs_revision && object::revision(&object) == 0 {
                return Err(unconditional(kind, name));
            }
            Ok(object.clone())
        };
        self.modify(place, Owners::Compare, &change).await
    }

    /// Reads, changes, and writes back, until no other write comes between.
    pub(crate) async fn modify(
        &self,
        place: Place<'_>,
        owners: Owners,
        change: Change<'_>,
    ) -> Result<Written, Status> {
        let Place { kind, namespace, name, options, .. } = place;
        for _ in 0..RACE_ATTEMPTS_MAX {
            let record = self.get_record(kind, namespace, name)?;
            let old = object::parse(&record)?;
            let new = change(&old)?;
            let asked = object::meta_str(&new, "resourceVersion");
            if !asked.is_empty() {
                go::parse_uint(asked).map_err(Status::unforeseen)?;
            }
            if !asked.is_empty() && asked != "0" && asked != record.revision.to_string() {
                return Err(Status::modified(kind, name));
            }
            match self.replace(place, owners, record.revision, &old, new).await {
                Ok(mut written) => {
                    written.record = written.record.or((!options.dry_run).then_some(record));
                    return Ok(written);
                }
                // The next attempt finds out by the revision whether the client minds.
                Err(Lost::Race) => {}
                Err(Lost::Refused(status)) => return Err(status),
            }
        }
        Err(Status::modified(kind, name))
    }

    /// As [`Registry::modify`], for changes of spec and status at once that only the server makes.
    /// Nobody owns what they set, as with upstream's bindings.
    pub(crate) async fn modify_whole(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        change: Change<'_>,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        for _ in 0..RACE_ATTEMPTS_MAX {
            let record = self.get_record(kind, namespace, name)?;
            let old = object::parse(&record)?;
            let mut new = change(&old)?;
            // What is stored has one spelling, whoever wrote it: otherwise the
            // next writer would seem to change what it never touched.
            schema::types::prune(kind, &mut new);
            schema::types::complete(kind, &mut new);
            if kind.has_generation && rules::is_new_generation(kind, &old, &new) {
                bump_generation(&mut new);
            }
            if options.dry_run || old == new {
                return Ok(());
            }
            let encoded = Encoded::of(kind, &new);
            let expect = Expect::Revision(record.revision);
            match self.put(key(kind, namespace, name), expect, encoded, Ledger::default()).await {
                Ok(_) => return Ok(()),
                Err(Lost::Race) => {}
                Err(Lost::Refused(status)) => return Err(status),
            }
        }
        Err(Status::modified(kind, name))
    }

    /// One attempt to write `new` over `old`. A change that changes nothing writes nothing and
    /// comes back without a record.
    async fn replace(
        &self,
        place: Place<'_>,
        owners: Owners,
        revision: u64,
        old: &Value,
        mut new: Value,
    ) -> Result<Written, Lost> {
        let Place { kind, options, .. } = place;
        let mut warnings = rules::read(kind, &mut new, options).map_err(Lost::Refused)?;
        warnings.extend(rules::unite_owners(&mut new, " after mutating admission happens"));
        match self.replace_read(place, owners, revision, old, new).await {
            Ok(written) => Ok(written.after(warnings)),
            Err(Lost::Refused(status)) => Err(Lost::Refused(status.with_warnings(warnings))),
            Err(Lost::Race) => Err(Lost::Race),
        }
    }

    async fn replace_read(
        &self,
        place: Place<'_>,
        owners: Owners,
        revision: u64,
        old: &Value,
        mut new: Value,
    ) -> Result<Written, Lost> {
        let Place { caller, kind, part, options, .. } = place;
        let name = object::name(old);
        check_identity(old, &new).map_err(Lost::Refused)?;
        rules::isolate(kind, part, old, &mut new);
        rules::shape(kind, &mut new);
        let mut causes = identity_causes(kind, old, &new);
        keep_metadata(kind, old, &mut new);
        schema::defaults::carry(kind, old, &mut new);
        schema::types::complete(kind, &mut new);
        // What the server changes after this belongs to nobody.
        if owners == Owners::Compare && *old != new {
            new = self.own_fields(caller, kind, part, Some(old), new, options);
        }
        rules::count_template(kind, Some(old), &mut new);
        let mut ledger = Ledger::default();
        if *kind == kinds::SERVICES {
            service::prepare_update(old, &mut new);
            let (taken, released) =
                service::allocate_update(&self.inner.allocators, old, &mut new, options.dry_run)
                    .map_err(|causes| Lost::Refused(Status::invalid(kind, name, causes)))?;
            ledger = Ledger { taken: Some(taken), released };
        }
        // What is asked for is not changed through the door for what is so.
        let may_count = kind.has_generation && part != Some(Subresource::Status);
        if may_count && rules::is_new_generation(kind, old, &new) {
            bump_generation(&mut new);
        }
        causes.extend(self.validate_update(kind, part, old, &new));
        if !causes.is_empty() {
            return Err(Lost::Refused(Status::invalid(kind, name, causes)));
        }
        let warnings = match part {
            None => schema::warnings::on_update(kind, old, &new),
            Some(Subresource::Status) => schema::warnings::on_status(kind, &new),
            Some(_) => Vec::new(),
        };
        if part == Some(Subresource::Scale) {
            scale::keep_times(old, &mut new);
        }
        self.check_change(caller, kind, part, old, &new).map_err(Lost::Refused)?;
        if *old == new || options.dry_run {
            return Ok(Written { warnings, ..Written::new(new, None, false) });
        }
        let key = key(kind, object::namespace(old), name);
        let record = if is_finished(kind, old, &new) {
            ledger.released = service::holdings_of(kind, old);
            self.remove(kind, key, revision, &new, ledger).await?
        } else {
            self.put(key, Expect::Revision(revision), Encoded::of(kind, &new), ledger).await?
        };
        object::set_revision(&mut new, record.revision);
        Ok(Written { warnings, ..Written::new(new, Some(record), false) })
    }
}

/// The object that the client means is the one that is stored.
fn check_identity(old: &Value, new: &Value) -> Result<(), Status> {
    for field in ["name", "namespace"] {
        let (before, after) = (object::meta_str(old, field), object::meta_str(new, field));
        if !after.is_empty() && before != after {
            if field == "namespace" && before.is_empty() {
                continue;
            }
            if field == "namespace" {
                return Err(Status::bad_request(NAMESPACE_MISMATCH));
            }
            return Err(Status::bad_request(format!(
                "the {field} of the object ({after}) does not match the {field} on the URL ({before})"
            )));
        }
    }
    Ok(())
}

/// A PUT with a uid asks for the object of that uid.
pub(crate) fn check_uid(kind: &Kind, old: &Value, new: &Value) -> Result<(), Status> {
    let (before, after) = (object::uid(old), object::uid(new));
    if after.is_empty() || before == after {
        return Ok(());
    }
    let why =
        format!("Precondition failed: UID in precondition: {after}, UID in object meta: {before}");
    Err(Status::conflict(kind, object::name(old), &why))
}

/// A PUT without a revision on a kind whose writers must know what they replace. Upstream's store
/// knows resources only, so this names the resource where others name the kind.
fn unconditional(kind: &Kind, name: &str) -> Status {
    let field = "metadata.resourceVersion";
    let cause = Cause {
        message: "Invalid value: 0x0: must be specified for an update".into(),
        ..Cause::invalid(field, &Value::Null, "")
    };
    let mut status = Status::invalid(kind, name, vec![cause]);
    status.message = status.message.replacen(&kind.group_kind(), &kind.group_resource(), 1);
    if let Some(details) = &mut status.details {
        details.kind = kind.plural.into();
    }
    status
}

/// What nobody may write: another uid, or the end of an object that is not on its way out.
/// Upstream looks twice: for all kinds, and in the rules of most.
fn identity_causes(kind: &Kind, old: &Value, new: &Value) -> Vec<Cause> {
    const IMMUTABLE: &str = "field is immutable";
    let mut causes = Vec::new();
    let (before, after) = (object::uid(old), object::uid(new));
    if !after.is_empty() && before != after {
        causes.push(Cause::invalid("metadata.uid", &after.into(), IMMUTABLE));
    }
    let added = |field: &str| {
        let found = |object| object::metadata(object).get(field).filter(|v: &&Value| !v.is_null());
        if found(old).is_some() { None } else { found(new).cloned() }
    };
    if let Some(time) = added("deletionTimestamp") {
        // As Go prints a time.
        let shown = time.as_str().unwrap_or_default().replace('T', " ").replace('Z', " +0000 UTC");
        let message = format!("Invalid value: {shown}: {IMMUTABLE}");
        causes.push(Cause { message, ..Cause::invalid("metadata.deletionTimestamp", &time, "") });
    }
    if let Some(seconds) = added("deletionGracePeriodSeconds") {
        causes.push(Cause::invalid("metadata.deletionGracePeriodSeconds", &seconds, IMMUTABLE));
    }
    // The rules of these begin with a look at the new object alone.
    let looks_once = [&kinds::EVENTS, &kinds::ENDPOINT_SLICES].contains(&kind);
    let again = if looks_once { Vec::new() } else { causes.clone() };
    causes.into_iter().chain(again).collect()
}

/// Metadata that belongs to the server stays as it was.
fn keep_metadata(kind: &Kind, old: &Value, new: &mut Value) {
    let before = object::metadata(old);
    let after = object::metadata_mut(new);
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        rules::set_or_remove(after, field, before.get(field).cloned());
    }
    // A map or list emptied and one left out are the same; so they compare the same.
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = match after.get(field) {
            Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if empty {
            after.shift_remove(field);
        }
    }
    if kind.is_core("namespaces") {
        let name = object::name(old).to_owned();
        let metadata = object::metadata_mut(new);
        object::map_at(metadata, "labels")
            .insert(crate::schema::defaults::NAMESPACE_NAME_LABEL.into(), name.into());
    }
}

pub(crate) fn bump_generation(object: &mut Value) {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
    object::metadata_mut(object).insert("generation".into(), json!(generation + 1));
}

/// Whether this write takes away the last thing that kept a deleted object.
fn is_finished(kind: &Kind, old: &Value, new: &Value) -> bool {
    let grace = object::metadata(old).get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    object::is_deleting(old)
        && grace.unwrap_or(0) == 0
        && rules::is_kept(kind, old)
        && !rules::is_kept(kind, new)
}
