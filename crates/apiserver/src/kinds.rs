//! The table of kinds: everything the generic machinery needs to know about a
//! resource that is data rather than behaviour.
//!
//! One row per kind, no handler per kind. Discovery, routing, the registry and
//! the schema rooms (defaults, validation, columns) all take a `&'static Kind`;
//! adding a kind is adding a row here and, where the kind has rules of its own,
//! an arm in `schema`. Rows are compared by address-free identity
//! ([`Kind::resource`]), so a `&'static Kind` can be a map key.

use std::fmt;

/// One resource of the API.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version within the group.
    pub version: &'static str,
    /// `group/version`, or the bare version for the core group: what objects carry.
    pub api_version: &'static str,
    /// The object's `kind`.
    pub kind: &'static str,
    /// The `kind` of a list of such objects.
    pub list_kind: &'static str,
    /// The resource name in URLs.
    pub plural: &'static str,
    /// What kubectl accepts and prints for one object.
    pub singular: &'static str,
    /// `group/plural`, or the bare plural for the core group: the store's name of the resource.
    pub resource: &'static str,
    /// Abbreviations that kubectl accepts.
    pub short_names: &'static [&'static str],
    /// Groups of resources such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a `/status` subresource (and `status` is ignored elsewhere).
    pub has_status: bool,
    /// Whether there is a `/scale` subresource.
    pub has_scale: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
    /// Whether a PUT or an apply to a name that does not exist creates it.
    pub create_on_update: bool,
    /// The warning that goes with every answer about a deprecated kind; empty for the others.
    pub deprecated: &'static str,
    /// Whether a PUT must name the revision that it replaces.
    pub needs_revision: bool,
}

impl Kind {
    /// `Deployment.apps`, or `Pod`: how error messages name a kind.
    pub fn group_kind(&self) -> String {
        join_group(self.kind, self.group)
    }

    /// `deployments.apps`, or `pods`: how error messages name a resource.
    pub fn group_resource(&self) -> String {
        join_group(self.plural, self.group)
    }

    /// The last name of the Go package of upstream's internal types, which its messages show.
    pub(crate) fn internal_group(&self) -> &'static str {
        match self.group.split('.').next() {
            None | Some("") => "core",
            Some(first) => first,
        }
    }

    /// Whether this is the named resource of the core group.
    pub fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }
}

fn join_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.resource == other.resource && self.version == other.version
    }
}

impl Eq for Kind {}

impl std::hash::Hash for Kind {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.resource.hash(state);
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version, self.kind)
    }
}

