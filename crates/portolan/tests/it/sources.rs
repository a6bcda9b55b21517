//! Sources beyond Kubernetes: static files, and processes outside the cluster.

use std::fs;

use crate::harness::{eventually, expect, free_port, terminate, up_in};

#[test]
fn a_static_list_is_a_source_that_reloads_and_keeps_its_last_good_state() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("legacy.yaml");
    let list = |addresses: &str| {
        format!("services:\n  - name: billing\n    namespace: shop\n    endpoints: [{addresses}]\n")
    };
    fs::write(&file, list("\"127.0.0.1:7001\"")).unwrap();
    let flag = format!("--source-file=legacy={}", file.display());
    let up = up_in(folder, &["--ephemeral", "--without", "proxy", &flag]);
    let ports = || -> Vec<u64> {
        let page = up.api("/v1/instances?origin=legacy&namespace=shop&service=billing");
        page["items"].as_array().unwrap().iter().filter_map(|one| one["port"].as_u64()).collect()
    };
    eventually("one instance", || expect(ports(), vec![7001]));
    assert_eq!(up.dig("billing.shop.legacy.cluster.local", "A"), ["127.0.0.1"]);
    fs::write(&file, list("\"127.0.0.1:7001\", \"127.0.0.1:7002\"")).unwrap();
    eventually("two instances", || expect(ports(), vec![7001, 7002]));
    // A broken file takes nothing away, and says where it is broken.
    fs::write(&file, "services:\n  - name: [\n").unwrap();
    eventually("the reason", || {
        let sources = up.try_portolan(&["get", "sources"]);
        let status = up.api("/v1/status");
        let why = up.try_portolan(&["why", "svc/billing", "-n", "shop"]);
        let text = format!("{sources:?} {status} {why:?}");
        if text.contains("PTL0007") || text.contains("line") { Ok(()) } else { Err(text) }
    });
    assert_eq!(ports(), [7001, 7002]);
    fs::write(&file, list("\"127.0.0.1:7003\"")).unwrap();
    eventually("the mended list", || expect(ports(), vec![7003]));
}

#[test]
fn a_process_outside_the_cluster_registers_while_it_lives() {
    let up = crate::harness::up(&["--without", "proxy"]);
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let mut register = std::process::Command::new(crate::harness::binary())
        .args(["register", "greeter", "--address", &address, "--interface-version", "2.0.0"])
        .args(["--kubeconfig", up.addresses.kubeconfig.as_deref().unwrap()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let instance = || up.api("/v1/instances?origin=registry&service=greeter")["items"].clone();
    // Nobody listens yet: it is known and not served.
    eventually("the instance", || expect(instance().as_array().map(Vec::len), Some(1)));
    assert_ne!(instance()[0]["state"], "serving");
    let listener = std::net::TcpListener::bind(&address).unwrap();
    eventually("readiness by connection", || {
        expect(instance()[0]["state"].as_str().map(str::to_owned), Some("serving".to_owned()))
    });
    assert_eq!(instance()[0]["metadata"]["version"], "2.0.0");
    drop(listener);
    terminate(register.id());
    register.wait().unwrap();
    eventually("nothing left", || expect(instance().as_array().map(Vec::len), Some(0)));
}
