//! Addresses and ranges in forms that will not be taken for ever.

use std::net::IpAddr;

use serde_json::Value;

use crate::{registry::Cidr, schema::validate::parse_address};

pub(super) fn list_of(found: &mut Vec<String>, base: &str, values: &[Value]) {
    for (index, value) in values.iter().enumerate() {
        address(found, &format!("{base}[{index}]"), value.as_str().unwrap_or_default());
    }
}

/// An address with leading zeros, in the clothes of the other family, or not canonical.
pub(super) fn address(found: &mut Vec<String>, field: &str, text: &str) {
    let Some(lenient) = parse_address(text) else { return };
    match text.parse::<IpAddr>() {
        Ok(strict) if strict == lenient => {
            let canonical = strict.to_string();
            if strict.is_ipv6() && canonical != text {
                found.push(format!(
                    "{field}: IPv6 address {text:?} should be in RFC 5952 canonical format \
                     ({canonical:?})"
                ));
            }
        }
        _ => found.push(format!(
            "{field}: non-standard IP address {text:?} will be considered invalid in a future \
             Kubernetes release: use {:?}",
            lenient.to_string()
        )),
    }
}

/// A range that names an address inside it, or is not canonical.
pub(super) fn range(found: &mut Vec<String>, field: &str, text: &str) {
    let Some((base, prefix)) = text.split_once('/') else { return };
    let (Some(lenient), Ok(cidr)) = (parse_address(base), text.parse::<Cidr>()) else { return };
    let canonical = cidr.to_string();
    let before = found.len();
    if canonical.split('/').next() != Some(lenient.to_string().as_str()) {
        let single = format!("{lenient}/{}", if lenient.is_ipv4() { 32 } else { 128 });
        found.push(format!(
            "{field}: CIDR value {text:?} is ambiguous in this context (should be {canonical:?} or \
             {single:?}?)"
        ));
    }
    let strict = base.parse::<IpAddr>().is_ok_and(|strict| strict == lenient);
    if !strict || prefix.len() > 1 && prefix.starts_with('0') {
        found.push(format!(
            "{field}: non-standard CIDR value {text:?} will be considered invalid in a future \
             Kubernetes release: use {canonical:?}"
        ));
    }
    if found.len() == before && lenient.is_ipv6() && canonical != text {
        found.push(format!(
            "{field}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format \
             ({canonical:?})"
        ));
    }
}
