//! What informers keep of an object.
//!
//! A parsed Pod takes ten times the bytes that it was parsed from, and nobody
//! here reads most of them. So an object is cut while it is parsed: what is not
//! kept is skipped in the text and never becomes a value. Maps and lists get
//! exactly the room that they need.
//!
//! * `metadata.managedFields` is kept of no kind, as with client-go's
//!   `TransformStripManagedFields`: an update that leaves it out changes nothing
//!   of it, so that such an object may be edited and written back.
//! * Of some kinds only what is read is kept. Such an object must not be written
//!   back: whoever changes one sends a patch ([`is_whole`]).
//!
//! Whoever reads a field of a Pod that was not read before adds it to [`POD`].

use std::{borrow::Cow, fmt};

use portolan_apiserver::{Kind, kinds};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{controllers::DELETION_COST_ANNOTATION, object};

/// What is kept of a value. Lists are looked through: it holds for each item.
enum Keep {
    Nothing,
    All,
    /// These members; items of a list that have none of them are left out.
    Only(Members),
    /// These members as they say, all others whole.
    AllBut(Members),
}

type Members = &'static [(&'static str, Keep)];

static WHOLE: Keep =
    Keep::AllBut(&[("metadata", Keep::AllBut(&[("managedFields", Keep::Nothing)]))]);

/// For kinds of which everybody looks at the metadata only.
static METADATA: Keep = Keep::Only(&[
    ("apiVersion", Keep::All),
    ("kind", Keep::All),
    ("metadata", Keep::AllBut(&[("managedFields", Keep::Nothing)])),
]);

const CONTAINER: Keep = Keep::Only(&[("ports", Keep::All)]);

static POD: Keep = Keep::Only(&[
    ("apiVersion", Keep::All),
    ("kind", Keep::All),
    (
        "metadata",
        Keep::Only(&[
            ("name", Keep::All),
            ("namespace", Keep::All),
            ("uid", Keep::All),
            ("resourceVersion", Keep::All),
            ("creationTimestamp", Keep::All),
            ("deletionTimestamp", Keep::All),
            ("labels", Keep::All),
            ("annotations", Keep::Only(&[(DELETION_COST_ANNOTATION, Keep::All)])),
            ("ownerReferences", Keep::All),
            ("finalizers", Keep::All),
        ]),
    ),
    (
        "spec",
        Keep::Only(&[
            ("nodeName", Keep::All),
            ("hostname", Keep::All),
            ("subdomain", Keep::All),
            ("containers", CONTAINER),
            ("initContainers", Keep::Only(&[("ports", Keep::All), ("restartPolicy", Keep::All)])),
            // Up to here of all Pods; the rest while they wait for a Node.
            ("schedulerName", Keep::All),
            ("schedulingGates", Keep::All),
            ("nodeSelector", Keep::All),
            ("affinity", Keep::All),
            ("tolerations", Keep::All),
        ]),
    ),
    (
        "status",
        Keep::Only(&[
            ("phase", Keep::All),
            ("podIP", Keep::All),
            ("podIPs", Keep::All),
            ("conditions", Keep::All),
            ("containerStatuses", Keep::Only(&[("restartCount", Keep::All)])),
        ]),
    ),
]);

/// What matters in the spec of a Pod until it is bound.
const UNTIL_BOUND: [&str; 5] =
    ["schedulerName", "schedulingGates", "nodeSelector", "affinity", "tolerations"];

fn keep(kind: &Kind) -> &'static Keep {
    match kind {
        kind if *kind == kinds::PODS => &POD,
        kind if *kind == kinds::SECRETS => &METADATA,
        _ => &WHOLE,
    }
}

/// Whether an object of this kind, as informers have it, may be edited and written back.
pub(crate) fn is_whole(kind: &Kind) -> bool {
    matches!(keep(kind), Keep::AllBut(_))
}

/// Reads what is kept of an object of a kind.
pub(crate) fn read(kind: &Kind, text: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let mut value = Reader(keep(kind)).deserialize(&mut reader)?;
    reader.end()?;
    if *kind == kinds::PODS && !object::text(&value, "/spec/nodeName").is_empty() {
        forget(&mut value, "spec", &UNTIL_BOUND);
    }
    Ok(value)
}

/// Takes members out of a map in an object.
fn forget(object: &mut Value, map: &str, members: &[&str]) {
    if let Some(Value::Object(map)) = object.get_mut(map) {
        let left = std::mem::take(map).into_iter();
        *map = exactly(left.filter(|(name, _)| !members.contains(&&**name)).collect());
    }
}

