//! What requests ask for: queries and paths, read strictly.
//!
//! An unknown parameter or a value that cannot be read is refused with 400 and
//! what was expected: a filter that is ignored gives an answer to another
//! question.

use axum::extract::{
    Path, Query,
    rejection::{PathRejection, QueryRejection},
};
use portolan_catalog::ServiceEntry;
use portolan_model::{Face, ObjectName, Origin, ServiceKey};
use portolan_view::{Filter, PortChoice, Selector, Target, Which};
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

/// What lists take in their query.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ListQuery {
    origin: Option<String>,
    namespace: Option<String>,
    /// `[ORIGIN:][NAMESPACE/]NAME`.
    service: Option<String>,
    /// A service by its name in DNS.
    host: Option<String>,
    /// A label selector, as kubectl's `-l`.
    labels: Option<String>,
    /// Of the watch, not of lists.
    version: Option<String>,
}

impl ListQuery {
    /// The filter. A list of now takes no version.
    pub(crate) fn filter(self, shared: &Shared) -> Result<Filter, Refusal> {
        if self.version.is_some() {
            return Err(Refusal::bad_request("lists take no version; they are of now")
                .hint("/v1/watch resumes from a version"));
        }
        let labels = selector("labels", self.labels.as_deref())?;
        let filter = Filter { origin: self.origin, namespace: self.namespace, name: None, labels };
        let filter = of_service(filter, self.service.as_deref())?;
        match &self.host {
            None => Ok(filter),
            Some(host) => of_host(filter, host, shared),
        }
    }
}

/// Narrows a filter to one service.
fn of_service(filter: Filter, service: Option<&str>) -> Result<Filter, Refusal> {
    match service {
        None => Ok(filter),
        Some(service) if service.is_empty() || service.ends_with('/') => {
            Err(Refusal::bad_request(format!("{service:?} is no service"))
                .hint("write service=[ORIGIN:][NAMESPACE/]NAME"))
        }
        Some(service) => Ok(filter.of_service(service)),
    }
}

/// Narrows a filter to the service that has a name in DNS.
fn of_host(filter: Filter, host: &str, shared: &Shared) -> Result<Filter, Refusal> {
    match target(host, filter.namespace.as_deref(), shared) {
        Ok(Target::DnsName(key)) => {
            let only = Filter::only(&key);
            let fits = |asked: &Option<String>, is: &Option<String>| asked.is_none() || asked == is;
            let agrees = fits(&filter.origin, &only.origin)
                && fits(&filter.namespace, &only.namespace)
                && fits(&filter.name, &only.name);
            if agrees {
                return Ok(Filter { labels: filter.labels, ..only });
            }
            Err(Refusal::bad_request(format!(
                "host={host} is {key}, which origin, namespace or service rule out"
            )))
        }
        _ => Err(Refusal::bad_request(format!("host={host} is no name of a service in DNS"))
            .hint("write host=NAME.NAMESPACE.svc.DOMAIN, or .ORIGIN.DOMAIN for other origins")),
    }
}

fn selector(parameter: &str, text: Option<&str>) -> Result<Selector, Refusal> {
    Selector::parse(text.unwrap_or_default())
        .map_err(|bad| Refusal::bad_request(format!("{parameter}: {bad}")))
}

/// What the list of instances takes beside: the port, the node and the labels of instances.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct InstanceQuery {
    origin: Option<String>,
    namespace: Option<String>,
    service: Option<String>,
    host: Option<String>,
    labels: Option<String>,
    version: Option<String>,
    port: Option<String>,
    node: Option<String>,
    instance_labels: Option<String>,
}

impl InstanceQuery {
    pub(crate) fn read(self, shared: &Shared) -> Result<(Filter, Which), Refusal> {
        let Self { origin, namespace, service, host, labels, version, .. } = self;
        let port = self.port.as_deref().map(PortChoice::parse).transpose();
        let which = Which {
            port: port.map_err(Refusal::bad_request)?,
            labels: selector("instanceLabels", self.instance_labels.as_deref())?,
            node: self.node,
        };
        let list = ListQuery { origin, namespace, service, host, labels, version };
        Ok((list.filter(shared)?, which))
    }
}

