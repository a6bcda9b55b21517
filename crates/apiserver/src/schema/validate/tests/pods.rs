//! Pods and what makes them.

use serde_json::{Value, json};

use super::{changed, created, good_deployment, good_pod, named, refused, status_changed, with};
use crate::{
    kinds::{DAEMON_SETS, DEPLOYMENTS, PODS, STATEFUL_SETS},
    schema::{defaults, validate::update_ephemeral_containers},
};

/// The good Pod with its only container changed.
fn container(patch: &Value) -> Value {
    let mut pod = good_pod();
    let changed = with(&pod["spec"]["containers"][0], patch);
    pod["spec"]["containers"] = json!([changed]);
    defaults::apply(&PODS, &mut pod);
    pod["spec"].take()
}

#[test]
fn containers_are_refused() {
    let table: &[(Value, &[&str])] = &[
        (json!({"name": null}), &["spec.containers[0].name: Required value"]),
        (json!({"image": null}), &["spec.containers[0].image: Required value"]),
        (
            json!({"image": "a "}),
            &["spec.containers[0].image: Invalid value: \"a \": must not have leading or \
               trailing whitespace"],
        ),
        (
            json!({"imagePullPolicy": "Sometimes"}),
            &["spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported \
               values: \"Always\", \"IfNotPresent\", \"Never\""],
        ),
        (json!({"ports": [{}]}), &["spec.containers[0].ports[0].containerPort: Required value"]),
        (
            json!({"ports": [{"containerPort": 70000}]}),
            &[
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 \
               and 65535, inclusive",
            ],
        ),
        (
            json!({"ports": [{"containerPort": 80, "name": "a-name-that-is-long"}]}),
            &["spec.containers[0].ports[0].name: Invalid value: \"a-name-that-is-long\": must be \
               no more than 15 characters"],
        ),
        (
            json!({"ports": [{"containerPort": 80, "name": "80"}]}),
            &[
                "spec.containers[0].ports[0].name: Invalid value: \"80\": must contain at least one \
               letter (a-z)",
            ],
        ),
        (
            json!({"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]}),
            &["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
        ),
        (
            json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]}),
            &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""],
        ),
        (json!({"env": [{"value": "a"}]}), &["spec.containers[0].env[0].name: Required value"]),
        (
            json!({"env": [{"name": "a=b"}]}),
            &["spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment \
               variable name must consist only of printable ASCII characters other than '='"],
        ),
        (
            json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            &["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \
               \"spec.x\": error converting fieldPath: field label not supported: spec.x"],
        ),
        (
            json!({"env": [{"name": "a", "valueFrom":
                {"fieldRef": {"fieldPath": "metadata.labels['app.io/x']"}}}]}),
            &[],
        ),
        (
            json!({"env": [{"name": "a", "value": "b", "valueFrom":
                {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified \
               when `value` is not empty"],
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
               equal to cpu limit of 1"],
        ),
        (
            json!({"resources": {"requests": {"wheels": "4", "example.com/wheels": "4"}}}),
            &[
                "spec.containers[0].resources.requests[wheels]: Invalid value: wheels: must be a \
                 standard resource type or fully qualified",
                "spec.containers[0].resources.requests[wheels]: Invalid value: wheels: must be a \
                 standard resource for containers",
                "spec.containers[0].resources.limits: Required value: Limit must be set for non \
                 overcommitable resources",
            ],
        ),
        (
            json!({"restartPolicy": "Always"}),
            &["spec.containers[0].restartPolicy: Forbidden: may not be set for non-init \
               containers"],
        ),
    ];
    for (patch, expected) in table {
        created(&PODS, &with(&good_pod(), &json!({"spec": container(patch)})), expected);
    }
}

#[test]
fn probes_are_refused() {
    for (probe, expected) in [
        (json!({"httpGet": {"port": 80}}), &[][..]),
        (json!({"tcpSocket": {"port": "web"}}), &[]),
        (json!({"exec": {"command": ["true"]}}), &[]),
        (
            json!({}),
            &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
        (
            json!({"exec": {"command": []}}),
            &["spec.containers[0].livenessProbe.exec.command: Required value"],
        ),
        (
            json!({"httpGet": {"port": 0}}),
            &[
                "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 \
               and 65535, inclusive",
            ],
        ),
        (
            json!({"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}),
            &[
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 \
               handler type",
            ],
        ),
        (
            json!({"grpc": {"port": 80}, "periodSeconds": -1}),
            &[
                "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater \
               than or equal to 0",
            ],
        ),
        (
            json!({"grpc": {"port": 80}, "successThreshold": 2}),
            &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
    ] {
        let spec = container(&json!({"livenessProbe": probe}));
        created(&PODS, &with(&good_pod(), &json!({"spec": spec})), expected);
    }
}

#[test]
fn pods_are_refused() {
    refused(
        &PODS,
        &good_pod(),
        &[
            (json!({"spec": {"containers": []}}), &["spec.containers: Required value"]),
            (
                json!({"spec": {"restartPolicy": "Maybe"}}),
                &["spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \
                   \"Always\", \"OnFailure\", \"Never\""],
            ),
            (
                json!({"spec": {"activeDeadlineSeconds": 0}}),
                &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and \
                   2147483647, inclusive"],
            ),
            (
                json!({"spec": {"hostname": "a.b"}}),
                &["spec.hostname: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                json!({"spec": {"tolerations": [{"operator": "Equal"}]}}),
                &["spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be \
                   Exists when `key` is empty, which means \"match all values and all keys\""],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}}),
                &["spec.volumes[1].name: Duplicate value: \"v\""],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}}),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "configMap": {"items": [{"key": "a", "path": "../a"}]}}]}}),
                &[
                    "spec.volumes[0].configMap.name: Required value",
                    "spec.volumes[0].configMap.items[0].path: Invalid value: \"../a\": must not \
                     contain '..'",
                ],
            ),
            (
                json!({"spec": {"dnsPolicy": "None"}}),
                &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is \
                   None"],
            ),
        ],
    );
}

