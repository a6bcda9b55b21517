//! Subresources: the parts of objects that have URLs of their own.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{
    body,
    respond::{self, Answer},
    streams,
    table::Shape,
    verbs::{self, Request},
};
use crate::{
    Cause, Status, kinds,
    registry::{
        ISSUER, LogOptions, Registry, Subresource, TOKEN_SECONDS_MAX, TOKEN_SECONDS_MIN,
        TokenSubject, check_place, object,
    },
};

/// Answers a request on a part of an object.
pub(crate) async fn answer(request: Request<'_>) -> Result<Answer, Status> {
    let target = request.target;
    let kind = target.kind;
    if target.name.is_empty() {
        return Err(Status::no_such_path());
    }
    let is_pod = kind.is_core("pods");
    match target.subresource.as_str() {
        "status" if kind.has_status => common(request, Subresource::Status).await,
        "scale" if kind.has_scale => common(request, Subresource::Scale).await,
        "ephemeralcontainers" if is_pod => common(request, Subresource::EphemeralContainers).await,
        "resize" if is_pod => common(request, Subresource::Resize).await,
        "finalize" if kind.is_core("namespaces") && *request.method == Method::PUT => {
            request.update(Some(Subresource::Finalize)).await
        }
        "binding" if is_pod && *request.method == Method::POST => binding(request).await,
        "eviction" if is_pod && *request.method == Method::POST => eviction(request).await,
        "log" if is_pod && *request.method == Method::GET => log(request).await,
        "token" if kind.is_core("serviceaccounts") && *request.method == Method::POST => {
            token(request)
        }
        "exec" | "attach" if is_pod => streams::session(request).await,
        "portforward" if is_pod => streams::forward(request).await,
        "proxy" if is_pod => {
            Err(Status::not_implemented("pods/proxy is not held by this API server"))
        }
        "finalize" | "binding" | "eviction" | "log" | "token" => Err(Status::method_not_allowed()),
        _ => Err(Status::no_such_path()),
    }
}

async fn common(request: Request<'_>, part: Subresource) -> Result<Answer, Status> {
    let target = request.target;
    match *request.method {
        Method::GET if part == Subresource::Scale => {
            let registry = &request.service.registry;
            let scale = registry.get_scale(target.kind, target.namespace(), &target.name)?;
            let shape = Shape { kind: &kinds::SCALES, ..request.shape()? };
            Ok(respond::json(200, &shape.one(&scale, true)))
        }
        Method::GET => {
            let registry = &request.service.registry;
            let shape = request.shape()?;
            let record = registry.get_record(target.kind, target.namespace(), &target.name)?;
            if shape.is_plain() {
                return Ok(respond::bytes(200, record.bytes.clone()));
            }
            Ok(respond::json(200, &shape.one(&object::parse(&record)?, true)))
        }
        Method::PUT => request.update(Some(part)).await,
        Method::PATCH => request.patch(Some(part)).await,
        _ => Err(Status::method_not_allowed()),
    }
}

async fn binding(request: Request<'_>) -> Result<Answer, Status> {
    let target = request.target;
    let binding = body::object(request.headers, &request.body, "Binding")?;
    let options = verbs::write_options("CreateOptions", request.query, request.headers)?;
    request
        .service
        .registry
        .bind_object(request.caller, target.namespace(), &target.name, &binding, &options)
        .await?;
    let done = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(respond::json(201, &done))
}

async fn eviction(request: Request<'_>) -> Result<Answer, Status> {
    let target = request.target;
    let eviction = body::object(request.headers, &request.body, "Eviction")?;
    let options = eviction.get("deleteOptions").cloned().unwrap_or(Value::Null);
    let options = verbs::delete_options(&options, request.query)?;
    request
        .service
        .registry
        .evict(request.caller, target.namespace(), &target.name, &options)
        .await?;
    let done = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(respond::json(201, &done))
}

async fn log(request: Request<'_>) -> Result<Answer, Status> {
    let (target, query) = (request.target, request.query);
    let registry = &request.service.registry;
    let pod = registry.get(target.kind, target.namespace(), &target.name)?;
    let Some(logs) = registry.pod_logs() else {
        return Err(Status::not_implemented("nothing here keeps the logs of Pods"));
    };
    let since_time = match query.get("sinceTime") {
        None | Some("") => None,
        Some(text) => Some(
            object::parse_timestamp(text)
                .ok_or_else(|| Status::bad_request(format!("sinceTime: {text:?} is not a time")))?,
        ),
    };
    let options = LogOptions {
        container: Some(chosen_container(&pod, query.get("container").unwrap_or_default())?),
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since: query.number("sinceSeconds")?.map(Duration::from_secs),
        since_unix_seconds: since_time,
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
    };
    let stream = logs.open(pod, options).await?;
    Ok(respond::live("text/plain", stream))
}

/// The container that is meant (upstream `validateContainer`).
pub(super) fn chosen_container(pod: &Value, asked: &str) -> Result<String, Status> {
    let names: Vec<&str> = ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|list| pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array))
        .flatten()
        .filter_map(|c| c.get("name").and_then(Value::as_str))
        .collect();
    let name = object::name(pod);
    if !asked.is_empty() {
        return match names.contains(&asked) {
            true => Ok(asked.to_owned()),
            false => {
                Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
            }
        };
    }
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    match containers.map(Vec::as_slice) {
        Some([only]) => Ok(only.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            names.join(" ")
        ))),
    }
}

