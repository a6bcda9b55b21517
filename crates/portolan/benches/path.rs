//! How long a change takes from the API to those who ask: a write to an
//! EndpointSlice until DNS answers with it, and `kubectl scale` until the new
//! Pod answers through the virtual IP.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;

/// Writes that are measured; every fifth one of a hundred decides the p99.
const WRITES: u32 = 500;
const SCALES: usize = 9;

fn main() {
    // Both a server and a client of TLS live in this build: name the provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let up = common::up();
    write_to_dns(&up);
    scale_to_traffic(&up);
}

fn write_to_dns(up: &common::Up) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let slices = runtime.block_on(async {
        let kubeconfig =
            Kubeconfig::read_from(up.addresses.kubeconfig.as_deref().unwrap()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let api = |group: &str, kind: &str, plural: &str| -> Api<DynamicObject> {
            let gvk = GroupVersionKind::gvk(group, "v1", kind);
            Api::default_namespaced_with(
                client.clone(),
                &ApiResource::from_gvk_with_plural(&gvk, plural),
            )
        };
        let services = api("", "Service", "services");
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "probe"},
            "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
        });
        services
            .create(&PostParams::default(), &serde_json::from_value(service).unwrap())
            .await
            .unwrap();
        let slices = api("discovery.k8s.io", "EndpointSlice", "endpointslices");
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "probe", "labels": {"kubernetes.io/service-name": "probe"}},
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["127.91.200.0"]}],
        });
        slices
            .create(&PostParams::default(), &serde_json::from_value(slice).unwrap())
            .await
            .unwrap();
        slices
    });
    let mut taken_ms = Vec::new();
    for number in 0..WRITES {
        // Idle: the write does not come in the wake of another.
        std::thread::sleep(Duration::from_millis(5));
        let [_, _, high, low] = (number + 1).to_be_bytes();
        let address = Ipv4Addr::new(127, 91, 201 + high, low);
        let patch = Patch::Merge(json!({"endpoints": [{"addresses": [address.to_string()]}]}));
        let start = Instant::now();
        let write = runtime.spawn({
            let slices = slices.clone();
            async move { slices.patch("probe", &PatchParams::default(), &patch).await.unwrap() }
        });
        while up.lookup("probe.default.svc.cluster.local") != [address] {
            assert!(start.elapsed() < Duration::from_secs(10), "{address} never came");
        }
        taken_ms.push(start.elapsed().as_secs_f64() * 1e3);
        runtime.block_on(write).unwrap();
    }
    common::report("path.write_to_dns_p50", common::percentile(&mut taken_ms, 50.0), "ms");
    common::report("path.write_to_dns_p99", common::percentile(&mut taken_ms, 99.0), "ms");
}

fn scale_to_traffic(up: &common::Up) {
    let run = |args: &[&str]| {
        let output = up.kubectl(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["create", "deployment", "web", "--image=example.com/web", "--port=8081"]);
    run(&["expose", "deployment", "web", "--port=8081"]);
    let address = run(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let pods =
        |calls: usize| -> BTreeSet<String> { (0..calls).filter_map(|_| call(&address)).collect() };
    let mut from_start_ms = Vec::new();
    let mut from_end_ms = Vec::new();
    for _ in 0..SCALES {
        run(&["scale", "deployment", "web", "--replicas=1"]);
        settle(|| pods(4).len() == 1);
        let start = Instant::now();
        run(&["scale", "deployment", "web", "--replicas=2"]);
        let end = Instant::now();
        settle(|| pods(2).len() == 2);
        from_start_ms.push(start.elapsed().as_secs_f64() * 1e3);
        from_end_ms.push(end.elapsed().as_secs_f64() * 1e3);
    }
    common::report("path.scale_to_traffic", common::percentile(&mut from_start_ms, 50.0), "ms");
    common::report(
        "path.scale_to_traffic_after_kubectl",
        common::percentile(&mut from_end_ms, 50.0),
        "ms",
    );
}

fn settle(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "never settled");
    }
}

/// The Pod that answers through the virtual IP.
fn call(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect((address, 8081)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().last().map(ToOwned::to_owned)
}
