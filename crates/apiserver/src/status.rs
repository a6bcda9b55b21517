//! `Status`: the one shape of every refusal (and of a few successes).
//!
//! Clients act on `reason` and `code` (kubectl prints by reason, informers
//! relist on `Expired`), people read `message`, and `details.causes` names the
//! fields. Rooms build a [`Status`] through the constructors here so that the
//! texts equal those of apimachinery's `pkg/api/errors` and
//! `pkg/util/validation/field`.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::{go, kinds::Kind};

/// A refusal, as the API reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// CamelCase reason of `metav1.StatusReason`; empty where upstream knows none and says 500.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// What it is about; boxed because most callers only pass it on.
    pub details: Option<Box<Details>>,
    /// What the client should hear besides; sent as `Warning` headers, no part of the body.
    pub warnings: Vec<String>,
}

/// What a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Object name.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource name, or the kind for validation errors (as upstream does).
    pub kind: String,
    /// Object uid.
    pub uid: String,
    /// One entry per field or per conflict.
    pub causes: Vec<Cause>,
    /// Seconds after which a retry is worth it.
    pub retry_after_seconds: Option<u32>,
    /// Where a list may go on although its revision is gone; shown in the metadata.
    pub continue_token: String,
}

/// One reason among several, usually about one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// `metav1.CauseType`.
    pub reason: &'static str,
    /// Text without the field: `Required value: ...`.
    pub message: String,
    /// Path of the field: `spec.ports[0].port`.
    pub field: String,
}

/// How a rejected value is quoted: strings in quotes, numbers bare, the rest as JSON.
fn quote(value: &Value) -> String {
    match value {
        Value::String(text) => go::quote(text),
        other => other.to_string(),
    }
}

impl Cause {
    fn new(reason: &'static str, field: impl Into<String>, message: String) -> Cause {
        Cause { reason, message, field: field.into() }
    }

    /// A field that must be there is not. `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        let message = if detail.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {detail}")
        };
        Cause::new("FieldValueRequired", field, message)
    }

    /// A value that breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause::new("FieldValueInvalid", field, format!("Invalid value: {}: {detail}", quote(value)))
    }

    /// A value outside a closed set.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Cause {
        let listed = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        Cause::new(
            "FieldValueNotSupported",
            field,
            format!("Unsupported value: {}: supported values: {listed}", quote(value)),
        )
    }

    /// A value that occurs twice where it may occur once.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Cause::new("FieldValueDuplicate", field, format!("Duplicate value: {}", quote(value)))
    }

    /// A field that may not be set, or may not change.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        Cause::new("FieldValueForbidden", field, format!("Forbidden: {detail}"))
    }

    /// A value that refers to something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Cause {
        Cause::new("FieldValueNotFound", field, format!("Not found: {}", quote(value)))
    }

    /// A value longer than allowed.
    pub fn too_long(field: impl Into<String>, max_bytes: usize) -> Cause {
        Cause::new(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {max_bytes} bytes"),
        )
    }

    /// A list with more entries than allowed.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Cause {
        Cause::new(
            "FieldValueTooMany",
            field,
            format!("Too many: {actual}: must have at most {max} items"),
        )
    }

    /// A value of the wrong JSON type.
    pub fn wrong_type(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause::new(
            "FieldValueTypeInvalid",
            field,
            format!("Invalid value: {}: {detail}", quote(value)),
        )
    }

    fn to_value(&self) -> Value {
        let mut cause = Map::new();
        cause.insert("reason".into(), self.reason.into());
        cause.insert("message".into(), self.message.as_str().into());
        if !self.field.is_empty() {
            cause.insert("field".into(), self.field.as_str().into());
        }
        Value::Object(cause)
    }
}