/// A TokenRequest.
fn token(request: Request<'_>) -> Result<Answer, Status> {
    let target = request.target;
    let registry = &request.service.registry;
    let expected = "TokenRequest";
    let mut asked = body::object(request.headers, &request.body, expected)?;
    let said = |key: &str| asked.get(key).and_then(Value::as_str).unwrap_or_default();
    if !matches!(said("kind"), "" | "TokenRequest") {
        let (kind, version) = (said("kind"), said("apiVersion"));
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a TokenRequest: converting \
             ({version}.{kind}) to (authentication.TokenRequest): unknown conversion"
        )));
    }
    check_place(target.kind, target.namespace(), &asked)?;
    let account = registry.get(target.kind, target.namespace(), &target.name)?;
    let named = object::name(&asked);
    if !named.is_empty() && named != target.name {
        let why = "must match the service account name if specified";
        let cause = Cause::invalid("metadata.name", &named.into(), why);
        return Err(Status::invalid(&kinds::TOKEN_REQUESTS, &target.name, vec![cause]));
    }
    let seconds = asked.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(3_600);
    let asked_seconds = seconds;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let limit = match seconds {
        seconds if seconds < TOKEN_SECONDS_MIN => Some("less than 10 minutes"),
        seconds if seconds > TOKEN_SECONDS_MAX => Some("larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(limit) = limit {
        let why = format!("may not specify a duration {limit}");
        let cause = Cause::invalid("spec.expirationSeconds", &json!(asked_seconds), &why);
        return Err(Status::invalid(&kinds::TOKEN_REQUESTS, "", vec![cause]));
    }
    let mut subject = TokenSubject {
        namespace: target.namespace().to_owned(),
        service_account: target.name.clone(),
        service_account_uid: object::uid(&account).to_owned(),
        ..TokenSubject::default()
    };
    let audiences = asked.pointer("/spec/audiences").and_then(Value::as_array);
    subject.audiences =
        audiences.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if subject.audiences.is_empty() {
        subject.audiences.push(ISSUER.to_owned());
    }
    let bound = asked.pointer("/spec/boundObjectRef").filter(|b| !b.is_null()).cloned();
    if let Some(bound) = &bound {
        bind_token(registry, &mut subject, bound)?;
    }
    let (token, ends) = registry.mint_token(&subject, seconds);
    let map = object::map_of(&mut asked);
    map.insert("kind".into(), "TokenRequest".into());
    map.insert("apiVersion".into(), "authentication.k8s.io/v1".into());
    map.insert(
        "metadata".into(),
        json!({"name": target.name, "namespace": target.namespace(), "creationTimestamp": object::now()}),
    );
    let spec = object::map_at(map, "spec");
    spec.insert("audiences".into(), json!(subject.audiences));
    spec.insert("expirationSeconds".into(), seconds.into());
    spec.insert("boundObjectRef".into(), bound.unwrap_or(Value::Null));
    map.insert(
        "status".into(),
        json!({"token": token, "expirationTimestamp": object::timestamp(ends)}),
    );
    Ok(respond::json(201, &asked))
}

/// Binds a token to the object that a TokenRequest names.
fn bind_token(
    registry: &Registry,
    subject: &mut TokenSubject,
    bound: &Value,
) -> Result<(), Status> {
    let text = |key: &str| bound.get(key).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let kind = match (group, text("kind")) {
        ("", "Pod") => &kinds::PODS,
        ("", "Node") => &kinds::NODES,
        ("", "Secret") => &kinds::SECRETS,
        (_, kind) => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let found = registry.get(kind, &subject.namespace, text("name"))?;
    let name_and_uid = (text("name").to_owned(), object::uid(&found).to_owned());
    if !text("uid").is_empty() && text("uid") != name_and_uid.1 {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The \
             object might have been deleted and then recreated",
            text("uid")
        );
        let mut status = Status::conflict(kind, text("name"), &why);
        // Upstream takes the kind for the resource here.
        status.message = status.message.replacen(kind.plural, kind.kind, 1);
        if let Some(details) = &mut status.details {
            details.kind = kind.kind.into();
        }
        return Err(status);
    }
    match kind.kind {
        "Pod" => {
            let spec = |key: &str| {
                found.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            if spec("/spec/serviceAccountName") != subject.service_account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different \
                     serviceaccount name.",
                    subject.service_account
                )));
            }
            let node = spec("/spec/nodeName");
            if !node.is_empty() {
                // Its name alone, where there is no such object.
                let uid = registry.get(&kinds::NODES, "", &node);
                let uid = uid.map(|n| object::uid(&n).to_owned()).unwrap_or_default();
                subject.node = Some((node, uid));
            }
            subject.pod = Some(name_and_uid);
        }
        "Node" => subject.node = Some(name_and_uid),
        _ => subject.secret = Some(name_and_uid),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_chosen() {
        let pod = |main: &[&str]| {
            let named = |names: &[&str]| -> Vec<Value> {
                names.iter().map(|name| json!({"name": name})).collect()
            };
            let spec = json!({"initContainers": named(&["first"]), "containers": named(main)});
            json!({"metadata": {"name": "p"}, "spec": spec})
        };
        for (main, asked, expected) in [
            // One container is meant, whatever ran before it.
            (&["a"][..], "", Ok("a")),
            (&["a"], "first", Ok("first")),
            (&["a"], "b", Err("container b is not valid for pod p")),
            (
                &["a", "b"],
                "",
                Err("a container name must be specified for pod p, choose one of: [first a b]"),
            ),
        ] {
            let found = chosen_container(&pod(main), asked).map_err(|status| status.message);
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected, "{main:?} {asked:?}");
        }
    }
}
