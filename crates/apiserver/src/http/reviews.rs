//! Kinds that are questions: a POST with the question, the answer in `status`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Service;
use crate::{
    Cause, Kind, Status,
    registry::{
        Caller, Decision, ISSUER,
        access::{self, Action},
        object,
    },
    status::Details,
};

/// Answers a review.
pub(crate) fn answer(
    service: &Service,
    caller: &Caller,
    kind: &'static Kind,
    namespace: &str,
    mut review: Value,
) -> Result<Value, Status> {
    let status = match kind.kind {
        "TokenReview" => token(service, &review)?,
        "SelfSubjectReview" => json!({"userInfo": user_info(caller)}),
        "SelfSubjectAccessReview" => {
            check_access(kind, namespace, &review)?;
            may(service, caller, &review)
        }
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            check_access(kind, namespace, &review)?;
            may(service, &subject(&review), &review)
        }
        "SelfSubjectRulesReview" => {
            if review.pointer("/spec/namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(Status::bad_request("no namespace on request"));
            }
            rules(service, caller, &review)
        }
        other => return Err(Status::internal(format!("no answer to {other}"))),
    };
    object::map_of(&mut review).insert("status".into(), status);
    Ok(review)
}

/// What is wrong with a question about access (`pkg/apis/authorization/validation`).
fn check_access(kind: &'static Kind, namespace: &str, review: &Value) -> Result<(), Status> {
    let spec = |key: &str| review.get("spec").and_then(|s| s.get(key)).filter(|v| !v.is_null());
    let (resource, path) = (spec("resourceAttributes"), spec("nonResourceAttributes"));
    let mut causes = Vec::new();
    match (resource, path) {
        (Some(_), Some(path)) => causes.push(Cause::invalid(
            "spec.nonResourceAttributes",
            path,
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => causes.push(Cause::invalid(
            "spec.resourceAttributes",
            &"null".into(),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let has = |key: &str| match spec(key) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        _ => false,
    };
    if kind.kind != "SelfSubjectAccessReview" && !has("user") && !has("groups") {
        let why = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &"".into(), why));
    }
    let metadata = object::metadata(review);
    let mut told = metadata.iter().filter(|(key, value)| {
        let is_place = kind.namespaced && *key == "namespace";
        *key != "managedFields" && !is_place && !value.is_null()
    });
    if told.next().is_some() {
        let except = if kind.namespaced { " except for namespace" } else { "" };
        let why = format!("must be empty{except}");
        causes.push(Cause::invalid("metadata", &Value::Object(metadata.clone()), &why));
    }
    if kind.namespaced {
        let asked =
            resource.map(|r| r.get("namespace").and_then(Value::as_str).unwrap_or_default());
        if let Some(asked) = asked.filter(|asked| *asked != namespace) {
            let field = "spec.resourceAttributes.namespace";
            causes.push(Cause::invalid(field, &asked.into(), "must match metadata.namespace"));
        }
        if let Some(path) = path {
            let why = "disallowed on this kind of request";
            causes.push(Cause::invalid("spec.nonResourceAttributes", path, why));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    // Upstream leaves the kind open, for nothing has told it.
    let details = Details { group: kind.group.into(), ..Details::default() };
    Err(Status::invalid_as(&format!(".{}", kind.group), "", details, causes))
}

fn user_info(caller: &Caller) -> Value {
    let mut user = json!({"username": &*caller.user, "groups": caller.groups.iter().map(|g| &**g).collect::<Vec<_>>()});
    if !caller.uid.is_empty() {
        user["uid"] = caller.uid.as_str().into();
    }
    if !caller.extra.is_empty() {
        user["extra"] = json!(caller.extra);
    }
    user
}

fn token(service: &Service, review: &Value) -> Result<Value, Status> {
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review.pointer("/spec/audiences").and_then(Value::as_array);
    let asked: Vec<&str> = audiences.into_iter().flatten().filter_map(Value::as_str).collect();
    let asked = if asked.is_empty() { vec![ISSUER] } else { asked };
    // The first audience that the token is meant for.
    let found = asked
        .iter()
        .find_map(|a| service.authenticator.token(token, a).ok().map(|caller| (*a, caller)));
    Ok(match found {
        Some((audience, caller)) => json!({
            "authenticated": true,
            "user": user_info(&caller),
            "audiences": [audience],
        }),
        None => json!({"user": {}, "error": "[invalid bearer token]"}),
    })
}

/// Whom a SubjectAccessReview asks about.
fn subject(review: &Value) -> Caller {
    let texts = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let extra: BTreeMap<String, Vec<String>> = spec
        .get("extra")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), texts(Some(value))))
        .collect();
    Caller {
        user: spec.get("user").and_then(Value::as_str).unwrap_or_default().into(),
        uid: spec.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
        groups: texts(spec.get("groups")).into_iter().map(Into::into).collect(),
        extra,
        ..Caller::default()
    }
}

fn may(service: &Service, caller: &Caller, review: &Value) -> Value {
    let text =
        |path: String| review.pointer(&path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let attribute = |key: &str| text(format!("/spec/resourceAttributes/{key}"));
    let path = text("/spec/nonResourceAttributes/path".into());
    let (verb, group, resource) = (attribute("verb"), attribute("group"), attribute("resource"));
    let (sub, namespace, name) =
        (attribute("subresource"), attribute("namespace"), attribute("name"));
    let path_verb = text("/spec/nonResourceAttributes/verb".into());
    let action = Action {
        verb: if path.is_empty() { &verb } else { &path_verb },
        group: &group,
        resource: &resource,
        subresource: &sub,
        namespace: &namespace,
        name: &name,
        path: &path,
    };
    match service.registry.decide(caller, &action) {
        Decision::Allowed(reason) => json!({"allowed": true, "reason": reason}),
        Decision::OwnPod => {
            json!({"allowed": true, "reason": "registration keys of the caller's own Pod"})
        }
        Decision::Denied => json!({"allowed": false}),
    }
}

/// What somebody may do in a namespace. That ServiceAccounts may read is no role, and told as if
/// it were one.
fn rules(service: &Service, caller: &Caller, review: &Value) -> Value {
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for grant in service.registry.grants(caller, namespace) {
        resources.extend(grant.resource_rules());
        paths.extend(grant.path_rules());
    }
    if caller.service_account().is_some() {
        resources.extend(access::readable_rules());
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
