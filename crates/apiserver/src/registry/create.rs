//! Create: stamp, default, validate, allocate, store if the name is free.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    Caller, Registry, WriteOptions, Written,
    commit::{Ledger, Lost},
    key, object,
    object::Encoded,
    rules, service,
    update::Owners,
};
use crate::{Cause, Kind, Status, kinds, schema, store::Expect};

/// The words of upstream's `EnsureObjectNamespaceMatchesRequestNamespace`.
pub(crate) const NAMESPACE_MISMATCH: &str =
    "the namespace of the provided object does not match the namespace sent on the request";
/// Attempts at a free generated name (apiserver `RetryGenerateName`, 1.32).
const GENERATED_NAME_ATTEMPTS: usize = 8;

impl Registry {
    /// Stores a new object and returns it.
    pub async fn create(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.create_written(caller, kind, namespace, object, options).await.map(|w| w.object)
    }

    /// Stores a new object; tells what there is to tell about it.
    pub async fn create_written(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        self.create_owned(caller, kind, namespace, Owners::Compare, object, options).await
    }

    /// Creates; `owners` says whether the object brings its record of field owners.
    pub(crate) async fn create_owned(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        owners: Owners,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut warnings = rules::read(kind, &mut object, options)?;
        let when = match owners {
            Owners::Compare => "",
            Owners::Done => " after mutating admission happens",
        };
        warnings.extend(rules::unite_owners(&mut object, when));
        let outcome = self.create_read(caller, kind, namespace, owners, object, options).await;
        match outcome {
            Ok(written) => Ok(written.after(warnings)),
            Err(status) => Err(status.with_warnings(warnings)),
        }
    }

    async fn create_read(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        owners: Owners,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        check_place(kind, namespace, &object)?;
        let generated = object::name(&object).is_empty();
        let base = object::meta_str(&object, "generateName").to_owned();
        if generated && base.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Status::invalid(kind, "", vec![cause]));
        }
        self.check_namespace(kind, namespace, object::name(&object))?;
        stamp_new(kind, namespace, &mut object, &self.now());
        if !generated {
            return self.create_named(caller, kind, owners, object, options).await;
        }
        let mut attempt = 1;
        loop {
            let mut named = if attempt < GENERATED_NAME_ATTEMPTS {
                Cow::Borrowed(&object).into_owned()
            } else {
                std::mem::take(&mut object)
            };
            // An address has no random letters: upstream takes the base as it is.
            let name = match *kind == kinds::IP_ADDRESSES {
                true => base.clone(),
                false => object::generate_name(&base),
            };
            object::metadata_mut(&mut named).insert("name".into(), name.into());
            match self.create_named(caller, kind, owners, named, options).await {
                Err(status) if status.is_already_exists() && attempt < GENERATED_NAME_ATTEMPTS => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn create_named(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        owners: Owners,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        rules::prepare_create(kind, &mut object);
        rules::shape(kind, &mut object);
        // What the server adds after this belongs to nobody.
        if owners == Owners::Compare {
            object = self.own_fields(caller, kind, None, None, object, options);
        }
        if *kind == kinds::PODS {
            self.admit_pod(&mut object)?;
        }
        rules::admit(kind, &mut object);
        let name = object::name(&object).to_owned();
        let key = key(kind, object::namespace(&object), &name);
        let mut ledger = Ledger::default();
        // Not if the name is taken: that is to show, and not as a taken address.
        if *kind == kinds::SERVICES && self.inner.store.get(&key).is_none() {
            let taken =
                service::allocate_create(&self.inner.allocators, &mut object, options.dry_run)
                    .map_err(|causes| Status::invalid(kind, &name, causes))?;
            ledger.taken = Some(taken);
        }
        let causes = self.validate_create(kind, &object);
        if !causes.is_empty() {
            return Err(Status::invalid(kind, &name, causes));
        }
        let warnings = schema::warnings::on_create(kind, &object);
        if self.inner.store.get(&key).is_some() {
            return Err(Status::already_exists(kind, &name));
        }
        if options.dry_run {
            return Ok(Written { warnings, ..Written::new(object, None, true) });
        }
        // Only now, for a dry run does not mind.
        if object::revision(&object) != 0 {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Status::unforeseen(why));
        }
        let encoded = Encoded::of(kind, &object);
        match self.put(key, Expect::Absent, encoded, ledger).await {
            Ok(record) => {
                object::set_revision(&mut object, record.revision);
                Ok(Written { warnings, ..Written::new(object, Some(record), true) })
            }
            Err(Lost::Race) => Err(Status::already_exists(kind, &name)),
            Err(Lost::Refused(status)) => Err(status),
        }
    }
}

/// The namespace in the object is that of the request, or absent.
pub(crate) fn check_place(kind: &Kind, namespace: &str, object: &Value) -> Result<(), Status> {
    let found = object::namespace(object);
    let expected = if kind.namespaced { namespace } else { "" };
    if kind.namespaced && namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    // A namespace means nothing on an object that has none, and is dropped.
    if found.is_empty() || expected.is_empty() || found == expected {
        return Ok(());
    }
    Err(Status::bad_request(NAMESPACE_MISMATCH))
}

fn stamp_new(kind: &Kind, namespace: &str, object: &mut Value, now: &str) {
    let metadata = object::metadata_mut(object);
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace"] {
        metadata.shift_remove(field);
    }
    if kind.namespaced {
        metadata.insert("namespace".into(), namespace.into());
    }
    metadata.insert("uid".into(), object::new_uid().into());
    metadata.insert("creationTimestamp".into(), now.into());
    if kind.has_generation {
        metadata.insert("generation".into(), json!(1));
    }
}
