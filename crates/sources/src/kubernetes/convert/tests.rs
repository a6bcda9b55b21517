//! Tables: an object as the API writes it, and the facts that it says.

use std::sync::Arc;

use portolan_dialects::{Dialect, app, list};
use portolan_model::{
    AppProtocol, Code, Conditions, Endpoint, EndpointSlice, Exposure, Fact, Origin, Rejection,
    Service, SessionAffinity, TrafficDistribution, TrafficPolicy, Workload,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::names::Names;

fn parse<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn split(facts: Facts) -> (Vec<Fact>, Vec<Rejection>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (_, fact) in facts {
        match fact {
            Fact::Rejection(rejection) => bad.push(rejection),
            fact => good.push(fact),
        }
    }
    (good, bad)
}

fn codes(rejections: &[Rejection]) -> Vec<Code> {
    rejections.iter().flat_map(|r| r.reasons.iter().map(|reason| reason.code)).collect()
}

fn service_of(spec: Value) -> (Option<Arc<Service>>, Vec<Code>) {
    let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
    let (good, bad) = split(service(&parse(object), &mut Names::default()));
    let service = good.into_iter().find_map(|fact| match fact {
        Fact::Service(service) => Some(service),
        _ => None,
    });
    (service, codes(&bad))
}

#[test]
fn a_whole_service() {
    let object = json!({
        "metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "front"}},
        "spec": {
            "type": "NodePort", "clusterIP": "127.96.0.9", "clusterIPs": ["127.96.0.9", "fd00::9"],
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                {"name": "api", "port": 81, "protocol": "TCP", "appProtocol": "grpc", "nodePort": 0},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
            "selector": {"app": "web"},
            "publishNotReadyAddresses": true,
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "trafficDistribution": "PreferClose",
        },
        "status": {"loadBalancer": {}},
    });
    let (good, bad) = split(service(&parse(object), &mut Names::default()));
    assert_eq!(bad, []);
    let [Fact::Service(service)] = &good[..] else { panic!("{good:?}") };
    assert_eq!(service.key.to_string(), "shop/web");
    assert_eq!(service.exposure, Exposure::ClusterIp);
    assert_eq!(
        service.addresses,
        ["127.96.0.9".parse::<IpAddr>().unwrap(), "fd00::9".parse().unwrap()]
    );
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|p| (&*p.name, p.transport.as_str(), p.port, p.node_port, p.app_protocol.as_str()))
        .collect();
    assert_eq!(
        ports,
        [
            ("http", "TCP", 80, Some(30080), "http"),
            ("api", "TCP", 81, None, "grpc"),
            ("dns", "UDP", 53, None, "udp"),
        ]
    );
    assert!(service.publish_not_ready);
    assert_eq!(service.internal_policy, TrafficPolicy::Local);
    assert_eq!(service.external_policy, TrafficPolicy::Local);
    assert_eq!(service.affinity, SessionAffinity::ClientIp { timeout_seconds: 10_800 });
    assert_eq!(service.distribution, TrafficDistribution::SameZone);
    assert_eq!(&*service.selector["app"], "web");
    assert_eq!(&*service.labels["tier"], "front");
}

