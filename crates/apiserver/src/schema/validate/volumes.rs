//! Volumes of Pods.
//!
//! Looked into: emptyDir, hostPath, secret, nfs, persistentVolumeClaim, downwardAPI, configMap,
//! projected, csi, ephemeral and image. Other sources count as sources and are not looked into.

use serde_json::{Value, json};

use super::{env, report::Report, syntax};
use crate::{
    Cause,
    schema::{
        quantity::Quantity,
        value::{at, int, list, text},
    },
};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const DRIVER_NAME_MAX: usize = 63;
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
/// What a volume may be made of. The first of these counts, each further one is one too many.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Looks at all volumes; the valid ones are those that containers may use.
pub(super) fn volumes<'v>(
    report: &mut Report,
    base: &str,
    spec: &'v Value,
    is_pod: bool,
) -> Vec<&'v Value> {
    let mut valid: Vec<&Value> = Vec::new();
    for (index, volume) in list(spec, &["volumes"]).iter().enumerate() {
        let field = format!("{base}[{index}]");
        let before = report.len();
        sources(report, &field, volume, is_pod);
        report.name(volume, &field, "name", syntax::dns_label);
        let name = text(volume, &["name"]);
        if valid.iter().any(|other| text(other, &["name"]) == name) {
            report.duplicate(format!("{field}.name"), &json!(name));
        }
        if report.len() == before {
            valid.push(volume);
        }
    }
    valid
}

fn sources(report: &mut Report, field: &str, volume: &Value, is_pod: bool) {
    let given: Vec<(&str, &Value)> =
        SOURCES.iter().filter_map(|key| Some((*key, at(volume, &[key])?))).collect();
    let Some(((key, source), further)) = given.split_first() else {
        return report.required(field, "must specify a volume type");
    };
    one_source(report, &format!("{field}.{key}"), key, source, is_pod);
    for (key, _) in further {
        report.forbidden(format!("{field}.{key}"), "may not specify more than 1 volume type");
    }
}

fn one_source(report: &mut Report, field: &str, key: &str, source: &Value, is_pod: bool) {
    match key {
        "emptyDir" => {
            let size = at(source, &["sizeLimit"]).and_then(Quantity::from_value);
            if size.is_some_and(|size| size.is_negative()) {
                let detail = "SizeLimit field must be a valid resource quantity";
                report.forbidden(format!("{field}.sizeLimit"), detail);
            }
        }
        "hostPath" => host_path(report, field, source),
        "secret" => keyed(report, field, source, "secretName"),
        "configMap" => keyed(report, field, source, "name"),
        "nfs" => {
            needed(report, field, source, &["server", "path"]);
            let path = text(source, &["path"]);
            if !path.starts_with('/') {
                report.invalid(format!("{field}.path"), &json!(path), "must be an absolute path");
            }
        }
        "downwardAPI" => {
            mode(report, field, source, "defaultMode");
            for item in list(source, &["items"]) {
                downward(report, field, item);
            }
        }
        "projected" => projected(report, field, source),
        "persistentVolumeClaim" => needed(report, field, source, &["claimName"]),
        "csi" => driver(report, &format!("{field}.driver"), text(source, &["driver"])),
        "ephemeral" if at(source, &["volumeClaimTemplate"]).is_none() => {
            report.required(format!("{field}.volumeClaimTemplate"), "");
        }
        "image" => {
            if is_pod {
                needed(report, field, source, &["reference"]);
            }
            report.one_of(
                &format!("{field}.pullPolicy"),
                text(source, &["pullPolicy"]),
                &["Always", "IfNotPresent", "Never"],
            );
        }
        _ => {}
    }
}

fn needed(report: &mut Report, field: &str, source: &Value, keys: &[&str]) {
    for key in keys {
        if text(source, &[key]).is_empty() {
            report.required(format!("{field}.{key}"), "");
        }
    }
}

fn driver(report: &mut Report, field: &str, name: &str) {
    if name.is_empty() {
        report.required(field, "");
    }
    if name.len() > DRIVER_NAME_MAX {
        report.push(Cause::too_long(field, DRIVER_NAME_MAX));
    }
    report.syntax(field, name, syntax::dns_subdomain(&name.to_lowercase()));
}

fn host_path(report: &mut Report, field: &str, source: &Value) {
    let path = text(source, &["path"]);
    if path.is_empty() {
        return report.required(format!("{field}.path"), "");
    }
    no_backsteps(report, &format!("{field}.path"), path);
    report.only(&format!("{field}.type"), text(source, &["type"]), &HOST_PATH_TYPES);
}

