//! What is odd about a Pod or a template, and may surprise.

use std::collections::HashMap;

use serde_json::Value;

use super::{addresses, paths};
use crate::schema::{
    quantity::Quantity,
    validate,
    value::{at, entries, int, list, text},
};

/// Labels of Nodes that have been renamed.
const OLD_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];
const OLD_VOLUMES: [(&str, &str, &str); 9] = [
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

/// `prefix` is the path of the owner with a dot, or nothing.
pub(super) fn pod(found: &mut Vec<String>, prefix: &str, owner: &Value) {
    let base = format!("{prefix}spec");
    let spec = owner.get("spec").unwrap_or(&Value::Null);
    nodes(found, &base, spec);
    for (index, spread) in list(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let field = format!("{base}.topologySpreadConstraints[{index}]");
        let key = text(spread, &["topologyKey"]);
        if let Some(message) = old_label(key) {
            found.push(format!("{field}.topologyKey: {key} is {message}"));
        }
        if at(spread, &["labelSelector"]).is_none() {
            found.push(format!("{field}.labelSelector: {NO_SELECTOR}"));
        }
    }
    for (key, message) in OLD_ANNOTATIONS {
        if at(owner, &["metadata", "annotations", key]).is_some() {
            found.push(format!("{prefix}metadata.annotations[{key}]: {message}"));
        }
    }
    for (index, volume) in list(spec, &["volumes"]).iter().enumerate() {
        for (key, shown, message) in OLD_VOLUMES {
            if at(volume, &[key]).is_some() {
                found.push(format!("{base}.volumes[{index}].{shown}: {message}"));
            }
        }
    }
    paths::overlaps(found, list(spec, &["volumes"]));
    twice(found, &format!("{base}.hostAliases"), list(spec, &["hostAliases"]), "ip");
    pull_secrets(found, &format!("{base}.imagePullSecrets"), spec);
    let containers = containers(&base, spec);
    for (field, container) in &containers {
        amounts(found, field, container);
        hidden_variables(found, field, container);
    }
    ports(found, &containers);
    port_names(found, &containers);
    if int(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        found.push(format!(
            "{base}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and \
             will be treated as 1"
        ));
    }
    affinities(found, &base, spec);
    let servers = list(spec, &["dnsConfig", "nameservers"]);
    addresses::list_of(found, &format!("{base}.dnsConfig.nameservers"), servers);
    for (index, alias) in list(spec, &["hostAliases"]).iter().enumerate() {
        let field = format!("{base}.hostAliases[{index}].ip");
        addresses::address(found, &field, text(alias, &["ip"]));
    }
}

/// Labels that Nodes no longer have, and values that they cannot have.
fn nodes(found: &mut Vec<String>, base: &str, spec: &Value) {
    for (key, _) in entries(spec, &["nodeSelector"]) {
        if let Some(message) = old_label(key) {
            found.push(format!("{base}.nodeSelector[{key}]: {message}"));
        }
    }
    let base = format!("{base}.affinity.nodeAffinity");
    let required = list(spec, &["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"]);
    for (index, term) in required.iter().enumerate() {
        node_term(found, &format!("{base}.{REQUIRED}.nodeSelectorTerms[{index}]"), term, false);
    }
    let preferred = list(spec, &["affinity", "nodeAffinity", PREFERRED]);
    for (index, term) in preferred.iter().enumerate() {
        let preference = term.get("preference").unwrap_or(&Value::Null);
        node_term(found, &format!("{base}.{PREFERRED}[{index}].preference"), preference, true);
    }
}

fn node_term(found: &mut Vec<String>, base: &str, term: &Value, check_values: bool) {
    for (index, expression) in list(term, &["matchExpressions"]).iter().enumerate() {
        let field = format!("{base}.matchExpressions[{index}]");
        let key = text(expression, &["key"]);
        if let Some(message) = old_label(key) {
            found.push(format!("{field}.key: {key} is {message}"));
        }
        for (index, value) in list(expression, &["values"]).iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            for fault in validate::label_value_faults(value) {
                if check_values {
                    found.push(format!("{field}.values[{index}]: {value} is invalid, {fault}"));
                }
            }
        }
    }
}

fn twice(found: &mut Vec<String>, base: &str, all: &[Value], key: &str) {
    for (index, one) in all.iter().enumerate() {
        let value = text(one, &[key]);
        if all[..index].iter().any(|other| text(other, &[key]) == value) {
            found.push(format!("{base}[{index}].{key}: duplicate {key} {value:?}"));
        }
    }
}