#[test]
fn ways_in_from_outside() {
    let object = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.0.0.1", "externalIPs": ["1.2.3.4", "1.2.3.400"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "2.3.4.5"}, {"hostname": "lb.example"}]}},
    });
    let (good, bad) = split(service(&parse(object), &mut Names::default()));
    let [Fact::Service(service)] = &good[..] else { panic!("{good:?}") };
    let outside = service.outside.as_deref().unwrap();
    assert_eq!(outside.addresses, ["1.2.3.4".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(outside.balancers, ["2.3.4.5".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(&*outside.balancer_names[0], "lb.example");
    assert_eq!(codes(&bad), [Code::ADDRESS_INVALID]);
    assert_eq!(service_of(json!({"clusterIP": "10.0.0.1"})).0.unwrap().outside, None);
}

#[test]
fn what_a_cluster_set_shares() {
    let import = |spec: Value| {
        let object = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": spec});
        let (good, bad) = split(service_import(&parse(object), &mut Names::default()));
        let service = good.into_iter().find_map(|fact| match fact {
            Fact::Service(service) => Some(service),
            _ => None,
        });
        (service.unwrap(), codes(&bad))
    };
    let ports = json!([{"name": "sql", "port": 5432}]);
    let (service, bad) =
        import(json!({"type": "ClusterSetIP", "ips": ["10.9.0.1", "x"], "ports": ports}));
    assert_eq!((&service.exposure, service.addresses.len()), (&Exposure::ClusterIp, 1));
    assert_eq!(service.key.origin, Origin::clusterset());
    assert_eq!((service.ports.len(), bad), (1, vec![Code::ADDRESS_INVALID]));
    let (service, _) = import(json!({"type": "Headless"}));
    assert_eq!(service.exposure, Exposure::Headless);

    // A slice speaks for the import, for the Service of its label, or for both.
    let import = "multicluster.kubernetes.io/service-name";
    for (own, expected) in
        [(None, &["clusterset"][..]), (Some("derived"), &["clusterset", "kubernetes"])]
    {
        let mut labels = json!({
            import: "db", "multicluster.kubernetes.io/source-cluster": "west",
        });
        if let Some(own) = own {
            labels["kubernetes.io/service-name"] = json!(own);
        }
        let object = json!({
            "metadata": {"name": "db-x", "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.0.1"], "targetRef": {"kind": "Pod", "name": "p"}}],
        });
        let (good, _) = split(endpoint_slice(&parse(object), &mut Names::default()));
        let slices: Vec<&EndpointSlice> = good
            .iter()
            .filter_map(|fact| match fact {
                Fact::EndpointSlice(slice) => Some(slice),
                _ => None,
            })
            .collect();
        let origins: Vec<&str> = slices.iter().map(|one| one.service.origin.as_str()).collect();
        assert_eq!(origins, expected);
        let imported = &slices[0].endpoints[0];
        assert_eq!(imported.particulars.discriminator.as_deref(), Some("west"));
        assert_eq!(imported.target, None);
    }
}

#[test]
fn exposures() {
    for (spec, expected) in [
        (json!({"clusterIP": "10.0.0.1"}), Some(Exposure::ClusterIp)),
        (json!({"clusterIP": "None"}), Some(Exposure::Headless)),
        (json!({"clusterIP": "None", "clusterIPs": ["None"]}), Some(Exposure::Headless)),
        (
            json!({"type": "ExternalName", "externalName": "db.example.com."}),
            Some(Exposure::ExternalName(portolan_model::name("db.example.com"))),
        ),
        (json!({"type": "ExternalName", "externalName": ""}), None),
        (json!({"type": "ExternalName", "externalName": "a..b"}), None),
        (json!(null), Some(Exposure::ClusterIp)),
    ] {
        let (service, _) = service_of(spec.clone());
        assert_eq!(service.map(|service| service.exposure.clone()), expected, "{spec}");
    }
}

#[test]
fn bad_parts_of_a_service_cost_only_themselves() {
    let ports = |port: Value| json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}, port]});
    for (spec, left, expected) in [
        (ports(json!({"port": 0})), 1, Code::PORT_INVALID),
        (ports(json!({"port": 70000})), 1, Code::PORT_INVALID),
        (ports(json!({"port": 81, "protocol": "QUIC"})), 1, Code::TRANSPORT_UNSUPPORTED),
        (json!({"clusterIP": "10.0.0.300", "ports": [{"port": 80}]}), 1, Code::ADDRESS_INVALID),
    ] {
        let (service, codes) = service_of(spec.clone());
        assert_eq!(service.unwrap().ports.len(), left, "{spec}");
        assert_eq!(codes, [expected], "{spec}");
    }
    let object = json!({"metadata": {"name": "Web_1", "namespace": "shop"}});
    let (good, bad) = split(service(&parse(object), &mut Names::default()));
    assert_eq!((good.len(), codes(&bad)), (0, vec![Code::NAME_INVALID]));
}

fn slice(mut object: Value) -> (Option<EndpointSlice>, Vec<Code>) {
    object["metadata"] = json!({
        "name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
    });
    let (good, bad) = split(endpoint_slice(&parse(object), &mut Names::default()));
    let slice = good.into_iter().find_map(|fact| match fact {
        Fact::EndpointSlice(slice) => Some(slice),
        _ => None,
    });
    (slice, codes(&bad))
}

