//! Probes and hooks: ways to ask or to tell a container something.

use serde_json::{Value, json};

use super::{report::Report, syntax};
use crate::{
    Cause,
    schema::value::{at, int, list, text},
};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// What only containers have that stay; the others may not.
pub(super) const OF_RUNNING: [&str; 4] = ["lifecycle", PROBES[0], PROBES[1], PROBES[2]];

/// Ways to tell a container.
const HOOK_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];
/// Ways to ask a container.
const PROBE_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

/// The hooks of a container.
pub(super) fn hooks(report: &mut Report, base: &str, container: &Value, grace: Option<i64>) {
    for key in ["postStart", "preStop"] {
        if let Some(hook) = at(container, &["lifecycle", key]) {
            handler(report, &format!("{base}.{key}"), hook, &HOOK_HANDLERS, grace);
        }
    }
}

/// The probes of a container.
pub(super) fn probes(report: &mut Report, base: &str, container: &Value) {
    for key in PROBES {
        let Some(probe) = at(container, &[key]) else { continue };
        let field = format!("{base}.{key}");
        handler(report, &field, probe, &PROBE_HANDLERS, None);
        for number in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            report.not_negative(probe, &field, number);
        }
        if let Some(seconds) = int(probe, &["terminationGracePeriodSeconds"]) {
            let field = format!("{field}.terminationGracePeriodSeconds");
            if seconds <= 0 {
                report.invalid(&field, &json!(seconds), "must be greater than 0");
            }
            if key == "readinessProbe" {
                let detail = "must not be set for readinessProbes";
                report.invalid(&field, &json!(seconds), detail);
            }
        }
        let threshold = int(probe, &["successThreshold"]).unwrap_or(0);
        if key != "readinessProbe" && threshold != 1 {
            report.invalid(format!("{field}.successThreshold"), &json!(threshold), "must be 1");
        }
    }
}

/// One way to ask or to tell a container something.
fn handler(
    report: &mut Report,
    field: &str,
    handler: &Value,
    known: &[&'static str],
    grace: Option<i64>,
) {
    let mut found = false;
    for &key in known {
        let Some(action) = at(handler, &[key]) else { continue };
        let field = format!("{field}.{key}");
        if found {
            report.forbidden(&field, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match key {
            "exec" if list(action, &["command"]).is_empty() => {
                report.required(format!("{field}.command"), "");
            }
            "httpGet" => http_get(report, &field, action),
            "tcpSocket" => report.port_or_name(&format!("{field}.port"), at(action, &["port"])),
            "grpc" => {
                let port = int(action, &["port"]).unwrap_or(0);
                report.port_number(&format!("{field}.port"), port);
            }
            "sleep" => {
                let seconds = int(action, &["seconds"]).unwrap_or(0);
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                    let detail = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                    );
                    report.invalid(&field, &json!(seconds), &detail);
                }
            }
            _ => {}
        }
    }
    if !found {
        report.required(field, "must specify a handler type");
    }
}

fn http_get(report: &mut Report, field: &str, get: &Value) {
    if text(get, &["path"]).is_empty() {
        report.required(format!("{field}.path"), "");
    }
    report.port_or_name(&format!("{field}.port"), at(get, &["port"]));
    let scheme = text(get, &["scheme"]);
    if !["HTTP", "HTTPS"].contains(&scheme) {
        let field = format!("{field}.scheme");
        report.push(Cause::not_supported(field, &json!(scheme), &["HTTP", "HTTPS"]));
    }
    for header in list(get, &["httpHeaders"]) {
        let name = text(header, &["name"]);
        report.syntax(&format!("{field}.httpHeaders"), name, syntax::header_name(name));
    }
}
