//! What a server takes that knows 100,000 registered instances, and while it lists them anew.

use std::{fs, time::Duration};

use futures_util::{StreamExt, stream};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use portolan_sdk::{Discovery, InstanceQuery};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    common,
    world::{NAMESPACE, World},
};

/// Services that each Pod registers.
const SERVICES_EACH: usize = 10;
/// Changes that the API remembers here.
const HISTORY: usize = 1_000;
const AT_ONCE: usize = 64;
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn measure(pods: usize) {
    let world = World::with_history(HISTORY).await;
    let discovery = Discovery::connect(&world.http).unwrap();
    let (empty, _) = dns_load::resident_kib(world.server_pid()).unwrap();
    let made = stream::iter(0..pods).map(|number| registered(&world, number));
    made.buffer_unordered(AT_ONCE).collect::<()>().await;
    let last = format!("com.example.shop.Service{:04}", pods - 1);
    known(&discovery, &last).await;
    // What the growth left behind is given back within some seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (resident, _) = dns_load::resident_kib(world.server_pid()).unwrap();
    let mib = |kib: u64| kib as f64 / 1024.0;
    common::report("registry.resident_empty", mib(empty), "MiB");
    let instances = pods * SERVICES_EACH / 1_000;
    common::report(&format!("registry.resident_{instances}k"), mib(resident), "MiB");

    // Held while the API forgets where it was, the server has to list everything anew.
    let pid = Pid::from_raw(i32::try_from(world.server_pid()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let configs = world.api("ConfigMap", "configmaps");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "churn"}});
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    configs.create(&PostParams::default(), &object).await.unwrap();
    let churn = stream::iter(0..3 * HISTORY).map(|number| {
        let configs = configs.clone();
        async move {
            let patch = Patch::Merge(json!({"data": {"n": number.to_string()}}));
            configs.patch("churn", &PatchParams::default(), &patch).await.unwrap();
        }
    });
    churn.buffer_unordered(AT_ONCE).collect::<()>().await;
    registered(&world, pods).await;
    // Forgets the peak.
    fs::write(format!("/proc/{}/clear_refs", world.server_pid()), "5").unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    known(&discovery, &format!("com.example.shop.Service{pods:04}")).await;
    let (_, peak) = dns_load::resident_kib(world.server_pid()).unwrap();
    common::report("registry.relist_peak", peak as f64 / resident as f64, "x");
}

/// A Pod that has registered ten services: one of its own name, and nine that many share.
async fn registered(world: &World, number: usize) {
    let ip = std::net::Ipv4Addr::from(0x0ac8_0000 + u32::try_from(number).unwrap());
    let services: Vec<_> = (0..SERVICES_EACH)
        .map(|which| {
            let name = match which {
                0 => format!("com.example.shop.Service{number:04}"),
                _ => format!("com.example.shop.Common{:03}", (number + which * 37) % 500),
            };
            json!({"name": name, "protocol": "grpc", "port": 8000 + which, "version": "1.0.0",
                "methods": ["Get", "List", "Put"]})
        })
        .collect();
    let record = json!({"v": 1, "inc": format!("{number:032x}"), "start": "2026-01-01T00:00:00Z",
        "services": services});
    let name = format!("checkout-7d9c5b6f4-{number:05}");
    let annotations = json!({"registry.portolan.dev/main": record.to_string()});
    world.pod_with(&name, ip, annotations).await;
    world.ready(&name, ip).await;
}

/// Waits until the server serves an instance of a service.
async fn known(discovery: &Discovery, service: &str) {
    let service = Some(format!("registry:{NAMESPACE}/{service}"));
    let query = InstanceQuery { service, ..InstanceQuery::default() };
    let looks = async {
        loop {
            let found = discovery.instances(&query).await.unwrap_or_default();
            if found.iter().any(|one| one.state == "serving") {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), looks).await.expect("known in time");
}
