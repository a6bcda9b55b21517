//! Containers of all sorts: their lists, and what every container has.

use serde_json::{Value, json};

use super::{env, mounts, probes, report::Report, resources, security, syntax};
use crate::{
    Cause,
    schema::value::{at, int, list, text},
};

/// Signals that a container may be stopped with, without SIG.
const SIGNALS: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS",
    "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
];
/// Fields that make a debug container more than a debug container.
const NOT_EPHEMERAL: [&str; 8] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// What containers are looked at with: the Pod around them.
struct Pod<'a> {
    spec: &'a Value,
    volumes: &'a [&'a Value],
    grace: Option<i64>,
}

/// All containers of a Pod or of a template. Volumes are those that are valid themselves.
pub(super) fn all(report: &mut Report, base: &str, spec: &Value, volumes: &[&Value]) {
    let grace = int(spec, &["terminationGracePeriodSeconds"]);
    let pod = Pod { spec, volumes, grace };
    pod.regular(report, &format!("{base}.containers"));
    pod.init(report, &format!("{base}.initContainers"));
    pod.ephemeral(report, &format!("{base}.ephemeralContainers"));
}

impl Pod<'_> {
    fn regular(&self, report: &mut Report, base: &str) {
        let containers = list(self.spec, &["containers"]);
        if containers.is_empty() {
            return report.required(base, "");
        }
        for (index, container) in containers.iter().enumerate() {
            let field = format!("{base}[{index}]");
            self.common(report, &field, container);
            unique_name(report, &field, container, &containers[..index]);
            self.running(report, &field, container);
            if at(container, &["restartPolicy"]).is_some() {
                let detail = "may not be set for non-init containers";
                report.forbidden(format!("{field}.restartPolicy"), detail);
            }
        }
        host_ports(report, base, containers);
    }

    fn init(&self, report: &mut Report, base: &str) {
        let containers = list(self.spec, &["initContainers"]);
        for (index, container) in containers.iter().enumerate() {
            let field = format!("{base}[{index}]");
            self.common(report, &field, container);
            let policy = at(container, &["restartPolicy"]).and_then(Value::as_str);
            if let Some(policy) = policy {
                report.only(&format!("{field}.restartPolicy"), policy, &["Always"]);
            }
            let named = containers[..index].iter().filter(|c| !text(c, &["name"]).is_empty());
            let others: Vec<Value> =
                list(self.spec, &["containers"]).iter().chain(named).cloned().collect();
            unique_name(report, &field, container, &others);
            host_ports(report, base, std::slice::from_ref(container));
            if policy == Some("Always") {
                self.running(report, &field, container);
                continue;
            }
            for key in probes::OF_RUNNING {
                if at(container, &[key]).is_some() {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    report.forbidden(format!("{field}.{key}"), detail);
                }
            }
        }
    }

    fn ephemeral(&self, report: &mut Report, base: &str) {
        let containers = list(self.spec, &["ephemeralContainers"]);
        let lasting: Vec<Value> =
            [list(self.spec, &["containers"]), list(self.spec, &["initContainers"])].concat();
        for (index, container) in containers.iter().enumerate() {
            let field = format!("{base}[{index}]");
            self.common(report, &field, container);
            image_spaces(report, &field, container);
            let others = [&lasting[..], &containers[..index]].concat();
            unique_name(report, &field, container, &others);
            let target = text(container, &["targetContainerName"]);
            if !target.is_empty() && !lasting.iter().any(|c| text(c, &["name"]) == target) {
                let field = format!("{field}.targetContainerName");
                report.push(Cause::not_found(field, &json!(target)));
            }
            const DETAIL: &str = "cannot be set for an Ephemeral Container";
            for key in NOT_EPHEMERAL {
                let set = at(container, &[key]).is_some_and(|value| match value {
                    Value::Object(map) => !map.is_empty(),
                    Value::Array(items) => !items.is_empty(),
                    _ => true,
                });
                if set {
                    report.forbidden(format!("{field}.{key}"), DETAIL);
                }
            }
            for (index, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
                for key in ["subPath", "subPathExpr"] {
                    if !text(mount, &[key]).is_empty() {
                        report.forbidden(format!("{field}.volumeMounts[{index}].{key}"), DETAIL);
                    }
                }
            }
        }
    }

    /// What every container has.
    fn common(&self, report: &mut Report, field: &str, container: &Value) {
        report.name(container, field, "name", syntax::dns_label);
        if text(container, &["image"]).is_empty() {
            report.required(format!("{field}.image"), "");
        }
        report.one_of(
            &format!("{field}.terminationMessagePolicy"),
            text(container, &["terminationMessagePolicy"]),
            &["File", "FallbackToLogsOnError"],
        );
        ports(report, &format!("{field}.ports"), list(container, &["ports"]));
        env::variables(report, field, container);
        mounts::mounts(report, &format!("{field}.volumeMounts"), container, self.volumes);
        mounts::devices(report, &format!("{field}.volumeDevices"), container, self.volumes);
        report.one_of(
            &format!("{field}.imagePullPolicy"),
            text(container, &["imagePullPolicy"]),
            &["Always", "IfNotPresent", "Never"],
        );
        resources::container(report, &format!("{field}.resources"), container, self.spec);
        resize_policy(report, &format!("{field}.resizePolicy"), container, self.spec);
        security::container(report, &format!("{field}.securityContext"), container, self.spec);
    }

    /// What only containers that stay have: probes and hooks.
    fn running(&self, report: &mut Report, field: &str, container: &Value) {
        probes::hooks(report, &format!("{field}.lifecycle"), container, self.grace);
        if let Some(signal) = at(container, &["lifecycle", "stopSignal"]).and_then(Value::as_str) {
            stop_signal(report, &format!("{field}.lifecycle.stopSignal"), signal, self.spec);
        }
        probes::probes(report, field, container);
    }
}

