//! Tables: objects in, cells out.

use serde_json::{Value, json};

use super::{columns, human_duration, row};
use crate::kinds::{self, Kind};

/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;
/// Five minutes before.
const CREATED: &str = "2025-12-31T23:55:00Z";

fn check(kind: &Kind, mut object: Value, expected: &[Value]) {
    let metadata = object.as_object_mut().unwrap().entry("metadata").or_insert(json!({}));
    metadata["name"] = json!("x");
    metadata["creationTimestamp"] = json!(CREATED);
    assert_eq!(row(kind, &object, NOW), expected, "{kind:?} {object}");
}

#[test]
fn every_kind_has_a_cell_for_every_column() {
    for kind in kinds::ALL {
        for object in [json!({}), json!({"spec": 1, "status": [], "metadata": null}), json!(null)] {
            // Upstream has a cell too many there.
            let more = usize::from(kind.plural == "ipaddresses");
            assert_eq!(row(kind, &object, NOW).len(), columns(kind).len() + more, "{kind:?}");
        }
        assert_eq!(columns(kind).iter().filter(|c| c.format == "name").count(), 1, "{kind:?}");
    }
}

#[test]
fn durations() {
    for (seconds, text) in [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (8 * 365 * 86400, "8y"),
    ] {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
}

/// Ready, Status and Restarts of a Pod.
fn pod(spec: &Value, status: &Value, deleted: bool, expected: [&str; 3]) {
    let mut pod = json!({"metadata": {"name": "x"}, "spec": spec, "status": status});
    if deleted {
        pod["metadata"]["deletionTimestamp"] = json!(CREATED);
    }
    assert_eq!(row(&kinds::PODS, &pod, NOW)[1..4], expected.map(|t| json!(t)), "{pod}");
}

#[test]
fn states_of_pods() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let starting = json!({"name": "b", "restartCount": 0,
        "state": {"waiting": {"reason": "ContainerCreating"}}});
    let ended = |reason: &str, code: u8, signal: u8| {
        json!({"name": "b", "restartCount": 0,
            "state": {"terminated": {"reason": reason, "exitCode": code, "signal": signal}}})
    };
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status =
        |phase: &str, statuses: Value| json!({"phase": phase, "containerStatuses": statuses});
    for (status, expected) in [
        (json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
        (json!({"phase": "Failed", "reason": "Evicted"}), ["0/2", "Evicted", "0"]),
        (status("Running", json!([running, running])), ["2/2", "Running", "0"]),
        (status("Pending", json!([running, starting])), ["1/2", "ContainerCreating", "0"]),
        (status("Succeeded", json!([ended("Completed", 0, 0)])), ["0/2", "Completed", "0"]),
        (status("Failed", json!([ended("Error", 1, 0)])), ["0/2", "Error", "0"]),
        (status("Failed", json!([ended("", 3, 0)])), ["0/2", "ExitCode:3", "0"]),
        (status("Failed", json!([ended("", 137, 9)])), ["0/2", "Signal:9", "0"]),
        (status("Running", json!([running, ended("Completed", 0, 0)])), ["1/2", "NotReady", "0"]),
        (
            json!({"phase": "Running", "conditions": ready,
                "containerStatuses": [running, ended("Completed", 0, 0)]}),
            ["1/2", "Running", "0"],
        ),
        (
            json!({"phase": "Pending", "conditions":
                [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            ["0/2", "SchedulingGated", "0"],
        ),
        (
            status(
                "Running",
                json!([{"restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": CREATED}}}]),
            ),
            ["0/2", "CrashLoopBackOff", "4 (5m ago)"],
        ),
    ] {
        pod(&two, &status, false, expected);
    }
    let run = status("Running", json!([running, running]));
    pod(&two, &run, true, ["2/2", "Terminating", "0"]);
    pod(&two, &json!({"phase": "Running", "reason": "NodeLost"}), true, ["0/2", "Unknown", "0"]);
    let done = status("Succeeded", json!([ended("Completed", 0, 0)]));
    pod(&two, &done, true, ["0/2", "Completed", "0"]);
}

#[test]
fn initialising_pods() {
    let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"},
        {"name": "s", "restartPolicy": "Always"}]});
    let through = json!({"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}});
    let sidecar = json!({"name": "s", "restartCount": 1, "started": true, "ready": true,
        "state": {"running": {}}});
    for (init, expected) in [
        (json!([{"name": "i", "state": {"running": {}}}]), ["0/2", "Init:0/2", "0"]),
        (
            json!([through, {"name": "s", "state": {"waiting": {"reason": "PodInitializing"}}}]),
            ["0/2", "Init:1/2", "2"],
        ),
        (
            json!([{"name": "i", "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            ["0/2", "Init:CrashLoopBackOff", "3"],
        ),
        (
            json!([{"name": "i", "state": {"terminated": {"exitCode": 1}}}]),
            ["0/2", "Init:ExitCode:1", "0"],
        ),
        (
            json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
            ["0/2", "Init:Error", "0"],
        ),
        (json!([through, sidecar]), ["1/2", "Running", "1"]),
    ] {
        let phase = if expected[1] == "Running" { "Running" } else { "Pending" };
        pod(&spec, &json!({"phase": phase, "initContainerStatuses": init}), false, expected);
    }
}

#[test]
fn wide_columns_of_pods() {
    check(
        &kinds::PODS,
        json!({"spec": {"nodeName": "n", "readinessGates": [{"conditionType": "a"},
            {"conditionType": "b"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "b", "status": "True"}]}}),
        &[
            json!("x"),
            json!("0/0"),
            json!("Running"),
            json!("0"),
            json!("5m"),
            json!("10.0.0.1"),
            json!("n"),
            json!("<none>"),
            json!("1/2"),
        ],
    );
}

#[test]
fn services() {
    for (object, expected) in [
        (
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1",
                "clusterIPs": ["10.0.0.1"], "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            ["ClusterIP", "10.0.0.1", "<none>", "80/TCP,53/UDP", "5m", "a=1,b=2"],
        ),
        (
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"],
                "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]}}),
            ["NodePort", "10.0.0.1", "<none>", "80:30000/TCP", "5m", "<none>"],
        ),
        (
            json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"]}}),
            ["LoadBalancer", "10.0.0.1", "<pending>", "<none>", "5m", "<none>"],
        ),
        (
            json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"],
                "externalIPs": ["9.9.9.9"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "1.a"}]}}}),
            ["LoadBalancer", "10.0.0.1", "1.a,2.2.2.2,9.9.9.9", "<none>", "5m", "<none>"],
        ),
        (
            json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
            ["ExternalName", "<none>", "a.b", "<none>", "5m", "<none>"],
        ),
    ] {
        let mut cells = vec![json!("x")];
        cells.extend(expected.map(|cell| json!(cell)));
        check(&kinds::SERVICES, object, &cells);
    }
}

