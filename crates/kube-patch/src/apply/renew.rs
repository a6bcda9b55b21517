//! The common update: a manager changes what is its own already.
//!
//! A kubelet that writes its status for the thousandth time, or a process that
//! renews its registration, changes nothing about who owns what, only when. So
//! the entries stay as they are but for one time, and none is decoded. Whoever
//! owns something new, loses something, or shares a field, is answered `None`
//! here and goes the long way ([`super::Managers`]), which gives the same.

use serde_json::Value;

use super::{FieldSet, PathElement, UNOWNED, Write, managers};

/// More changed fields than this are looked up faster the long way.
const FIELDS_MAX: usize = 16;

/// Brings `managedFields` of the new object up to date, if that is all there is
/// to do; `None` leaves the object as it was.
pub(super) fn renew(
    live: &Value,
    new: &mut Value,
    changed: &FieldSet,
    write: &Write<'_>,
) -> Option<()> {
    let stored = entries(live)?.as_array()?;
    match entries(new) {
        // A client that says nothing about them, or has them as they are.
        None | Some(Value::Null) => {}
        Some(sent) if sent.as_array() == Some(stored) => {}
        Some(_) => return None,
    }
    let fields = changed.difference(&UNOWNED);
    let paths = fields.paths();
    // Fields that are nobody's are not looked at one by one, in case they are somebody's.
    if paths.is_empty() || paths.len() > FIELDS_MAX || fields != *changed {
        return None;
    }
    let own = stored.iter().position(|entry| is_by(entry, write))?;
    for (index, entry) in stored.iter().enumerate() {
        let fields = entry.get("fieldsV1")?;
        if paths.iter().any(|path| owns(fields, path) != (index == own)) {
            return None;
        }
    }
    let mut renewed = stored.clone();
    renewed.get_mut(own)?.as_object_mut()?.insert("time".to_owned(), write.now.into());
    managers::sort(&mut renewed);
    let metadata = new.get_mut("metadata")?.as_object_mut()?;
    metadata.shift_remove("managedFields");
    metadata.insert("managedFields".to_owned(), renewed.into());
    Some(())
}

fn entries(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

fn is_by(entry: &Value, write: &Write<'_>) -> bool {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    text("operation") == "Update"
        && text("manager") == write.manager
        && text("apiVersion") == write.api_version
        && text("subresource") == write.subresource
        // Without one the order of members would differ from the long way's.
        && entry.get("time").is_some()
}

/// Whether a path is a member of an encoded set; see [`FieldSet::decode`].
fn owns(fields: &Value, path: &[PathElement]) -> bool {
    let below = path.iter().try_fold(fields, |level, element| level.get(element.encode()));
    let members = below.and_then(Value::as_object);
    members.is_some_and(|members| members.is_empty() || members.contains_key("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        apply::{reset_fields, update, update_slowly},
        schema_for,
    };

    /// Both ways give the same text; tells whether the short one was taken.
    fn check(live: &Value, new: &Value, manager: &str, part: &str) -> bool {
        let schema = schema_for("", "v1", "Pod");
        let write = Write {
            manager,
            api_version: "v1",
            subresource: part,
            now: "2030-01-01T00:00:09Z",
            reset: reset_fields(part),
        };
        let slow = update_slowly(Some(live), new.clone(), schema, &write);
        assert_eq!(update(Some(live), new.clone(), schema, &write).to_string(), slow.to_string());
        let (changed, removed) = super::super::changes(Some(live), new, schema, &write);
        removed.is_empty() && renew(live, &mut new.clone(), &changed, &write).is_some()
    }

    #[test]
    fn gives_what_the_long_way_gives() {
        let schema = schema_for("", "v1", "Pod");
        let made = |live: Option<&Value>, new: Value, manager: &str, part: &str, now: &str| {
            let api_version = "v1";
            let reset = reset_fields(part);
            let write = Write { manager, api_version, subresource: part, now, reset };
            update_slowly(live, new, schema, &write)
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "annotations": {"a": "1"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]}});
        let live = made(None, pod, "me", "", "2030-01-01T00:00:01Z");
        let mut new = live.clone();
        new["metadata"]["annotations"]["b"] = "1".into();
        new["metadata"]["labels"] = json!({"l": "1"});
        let live = made(Some(&live), new, "you", "", "2030-01-01T00:00:02Z");
        let mut new = live.clone();
        new["status"] = json!({"phase": "Pending", "conditions": [{"type": "Ready"}]});
        let live = made(Some(&live), new, "me", "status", "2030-01-01T00:00:03Z");

        let with = |path: &str, value: Value| {
            let mut new = live.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            new.pointer_mut(parent).unwrap()[key] = value;
            new
        };
        let mine = with("/metadata/annotations/a", json!("2"));
        let mut without_entries = mine.clone();
        managers::strip(&mut without_entries);
        let mut reset = mine.clone();
        reset["metadata"]["managedFields"] = json!([]);
        let mut edited = mine.clone();
        edited["metadata"]["managedFields"][0]["manager"] = "other".into();
        let mut removed = mine.clone();
        removed["metadata"]["annotations"].as_object_mut().unwrap().shift_remove("b");
        for (new, manager, part, short) in [
            (&mine, "me", "", true),
            (&without_entries, "me", "", true),
            (&mine, "you", "", false),
            (&mine, "she", "", false),
            (&mine, "me", "status", false),
            (&reset, "me", "", false),
            (&edited, "me", "", false),
            (&removed, "me", "", false),
            (&live, "me", "", false),
            (&with("/metadata/annotations/c", json!("1")), "me", "", false),
            (&with("/metadata/labels/l", json!("2")), "you", "", true),
            (&with("/metadata/generation", json!(2)), "me", "", false),
            (&with("/spec/containers/0/image", json!("j")), "me", "", true),
            (&with("/spec/containers/0/ports/0/containerPort", json!(2)), "me", "", false),
            (&with("/status/phase", json!("Running")), "me", "status", true),
            (&with("/status/conditions/0/status", json!("True")), "me", "status", false),
        ] {
            assert_eq!(check(&live, new, manager, part), short, "{manager} {part} {new}");
        }
    }
}
