//! Volumes of Pods and their mounts.
//!
//! Looked into: emptyDir, hostPath, secret, configMap, downwardAPI, projected and
//! persistentVolumeClaim. Other sources count as sources and are not looked into.

use serde_json::{Value, json};

use super::{containers, report::Report, syntax};
use crate::{
    Cause,
    schema::value::{at, entries, int, list, text},
};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// Fields of the Pod that files may take.
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// The names that mounts may use.
pub(super) fn names(spec: &Value) -> Vec<&str> {
    list(spec, &["volumes"]).iter().map(|volume| text(volume, &["name"])).collect()
}

pub(super) fn volumes(report: &mut Report, base: &str, spec: &Value) {
    let volumes = list(spec, &["volumes"]);
    for (index, volume) in volumes.iter().enumerate() {
        let field = format!("{base}[{index}]");
        sources(report, &field, volume);
        report.name(volume, &field, "name", syntax::dns_label);
        let name = text(volume, &["name"]);
        if volumes[..index].iter().any(|other| text(other, &["name"]) == name) {
            report.duplicate(format!("{field}.name"), &json!(name));
        }
    }
}

fn sources(report: &mut Report, field: &str, volume: &Value) {
    let given = entries(volume, &[]).filter(|(key, value)| *key != "name" && !value.is_null());
    let mut first = true;
    for (key, source) in given {
        let field = format!("{field}.{key}");
        if !first {
            report.forbidden(&field, "may not specify more than 1 volume type");
            continue;
        }
        first = false;
        match key.as_str() {
            "hostPath" => host_path(report, &field, source),
            "secret" => keyed(report, &field, source, "secretName"),
            "configMap" => keyed(report, &field, source, "name"),
            "downwardAPI" => downward(report, &field, source),
            "projected" => projected(report, &field, source),
            "persistentVolumeClaim" if text(source, &["claimName"]).is_empty() => {
                report.required(format!("{field}.claimName"), "");
            }
            _ => {}
        }
    }
    if first {
        report.required(field, "must specify a volume type");
    }
}

fn host_path(report: &mut Report, field: &str, source: &Value) {
    let path = text(source, &["path"]);
    if path.is_empty() {
        return report.required(format!("{field}.path"), "");
    }
    if path.split('/').any(|part| part == "..") {
        report.invalid(format!("{field}.path"), &json!(path), "must not contain '..'");
    }
    let kind = text(source, &["type"]);
    if !HOST_PATH_TYPES.contains(&kind) {
        let cause = Cause::not_supported(format!("{field}.type"), &json!(kind), &HOST_PATH_TYPES);
        report.push(cause);
    }
}

fn mode(report: &mut Report, field: &str, source: &Value, key: &str) {
    if let Some(mode) = int(source, &[key]).filter(|mode| !(0..=0o777).contains(mode)) {
        report.invalid(format!("{field}.{key}"), &json!(mode), MODE);
    }
}

fn keyed(report: &mut Report, field: &str, source: &Value, name: &str) {
    if text(source, &[name]).is_empty() {
        report.required(format!("{field}.{name}"), "");
    }
    mode(report, field, source, "defaultMode");
    for (index, item) in list(source, &["items"]).iter().enumerate() {
        let field = format!("{field}.items[{index}]");
        for key in ["key", "path"] {
            if text(item, &[key]).is_empty() {
                report.required(format!("{field}.{key}"), "");
            }
        }
        local_path(report, &format!("{field}.path"), text(item, &["path"]));
        mode(report, &field, item, "mode");
    }
}

/// A path that stays inside the volume.
fn local_path(report: &mut Report, field: &str, path: &str) {
    if path.starts_with('/') {
        report.invalid(field, &json!(path), "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        report.invalid(field, &json!(path), "must not contain '..'");
    } else if path.starts_with("..") {
        report.invalid(field, &json!(path), "must not start with '..'");
    }
}

fn downward(report: &mut Report, field: &str, source: &Value) {
    mode(report, field, source, "defaultMode");
    for item in list(source, &["items"]) {
        let path = text(item, &["path"]);
        if path.is_empty() {
            report.required(format!("{field}.path"), "");
        }
        local_path(report, &format!("{field}.path"), path);
        match (at(item, &["fieldRef"]), at(item, &["resourceFieldRef"])) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                report.invalid(field, &json!("resource"), detail);
            }
            (Some(reference), None) => {
                containers::field_ref(
                    report,
                    &format!("{field}.fieldRef"),
                    reference,
                    &FILE_FIELDS,
                );
            }
            (None, Some(_)) => {}
            (None, None) => {
                report.required(field, "one of fieldRef and resourceFieldRef is required")
            }
        }
        mode(report, field, item, "mode");
    }
}

fn projected(report: &mut Report, field: &str, source: &Value) {
    mode(report, field, source, "defaultMode");
    for (index, part) in list(source, &["sources"]).iter().enumerate() {
        let field = format!("{field}.sources[{index}]");
        for key in ["secret", "configMap"] {
            if let Some(source) = at(part, &[key]) {
                keyed(report, &format!("{field}.{key}"), source, "name");
            }
        }
        if let Some(source) = at(part, &["downwardAPI"]) {
            downward(report, &format!("{field}.downwardAPI"), source);
        }
        if let Some(token) = at(part, &["serviceAccountToken"]) {
            token_source(report, &format!("{field}.serviceAccountToken"), token);
        }
        if entries(part, &[]).filter(|(_, source)| !source.is_null()).count() > 1 {
            report.forbidden(&field, "may not specify more than 1 volume type");
        }
    }
}

fn token_source(report: &mut Report, field: &str, token: &Value) {
    /// Ten minutes, and 2^32 seconds (`validateProjectionSources`).
    const SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;
    if let Some(seconds) = int(token, &["expirationSeconds"]).filter(|s| !SECONDS.contains(s)) {
        let detail = if seconds < *SECONDS.start() {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        report.invalid(format!("{field}.expirationSeconds"), &json!(seconds), detail);
    }
    let path = text(token, &["path"]);
    if path.is_empty() {
        report.required(format!("{field}.path"), "");
    }
    local_path(report, &format!("{field}.path"), path);
}

/// `volumeMounts` of a container.
pub(super) fn mounts(report: &mut Report, base: &str, container: &Value, volumes: &[&str]) {
    let mounts = list(container, &["volumeMounts"]);
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("{base}[{index}]");
        let (name, path) = (text(mount, &["name"]), text(mount, &["mountPath"]));
        if name.is_empty() {
            report.required(format!("{field}.name"), "");
        }
        if !volumes.contains(&name) {
            report.push(Cause::not_found(format!("{field}.name"), &json!(name)));
        }
        if path.is_empty() {
            report.required(format!("{field}.mountPath"), "");
        }
        if mounts[..index].iter().any(|other| text(other, &["mountPath"]) == path) {
            report.invalid(format!("{field}.mountPath"), &json!(path), "must be unique");
        }
        let (sub, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
        local_path(report, &format!("{base}.subPath"), sub);
        local_path(report, &format!("{base}.subPathExpr"), expression);
        if !sub.is_empty() && !expression.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            report.invalid(format!("{field}.subPathExpr"), &json!(expression), detail);
        }
    }
}
