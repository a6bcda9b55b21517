//! Services, Endpoints, EndpointSlices, IPAddresses, ServiceCIDRs.

use serde_json::{Value, json};

use super::{super::Context, changed, create, created, named, refused, status_changed, told, with};
use crate::kinds::{ENDPOINT_SLICES, ENDPOINTS, IP_ADDRESSES, SERVICE_CIDRS, SERVICES};

fn service() -> Value {
    named(&SERVICES, json!({"spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}}))
}

fn ports(ports: Value) -> Value {
    let mut object = named(&SERVICES, json!({"spec": {"ports": ports}}));
    json!({"spec": {"ports": object["spec"]["ports"].take()}})
}

#[test]
fn services_are_refused() {
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
        characters or '-', and must start and end with an alphanumeric character (e.g. \
        'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let name = format!("spec.ports[0].name: Invalid value: \"Web\": {LABEL}");
    refused(
        &SERVICES,
        &service(),
        &[
            (json!({"spec": {"ports": []}}), &["spec.ports: Required value"]),
            (json!({"spec": {"ports": [], "clusterIP": "None", "clusterIPs": ["None"]}}), &[]),
            (
                ports(json!([{"port": 0, "targetPort": 1}])),
                &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                ports(json!([{"port": 80, "targetPort": 65536}])),
                &["spec.ports[0].targetPort: Invalid value: 65536: must be between 1 and 65535, \
                   inclusive"],
            ),
            (
                ports(json!([{"port": 80, "targetPort": "a--b"}])),
                &["spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain \
                   consecutive hyphens"],
            ),
            (ports(json!([{"port": 80, "name": "Web"}])), &[&name]),
            (
                ports(json!([{"port": 80}, {"port": 81}])),
                &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
            ),
            (
                ports(json!([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}])),
                &["spec.ports[1].name: Duplicate value: \"a\""],
            ),
            (
                ports(json!([{"port": 80, "name": "a"}, {"port": 80, "name": "b"}])),
                &["spec.ports[1]: Duplicate value: core.ServicePort{Name:\"\", Protocol:\"TCP\", \
                   AppProtocol:(*string)(nil), Port:80, TargetPort:intstr.IntOrString{Type:0, \
                   IntVal:0, StrVal:\"\"}, NodePort:0}"],
            ),
            (
                ports(
                    json!([{"port": 53, "name": "a"}, {"port": 53, "name": "b", "protocol": "UDP"}]),
                ),
                &[],
            ),
            (
                ports(json!([{"port": 80, "protocol": "HTTP"}])),
                &["spec.ports[0].protocol: Unsupported value: \"HTTP\": supported values: \
                   \"SCTP\", \"TCP\", \"UDP\""],
            ),
            (
                ports(json!([{"port": 80, "nodePort": 30000}])),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"spec": {"type": "Balanced"}}),
                &["spec.type: Unsupported value: \"Balanced\": supported values: \"ClusterIP\", \
                   \"ExternalName\", \"LoadBalancer\", \"NodePort\""],
            ),
            (
                json!({"spec": {"sessionAffinity": "Cookie"}}),
                &["spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \
                   \"ClientIP\", \"None\""],
            ),
            (
                json!({"spec": {"sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}}),
                &[
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must \
                   be greater than 0 and less than 86400",
                ],
            ),
            (
                json!({"spec": {"clusterIP": "10.0.0.300", "clusterIPs": ["10.0.0.300"]}}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"10.0.0.300\": must be a valid IP address, \
                   (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}}),
                &["spec.clusterIPs: Invalid value: []string{\"10.0.0.1\", \"10.0.0.2\"}: may \
                   specify no more than one IP for each IP family"],
            ),
            (
                json!({"spec": {"ipFamilies": ["IPv5"]}}),
                &["spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \
                   \"IPv6\""],
            ),
            (
                json!({"spec": {"externalTrafficPolicy": "Local"}}),
                &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for \
                   externally-accessible services"],
            ),
            (
                json!({"spec": {"externalIPs": ["127.0.0.1"], "externalTrafficPolicy": "Local"}}),
                &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback \
                   range (127.0.0.0/8, ::1/128)"],
            ),
            (
                json!({"spec": {"selector": {"app": "a b"}}}),
                &["spec.selector: Invalid value: \"a b\": a valid label must be an empty string \
                   or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                   with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
                   regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"],
            ),
            (
                json!({"spec": {"trafficDistribution": "Near"}}),
                &["spec.trafficDistribution: Unsupported value: \"Near\": supported values: \
                   \"PreferClose\""],
            ),
        ],
    );
}

#[test]
fn external_names() {
    let external = |name: Value| {
        named(&SERVICES, json!({"spec": {"type": "ExternalName", "externalName": name}}))
    };
    refused(
        &SERVICES,
        &external(json!("example.com.")),
        &[
            (json!({"spec": {"externalName": null}}), &["spec.externalName: Required value"]),
            (
                json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}}),
                &["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
            ),
        ],
    );
}

#[test]
fn service_types_that_others_make() {
    for body in [
        json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}}),
        json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}],
            "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}),
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "http", "targetPort": "web",
            "appProtocol": "kubernetes.io/h2c"}], "ipFamilyPolicy": "PreferDualStack"}}),
    ] {
        created(&SERVICES, &named(&SERVICES, body), &[]);
    }
}