fn unique_name(report: &mut Report, field: &str, container: &Value, others: &[Value]) {
    let name = text(container, &["name"]);
    if others.iter().any(|other| text(other, &["name"]) == name) {
        report.duplicate(format!("{field}.name"), &json!(name));
    }
}

/// What Pods keep to and templates, for the sake of old ones, do not.
pub(super) fn of_pod(report: &mut Report, base: &str, spec: &Value) {
    for key in ["containers", "initContainers"] {
        for (index, container) in list(spec, &[key]).iter().enumerate() {
            image_spaces(report, &format!("{base}.{key}[{index}]"), container);
        }
    }
}

/// An image is named without space around it.
pub(super) fn image_spaces(report: &mut Report, field: &str, container: &Value) {
    let image = text(container, &["image"]);
    if image.trim().len() != image.len() {
        let detail = "must not have leading or trailing whitespace";
        report.invalid(format!("{field}.image"), &json!(image), detail);
    }
}

fn stop_signal(report: &mut Report, field: &str, signal: &str, spec: &Value) {
    match text(spec, &["os", "name"]) {
        "" => {
            let detail = "may not be set for containers with empty `spec.os.name`";
            report.forbidden(field, detail);
        }
        "windows" => report.only(field, signal, &["SIGKILL", "SIGTERM"]),
        _ => {
            let bare = signal.strip_prefix("SIG").unwrap_or_default();
            let known = SIGNALS.contains(&bare) || is_realtime(bare);
            if !known {
                let all: Vec<String> = SIGNALS.iter().map(|name| format!("SIG{name}")).collect();
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                report.push(Cause::not_supported(field, &json!(signal), &all));
            }
        }
    }
}

/// `RTMIN+1` to `RTMIN+15` and `RTMAX-1` to `RTMAX-14`.
fn is_realtime(signal: &str) -> bool {
    let step = |prefix: &str| signal.strip_prefix(prefix).and_then(|n| n.parse::<u8>().ok());
    step("RTMIN+").is_some_and(|n| (1..=15).contains(&n))
        || step("RTMAX-").is_some_and(|n| (1..=14).contains(&n))
}

fn resize_policy(report: &mut Report, field: &str, container: &Value, spec: &Value) {
    let policies = list(container, &["resizePolicy"]);
    for (index, policy) in policies.iter().enumerate() {
        let (name, restart) = (text(policy, &["resourceName"]), text(policy, &["restartPolicy"]));
        if policies[..index].iter().any(|other| text(other, &["resourceName"]) == name) {
            report.duplicate_shown(format!("{field}[{index}]"), name);
        }
        match name {
            "" => report.required(field, ""),
            "cpu" | "memory" => {}
            other => report.not_supported_shown(field, other, &["cpu", "memory"]),
        }
        report.one_of(field, restart, &["NotRequired", "RestartContainer"]);
        if text(spec, &["restartPolicy"]) == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            report.invalid(field, &json!(restart), detail);
        }
    }
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
