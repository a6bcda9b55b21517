//! No absence without a reason: each test drives a running system into a state,
//! sees exactly its code, applies the fix, and sees it clear.

use std::{fs, net::TcpListener};

use crate::harness::{Up, base64, eventually, python_deployment, service, up, up_in};

/// Waits until `why TARGET` names the code, and the fix beside it.
fn explained(up: &Up, target: &str, code: &str) {
    eventually(&format!("{code} of {target}"), || {
        let ran = up.try_portolan(&["why", target]);
        let fix = up.portolan(&["explain", code]);
        let fix = fix.lines().last().unwrap().trim_start_matches("fix:").trim().to_owned();
        let named = ran.code == Some(1) && ran.out.contains(code) && ran.out.contains(&fix);
        if named { Ok(()) } else { Err(format!("{ran:?}")) }
    });
}

/// Waits until `why TARGET` no longer names the code.
fn cleared(up: &Up, target: &str, code: &str) {
    eventually(&format!("{code} of {target} to clear"), || {
        let ran = up.try_portolan(&["why", target]);
        if ran.code.is_some() && !ran.out.contains(code) { Ok(()) } else { Err(format!("{ran:?}")) }
    });
}

fn hollow_pod(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, app.io/label: app.io-value}}}}
spec: {{containers: [{{name: main, image: example.com/rpc}}]}}
"
    )
}

fn address_of(up: &Up, pod: &str) -> String {
    eventually("the Pod's address", || {
        let ip = up.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]);
        if ip.is_empty() { Err("none".into()) } else { Ok(ip) }
    })
}

fn annotate(up: &Up, pod: &str, list: &str) {
    let annotation = format!("app.io/annotation={}", base64(list.as_bytes()));
    up.kubectl(&["annotate", "pod", pod, "--overwrite", &annotation]);
}

#[test]
fn registrations() {
    let up = up(&["--without", "proxy"]);
    up.apply(&hollow_pod("rpc"));
    let ip = address_of(&up, "rpc");
    let fine = format!("[{{\"k\":\"greeter\",\"v\":\"tri://{ip}:20000\"}}]");
    for (code, list) in [
        ("PTL0002", "[{\"k\":\"greeter\",\"v\":\"nonsense\"}]".to_owned()),
        ("PTL0003", "[{\"k\":\"greeter\",\"v\":\"tri://127.0.0.1:20000\"}]".to_owned()),
        ("PTL0106", format!("[{{\"k\":\"greeter\",\"v\":\"tri://{ip}:20000?weight=0\"}}]")),
    ] {
        annotate(&up, "rpc", &list);
        explained(&up, "pod/rpc", code);
        annotate(&up, "rpc", &fine);
        cleared(&up, "pod/rpc", code);
    }
    for (code, word) in [("PTL0113", "disabled"), ("PTL0114", "off")] {
        let annotation = format!("portolan.dev/override={word}");
        up.kubectl(&["annotate", "pod", "rpc", "--overwrite", &annotation]);
        explained(&up, "pod/rpc", code);
        up.kubectl(&["annotate", "pod", "rpc", "portolan.dev/override-"]);
        cleared(&up, "pod/rpc", code);
    }
}

