//! Containers of all sorts.
//!
//! Not checked yet: security contexts, resize policies, lifecycle stop signals, device mounts.

use serde_json::{Value, json};

use super::{report::Report, syntax, volumes};
use crate::{
    Cause,
    schema::{
        quantity::Quantity,
        value::{at, entries, int, list, text},
    },
};

/// Fields of the Pod that environment variables may take.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Resources without a domain that containers may ask for.
const STANDARD_RESOURCES: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// What makes a debug container more than a debug container.
const NOT_EPHEMERAL: [&str; 7] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
];

/// All containers of a Pod or of a template.
pub(super) fn all(report: &mut Report, base: &str, spec: &Value) {
    let volumes = volumes::names(spec);
    let grace = int(spec, &["terminationGracePeriodSeconds"]);
    regular(report, &format!("{base}.containers"), spec, &volumes, grace);
    init(report, &format!("{base}.initContainers"), spec, &volumes, grace);
    ephemeral(report, &format!("{base}.ephemeralContainers"), spec, &volumes);
}

fn regular(report: &mut Report, base: &str, spec: &Value, volumes: &[&str], grace: Option<i64>) {
    let containers = list(spec, &["containers"]);
    if containers.is_empty() {
        return report.required(base, "");
    }
    for (index, container) in containers.iter().enumerate() {
        let field = format!("{base}[{index}]");
        common(report, &field, container, volumes);
        unique_name(report, &field, container, &containers[..index]);
        running(report, &field, container, grace);
        if at(container, &["restartPolicy"]).is_some() {
            let detail = "may not be set for non-init containers";
            report.forbidden(format!("{field}.restartPolicy"), detail);
        }
    }
    host_ports(report, base, containers);
}

fn init(report: &mut Report, base: &str, spec: &Value, volumes: &[&str], grace: Option<i64>) {
    let containers = list(spec, &["initContainers"]);
    for (index, container) in containers.iter().enumerate() {
        let field = format!("{base}[{index}]");
        common(report, &field, container, volumes);
        let policy = at(container, &["restartPolicy"]).and_then(Value::as_str);
        if let Some(policy) = policy.filter(|policy| *policy != "Always") {
            let field = format!("{field}.restartPolicy");
            report.push(Cause::not_supported(field, &json!(policy), &["Always"]));
        }
        let others: Vec<Value> =
            list(spec, &["containers"]).iter().chain(&containers[..index]).cloned().collect();
        unique_name(report, &field, container, &others);
        host_ports(report, base, std::slice::from_ref(container));
        if policy == Some("Always") {
            running(report, &field, container, grace);
            continue;
        }
        for key in ["lifecycle"].into_iter().chain(PROBES) {
            if at(container, &[key]).is_some() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                report.forbidden(format!("{field}.{key}"), detail);
            }
        }
    }
}

fn ephemeral(report: &mut Report, base: &str, spec: &Value, volumes: &[&str]) {
    let containers = list(spec, &["ephemeralContainers"]);
    let lasting: Vec<Value> =
        [list(spec, &["containers"]), list(spec, &["initContainers"])].concat();
    for (index, container) in containers.iter().enumerate() {
        let field = format!("{base}[{index}]");
        common(report, &field, container, volumes);
        let others = [&lasting[..], &containers[..index]].concat();
        unique_name(report, &field, container, &others);
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !lasting.iter().any(|c| text(c, &["name"]) == target) {
            let field = format!("{field}.targetContainerName");
            report.push(Cause::not_found(field, &json!(target)));
        }
        for key in NOT_EPHEMERAL {
            let set = at(container, &[key]).is_some_and(|value| match value {
                Value::Object(map) => !map.is_empty(),
                Value::Array(items) => !items.is_empty(),
                _ => true,
            });
            if set {
                let detail = "cannot be set for an Ephemeral Container";
                report.forbidden(format!("{field}.{key}"), detail);
            }
        }
    }
}