#[test]
fn init_containers() {
    let with_init = |init: Value| {
        let mut pod = with(&good_pod(), &json!({"spec": {"initContainers": [init]}}));
        defaults::apply(&PODS, &mut pod);
        pod
    };
    for (init, expected) in [
        (json!({"name": "i", "image": "i"}), &[][..]),
        (
            json!({"name": "s", "image": "s", "restartPolicy": "Always",
                "readinessProbe": {"tcpSocket": {"port": 80}}}),
            &[],
        ),
        (
            json!({"name": "a", "image": "i"}),
            &["spec.initContainers[0].name: Duplicate value: \"a\""],
        ),
        (
            json!({"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 80}}}),
            &["spec.initContainers[0].readinessProbe: Forbidden: may not be set for init \
               containers without restartPolicy=Always"],
        ),
    ] {
        created(&PODS, &with_init(init), expected);
    }
}

#[test]
fn pod_changes() {
    const FROZEN: &str = "spec: Forbidden: pod updates may not change fields other than \
        `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
        `spec.tolerations` (only additions to existing tolerations),\
        `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously \
        negative)\n  changed: ";
    let name = format!("{FROZEN}spec.containers[0].name");
    let grace = format!("{FROZEN}spec.terminationGracePeriodSeconds");
    let old = with(
        &good_pod(),
        &json!({"spec": {"activeDeadlineSeconds": 10,
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300}]}}),
    );
    let one = &good_pod()["spec"]["containers"][0];
    let both = json!([one, with(one, &json!({"name": "b"}))]);
    let table: &[(Value, &[&str])] = &[
        (json!({"metadata": {"labels": {"a": "b"}}}), &[]),
        (json!({"spec": container(&json!({"image": "b:2"}))}), &[]),
        (json!({"spec": container(&json!({"name": "b"}))}), &[&name]),
        (json!({"spec": {"terminationGracePeriodSeconds": 1}}), &[&grace]),
        (json!({"spec": {"activeDeadlineSeconds": 5, "nodeSelector": {}}}), &[]),
        (
            json!({"spec": {"activeDeadlineSeconds": 11}}),
            &["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to \
               previous value"],
        ),
        (
            json!({"spec": {"activeDeadlineSeconds": null}}),
            &[
                "spec.activeDeadlineSeconds: Invalid value: \"null\": must not update from a positive \
               integer to nil value",
            ],
        ),
        (
            json!({"spec": {"tolerations": []}}),
            &["spec.tolerations: Forbidden: existing toleration can not be modified except its \
               tolerationSeconds"],
        ),
        (
            json!({"spec": {"tolerations": [{"operator": "Exists"}, {"key": "a",
                "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}]}}),
            &[],
        ),
        (
            json!({"spec": {"containers": both}}),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
    ];
    for (patch, expected) in table {
        changed(&PODS, &old, patch, expected);
    }
    status_changed(
        &PODS,
        &old,
        &json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}}),
        &["status.podIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than \
           one IP for each IP family"],
    );
    status_changed(&PODS, &old, &json!({"status": {"podIPs": [{"ip": "127.10.0.1"}]}}), &[]);
}

#[test]
fn deployments_are_refused() {
    refused(
        &DEPLOYMENTS,
        &good_deployment(),
        &[
            (
                json!({"spec": {"selector": null}}),
                &[
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"x\"}: \
                   `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"spec": {"selector": {"matchLabels": null}}}),
                &["spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(\
                   nil), MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: empty selector is \
                   invalid for deployment"],
            ),
            (
                json!({"spec": {"selector": {"matchLabels": {"app": "y"}}}}),
                &[
                    "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"x\"}: \
                   `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}}}),
                &[
                    "spec.selector.matchExpressions[0].operator: Invalid value: \"Is\": not a \
                     valid selector operator",
                    "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:\
                     map[string]string{\"app\":\"x\"}, MatchExpressions:\
                     []v1.LabelSelectorRequirement{v1.LabelSelectorRequirement{Key:\"app\", \
                     Operator:\"Is\", Values:[]string(nil)}}}: invalid label selector",
                ],
            ),
            (
                json!({"spec": {"replicas": -1}}),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": null}}}}),
                &["spec.template.spec.containers: Required value"],
            ),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
                &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported \
                   values: \"Always\""],
            ),
            (
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
                &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy \
                   `type` is 'Recreate'"],
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}}),
                &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \
                   intstr.IntOrString{Type:0, IntVal:0, StrVal:\"\"}: may not be 0 when \
                   `maxSurge` is 0"],
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}}),
                &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \
                   intstr.IntOrString{Type:1, IntVal:0, StrVal:\"101%\"}: must not be greater \
                   than 100%"],
            ),
            (
                json!({"spec": {"progressDeadlineSeconds": 5, "minReadySeconds": 5}}),
                &["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than \
                   minReadySeconds"],
            ),
        ],
    );
}

