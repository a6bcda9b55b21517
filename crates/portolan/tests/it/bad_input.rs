//! Bad input: a clear error, and nothing is lost.

use std::fs;

use crate::harness::{apart, base64, binary, eventually, expect, run, up, up_with};

#[test]
fn an_object_that_does_not_validate_is_refused_and_not_stored() {
    let up = up(&["--without", "proxy"]);
    let ran = up.kubectl_with(
        &["create", "--validate=false", "-f", "-"],
        "apiVersion: v1
kind: Service
metadata: {name: bad}
spec:
  ports: [{port: 0}, {name: Not_A_Name, port: 70000}]
",
    );
    assert!(!ran.fine, "{ran:?}");
    assert!(
        ran.err.contains("spec.ports[0].port") && ran.err.contains("between 1 and 65535"),
        "{ran:?}"
    );
    let ran = up.kubectl_with(
        &["create", "--validate=false", "-f", "-"],
        "apiVersion: v1
kind: Pod
metadata: {name: bad}
spec: {containers: []}
",
    );
    assert!(!ran.fine && ran.err.contains("spec.containers"), "{ran:?}");
    assert!(!up.try_kubectl(&["get", "service", "bad"]).fine);
    assert!(!up.try_kubectl(&["get", "pod", "bad"]).fine);

    // The causes are there for programs.
    let token = up.kubectl(&["config", "view", "--raw", "-o", "jsonpath={.users[0].user.token}"]);
    let mut post = std::process::Command::new("curl");
    post.args(["-sk", "--noproxy", "*", "-H", &format!("Authorization: Bearer {token}")]);
    post.args(["-H", "Content-Type: application/json", "-d"]);
    post.arg(r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"bad"},"spec":{"ports":[{"port":0}]}}"#);
    post.arg(format!(
        "{}/api/v1/namespaces/default/services",
        up.addresses.api.as_deref().unwrap()
    ));
    let status: serde_json::Value = serde_json::from_str(&run(post, None).out).unwrap();
    assert_eq!(status["code"], 422, "{status}");
    assert_eq!(status["reason"], "Invalid", "{status}");
    let causes = status["details"]["causes"].as_array().unwrap();
    assert!(causes.iter().any(|cause| cause["field"] == "spec.ports[0].port"), "{status}");
}

#[test]
fn an_annotation_that_does_not_decode_costs_only_its_own_instance() {
    let up = up(&["--without", "proxy"]);
    let pod = |name: &str, annotation: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app.io/label: app.io-value, app: rpc}}
  annotations: {{app.io/annotation: \"{annotation}\"}}
spec:
  containers: [{{name: main, image: example.com/rpc:1}}]
"
        )
    };
    up.apply(&pod("plain", "this is plain text, not base64"));
    let why = eventually("a reason", || {
        let ran = up.try_portolan(&["why", "pod/plain"]);
        if ran.out.contains("PTL0001") { Ok(ran) } else { Err(format!("{ran:?}")) }
    });
    assert_eq!(why.code, Some(1));
    assert!(why.out.contains("fix:"), "{why:?}");

    // A good neighbour is served: [{"k":"greeter","v":"tri://ADDRESS:20000"}].
    up.apply(&pod("good", ""));
    let address = eventually("its address", || {
        let ip = up.kubectl(&["get", "pod", "good", "-o", "jsonpath={.status.podIP}"]);
        if ip.is_empty() { Err("none".into()) } else { Ok(ip) }
    });
    let list =
        format!("[{{\"k\":\"greeter:1.0.0\",\"v\":\"tri://{address}:20000?methods=hello\"}}]");
    let encoded = base64(list.as_bytes());
    up.kubectl(&[
        "annotate",
        "pod",
        "good",
        "--overwrite",
        &format!("app.io/annotation={encoded}"),
    ]);
    eventually("the registered instance", || {
        let page = up.api("/v1/instances?origin=registry&service=greeter");
        let items = page["items"].as_array().unwrap();
        expect(items.len(), 1)?;
        expect(items[0]["state"].as_str(), Some("serving"))?;
        expect(items[0]["metadata"]["version"].as_str(), Some("1.0.0"))
    });
    // Mending the bad one by the fix clears its reason.
    let ip = up.kubectl(&["get", "pod", "plain", "-o", "jsonpath={.status.podIP}"]);
    let list = format!("[{{\"k\":\"greeter\",\"v\":\"tri://{ip}:20000\"}}]");
    up.kubectl(&[
        "annotate",
        "pod",
        "plain",
        "--overwrite",
        &format!("app.io/annotation={}", base64(list.as_bytes())),
    ]);
    eventually("both instances", || {
        let page = up.api("/v1/instances?origin=registry&service=greeter");
        expect(page["items"].as_array().unwrap().len(), 2)?;
        let ran = up.try_portolan(&["why", "pod/plain"]);
        if ran.out.contains("PTL0001") { Err(ran.out) } else { Ok(()) }
    });
}