#[test]
fn services_and_their_endpoints() {
    let up = up(&["--without", "proxy"]);
    // A Pod that no Service selects.
    up.apply(&hollow_pod("lonely"));
    explained(&up, "pod/lonely", "PTL0101");
    up.apply(&service("lonely", 80));
    cleared(&up, "pod/lonely", "PTL0101");
    // A Service that selects no Pod.
    up.apply(&service("empty", 80));
    explained(&up, "svc/empty", "PTL0105");
    up.apply(&hollow_pod("empty"));
    cleared(&up, "svc/empty", "PTL0105");
    // Endpoints of a Service that does not exist; then endpoints that are not ready.
    let slice = |ready: bool| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: ghost-1, labels: {{kubernetes.io/service-name: ghost}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints: [{{addresses: [\"192.0.2.7\"], conditions: {{ready: {ready}}}}}]
"
        )
    };
    up.apply(&slice(false));
    explained(&up, "svc/ghost", "PTL0102");
    explained(&up, "svc/ghost", "PTL0103");
    up.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: ghost}\nspec: {ports: [{port: 80}]}\n",
    );
    cleared(&up, "svc/ghost", "PTL0102");
    up.apply(&slice(true));
    cleared(&up, "svc/ghost", "PTL0103");
}

#[test]
fn processes() {
    let up = up(&["--without", "proxy"]);
    let sleep = "import time\ntime.sleep(600)";
    let listen = "import os, socket, time
s = socket.create_server((os.environ['POD_IP'], 9000))
time.sleep(600)";
    // Declares a port and does not listen on it.
    up.apply(&python_deployment("deaf", 1, 9000, sleep));
    up.apply(&service("deaf", 9000));
    explained(&up, "svc/deaf", "PTL0205");
    up.apply(&python_deployment("deaf", 1, 9000, listen));
    cleared(&up, "svc/deaf", "PTL0205");
    // A command that does not exist.
    let missing =
        python_deployment("missing", 1, 9000, sleep).replace("\"python3\"", "\"no-such-command\"");
    up.apply(&missing);
    up.apply(&service("missing", 9000));
    explained(&up, "svc/missing", "PTL0204");
    up.apply(&python_deployment("missing", 1, 9000, listen));
    cleared(&up, "svc/missing", "PTL0204");
    // A readiness probe that nothing answers.
    let probe = |port: u16| {
        let plain = python_deployment("probed", 1, 9000, listen);
        format!(
            "{plain}          readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}\n"
        )
    };
    up.apply(&probe(9001));
    up.apply(&service("probed", 9000));
    explained(&up, "svc/probed", "PTL0202");
    up.apply(&probe(9000));
    cleared(&up, "svc/probed", "PTL0202");
    // One that takes its time to end.
    let stubborn = "import os, signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
s = socket.create_server((os.environ['POD_IP'], 9000))
time.sleep(600)";
    up.apply(&python_deployment("stubborn", 1, 9000, stubborn));
    up.apply(&service("stubborn", 9000));
    up.kubectl(&["rollout", "status", "deployment/stubborn", "--timeout=60s"]);
    up.kubectl(&["delete", "deployment", "stubborn", "--wait=false"]);
    explained(&up, "svc/stubborn", "PTL0104");
    cleared(&up, "svc/stubborn", "PTL0104");
    // One that has ended for good.
    up.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: done, labels: {app: done}}
spec:
  restartPolicy: Never
  containers: [{name: main, image: portolan.dev/process, command: [\"true\"]}]
",
    );
    up.apply(&service("done", 80));
    explained(&up, "svc/done", "PTL0108");
}

#[test]
fn virtual_ports() {
    let up = up(&[]);
    // The range's second byte is this test's own: take an address in it.
    let kubernetes = up.cluster_ip("default", "kubernetes");
    let address = kubernetes.rsplit_once('.').map(|(range, _)| format!("{range}.77")).unwrap();
    let taken = TcpListener::bind(format!("{address}:9000")).unwrap();
    up.apply(&hollow_pod("web"));
    up.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: {address}, selector: {{app: web}}, ports: [{{port: 9000}}]}}
"
    ));
    explained(&up, "svc/web", "PTL0302");
    drop(taken);
    cleared(&up, "svc/web", "PTL0302");
    up.apply(
        "apiVersion: v1
kind: Service
metadata: {name: sctp}
spec: {selector: {app: web}, ports: [{port: 9000, protocol: SCTP}]}
",
    );
    explained(&up, "svc/sctp", "PTL0304");
}

#[test]
fn ports_and_faces_that_are_not_there() {
    let up = up(&[]);
    up.apply(&hollow_pod("web"));
    let named = |target: &str| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: {target}}}]}}
"
        )
    };
    up.apply(&named("nosuchport"));
    explained(&up, "svc/web", "PTL0110");
    up.apply(&named("8080"));
    cleared(&up, "svc/web", "PTL0110");

    let absent = up.try_portolan(&["why", "svc/web", "--on", "console"]);
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(absent.out.contains("PTL0306"), "{absent:?}");
    let waited = up.try_portolan(&["wait", "svc/web", "--on", "console", "--timeout", "200ms"]);
    assert_eq!(waited.code, Some(1), "{waited:?}");
}

