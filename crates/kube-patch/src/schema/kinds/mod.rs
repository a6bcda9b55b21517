//! The schemas of the built-in kinds, looked up by group, version and kind.
//!
//! The tables are in [`common`], [`pod`] and [`other`]; they restate the `patchStrategy`,
//! `patchMergeKey`, `listType`, `listMapKey`, `mapType` and `structType` marks of the API types
//! (repository kubernetes/api, `*/types.go`, and kubernetes/apimachinery
//! `pkg/apis/meta/v1/types.go`, as of Kubernetes 1.37).
//!
//! To add a kind: write its [`Type`] if it has anything but plain objects and atomic lists, and add
//! its line to [`KINDS`].

mod common;
mod other;
mod pod;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Schema;
use super::declare::Type;

/// Group, version, and the kinds in it with their types.
type GroupVersion = (&'static str, &'static str, &'static [(&'static str, &'static Type)]);

/// Group, version, schema.
type Entry = (&'static str, &'static str, Schema);

/// Every kind with a table: group, version, kind, type.
static KINDS: &[GroupVersion] = &[
    (
        "",
        "v1",
        &[
            ("Pod", &pod::POD),
            ("PodTemplate", &pod::POD_TEMPLATE),
            ("ReplicationController", &pod::REPLICATION_CONTROLLER),
            ("Service", &other::SERVICE),
            ("ServiceAccount", &other::SERVICE_ACCOUNT),
            ("Endpoints", &common::PLAIN),
            ("Namespace", &common::WITH_CONDITIONS),
            ("Node", &other::NODE),
            ("Event", &other::EVENT_CORE),
            ("ConfigMap", &other::DATA),
            ("Secret", &other::DATA),
            ("LimitRange", &common::PLAIN),
            ("ResourceQuota", &other::RESOURCE_QUOTA),
            ("PersistentVolume", &other::PERSISTENT_VOLUME),
            ("PersistentVolumeClaim", &other::PERSISTENT_VOLUME_CLAIM),
        ],
    ),
    (
        "apps",
        "v1",
        &[
            ("Deployment", &pod::DEPLOYMENT),
            ("ReplicaSet", &pod::WORKLOAD),
            ("StatefulSet", &pod::WORKLOAD),
            ("DaemonSet", &pod::WORKLOAD),
            ("ControllerRevision", &other::CONTROLLER_REVISION),
        ],
    ),
    ("batch", "v1", &[("Job", &pod::JOB), ("CronJob", &pod::CRON_JOB)]),
    ("discovery.k8s.io", "v1", &[("EndpointSlice", &common::PLAIN)]),
    (
        "networking.k8s.io",
        "v1",
        &[
            ("Ingress", &other::INGRESS),
            ("IngressClass", &common::PLAIN),
            ("NetworkPolicy", &other::NETWORK_POLICY),
            ("ServiceCIDR", &common::WITH_CONDITIONS),
            ("IPAddress", &common::PLAIN),
        ],
    ),
    ("coordination.k8s.io", "v1", &[("Lease", &common::PLAIN)]),
    ("coordination.k8s.io", "v1beta1", &[("LeaseCandidate", &common::PLAIN)]),
    ("events.k8s.io", "v1", &[("Event", &other::EVENT)]),
    (
        "rbac.authorization.k8s.io",
        "v1",
        &[
            ("Role", &common::PLAIN),
            ("ClusterRole", &common::PLAIN),
            ("RoleBinding", &other::ROLE_BINDING),
            ("ClusterRoleBinding", &other::ROLE_BINDING),
        ],
    ),
    ("policy", "v1", &[("PodDisruptionBudget", &other::POD_DISRUPTION_BUDGET)]),
    ("autoscaling", "v1", &[("HorizontalPodAutoscaler", &other::AUTOSCALER_V1)]),
    ("autoscaling", "v2", &[("HorizontalPodAutoscaler", &other::AUTOSCALER)]),
    ("scheduling.k8s.io", "v1", &[("PriorityClass", &common::PLAIN)]),
    (
        "storage.k8s.io",
        "v1",
        &[
            ("StorageClass", &other::STORAGE_CLASS),
            ("CSIDriver", &other::CSI_DRIVER),
            ("CSINode", &other::CSI_NODE),
        ],
    ),
    ("node.k8s.io", "v1", &[("RuntimeClass", &other::RUNTIME_CLASS)]),
    (
        "admissionregistration.k8s.io",
        "v1",
        &[
            ("ValidatingWebhookConfiguration", &other::WEBHOOK_CONFIGURATION),
            ("MutatingWebhookConfiguration", &other::WEBHOOK_CONFIGURATION),
        ],
    ),
    ("certificates.k8s.io", "v1", &[("CertificateSigningRequest", &other::SIGNING_REQUEST)]),
    (
        "apiextensions.k8s.io",
        "v1",
        &[("CustomResourceDefinition", &other::CUSTOM_RESOURCE_DEFINITION)],
    ),
    ("apiregistration.k8s.io", "v1", &[("APIService", &other::API_SERVICE)]),
];

/// By kind; the few kinds that share a name differ in group or version.
static SCHEMAS: LazyLock<HashMap<&str, Vec<Entry>>> = LazyLock::new(|| {
    let mut schemas: HashMap<&str, Vec<Entry>> = HashMap::new();
    for &(group, version, kinds) in KINDS {
        for &(kind, table) in kinds {
            schemas.entry(kind).or_default().push((group, version, Schema::declared(table)));
        }
    }
    schemas
});

static UNKNOWN_KIND: LazyLock<Schema> =
    LazyLock::new(|| Schema::declared(&common::PLAIN).partial());

/// The schema of a kind. A kind without a table gets one that knows `metadata` alone: every other
/// list is atomic, every other object merges. For a custom resource, prefer
/// [`Schema::from_openapi`].
#[must_use]
pub fn schema_for(group: &str, version: &str, kind: &str) -> &'static Schema {
    let same_kind = SCHEMAS.get(kind).into_iter().flatten();
    let mut found = same_kind.filter(|(g, v, _)| (*g, *v) == (group, version));
    found.next().map_or(&UNKNOWN_KIND, |(_, _, schema)| schema)
}

/// Group, version and kind of every built-in table.
pub fn known_kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    KINDS.iter().flat_map(|&(group, version, kinds)| {
        kinds.iter().map(move |&(kind, _)| (group, version, kind))
    })
}