fn refused(flags: &[String], data: &std::path::Path) -> crate::harness::Ran {
    let mut command = std::process::Command::new(binary());
    command.args(flags).arg("--data-dir").arg(data).env("RUST_BACKTRACE", "0");
    run(command, None)
}

#[test]
fn a_port_in_use_is_named_and_ends_with_2() {
    for (flag, udp) in [
        ("--api-listen", false),
        ("--http-listen", false),
        ("--xds-listen", false),
        ("--dns-listen", false),
        ("--dns-listen", true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (address, _tcp, _udp);
        if udp {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            address = socket.local_addr().unwrap().to_string();
            (_tcp, _udp) = (None, Some(socket));
        } else {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            address = socket.local_addr().unwrap().to_string();
            (_tcp, _udp) = (Some(socket), None);
        }
        let mut flags = apart();
        flags.retain(|known| !known.starts_with(flag));
        flags.extend([format!("{flag}={address}"), "--ephemeral".into()]);
        let ran = refused(&flags, &folder.path().join("data"));
        assert_eq!(ran.code, Some(2), "{flag} udp={udp}: {ran:?}");
        assert!(ran.err.contains(&address), "{flag} udp={udp}: {ran:?}");
    }
}

#[test]
fn a_second_up_on_one_data_dir_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let up = up_with(folder, &apart(), &[]);
    let ran = refused(&apart(), &data);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains(&up.pid().to_string()) && ran.err.contains("--data-dir"), "{ran:?}");
    // The first goes on.
    assert!(up.kubectl(&["get", "namespaces"]).contains("default"));
}

#[test]
fn a_torn_store_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let flags = apart();
    let up = up_with(folder, &flags, &["--without", "proxy"]);
    up.kubectl(&["create", "configmap", "keep", "--from-literal=a=b"]);
    let (_, folder) = up.sigterm();
    let data = folder.path().join("data");
    let store = data.join("store").join("portolan.redb");
    let whole = fs::read(&store).unwrap();
    let torn = &whole[..whole.len() / 3];
    fs::write(&store, torn).unwrap();
    let ran = refused(&flags, &data);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains(store.to_str().unwrap()), "{ran:?}");
    assert_eq!(fs::read(&store).unwrap(), torn, "nothing was overwritten");
    // The whole file is taken again.
    fs::write(&store, &whole).unwrap();
    let up = up_with(folder, &flags, &["--without", "proxy"]);
    assert!(up.kubectl(&["get", "configmap", "keep", "-o", "jsonpath={.data.a}"]).contains('b'));
}

#[test]
fn bad_flags_name_what_was_expected() {
    for (args, word) in [
        (&["up", "--pod-cidr", "nonsense"][..], "nonsense"),
        (&["up", "--service-cidr", "127.96.0.0/99"], "127.96.0.0/99"),
        (&["up", "--service-cidr", "127.9.0.0/16", "--pod-cidr", "127.9.1.0/24"], "overlap"),
        (&["up", "--source-file", "svc=x.yaml"], "reserved"),
        (&["up", "--source-file", "plain"], "NAME=FILE"),
        (&["up", "--source-file", "legacy=nothing.yaml"], "nothing.yaml"),
        (&["up", "--http-listen", "0.0.0.0:0", "--ephemeral"], "loopback"),
        (&["up", "--xds-listen", "0.0.0.0:0", "--ephemeral"], "loopback"),
        (&["up", "--api-listen", "0.0.0.0:0", "--ephemeral"], "loopback"),
        (&["wait", "svc/x", "--timeout", "soon"], "30s"),
        (&["get", "nonsense"], "services"),
    ] {
        let mut command = std::process::Command::new(binary());
        let folder = tempfile::tempdir().unwrap();
        command.args(args).current_dir(folder.path()).env("RUST_BACKTRACE", "0");
        let ran = run(command, None);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.contains(word), "{args:?}: {ran:?}");
    }
}