#[test]
fn a_whole_slice() {
    let (slice, codes) = slice(json!({
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}, {"name": "any", "protocol": "UDP", "port": null}],
        "endpoints": [
            {
                "addresses": ["10.0.0.1", "10.0.0.2"],
                "conditions": {"ready": true, "serving": null},
                "hostname": "web-0", "nodeName": "n1", "zone": "a",
                "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "shop"},
                "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]},
            },
            {
                "addresses": ["10.0.0.3"],
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "targetRef": {"kind": "VirtualMachine", "name": "x"},
                "hints": {"forZones": []},
            },
            {"addresses": ["10.0.0.4"]},
        ],
    }));
    assert_eq!(codes, []);
    let slice = slice.unwrap();
    assert_eq!(slice.service.to_string(), "shop/web");
    let [first, second, third] = &slice.endpoints[..] else { panic!() };
    assert_eq!(first.address.to_string(), "10.0.0.1");
    assert_eq!(first.port("http", portolan_model::Transport::Tcp), Some(8080));
    assert_eq!(first.ports[1].port, None);
    assert_eq!(first.conditions, Conditions::READY);
    assert_eq!(first.particulars.hostname.as_deref(), Some("web-0"));
    assert_eq!((first.node.as_deref(), first.zone.as_deref()), (Some("n1"), Some("a")));
    assert_eq!(first.target.as_ref().unwrap().to_string(), "shop/web-0");
    let hints = first.particulars.hints.as_ref().unwrap();
    assert_eq!((hints.zones.len(), hints.nodes.len()), (1, 1));
    assert_eq!(second.conditions, Conditions { ready: false, serving: true, terminating: true });
    assert_eq!((&second.target, &second.particulars.hints), (&None, &None));
    // Unset conditions mean ready.
    assert_eq!(third.conditions, Conditions::READY);
}

#[test]
fn bad_parts_of_a_slice_cost_only_themselves() {
    let one = |kind: &str, address: &str, port: i64| {
        json!({
            "addressType": kind, "ports": [{"port": 80}, {"name": "b", "port": port}],
            "endpoints": [{"addresses": [address]}],
        })
    };
    for (object, endpoints, expected) in [
        (one("IPv4", "10.0.0.1", 81), 1, vec![]),
        (one("IPv6", "fd00::1", 81), 1, vec![]),
        (one("IPv6", "10.0.0.1", 81), 0, vec![Code::ADDRESS_INVALID]),
        (one("IPv4", "10.0.0.256", 81), 0, vec![Code::ADDRESS_INVALID]),
        (one("FQDN", "db.example.com", 81), 0, vec![Code::ADDRESS_INVALID]),
        (one("IPv4", "10.0.0.1", -1), 1, vec![Code::PORT_INVALID]),
        (json!({"addressType": "IPv4", "ports": null, "endpoints": null}), 0, vec![]),
        (
            json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]}),
            0,
            vec![Code::ADDRESS_INVALID],
        ),
    ] {
        let (slice, codes) = slice(object.clone());
        assert_eq!(slice.unwrap().endpoints.len(), endpoints, "{object}");
        assert_eq!(codes, expected, "{object}");
    }
    let foreign = json!({"metadata": {"name": "x", "namespace": "y"}, "addressType": "IPv4"});
    assert_eq!(endpoint_slice(&parse(foreign), &mut Names::default()), []);
}

#[test]
fn nodes_and_namespaces() {
    let object = json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.1.0.1"},
                {"type": "InternalIP", "address": "nonsense"},
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let facts = node(&parse(object), &mut Names::default());
    let [(_, Fact::Node(node))] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!((&*node.name, node.zone.as_deref(), node.ready), ("n1", Some("a"), true));
    assert_eq!(node.addresses, ["10.1.0.1".parse::<IpAddr>().unwrap()]);
    let object = json!({"metadata": {"name": "shop", "labels": {"a": "b"}}});
    let facts = namespace(&parse(object), &mut Names::default());
    let [(_, Fact::Namespace(namespace))] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!((&*namespace.name, &*namespace.labels["a"]), ("shop", "b"));
}

fn workload_of(status: Value) -> Workload {
    let object = json!({
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web"},
            "annotations": {"portolan.dev/hollow": "true"},
        },
        "spec": {"nodeName": "n1", "serviceAccountName": "default"},
        "status": status,
    });
    let facts = workload(&parse(object), &mut Names::default());
    let Some((_, Fact::Workload(workload))) = facts.into_iter().next() else { panic!() };
    (*workload).clone()
}

