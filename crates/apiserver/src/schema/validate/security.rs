//! As whom a Pod and its containers run, and what they may.
//!
//! Not looked into: the names of Windows accounts and Windows' host processes.

use serde_json::{Value, json};

use super::{report::Report, syntax, volumes};
use crate::schema::value::{at, flag, list, text};

/// Longest path of an AppArmor profile (`PATH_MAX - 1`).
const PROFILE_MAX: usize = 4095;
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
/// Largest user or group id.
const ID_MAX: i64 = i32::MAX as i64;

/// What a Pod of another operating system has no use for, in upstream's order: in the spec, in
/// its security context, in that of a container.
const NOT_WINDOWS: [(bool, &str); 15] = [
    (true, "appArmorProfile"),
    (true, "seLinuxOptions"),
    (false, "hostUsers"),
    (false, "hostPID"),
    (false, "hostIPC"),
    (true, "seccompProfile"),
    (true, "fsGroup"),
    (true, "fsGroupChangePolicy"),
    (true, "sysctls"),
    (false, "shareProcessNamespace"),
    (true, "runAsUser"),
    (true, "runAsGroup"),
    (true, "supplementalGroups"),
    (true, "supplementalGroupsPolicy"),
    (true, "seLinuxChangePolicy"),
];
const CONTAINER_NOT_WINDOWS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Whether the Pod shares the users of its host, as it does unless it says no.
fn host_users(spec: &Value) -> bool {
    at(spec, &["hostUsers"]).and_then(Value::as_bool).unwrap_or(true)
}

pub(super) fn pod(report: &mut Report, base: &str, spec: &Value) {
    let Some(context) = at(spec, &["securityContext"]) else { return };
    let base = format!("{base}.securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(report, &format!("{base}.{key}"), at(context, &[key]));
    }
    for (index, group) in list(context, &["supplementalGroups"]).iter().enumerate() {
        id(report, &format!("{base}.supplementalGroups[{index}]"), Some(group));
    }
    if flag(spec, &["hostPID"]) && flag(spec, &["shareProcessNamespace"]) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        report.invalid(format!("{base}.shareProcessNamespace"), &json!(true), detail);
    }
    sysctls(report, &format!("{base}.sysctls"), spec, list(context, &["sysctls"]));
    closed(report, &base, context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(report, &format!("{base}.seccompProfile"), context);
    apparmor(report, &format!("{base}.appArmorProfile"), context);
    closed(report, &base, context, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    // The other policy is behind a gate.
    closed(report, &base, context, "seLinuxChangePolicy", &["Recursive"]);
}

fn closed(report: &mut Report, base: &str, context: &Value, key: &str, supported: &[&str]) {
    if let Some(value) = at(context, &[key]).and_then(Value::as_str) {
        report.only(&format!("{base}.{key}"), value, supported);
    }
}

fn id(report: &mut Report, field: &str, value: Option<&Value>) {
    if let Some(id) = value.and_then(Value::as_i64).filter(|id| !(0..=ID_MAX).contains(id)) {
        report.invalid(field, &json!(id), &syntax::between(0, ID_MAX));
    }
}

fn sysctls(report: &mut Report, base: &str, spec: &Value, all: &[Value]) {
    for (index, sysctl) in all.iter().enumerate() {
        let (field, name) = (format!("{base}[{index}].name"), text(sysctl, &["name"]));
        if name.is_empty() {
            report.required(&field, "");
        } else if !syntax::is_sysctl(name) {
            report.invalid(&field, &json!(name), syntax::SYSCTL);
        } else if all[..index].iter().any(|other| text(other, &["name"]) == name) {
            report.duplicate(&field, &json!(name));
        }
        // Both spellings are taken: net.core.x and net/core/x.
        let first = name.split(['.', '/']).next().unwrap_or_default();
        if flag(spec, &["hostNetwork"]) && first == "net" {
            let detail = "may not be specified when 'hostNetwork' is true";
            report.invalid(&field, &json!(name), detail);
        }
        let is_ipc = name.replace('/', ".").starts_with("fs.mqueue.")
            || ["kernel.shm", "kernel.msg", "kernel.sem"]
                .iter()
                .any(|prefix| name.replace('/', ".").starts_with(prefix));
        if flag(spec, &["hostIPC"]) && is_ipc {
            let detail = "may not be specified when 'hostIPC' is true";
            report.invalid(&field, &json!(name), detail);
        }
    }
}

fn seccomp(report: &mut Report, field: &str, context: &Value) {
    let Some(profile) = at(context, &["seccompProfile"]) else { return };
    let kind = text(profile, &["type"]);
    match kind {
        "" => {
            report.required(format!("{field}.type"), "type is required when seccompProfile is set");
        }
        kind => report.only(&format!("{field}.type"), kind, &PROFILE_TYPES),
    }
    let path = at(profile, &["localhostProfile"]).and_then(Value::as_str);
    let field = format!("{field}.localhostProfile");
    match (kind, path) {
        ("Localhost", None) => {
            report.required(field, "must be set when seccomp type is Localhost");
        }
        ("Localhost", Some(path)) => volumes::descending(report, &field, path),
        (_, Some(_)) => {
            report.invalid(field, profile, "can only be set when seccomp type is Localhost");
        }
        (_, None) => {}
    }
}

fn apparmor(report: &mut Report, field: &str, context: &Value) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = at(context, &["appArmorProfile"]) else { return };
    let path = at(profile, &["localhostProfile"]).and_then(Value::as_str);
    let path_field = format!("{field}.localhostProfile");
    match text(profile, &["type"]) {
        "Localhost" => match path {
            None | Some("") => report.required(path_field, NEEDED),
            Some(path) => {
                if path.trim() != path {
                    let detail = "must not be padded with whitespace";
                    report.invalid(&path_field, &json!(path), detail);
                }
                if path.len() > PROFILE_MAX {
                    report.push(crate::Cause::too_long(path_field, PROFILE_MAX));
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(path) = path {
                let detail = "can only be set when AppArmor type is Localhost";
                report.invalid(path_field, &json!(path), detail);
            }
        }
        "" => {
            let detail = "type is required when appArmorProfile is set";
            report.required(format!("{field}.type"), detail);
        }
        other => report.only(&format!("{field}.type"), other, &PROFILE_TYPES),
    }
}

/// The security context of a container.
pub(super) fn container(report: &mut Report, base: &str, container: &Value, spec: &Value) {
    let Some(context) = at(container, &["securityContext"]) else { return };
    for key in ["runAsUser", "runAsGroup"] {
        id(report, &format!("{base}.{key}"), at(context, &[key]));
    }
    if let Some(mount) = at(context, &["procMount"]).and_then(Value::as_str) {
        let field = format!("{base}.procMount");
        report.only(&field, mount, &["Default", "Unmasked"]);
        if mount == "Unmasked" && host_users(spec) {
            let detail = "`hostUsers` must be false to use `Unmasked`";
            report.invalid(&field, &json!(mount), detail);
        }
    }
    seccomp(report, &format!("{base}.seccompProfile"), context);
    if at(context, &["allowPrivilegeEscalation"]) == Some(&json!(false)) {
        if flag(context, &["privileged"]) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            report.invalid(base, context, detail);
        }
        for added in list(context, &["capabilities", "add"]) {
            if added == "CAP_SYS_ADMIN" {
                let detail = "cannot set `allowPrivilegeEscalation` to false and \
                    `capabilities.Add` CAP_SYS_ADMIN";
                report.invalid(base, context, detail);
            }
        }
    }
    apparmor(report, &format!("{base}.appArmorProfile"), context);
}

/// A Pod with users of its own shares nothing else with its host.
pub(super) fn own_users(report: &mut Report, base: &str, spec: &Value) {
    if host_users(spec) {
        return;
    }
    for (key, name) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if flag(spec, &[key]) {
            report.forbidden(format!("{base}.{name}"), "when `pod.Spec.HostUsers` is false");
        }
    }
}

