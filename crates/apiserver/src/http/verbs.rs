//! From a request on a resource to a call of the registry, and back.

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use hyper::upgrade::OnUpgrade;
use serde_json::json;

use super::{
    Service,
    accept::{self, Form},
    body,
    filter::Filter,
    list, options, parts,
    patches::PatchType,
    query::Query,
    respond::{self, Answer},
    route::Target,
    table::{Include, Shape},
    watch, write_options,
};
use crate::{
    Kind, Status, kinds,
    registry::{Caller, Deleted, Subresource, access::Action, object},
    status::Details,
};

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

/// Whether a request may take as long as it likes.
pub(crate) fn is_long_running(target: &Target, query: &Query) -> bool {
    let is_session = ["attach", "exec", "log", "portforward", "proxy"];
    is_watch(target, query) || is_session.contains(&target.subresource.as_str())
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
        self.service.counts.request(match *self.method {
            Method::GET if is_watch(target, self.query) => "WATCH",
            Method::GET if target.name.is_empty() => "LIST",
            ref method => method.as_str(),
        });
        if !target.subresource.is_empty() {
            return parts::answer(self).await;
        }
        match (self.method, target.name.is_empty()) {
            (&Method::GET, _) if is_watch(target, self.query) => self.watch(),
            _ if target.watch => Err(Status::method_not_allowed()),
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

    /// The form of the answer to a write of one object, or of a part of it. What cannot be shown is
    /// not done; upstream does it and then refuses to show it.
    fn shape_of_write(&self, part: Option<Subresource>) -> Result<Shape, Status> {
        let shape = self.shape_of(part)?;
        shape.expect_one()?;
        Ok(shape)
    }

    /// The form of the answer about a part: most parts are shown as the whole object.
    pub(crate) fn shape_of(&self, part: Option<Subresource>) -> Result<Shape, Status> {
        let shape = self.shape()?;
        Ok(match part {
            Some(Subresource::Scale) => Shape { kind: &kinds::SCALES, ..shape },
            _ => shape,
        })
    }

    /// The form of the answer to a body of a kind of its own, which has no rows.
    pub(crate) fn shape_of_body(&self, kind: &'static Kind) -> Result<Shape, Status> {
        let shape = self.shape_in(accept::negotiate_without_table(self.headers)?)?;
        shape.expect_one()?;
        Ok(Shape { kind, ..shape })
    }

    pub(crate) fn shape(&self) -> Result<Shape, Status> {
        self.shape_in(accept::negotiate(self.headers)?)
    }

    fn shape_in(&self, form: Form) -> Result<Shape, Status> {
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
        let (filter, shape) = (self.filter()?, self.shape()?);
        shape.expect_list()?;
        list::answer(&self.service.registry, &filter, &shape, self.query)
    }

    fn watch(&self) -> Result<Answer, Status> {
        let permit = self.service.watches.clone().try_acquire_owned().map_err(|_| {
            Status::too_many_requests("too many watches, please try again later", 1)
        })?;
        // A list that is streamed has no rows.
        let is_list =
            self.query.flag("sendInitialEvents") && self.query.flag("allowWatchBookmarks");
        let shape = match is_list {
            true => self.shape_in(accept::negotiate_without_table(self.headers)?)?,
            false => self.shape()?,
        };
        let answer = watch::answer(
            &self.service.registry,
            self.filter()?,
            shape,
            self.query,
            self.service.shutdown.clone(),
            self.service.counts.clone(),
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
        shape.record(&record)
    }

    async fn create(&self) -> Result<Answer, Status> {
        let target = self.target;
        let shape = self.shape_of_write(None)?;
        let encoding = body::encoding(self.headers)?;
        let mut options = write_options::of_write("CreateOptions", self.query, self.headers)?;
        let (object, duplicates) = body::strict(encoding, &self.body, target.kind.kind)?;
        options.duplicate_fields = duplicates;
        let registry = &self.service.registry;
        let namespace = target.namespace();
        let written =
            registry.create_written(self.caller, target.kind, namespace, object, &options).await?;
        shape.written(&written, 201)
    }

    pub(crate) async fn update(&self, part: Option<Subresource>) -> Result<Answer, Status> {
        let target = self.target;
        let shape = self.shape_of_write(part)?;
        let encoding = body::encoding(self.headers)?;
        let mut options = write_options::of_write("UpdateOptions", self.query, self.headers)?;
        let (object, duplicates) = body::strict(encoding, &self.body, shape.kind.kind)?;
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
        shape.written(&written, 200)
    }

    pub(crate) async fn patch(&self, part: Option<Subresource>) -> Result<Answer, Status> {
        let target = self.target;
        let patch_type = PatchType::of(self.headers)?;
        let shape = self.shape_of_write(part)?;
        let mut options = write_options::of_patch(patch_type, self.query, self.headers)?;
        let (patch, faults) = patch_type.read(&self.body, options.field_validation)?;
        options.duplicate_fields = faults;
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
        shape.written(&written, 200)
    }

    async fn delete(&self) -> Result<Answer, Status> {
        let target = self.target;
        let shape = self.shape_of_write(None)?;
        let options = write_options::of_delete(self.headers, &self.body, self.query)?;
        let deleted = self
            .service
            .registry
            .delete(self.caller, target.kind, target.namespace(), &target.name, &options)
            .await?;
        show_deleted(&shape, &deleted)
    }

    async fn delete_collection(&self) -> Result<Answer, Status> {
        let (shape, filter, kind) = (self.shape()?, self.filter()?, self.target.kind);
        shape.expect_list()?;
        let options = write_options::of_delete(self.headers, &self.body, self.query)?;
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
                    gone.push(deleted.object().clone());
                }
                // Somebody else was faster: it is gone, which is what was asked for.
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        let revision = registry.store().revision();
        if !shape.is_plain() {
            let meta = json!({"resourceVersion": revision.to_string()});
            return Ok(respond::json(200, &shape.many(meta, gone.iter())));
        }
        // The list says what they are.
        for object in &mut gone {
            for field in ["kind", "apiVersion"] {
                object::map_of(object).shift_remove(field);
            }
        }
        Ok(respond::bytes(200, list::whole(kind, revision, gone)))
    }
}

/// What is left after a delete: a Status, or the object when it stays for a while or when the
/// kind always answers with it (upstream `ReturnDeletedObject`).
fn show_deleted(shape: &Shape, deleted: &Deleted) -> Result<Answer, Status> {
    let kind = shape.kind;
    let returns_object = [&kinds::PODS, &kinds::SERVICES, &kinds::SERVICE_ACCOUNTS].contains(&kind);
    match deleted {
        Deleted::Marked(object) => shape.object(object, 200),
        Deleted::Gone(object) if returns_object => shape.object(object, 200),
        Deleted::Gone(object) => {
            let mut details = Details::of(kind, object::name(object));
            details.uid = object::uid(object).to_owned();
            Ok(respond::json(200, &Status::success(&details)))
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
