//! Kinds that are questions: a POST with the question, the answer in `status`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Service;
use crate::{
    Kind, Status,
    registry::{Caller, Decision, ISSUER, access::Action, object},
};

/// Answers a review.
pub(crate) fn answer(
    service: &Service,
    caller: &Caller,
    kind: &'static Kind,
    namespace: &str,
    mut review: Value,
) -> Result<Value, Status> {
    crate::registry::check_type(kind, &mut review)?;
    let status = match kind.kind {
        "TokenReview" => token(service, &review),
        "SelfSubjectReview" => json!({"userInfo": user_info(caller)}),
        "SelfSubjectAccessReview" => access(service, caller, &review),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let asked =
                review.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str);
            if kind.namespaced && asked != Some(namespace) {
                return Err(Status::bad_request(
                    "spec.resourceAttributes.namespace must match the namespace of the request",
                ));
            }
            access(service, &subject(&review), &review)
        }
        "SelfSubjectRulesReview" => rules(service, caller, &review),
        other => return Err(Status::internal(format!("no answer to {other}"))),
    };
    object::map_of(&mut review).insert("status".into(), status);
    Ok(review)
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

fn token(service: &Service, review: &Value) -> Value {
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    let audiences = review.pointer("/spec/audiences").and_then(Value::as_array);
    let asked: Vec<&str> = audiences.into_iter().flatten().filter_map(Value::as_str).collect();
    let asked = if asked.is_empty() { vec![ISSUER] } else { asked };
    // The first audience that the token is meant for.
    let found = asked
        .iter()
        .find_map(|a| service.authenticator.token(token, a).ok().map(|caller| (*a, caller)));
    match found {
        Some((audience, caller)) => json!({
            "authenticated": true,
            "user": user_info(&caller),
            "audiences": [audience],
        }),
        None => json!({"user": {}, "error": "[invalid bearer token]"}),
    }
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
    }
}

fn access(service: &Service, caller: &Caller, review: &Value) -> Value {
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

/// Coarse, as the API allows: everything for masters, reading for everybody else.
fn rules(service: &Service, caller: &Caller, review: &Value) -> Value {
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
    let everything =
        Action { verb: "*", group: "*", resource: "*", namespace, ..Action::default() };
    let all = matches!(service.registry.decide(caller, &everything), Decision::Allowed(_));
    let verbs = if all { json!(["*"]) } else { json!(["get", "list", "watch"]) };
    json!({
        "resourceRules": [{"verbs": verbs, "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": verbs, "nonResourceURLs": ["*"]}],
        "incomplete": !all,
    })
}