fn unique_name(report: &mut Report, field: &str, container: &Value, others: &[Value]) {
    let name = text(container, &["name"]);
    if !name.is_empty() && others.iter().any(|other| text(other, &["name"]) == name) {
        report.duplicate(format!("{field}.name"), &json!(name));
    }
}

/// What every container has.
fn common(report: &mut Report, field: &str, container: &Value, volumes: &[&str]) {
    report.name(container, field, "name", syntax::dns_label);
    if text(container, &["image"]).is_empty() {
        report.required(format!("{field}.image"), "");
    }
    report.one_of(
        &format!("{field}.terminationMessagePolicy"),
        text(container, &["terminationMessagePolicy"]),
        &["File", "FallbackToLogsOnError"],
    );
    report.one_of(
        &format!("{field}.imagePullPolicy"),
        text(container, &["imagePullPolicy"]),
        &["Always", "IfNotPresent", "Never"],
    );
    ports(report, &format!("{field}.ports"), list(container, &["ports"]));
    for (index, variable) in list(container, &["env"]).iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        report.name(variable, &field, "name", syntax::env_name);
        value_from(report, &format!("{field}.valueFrom"), variable);
    }
    env_from(report, &format!("{field}.envFrom"), container);
    volumes::mounts(report, &format!("{field}.volumeMounts"), container, volumes);
    resources(report, &format!("{field}.resources"), container);
}

fn ports(report: &mut Report, base: &str, ports: &[Value]) {
    for (index, port) in ports.iter().enumerate() {
        let field = format!("{base}[{index}]");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let messages = syntax::port_name(name);
            let earlier = ports[..index].iter().any(|other| text(other, &["name"]) == name);
            if messages.is_empty() && earlier {
                report.duplicate(format!("{field}.name"), &json!(name));
            }
            report.syntax(&format!("{field}.name"), name, messages);
        }
        match int(port, &["containerPort"]) {
            None | Some(0) => report.required(format!("{field}.containerPort"), ""),
            Some(number) => report.port_number(&format!("{field}.containerPort"), number),
        }
        if let Some(number) = int(port, &["hostPort"]).filter(|number| *number != 0) {
            report.port_number(&format!("{field}.hostPort"), number);
        }
        report.protocol(&format!("{field}.protocol"), port);
    }
}

/// A port of the host can be had once.
fn host_ports(report: &mut Report, base: &str, containers: &[Value]) {
    let mut taken = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in list(container, &["ports"]).iter().enumerate() {
            let Some(number) = int(port, &["hostPort"]).filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", text(port, &["protocol"]), text(port, &["hostIP"]));
            if taken.contains(&key) {
                let field = format!("{base}[{index}].ports[{port_index}].hostPort");
                report.duplicate(field, &json!(key));
            } else {
                taken.push(key);
            }
        }
    }
}

fn value_from(report: &mut Report, field: &str, variable: &Value) {
    let Some(source) = at(variable, &["valueFrom"]) else { return };
    let mut sources = 0;
    if let Some(reference) = at(source, &["fieldRef"]) {
        sources += 1;
        field_ref(report, &format!("{field}.fieldRef"), reference, &ENV_FIELDS);
    }
    if let Some(reference) = at(source, &["resourceFieldRef"]) {
        sources += 1;
        let resource = text(reference, &["resource"]);
        let huge = ["limits.hugepages-", "requests.hugepages-"];
        if !huge.iter().any(|prefix| resource.starts_with(prefix)) {
            let field = format!("{field}.resourceFieldRef.resource");
            report.one_of(&field, resource, &RESOURCE_FIELDS);
        }
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = at(source, &[key]) {
            sources += 1;
            let field = format!("{field}.{key}");
            let name = text(reference, &["name"]);
            report.syntax(&format!("{field}.name"), name, syntax::dns_subdomain(name));
            report.name(reference, &field, "key", syntax::config_key);
        }
    }
    let detail = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
             `secretKeyRef`"
        }
        _ if !text(variable, &["value"]).is_empty() => {
            "may not be specified when `value` is not empty"
        }
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    report.invalid(field, &json!(""), detail);
}

