//! Nodes.

use serde_json::{Value, json};

use super::{address, go, report::Report, resources, syntax};
use crate::{
    registry::Cidr,
    schema::{
        quantity::Quantity,
        value::{entries, list, text},
    },
};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn node(report: &mut Report, node: &Value) {
    taints(report, node);
    amounts(report, node);
    let cidrs = list(node, &["spec", "podCIDRs"]);
    for (index, cidr) in cidrs.iter().enumerate() {
        if cidr.as_str().unwrap_or_default().parse::<Cidr>().is_err() {
            report.invalid(
                format!("spec.podCIDRs[{index}]"),
                cidr,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
    let bases: Vec<&str> = cidrs.iter().filter_map(|c| c.as_str()?.split('/').next()).collect();
    if cidrs.len() > 2 || cidrs.len() == 2 && !address::is_dual_stack(&bases) {
        report.invalid_shown(
            "spec.podCIDRs",
            &go::strings(cidrs),
            "may specify no more than one CIDR for each IP family",
        );
    }
}

fn taints(report: &mut Report, node: &Value) {
    let taints = list(node, &["spec", "taints"]);
    for (index, taint) in taints.iter().enumerate() {
        // As upstream names it.
        let field = format!("metadata.taints[{index}]");
        let (key, value) = (text(taint, &["key"]), text(taint, &["value"]));
        report.syntax(&format!("{field}.key"), key, syntax::qualified_name(key));
        let messages = syntax::label_value(value);
        if !messages.is_empty() {
            report.invalid(format!("{field}.value"), &json!(value), &messages.join(";"));
        }
        let effect = text(taint, &["effect"]);
        report.one_of(&format!("{field}.effect"), effect, &EFFECTS);
        let same =
            |other: &Value| text(other, &["key"]) == key && text(other, &["effect"]) == effect;
        if taints[..index].iter().any(same) {
            let shown = format!("{taint}: taints must be unique by key and effect pair");
            report.duplicate_shown(&field, &shown);
        }
    }
}

/// What a Node has is not negative, and devices are whole.
fn amounts(report: &mut Report, node: &Value) {
    for part in ["capacity", "allocatable"] {
        for (name, value) in entries(node, &["status", part]) {
            if let Some(quantity) = Quantity::from_value(value) {
                resources::amount(report, &format!("status.{part}.{name}"), name, quantity);
            }
        }
    }
}

/// What is given once stays; upstream looks at some of the rest again.
pub(super) fn change(report: &mut Report, old: &Value, new: &Value) {
    amounts(report, new);
    let addresses = list(new, &["status", "addresses"]);
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            report.duplicate(format!("status.addresses[{index}]"), address);
        }
    }
    let (before, after) = (list(old, &["spec", "podCIDRs"]), list(new, &["spec", "podCIDRs"]));
    if !before.is_empty() {
        let differing = before.iter().zip(after).filter(|(one, other)| one != other).count();
        let times = if before.len() == after.len() { differing } else { 1 };
        for _ in 0..times {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            report.forbidden("spec.podCIDRs", detail);
        }
    }
    let provider = text(old, &["spec", "providerID"]);
    if !provider.is_empty() && provider != text(new, &["spec", "providerID"]) {
        let detail = "node updates may not change providerID except from \"\" to valid";
        report.forbidden("spec.providerID", detail);
    }
    taints(report, new);
    if text(old, &["spec", "externalID"]) != text(new, &["spec", "externalID"]) {
        report.forbidden("spec.externalID", "may not be updated");
    }
}
