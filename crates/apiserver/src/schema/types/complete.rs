//! What Go's structs write although nobody set it: fields without `omitempty`, structs that are no
//! pointers, and times, whose zero is null. Amounts of resources lose what is finer than a
//! thousandth, which upstream does for all of them as well.

use serde_json::{Map, Value};

use super::super::{
    data::{Scalar, Shape, StructId, types},
    quantity::Quantity,
};
use crate::kinds::Kind;

/// Adds what a typed server would have written beside what is there.
pub fn complete(kind: &Kind, object: &mut Value) {
    if let (Some(root), Value::Object(fields)) = (types().root(kind.api_version, kind.kind), object)
    {
        complete_struct(root, fields);
    }
}

fn complete_struct(id: StructId, fields: &mut Map<String, Value>) {
    let known = types().get(id);
    let mut missing: Vec<_> = known
        .always()
        .filter(|(name, member)| {
            let zero_is_null = zero(&member.shape).is_null();
            // What holds nothing is nothing once it has been stored.
            fields.get(*name).is_none_or(|value| match value {
                Value::Null => !zero_is_null,
                Value::Array(items) => zero_is_null && items.is_empty(),
                _ => false,
            })
        })
        .collect();
    // By number, so that two objects get them in one order.
    missing.sort_unstable_by_key(|(_, member)| member.number);
    for (name, member) in missing {
        fields.insert(name.to_owned(), zero(&member.shape));
    }
    for (name, value) in fields.iter_mut() {
        if let Some(member) = known.member(name) {
            complete_value(&member.shape, value);
        }
    }
}

fn complete_value(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(fields)) => complete_struct(*id, fields),
        (Shape::List(shape), Value::Array(items)) => {
            items.iter_mut().for_each(|item| complete_value(shape, item));
        }
        (Shape::Map(shape, _), Value::Object(entries)) if matches!(**shape, Shape::Quantity) => {
            for entry in entries.values_mut() {
                // `SetDefaults_ResourceList`
                if let Some(quantity) = Quantity::from_value(entry) {
                    *entry = quantity.round_up_to_milli().to_string().into();
                }
            }
        }
        (Shape::Map(shape, _), Value::Object(entries)) => {
            entries.values_mut().for_each(|entry| complete_value(shape, entry));
        }
        _ => {}
    }
}

/// How Go writes the zero value of a type.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Scalar(Scalar::String, _) => "".into(),
        Shape::Scalar(Scalar::Bool, _) => false.into(),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64, _) | Shape::IntOrString => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Struct(_) => Value::Object(Map::new()),
        Shape::Scalar(Scalar::Bytes, _)
        | Shape::Time
        | Shape::MicroTime
        | Shape::Any
        | Shape::List(_)
        | Shape::NamedList(..)
        | Shape::Map(..) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    #[test]
    fn what_go_always_writes_is_added() {
        for (kind, mut object, expected) in [
            (
                &kinds::NODES,
                json!({"metadata": {"creationTimestamp": "2024-01-02T03:04:05Z"}}),
                json!({"metadata": {"creationTimestamp": "2024-01-02T03:04:05Z"}, "spec": {},
                    "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
                    "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "",
                        "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "",
                        "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "",
                        "architecture": ""}}}),
            ),
            (
                &kinds::PODS,
                json!({"metadata": null, "spec": {"containers": [{"name": "a"}]},
                    "status": {"conditions": [{"type": "Ready"}]}}),
                json!({"metadata": {"creationTimestamp": null},
                    "spec": {"containers": [{"name": "a", "resources": {}}]},
                    "status": {"conditions": [{"type": "Ready", "status": "",
                        "lastProbeTime": null, "lastTransitionTime": null}]}}),
            ),
        ] {
            complete(kind, &mut object);
            assert_eq!(object, expected);
        }
    }
}