/// A reference to a field of the Pod itself.
pub(super) fn field_ref(report: &mut Report, field: &str, reference: &Value, known: &[&str]) {
    let path = text(reference, &["fieldPath"]);
    if path.is_empty() {
        return report.required(format!("{field}.fieldPath"), "");
    }
    let subscripted = path.strip_suffix("']").and_then(|inner| inner.split_once("['"));
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            report.syntax(field, &key, syntax::qualified_name(&key));
        }
        Some(("metadata.labels", key)) => report.syntax(field, key, syntax::qualified_name(key)),
        Some((path, _)) => report.invalid(field, &json!(path), "does not support subscript"),
        None if known.contains(&path) => {}
        None => {
            let field = format!("{field}.fieldPath");
            report.push(Cause::not_supported(field, &json!(path), known));
        }
    }
}

fn env_from(report: &mut Report, base: &str, container: &Value) {
    for (index, source) in list(container, &["envFrom"]).iter().enumerate() {
        let field = format!("{base}[{index}]");
        report.optional(source, &field, "prefix", syntax::env_name);
        let mut sources = 0;
        for key in ["configMapRef", "secretRef"] {
            if let Some(reference) = at(source, &[key]) {
                sources += 1;
                report.name(reference, &format!("{field}.{key}"), "name", syntax::dns_subdomain);
            }
        }
        match sources {
            0 => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                report.invalid(base, &json!(""), detail);
            }
            1 => {}
            _ => {
                let detail = "may not have more than one field specified at a time";
                report.invalid(base, &json!(""), detail);
            }
        }
    }
}

fn resources(report: &mut Report, base: &str, container: &Value) {
    for part in ["limits", "requests"] {
        for (name, value) in entries(container, &["resources", part]) {
            let field = format!("{base}.{part}[{name}]");
            let messages = syntax::qualified_name(name);
            let plain = messages.is_empty() && !name.contains('/');
            report.syntax(&field, name, messages);
            if plain
                && !STANDARD_RESOURCES.contains(&name.as_str())
                && !name.starts_with("hugepages-")
            {
                let detail = "must be a standard resource for containers";
                report.invalid(&field, &json!(name), detail);
            }
            let Some(quantity) = Quantity::from_value(value) else {
                let detail = "quantities must match the regular expression \
                    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                report.invalid(&field, value, detail);
                continue;
            };
            if quantity.is_negative() {
                let shown = json!(quantity.to_string());
                report.invalid(&field, &shown, "must be greater than or equal to 0");
            }
            let limit = at(container, &["resources", "limits", name])
                .filter(|_| part == "requests")
                .and_then(Quantity::from_value);
            if let Some(limit) = limit.filter(|limit| quantity > *limit) {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                report.invalid(format!("{base}.requests"), &json!(quantity.to_string()), &detail);
            }
        }
    }
}

/// What only containers that stay have: probes and hooks.
fn running(report: &mut Report, field: &str, container: &Value, grace: Option<i64>) {
    for key in ["postStart", "preStop"] {
        if let Some(hook) = at(container, &["lifecycle", key]) {
            handler(report, &format!("{field}.lifecycle.{key}"), hook, grace);
        }
    }
    for key in PROBES {
        let Some(probe) = at(container, &[key]) else { continue };
        let field = format!("{field}.{key}");
        handler(report, &field, probe, grace);
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
            let detail = match key {
                "readinessProbe" => "must not be set for readinessProbes",
                _ if seconds <= 0 => "must be greater than 0",
                _ => "",
            };
            if !detail.is_empty() {
                let field = format!("{field}.terminationGracePeriodSeconds");
                report.invalid(field, &json!(seconds), detail);
            }
        }
        let threshold = int(probe, &["successThreshold"]).unwrap_or(0);
        if key != "readinessProbe" && threshold != 1 {
            report.invalid(format!("{field}.successThreshold"), &json!(threshold), "must be 1");
        }
    }
}

/// One way to ask or to tell a container something.
fn handler(report: &mut Report, field: &str, handler: &Value, grace: Option<i64>) {
    let mut found = false;
    for key in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
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
