//! kubectl, without special flags.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::harness::{apart, eventually, expect, python_deployment, up, up_with, without_faces};

const WEB: &str = include_str!("../../../../examples/web.yaml");

#[test]
fn get_describe_create_edit_and_delete() {
    let up = up(&["--without", "proxy"]);
    up.apply(WEB);
    up.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]);
    let table = up.kubectl(&["get", "pods"]);
    assert!(
        table.starts_with("NAME") && table.contains("1/1") && table.contains("Running"),
        "{table}"
    );
    let wide = up.kubectl(&["get", "pods", "-o", "wide", "-l", "app=web"]);
    assert!(wide.contains("NODE") && wide.contains("portolan"), "{wide}");
    assert!(up.kubectl(&["get", "pods", "-l", "app!=web"]).trim().is_empty());
    let yaml = up.kubectl(&["get", "deployment", "web", "-o", "yaml"]);
    assert!(yaml.contains("kind: Deployment") && yaml.contains("replicas: 2"), "{yaml}");
    assert!(up.kubectl(&["get", "deploy,rs,svc"]).contains("service/web"));
    for noun in ["deployment/web", "service/web", "node/portolan", "namespace/default"] {
        let text = up.kubectl(&["describe", noun]);
        assert!(text.contains("Name:"), "{noun}: {text}");
    }
    let pod = up.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    assert!(up.kubectl(&["describe", "pod", &pod]).contains("example.com/web:1.0"));

    up.kubectl(&["create", "namespace", "shop"]);
    up.kubectl(&["create", "configmap", "settings", "--from-literal=a=1", "-n", "shop"]);
    up.kubectl(&["create", "secret", "generic", "keys", "--from-literal=k=v", "-n", "shop"]);
    up.kubectl(&["create", "serviceaccount", "robot", "-n", "shop"]);
    up.kubectl(&["create", "deployment", "front", "--image=example.com/front", "-n", "shop"]);
    up.kubectl(&["create", "service", "clusterip", "front", "--tcp=80:8080", "-n", "shop"]);
    assert_eq!(
        up.kubectl(&["get", "cm", "settings", "-n", "shop", "-o", "jsonpath={.data.a}"]),
        "1"
    );
    assert_eq!(
        up.kubectl(&["get", "secret", "keys", "-n", "shop", "-o", "jsonpath={.data.k}"]),
        "dg=="
    );

    up.kubectl(&["label", "service", "web", "tier=front"]);
    up.kubectl(&["annotate", "service", "web", "note=hello"]);
    up.kubectl(&[
        "patch",
        "service",
        "web",
        "-p",
        "{\"spec\":{\"ports\":[{\"port\":8081,\"name\":\"http\"}]}}",
    ]);
    up.kubectl(&[
        "patch",
        "service",
        "web",
        "--type=json",
        "-p",
        "[{\"op\":\"replace\",\"path\":\"/metadata/labels/tier\",\"value\":\"back\"}]",
    ]);
    up.kubectl(&[
        "patch",
        "service",
        "web",
        "--type=merge",
        "-p",
        "{\"metadata\":{\"annotations\":{\"note\":null}}}",
    ]);
    let service = up.kubectl(&["get", "service", "web", "-o", "json"]);
    let service: serde_json::Value = serde_json::from_str(&service).unwrap();
    assert_eq!(service["metadata"]["labels"]["tier"], "back");
    assert_eq!(service["metadata"]["annotations"].get("note"), None);
    assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 1, "merged by port: {service}");
    assert_eq!(service["spec"]["ports"][0]["name"], "http");
    assert!(up.kubectl(&["get", "services", "-l", "tier in (back)"]).contains("web"));

    // Applying the same again changes nothing.
    assert!(
        up.apply(WEB)
            .lines()
            .next()
            .is_some_and(|line| line.contains("unchanged") || line.contains("configured"))
    );
    let version = |up: &crate::harness::Up| {
        up.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.metadata.generation}"])
    };
    let before = version(&up);
    up.apply(WEB);
    assert_eq!(version(&up), before);

    up.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);
    assert!(!up.try_kubectl(&["get", "namespace", "shop"]).fine);
    up.kubectl(&["delete", "deployment", "web"]);
    eventually("its Pods are collected", || {
        let left = up.kubectl(&["get", "pods", "-o", "name"]);
        expect(left.trim().to_owned(), String::new())
    });
    let missing = up.try_kubectl(&["get", "pod", "nothing"]);
    assert!(missing.err.contains("NotFound"), "{missing:?}");
}

