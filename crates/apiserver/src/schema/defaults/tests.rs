//! Defaults, table-driven: what comes in, what comes out.

use serde_json::{Value, json};

use super::{admit_pod, apply};
use crate::kinds::{self, Kind};

fn check(kind: &Kind, mut input: Value, expected: Value) {
    apply(kind, &mut input);
    assert_eq!(input, expected);
    let once = input.clone();
    apply(kind, &mut input);
    assert_eq!(input, once, "a second run changes nothing");
}

fn template_spec() -> Value {
    json!({
        "containers": [{"name": "a", "image": "a", "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "resources": {}}],
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler",
    })
}

#[test]
fn pods() {
    check(
        &kinds::PODS,
        json!({"spec": {
            "terminationGracePeriodSeconds": 0,
            "serviceAccount": "robot",
            "containers": [{"name": "a", "image": "a:1",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}}),
        json!({"spec": {
            "terminationGracePeriodSeconds": 0,
            "serviceAccount": "robot", "serviceAccountName": "robot",
            "containers": [{"name": "a", "image": "a:1", "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
                    "failureThreshold": 3},
                "env": [{"name": "IP", "valueFrom":
                    {"fieldRef": {"fieldPath": "status.podIP", "apiVersion": "v1"}}}]}],
            "volumes": [{"name": "v", "emptyDir": {}},
                {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
                {"name": "p", "projected": {"defaultMode": 420, "sources":
                    [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "schedulerName": "default-scheduler", "enableServiceLinks": true},
            "status": {}}),
    );
}

#[test]
fn admission_of_pods() {
    let mut pod = json!({"spec": {"containers": [{"name": "a"}], "tolerations":
        [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]},
        "status": {"phase": "Running"}});
    admit_pod(&mut pod);
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

#[test]
fn services() {
    check(
        &kinds::SERVICES,
        json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}}),
        json!({"spec": {
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80},
                {"port": 53, "protocol": "UDP", "targetPort": "dns"}],
            "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"},
            "status": {"loadBalancer": {}}}),
    );
    check(
        &kinds::SERVICES,
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true},
            "status": {"loadBalancer": {}}}),
    );
    check(
        &kinds::SERVICES,
        json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}),
        json!({"spec": {"type": "ExternalName", "externalName": "a.example",
            "sessionAffinity": "None"}, "status": {"loadBalancer": {}}}),
    );
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "a"}]}});
    let filled = json!({"spec": template_spec(), "metadata": {}});
    check(
        &kinds::DEPLOYMENTS,
        json!({"spec": {"template": template}}),
        json!({"spec": {"template": filled, "replicas": 1,
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}, "status": {}}),
    );
    check(
        &kinds::DEPLOYMENTS,
        json!({"spec": {"template": template, "replicas": 0, "strategy": {"type": "Recreate"}}}),
        json!({"spec": {"template": filled, "replicas": 0, "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}, "status": {}}),
    );
    check(
        &kinds::REPLICA_SETS,
        json!({"spec": {"template": template}}),
        json!({"spec": {"template": filled, "replicas": 1}, "status": {"replicas": 0}}),
    );
    check(
        &kinds::DAEMON_SETS,
        json!({"spec": {"template": template}}),
        json!({"spec": {"template": filled, "updateStrategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}, "revisionHistoryLimit": 10},
            "status": {"currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0}}),
    );
    check(
        &kinds::STATEFUL_SETS,
        json!({"spec": {"template": template}}),
        json!({"spec": {"template": filled, "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy":
                {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "replicas": 1, "revisionHistoryLimit": 10},
            "status": {"replicas": 0, "availableReplicas": 0}}),
    );
}

#[test]
fn small_kinds() {
    check(
        &kinds::NAMESPACES,
        json!({"metadata": {"name": "a"}}),
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
            "status": {"phase": "Active"}}),
    );
    check(&kinds::SECRETS, json!({}), json!({"type": "Opaque"}));
    check(
        &kinds::ENDPOINT_SLICES,
        json!({"ports": [{"port": 80}], "endpoints": []}),
        json!({"ports": [{"port": 80, "name": "", "protocol": "TCP"}], "endpoints": []}),
    );
    check(
        &kinds::ENDPOINTS,
        json!({"subsets": [{"ports": [{"port": 80}]}]}),
        json!({"subsets": [{"ports": [{"port": 80, "protocol": "TCP"}]}]}),
    );
    check(
        &kinds::ROLE_BINDINGS,
        json!({"roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"},
                {"kind": "ServiceAccount", "name": "s"}]}),
    );
    // Odd types are left for the type check to name.
    check(&kinds::PODS, json!({"spec": 3}), json!({"spec": 3}));
    check(&kinds::SERVICES, json!([]), json!([]));
}
