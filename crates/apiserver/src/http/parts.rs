//! Subresources: the parts of objects that have URLs of their own.

use http::Method;
use serde_json::{Value, json};

use super::{
    body, logs,
    respond::{self, Answer},
    streams,
    verbs::Request,
    write_options,
};
use crate::{
    Cause, Status, kinds,
    registry::{
        ISSUER, Registry, Subresource, TOKEN_SECONDS_MAX, TOKEN_SECONDS_MIN, TokenSubject,
        check_place, object,
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
        "log" if is_pod && *request.method == Method::GET => logs::answer(request).await,
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
            let shape = request.shape_of(Some(part))?;
            let registry = &request.service.registry;
            let scale = registry.get_scale(target.kind, target.namespace(), &target.name)?;
            shape.object(&scale, 200)
        }
        Method::GET => {
            let shape = request.shape_of(Some(part))?;
            let registry = &request.service.registry;
            let record = registry.get_record(target.kind, target.namespace(), &target.name)?;
            shape.record(&record)
        }
        Method::PUT => request.update(Some(part)).await,
        Method::PATCH => request.patch(Some(part)).await,
        _ => Err(Status::method_not_allowed()),
    }
}

async fn binding(request: Request<'_>) -> Result<Answer, Status> {
    let target = request.target;
    request.shape_of_body(&kinds::BINDINGS)?;
    let binding = body::object(request.headers, &request.body, &kinds::BINDINGS)?;
    let options = write_options::of_write("CreateOptions", request.query, request.headers)?;
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
    request.shape_of_body(&kinds::EVICTIONS)?;
    let eviction = body::object(request.headers, &request.body, &kinds::EVICTIONS)?;
    let of_create = write_options::of_write("CreateOptions", request.query, request.headers)?;
    let asked = eviction.get("deleteOptions").unwrap_or(&Value::Null);
    let mut options = write_options::delete_options(asked)?;
    options.dry_run |= of_create.dry_run;
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

/// A TokenRequest.
fn token(request: Request<'_>) -> Result<Answer, Status> {
    let target = request.target;
    let registry = &request.service.registry;
    let shape = request.shape_of_body(&kinds::TOKEN_REQUESTS)?;
    let mut asked = body::object(request.headers, &request.body, &kinds::TOKEN_REQUESTS)?;
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
    shape.object(&asked, 201)
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