#[test]
fn watch_shows_each_change() {
    let up = up(&["--without", "proxy"]);
    up.apply(WEB);
    let mut watch =
        up.kubectl_command(&["get", "deployments", "-w"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("NAME"));
    up.kubectl(&["scale", "deployment", "web", "--replicas=4"]);
    loop {
        if next().contains("4/4") {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn rollouts() {
    let up = up(&["--without", "proxy"]);
    up.apply(WEB);
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    up.kubectl(&["set", "image", "deployment/web", "web=example.com/web:2.0"]);
    let status = up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(status.contains("successfully rolled out"), "{status}");
    let history = up.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("1 ") && history.contains("2 "), "{history}");
    let image = || {
        up.kubectl(&[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ])
    };
    assert_eq!(image(), "example.com/web:2.0");
    up.kubectl(&["rollout", "undo", "deployment/web"]);
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(image(), "example.com/web:1.0");

    up.kubectl(&["rollout", "pause", "deployment/web"]);
    up.kubectl(&["set", "image", "deployment/web", "web=example.com/web:3.0"]);
    let running = |image: &str| {
        up.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"])
            .contains(image)
    };
    assert!(!running("web:3.0"), "a paused rollout starts nothing");
    up.kubectl(&["rollout", "resume", "deployment/web"]);
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(running("web:3.0"));
    up.kubectl(&["rollout", "restart", "deployment/web"]);
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let replicas =
        up.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"]);
    assert_eq!(replicas, "2");
}

#[test]
fn logs_follow_a_process() {
    let up = up(&["--without", "proxy"]);
    let script = "import time\nfor n in range(1000):\n    print('line', n, flush=True)\n    time.sleep(0.05)";
    up.apply(&python_deployment("talker", 1, 9000, script));
    eventually("some lines", || {
        let log = up.try_kubectl(&["logs", "deployment/talker"]);
        if log.out.contains("line 3") { Ok(()) } else { Err(format!("{log:?}")) }
    });
    let tail = up.kubectl(&["logs", "deployment/talker", "--tail=1"]);
    assert_eq!(tail.lines().count(), 1, "{tail}");
    let mut follow = up
        .kubectl_command(&["logs", "-f", "deployment/talker"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let seen: Vec<String> = lines.map(Result::unwrap).take(30).collect();
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!(seen[0], "line 0");
    assert_eq!(seen[29], "line 29");
}

#[test]
fn a_cluster_without_a_node_leaves_pods_to_others() {
    let mut flags = apart();
    without_faces(&mut flags);
    flags[0] = "cluster".into();
    let up = up_with(tempfile::tempdir().unwrap(), &flags, &["--ephemeral", "--no-node"]);
    // Only the one of processes outside the cluster, which runs nothing.
    assert_eq!(up.kubectl(&["get", "nodes", "-o", "name"]), "node/external\n");
    up.apply(WEB);
    let pods = ["get", "pods", "-l", "app=web", "-o"];
    let bound = [&pods[..], &["jsonpath={.items[*].spec.nodeName}{.items[*].status.phase}"]];
    eventually("two Pods wait for somebody", || {
        expect(up.kubectl(&bound.concat()).as_str(), "Pending Pending")
    });
    // Whoever sets their status is the kubelet: nobody takes it back.
    let name = up.kubectl(&[&pods[..], &["jsonpath={.items[0].metadata.name}"]].concat());
    let status = "{\"status\":{\"phase\":\"Running\",\"podIP\":\"127.1.1.1\"}}";
    up.kubectl(&["patch", "pod", &name, "--subresource=status", "--type=merge", "-p", status]);
    let phase = up.kubectl(&["get", "pod", &name, "-o", "jsonpath={.status.phase}"]);
    assert_eq!(phase, "Running");
}
