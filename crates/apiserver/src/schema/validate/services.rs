//! Services.
//!
//! Allocation (`registry::service`) comes first and checks what depends on the cluster: families,
//! ranges, taken addresses and ports.

use serde_json::{Value, json};

use super::{
    Context, address, go, labels,
    report::{IMMUTABLE, Report},
    syntax,
};
use crate::{
    Cause,
    schema::value::{at, int, list, text},
};

const NONE: &str = "None";
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const TRAFFIC_POLICIES: [&str; 2] = ["Cluster", "Local"];
/// The other two are behind a gate in this version.
const DISTRIBUTIONS: [&str; 1] = ["PreferClose"];
/// `core.MaxClientIPServiceAffinitySeconds`: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const MODE: &str = "service.kubernetes.io/topology-mode";

fn is_headless(spec: &Value) -> bool {
    list(spec, &["clusterIPs"])
        .first()
        .map_or(text(spec, &["clusterIP"]), |ip| ip.as_str().unwrap_or_default())
        == NONE
}

fn kind_of(spec: &Value) -> &str {
    text(spec, &["type"])
}

fn needs_health_port(spec: &Value) -> bool {
    kind_of(spec) == "LoadBalancer" && text(spec, &["externalTrafficPolicy"]) == "Local"
}

pub(super) fn service(report: &mut Report, service: &Value) {
    annotations(report, service);
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let ports = list(spec, &["ports"]);
    if ports.is_empty() && !is_headless(spec) && kind_of(spec) != "ExternalName" {
        report.required("spec.ports", "");
    }
    by_type(report, spec);
    for (index, port) in ports.iter().enumerate() {
        service_port(report, ports, index, port);
    }
    labels::labels(report, spec, &["selector"], "spec.selector");
    affinity(report, spec);
    if kind_of(spec) != "ExternalName" {
        addresses(report, spec);
    }
    for (index, ip) in list(spec, &["externalIPs"]).iter().enumerate() {
        let (field, ip) = (format!("spec.externalIPs[{index}]"), ip.as_str().unwrap_or_default());
        if let Some(address) = address::legacy(report, &field, ip) {
            address::endpoint(report, &field, ip, address, &Context::default());
        }
    }
    report.one_of("spec.type", kind_of(spec), &TYPES);
    duplicates(report, ports);
    balancer(report, service, spec);
    traffic(report, spec);
}

fn annotations(report: &mut Report, service: &Value) {
    let annotation = |key: &str| at(service, &["metadata", "annotations", key]);
    if let (Some(mode), Some(hints)) = (annotation(MODE), annotation(HINTS))
        && mode != hints
    {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        report.invalid(format!("metadata.annotations[{MODE}]"), mode, &detail);
    }
}

fn by_type(report: &mut Report, spec: &Value) {
    match kind_of(spec) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => report.invalid(
            "spec.clusterIPs[0]",
            &json!(NONE),
            &format!("may not be set to 'None' for {kind} services"),
        ),
        "ExternalName" => {
            let given = [
                ("clusterIPs", !list(spec, &["clusterIPs"]).is_empty()),
                ("ipFamilies", !list(spec, &["ipFamilies"]).is_empty()),
                ("ipFamilyPolicy", at(spec, &["ipFamilyPolicy"]).is_some()),
            ];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                let detail = "may not be set for ExternalName services";
                report.forbidden(format!("spec.{key}"), detail);
            }
            let name = text(spec, &["externalName"]);
            match name.strip_suffix('.').unwrap_or(name) {
                "" => report.required("spec.externalName", ""),
                name => report.syntax("spec.externalName", name, syntax::dns_subdomain(name)),
            }
        }
        "ClusterIP" => {
            for (index, port) in list(spec, &["ports"]).iter().enumerate() {
                if int(port, &["nodePort"]).unwrap_or(0) != 0 {
                    report.forbidden(
                        format!("spec.ports[{index}].nodePort"),
                        "may not be used when `type` is 'ClusterIP'",
                    );
                }
            }
        }
        _ => {}
    }
}

fn service_port(report: &mut Report, ports: &[Value], index: usize, port: &Value) {
    let field = format!("spec.ports[{index}]");
    let name = text(port, &["name"]);
    if name.is_empty() {
        if ports.len() > 1 {
            report.required(format!("{field}.name"), "");
        }
    } else {
        report.optional(port, &field, "name", syntax::dns_label);
        if ports[..index].iter().any(|other| text(other, &["name"]) == name) {
            report.duplicate(format!("{field}.name"), &json!(name));
        }
    }
    report.port_number(&format!("{field}.port"), int(port, &["port"]).unwrap_or(0));
    report.protocol(&format!("{field}.protocol"), port);
    report.port_or_name(&format!("{field}.targetPort"), at(port, &["targetPort"]));
    report.app_protocol(port, &field);
}

