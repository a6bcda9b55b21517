//! EndpointSlices and Endpoints.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    Context, address,
    report::{IMMUTABLE, Report},
    syntax,
};
use crate::{
    Cause,
    schema::value::{at, int, list, text},
};

// Limits of `pkg/apis/discovery/validation`.
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

pub(super) fn slice(
    report: &mut Report,
    old: Option<&Value>,
    slice: &Value,
    context: &Context<'_>,
) {
    let kind = text(slice, &["addressType"]);
    report.one_of("addressType", kind, &ADDRESS_TYPES);
    slice_ports(report, list(slice, &["ports"]));
    let endpoints = list(slice, &["endpoints"]);
    // What is stored already stays as it is.
    if old.is_some_and(|old| list(old, &["endpoints"]) == endpoints) {
        return;
    }
    if endpoints.len() > ENDPOINTS_MAX {
        return report.push(Cause::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        slice_endpoint(report, kind, &format!("endpoints[{index}]"), endpoint, context);
    }
}

/// The address type stays.
pub(super) fn slice_change(report: &mut Report, old: &Value, new: &Value) {
    let (before, after) = (text(old, &["addressType"]), text(new, &["addressType"]));
    if before != after {
        report.invalid("addressType", &json!(after), IMMUTABLE);
    }
}

fn slice_ports(report: &mut Report, ports: &[Value]) {
    if ports.len() > PORTS_MAX {
        return report.push(Cause::too_many("ports", ports.len(), PORTS_MAX));
    }
    for (index, port) in ports.iter().enumerate() {
        let field = format!("ports[{index}]");
        report.optional(port, &field, "name", syntax::dns_label);
        let name = text(port, &["name"]);
        if ports[..index].iter().any(|other| text(other, &["name"]) == name) {
            report.duplicate(format!("{field}.name"), &json!(name));
        }
        report.known_protocol(&format!("{field}.protocol"), port);
        report.app_protocol(port, &field);
    }
}

fn slice_endpoint(
    report: &mut Report,
    kind: &str,
    base: &str,
    endpoint: &Value,
    context: &Context<'_>,
) {
    let field = format!("{base}.addresses");
    let addresses = list(endpoint, &["addresses"]);
    match addresses.len() {
        0 => report.required(&field, "must contain at least 1 address"),
        1..=ADDRESSES_MAX => {}
        many => report.push(Cause::too_many(&field, many, ADDRESSES_MAX)),
    }
    for (index, value) in addresses.iter().enumerate() {
        let text = value.as_str().unwrap_or_default();
        let item = format!("{field}[{index}]");
        match kind {
            "IPv4" => {
                if let Some(ip) = address::legacy(report, &item, text) {
                    if !ip.is_ipv4() {
                        report.invalid(&field, value, "must be an IPv4 address");
                    }
                    address::endpoint(report, &item, text, ip, context);
                }
            }
            "IPv6" => {
                let messages = address::canonical(text);
                let valid = messages.is_empty();
                report.syntax(&item, text, messages);
                if let Some(ip) = address::parse(text).filter(|_| valid) {
                    if ip.is_ipv4() {
                        report.invalid(&field, value, "must be an IPv6 address");
                    }
                    address::endpoint(report, &item, text, ip, context);
                }
            }
            "FQDN" => domain_name(report, &item, text),
            _ => {}
        }
    }
    for (key, rule) in [
        ("nodeName", syntax::dns_subdomain as fn(&str) -> Vec<String>),
        ("hostname", syntax::dns_label),
    ] {
        if let Some(name) = at(endpoint, &[key]).and_then(Value::as_str) {
            report.syntax(&format!("{base}.{key}"), name, rule(name));
        }
    }
    hints(report, endpoint, &format!("{base}.hints"));
}

fn domain_name(report: &mut Report, field: &str, text: &str) {
    if text.is_empty() {
        return report.required(field, "");
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let messages = syntax::dns_subdomain(name);
    if !messages.is_empty() {
        return report.invalid(field, &json!(name), &messages.join(","));
    }
    if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        return report.invalid(field, &json!(name), detail);
    }
    for label in name.split('.') {
        let messages = syntax::dns_label(label);
        if !messages.is_empty() {
            return report.invalid(field, &json!(label), &messages.join(","));
        }
    }
}

fn hints(report: &mut Report, endpoint: &Value, base: &str) {
    for (key, rule) in [
        ("forZones", syntax::label_value as fn(&str) -> Vec<String>),
        ("forNodes", syntax::dns_subdomain),
    ] {
        let all = list(endpoint, &["hints", key]);
        if all.len() > HINTS_MAX {
            return report.push(Cause::too_many(format!("{base}.{key}"), all.len(), HINTS_MAX));
        }
        for (index, hint) in all.iter().enumerate() {
            let (field, name) = (format!("{base}.{key}[{index}].name"), text(hint, &["name"]));
            if all[..index].iter().any(|other| text(other, &["name"]) == name) {
                report.duplicate(&field, &json!(name));
            }
            report.syntax(&field, name, rule(name));
        }
    }
}

pub(super) fn endpoints(
    report: &mut Report,
    old: Option<&Value>,
    endpoints: &Value,
    context: &Context<'_>,
) {
    let subsets = list(endpoints, &["subsets"]);
    if old.is_some_and(|old| list(old, &["subsets"]) == subsets) {
        return;
    }
    for (index, subset) in subsets.iter().enumerate() {
        let base = format!("subsets[{index}]");
        let count = list(subset, &["addresses"]).len() + list(subset, &["notReadyAddresses"]).len();
        if count == 0 {
            report.required(&base, "must specify `addresses` or `notReadyAddresses`");
        }
        for key in ["addresses", "notReadyAddresses"] {
            for (index, entry) in list(subset, &[key]).iter().enumerate() {
                subset_address(report, &format!("{base}.{key}[{index}]"), entry, context);
            }
        }
        let ports = list(subset, &["ports"]);
        for (index, port) in ports.iter().enumerate() {
            let field = format!("{base}.ports[{index}]");
            if ports.len() > 1 && text(port, &["name"]).is_empty() {
                report.required(format!("{field}.name"), "");
            }
            report.optional(port, &field, "name", syntax::dns_label);
            report.port_number(&format!("{field}.port"), int(port, &["port"]).unwrap_or(0));
            report.protocol(&format!("{field}.protocol"), port);
            report.app_protocol(port, &field);
        }
    }
}

fn subset_address(report: &mut Report, base: &str, entry: &Value, context: &Context<'_>) {
    let (field, ip) = (format!("{base}.ip"), text(entry, &["ip"]));
    let address: Option<IpAddr> = address::legacy(report, &field, ip);
    report.optional(entry, base, "hostname", syntax::dns_label);
    if let Some(node) = at(entry, &["nodeName"]).and_then(Value::as_str) {
        report.syntax(&format!("{base}.nodeName"), node, syntax::dns_subdomain(node));
    }
    match address {
        Some(address) => address::endpoint(report, &field, ip, address, context),
        None => report.invalid(&field, &json!(ip), "must be a valid IP address"),
    }
}