/// What the watch takes: like lists, but `service` may be there many times.
#[derive(Debug, Default)]
pub(crate) struct WatchQuery {
    /// What is watched: whatever one of them accepts.
    pub(crate) filters: Vec<Filter>,
    /// The version that the client has.
    pub(crate) version: Option<String>,
    /// Instances that differ are told alone, not with all others of their service.
    pub(crate) changes: bool,
    /// Without the reasons why instances are not served, which are long.
    pub(crate) brief: bool,
}

/// Services that one watch may name.
pub(crate) const WATCHED_SERVICES_MAX: usize = 1_000;

impl WatchQuery {
    pub(crate) fn read(pairs: Vec<(String, String)>) -> Result<Self, Refusal> {
        let mut query = Self::default();
        let (mut filter, mut services) = (Filter::default(), Vec::new());
        for (name, value) in pairs {
            match name.as_str() {
                "origin" => filter.origin = Some(value),
                "namespace" => filter.namespace = Some(value),
                "labels" => filter.labels = selector("labels", Some(&value))?,
                "service" => services.push(value),
                "version" => query.version = Some(value),
                "changes" | "brief" => {
                    let is_so = value.parse().map_err(|_| {
                        Refusal::bad_request(format!("{name}={value}: true or false"))
                    })?;
                    *(if name == "brief" { &mut query.brief } else { &mut query.changes }) = is_so;
                }
                _ => {
                    return Err(Refusal::bad_request(format!(
                        "unknown parameter {name:?}; the watch takes origin, namespace, \
                         service (several times), labels, version, changes and brief"
                    )));
                }
            }
        }
        if services.len() > WATCHED_SERVICES_MAX {
            return Err(Refusal::bad_request(format!(
                "{} services; one watch may name {WATCHED_SERVICES_MAX}",
                services.len()
            ))
            .hint("watch the whole namespace, or open another watch"));
        }
        query.filters = if services.is_empty() {
            vec![filter]
        } else {
            let one = |service: &String| of_service(filter.clone(), Some(service));
            services.iter().map(one).collect::<Result<_, _>>()?
        };
        Ok(query)
    }

    /// Whether it is about a service.
    pub(crate) fn accepts(&self, entry: &ServiceEntry) -> bool {
        self.filters.iter().any(|filter| filter.accepts(entry))
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
        from(self.from.as_deref(), self.namespace.as_deref(), shared)
    }

    /// The target as it was written.
    pub(crate) fn text(&self) -> &str {
        self.target.trim()
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

/// What `/v1/resolve` takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolveQuery {
    /// The full name; no search path is walked.
    pub(crate) name: String,
    #[serde(rename = "type", default = "address_type")]
    pub(crate) record_type: String,
    /// `[NAMESPACE/]POD`: as this Pod is answered.
    from: Option<String>,
}

fn address_type() -> String {
    "A".to_owned()
}

impl ResolveQuery {
    /// The Pod that asks.
    pub(crate) fn from(&self, shared: &Shared) -> Result<Option<ObjectName>, Refusal> {
        from(self.from.as_deref(), None, shared)
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

/// A Pod as it is written: `[NAMESPACE/]POD`.
fn from(
    text: Option<&str>,
    namespace: Option<&str>,
    shared: &Shared,
) -> Result<Option<ObjectName>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let snapshot = shared.hub.snapshot();
    let pod = format!("pod/{}", text.trim_start_matches("pod/"));
    match Target::find(&pod, namespace, &shared.config.cluster_domain, &snapshot) {
        Ok(Target::Pod(pod)) if snapshot.workload(&pod).is_some() => Ok(Some(pod)),
        Ok(_) => Err(Refusal::not_found(format!("from={text}: there is no such Pod"))
            .hint("write from=NAMESPACE/POD")),
        Err(usage) => Err(Refusal::bad_request(usage)),
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
