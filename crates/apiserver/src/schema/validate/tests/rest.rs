//! Metadata, and the kinds that hold data.

use serde_json::json;

use super::{changed, created, named, refused, status_changed, with};
use crate::kinds::{
    self, CONFIG_MAPS, EVENTS, LEASE_CANDIDATES, LEASES, NAMESPACES, NODES, ROLE_BINDINGS, ROLES,
    SECRETS,
};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex \
    used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

#[test]
fn metadata_is_refused() {
    let name = format!("metadata.name: Invalid value: \"A_b\": {SUBDOMAIN}");
    let generated = format!("metadata.generateName: Invalid value: \"A-\": {SUBDOMAIN}");
    let key = format!("metadata.labels: Invalid value: \"-a\": name part {QUALIFIED}");
    let owner = |controller: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": controller, "uid": "u", "controller": true});
    let two = json!([owner("a"), owner("b")]);
    let twice = format!(
        "metadata.ownerReferences: Invalid value: {two}: Only one reference can have Controller \
         set to true. Found \"true\" in references for Pod/a and Pod/b"
    );
    let long = "n".repeat(254);
    let too_long =
        format!("metadata.name: Invalid value: \"{long}\": must be no more than 253 characters");
    refused(
        &CONFIG_MAPS,
        &named(&CONFIG_MAPS, json!({})),
        &[
            (json!({"metadata": {"name": "A_b"}}), &[&name]),
            (json!({"metadata": {"name": long}}), &[&too_long]),
            (json!({"metadata": {"generateName": "web-"}}), &[]),
            (json!({"metadata": {"generateName": "A-b-"}}), &[&generated.replace("A-", "A-b-")]),
            (json!({"metadata": {"labels": {"-a": "b"}}}), &[&key]),
            (json!({"metadata": {"labels": {"example.com/a": ""}}}), &[]),
            (
                json!({"metadata": {"labels": {"/a": "b"}}}),
                &["metadata.labels: Invalid value: \"/a\": prefix part must be non-empty"],
            ),
            (json!({"metadata": {"annotations": {"Example.Com/A": "any { value"}}}), &[]),
            (
                json!({"metadata": {"annotations": {"a": "x".repeat(256 * 1024)}}}),
                &["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (json!({"metadata": {"ownerReferences": two}}), &[&twice]),
            (
                json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a"}]}}),
                &["metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty"],
            ),
            (
                json!({"metadata": {"finalizers": ["mine"]}}),
                &["metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard \
                   finalizer name nor is it fully qualified"],
            ),
            (json!({"metadata": {"finalizers": ["example.com/mine", "orphan"]}}), &[]),
        ],
    );
    created(
        &NAMESPACES,
        &named(&NAMESPACES, json!({"metadata": {"name": "a.b"}})),
        &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
    );
}

#[test]
fn changes_look_at_metadata_too() {
    for kind in kinds::ALL {
        let base = named(kind, json!({}));
        let patch = json!({"metadata": {"labels": {"a": "b c"}}});
        let causes = super::update(kind, &base, &with(&base, &patch), &super::Context::default());
        assert!(causes.iter().any(|c| c.field == "metadata.labels"), "{kind:?}");
        let causes =
            super::update_status(kind, &base, &with(&base, &patch), &super::Context::default());
        assert!(causes.iter().any(|c| c.field == "metadata.labels"), "{kind:?}");
    }
}

/// Nothing that a client can send makes a check panic.
#[test]
fn any_shape_is_survived() {
    for odd in [json!(null), json!([]), json!("x"), json!(1), json!({"": null}), json!([[1], {}])] {
        for kind in kinds::ALL {
            let shapes = [
                odd.clone(),
                json!({"metadata": odd, "spec": odd, "status": odd, "data": odd, "rules": odd}),
                json!({"spec": {"template": odd, "containers": [odd], "ports": [odd],
                    "selector": odd, "volumes": [odd]}, "endpoints": [odd], "subsets": [odd]}),
            ];
            for object in &shapes {
                let context = super::Context::default();
                let _ = super::create(kind, object, &context);
                let _ = super::update(kind, object, &odd, &context);
                let _ = super::update(kind, &odd, object, &context);
                let _ = super::update_status(kind, object, object, &context);
            }
        }
    }
}

#[test]
fn config_maps_and_secrets() {
    const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
        '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
        '[-._a-zA-Z0-9]+')";
    let bad_key = format!("data[a/b]: Invalid value: \"a/b\": {KEY}");
    refused(
        &CONFIG_MAPS,
        &named(&CONFIG_MAPS, json!({"data": {"a.b": "c"}, "binaryData": {"x": "AAE="}})),
        &[
            (json!({"data": {"a/b": "c"}}), &[&bad_key]),
            (
                json!({"data": {"..a": "c"}}),
                &["data[..a]: Invalid value: \"..a\": must not start with '..'"],
            ),
            (
                json!({"data": {"x": "c"}}),
                &["data[x]: Invalid value: \"x\": duplicate of key present in binaryData"],
            ),
            (
                json!({"data": {"b": "x".repeat(1 << 20)}}),
                &["[]: Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    refused(
        &SECRETS,
        &named(&SECRETS, json!({"data": {"a": "YQ=="}})),
        &[
            (
                json!({"data": {"a": "not base64!"}}),
                &["data[a]: Invalid value: \"<secret contents redacted>\": must be base64"],
            ),
            (
                json!({"type": "kubernetes.io/tls"}),
                &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson"}),
                &["data[.dockerconfigjson]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}),
                &[],
            ),
        ],
    );
    let fixed = named(&SECRETS, json!({"data": {"a": "YQ=="}, "immutable": true}));
    changed(
        &SECRETS,
        &fixed,
        &json!({"data": {"a": "Yg=="}, "type": "other"}),
        &[
            "type: Invalid value: \"other\": field is immutable",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
    let fixed = named(&CONFIG_MAPS, json!({"data": {"a": "b"}, "immutable": true}));
    changed(&CONFIG_MAPS, &fixed, &json!({"metadata": {"labels": {"a": "b"}}}), &[]);
    changed(
        &CONFIG_MAPS,
        &fixed,
        &json!({"immutable": null}),
        &["immutable: Forbidden: field is immutable when `immutable` is set"],
    );
}

#[test]
fn roles_and_bindings() {
    refused(
        &ROLES,
        &named(
            &ROLES,
            json!({"metadata": {"name": "system:a"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        ),
        &[
            (
                json!({"rules": [{}]}),
                &[
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one \
                     api group",
                    "rules[0].resources: Required value: resource rules must supply at least one \
                     resource",
                ],
            ),
            (
                json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
                &["rules[0].nonResourceURLs: Invalid value: []string{\"/x\"}: namespaced rules \
                   cannot apply to non-resource URLs"],
            ),
            (
                json!({"metadata": {"name": "a/b"}}),
                &["metadata.name: Invalid value: \"a/b\": may not contain '/'"],
            ),
        ],
    );
    let group = "rbac.authorization.k8s.io";
    let binding = named(
        &ROLE_BINDINGS,
        json!({"roleRef": {"apiGroup": group, "kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"},
                {"kind": "User", "name": "u", "apiGroup": group}]}),
    );
    refused(
        &ROLE_BINDINGS,
        &binding,
        &[
            (
                json!({"roleRef": {"kind": "Roll"}}),
                &["roleRef.kind: Unsupported value: \"Roll\": supported values: \"Role\", \
                   \"ClusterRole\""],
            ),
            (
                json!({"subjects": [{"kind": "User", "name": "u"}]}),
                &["subjects[0].apiGroup: Unsupported value: \"\": supported values: \
                   \"rbac.authorization.k8s.io\""],
            ),
        ],
    );
    changed(
        &ROLE_BINDINGS,
        &binding,
        &json!({"roleRef": {"name": "q"}}),
        &["roleRef: Invalid value: rbac.RoleRef{APIGroup:\"rbac.authorization.k8s.io\", \
           Kind:\"Role\", Name:\"q\"}: cannot change roleRef"],
    );
}

#[test]
fn lease_candidates() {
    let spec = json!({"leaseName": "main", "binaryVersion": "1.33.0",
        "emulationVersion": "1.32.0", "strategy": "OldestEmulationVersion"});
    let candidate = named(&LEASE_CANDIDATES, json!({"spec": spec}));
    refused(
        &LEASE_CANDIDATES,
        &candidate,
        &[
            (json!({"spec": {"leaseName": null}}), &["spec.leaseName: Required value"]),
            (json!({"spec": {"binaryVersion": null}}), &["spec.binaryVersion: Required value"]),
            (
                json!({"spec": {"binaryVersion": "1.31.0"}}),
                &[
                    "spec.binaryVersion: Invalid value: \"1.31.0\": must be greater than or equal to \
                   `emulationVersion`",
                ],
            ),
            (
                json!({"spec": {"emulationVersion": "v1"}}),
                &[
                    "spec.emulationVersion: Invalid value: \"v1\": must be a valid semantic version",
                    "spec.emulationVersion: Required value: must be specified when `strategy` is \
                     'OldestEmulationVersion'",
                ],
            ),
            (
                json!({"spec": {"strategy": "Newest"}}),
                &["spec.strategy.strategy: Unsupported value: \"Newest\": supported values: \
                   \"OldestEmulationVersion\""],
            ),
        ],
    );
    changed(
        &LEASE_CANDIDATES,
        &candidate,
        &json!({"spec": {"leaseName": "other"}}),
        &["spec.leaseName: Invalid value: \"other\": field is immutable"],
    );
}

#[test]
fn small_kinds() {
    refused(
        &LEASES,
        &named(&LEASES, json!({"spec": {"leaseDurationSeconds": 15}})),
        &[
            (
                json!({"spec": {"leaseDurationSeconds": 0}}),
                &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
            ),
            (
                json!({"spec": {"leaseTransitions": -1}}),
                &["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    refused(
        &EVENTS,
        &named(&EVENTS, json!({"involvedObject": {"namespace": "default"}})),
        &[(
            json!({"involvedObject": {"namespace": "other"}}),
            &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
        )],
    );
    let node = named(
        &NODES,
        json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "taints":
        [{"key": "a", "effect": "NoSchedule"}]}}),
    );
    refused(
        &NODES,
        &node,
        &[(
            json!({"spec": {"taints": [{"key": "a", "effect": "Never"}]}}),
            &["metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \
               \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""],
        )],
    );
    changed(
        &NODES,
        &node,
        &json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}}),
        &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to \
           valid"],
    );
    let namespace = named(&NAMESPACES, json!({"status": {"phase": "Active"}}));
    status_changed(
        &NAMESPACES,
        &namespace,
        &json!({"status": {"phase": "Terminating"}}),
        &["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if \
           `deletionTimestamp` is empty"],
    );
}