#[test]
fn names_of_services_start_with_a_letter() {
    created(
        &SERVICES,
        &with(&service(), &json!({"metadata": {"name": "1a"}})),
        &["metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case \
           alphanumeric characters or '-', start with an alphabetic character, and end with an \
           alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
           '[a-z]([-a-z0-9]*[a-z0-9])?')"],
    );
}

#[test]
fn service_changes() {
    let dual = named(
        &SERVICES,
        json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
            "ports": [{"port": 80}], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}}),
    );
    let moved = "Invalid value: []string{\"fd00::1\", \"10.0.0.1\"}: may not change once set";
    let families =
        "spec.ipFamilies[0]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set";
    changed(
        &SERVICES,
        &dual,
        &json!({"spec": {"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.0.0.1"],
            "ipFamilies": ["IPv6", "IPv4"]}}),
        &[
            &format!("spec.clusterIPs[0]: {moved}"),
            &format!("spec.clusterIPs[1]: {moved}"),
            families,
            families,
        ],
    );
    let balanced = named(
        &SERVICES,
        json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}}),
    );
    changed(&SERVICES, &balanced, &json!({"spec": {"ports": []}}), &["spec.ports: Required value"]);
    changed(
        &SERVICES,
        &balanced,
        &json!({"spec": {"loadBalancerClass": "a/b", "healthCheckNodePort": 30002}}),
        &[
            "spec.loadBalancerClass: Invalid value: \"a/b\": may not change once set",
            "spec.healthCheckNodePort: Forbidden: field is immutable",
        ],
    );
    let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3"}]}}});
    status_changed(
        &SERVICES,
        &balanced,
        &ingress,
        &["status.loadBalancer.ingress[0].ip: Invalid value: \"1.2.3\": must be a valid IP \
           address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
    );
    status_changed(
        &SERVICES,
        &service(),
        &ingress,
        &["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \
           'LoadBalancer'"],
    );
}

fn slice(kind: &str, addresses: Value) -> Value {
    named(
        &ENDPOINT_SLICES,
        json!({"addressType": kind, "endpoints": [{"addresses": addresses}],
            "ports": [{"name": "http", "port": 80}]}),
    )
}

