//! Leases, and LeaseCandidates of coordinated leader election (KEP-4355).

use semver::Version;
use serde_json::{Value, json};

use super::{
    report::{IMMUTABLE, Report},
    syntax,
};
use crate::{
    Cause,
    schema::value::{at, int, text},
};

/// The one strategy that Kubernetes defines; others carry a domain.
const OLDEST: &str = "OldestEmulationVersion";

pub(super) fn lease(report: &mut Report, lease: &Value) {
    let spec = lease.get("spec").unwrap_or(&Value::Null);
    if let Some(seconds) = int(spec, &["leaseDurationSeconds"]).filter(|s| *s <= 0) {
        report.invalid("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0");
    }
    report.not_negative(spec, "spec", "leaseTransitions");
    let named = text(spec, &["strategy"]);
    if at(spec, &["strategy"]).is_some() {
        strategy(report, named);
    }
    if named.is_empty() && !text(spec, &["preferredHolder"]).is_empty() {
        let detail = "may only be specified if `strategy` is defined";
        report.forbidden("spec.preferredHolder", detail);
    }
}

pub(super) fn candidate(report: &mut Report, candidate: &Value) {
    let spec = candidate.get("spec").unwrap_or(&Value::Null);
    if text(spec, &["leaseName"]).is_empty() {
        report.required("spec.leaseName", "");
    }
    let emulation = version(report, spec, "emulationVersion");
    let has_binary = !text(spec, &["binaryVersion"]).is_empty();
    if !has_binary {
        report.required("spec.binaryVersion", "");
    }
    let binary = version(report, spec, "binaryVersion");
    let has_emulation = !text(spec, &["emulationVersion"]).is_empty();
    if has_binary && has_emulation && binary.cmp_precedence(&emulation).is_lt() {
        report.invalid(
            "spec.binaryVersion",
            &json!(text(spec, &["binaryVersion"])),
            "must be greater than or equal to `emulationVersion`",
        );
    }
    match text(spec, &["strategy"]) {
        "" => report.required("spec.strategy", ""),
        named => {
            if named == OLDEST && emulation.cmp_precedence(&NONE).is_eq() {
                let detail = "must be specified when `strategy` is 'OldestEmulationVersion'";
                report.required("spec.emulationVersion", detail);
            }
            strategy(report, named);
        }
    }
}

/// A candidate stays with its lease.
pub(super) fn candidate_change(report: &mut Report, old: &Value, new: &Value) {
    let path = &["spec", "leaseName"];
    if text(old, path) != text(new, path) {
        report.invalid("spec.leaseName", &json!(text(new, path)), IMMUTABLE);
    }
}

/// What a version that is missing or does not read compares as.
const NONE: Version = Version::new(0, 0, 0);

fn version(report: &mut Report, spec: &Value, key: &str) -> Version {
    match text(spec, &[key]) {
        "" => NONE,
        written => Version::parse(written).unwrap_or_else(|_| {
            let detail = "must be a valid semantic version";
            report.invalid(format!("spec.{key}"), &json!(written), detail);
            NONE
        }),
    }
}

fn strategy(report: &mut Report, named: &str) {
    // Upstream names the field twice.
    const FIELD: &str = "spec.strategy.strategy";
    if named.contains('/') {
        report.syntax(FIELD, named, syntax::qualified_name(named));
    } else if named != OLDEST {
        report.push(Cause::not_supported(FIELD, &json!(named), &[OLDEST]));
    }
}
