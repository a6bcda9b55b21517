//! The ClusterRoles that every cluster has, and who has them: the API's own policy
//! (kubernetes `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`), as far as it is about kinds
//! that are held and not about components that are none here.
//!
//! `admin`, `edit` and `view` have no rules of their own: the controller
//! [`crate::controllers`] `aggregation` gathers those of the roles with their label.

use portolan_apiserver::{Kind, kinds};
use serde_json::{Value, json};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const CREATE: &[&str] = &["create"];

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Verbs on resources of one group; resources are parted by spaces.
type Rule = (&'static [&'static str], &'static str, &'static str);

const VIEW: &[Rule] = &[
    (READ, "", "configmaps endpoints pods serviceaccounts services services/status"),
    (READ, "", "bindings events namespaces/status pods/log pods/status"),
    (READ, "", "namespaces"),
    (READ, "discovery.k8s.io", "endpointslices"),
    (
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale \
         deployments/status replicasets replicasets/scale replicasets/status statefulsets \
         statefulsets/scale statefulsets/status",
    ),
];

const EDIT: &[Rule] = &[
    // Reading these is more than reading: they let somebody act as another.
    (READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    (&["impersonate"], "", "serviceaccounts"),
    (WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    (CREATE, "", "pods/eviction"),
    (WRITE, "", "configmaps events secrets serviceaccounts services services/proxy"),
    (CREATE, "", "serviceaccounts/token"),
    (
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets \
         replicasets/scale statefulsets statefulsets/scale",
    ),
    (
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "coordination.k8s.io",
        "leases",
    ),
];

const ADMIN: &[Rule] = &[
    (CREATE, AUTHORIZATION, "localsubjectaccessreviews"),
    (
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        RBAC,
        "rolebindings roles",
    ),
];

const BASIC_USER: &[Rule] = &[
    (CREATE, AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
    (CREATE, AUTHENTICATION, "selfsubjectreviews"),
];

const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const MONITORING: &[&str] = &[
    "/healthz",
    "/healthz/*",
    "/livez",
    "/livez/*",
    "/metrics",
    "/metrics/slis",
    "/readyz",
    "/readyz/*",
];
const PUBLIC_INFO: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

const AUTHENTICATED: &str = "system:authenticated";

/// All of them.
pub(super) fn all() -> Vec<(&'static Kind, Value)> {
    let roles = [
        role("cluster-admin", &[], cluster_admin()),
        role("system:discovery", &[], get(DISCOVERY)),
        role("system:monitoring", &[], get(MONITORING)),
        role("system:public-info-viewer", &[], get(PUBLIC_INFO)),
        role("system:basic-user", &[], rules(BASIC_USER)),
        aggregate("admin", &[]),
        aggregate("edit", &["admin"]),
        aggregate("view", &["edit"]),
        role("system:aggregate-to-admin", &["admin"], rules(ADMIN)),
        role("system:aggregate-to-edit", &["edit"], rules(EDIT)),
        role("system:aggregate-to-view", &["view"], rules(VIEW)),
    ];
    let bindings = [
        binding("cluster-admin", &["system:masters"]),
        binding("system:monitoring", &["system:monitoring"]),
        binding("system:discovery", &[AUTHENTICATED]),
        binding("system:basic-user", &[AUTHENTICATED]),
        binding("system:public-info-viewer", &[AUTHENTICATED, "system:unauthenticated"]),
    ];
    let roles = roles.into_iter().map(|role| (&kinds::CLUSTER_ROLES as _, role));
    roles.chain(bindings.into_iter().map(|b| (&kinds::CLUSTER_ROLE_BINDINGS as _, b))).collect()
}

fn rules(table: &[Rule]) -> Value {
    let rule = |(verbs, group, resources): &Rule| {
        let resources: Vec<&str> = resources.split_whitespace().collect();
        json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
    };
    table.iter().map(rule).collect()
}

fn get(paths: &[&str]) -> Value {
    json!([{"verbs": ["get"], "nonResourceURLs": paths}])
}

fn cluster_admin() -> Value {
    json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ])
}

/// Marked as the API's own, and as a part of the roles named by `gathered_by`.
fn metadata(name: &str, gathered_by: &[&str]) -> Value {
    let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for role in gathered_by {
        labels[format!("rbac.authorization.k8s.io/aggregate-to-{role}")] = "true".into();
    }
    let annotations = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    json!({"name": name, "labels": labels, "annotations": annotations})
}

fn role(name: &str, gathered_by: &[&str], rules: Value) -> Value {
    json!({"metadata": metadata(name, gathered_by), "rules": rules})
}

fn aggregate(name: &str, gathered_by: &[&str]) -> Value {
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    let selectors = json!([{"matchLabels": {label: "true"}}]);
    let rule = json!({"clusterRoleSelectors": selectors});
    json!({"metadata": metadata(name, gathered_by), "aggregationRule": rule})
}

fn binding(role: &str, groups: &[&str]) -> Value {
    let group = |name: &&str| json!({"apiGroup": RBAC, "kind": "Group", "name": name});
    json!({
        "metadata": metadata(role, &[]),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": groups.iter().map(group).collect::<Vec<_>>(),
    })
}
