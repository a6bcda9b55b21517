//! Which ReplicaSet is which revision of a Deployment.
//!
//! The template identifies a revision, a hash of it names its ReplicaSet, and
//! annotations number it: `kubectl rollout history` and `undo` read those
//! (kubernetes `pkg/controller/deployment/util`).

use serde_json::Value;

use super::world::Set;
use crate::object::{self, same};

/// Label that keeps the Pods of the revisions apart.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// Annotation with the number of the revision.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with the numbers that a ReplicaSet had before it was rolled back to.
pub(crate) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the replicas that the Deployment asked for when the set was last scaled.
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with those replicas plus the surge.
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that are not its ReplicaSets'.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Longest revision history in an annotation (`maxRevHistoryLengthInChars`).
const HISTORY_CHARS_MAX: usize = 2000;

/// Letters of hashes in names: no vowels and nothing that reads alike
/// (apimachinery `rand.SafeEncodeString`).
const HASH_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Whether two templates make the same Pods; the hash label does not count.
pub(crate) fn same_template(left: &Value, right: &Value) -> bool {
    same(&without_hash(left), &without_hash(right))
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.shift_remove(HASH_LABEL);
    }
    template
}

/// A short name for a template. Unlike upstream's it does not follow from the
/// memory layout of a Go type; nothing depends on it but names. `collisions`
/// makes another one when the name is taken.
pub(crate) fn hash(template: &Value, collisions: Option<i64>) -> String {
    let mut state = Fnv::default();
    feed(&mut state, template);
    if let Some(collisions) = collisions {
        state.write(&collisions.to_le_bytes());
    }
    state
        .0
        .to_string()
        .bytes()
        .map(|b| HASH_ALPHABET[usize::from(b) % HASH_ALPHABET.len()] as char)
        .collect()
}

/// FNV-1a with 32 bits: upstream's choice, and short enough for a label.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0x811c_9dc5)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// Feeds a value regardless of the order of its keys, and without what is empty.
fn feed(state: &mut Fnv, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            for (key, value) in entries {
                if !same(value, &Value::Null) {
                    state.write(b"\x01");
                    state.write(key.as_bytes());
                    feed(state, value);
                }
            }
            state.write(b"\x02");
        }
        Value::Array(list) => {
            for value in list {
                state.write(b"\x03");
                feed(state, value);
            }
            state.write(b"\x04");
        }
        other => {
            state.write(b"\x05");
            state.write(other.to_string().as_bytes());
        }
    }
}

/// The number of a revision; 0 when it has none.
pub(crate) fn number(object: &Value) -> i64 {
    object::annotation(object, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Numbers a ReplicaSet if the number is higher than its own, and copies the
/// Deployment's annotations.
pub(crate) fn annotate(deployment: &Value, set: &mut Set, revision: i64) {
    let before = object::annotation(&set.object, REVISION).map(str::to_owned);
    for (key, value) in object::texts(deployment, "/metadata/annotations") {
        if !NOT_COPIED.contains(&key) {
            object::set_annotation(&mut set.object, key, value);
        }
    }
    if number(&set.object) >= revision {
        return;
    }
    object::set_annotation(&mut set.object, REVISION, &revision.to_string());
    if let Some(before) = before.filter(|before| before != "0") {
        let history = object::annotation(&set.object, REVISION_HISTORY).unwrap_or_default();
        let history = match history {
            "" => before,
            history => extend_history(history, &before),
        };
        object::set_annotation(&mut set.object, REVISION_HISTORY, &history);
    }
}

fn extend_history(history: &str, number: &str) -> String {
    let mut numbers: Vec<&str> = history.split(',').collect();
    numbers.push(number);
    while numbers.iter().map(|n| n.len() + 1).sum::<usize>() > HISTORY_CHARS_MAX {
        numbers.remove(0);
    }
    numbers.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hashes_tell_templates_apart() {
        let base = json!({"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"x": [1]}});
        let name = hash(&base, None);
        assert!(name.len() >= 8 && name.bytes().all(|b| HASH_ALPHABET.contains(&b)), "{name}");
        for (other, equal) in [
            (json!({"spec": {"x": [1]}, "metadata": {"labels": {"c": "d", "a": "b"}}}), true),
            (
                json!({"spec": {"x": [1], "y": null}, "metadata": {"creationTimestamp": null,
                "labels": {"a": "b", "c": "d"}}}),
                true,
            ),
            (json!({"metadata": {"labels": {"a": "b", "c": "e"}}, "spec": {"x": [1]}}), false),
            (json!({"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"x": [1, 1]}}), false),
            (json!({"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"x": ["1"]}}), false),
        ] {
            assert_eq!(hash(&other, None) == name, equal, "{other}");
            assert_eq!(same_template(&other, &base), equal, "{other}");
        }
        assert_ne!(hash(&base, Some(1)), name);
        assert_ne!(hash(&base, Some(1)), hash(&base, Some(2)));
        let hashed = json!({"metadata": {"labels": {"a": "b", "c": "d", HASH_LABEL: "x"}}, "spec": {"x": [1]}});
        assert!(same_template(&base, &hashed));
    }

    #[test]
    fn numbers_only_grow() {
        let deployment = json!({"metadata": {"annotations": {"team": "a", REVISION: "9",
            "kubectl.kubernetes.io/last-applied-configuration": "{}"}}});
        let mut set = Set::new(json!({"metadata": {}}));
        for (revision, number, history) in [
            (1, "1", None),
            (1, "1", None),
            (3, "3", Some("1")),
            (2, "3", Some("1")),
            (5, "5", Some("1,3")),
        ] {
            annotate(&deployment, &mut set, revision);
            assert_eq!(object::annotation(&set.object, REVISION), Some(number));
            assert_eq!(object::annotation(&set.object, REVISION_HISTORY), history);
        }
        assert_eq!(object::annotation(&set.object, "team"), Some("a"));
        assert_eq!(
            object::annotation(&set.object, "kubectl.kubernetes.io/last-applied-configuration"),
            None
        );
    }
}