#[test]
fn a_whole_pod() {
    let pod = workload_of(json!({
        "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }));
    assert_eq!(pod.name.to_string(), "shop/web-0");
    assert_eq!(pod.addresses.len(), 2);
    assert_eq!((&*pod.uid, pod.node.as_deref()), ("u1", Some("n1")));
    assert_eq!(pod.service_account.as_deref(), Some("default"));
    assert!(pod.ready && pod.hollow && !pod.terminating && pod.not_ready.is_none());
}

#[test]
fn why_a_pod_is_not_ready() {
    let ready = |message: &str| json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": message});
    let waiting = |reason: &str, message: &str| json!([{"name": "c", "state": {"waiting": {"reason": reason, "message": message}}}]);
    for (status, expected) in [
        (json!({"conditions": [ready("m")]}), Some(("ContainersNotReady", "m"))),
        (json!({"phase": "Pending"}), None),
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}]}),
            Some(("Unschedulable", "no node")),
        ),
        (
            json!({"conditions": [ready("m")], "containerStatuses": waiting("CrashLoopBackOff", "back-off 40s")}),
            Some(("CrashLoopBackOff", "PTL0203: container c: back-off 40s")),
        ),
        (
            json!({"conditions": [ready("m")], "containerStatuses": waiting("ImagePullBackOff", "")}),
            Some(("ImagePullBackOff", "container c: ImagePullBackOff")),
        ),
        (
            json!({"conditions": [ready("m")], "containerStatuses": waiting("ContainerCreating", "")}),
            Some(("ContainersNotReady", "m")),
        ),
        (
            json!({"conditions": [ready("PTL0201: found")], "containerStatuses": waiting("CrashLoopBackOff", "b")}),
            Some(("ContainersNotReady", "PTL0201: found")),
        ),
    ] {
        let pod = workload_of(status.clone());
        let said = pod.not_ready.as_deref().map(|pair| (&*pair.0, &*pair.1));
        assert_eq!(said, expected, "{status}");
    }
}

/// A Pod at 10.0.0.5 that carries `annotation` and the label.
fn registered(annotation: &str, changes: Value) -> (Vec<EndpointSlice>, Vec<Rejection>) {
    let mut object = json!({
        "metadata": {
            "name": "reviews-1", "namespace": "demo",
            "labels": {"app.io/label": "app.io-value"},
            "annotations": {"app.io/annotation": annotation},
        },
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Running", "podIP": "10.0.0.5",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    for (pointer, value) in changes.as_object().unwrap() {
        *object.pointer_mut(pointer).unwrap() = value.clone();
    }
    let dialects = Dialect::all();
    let (good, bad) = split(registrations(&parse(object), &dialects, &mut Names::default()));
    let slices = good.into_iter().map(|fact| match fact {
        Fact::EndpointSlice(slice) => slice,
        fact => panic!("{fact:?}"),
    });
    (slices.collect(), bad)
}

fn entry(k: &str, v: &str) -> Value {
    list::item(k.into(), v.into())
}

#[test]
fn what_a_process_registered() {
    let text = list::write(&[
        entry("g/reviews:v1", "http://10.0.0.5:9080/api?methods=get&weight=50&zone=a&team=x"),
        entry("g/reviews:v2", "http://10.0.0.5:9080"),
        entry("ratings", "grpc://10.0.0.5:9090"),
    ]);
    let (slices, bad) = registered(&text, json!({}));
    assert_eq!(bad, []);
    let names: Vec<String> = slices.iter().map(|slice| slice.service.to_string()).collect();
    assert_eq!(names, ["registry:demo/ratings", "registry:demo/reviews"]);
    let [v1, v2] = &slices[1].endpoints[..] else { panic!("{slices:?}") };
    assert_eq!(v1.particulars.discriminator.as_deref(), Some("g/v1"));
    assert_eq!(v2.particulars.discriminator.as_deref(), Some("g/v2"));
    assert_eq!((v1.particulars.weight, v2.particulars.weight), (50, Endpoint::DEFAULT_WEIGHT));
    assert_eq!((v1.node.as_deref(), v1.zone.as_deref()), (Some("n1"), Some("a")));
    assert_eq!(v1.target.as_ref().unwrap().to_string(), "demo/reviews-1");
    assert_eq!((&*v1.ports[0].name, v1.ports[0].port), ("http", Some(9080)));
    assert_eq!(v1.ports[0].app_protocol, Some(AppProtocol::Http));
    let metadata: Vec<String> =
        v1.particulars.metadata.as_ref().unwrap().iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        metadata,
        ["group=g", "methods=get", "path=/api", "protocol=http", "team=x", "version=v1"]
    );
    assert_eq!(slices[0].endpoints[0].ports[0].app_protocol, Some(AppProtocol::Grpc));
    assert_eq!(slices[0].endpoints[0].particulars.discriminator, None);
}

