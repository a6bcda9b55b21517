//! The way from client-side apply to server-side apply, for `kubectl` alone.
//!
//! Client-side apply leaves the applied configuration in an annotation. When kubectl applies by the
//! server for the first time, fields that still have the value of the annotation are its own, and
//! no conflict; and the annotation is kept up to date, so that a user may go back. As upstream
//! (`lastappliedmanager.go`, `lastappliedupdater.go`), this is for the manager named `kubectl` only.

use serde_json::Value;

use super::compare::{Comparison, fields_of};
use super::conflict::Conflicts;
use super::set::FieldSet;
use crate::schema::At;

const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Most bytes of all annotations of an object: `TotalAnnotationSizeLimitB` of k8s.io/apimachinery.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    let annotations = object.get("metadata")?.get("annotations")?;
    annotations.get(LAST_APPLIED)?.as_str().filter(|text| !text.is_empty())
}

/// Whether all conflicts are with the manager's own earlier self.
pub(super) fn may_force(manager: &str, conflicts: &Conflicts, live: &Value, at: At<'_>) -> bool {
    own_fields(manager, live, at)
        .is_some_and(|own| conflicts.0.iter().all(|conflict| own.contains(&conflict.path)))
}

/// The conflicts that are not with the manager's own earlier self.
pub(super) fn remaining(
    manager: &str,
    mut conflicts: Conflicts,
    live: &Value,
    at: At<'_>,
) -> Conflicts {
    if let Some(own) = own_fields(manager, live, at) {
        conflicts.0.retain(|conflict| !own.contains(&conflict.path));
    }
    conflicts
}

/// The fields that client-side apply set and nobody changed since.
fn own_fields(manager: &str, live: &Value, at: At<'_>) -> Option<FieldSet> {
    if manager != KUBECTL {
        return None;
    }
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if last.get("apiVersion") != live.get("apiVersion") {
        return None;
    }
    let (mut changed, removed) = Comparison::between(&last, live, at).split();
    changed.absorb(removed);
    let mut fields = fields_of(&last, at);
    fields.subtract(&changed, false);
    Some(fields)
}

/// Brings the annotation up to date where there is one, and it fits.
pub(super) fn refresh_annotation(manager: &str, object: &mut Value, applied: &Value) {
    if manager != KUBECTL || annotation(object).is_none() {
        return;
    }
    let mut last = applied.clone();
    if let Some(annotations) = annotations_of(&mut last) {
        annotations.shift_remove(LAST_APPLIED);
    }
    last.sort_all_objects();
    // A newline ends the text, as client-side apply writes it.
    let text = format!("{last}\n");
    let Some(annotations) = annotations_of(object) else {
        return;
    };
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
    let bytes: usize =
        annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if bytes > MAX_ANNOTATION_BYTES {
        annotations.shift_remove(LAST_APPLIED);
    }
}

fn annotations_of(object: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