fn affinity(report: &mut Report, spec: &Value) {
    let affinity = text(spec, &["sessionAffinity"]);
    report.one_of("spec.sessionAffinity", affinity, &["ClientIP", NONE]);
    let field = "spec.sessionAffinityConfig";
    match affinity {
        "ClientIP" => {
            let seconds = int(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
            let field = format!("{field}.clientIP.timeoutSeconds");
            match seconds {
                None => report.required(field, "when session affinity type is ClientIP"),
                Some(1..=AFFINITY_SECONDS_MAX) => {}
                Some(seconds) => report.invalid(
                    field,
                    &json!(seconds),
                    &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
                ),
            }
        }
        NONE if at(spec, &["sessionAffinityConfig"]).is_some() => {
            report.forbidden(field, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

pub(super) fn addresses(report: &mut Report, spec: &Value) {
    const IPS: &str = "spec.clusterIPs";
    let one = text(spec, &["clusterIP"]);
    let all = list(spec, &["clusterIPs"]);
    let texts: Vec<&str> = all.iter().map(|ip| ip.as_str().unwrap_or_default()).collect();
    match (one, texts.first()) {
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            report.invalid_shown(IPS, &go::strings(all), detail);
        }
        (one, Some(first)) if one != *first => {
            report.invalid_shown(IPS, &go::strings(all), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = list(spec, &["ipFamilies"]);
    for (index, family) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        if !FAMILIES.iter().any(|known| family == known) {
            report.push(Cause::not_supported(&field, family, &FAMILIES));
        }
        if families[..index].contains(family) {
            report.duplicate(&field, family);
        }
    }
    if let Some(policy) = at(spec, &["ipFamilyPolicy"]).and_then(Value::as_str)
        && !FAMILY_POLICIES.contains(&policy)
    {
        let cause = Cause::not_supported("spec.ipFamilyPolicy", &json!(policy), &FAMILY_POLICIES);
        report.push(cause);
    }
    let before = report.len();
    for (index, ip) in texts.iter().enumerate() {
        if index == 0 && *ip == NONE {
            if texts.len() > 1 {
                let detail = "'None' must be the first and only value";
                report.invalid_shown(IPS, &go::strings(all), detail);
            }
        } else {
            address::legacy(report, &format!("{IPS}[{index}]"), ip);
        }
    }
    if texts.len() > 2 {
        report.invalid_shown(IPS, &go::strings(all), "may only hold up to 2 values");
    }
    if report.len() > before {
        return;
    }
    if texts.len() > 1 && !address::is_dual_stack(&texts) {
        let detail = "may specify no more than one IP for each IP family";
        report.invalid_shown(IPS, &go::strings(all), detail);
    }
    for (index, (ip, family)) in texts.iter().zip(families).enumerate() {
        let is_v4 = address::parse(ip).map(|address| address.is_ipv4());
        let wanted = match family.as_str() {
            Some("IPv4") if is_v4 == Some(false) => "IPv4",
            Some("IPv6") if is_v4 == Some(true) => "IPv6",
            _ => continue,
        };
        let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{index}]`");
        report.invalid(format!("{IPS}[{index}]"), &json!(ip), &detail);
    }
}

fn duplicates(report: &mut Report, ports: &[Value]) {
    let protocol = |port: &Value| text(port, &["protocol"]).to_owned();
    for (index, port) in ports.iter().enumerate() {
        let node_port = int(port, &["nodePort"]).filter(|p| *p != 0);
        let same = |other: &Value| {
            protocol(other) == protocol(port) && int(other, &["nodePort"]) == node_port
        };
        if let Some(number) = node_port
            && ports[..index].iter().any(same)
        {
            report.duplicate(format!("spec.ports[{index}].nodePort"), &json!(number));
        }
        let number = int(port, &["port"]);
        let same =
            |other: &Value| protocol(other) == protocol(port) && int(other, &["port"]) == number;
        if ports[..index].iter().any(same) {
            // As upstream prints its internal type.
            let shown = format!(
                "core.ServicePort{{Name:\"\", Protocol:{:?}, AppProtocol:(*string)(nil), \
                 Port:{}, TargetPort:intstr.IntOrString{{Type:0, IntVal:0, StrVal:\"\"}}, \
                 NodePort:0}}",
                protocol(port),
                number.unwrap_or(0)
            );
            report.push(Cause {
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {shown}"),
                field: format!("spec.ports[{index}]"),
            });
        }
    }
}

fn balancer(report: &mut Report, service: &Value, spec: &Value) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = kind_of(spec) == "LoadBalancer";
    let ranges = list(spec, &["loadBalancerSourceRanges"]);
    if !ranges.is_empty() && !balanced {
        report.forbidden("spec.LoadBalancerSourceRanges", ONLY);
    }
    for (index, range) in ranges.iter().enumerate() {
        if range.as_str().unwrap_or_default().parse::<crate::registry::Cidr>().is_err() {
            report.invalid(format!("spec.LoadBalancerSourceRanges[{index}]"), range, NO_RANGE);
        }
    }
    if let Some(given) = at(service, &["metadata", "annotations", RANGES])
        && ranges.is_empty()
    {
        let field = format!("metadata.annotations[{RANGES}]");
        let text = given.as_str().unwrap_or_default().trim();
        if !balanced {
            report.forbidden(&field, ONLY);
        }
        for range in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
            if range.parse::<crate::registry::Cidr>().is_err() {
                report.invalid(&field, &json!(range), NO_RANGE);
            }
        }
    }
    for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if at(spec, &[key]).is_some() && !balanced {
            report.forbidden(format!("spec.{key}"), ONLY);
        }
    }
    if balanced && let Some(class) = at(spec, &["loadBalancerClass"]).and_then(Value::as_str) {
        report.syntax("spec.loadBalancerClass", class, syntax::qualified_name(class));
    }
}

fn traffic(report: &mut Report, spec: &Value) {
    let kind = kind_of(spec);
    let external = text(spec, &["externalTrafficPolicy"]);
    let reachable = matches!(kind, "LoadBalancer" | "NodePort")
        || kind == "ClusterIP" && !list(spec, &["externalIPs"]).is_empty();
    if reachable {
        report.one_of("spec.externalTrafficPolicy", external, &TRAFFIC_POLICIES);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        report.invalid("spec.externalTrafficPolicy", &json!(external), detail);
    }
    match int(spec, &["healthCheckNodePort"]) {
        None | Some(0) => {}
        Some(port) if needs_health_port(spec) => {
            report.port_number("spec.healthCheckNodePort", port);
        }
        Some(port) => report.invalid(
            "spec.healthCheckNodePort",
            &json!(port),
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
    }
    let internal = at(spec, &["internalTrafficPolicy"]).and_then(Value::as_str);
    if internal.is_some() || TYPES.contains(&kind) && kind != "ExternalName" {
        let internal = internal.unwrap_or_default();
        report.one_of("spec.internalTrafficPolicy", internal, &TRAFFIC_POLICIES);
    }
    if let Some(distribution) = at(spec, &["trafficDistribution"]).and_then(Value::as_str) {
        report.only("spec.trafficDistribution", distribution, &DISTRIBUTIONS);
    }
}

/// What may not change.
pub(super) fn change(report: &mut Report, old: &Value, new: &Value) {
    let (Some(before), Some(after)) = (old.get("spec"), new.get("spec")) else { return };
    if kind_of(before) != "ExternalName" && kind_of(after) != "ExternalName" {
        kept_in_place(report, before, after);
    }
    let class = |spec: &Value| at(spec, &["loadBalancerClass"]).cloned();
    let balanced = |spec: &Value| kind_of(spec) == "LoadBalancer";
    if balanced(before) && balanced(after) && class(before) != class(after) {
        let value = class(after).unwrap_or_else(|| json!("null"));
        report.invalid("spec.loadBalancerClass", &value, "may not change once set");
    }
    let port = |spec: &Value| int(spec, &["healthCheckNodePort"]);
    if needs_health_port(before) && needs_health_port(after) && port(before) != port(after) {
        report.forbidden("spec.healthCheckNodePort", IMMUTABLE);
    }
}

/// Addresses and families stay where they are; a second of each may come and go.
fn kept_in_place(report: &mut Report, before: &Value, after: &Value) {
    const KEPT: &str = "may not change once set";
    if is_headless(before) && is_headless(after) {
        return;
    }
    let (old, new) = (list(before, &["clusterIPs"]), list(after, &["clusterIPs"]));
    for index in differing(old, new) {
        report.invalid_shown(format!("spec.clusterIPs[{index}]"), &go::strings(new), KEPT);
    }
    if is_headless(before) != is_headless(after) {
        return;
    }
    let (old, new) = (list(before, &["ipFamilies"]), list(after, &["ipFamilies"]));
    for _ in differing(old, new) {
        // At the first place, whichever it was.
        report.invalid("spec.ipFamilies[0]", &json!(new), KEPT);
    }
}

/// Where two lists differ: anywhere if they are of one length, else at the start.
fn differing(old: &[Value], new: &[Value]) -> Vec<usize> {
    let looked_at = if old.len() == new.len() { old.len() } else { 1 };
    let pairs = old.iter().zip(new).take(looked_at).enumerate();
    pairs.filter(|(_, (old, new))| old != new).map(|(index, _)| index).collect()
}
