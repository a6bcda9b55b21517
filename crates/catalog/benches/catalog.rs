//! Figures of the catalog at scale, as JSON lines for `cargo xtask bench`.
//!
//! 10,000 services x 10 endpoints in 200 namespaces: the size that the budgets
//! name. Times are CPU time of this thread per operation, the median of several
//! rounds, so that a busy machine does not decide the result.

#![allow(clippy::print_stdout)]

use std::{net::Ipv4Addr, sync::Arc};

use portolan_catalog::{Catalog, Hub};
use portolan_model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Fact, FactKey, ObjectName, Origin,
    Service, ServiceKey, ServicePort, SourceId, SourceReport, Transport, Version, Workload, name,
};

const NAMESPACES: u32 = 200;
const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
const ROUNDS: usize = 9;
const CHANGES: u32 = 200;

fn main() {
    let with_pods = std::env::args().any(|argument| argument == "--with-pods");
    let before = resident_bytes();
    let hub = Hub::new(Version::first(1));
    let mut catalog = Catalog::new(hub.clone());
    for namespace in 0..NAMESPACES {
        catalog.apply(load(namespace, with_pods), 1);
    }
    let endpoints: usize = hub.snapshot().services().map(|entry| entry.endpoints.len()).sum();
    assert_eq!(endpoints, (SERVICES * ENDPOINTS) as usize);
    let resident = |label: &str| {
        let bytes = resident_bytes().saturating_sub(before);
        report(label, bytes as f64 / 1_048_576.0, "MiB");
    };
    resident("catalog.memory_100k_endpoints");
    for round in 0..1_100 {
        catalog.apply([change(round % SERVICES, round)], 1);
    }
    resident("catalog.memory_with_full_history");

    let mut change_us = Vec::new();
    let mut diff_us = Vec::new();
    for round in 0..ROUNDS {
        let first = hub.snapshot();
        let start = cpu_us();
        for step in 0..CHANGES {
            let service = (step * 37) % SERVICES;
            catalog.apply([change(service, u32::try_from(round).unwrap_or(0) + step)], 1);
        }
        change_us.push((cpu_us() - start) / f64::from(CHANGES));
        drop(first);
        let before = hub.snapshot();
        catalog.apply([change(5, 7_000 + u32::try_from(round).unwrap_or(0))], 1);
        let after = hub.snapshot();
        let start = cpu_us();
        let mut found = 0;
        for _ in 0..CHANGES {
            found += before.diff(&after).services.len();
        }
        diff_us.push((cpu_us() - start) / f64::from(CHANGES));
        assert_eq!(found, CHANGES as usize);
    }
    report("catalog.change_at_10k_services", median(change_us), "us");
    report("catalog.diff_at_10k_services", median(diff_us), "us");
}

/// CPU time of this thread, in microseconds.
#[allow(clippy::cast_precision_loss)]
fn cpu_us() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"}}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn say(key: FactKey, fact: Fact) -> SourceReport {
    SourceReport {
        source: SourceId::new("kubernetes"),
        revision: name(""),
        observed_at_ms: 1,
        event: Event::Sighting { part: name("all"), key, fact: Box::new(fact) },
    }
}

/// Everything of one namespace.
fn load(namespace: u32, with_pods: bool) -> Vec<SourceReport> {
    let mut reports = Vec::new();
    for service in (0..SERVICES).filter(|service| service % NAMESPACES == namespace) {
        let key = ServiceKey::kubernetes(&format!("ns-{namespace}"), &format!("svc-{service}"));
        let declared = Service {
            addresses: vec![Ipv4Addr::from(0x7f60_0000 + service).into()],
            ports: vec![ServicePort {
                name: name("http"),
                transport: Transport::Tcp,
                port: 80,
                node_port: None,
                app_protocol: portolan_model::AppProtocol::Http,
            }],
            ..Service::bare(key.clone())
        };
        reports.push(say(FactKey::Service(key.clone()), Fact::Service(declared.into())));
        reports.push(slice(service, 0));
        if with_pods {
            reports.extend((0..ENDPOINTS).map(|number| pod(service, number)));
        }
    }
    reports
}

fn slice(service: u32, ready_from: u32) -> SourceReport {
    let namespace = format!("ns-{}", service % NAMESPACES);
    let ports: Arc<[EndpointPort]> = Arc::new([EndpointPort {
        name: name("http"),
        transport: Transport::Tcp,
        port: Some(8080),
        app_protocol: None,
    }]);
    let endpoints = (0..ENDPOINTS)
        .map(|number| {
            let ready = number >= ready_from;
            Arc::new(Endpoint {
                conditions: if ready { Conditions::READY } else { Conditions::NOT_READY },
                target: Some(ObjectName::new(&namespace, &pod_name(service, number))),
                node: Some(name(&format!("node-{}", number % 100))),
                zone: Some(name("zone-a")),
                ..Endpoint::new(address(service, number).into(), ports.clone())
            })
        })
        .collect();
    let object = ObjectName::new(&namespace, &format!("svc-{service}-abcde"));
    let service = ServiceKey::kubernetes(&namespace, &format!("svc-{service}"));
    say(
        FactKey::EndpointSlice(Origin::kubernetes(), object),
        Fact::EndpointSlice(EndpointSlice { service, endpoints }),
    )
}

fn pod(service: u32, number: u32) -> SourceReport {
    let object =
        ObjectName::new(&format!("ns-{}", service % NAMESPACES), &pod_name(service, number));
    let workload = Workload {
        name: object.clone(),
        uid: name("00000000-0000-0000-0000-000000000000"),
        addresses: vec![address(service, number).into()],
        node: Some(name("node-1")),
        service_account: Some(name("default")),
        phase: name("Running"),
        ready: true,
        terminating: false,
        not_ready: None,
        hollow: false,
        labels: Arc::default(),
    };
    say(FactKey::Workload(object), Fact::Workload(workload.into()))
}

fn pod_name(service: u32, number: u32) -> String {
    format!("svc-{service}-5d9c7b8f4d-{number:05}")
}

fn address(service: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + service * 16 + number)
}

/// One change: the first endpoint of a service turns ready or not.
fn change(service: u32, step: u32) -> SourceReport {
    slice(service, 1 + step % 2)
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
