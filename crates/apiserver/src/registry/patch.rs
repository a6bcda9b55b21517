//! Patch: four ways to say what should change, one way to carry it out.

use portolan_kube_patch as kube_patch;
use serde_json::Value;

use super::{
    Caller, Registry, Subresource, WriteOptions, Written,
    update::{Owners, Place},
};
use crate::{Cause, Kind, Status, status::Details};

/// Most operations of a JSON patch (apiserver `maxJSONPatchOperations`).
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// A change, in the form that the client chose by its content type.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// Server-side apply: the fields that the manager wants, and no others.
    Apply(Value),
}

impl Registry {
    /// Changes an object, or one part of it.
    #[expect(clippy::too_many_arguments, reason = "the address of an object is three of them")]
    pub async fn patch(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        subresource: Option<Subresource>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.patch_written(caller, kind, namespace, name, subresource, patch, options)
            .await
            .map(|w| w.object)
    }

    /// Changes an object, or one part of it; tells what there is to tell about it.
    #[expect(clippy::too_many_arguments, reason = "the address of an object is three of them")]
    pub async fn patch_written(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        subresource: Option<Subresource>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        if let Patch::Json(Value::Array(operations)) = &patch
            && operations.len() > JSON_PATCH_OPERATIONS_MAX
        {
            return Err(Status::too_large(format!(
                "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
                operations.len()
            )));
        }
        let place = Place { caller, kind, namespace, name, part: subresource, options };
        if let Patch::Apply(applied) = patch {
            return self.apply(place, applied).await;
        }
        if subresource == Some(Subresource::Scale) {
            return self.patch_scale(caller, kind, namespace, name, patch, options).await;
        }
        let change = |old: &Value| apply(kind, old, &patch);
        self.modify(place, Owners::Compare, &change).await
    }
}

/// The causes that kube-patch names, as a Status has them.
pub(crate) fn with_causes(mut status: Status, causes: Vec<kube_patch::Cause>) -> Status {
    if !causes.is_empty() {
        let causes = causes
            .into_iter()
            .map(|c| Cause { reason: c.reason, message: c.message, field: c.field })
            .collect();
        status.details = Some(Box::new(Details { causes, ..Details::default() }));
    }
    status
}

/// The patched document.
pub(crate) fn apply(kind: &Kind, old: &Value, patch: &Patch) -> Result<Value, Status> {
    let refused = |error: kube_patch::PatchError| {
        with_causes(Status::new(error.code(), error.reason(), error.to_string()), error.causes())
    };
    match patch {
        Patch::Json(patch) => kube_patch::json_patch(old, patch).map_err(refused),
        Patch::Merge(patch) => Ok(kube_patch::merge_patch(old, patch)),
        Patch::Strategic(patch) => {
            let schema = kube_patch::schema_for(kind.group, kind.version, kind.kind);
            kube_patch::strategic_merge(old, patch, schema).map_err(refused)
        }
        Patch::Apply(_) => Err(Status::internal("an apply is no patch of a document")),
    }
}