fn pull_secrets(found: &mut Vec<String>, base: &str, spec: &Value) {
    let secrets = list(spec, &["imagePullSecrets"]);
    twice(found, base, secrets, "name");
    for (index, secret) in secrets.iter().enumerate() {
        if text(secret, &["name"]).is_empty() {
            found.push(format!("{base}[{index}].name: invalid empty name \"\""));
        }
    }
}

/// All containers with their paths, in upstream's order.
fn containers<'v>(base: &str, spec: &'v Value) -> Vec<(String, &'v Value)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let of = |key: &'static str| {
        let all = list(spec, &[key]).iter().enumerate();
        all.map(move |(index, container)| (format!("{base}.{key}[{index}]"), container))
    };
    lists.into_iter().flat_map(of).collect()
}

fn amounts(found: &mut Vec<String>, field: &str, container: &Value) {
    for name in ["memory", "ephemeral-storage"] {
        for part in ["limits", "requests"] {
            let amount = at(container, &["resources", part, name]).and_then(Quantity::from_value);
            if let Some(amount) = amount.filter(|amount| !amount.is_whole()) {
                found.push(format!(
                    "{field}.resources.{part}[{name}]: fractional byte value {:?} is invalid, must \
                     be an integer",
                    amount.to_string()
                ));
            }
        }
    }
}

fn hidden_variables(found: &mut Vec<String>, field: &str, container: &Value) {
    let variables = list(container, &["env"]);
    for (index, variable) in variables.iter().enumerate() {
        let name = text(variable, &["name"]);
        if !variables[..index].iter().any(|other| text(other, &["name"]) == name) {
            continue;
        }
        // One that builds upon the one before is meant.
        let (value, reference) = (text(variable, &["value"]), format!("$({name})"));
        let builds = at(variable, &["valueFrom"]).is_none()
            && value != reference
            && value.contains(&reference);
        if !builds {
            found.push(format!(
                "{field}.env[{index}]: hides previous definition of {name:?}, which may be dropped \
                 when using apply"
            ));
        }
    }
}

fn ports(found: &mut Vec<String>, containers: &[(String, &Value)]) {
    /// Where a port is, with its host IP and host port.
    type Place<'p> = (String, &'p str, i64);
    let mut seen: HashMap<(i64, &str), Vec<Place<'_>>> = HashMap::new();
    for (field, container) in containers {
        for (index, port) in list(container, &["ports"]).iter().enumerate() {
            let field = format!("{field}.ports[{index}]");
            let number = |key: &str| int(port, &[key]).unwrap_or(0);
            let (ip, host, protocol) =
                (text(port, &["hostIP"]), number("hostPort"), text(port, &["protocol"]));
            if !ip.is_empty() && host == 0 {
                found.push(format!(
                    "{field}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} \
                     Protocol:{protocol} HostIP:{ip}}}",
                    text(port, &["name"]),
                    number("containerPort"),
                ));
            }
            let others = seen.entry((number("containerPort"), protocol)).or_default();
            for (other, other_ip, other_host) in others.iter() {
                let what = if ip == *other_ip && host == *other_host {
                    "duplicate port definition"
                } else if host == 0 || *other_host == 0 {
                    "overlapping port definition"
                } else if host == *other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous port definition"
                } else {
                    continue;
                };
                found.push(format!("{field}: {what} with {other}"));
            }
            others.push((field, ip, host));
        }
    }
}

fn port_names(found: &mut Vec<String>, containers: &[(String, &Value)]) {
    let mut seen: HashMap<&str, String> = HashMap::new();
    for (field, container) in containers {
        for (index, port) in list(container, &["ports"]).iter().enumerate() {
            let name = text(port, &["name"]);
            let field = format!("{field}.ports[{index}]");
            if name.is_empty() {
                continue;
            }
            match seen.get(name) {
                Some(first) => found.push(format!(
                    "{field}: duplicate port name {name:?} with {first}, services and probes that \
                     select ports by name will use {first}"
                )),
                None => {
                    seen.insert(name, field);
                }
            }
        }
    }
}

fn affinities(found: &mut Vec<String>, base: &str, spec: &Value) {
    for key in ["podAffinity", "podAntiAffinity"] {
        let base = format!("{base}.affinity.{key}");
        for (index, term) in list(spec, &["affinity", key, REQUIRED]).iter().enumerate() {
            if at(term, &["labelSelector"]).is_none() {
                found.push(format!("{base}.{REQUIRED}[{index}].labelSelector: {NO_SELECTOR}"));
            }
        }
        for (index, term) in list(spec, &["affinity", key, PREFERRED]).iter().enumerate() {
            if at(term, &["podAffinityTerm", "labelSelector"]).is_none() {
                found.push(format!(
                    "{base}.{PREFERRED}[{index}].podAffinityTerm.labelSelector: {NO_SELECTOR}"
                ));
            }
        }
    }
}
