//! Sources beyond Kubernetes: static files, and processes outside the cluster.

use std::fs;

use crate::harness::{base64_decoded, eventually, expect, free_port, terminate, up_in};

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

/// The SDK with the rights of a Pod, and no more: its own record, by server-side apply.
#[test]
fn a_pod_registers_natively_and_drains() {
    let up = up_in(tempfile::tempdir().unwrap(), &["--ephemeral", "--without", "proxy"]);
    up.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: main, labels: {app: x}}\nspec:\n  \
         containers: [{name: main, image: any}]\n",
    );
    let address = eventually("the Pod's address", || {
        let path = "jsonpath={.status.podIP}";
        up.kubectl(&["get", "pod", "main", "-o", path])
            .parse::<std::net::IpAddr>()
            .map_err(|e| e.to_string())
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let bound = ["--bound-object-kind=Pod", "--bound-object-name=main"];
    let token = file("token", up.kubectl(&[&["create", "token", "default"], &bound[..]].concat()));
    let of_config = |path: &str| {
        up.kubectl(&[
            "config",
            "view",
            "--raw",
            "-o",
            &format!("jsonpath={{.clusters[0].cluster.{path}}}"),
        ])
    };
    let ca = base64_decoded(&of_config("certificate-authority-data"));
    let ca = file("ca.crt", String::from_utf8(ca).unwrap());
    let server = of_config("server");
    let instance = || up.api("/v1/instances?origin=registry&service=reviews")["items"].clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = portolan_sdk::Registry::builder().namespace("default").pod("main");
        let builder = builder.owner("main").api(server).token_file(token).ca_file(ca);
        let registry = builder.build().await.unwrap();
        let reviews = portolan_sdk::Registration::new("reviews", "http", (address, 9080).into());
        let registered = registry.register(reviews).await.unwrap();
        eventually("the instance", || {
            expect(instance()[0]["state"].as_str().map(str::to_owned), Some("serving".to_owned()))
        });
        let balancer = portolan_sdk::Balancer::new(registry.subscribe("reviews").await.unwrap());
        assert_eq!(balancer.pick().unwrap().socket_address(), (address, 9080).into());
        // A process that asks the server finds the same, by name, by hostname and by node.
        let discovery = portolan_sdk::Discovery::connect(up.http()).unwrap();
        let told = discovery.subscribe("default", "reviews").await.unwrap();
        let told = portolan_sdk::Balancer::new(told);
        assert_eq!(told.pick().unwrap().instance(), balancer.pick().unwrap().instance());
        let host = "reviews.default.registry.cluster.local";
        assert_eq!(discovery.service(host).await.unwrap().unwrap().serving, 1);
        let node = instance()[0]["node"].as_str().unwrap().to_owned();
        let query = portolan_sdk::InstanceQuery {
            port: Some("http".into()),
            host: Some(host.into()),
            ..portolan_sdk::InstanceQuery::on_node(node)
        };
        assert_eq!(discovery.instances(&query).await.unwrap().len(), 1);
        let (done, work) = tokio::sync::oneshot::channel::<()>();
        let deadline = std::time::Duration::from_secs(600);
        let draining = tokio::spawn(registered.drain_while(deadline, async { drop(work.await) }));
        eventually("nobody to call", || match balancer.pick() {
            None => Ok(()),
            Some(pick) => Err(format!("{pick:?}")),
        });
        assert_eq!(instance()[0]["state"], "draining");
        eventually("nobody to call by the server's word", || match told.pick() {
            None => Ok(()),
            Some(pick) => Err(format!("{pick:?}")),
        });
        done.send(()).unwrap();
        draining.await.unwrap().unwrap();
        eventually("nobody at all", || expect(instance().as_array().map(Vec::len), Some(0)));
    });
    let labels = up.kubectl(&["get", "pod", "main", "-o", "jsonpath={.metadata.labels}"]);
    assert_eq!(labels, r#"{"app":"x"}"#, "nothing stays behind");
}

/// Its container has started again since: nobody calls the process that wrote it.
#[test]
fn a_record_older_than_its_container_is_stale() {
    let up = up_in(tempfile::tempdir().unwrap(), &["--ephemeral", "--without", "proxy"]);
    let record = |start: &str| {
        let service = r#"{"name":"reviews","protocol":"http","port":9080}"#;
        format!(r#"{{"v":1,"inc":"a","start":"{start}","services":[{service}]}}"#)
    };
    up.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: main\n  annotations: \
         {{registry.portolan.dev/app: '{}'}}\nspec:\n  containers: [{{name: app, image: any}}]\n",
        record("2020-01-01T00:00:00Z")
    ));
    let instance = || up.api("/v1/instances?origin=registry&service=reviews")["items"].clone();
    let state = || instance()[0]["state"].as_str().map(str::to_owned);
    eventually("the reason", || {
        let why = format!("{:?}", up.try_portolan(&["why", "pod/main"]));
        if why.contains("PTL0112") { Ok(()) } else { Err(why) }
    });
    assert_ne!(state().as_deref(), Some("serving"));
    // The process that runs now writes its own.
    let own = format!("registry.portolan.dev/app={}", record("2100-01-01T00:00:00Z"));
    up.kubectl(&["annotate", "--overwrite", "pod", "main", &own]);
    eventually("it serves", || expect(state(), Some("serving".to_owned())));
}
