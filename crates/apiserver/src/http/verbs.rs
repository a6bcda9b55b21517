//! From a request on a resource to a call of the registry, and back.

use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;

use super::{
    Service,
    accept::{self, Form},
    body,
    filter::Filter,
    json, list, options, parts,
    query::Query,
    respond::{self, Answer},
    route::Target,
    table::{Include, Shape},
    watch,
};
use crate::{
    Cause, Kind, Status, kinds,
    registry::{
        Caller, DeleteOptions, Deleted, FieldValidation, Patch, Preconditions, Propagation, SCHEME,
        Subresource, WriteOptions, Written, access::Action, object,
    },
    status::{Details, go_quote},
};

/// Longest `fieldManager` (apimachinery `FieldManagerMaxLength`).
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// One request on a resource, with its body read.
pub(crate) struct Request<'a> {
    pub(crate) service: &'a Service,
    pub(crate) caller: &'a Caller,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: &'a Query,
    pub(crate) target: &'a Target,
    pub(crate) body: Bytes,
    /// The connection, once it has been answered; for what becomes something else.
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// The verb that authorization knows a request by; `None` for methods that mean nothing here.
pub(crate) fn verb(method: &Method, target: &Target, query: &Query) -> Option<&'static str> {
    let one = !target.name.is_empty();
    Some(match *method {
        Method::GET | Method::HEAD if is_watch(target, query) => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => return None,
    })
}

/// Whether the answer is a stream. A part of an object is never watched.
pub(crate) fn is_watch(target: &Target, query: &Query) -> bool {
    // One object is watched by the old form of the path, or by a selector.
    let asked = target.watch || target.name.is_empty() && query.flag("watch");
    target.subresource.is_empty() && asked
}

