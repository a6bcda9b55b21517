//! Patches: which of the four a body is, and what can be said of it before it meets an object.

use http::HeaderMap;
use serde_json::Value;

use super::{body, json};
use crate::{
    Status,
    go::{self, JsonType},
    registry::{FieldValidation, Patch},
};

/// The forms of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    /// By the content type, of which upstream reads only what is in front of a semicolon.
    pub(crate) fn of(headers: &HeaderMap) -> Result<PatchType, Status> {
        let text = body::content_type(headers);
        match text.split(';').next().unwrap_or_default() {
            "application/json-patch+json" => Ok(PatchType::Json),
            "application/merge-patch+json" => Ok(PatchType::Merge),
            "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
            "application/apply-patch+yaml" => Ok(PatchType::Apply),
            // Upstream does not say which types it takes; neither do we.
            _ => Err(Status {
                details: Some(Box::default()),
                ..Status::unsupported_media_type("415: Unsupported Media Type")
            }),
        }
    }

    /// The patch in a body, and what a strict reader has against it.
    pub(crate) fn read(
        self,
        body: &[u8],
        validation: FieldValidation,
    ) -> Result<(Patch, Vec<String>), Status> {
        match self {
            PatchType::Json => {
                let (operations, mut faults) = json::parse(body).map_err(|why| undecoded(&why))?;
                // Upstream reads the operations twice, and types only for those who want to hear
                // of faults.
                if validation == FieldValidation::Ignore {
                    return Ok((Patch::Json(operations), Vec::new()));
                }
                faults.extend(check_operations(&operations).map_err(|why| undecoded(&why))?);
                let faults = faults.iter().map(|fault| format!("json patch {fault}")).collect();
                Ok((Patch::Json(operations), faults))
            }
            PatchType::Merge => {
                let (patch, twice) = json::parse(body)
                    .and_then(|(patch, twice)| Ok((map(patch)?, twice)))
                    .map_err(|why| undecoded(&why))?;
                if patch.is_null() {
                    return Err(Status::bad_request("Invalid JSON Patch"));
                }
                Ok((Patch::Merge(patch), twice))
            }
            PatchType::Strategic => {
                let (patch, twice) = json::parse(body)
                    .and_then(|(patch, twice)| Ok((map(patch)?, twice)))
                    .map_err(Status::bad_request)?;
                Ok((Patch::Strategic(patch), twice))
            }
            PatchType::Apply => {
                let refuse = |step: &str, why: String| {
                    Status::bad_request(format!("error decoding YAML: {step}: {why}"))
                };
                let patch =
                    body::yaml(body).map_err(|why| refuse("error converting YAML to JSON", why))?;
                let decoding = "error unmarshaling JSON: while decoding JSON";
                let patch = map(patch).map_err(|why| refuse(decoding, why))?;
                Ok((Patch::Apply(patch), Vec::new()))
            }
        }
    }
}

fn undecoded(why: &str) -> Status {
    Status::bad_request(format!("error decoding patch: {why}"))
}

/// A map, or null, which Go reads as a map without members.
fn map(value: Value) -> Result<Value, String> {
    go::check_struct("map[string]interface {}", &[], &value).map(|()| value)
}

/// Looks at the types of the operations of a JSON patch. Returns the members that none has.
fn check_operations(patch: &Value) -> Result<Vec<String>, String> {
    const FIELDS: [(&str, JsonType); 3] =
        [("op", JsonType::String), ("path", JsonType::String), ("from", JsonType::String)];
    let operations = match patch {
        Value::Null => return Ok(Vec::new()),
        Value::Array(operations) => operations,
        other => {
            let found = go::name_of(other);
            return Err(format!(
                "json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp"
            ));
        }
    };
    let mut unknown = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        go::check_struct("handlers.jsonPatchOp", &FIELDS, operation)?;
        for name in operation.as_object().into_iter().flat_map(|members| members.keys()) {
            if name != "value" && !FIELDS.iter().any(|(field, _)| field == name) {
                unknown.push(format!("unknown field \"[{index}].{name}\""));
            }
        }
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use serde_json::json;

    use super::*;

    #[test]
    fn types() {
        for (text, expected) in [
            ("application/merge-patch+json; charset=utf-8", Some(PatchType::Merge)),
            ("application/json-patch+json", Some(PatchType::Json)),
            ("Application/Merge-Patch+JSON", None),
            ("application/merge-patch+json ;", None),
            ("application/json", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, text.parse().unwrap())]);
            assert_eq!(PatchType::of(&headers).ok(), expected, "{text}");
        }
    }

    #[test]
    fn faults_are_told_as_upstream_tells_them() {
        let op = "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string";
        for (kind, body, expected) in [
            (PatchType::Json, "", "error decoding patch: unexpected end of JSON input".to_owned()),
            (PatchType::Json, r#""x""#, {
                "error decoding patch: json: cannot unmarshal string into Go value of type \
                 []handlers.jsonPatchOp"
                    .to_owned()
            }),
            (PatchType::Json, "[1]", {
                "error decoding patch: json: cannot unmarshal number into Go value of type \
                 handlers.jsonPatchOp"
                    .to_owned()
            }),
            (PatchType::Json, r#"[{"op":1}]"#, format!("error decoding patch: {op}")),
            (PatchType::Merge, "null", "Invalid JSON Patch".to_owned()),
            (PatchType::Merge, "[]", {
                "error decoding patch: json: cannot unmarshal array into Go value of type \
                 map[string]interface {}"
                    .to_owned()
            }),
            (PatchType::Strategic, r#"{"spec":"#, "unexpected end of JSON input".to_owned()),
            (PatchType::Apply, "[]", {
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot \
                 unmarshal array into Go value of type map[string]interface {}"
                    .to_owned()
            }),
        ] {
            let refused = kind.read(body.as_bytes(), FieldValidation::Warn).unwrap_err();
            assert_eq!((refused.code, refused.message), (400, expected));
        }
    }

    #[test]
    fn what_is_null_changes_nothing() {
        let read = |kind: PatchType| kind.read(b"null", FieldValidation::Warn).unwrap().0;
        assert_eq!(read(PatchType::Json), Patch::Json(Value::Null));
        assert_eq!(read(PatchType::Strategic), Patch::Strategic(Value::Null));
    }

    #[test]
    fn members_that_no_operation_has_are_told() {
        let patch = json!([{"op": "remove", "path": "/a", "frob": 1}]).to_string();
        let read = |validation| PatchType::Json.read(patch.as_bytes(), validation).unwrap().1;
        assert_eq!(read(FieldValidation::Warn), ["json patch unknown field \"[0].frob\""]);
        assert!(read(FieldValidation::Ignore).is_empty());
    }
}