fn mode(report: &mut Report, field: &str, source: &Value, key: &str) {
    if let Some(mode) = int(source, &[key]).filter(|mode| !(0..=0o777).contains(mode)) {
        report.invalid(format!("{field}.{key}"), &json!(mode), MODE);
    }
}

fn keyed(report: &mut Report, field: &str, source: &Value, name: &str) {
    needed(report, field, source, &[name]);
    mode(report, field, source, "defaultMode");
    for (index, item) in list(source, &["items"]).iter().enumerate() {
        key_to_path(report, &format!("{field}.items[{index}]"), item);
    }
}

fn key_to_path(report: &mut Report, field: &str, item: &Value) {
    needed(report, field, item, &["key", "path"]);
    local_path(report, &format!("{field}.path"), text(item, &["path"]));
    mode(report, field, item, "mode");
}

/// A path that stays inside the volume and is no name that the kubelet uses itself.
fn local_path(report: &mut Report, field: &str, path: &str) {
    descending(report, field, path);
    if path.starts_with("..") && !path.starts_with("../") {
        report.invalid(field, &json!(path), "must not start with '..'");
    }
}

/// A path that goes down from where it starts.
pub(super) fn descending(report: &mut Report, field: &str, path: &str) {
    if path.starts_with('/') {
        report.invalid(field, &json!(path), "must be a relative path");
    }
    no_backsteps(report, field, path);
}

fn no_backsteps(report: &mut Report, field: &str, path: &str) {
    if has_backsteps(path) {
        report.invalid(field, &json!(path), "must not contain '..'");
    }
}

pub(super) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// One file of a downwardAPI volume; upstream does not say which.
fn downward(report: &mut Report, field: &str, item: &Value) {
    needed(report, field, item, &["path"]);
    local_path(report, &format!("{field}.path"), text(item, &["path"]));
    match (at(item, &["fieldRef"]), at(item, &["resourceFieldRef"])) {
        (Some(reference), other) => {
            env::field_ref(report, &format!("{field}.fieldRef"), reference, &FILE_FIELDS);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                report.invalid(field, &json!("resource"), detail);
            }
        }
        (None, Some(reference)) => {
            env::resource_ref(report, &format!("{field}.resourceFieldRef"), reference, true);
        }
        (None, None) => report.required(field, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(report, field, item, "mode");
}

fn projected(report: &mut Report, field: &str, source: &Value) {
    mode(report, field, source, "defaultMode");
    let mut paths: Vec<&str> = Vec::new();
    for (index, part) in list(source, &["sources"]).iter().enumerate() {
        let base = format!("{field}.sources[{index}]");
        for key in ["secret", "configMap"] {
            let Some(source) = at(part, &[key]) else { continue };
            let base = format!("{base}.{key}");
            needed(report, &base, source, &["name"]);
            for (index, item) in list(source, &["items"]).iter().enumerate() {
                key_to_path(report, &format!("{base}.items[{index}]"), item);
                once(report, field, &mut paths, text(item, &["path"]), text(source, &["name"]));
            }
        }
        if let Some(source) = at(part, &["downwardAPI"]) {
            for item in list(source, &["items"]) {
                downward(report, &format!("{base}.downwardAPI"), item);
                let path = text(item, &["path"]);
                once(report, field, &mut paths, path, path);
            }
        }
        if let Some(token) = at(part, &["serviceAccountToken"]) {
            token_source(report, field, &format!("{base}.serviceAccountToken"), token);
        }
        if let Some(bundle) = at(part, &["clusterTrustBundle"]) {
            let base = format!("{base}.clusterTrustBundle");
            needed(report, &base, bundle, &["path"]);
            let path = text(bundle, &["path"]);
            local_path(report, &format!("{base}.path"), path);
            once(report, field, &mut paths, path, path);
        }
        let given = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
        let given = given.iter().chain(&["clusterTrustBundle"]);
        if given.filter(|key| at(part, &[key]).is_some()).count() > 1 {
            report.forbidden(&base, "may not specify more than 1 volume type per source");
        }
    }
}

/// A file is there once.
fn once<'v>(
    report: &mut Report,
    field: &str,
    paths: &mut Vec<&'v str>,
    path: &'v str,
    shown: &str,
) {
    if path.is_empty() {
        return;
    }
    if paths.contains(&path) {
        report.invalid(field, &json!(shown), "conflicting duplicate paths");
    }
    paths.push(path);
}

/// As upstream, which names the path of a token as if it were the volume's.
fn token_source(report: &mut Report, volume: &str, field: &str, token: &Value) {
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
    needed(report, volume, token, &["path"]);
    local_path(report, &format!("{volume}.path"), text(token, &["path"]));
}