/// What a row says when it says nothing: namespaced, no subresource, no short name.
const fn core(
    kind: &'static str,
    list_kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> Kind {
    Kind {
        group: "",
        version: "v1",
        api_version: "v1",
        kind,
        list_kind,
        plural,
        singular,
        resource: plural,
        short_names: &[],
        categories: &[],
        namespaced: true,
        has_status: false,
        has_scale: false,
        has_generation: false,
        create_on_update: false,
        deprecated: "",
        needs_revision: false,
    }
}

/// A row of a named group; `$gv` parts are literals so that the joined names stay static.
macro_rules! grouped {
    ($group:literal, $version:literal, $kind:literal, $plural:literal, $singular:literal) => {
        Kind {
            group: $group,
            version: $version,
            api_version: concat!($group, "/", $version),
            resource: concat!($group, "/", $plural),
            ..core($kind, concat!($kind, "List"), $plural, $singular)
        }
    };
}

/// A row of the core group.
macro_rules! plain {
    ($kind:literal, $plural:literal, $singular:literal) => {
        core($kind, concat!($kind, "List"), $plural, $singular)
    };
}

/// Namespaces.
pub static NAMESPACES: Kind = Kind {
    short_names: &["ns"],
    namespaced: false,
    has_status: true,
    ..plain!("Namespace", "namespaces", "namespace")
};
/// Nodes.
pub static NODES: Kind = Kind {
    short_names: &["no"],
    namespaced: false,
    has_status: true,
    ..plain!("Node", "nodes", "node")
};
/// Pods.
pub static PODS: Kind = Kind {
    short_names: &["po"],
    categories: &["all"],
    has_status: true,
    has_generation: true,
    ..plain!("Pod", "pods", "pod")
};
/// Services.
pub static SERVICES: Kind = Kind {
    short_names: &["svc"],
    categories: &["all"],
    has_status: true,
    create_on_update: true,
    ..plain!("Service", "services", "service")
};
/// Endpoints (deprecated upstream since 1.33 by KEP-4974, still served).
pub static ENDPOINTS: Kind = Kind {
    list_kind: "EndpointsList",
    short_names: &["ep"],
    create_on_update: true,
    deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ..plain!("Endpoints", "endpoints", "endpoints")
};
/// ConfigMaps.
pub static CONFIG_MAPS: Kind =
    Kind { short_names: &["cm"], ..plain!("ConfigMap", "configmaps", "configmap") };
/// Secrets.
pub static SECRETS: Kind = plain!("Secret", "secrets", "secret");
/// ServiceAccounts.
pub static SERVICE_ACCOUNTS: Kind =
    Kind { short_names: &["sa"], ..plain!("ServiceAccount", "serviceaccounts", "serviceaccount") };
/// Events of the core group.
pub static EVENTS: Kind =
    Kind { short_names: &["ev"], create_on_update: true, ..plain!("Event", "events", "event") };
/// EndpointSlices.
pub static ENDPOINT_SLICES: Kind = Kind {
    has_generation: true,
    ..grouped!("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice")
};
/// Leases.
pub static LEASES: Kind = Kind {
    create_on_update: true,
    needs_revision: true,
    ..grouped!("coordination.k8s.io", "v1", "Lease", "leases", "lease")
};
/// LeaseCandidates: who would lead, for coordinated leader election. Beta in 1.33.
pub static LEASE_CANDIDATES: Kind = Kind {
    create_on_update: true,
    needs_revision: true,
    deprecated: "coordination.k8s.io/v1beta1 LeaseCandidate is deprecated in v1.36+, unavailable in v1.39+",
    ..grouped!(
        "coordination.k8s.io",
        "v1beta1",
        "LeaseCandidate",
        "leasecandidates",
        "leasecandidate"
    )
};
/// Deployments.
pub static DEPLOYMENTS: Kind = Kind {
    short_names: &["deploy"],
    categories: &["all"],
    has_status: true,
    has_scale: true,
    has_generation: true,
    ..grouped!("apps", "v1", "Deployment", "deployments", "deployment")
};
/// ReplicaSets.
pub static REPLICA_SETS: Kind = Kind {
    short_names: &["rs"],
    categories: &["all"],
    has_status: true,
    has_scale: true,
    has_generation: true,
    ..grouped!("apps", "v1", "ReplicaSet", "replicasets", "replicaset")
};
/// StatefulSets.
pub static STATEFUL_SETS: Kind = Kind {
    short_names: &["sts"],
    categories: &["all"],
    has_status: true,
    has_scale: true,
    has_generation: true,
    ..grouped!("apps", "v1", "StatefulSet", "statefulsets", "statefulset")
};
/// DaemonSets.
pub static DAEMON_SETS: Kind = Kind {
    short_names: &["ds"],
    categories: &["all"],
    has_status: true,
    has_generation: true,
    ..grouped!("apps", "v1", "DaemonSet", "daemonsets", "daemonset")
};
/// ControllerRevisions; `kubectl rollout undo` of a StatefulSet or DaemonSet reads them.
pub static CONTROLLER_REVISIONS: Kind =
    grouped!("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision");
/// ServiceCIDRs.
pub static SERVICE_CIDRS: Kind = Kind {
    namespaced: false,
    has_status: true,
    ..grouped!("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "servicecidr")
};
/// IPAddresses.
pub static IP_ADDRESSES: Kind = Kind {
    list_kind: "IPAddressList",
    short_names: &["ip"],
    namespaced: false,
    ..grouped!("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ipaddress")
};
/// Roles.
pub static ROLES: Kind = Kind {
    create_on_update: true,
    ..grouped!("rbac.authorization.k8s.io", "v1", "Role", "roles", "role")
};
/// RoleBindings.
pub static ROLE_BINDINGS: Kind = Kind {
    create_on_update: true,
    ..grouped!("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "rolebinding")
};
/// ClusterRoles.
pub static CLUSTER_ROLES: Kind = Kind {
    namespaced: false,
    create_on_update: true,
    ..grouped!("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "clusterrole")
};
/// ClusterRoleBindings.
pub static CLUSTER_ROLE_BINDINGS: Kind = Kind {
    namespaced: false,
    create_on_update: true,
    ..grouped!(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "clusterrolebinding"
    )
};

/// Every stored kind, in the order of discovery: within a group as written, groups by first use.
pub static ALL: &[&Kind] = &[
    &NAMESPACES,
    &NODES,
    &PODS,
    &SERVICES,
    &ENDPOINTS,
    &CONFIG_MAPS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &EVENTS,
    &DEPLOYMENTS,
    &REPLICA_SETS,
    &STATEFUL_SETS,
    &DAEMON_SETS,
    &CONTROLLER_REVISIONS,
    &ENDPOINT_SLICES,
    &LEASES,
    &LEASE_CANDIDATES,
    &SERVICE_CIDRS,
    &IP_ADDRESSES,
    &ROLES,
    &ROLE_BINDINGS,
    &CLUSTER_ROLES,
    &CLUSTER_ROLE_BINDINGS,
];

/// TokenReviews: create only, nothing stored.
pub static TOKEN_REVIEWS: Kind = Kind {
    namespaced: false,
    ..grouped!("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", "tokenreview")
};
/// SelfSubjectReviews (`kubectl auth whoami`).
pub static SELF_SUBJECT_REVIEWS: Kind = Kind {
    namespaced: false,
    ..grouped!(
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        "selfsubjectreview"
    )
};
/// SubjectAccessReviews.
pub static SUBJECT_ACCESS_REVIEWS: Kind = Kind {
    namespaced: false,
    ..grouped!(
        "authorization.k8s.io",
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview"
    )
};
/// LocalSubjectAccessReviews.
pub static LOCAL_SUBJECT_ACCESS_REVIEWS: Kind = grouped!(
    "authorization.k8s.io",
    "v1",
    "LocalSubjectAccessReview",
    "localsubjectaccessreviews",
    "localsubjectaccessreview"
);
/// SelfSubjectAccessReviews (`kubectl auth can-i`).
pub static SELF_SUBJECT_ACCESS_REVIEWS: Kind = Kind {
    namespaced: false,
    ..grouped!(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview"
    )
};
/// SelfSubjectRulesReviews (`kubectl auth can-i --list`).
pub static SELF_SUBJECT_RULES_REVIEWS: Kind = Kind {
    namespaced: false,
    ..grouped!(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview"
    )
};

/// The body of `serviceaccounts/token`; it has no URL of its own.
pub static TOKEN_REQUESTS: Kind =
    grouped!("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", "tokenrequest");

/// What workloads are seen as through `scale`; it has no URL of its own.
pub static SCALES: Kind = grouped!("autoscaling", "v1", "Scale", "scales", "scale");

/// The body of `pods/binding`; it has no URL of its own.
pub static BINDINGS: Kind = plain!("Binding", "bindings", "binding");

/// The body of `pods/eviction`; it has no URL of its own.
pub static EVICTIONS: Kind = grouped!("policy", "v1", "Eviction", "evictions", "eviction");

/// Kinds that are only ever created and never stored: a question with its answer.
pub static VIRTUAL: &[&Kind] = &[
    &TOKEN_REVIEWS,
    &SELF_SUBJECT_REVIEWS,
    &SUBJECT_ACCESS_REVIEWS,
    &LOCAL_SUBJECT_ACCESS_REVIEWS,
    &SELF_SUBJECT_ACCESS_REVIEWS,
    &SELF_SUBJECT_RULES_REVIEWS,
];

/// The stored kind behind a URL.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    ALL.iter().copied().find(|k| k.plural == plural && k.group == group && k.version == version)
}

/// The virtual kind behind a URL.
pub fn find_virtual(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    VIRTUAL.iter().copied().find(|k| k.plural == plural && k.group == group && k.version == version)
}

/// The stored kind of an object, by its `apiVersion` and `kind`.
pub fn find_by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    ALL.iter().copied().find(|k| k.kind == kind && k.api_version == api_version)
}

/// Any kind that is known, by its `apiVersion` and `kind`.
pub(crate) fn find_any(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let bodies = [&TOKEN_REQUESTS, &SCALES, &BINDINGS, &EVICTIONS];
    let all = ALL.iter().chain(VIRTUAL).copied().chain(bodies);
    all.into_iter().find(|k| k.kind == kind && k.api_version == api_version)
}

/// The stored kind of a [`crate::store::Key::resource`].
pub fn find_by_resource(resource: &str) -> Option<&'static Kind> {
    ALL.iter().copied().find(|k| k.resource == resource)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_are_found_and_unique() {
        let mut seen = HashSet::new();
        for kind in ALL.iter().chain(VIRTUAL) {
            assert!(seen.insert(kind.resource), "{} twice", kind.resource);
            assert!(kind.list_kind.ends_with("List"));
            assert_eq!(kind.plural, kind.plural.to_lowercase());
        }
        for kind in ALL {
            assert_eq!(find(kind.group, kind.version, kind.plural), Some(*kind));
            assert_eq!(find_by_kind(kind.api_version, kind.kind), Some(*kind));
            assert_eq!(find_by_resource(kind.resource), Some(*kind));
        }
        assert_eq!(find("apps", "v1", "pods"), None);
    }

    #[test]
    fn names_in_messages() {
        assert_eq!(DEPLOYMENTS.group_resource(), "deployments.apps");
        assert_eq!(PODS.group_resource(), "pods");
        assert_eq!(SERVICE_CIDRS.group_kind(), "ServiceCIDR.networking.k8s.io");
    }
}