#[test]
fn workload_changes() {
    let old = good_deployment();
    changed(&DEPLOYMENTS, &old, &json!({"spec": {"replicas": 3}}), &[]);
    changed(
        &DEPLOYMENTS,
        &old,
        &json!({"spec": {"selector": {"matchLabels": {"app": "y"}},
            "template": {"metadata": {"labels": {"app": "y"}}}}}),
        &["spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{\"app\":\
           \"y\"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"],
    );
    status_changed(
        &DEPLOYMENTS,
        &old,
        &json!({"status": {"replicas": 1, "readyReplicas": 2}}),
        &["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
    );
    let body = json!({"spec": good_deployment()["spec"]});
    let strip = json!({"spec": {"strategy": null, "progressDeadlineSeconds": null}});
    let set =
        named(&STATEFUL_SETS, with(&with(&body, &strip), &json!({"spec": {"serviceName": "s"}})));
    changed(&STATEFUL_SETS, &set, &json!({"spec": {"replicas": 3}}), &[]);
    changed(
        &STATEFUL_SETS,
        &set,
        &json!({"spec": {"serviceName": "t"}}),
        &["spec: Forbidden: updates to statefulset spec for fields other than 'replicas', \
           'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
           'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"],
    );
    created(&DAEMON_SETS, &named(&DAEMON_SETS, with(&body, &strip)), &[]);
}

#[test]
fn ephemeral_containers_are_only_added() {
    let debug = |name: &str, image: &str| {
        let mut pod = with(
            &good_pod(),
            &json!({"spec": {"ephemeralContainers": [{"name": name, "image": image}]}}),
        );
        defaults::apply(&PODS, &mut pod);
        pod
    };
    for (old, new, expected) in [
        (good_pod(), debug("d", "a"), &[][..]),
        (
            good_pod(),
            debug("a", "a"),
            &["spec.ephemeralContainers[0].name: Duplicate value: \"a\""],
        ),
        (
            debug("d", "a"),
            good_pod(),
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not \
               be removed"],
        ),
        (
            debug("d", "a:1"),
            debug("d", "b:1"),
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not \
               be changed"],
        ),
    ] {
        let causes = update_ephemeral_containers(&PODS, &old, &new, &super::Context::default());
        assert_eq!(super::told(&causes), expected, "{new}");
    }
}
