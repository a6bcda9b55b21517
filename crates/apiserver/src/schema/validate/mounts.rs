//! Volumes as containers see them: mounts and devices.

use serde_json::{Value, json};

use super::{report::Report, volumes};
use crate::{
    Cause,
    schema::value::{at, flag, list, text},
};

/// `volumeMounts` of a container.
pub(super) fn mounts(report: &mut Report, base: &str, container: &Value, volumes: &[&Value]) {
    let mounts = list(container, &["volumeMounts"]);
    let devices = list(container, &["volumeDevices"]);
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("{base}[{index}]");
        let (name, path) = (text(mount, &["name"]), text(mount, &["mountPath"]));
        if name.is_empty() {
            report.required(format!("{field}.name"), "");
        }
        if volume(volumes, name).is_none() {
            report.push(Cause::not_found(format!("{field}.name"), &json!(name)));
        }
        if path.is_empty() {
            report.required(format!("{field}.mountPath"), "");
        }
        if mounts[..index].iter().any(|other| text(other, &["mountPath"]) == path) {
            report.invalid(format!("{field}.mountPath"), &json!(path), "must be unique");
        }
        if devices.iter().any(|device| text(device, &["name"]) == name) {
            let detail = "must not already exist in volumeDevices";
            report.invalid(format!("{field}.name"), &json!(name), detail);
        }
        if devices.iter().any(|device| text(device, &["devicePath"]) == path) {
            let detail = "must not already exist as a path in volumeDevices";
            report.invalid(format!("{field}.mountPath"), &json!(path), detail);
        }
        sub_paths(report, base, &field, mount);
        propagation(report, base, container, mount);
        recursive_read_only(report, &format!("{base}.recursiveReadOnly"), mount);
    }
}

/// As upstream, which names the list and not the mount.
fn sub_paths(report: &mut Report, base: &str, field: &str, mount: &Value) {
    let (sub, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
    volumes::descending(report, &format!("{base}.subPath"), sub);
    if !sub.is_empty() && !expression.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        report.invalid(format!("{field}.subPathExpr"), &json!(expression), detail);
    }
    volumes::descending(report, &format!("{base}.subPathExpr"), expression);
}

fn propagation(report: &mut Report, base: &str, container: &Value, mount: &Value) {
    let Some(mode) = at(mount, &["mountPropagation"]).and_then(Value::as_str) else { return };
    let field = format!("{base}.mountPropagation");
    report.only(&field, mode, &["Bidirectional", "HostToContainer", "None"]);
    if mode == "Bidirectional" && !flag(container, &["securityContext", "privileged"]) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        report.forbidden(field, detail);
    }
}

fn recursive_read_only(report: &mut Report, field: &str, mount: &Value) {
    match at(mount, &["recursiveReadOnly"]).and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, &["readOnly"]) {
                report.forbidden(field, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, &["mountPropagation"]), "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                report.forbidden(field, detail);
            }
        }
        Some(other) => report.only(field, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn volume<'v>(volumes: &[&'v Value], name: &str) -> Option<&'v Value> {
    volumes.iter().copied().find(|volume| text(volume, &["name"]) == name)
}

/// `volumeDevices` of a container.
pub(super) fn devices(report: &mut Report, base: &str, container: &Value, volumes: &[&Value]) {
    let devices = list(container, &["volumeDevices"]);
    let mounts = list(container, &["volumeMounts"]);
    for (index, device) in devices.iter().enumerate() {
        let (name_field, path_field) =
            (format!("{base}[{index}].name"), format!("{base}[{index}].devicePath"));
        let (name, path) = (text(device, &["name"]), text(device, &["devicePath"]));
        if name.is_empty() {
            report.required(&name_field, "");
        } else if devices[..index].iter().any(|other| text(other, &["name"]) == name) {
            report.invalid(&name_field, &json!(name), "must be unique");
        }
        let is_claim = |v: &Value| {
            at(v, &["persistentVolumeClaim"]).is_some() || at(v, &["ephemeral"]).is_some()
        };
        match volume(volumes, name) {
            Some(volume) if is_claim(volume) => {}
            Some(_) => report.invalid(
                &name_field,
                &json!(name),
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block \
                 mode",
            ),
            None => report.push(Cause::not_found(&name_field, &json!(name))),
        }
        if path.is_empty() {
            report.required(&path_field, "");
        }
        if devices[..index].iter().any(|other| text(other, &["devicePath"]) == path) {
            report.invalid(&path_field, &json!(path), "must be unique");
        }
        if volumes::has_backsteps(path) {
            report.invalid(&path_field, &json!(path), "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|mount| text(mount, &["name"]) == name) {
            let detail = "must not already exist in volumeMounts";
            report.invalid(&name_field, &json!(name), detail);
        }
        if mounts.iter().any(|mount| text(mount, &["mountPath"]) == path) {
            let detail = "must not already exist as a path in volumeMounts";
            report.invalid(&path_field, &json!(path), detail);
        }
    }
}
