//! Wrong JSON types, refused in the words of the Go decoder.

use serde_json::Value;

use super::super::data::{Scalar, Shape, StructId, types};
use super::text;
use crate::{go, kinds::Kind};

/// Whether every field holds a value of its type. The error is the decoder's:
/// `json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32`.
pub fn check(kind: &Kind, object: &Value) -> Result<(), String> {
    check_as(kind.api_version, kind.kind, object)
}

/// As [`check`], for types that have no [`Kind`].
pub fn check_as(api_version: &str, kind: &str, object: &Value) -> Result<(), String> {
    let Some(root) = types().root(api_version, kind) else { return Ok(()) };
    Place { owner: None, path: Vec::new() }.check(&Shape::Struct(root), object)
}

/// Where the walk is: Go's `errorContext`. It knows fields only, neither indices nor map keys.
struct Place<'v> {
    owner: Option<StructId>,
    path: Vec<&'v str>,
}

impl<'v> Place<'v> {
    fn check(&mut self, shape: &Shape, value: &'v Value) -> Result<(), String> {
        match (shape, value) {
            // Null leaves a Go value as it was.
            (_, Value::Null) | (Shape::Any, _) => Ok(()),
            (Shape::Struct(id), Value::Object(fields)) => {
                let outer = self.owner.replace(*id);
                for (name, value) in fields {
                    if let Some(member) = types().get(*id).member(name) {
                        self.path.push(name);
                        self.check(&member.shape, value)?;
                        self.path.pop();
                    }
                }
                self.owner = outer;
                Ok(())
            }
            (Shape::List(shape) | Shape::NamedList(shape, _), Value::Array(items)) => {
                items.iter().try_for_each(|item| self.check(shape, item))
            }
            (Shape::Map(shape, _), Value::Object(entries)) => {
                entries.values().try_for_each(|entry| self.check(shape, entry))
            }
            (Shape::Scalar(scalar, _), value) => match scalar_fault(*scalar, value) {
                None => Ok(()),
                Some(Fault::Type(found)) => Err(self.mismatch(&found, &types().go_type(shape))),
                Some(Fault::Text(reason)) => Err(reason),
            },
            (Shape::Quantity, value) => text::quantity(value),
            (Shape::IntOrString, Value::String(_)) => Ok(()),
            (Shape::IntOrString, value) => match scalar_fault(Scalar::Int32, value) {
                Some(Fault::Type(found)) => Err(self.mismatch(&found, "int32")),
                _ => Ok(()),
            },
            (Shape::Time, Value::String(text)) => text::time(text),
            (Shape::MicroTime, Value::String(text)) => text::micro_time(text),
            (Shape::Time | Shape::MicroTime, value) => {
                Err(self.mismatch(go::name_of(value), "string"))
            }
            (Shape::Struct(_) | Shape::List(_) | Shape::NamedList(..) | Shape::Map(..), value) => {
                Err(self.mismatch(go::name_of(value), &types().go_type(shape)))
            }
        }
    }

    fn mismatch(&self, found: &str, expected: &str) -> String {
        match self.owner {
            Some(owner) => format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {expected}",
                types().get(owner).short_name(),
                self.path.join(".")
            ),
            None => format!("json: cannot unmarshal {found} into Go value of type {expected}"),
        }
    }
}

enum Fault {
    /// Another JSON type; for numbers that do not fit, with the number.
    Type(String),
    /// The right type with a text that does not read.
    Text(String),
}

fn scalar_fault(scalar: Scalar, value: &Value) -> Option<Fault> {
    let fits = match (scalar, value) {
        (Scalar::String, Value::String(_)) | (Scalar::Bool, Value::Bool(_)) => true,
        (Scalar::Bytes, Value::String(text)) => {
            return text::base64_fault(text).map(Fault::Text);
        }
        (Scalar::Int32 | Scalar::Int64, Value::Number(number)) => {
            let number_fits = number
                .as_i64()
                .is_some_and(|n| scalar == Scalar::Int64 || i32::try_from(n).is_ok());
            if !number_fits {
                return Some(Fault::Type(format!("number {number}")));
            }
            true
        }
        _ => false,
    };
    (!fits).then(|| Fault::Type(go::name_of(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    #[track_caller]
    fn refused(kind: &Kind, object: Value, expected: &str) {
        assert_eq!(check(kind, &object), Err(expected.to_owned()));
    }

    #[test]
    fn wrong_types_are_named_as_go_names_them() {
        for (object, expected) in [
            (
                json!({"spec": {"ports": [{"port": "x"}]}}),
                "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of \
                 type int32",
            ),
            (
                json!({"spec": {"ports": [{"port": 4294967296_u64}]}}),
                "json: cannot unmarshal number 4294967296 into Go struct field \
                 ServicePort.spec.ports.port of type int32",
            ),
            (
                json!({"spec": {"ports": [{"port": 1.5}]}}),
                "json: cannot unmarshal number 1.5 into Go struct field \
                 ServicePort.spec.ports.port of type int32",
            ),
            (
                json!({"spec": {"ports": [{"targetPort": true}]}}),
                "json: cannot unmarshal bool into Go struct field \
                 ServicePort.spec.ports.targetPort of type int32",
            ),
            (
                json!({"spec": {"ports": [1]}}),
                "json: cannot unmarshal number into Go struct field ServiceSpec.spec.ports of type \
                 v1.ServicePort",
            ),
            (
                json!({"spec": {"ports": {}}}),
                "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type \
                 []v1.ServicePort",
            ),
            (
                json!({"spec": {"type": 1}}),
                "json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type \
                 v1.ServiceType",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of \
                 type string",
            ),
            (
                json!({"metadata": {"labels": []}}),
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of \
                 type map[string]string",
            ),
            (
                json!({"spec": "x"}),
                "json: cannot unmarshal string into Go struct field Service.spec of type \
                 v1.ServiceSpec",
            ),
            (json!([]), "json: cannot unmarshal array into Go value of type v1.Service"),
        ] {
            refused(&kinds::SERVICES, object, expected);
        }
    }

    #[test]
    fn texts_that_do_not_read() {
        refused(
            &kinds::SECRETS,
            json!({"data": {"a": "=x"}}),
            "illegal base64 data at input byte 0",
        );
        refused(
            &kinds::SECRETS,
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field Secret.data of type []uint8",
        );
        refused(
            &kinds::PODS,
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}),
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
        refused(
            &kinds::PODS,
            json!({"metadata": {"deletionTimestamp": "soon"}}),
            "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \
             \"2006\"",
        );
        refused(
            &kinds::LEASES,
            json!({"spec": {"renewTime": "2024-01-02T03:04:05Z"}}),
            "parsing time \"2024-01-02T03:04:05Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot \
             parse \"Z\" as \".000000\"",
        );
    }

    #[test]
    fn right_types_pass() {
        for (kind, object) in [
            (&kinds::SERVICES, json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}})),
            (&kinds::SERVICES, json!({"spec": null, "status": {"loadBalancer": {}}, "x": 1})),
            (&kinds::SECRETS, json!({"data": {"a": "aGk=", "b": ""}})),
            (&kinds::LEASES, json!({"spec": {"renewTime": "2024-01-02T03:04:05.000001Z"}})),
            (
                &kinds::PODS,
                json!({
                    "metadata": {"creationTimestamp": "2024-01-02T03:04:05.5+01:00"},
                    "spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]},
                }),
            ),
            (&kinds::CONTROLLER_REVISIONS, json!({"data": [1, {"any": "thing"}]})),
        ] {
            assert_eq!(check(kind, &object), Ok(()));
        }
    }
}