#[test]
fn endpoints() {
    let ips = |count: u8| -> Value {
        (1..=count).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect()
    };
    for (subsets, cell) in [
        (json!([]), "<none>"),
        (json!([{"addresses": ips(2)}]), "10.0.0.1,10.0.0.2"),
        (json!([{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]), "[fd00::1]:80"),
        (
            json!([{"addresses": ips(2), "ports": [{"port": 80}, {"port": 81}]}]),
            "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...",
        ),
        (json!([{"notReadyAddresses": ips(1), "ports": [{"port": 80}]}]), ""),
    ] {
        let row = [json!("x"), json!(cell), json!("5m")];
        check(&kinds::ENDPOINTS, json!({"subsets": subsets}), &row);
    }
    for (slice, ports, addresses) in [
        (json!({"addressType": "IPv4"}), "<unset>", "<unset>"),
        (
            json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "a"}, {}],
                "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3"]},
                    {"addresses": ["4"]}]}),
            "80,a,*",
            "1,2,3 + 1 more...",
        ),
    ] {
        let row = [json!("x"), json!("IPv4"), json!(ports), json!(addresses), json!("5m")];
        check(&kinds::ENDPOINT_SLICES, slice, &row);
    }
}

#[test]
fn workloads() {
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"b": "1"},
        "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]},
            {"key": "c", "operator": "DoesNotExist"}]},
        "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}});
    let status = json!({"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2});
    let object = json!({"spec": spec, "status": status});
    let selector = "a in (x,y),b=1,!c";
    check(
        &kinds::DEPLOYMENTS,
        object.clone(),
        &[
            json!("x"),
            json!("1/3"),
            json!(2),
            json!(0),
            json!("5m"),
            json!("a,b"),
            json!("i,j"),
            json!(selector),
        ],
    );
    check(
        &kinds::REPLICA_SETS,
        object,
        &[
            json!("x"),
            json!(3),
            json!(2),
            json!(1),
            json!("5m"),
            json!("a,b"),
            json!("i,j"),
            json!(selector),
        ],
    );
}

#[test]
fn the_rest() {
    let created = || json!("5m");
    check(
        &kinds::NODES,
        json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "",
                "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}],
                "nodeInfo": {"kubeletVersion": "v1.33.0"},
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}}),
        &[
            json!("x"),
            json!("NotReady,SchedulingDisabled"),
            json!("control-plane,worker"),
            created(),
            json!("v1.33.0"),
            json!("127.0.0.1"),
            json!("<none>"),
            json!("<unknown>"),
            json!("<unknown>"),
            json!("<unknown>"),
        ],
    );
    check(
        &kinds::EVENTS,
        json!({"type": "Normal", "reason": "Killing", "message": " Stopping \n",
            "involvedObject": {"kind": "Pod", "name": "a", "fieldPath": "spec"},
            "source": {"component": "kubelet", "host": "here"}, "eventTime": CREATED}),
        &[
            json!("5m"),
            json!("Normal"),
            json!("Killing"),
            json!("pod/a"),
            json!("spec"),
            json!("kubelet, here"),
            json!("Stopping"),
            json!("5m"),
            json!(1),
            json!("x"),
        ],
    );
    let data = json!({"data": {"a": "", "b": ""}, "binaryData": {"c": ""}, "type": "Opaque"});
    check(&kinds::CONFIG_MAPS, data.clone(), &[json!("x"), json!(3), created()]);
    check(&kinds::SECRETS, data, &[json!("x"), json!("Opaque"), json!(2), created()]);
    let subjects = json!([{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"},
        {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]);
    check(
        &kinds::ROLE_BINDINGS,
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": subjects}),
        &[json!("x"), json!("Role/r"), created(), json!("u, v"), json!(""), json!("n/s")],
    );
    check(&kinds::ROLES, json!({}), &[json!("x"), json!(CREATED)]);
    check(
        &kinds::IP_ADDRESSES,
        json!({"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}}),
        &[json!("x"), json!("services/n/s"), created()],
    );
    check(
        &kinds::CONTROLLER_REVISIONS,
        json!({"revision": 2, "metadata": {"ownerReferences": [{"controller": true, "name": "d",
            "apiVersion": "apps/v1", "kind": "DaemonSet"}]}}),
        &[json!("x"), json!("daemonset.apps/d"), json!(2), created()],
    );
}
