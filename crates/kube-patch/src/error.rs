//! What can be wrong with a patch, in the terms of a Kubernetes `Status`.
//!
//! Every error knows the HTTP code and the `reason` word under which a Kubernetes API server
//! answers it, and the `details.causes` to list. The server that uses this crate copies them into
//! its own `Status`; nothing here formats a response.
//!
//! The split follows k8s.io/apiserver `pkg/endpoints/handlers/patch.go`: a body that is no patch
//! at all is 400, a well-formed patch that does not fit the object is 422, too many operations are
//! 413, and what the API server does not foresee is 500 without a reason, although the fault is the
//! client's: a missing merge key, an unknown `$patch` word, an order list that contradicts the patch.

use serde_json::Value;

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch, or the document, is of the wrong JSON type altogether.
    #[error("error decoding patch: expected {expected}, found {found}")]
    WrongType {
        /// What was needed, for instance `an array of operations`.
        expected: &'static str,
        /// The JSON type that was found.
        found: &'static str,
    },
    /// A JSON patch with more operations than [`crate::MAX_JSON_PATCH_OPERATIONS`].
    #[error("The allowed maximum operations in a JSON patch is {max}, got {got}")]
    TooManyOperations {
        /// The limit.
        max: usize,
        /// The number in the patch.
        got: usize,
    },
    /// A `test` operation of a JSON patch found another value.
    #[error("testing value {path} failed: test failed")]
    TestFailed {
        /// JSON pointer of the tested value.
        path: String,
        /// Place of the operation in the patch, from 0.
        operation: usize,
    },
    /// An operation of a JSON patch is malformed or does not fit the document.
    #[error("{message}")]
    Operation {
        /// JSON pointer of the operation (empty when it has none).
        path: String,
        /// Place of the operation in the patch, from 0.
        operation: usize,
        /// What is wrong, as a sentence.
        message: String,
    },
    /// The `copy` operations of one JSON patch copy more than [`crate::MAX_JSON_PATCH_COPY_BYTES`].
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {bytes}, \
         exceeding the limit {max}"
    )]
    CopyTooLarge {
        /// The limit in bytes.
        max: usize,
        /// Bytes copied up to and including the refused operation.
        bytes: usize,
    },
    /// `$deleteFromPrimitiveList` without a field name.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// `$retainKeys` is not a list of names, or the patch sets a key that the list lacks.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` without a field name, or not a list.
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    /// Lists directly inside merging lists have no identity to merge by.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// The elements of a merging list are not all of one JSON type.
    #[error("list element types are not identical: {}", go_print(lists))]
    MixedList {
        /// The live list and that of the patch.
        lists: Value,
    },
    /// A field that holds a list holds something else, or the reverse.
    #[error("expected a {expected}, but received a {found}")]
    FieldType {
        /// What was needed, as a Go type.
        expected: &'static str,
        /// What was found, as a Go type.
        found: &'static str,
    },
    /// An element of a merging list lacks the key by which elements are matched.
    #[error("map: {} does not contain declared merge key: {key}", go_print(element))]
    NoMergeKey {
        /// The merge key.
        key: String,
        /// The element.
        element: Value,
    },
    /// A list of objects is to be merged, but nothing tells by which key.
    #[error("cannot merge lists without merge key for {field}")]
    NoKeyDeclared {
        /// Name of the list's field.
        field: String,
    },
    /// The word of a `$patch` directive is unknown at that place.
    #[error("unknown patch type: {} in map: {}", go_text(map.get("$patch").unwrap_or(&Value::Null)), go_print(map))]
    UnknownDirective {
        /// The map that has it.
        map: Value,
    },
    /// `$setElementOrder/FIELD` and the patch list disagree.
    #[error("The order in patch list of {field} doesn't match $setElementOrder/{field}")]
    OrderMismatch {
        /// Name of the list's field.
        field: String,
    },
}

/// One entry for `details.causes` of a Kubernetes `Status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable word, for instance `FieldValueInvalid`.
    pub reason: &'static str,
    /// Path of the field that the cause is about.
    pub field: String,
    /// Text for people.
    pub message: String,
}

impl PatchError {
    /// The HTTP status under which an API server answers this error: 400, 413, 422, or 500 for what
    /// upstream did not foresee.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::WrongType { .. }
            | Self::PrimitiveList
            | Self::RetainKeys
            | Self::SetElementOrder => 400,
            Self::TooManyOperations { .. } => 413,
            Self::MixedList { .. }
            | Self::FieldType { .. }
            | Self::NoMergeKey { .. }
            | Self::NoKeyDeclared { .. }
            | Self::UnknownDirective { .. }
            | Self::OrderMismatch { .. } => 500,
            _ => 422,
        }
    }

    /// The `reason` word of the `Status`: `BadRequest`, `RequestEntityTooLarge`, `Invalid`, or none.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.code() {
            400 => "BadRequest",
            413 => "RequestEntityTooLarge",
            500 => "",
            _ => "Invalid",
        }
    }

    /// The `details.causes` of the `Status`; empty where only the message counts.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        if self.code() != 422 {
            return Vec::new();
        }
        let field = match self {
            Self::TestFailed { path, .. } | Self::Operation { path, .. } => path.clone(),
            _ => "patch".to_owned(),
        };
        vec![Cause { reason: "FieldValueInvalid", field, message: self.to_string() }]
    }
}

/// A value as Go prints it (`%v` of what its JSON decoder makes).
pub fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_print).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}:{}", go_print(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// A value as Go prints it where it expects a text (`%s`).
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "%!s(<nil>)".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("%!s({}={value})", go_type(value)),
        other => go_print(other),
    }
}

/// The Go type that a JSON value has once it is decoded.
#[must_use]
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The JSON type of a value, in the words used by the messages above.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