#[test]
fn traffic_that_stays_on_its_node() {
    let up = up(&["--without", "proxy"]);
    up.apply(
        "apiVersion: v1
kind: Service
metadata: {name: near}
spec: {internalTrafficPolicy: Local, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: near-1, labels: {kubernetes.io/service-name: near}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [\"192.0.2.7\"], nodeName: external, conditions: {ready: true}}]
",
    );
    up.apply(&hollow_pod("client"));
    address_of(&up, "client");
    let from = ["why", "svc/near", "--from", "default/client"];
    eventually("PTL0111", || {
        let ran = up.try_portolan(&from);
        if ran.out.contains("PTL0111") { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    // The fix, word for word.
    up.kubectl(&[
        "patch",
        "service",
        "near",
        "-p",
        "{\"spec\":{\"internalTrafficPolicy\":\"Cluster\"}}",
    ]);
    eventually("PTL0111 to clear", || {
        let ran = up.try_portolan(&from);
        if ran.out.contains("PTL0111") { Err(format!("{ran:?}")) } else { Ok(()) }
    });
}

#[test]
fn virtual_addresses_of_another_network() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = crate::harness::apart();
    flags.retain(|flag| !flag.starts_with("--service-cidr"));
    // A documentation range (RFC 5737): nothing is sent there, binding fails.
    flags.push("--service-cidr=192.0.2.0/24".into());
    let up = crate::harness::up_with(folder, &flags, &["--ephemeral"]);
    explained(&up, "svc/kubernetes", "PTL0303");
}

#[test]
fn pod_addresses_run_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = crate::harness::apart();
    let range = flags.iter().find_map(|flag| flag.strip_prefix("--pod-cidr=")).unwrap().to_owned();
    flags.retain(|flag| !flag.starts_with("--pod-cidr"));
    flags.push(format!("--pod-cidr={}", range.replace("/16", "/30")));
    let up = crate::harness::up_with(folder, &flags, &["--ephemeral", "--without", "proxy"]);
    for pod in ["a", "b", "c"] {
        up.apply(&hollow_pod(pod));
    }
    let without = eventually("a Pod without an address", || {
        let list = up.kubectl(&[
            "get",
            "pods",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}={.status.podIP} {end}",
        ]);
        let with: Vec<&str> = list.split_whitespace().filter(|pod| !pod.ends_with('=')).collect();
        let without = list.split_whitespace().find_map(|pod| pod.strip_suffix('='));
        match (with.len(), without) {
            (2, Some(pod)) => Ok(pod.to_owned()),
            _ => Err(list.clone()),
        }
    });
    up.apply(&service(&without, 80));
    explained(&up, &format!("svc/{without}"), "PTL0206");
    // The fix: delete Pods.
    let victim = ["a", "b", "c"].into_iter().find(|pod| *pod != without).unwrap();
    up.kubectl(&["delete", "pod", victim]);
    cleared(&up, &format!("svc/{without}"), "PTL0206");
}

#[test]
fn static_lists() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.yaml");
    let write = |name: &str, endpoints: &str| {
        let text = format!(
            "services:\n  - name: {name}\n    namespace: shop\n    endpoints: [{endpoints}]\n"
        );
        fs::write(&file, text).unwrap();
    };
    write("billing", "\"127.0.0.1:7001\"");
    let flag = format!("--source-file=legacy={}", file.display());
    let up = up_in(folder, &["--ephemeral", "--without", "proxy", &flag]);
    for (code, endpoints) in [
        ("PTL0005", "\"127.0.0.1:7001\", \"127.0.0.1:70000\""),
        ("PTL0006", "\"127.0.0.1:7001\", \"nowhere:80\""),
    ] {
        write("billing", endpoints);
        explained(&up, "svc/shop/billing", code);
        write("billing", "\"127.0.0.1:7001\"");
        cleared(&up, "svc/shop/billing", code);
    }
    fs::write(
        &file,
        "services:\n  - {name: billing, namespace: shop, endpoints: [\"127.0.0.1:7001\"]}\n  - {name: billing, namespace: shop, endpoints: []}\n",
    )
    .unwrap();
    explained(&up, "svc/shop/billing", "PTL0109");
    write("billing", "\"127.0.0.1:7001\"");
    cleared(&up, "svc/shop/billing", "PTL0109");
}