#[test]
fn slices_are_refused() {
    let many: Vec<Value> = vec![json!({"addresses": ["10.0.0.1"]}); 1001];
    refused(
        &ENDPOINT_SLICES,
        &slice("IPv4", json!(["10.0.0.1"])),
        &[
            (json!({"addressType": null}), &["addressType: Required value"]),
            (
                json!({"addressType": "IPv5"}),
                &["addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \
                   \"IPv4\", \"IPv6\""],
            ),
            (
                json!({"endpoints": [{"addresses": []}]}),
                &["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                json!({"endpoints": [{"addresses": ["fd00::1"]}]}),
                &["endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address"],
            ),
            (
                json!({"endpoints": many}),
                &["endpoints: Too many: 1001: must have at most 1000 items"],
            ),
            (
                json!({"ports": [{"name": "", "protocol": "TCP"}, {"name": "", "protocol": "TCP"}]}),
                &["ports[1].name: Duplicate value: \"\""],
            ),
            (
                json!({"endpoints": [{"addresses": ["10.0.0.1"], "hostname": "a.b"}]}),
                &["endpoints[0].hostname: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                json!({"endpoints": [{"addresses": ["10.0.0.1"],
                    "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}]}),
                &["endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""],
            ),
        ],
    );
    let old = slice("IPv4", json!(["10.0.0.1"]));
    changed(
        &ENDPOINT_SLICES,
        &old,
        &json!({"addressType": "FQDN"}),
        &["addressType: Invalid value: \"FQDN\": field is immutable"],
    );
}

#[test]
fn addresses_of_endpoints() {
    const LOOPBACK: &str = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
    const LINK: &str = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
    const MULTICAST: &str =
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
    const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    for (kind, address, expected) in [
        ("IPv4", "10.0.0.1", None),
        ("IPv4", "010.000.00.1", None),
        ("IPv4", "127.9.0.1", Some(LOOPBACK)),
        ("IPv4", "127.10.0.1", None),
        ("IPv4", "0.0.0.0", Some("may not be unspecified (0.0.0.0)")),
        ("IPv4", "169.254.1.1", Some(LINK)),
        ("IPv4", "224.0.0.1", Some(MULTICAST)),
        ("IPv4", "224.1.0.1", None),
        ("IPv4", "10.0.0", Some(NO_IP)),
        ("IPv4", "", Some(NO_IP)),
        ("IPv6", "fd00::1", None),
        ("IPv6", "::1", Some(LOOPBACK)),
        ("IPv6", "fe80::1", Some(LINK)),
        ("IPv6", "ff02::1", Some(MULTICAST)),
        ("IPv6", "fd00:0::1", Some("must be in canonical form (\"fd00::1\")")),
        ("IPv6", "::ffff:10.0.0.1", Some("must not be an IPv4-mapped IPv6 address")),
        ("FQDN", "example.com", None),
        ("FQDN", "com", Some("should be a domain with at least two segments separated by dots")),
    ] {
        let cidrs = ["127.10.0.0/16".parse().unwrap()];
        let context = Context { pod_cidrs: &cidrs };
        let causes = create(&ENDPOINT_SLICES, &slice(kind, json!([address])), &context);
        let expected: Vec<String> = expected
            .into_iter()
            .map(|e| format!("endpoints[0].addresses[0]: Invalid value: {address:?}: {e}"))
            .collect();
        assert_eq!(told(&causes), expected);
    }
}

#[test]
fn endpoints_are_refused() {
    let base = named(
        &ENDPOINTS,
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1", "nodeName": "n"}],
            "ports": [{"port": 80}]}]}),
    );
    refused(
        &ENDPOINTS,
        &base,
        &[
            (
                json!({"subsets": [{"ports": [{"port": 80, "protocol": "TCP"}]}]}),
                &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
            ),
            (
                json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}),
                &["subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the \
                   loopback range (127.0.0.0/8, ::1/128)"],
            ),
            (
                json!({"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [
                    {"port": 80, "protocol": "TCP"}, {"port": 0, "name": "a", "protocol": "TCP"}]}]}),
                &[
                    "subsets[0].ports[0].name: Required value",
                    "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, \
                     inclusive",
                ],
            ),
        ],
    );
}

#[test]
fn addresses_and_ranges() {
    let address = named(
        &IP_ADDRESSES,
        json!({"metadata": {"name": "10.0.0.1"},
            "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "x"}}}),
    );
    refused(
        &IP_ADDRESSES,
        &address,
        &[
            (json!({"spec": {"parentRef": null}}), &["spec.parentRef: Required value"]),
            (
                json!({"metadata": {"name": "010.0.0.1"}}),
                &["metadata.name: Invalid value: \"010.0.0.1\": must not have leading 0s"],
            ),
        ],
    );
    let cidr = named(&SERVICE_CIDRS, json!({"spec": {"cidrs": ["10.96.0.0/16"]}}));
    refused(
        &SERVICE_CIDRS,
        &cidr,
        &[
            (
                json!({"spec": {"cidrs": []}}),
                &["spec.cidrs: Required value: at least one CIDR required"],
            ),
            (
                json!({"spec": {"cidrs": ["10.96.0.1/16"]}}),
                &["spec.cidrs[0]: Invalid value: \"10.96.0.1/16\": must not have bits set beyond \
                   the prefix length"],
            ),
            (
                json!({"spec": {"cidrs": ["10.96.0.0/16", "10.97.0.0/16"]}}),
                &["spec.cidrs: Invalid value: []string{\"10.96.0.0/16\", \"10.97.0.0/16\"}: may \
                   specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                   2001:db8::/64"],
            ),
        ],
    );
    changed(
        &SERVICE_CIDRS,
        &cidr,
        &json!({"spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}}),
        &[],
    );
    changed(
        &SERVICE_CIDRS,
        &cidr,
        &json!({"spec": {"cidrs": ["10.97.0.0/16"]}}),
        &["spec.cidrs[0]: Invalid value: \"10.97.0.0/16\": field is immutable"],
    );
}
