//! IP addresses and ranges, and the two kinds that are nothing else.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    Context, go,
    report::{IMMUTABLE, Report},
    syntax,
};
use crate::{
    registry::Cidr,
    schema::value::{at, list, text},
};

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Reads an address as Go's old parser did: leading zeros in octets are skipped, and an
/// IPv4 address in IPv6 clothes is an IPv4 address.
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    if !text.contains(':') && (text.contains(".0") || text.starts_with('0')) {
        let octets: Vec<&str> = text
            .split('.')
            .map(|octet| match octet.trim_start_matches('0') {
                "" if !octet.is_empty() => "0",
                rest => rest,
            })
            .collect();
        if let Ok(v4) = octets.join(".").parse() {
            return Some(IpAddr::V4(v4));
        }
    }
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// An address in a field that predates the strict rules.
pub(super) fn legacy(report: &mut Report, field: &str, text: &str) -> Option<IpAddr> {
    let address = parse(text);
    if address.is_none() {
        report.invalid(field, &json!(text), NO_ADDRESS);
    }
    address
}

/// What is wrong with an address that must be in its one canonical form.
pub(super) fn canonical(text: &str) -> Vec<String> {
    let Some(lenient) = parse(text) else { return vec![NO_ADDRESS.to_owned()] };
    match text.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s".to_owned()],
        Ok(address) if address != lenient => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(address) if address.to_string() != text => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        Ok(_) => Vec::new(),
    }
}

/// Addresses that nobody else could reach are no endpoints. Loopback addresses inside the Pod
/// ranges are: that is where `--pod-network loopback` puts its Pods.
pub(super) fn endpoint(
    report: &mut Report,
    field: &str,
    text: &str,
    address: IpAddr,
    context: &Context<'_>,
) {
    let mut refuse = |detail: &str| report.invalid(field, &json!(text), detail);
    if address.is_unspecified() {
        refuse(&format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() && !context.pod_cidrs.iter().any(|cidr| cidr.contains(address)) {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// A ServiceCIDR: one range, or one per family.
pub(super) fn service_cidr(report: &mut Report, object: &Value) {
    const FIELD: &str = "spec.cidrs";
    let cidrs = list(object, &["spec", "cidrs"]);
    match cidrs.len() {
        0 => return report.required(FIELD, "at least one CIDR required"),
        1 | 2 => {}
        _ => return report.invalid(FIELD, &json!(cidrs), "may only hold up to 2 values"),
    }
    let mut families = Vec::new();
    for (index, value) in cidrs.iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        let text = value.as_str().unwrap_or_default();
        let is_mapped = text.starts_with("::ffff:") && text.contains('.');
        match text.parse::<Cidr>() {
            Err(_) if has_leading_zeros(text) => {
                report.invalid(field, value, "must not have leading 0s in IP or prefix length");
            }
            Err(_) => report.invalid(field, value, NO_CIDR),
            Ok(_) if is_mapped => {
                report.invalid(field, value, "must not have an IPv4-mapped IPv6 address");
            }
            Ok(cidr) => {
                families.push(cidr.family());
                let canonical = cidr.to_string();
                let (given, base) = (text.split('/').next(), canonical.split('/').next());
                if given.and_then(parse) != base.and_then(parse) {
                    let detail = "must not have bits set beyond the prefix length";
                    report.invalid(field, value, detail);
                } else if canonical != text {
                    let detail = format!("must be in canonical form ({canonical:?})");
                    report.invalid(field, value, &detail);
                }
            }
        }
    }
    if families.len() == 2 && families[0] == families[1] {
        report.invalid_shown(
            FIELD,
            &go::strings(cidrs),
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
             2001:db8::/64",
        );
    }
}

/// Whether only leading zeros make it that this is no range.
fn has_leading_zeros(text: &str) -> bool {
    text.split_once('/').is_some_and(|(base, prefix)| {
        let base = parse(base).map(|base| base.to_string()).unwrap_or_default();
        let prefix = prefix.parse::<u8>().map(|prefix| prefix.to_string()).unwrap_or_default();
        format!("{base}/{prefix}").parse::<Cidr>().is_ok()
    })
}

/// Ranges stay; a second may be added.
pub(super) fn service_cidr_change(report: &mut Report, old: &Value, new: &Value) {
    const FIELD: &str = "spec.cidrs";
    let (before, after) = (list(old, &["spec", "cidrs"]), list(new, &["spec", "cidrs"]));
    let grows = before.len() == 1 && after.len() == 2;
    if before.len() != after.len() && !grows {
        return report.invalid_shown(FIELD, &go::strings(after), IMMUTABLE);
    }
    for (index, (one, other)) in before.iter().zip(after).enumerate() {
        if one != other {
            report.invalid(format!("{FIELD}[{index}]"), other, IMMUTABLE);
        }
    }
    if grows {
        service_cidr(report, new);
    }
}

/// An IPAddress belongs to something.
pub(super) fn ip_address(report: &mut Report, object: &Value) {
    const FIELD: &str = "spec.parentRef";
    let Some(parent) = at(object, &["spec", "parentRef"]) else {
        return report.required(FIELD, "");
    };
    report.optional(parent, FIELD, "group", syntax::dns_subdomain);
    report.name(parent, FIELD, "resource", syntax::path_segment);
    report.name(parent, FIELD, "name", syntax::path_segment);
    report.optional(parent, FIELD, "namespace", syntax::path_segment);
}

/// An IPAddress does not change hands.
pub(super) fn ip_address_change(report: &mut Report, old: &Value, new: &Value) {
    let parent = |object: &Value| at(object, &["spec", "parentRef"]).cloned();
    if parent(old) != parent(new) {
        let value = parent(new).unwrap_or_else(|| json!("null"));
        report.invalid("spec.parentRef", &value, IMMUTABLE);
    }
}

/// Whether two texts are addresses of the two families.
pub(super) fn is_dual_stack(addresses: &[&str]) -> bool {
    let families: Vec<bool> =
        addresses.iter().filter_map(|text| parse(text)).map(|ip| ip.is_ipv4()).collect();
    families.contains(&true) && families.contains(&false)
}

/// The texts at one key of each entry of a list.
pub(super) fn texts_of<'v>(values: &'v [Value], key: &str) -> Vec<&'v str> {
    values.iter().map(|value| text(value, &[key])).collect()
}