/// What is said of another operating system than the Pod's own.
pub(super) fn foreign(report: &mut Report, base: &str, spec: &Value) {
    match text(spec, &["os", "name"]) {
        "linux" => {
            const DETAIL: &str = "windows options cannot be set for a linux pod";
            let mut refuse = |owner: &Value, base: &str| {
                if at(owner, &["securityContext", "windowsOptions"]).is_some() {
                    report.forbidden(format!("{base}.securityContext.windowsOptions"), DETAIL);
                }
            };
            refuse(spec, base);
            each_container(base, spec, |container, field| refuse(container, field));
        }
        "windows" => {
            const DETAIL: &str = "cannot be set for a windows pod";
            for (inside, key) in NOT_WINDOWS {
                let (found, field) = if inside {
                    let field = format!("{base}.securityContext.{key}");
                    (at(spec, &["securityContext", key]), field)
                } else {
                    (at(spec, &[key]), format!("{base}.{key}"))
                };
                // False is as good as nothing, but for the two that are pointers upstream.
                let counts = |v: &Value| {
                    v != &json!(false) || ["hostUsers", "shareProcessNamespace"].contains(&key)
                };
                if found.is_some_and(counts) {
                    report.forbidden(field, DETAIL);
                }
            }
            each_container(base, spec, |container, field| {
                for key in CONTAINER_NOT_WINDOWS {
                    if at(container, &["securityContext", key]).is_some() {
                        report.forbidden(format!("{field}.securityContext.{key}"), DETAIL);
                    }
                }
            });
        }
        _ => {}
    }
}

fn each_container(base: &str, spec: &Value, mut visit: impl FnMut(&Value, &str)) {
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(spec, &[key]).iter().enumerate() {
            visit(container, &format!("{base}.{key}[{index}]"));
        }
    }
}