#[test]
fn readiness_is_the_pods_word() {
    let text = list::write(&[entry("reviews", "http://10.0.0.5:9080")]);
    let conditions = |ready, serving, terminating| Conditions { ready, serving, terminating };
    for (changes, expected) in [
        (json!({}), conditions(true, true, false)),
        (json!({"/status/conditions": []}), conditions(false, false, false)),
        (json!({"/status/phase": "Failed"}), conditions(false, false, false)),
        (json!({"/status/podIP": "", "/status/conditions": []}), conditions(false, false, false)),
        (
            json!({"/metadata": {
                "name": "reviews-1", "namespace": "demo", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app.io/label": "app.io-value"}, "annotations": {"app.io/annotation": text},
            }}),
            conditions(false, true, true),
        ),
    ] {
        let (slices, bad) = registered(&text, changes.clone());
        assert_eq!(bad, [], "{changes}");
        assert_eq!(slices[0].endpoints[0].conditions, expected, "{changes}");
    }
}

/// What is said over and below the Pod: an operator's word, the container, the record.
#[test]
fn a_process_says_less_than_its_pod_and_an_operator_more() {
    let conditions = |ready, serving, terminating| Conditions { ready, serving, terminating };
    let up = conditions(true, true, false);
    for (record, container, operator, expected) in [
        ("up", "10", "", (up, 100, false)),
        ("starting", "10", "", (conditions(false, false, false), 100, false)),
        ("draining", "10", "", (conditions(false, true, true), 100, false)),
        ("out_of_service", "10", "", (up, 0, false)),
        ("up", "11", "", (conditions(false, false, false), 100, false)),
        ("draining", "11", "", (conditions(false, false, false), 100, false)),
        // The operator's word stands before the container's, and leaves what it does not concern.
        ("up", "11", "draining", (conditions(false, true, true), 100, false)),
        ("up", "10", "disabled", (up, 100, true)),
        ("up", "11", "reviews=disabled", (up, 100, true)),
        ("up", "10", "other=disabled", (up, 100, false)),
    ] {
        let service = json!({"name": "reviews", "protocol": "http", "port": 80, "state": record});
        let text = json!({"v": 1, "start": "2026-01-01T00:00:10Z", "services": [service]});
        let started = format!("2026-01-01T00:00:{container}Z");
        let (slices, _) = registered(
            "",
            json!({
                "/metadata/annotations": {
                    "registry.portolan.dev/main": text.to_string(),
                    "portolan.dev/override": operator,
                },
                "/status": {
                    "phase": "Running", "podIP": "10.0.0.5",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "main", "state": {"running": {"startedAt": started}}}],
                },
            }),
        );
        let one = &slices[0].endpoints[0];
        let found = (one.conditions, one.particulars.weight, one.particulars.switched_off);
        assert_eq!(found, expected, "{record} {container} {operator}");
    }
}

#[test]
fn a_bad_registration_is_rejected_with_its_code() {
    let good = entry("fine", "http://10.0.0.5:1");
    for (text, slices_left, code, detail) in [
        ("plain text", 0, Code::ANNOTATION_UNREADABLE, "base64"),
        (
            &list::write(&[good.clone(), entry("x", "nonsense")]),
            1,
            Code::REGISTRATION_INVALID,
            "\"x\": ",
        ),
        (
            &list::write(&[good, entry("x", "http://10.0.0.6:1")]),
            1,
            Code::ADDRESS_FOREIGN,
            "x: 10.0.0.6 was registered; the Pod has 10.0.0.5.",
        ),
    ] {
        let (slices, bad) = registered(text, json!({}));
        assert_eq!(slices.len(), slices_left, "{text}");
        let [rejection] = &bad[..] else { panic!("{text} {bad:?}") };
        assert_eq!(
            (&*rejection.kind, rejection.object.to_string().as_str()),
            ("Pod", "demo/reviews-1")
        );
        assert_eq!(rejection.reasons[0].code, code, "{text}");
        assert!(rejection.reasons[0].detail.contains(detail), "{:?}", rejection.reasons);
    }
    assert_eq!(registered("", json!({})), (vec![], vec![]));
    assert_eq!(app::decode("").registrations, []);
}