impl Request<'_> {
    /// Answers, once authorization has said yes.
    pub(crate) async fn answer(self) -> Result<Answer, Status> {
        let deprecated = if self.is_served() { self.target.kind.deprecated } else { "" };
        let answer = self.dispatch().await;
        if deprecated.is_empty() {
            return answer;
        }
        // With refusals too.
        let (mut answer, warnings) = match answer {
            Ok(answer) => (answer, Vec::new()),
            Err(mut status) => {
                let warnings = std::mem::take(&mut status.warnings);
                (respond::status(&status), warnings)
            }
        };
        // Before all others.
        let said: Vec<_> = answer.headers().get_all(header::WARNING).iter().cloned().collect();
        answer.headers_mut().remove(header::WARNING);
        let mut answer = respond::warn(answer, &[deprecated.to_owned()]);
        for warning in said {
            answer.headers_mut().append(header::WARNING, warning);
        }
        Ok(respond::warn(answer, &warnings))
    }

    /// Whether upstream has a handler for such a request, which then says what it has to say.
    /// (Endpoints have no parts.)
    fn is_served(&self) -> bool {
        let of_one = [Method::GET, Method::PUT, Method::PATCH, Method::DELETE];
        let of_all = [Method::GET, Method::POST, Method::DELETE];
        let methods = if self.target.name.is_empty() { &of_all[..] } else { &of_one[..] };
        self.target.subresource.is_empty()
            && methods.contains(self.method)
            && accept::negotiate(self.headers).is_ok()
    }

    async fn dispatch(self) -> Result<Answer, Status> {
        let target = self.target;
        if !target.subresource.is_empty() {
            return parts::answer(self).await;
        }
        match (self.method, target.name.is_empty()) {
            (&Method::GET, _) if is_watch(target, self.query) => self.watch(),
            (&Method::GET, true) => self.list(),
            (&Method::GET, false) => self.get(),
            // Of a kind that lies in namespaces, in none.
            (&Method::POST, true) if target.kind.namespaced && target.namespace.is_none() => {
                Err(Status::method_not_allowed())
            }
            // Upstream has no such thing either.
            (&Method::DELETE, true) if target.kind.is_core("namespaces") => {
                Err(Status::method_not_allowed())
            }
            (&Method::POST, true) => self.create().await,
            (&Method::PUT, false) => self.update(None).await,
            (&Method::PATCH, false) => self.patch(None).await,
            (&Method::DELETE, false) => self.delete().await,
            (&Method::DELETE, true) => self.delete_collection().await,
            _ => Err(Status::method_not_allowed()),
        }
    }

    pub(crate) fn shape(&self) -> Result<Shape, Status> {
        let form = accept::negotiate(self.headers)?;
        if let Form::Aggregated = form {
            return Err(Status::not_acceptable("a resource has no aggregated form"));
        }
        let include = Include::parse(self.query.get("includeObject"))?;
        Ok(Shape { kind: self.target.kind, form, include })
    }

    fn filter(&self) -> Result<Filter, Status> {
        let filter = Filter::new(self.target.kind, self.target.namespace(), self.query)?;
        match self.target.name.as_str() {
            "" => Ok(filter),
            name => filter.named(name),
        }
    }

    fn list(&self) -> Result<Answer, Status> {
        list::answer(&self.service.registry, &self.filter()?, &self.shape()?, self.query)
    }

    fn watch(&self) -> Result<Answer, Status> {
        let permit = self.service.watches.clone().try_acquire_owned().map_err(|_| {
            Status::too_many_requests("too many watches, please try again later", 1)
        })?;
        let answer = watch::answer(
            &self.service.registry,
            self.filter()?,
            self.shape()?,
            self.query,
            self.service.shutdown.clone(),
        )?;
        Ok(respond::hold(answer, permit))
    }

    fn get(&self) -> Result<Answer, Status> {
        let target = self.target;
        let shape = self.shape()?;
        let asked = options::revision(self.query.get("resourceVersion").unwrap_or_default())
            .map_err(Status::unforeseen)?;
        let current = self.service.registry.store().revision();
        if asked > current {
            return Err(Status::revision_too_large(asked, current));
        }
        let record =
            self.service.registry.get_record(target.kind, target.namespace(), &target.name)?;
        if shape.is_plain() {
            return Ok(respond::bytes(200, record.bytes.clone()));
        }
        Ok(respond::json(200, &shape.one(&object::parse(&record)?, true)))
    }

    async fn create(&self) -> Result<Answer, Status> {
        let target = self.target;
        let (object, duplicates) = self.object(target.kind)?;
        let mut options = write_options("CreateOptions", self.query, self.headers)?;
        options.duplicate_fields = duplicates;
        let registry = &self.service.registry;
        let namespace = target.namespace();
        let written =
            registry.create_written(self.caller, target.kind, namespace, object, &options).await?;
        Ok(show(written, 201))
    }

    pub(crate) async fn update(&self, part: Option<Subresource>) -> Result<Answer, Status> {
        let target = self.target;
        let (object, duplicates) = self.object(target.kind)?;
        let mut options = write_options("UpdateOptions", self.query, self.headers)?;
        options.duplicate_fields = duplicates;
        let written = self
            .service
            .registry
            .update_written(
                self.caller,
                target.kind,
                target.namespace(),
                &target.name,
                part,
                object,
                &options,
            )
            .await?;
        Ok(show(written, 200))
    }

    pub(crate) async fn patch(&self, part: Option<Subresource>) -> Result<Answer, Status> {
        let target = self.target;
        let (patch, duplicates) = self.read_patch()?;
        let mut options = write_options("PatchOptions", self.query, self.headers)?;
        options.duplicate_fields = duplicates;
        if matches!(patch, Patch::Apply(_))
            && self.query.get("fieldManager").is_none_or(str::is_empty)
        {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Status::invalid_options("PatchOptions", vec![cause]));
        }
        if options.force && !matches!(patch, Patch::Apply(_)) {
            let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
            return Err(Status::invalid_options("PatchOptions", vec![cause]));
        }
        let written = self
            .service
            .registry
            .patch_written(
                self.caller,
                target.kind,
                target.namespace(),
                &target.name,
                part,
                patch,
                &options,
            )
            .await?;
        Ok(show(written, 200))
    }

    /// The patch, and the fields that it gives twice.
    fn read_patch(&self) -> Result<(Patch, Vec<String>), Status> {
        let json = || {
            json::parse(&self.body)
                .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))
        };
        let map = |value: Value| {
            if value.is_object() {
                Ok(value)
            } else {
                Err(Status::bad_request("error decoding patch: expected a JSON object"))
            }
        };
        match body::media_type(self.headers) {
            "application/json-patch+json" => Ok((Patch::Json(json()?.0), Vec::new())),
            "application/merge-patch+json" => {
                let (patch, twice) = json()?;
                Ok((Patch::Merge(map(patch)?), twice))
            }
            "application/strategic-merge-patch+json" => {
                let (patch, twice) = json()?;
                Ok((Patch::Strategic(map(patch)?), twice))
            }
            "application/apply-patch+yaml" => {
                let value = body::yaml(&self.body)
                    .map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
                if value.is_array() {
                    return Err(Status::bad_request(
                        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: \
                         cannot unmarshal array into Go value of type map[string]interface {}",
                    ));
                }
                Ok((Patch::Apply(map(value)?), Vec::new()))
            }
            // Upstream does not say which types it takes; neither do we.
            _ => Err(Status {
                details: Some(Box::default()),
                ..Status::unsupported_media_type("415: Unsupported Media Type")
            }),
        }
    }

    async fn delete(&self) -> Result<Answer, Status> {
        let target = self.target;
        let options = self.delete_options()?;
        let deleted = self
            .service
            .registry
            .delete(self.caller, target.kind, target.namespace(), &target.name, &options)
            .await?;
        Ok(show_deleted(target.kind, &deleted))
    }

    async fn delete_collection(&self) -> Result<Answer, Status> {
        let options = self.delete_options()?;
        let (filter, kind) = (self.filter()?, self.target.kind);
        let registry = &self.service.registry;
        let listing = registry
            .store()
            .list(kind.resource, filter.scope(), None, None, None)
            .map_err(Status::internal)?;
        let mut gone = Vec::new();
        for record in listing.items.iter().filter(|r| filter.shows(r)) {
            let (namespace, name) = (&record.key.namespace, &record.key.name);
            match registry.delete(self.caller, kind, namespace, name, &options).await {
                Ok(deleted) => {
                    let mut object = deleted.object().clone();
                    // The list says what they are.
                    for field in ["kind", "apiVersion"] {
                        object::map_of(&mut object).shift_remove(field);
                    }
                    gone.push(object);
                }
                // Somebody else was faster: it is gone, which is what was asked for.
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        let revision = registry.store().revision();
        Ok(respond::bytes(200, list::whole(kind, revision, gone)))
    }

    /// The options of a delete: in the query, or in a body that goes before it.
    pub(crate) fn delete_options(&self) -> Result<DeleteOptions, Status> {
        let mut options = Value::Null;
        if !self.body.is_empty() {
            body::encoding(self.headers)?;
            let object = body::object(self.headers, &self.body, "DeleteOptions");
            // Upstream did not foresee bad options of a delete.
            options = object.map_err(|s| Status { code: 500, reason: "", ..s })?;
            check_delete_options(&options)?;
        }
        delete_options(&options, self.query)
    }

    /// The object in the body, and the fields that it gives twice.
    fn object(&self, kind: &Kind) -> Result<(Value, Vec<String>), Status> {
        body::strict(self.headers, &self.body, &body::expected(kind))
    }
}

fn check_delete_options(options: &Value) -> Result<(), Status> {
    if !options.is_object() && !options.is_null() {
        let found = if options.is_array() { "array" } else { "value" };
        return Err(Status::unforeseen(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go \
             value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
             Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    let text = |key: &str| options.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (text("kind"), text("apiVersion"));
    if matches!(kind, "" | "DeleteOptions") {
        return Ok(());
    }
    Err(Status::unforeseen(format!(
        "no kind {kind:?} is registered for version {version:?} in scheme {SCHEME:?}"
    )))
}

pub(crate) fn delete_options(options: &Value, query: &Query) -> Result<DeleteOptions, Status> {
    let text = |key: &str| {
        let found = options.get(key).and_then(Value::as_str).or_else(|| query.get(key));
        found.filter(|t| !t.is_empty())
    };
    let number = |key: &str| -> Result<Option<i64>, Status> {
        if let Some(value) = options.get(key).filter(|v| !v.is_null()) {
            return value.as_i64().map(Some).ok_or_else(|| {
                Status::bad_request(format!("{key}: expected a number, found {value}"))
            });
        }
        query
            .get(key)
            .map(i64::from_str)
            .transpose()
            .map_err(|_| Status::bad_request(format!("{key}: expected a number")))
    };
    let orphans = options.get("orphanDependents").is_some_and(Value::is_boolean);
    if let Some(policy) = text("propagationPolicy").filter(|_| orphans) {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        let cause = Cause::invalid("propagationPolicy", &policy.into(), detail);
        return Err(Status::invalid_options("DeleteOptions", vec![cause]));
    }
    let propagation = match text("propagationPolicy") {
        None => match options.get("orphanDependents").and_then(Value::as_bool) {
            Some(true) => Some(Propagation::Orphan),
            Some(false) => Some(Propagation::Background),
            None => None,
        },
        Some(text) => Some(Propagation::parse(text).ok_or_else(|| {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            let cause = Cause::not_supported("propagationPolicy", &text.into(), &known);
            Status::invalid_options("DeleteOptions", vec![cause])
        })?),
    };
    let precondition = |key: &str| {
        let found = options.pointer(&format!("/preconditions/{key}")).and_then(Value::as_str);
        found.map(str::to_owned)
    };
    let in_body = options.get("dryRun").and_then(Value::as_array).into_iter().flatten();
    let asked: Vec<&str> = in_body.filter_map(Value::as_str).chain(query.all("dryRun")).collect();
    Ok(DeleteOptions {
        grace_period_seconds: number("gracePeriodSeconds")?,
        propagation,
        preconditions: Preconditions {
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
        },
        dry_run: dry_run("DeleteOptions", &asked)?,
    })
}

fn dry_run(kind: &str, values: &[&str]) -> Result<bool, Status> {
    if values.iter().any(|value| *value != "All") {
        let cause = Cause::not_supported("dryRun", &values.into(), &["All"]);
        return Err(Status::invalid_options(kind, vec![cause]));
    }
    Ok(!values.is_empty())
}

/// The options of a write; `kind` names them in refusals.
pub(crate) fn write_options(
    kind: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<WriteOptions, Status> {
    let field_manager = match query.get("fieldManager") {
        Some(name) if name.len() > FIELD_MANAGER_BYTES_MAX => {
            let cause = Cause::too_long("fieldManager", FIELD_MANAGER_BYTES_MAX);
            return Err(Status::invalid_options(kind, vec![cause]));
        }
        Some(name) if name.chars().any(char::is_control) => {
            let (at, bad) = name.char_indices().find(|(_, c)| c.is_control()).unwrap_or_default();
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(bad));
            let message = format!("Invalid value: {}: {why}", go_quote(name));
            let cause = Cause { message, ..Cause::invalid("fieldManager", &name.into(), "") };
            return Err(Status::invalid_options(kind, vec![cause]));
        }
        Some(name) if !name.is_empty() => Some(name.to_owned()),
        // As upstream: the program's name, cut at the first slash.
        _ => headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .and_then(|agent| agent.split('/').next())
            .filter(|name| !name.is_empty())
            .map(|name| name.chars().take(FIELD_MANAGER_BYTES_MAX).collect())
            .or_else(|| Some("unknown".to_owned())),
    };
    let field_validation = match query.get("fieldValidation") {
        // The server's default since 1.27.
        None | Some("" | "Warn") => FieldValidation::Warn,
        Some("Ignore") => FieldValidation::Ignore,
        Some("Strict") => FieldValidation::Strict,
        Some(other) => {
            let known = ["", "Ignore", "Strict", "Warn"];
            let cause = Cause::not_supported("fieldValidation", &other.into(), &known);
            return Err(Status::invalid_options(kind, vec![cause]));
        }
    };
    Ok(WriteOptions {
        dry_run: dry_run(kind, &query.all("dryRun").collect::<Vec<_>>())?,
        field_manager,
        force: query.flag("force"),
        field_validation,
        duplicate_fields: Vec::new(),
    })
}

/// The object as stored, in its stored bytes where there are some.
pub(crate) fn show(written: Written, code: u16) -> Answer {
    let code = if written.created { 201 } else { code };
    let answer = match &written.record {
        Some(record) => respond::bytes(code, record.bytes.clone()),
        None => respond::json(code, &written.object),
    };
    respond::warn(answer, &written.warnings)
}

/// What is left after a delete: a Status, or the object when it stays for a while or when the
/// kind always answers with it (upstream `ReturnDeletedObject`).
pub(crate) fn show_deleted(kind: &'static Kind, deleted: &Deleted) -> Answer {
    let returns_object = [&kinds::PODS, &kinds::SERVICES, &kinds::SERVICE_ACCOUNTS].contains(&kind);
    match deleted {
        Deleted::Marked(object) => respond::json(200, object),
        Deleted::Gone(object) if returns_object => respond::json(200, object),
        Deleted::Gone(object) => {
            let mut details = Details::of(kind, object::name(object));
            details.uid = object::uid(object).to_owned();
            respond::json(200, &Status::success(&details))
        }
    }
}

/// What authorization is asked about a request.
pub(crate) fn action<'a>(verb: &'a str, target: &'a Target) -> Action<'a> {
    // A Namespace is asked for as lying in itself, as upstream does.
    let namespace =
        if target.kind.is_core("namespaces") { &target.name } else { target.namespace() };
    Action {
        verb,
        group: target.kind.group,
        resource: target.kind.plural,
        subresource: &target.subresource,
        namespace,
        name: &target.name,
        path: "",
    }
}
