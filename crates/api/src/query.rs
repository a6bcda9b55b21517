//! What requests ask for: queries and paths, read strictly.
//!
//! An unknown parameter or a value that cannot be read is refused with 400 and
//! what was expected: a filter that is ignored gives an answer to another
//! question.

use axum::extract::{
    Path, Query,
    rejection::{PathRejection, QueryRejection},
};
use portolan_model::{Face, ObjectName, Origin, ServiceKey};
use portolan_view::{Filter, Selector, Target};
use serde::Deserialize;

use crate::{Shared, problem::Refusal};

/// A query that has been read, or not.
pub(crate) type Checked<T> = Result<Query<T>, QueryRejection>;

/// Unpacks a query; a bad one gets 400 with what is wrong.
pub(crate) fn query<T>(checked: Checked<T>) -> Result<T, Refusal> {
    checked.map(|Query(query)| query).map_err(|bad| Refusal::bad_request(bad.body_text()))
}

/// The path of one service: origin, namespace, name, each percent-encoded.
pub(crate) type KeyPath = Result<Path<(String, String, String)>, PathRejection>;

/// Unpacks the path of a service.
pub(crate) fn key(path: KeyPath) -> Result<ServiceKey, Refusal> {
    let Path((origin, namespace, name)) = path.map_err(|bad| {
        Refusal::bad_request(bad.body_text())
            .hint("write ORIGIN/NAMESPACE/NAME, each percent-encoded UTF-8")
    })?;
    Ok(ServiceKey::new(Origin::from_text(&origin), &namespace, &name))
}

/// For paths that take no query.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// What lists, and the watch, take in their query.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ListQuery {
    origin: Option<String>,
    namespace: Option<String>,
    /// `[ORIGIN:][NAMESPACE/]NAME`.
    service: Option<String>,
    /// A label selector, as kubectl's `-l`.
    labels: Option<String>,
    /// For the watch: the version that the client has.
    version: Option<String>,
}

impl ListQuery {
    /// The filter. A list of now takes no version.
    pub(crate) fn filter(self) -> Result<Filter, Refusal> {
        match self.version {
            Some(_) => Err(Refusal::bad_request("lists take no version; they are of now")
                .hint("/v1/watch resumes from a version")),
            None => Ok(self.split()?.0),
        }
    }

    /// The filter, and the version to resume from.
    pub(crate) fn split(self) -> Result<(Filter, Option<String>), Refusal> {
        let labels = Selector::parse(self.labels.as_deref().unwrap_or_default())
            .map_err(Refusal::bad_request)?;
        let filter = Filter { origin: self.origin, namespace: self.namespace, name: None, labels };
        let filter = match self.service.as_deref() {
            None => filter,
            Some(service) if service.is_empty() || service.ends_with('/') => {
                return Err(Refusal::bad_request(format!("{service:?} is no service"))
                    .hint("write service=[ORIGIN:][NAMESPACE/]NAME"));
            }
            Some(service) => filter.of_service(service),
        };
        Ok((filter, self.version))
    }
}

/// What the list of Pods takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkloadQuery {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
}

/// What `/v1/why` takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WhyQuery {
    target: String,
    namespace: Option<String>,
    on: Option<String>,
    /// `[NAMESPACE/]POD`: as this Pod sees it.
    from: Option<String>,
}

impl WhyQuery {
    /// The Pod that asks.
    pub(crate) fn from(&self, shared: &Shared) -> Result<Option<ObjectName>, Refusal> {
        let Some(text) = &self.from else { return Ok(None) };
        let snapshot = shared.hub.snapshot();
        let pod = format!("pod/{}", text.trim_start_matches("pod/"));
        let domain = &shared.config.cluster_domain;
        match Target::find(&pod, self.namespace.as_deref(), domain, &snapshot) {
            Ok(Target::Pod(pod)) if snapshot.workload(&pod).is_some() => Ok(Some(pod)),
            Ok(_) => Err(Refusal::not_found(format!("from={text}: there is no such Pod"))
                .hint("write from=NAMESPACE/POD")),
            Err(usage) => Err(Refusal::bad_request(usage)),
        }
    }

    /// The target. Names without a namespace are of the Pod's that asks.
    pub(crate) fn target(
        &self,
        shared: &Shared,
        from: Option<&ObjectName>,
    ) -> Result<Target, Refusal> {
        let of_pod = from.map(|pod| &*pod.namespace);
        target(&self.target, self.namespace.as_deref().or(of_pod), shared)
    }

    pub(crate) fn faces(&self) -> Result<Vec<Face>, Refusal> {
        faces(self.on.as_deref())
    }
}

/// What `/v1/convergence` takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ConvergenceQuery {
    target: String,
    namespace: Option<String>,
    on: Option<String>,
    pub(crate) gone: bool,
    /// How long to wait; 0 answers at once.
    pub(crate) timeout_ms: u64,
}

impl ConvergenceQuery {
    pub(crate) fn target(&self, shared: &Shared) -> Result<Target, Refusal> {
        target(&self.target, self.namespace.as_deref(), shared)
    }

    pub(crate) fn faces(&self) -> Result<Vec<Face>, Refusal> {
        faces(self.on.as_deref())
    }
}

fn target(text: &str, namespace: Option<&str>, shared: &Shared) -> Result<Target, Refusal> {
    Target::find(text, namespace, &shared.config.cluster_domain, &shared.hub.snapshot())
        .map_err(Refusal::bad_request)
}

/// Reads `dns,proxy`.
fn faces(on: Option<&str>) -> Result<Vec<Face>, Refusal> {
    let words = on.into_iter().flat_map(|on| on.split(',')).map(str::trim);
    let mut faces = words
        .filter(|face| !face.is_empty())
        .map(|face| {
            Face::parse(face).ok_or_else(|| {
                Refusal::bad_request(format!("{face:?} is no face"))
                    .hint("faces are dns, xds, proxy, api, console")
            })
        })
        .collect::<Result<Vec<Face>, Refusal>>()?;
    faces.sort_unstable();
    faces.dedup();
    Ok(faces)
}
