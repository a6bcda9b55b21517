//! ConfigMaps and Secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    json,
    report::{IMMUTABLE, Report},
    syntax,
};
use crate::{
    Cause,
    schema::value::{at, entries, flag, text},
};

/// Bytes of all values together (`core.MaxSecretSize`, also for ConfigMaps).
const DATA_MAX: usize = 1024 * 1024;
const WHEN_SET: &str = "field is immutable when `immutable` is set";
/// Not shown, because it is one.
const REDACTED: &str = "\"<secret contents redacted>\"";

/// Bytes behind a base64 text; the text itself is not kept.
fn decoded_len(text: &str) -> Option<usize> {
    STANDARD.decode(text).ok().map(|bytes| bytes.len())
}

pub(super) fn config_map(report: &mut Report, map: &Value) {
    let mut total = 0;
    for (key, value) in entries(map, &["data"]) {
        let field = format!("data[{key}]");
        report.syntax(&field, key, syntax::config_key(key));
        if at(map, &["binaryData", key]).is_some() {
            let detail = "duplicate of key present in binaryData";
            report.invalid(&field, &key.as_str().into(), detail);
        }
        total += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(map, &["binaryData"]) {
        let field = format!("binaryData[{key}]");
        report.syntax(&field, key, syntax::config_key(key));
        match decoded_len(value.as_str().unwrap_or_default()) {
            Some(len) => total += len,
            None => report.invalid(&field, value, "must be base64"),
        }
    }
    if total > DATA_MAX {
        // Upstream prints the path of the whole object like this.
        report.push(Cause::too_long("[]", DATA_MAX));
    }
}

pub(super) fn config_map_change(report: &mut Report, old: &Value, new: &Value) {
    kept(report, old, new, &["data", "binaryData"]);
}

/// Keeps what `immutable` protects.
fn kept(report: &mut Report, old: &Value, new: &Value, keys: &[&str]) {
    if !flag(old, &["immutable"]) {
        return;
    }
    if !flag(new, &["immutable"]) {
        report.forbidden("immutable", WHEN_SET);
    }
    for key in keys {
        let all = |object: &Value| -> Vec<(String, Value)> {
            let mut all: Vec<_> =
                entries(object, &[key]).map(|(k, v)| (k.clone(), v.clone())).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        if all(old) != all(new) {
            report.forbidden(*key, WHEN_SET);
        }
    }
}

pub(super) fn secret(report: &mut Report, secret: &Value) {
    let mut total = 0;
    for (key, value) in entries(secret, &["data"]) {
        let field = format!("data[{key}]");
        report.syntax(&field, key, syntax::config_key(key));
        match decoded_len(value.as_str().unwrap_or_default()) {
            Some(len) => total += len,
            None => report.invalid_shown(&field, REDACTED, "must be base64"),
        }
    }
    if total > DATA_MAX {
        report.push(Cause::too_long("data", DATA_MAX));
    }
    by_type(report, secret);
}

fn by_type(report: &mut Report, secret: &Value) {
    let has = |key: &str| at(secret, &["data", key]).is_some();
    let need = |report: &mut Report, key: &str| report.required(format!("data[{key}]"), "");
    match text(secret, &["type"]) {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if text(secret, &["metadata", "annotations", key]).is_empty() {
                report.required(format!("metadata.annotations[{key}]"), "");
            }
        }
        "kubernetes.io/dockercfg" => json_value(report, secret, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_value(report, secret, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need(report, "username");
            need(report, "password");
        }
        "kubernetes.io/ssh-auth" if text(secret, &["data", "ssh-privatekey"]).is_empty() => {
            need(report, "ssh-privatekey");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                need(report, key);
            }
        }
        _ => {}
    }
}

/// A key whose value must be a JSON object.
fn json_value(report: &mut Report, secret: &Value, key: &str) {
    let field = format!("data[{key}]");
    let Some(value) = at(secret, &["data", key]).and_then(Value::as_str) else {
        return report.required(field, "");
    };
    // Broken base64 is reported already.
    let Ok(bytes) = STANDARD.decode(value) else { return };
    if let Some(fault) = json::map_fault(&bytes) {
        report.invalid_shown(field, REDACTED, &fault);
    }
}

pub(super) fn secret_change(report: &mut Report, old: &Value, new: &Value) {
    let (before, after) = (text(old, &["type"]), text(new, &["type"]));
    if before != after {
        report.invalid("type", &after.into(), IMMUTABLE);
    }
    kept(report, old, new, &["data"]);
}