impl Details {
    /// About one object of a kind, named by its resource.
    pub fn of(kind: &Kind, name: &str) -> Details {
        Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.plural.to_owned(),
            ..Details::default()
        }
    }

    fn to_value(&self) -> Value {
        let mut details = Map::new();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                details.insert(key.into(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        Value::Object(details)
    }
}

impl Status {
    /// A refusal without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: None, warnings: Vec::new() }
    }

    /// 500 without a reason: how upstream answers an error that it did not foresee, whoever is
    /// to blame for it.
    pub fn unforeseen(message: impl Into<String>) -> Status {
        Status::new(500, "", message)
    }

    /// The same refusal with warnings.
    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Status {
        self.warnings.extend(warnings);
        self
    }

    fn about(mut self, details: Details) -> Status {
        self.details = Some(Box::new(details));
        self
    }

    /// 404 for an object.
    pub fn not_found(kind: &Kind, name: &str) -> Status {
        let quoted = go::quote(name);
        Status::new(404, "NotFound", format!("{} {quoted} not found", kind.group_resource()))
            .about(Details::of(kind, name))
    }

    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Status {
        Status::new(404, "NotFound", "the server could not find the requested resource")
            .about(Details::default())
    }

    /// 409: the name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Status {
        Status::new(
            409,
            "AlreadyExists",
            format!("{} {} already exists", kind.group_resource(), go::quote(name)),
        )
        .about(Details::of(kind, name))
    }

    /// 409: the object changed since it was read, or a precondition does not hold.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Status {
        Status::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} {}: {why}",
                kind.group_resource(),
                go::quote(name)
            ),
        )
        .about(Details::of(kind, name))
    }

    /// 409 about a part of an object, which upstream names with the resource.
    pub(crate) fn conflict_of_part(kind: &Kind, name: &str, part: &str, why: &str) -> Status {
        let resource = format!("{}/{part}", kind.plural);
        let group = if kind.group.is_empty() { "" } else { "." };
        let (group, quoted) = (format!("{group}{}", kind.group), go::quote(name));
        let message = format!("Operation cannot be fulfilled on {resource}{group} {quoted}: {why}");
        let details = Details { kind: resource, ..Details::of(kind, name) };
        Status::new(409, "Conflict", message).about(details)
    }

    /// 409 of optimistic concurrency, in upstream's words.
    pub fn modified(kind: &Kind, name: &str) -> Status {
        Status::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and \
             try again",
        )
    }

    /// 409 of server-side apply: other managers own the fields.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Status {
        Status::new(409, "Conflict", message).about(Details { causes, ..Details::default() })
    }

    /// 422: the object breaks rules; nothing was stored.
    pub fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Status {
        let mut details = Details::of(kind, name);
        details.kind = kind.kind.to_owned();
        Status::invalid_as(&kind.group_kind(), name, details, causes)
    }

    /// 422 for what goes by this title.
    pub(crate) fn invalid_as(
        title: &str,
        name: &str,
        mut details: Details,
        causes: Vec<Cause>,
    ) -> Status {
        let mut texts: Vec<String> = causes
            .iter()
            .map(|c| match c.field.as_str() {
                "" => c.message.clone(),
                field => format!("{field}: {}", c.message),
            })
            .collect();
        // Upstream joins equal errors into one, but lists all of them as causes.
        let mut seen = std::collections::HashSet::new();
        texts.retain(|text| seen.insert(text.clone()));
        let joined = match texts.len() {
            1 => texts.remove(0),
            _ => format!("[{}]", texts.join(", ")),
        };
        details.causes = causes;
        Status::new(422, "Invalid", format!("{title} {} is invalid: {joined}", go::quote(name)))
            .about(details)
    }

    /// 422: the options of a request break rules; `kind` is `CreateOptions` and the like.
    pub fn invalid_options(kind: &str, causes: Vec<Cause>) -> Status {
        let details =
            Details { group: "meta.k8s.io".into(), kind: kind.to_owned(), ..Details::default() };
        Status::invalid_as(&format!("{kind}.meta.k8s.io"), "", details, causes)
    }

    /// 409: an object is not the one that a precondition of a delete names.
    pub fn precondition(kind: &Kind, name: &str, why: &str) -> Status {
        let mut details = Details::of(kind, name);
        // As upstream: its delete names the kind where other conflicts name the resource.
        details.kind = kind.kind.to_owned();
        let (title, quoted) = (kind.group_kind(), go::quote(name));
        let message = format!("Operation cannot be fulfilled on {title} {quoted}: {why}");
        Status::new(409, "Conflict", message).about(details)
    }

    /// 400: the request itself makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message)
    }

    /// 401: no identity, or one that does not hold any more.
    pub fn unauthorized() -> Status {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 for an action on a resource.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Status {
        let subject = if name.is_empty() {
            kind.group_resource()
        } else {
            format!("{} {}", kind.group_resource(), go::quote(name))
        };
        Status::new(403, "Forbidden", format!("{subject} is forbidden: {why}"))
            .about(Details::of(kind, name))
    }

    /// 405: the path exists, the verb does not.
    pub fn method_not_allowed() -> Status {
        Status::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .about(Details::default())
    }

    /// 406: no form that the client accepts.
    pub fn not_acceptable(message: impl Into<String>) -> Status {
        Status::new(406, "NotAcceptable", message).about(Details::default())
    }

    /// 410: the revision is older than the window of history.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message)
    }

    /// 413: the body or the object is too large.
    pub fn too_large(message: impl Into<String>) -> Status {
        Status::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: a body of a type that nothing here decodes.
    pub fn unsupported_media_type(message: impl Into<String>) -> Status {
        Status::new(415, "UnsupportedMediaType", message)
    }

    /// 429 with a time after which to come again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        Status::new(429, "TooManyRequests", message)
            .about(Details { retry_after_seconds: Some(retry_after_seconds), ..Details::default() })
    }

    /// 500: our fault.
    pub fn internal(message: impl fmt::Display) -> Status {
        Status::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 501: a part of the API that is not held.
    pub fn not_implemented(message: impl Into<String>) -> Status {
        Status::new(501, "NotImplemented", message)
    }

    /// 503: not now (starting, or shutting down).
    pub fn unavailable(message: impl Into<String>) -> Status {
        Status::new(503, "ServiceUnavailable", message)
    }

    /// 504 for a revision that does not exist yet; clients retry with `resourceVersion=""`.
    pub fn revision_too_large(asked: u64, current: u64) -> Status {
        Status::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        )
        .about(Details {
            causes: vec![Cause::new(
                "ResourceVersionTooLarge",
                "",
                "Too large resource version".into(),
            )],
            retry_after_seconds: Some(1),
            ..Details::default()
        })
    }

    /// Whether this says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    /// Whether this says that the name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// Whether a fresh read and another attempt may succeed.
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// As the API writes it.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            if !details.continue_token.is_empty() {
                status["metadata"]["continue"] = details.continue_token.as_str().into();
            }
            if details.continue_token.is_empty() {
                status["details"] = details.to_value();
            }
        }
        status["code"] = self.code.into();
        status
    }

    /// The Status that says a deletion was carried out.
    pub fn success(details: &Details) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details.to_value(),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn texts_equal_upstream() {
        let one = Status::invalid(&kinds::SERVICES, "web", vec![Cause::required("spec.ports", "")]);
        assert_eq!(one.message, r#"Service "web" is invalid: spec.ports: Required value"#);
        let two = Status::invalid(
            &kinds::DEPLOYMENTS,
            "web",
            vec![
                Cause::invalid("spec.replicas", &json!(-1), "must be greater than or equal to 0"),
                Cause::not_supported("spec.x", &json!("a"), &["b", "c"]),
            ],
        );
        assert_eq!(
            two.message,
            r#"Deployment.apps "web" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.x: Unsupported value: "a": supported values: "b", "c"]"#
        );
        assert_eq!(
            Status::not_found(&kinds::DEPLOYMENTS, "x").to_value(),
            json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
                "message":"deployments.apps \"x\" not found","reason":"NotFound",
                "details":{"name":"x","group":"apps","kind":"deployments"},"code":404})
        );
    }
}