/// A map without spare room.
fn exactly(members: Vec<(String, Value)>) -> Map<String, Value> {
    let mut map = Map::with_capacity(members.len());
    map.extend(members);
    map
}

impl Keep {
    fn of(&self, member: &str) -> &Keep {
        let find = |members: Members| members.iter().find(|(name, _)| *name == member);
        match self {
            Keep::Nothing => &Keep::Nothing,
            Keep::All => &Keep::All,
            Keep::Only(members) => find(members).map_or(&Keep::Nothing, |(_, keep)| keep),
            Keep::AllBut(members) => find(members).map_or(&Keep::All, |(_, keep)| keep),
        }
    }
}

/// Makes a value of what is kept.
struct Reader<'k>(&'k Keep);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Reader(self.0))? {
            let nothing_left =
                matches!(self.0, Keep::Only(_)) && item.as_object().is_some_and(Map::is_empty);
            if !nothing_left {
                list.push(item);
            }
        }
        list.shrink_to_fit();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(name) = members.next_key_seed(Name)? {
            match self.0.of(&name) {
                Keep::Nothing => drop(members.next_value::<IgnoredAny>()?),
                keep => kept.push((name.into_owned(), members.next_value_seed(Reader(keep))?)),
            }
        }
        Ok(Value::Object(exactly(kept)))
    }
}

/// The name of a member; copied only where the text has escapes in it.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: &Kind, object: &Value, expected: &Value) {
        assert_eq!(read(kind, object.to_string().as_bytes()).unwrap(), *expected, "{object}");
    }

    #[test]
    fn only_the_record_of_field_owners_is_left_out_of_most_kinds() {
        let mut service = json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "web", "x": null, "managedFields": [{"manager": "kubectl"}]},
            "spec": {"ports": [{}, {"port": 80}], "y": [1.5, -3, true, "\u{e9}\"\n"]},
            "managedFields": {"of": "no meaning here"},
        });
        let mut expected = service.clone();
        expected["metadata"].as_object_mut().unwrap().shift_remove("managedFields");
        check(&kinds::SERVICES, &service, &expected);
        service["kind"] = "Secret".into();
        let metadata =
            json!({"kind": "Secret", "apiVersion": "v1", "metadata": expected["metadata"]});
        check(&kinds::SECRETS, &service, &metadata);
    }

    #[test]
    fn of_pods_what_is_read_is_kept() {
        let ports = json!([{"name": "http", "containerPort": 80}]);
        let mut pod = json!({
            "metadata": {"name": "a", "labels": {"app": "web"}, "managedFields": [],
                "annotations": {DELETION_COST_ANNOTATION: "3", "other": "x"}},
            "spec": {
                "containers": [{"name": "a"}, {"name": "b", "image": "i", "ports": ports}],
                "initContainers": [{"name": "c", "restartPolicy": "Always"}],
                "tolerations": [{"operator": "Exists"}],
                "volumes": [{"name": "v"}],
            },
            "status": {"phase": "Running", "qosClass": "Burstable",
                "containerStatuses": [{"name": "a", "restartCount": 2}]},
        });
        let mut expected = json!({
            "metadata": {"name": "a", "labels": {"app": "web"},
                "annotations": {DELETION_COST_ANNOTATION: "3"}},
            "spec": {
                "containers": [{"ports": ports}],
                "initContainers": [{"restartPolicy": "Always"}],
                "tolerations": [{"operator": "Exists"}],
            },
            "status": {"phase": "Running", "containerStatuses": [{"restartCount": 2}]},
        });
        check(&kinds::PODS, &pod, &expected);
        // Once it has a Node, nobody asks again which ones it tolerates.
        pod["spec"]["nodeName"] = "n".into();
        expected["spec"]["nodeName"] = "n".into();
        expected["spec"].as_object_mut().unwrap().shift_remove("tolerations");
        check(&kinds::PODS, &pod, &expected);
    }

    #[test]
    fn what_was_cut_is_not_written_back() {
        for kind in kinds::ALL {
            let cut = **kind == kinds::PODS || **kind == kinds::SECRETS;
            assert_eq!(is_whole(kind), !cut, "{kind:?}");
        }
    }

    #[test]
    fn odd_texts() {
        for text in ["3", "[]", "{}", "null", r#"{"metadata":3,"spec":[{"nodeName":"n"}]}"#] {
            read(&kinds::PODS, text.as_bytes()).expect(text);
        }
        for text in ["", "{", "{}x", r#"{"spec":{"a":}}"#] {
            assert!(read(&kinds::PODS, text.as_bytes()).is_err(), "{text}");
        }
    }
}
