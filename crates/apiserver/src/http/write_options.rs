//! The options of writes and deletes: read from the query or the body, and refused with all their
//! faults at once. Counterpart of apimachinery's `pkg/apis/meta/v1/validation`.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::{body, patches::PatchType, query::Query};
use crate::{
    Cause, Status, go,
    registry::{DeleteOptions, FieldValidation, Preconditions, Propagation, SCHEME, WriteOptions},
    schema::types,
};

/// Longest `fieldManager` (apimachinery `FieldManagerMaxLength`).
const FIELD_MANAGER_BYTES_MAX: usize = 128;
const DELETE_OPTIONS: &str = "DeleteOptions";

/// The options of a create or an update; `kind` names them in refusals.
pub(crate) fn of_write(
    kind: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<WriteOptions, Status> {
    read(kind, query, headers, Vec::new())
}

/// The options of a patch.
pub(crate) fn of_patch(
    patch_type: PatchType,
    query: &Query,
    headers: &HeaderMap,
) -> Result<WriteOptions, Status> {
    let mut causes = Vec::new();
    if patch_type == PatchType::Apply {
        if query.get("fieldManager").is_none_or(str::is_empty) {
            causes.push(Cause::required("fieldManager", "is required for apply patch"));
        }
    } else if query.get("force").is_some() {
        causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
    }
    read("PatchOptions", query, headers, causes)
}

fn read(
    kind: &str,
    query: &Query,
    headers: &HeaderMap,
    mut causes: Vec<Cause>,
) -> Result<WriteOptions, Status> {
    let manager = query.get("fieldManager").unwrap_or_default();
    causes.extend(manager_faults(manager));
    let asked: Vec<&str> = query.all("dryRun").collect();
    causes.extend(dry_run_fault(&asked));
    let field_validation = match query.get("fieldValidation").unwrap_or_default() {
        // The server's default since 1.27.
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let known = ["", "Ignore", "Strict", "Warn"];
            causes.push(Cause::not_supported("fieldValidation", &other.into(), &known));
            FieldValidation::Warn
        }
    };
    if !causes.is_empty() {
        return Err(Status::invalid_options(kind, causes));
    }
    let field_manager = match manager {
        // As upstream: the program's name, cut at the first slash.
        "" => headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .and_then(|agent| agent.split('/').next())
            .filter(|name| !name.is_empty())
            .map(|name| name.chars().take(FIELD_MANAGER_BYTES_MAX).collect())
            .or_else(|| Some("unknown".to_owned())),
        name => Some(name.to_owned()),
    };
    Ok(WriteOptions {
        dry_run: !asked.is_empty(),
        field_manager,
        force: query.flag("force"),
        field_validation,
        duplicate_fields: Vec::new(),
    })
}

fn manager_faults(name: &str) -> Vec<Cause> {
    const FIELD: &str = "fieldManager";
    let mut causes = Vec::new();
    if name.len() > FIELD_MANAGER_BYTES_MAX {
        causes.push(Cause::too_long(FIELD, FIELD_MANAGER_BYTES_MAX));
    }
    for (at, bad) in name.char_indices().filter(|(_, c)| !go::is_printed(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(bad));
        causes.push(Cause::invalid(FIELD, &name.into(), &why));
    }
    causes
}

fn dry_run_fault(values: &[&str]) -> Option<Cause> {
    let is_known = values.iter().all(|value| *value == "All");
    (!is_known).then(|| Cause::not_supported("dryRun", &values.into(), &["All"]))
}

/// The options of a delete: in the body, or else in the query.
pub(crate) fn of_delete(
    headers: &HeaderMap,
    body: &[u8],
    query: &Query,
) -> Result<DeleteOptions, Status> {
    if body.is_empty() {
        return delete_options(&in_query(query)?);
    }
    let encoding = body::encoding(headers)?;
    // Upstream did not foresee bad options of a delete.
    let (options, _) = body::decode(encoding, body).map_err(Status::unforeseen)?;
    let text = |key: &str| options.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (text("kind"), text("apiVersion"));
    if !matches!(kind, "" | DELETE_OPTIONS) {
        let (kind, version) = (go::quote(kind), go::quote(version));
        return Err(Status::unforeseen(format!(
            "no kind {kind} is registered for version {version} in scheme {SCHEME:?}"
        )));
    }
    types::check_as("v1", DELETE_OPTIONS, &options).map_err(Status::unforeseen)?;
    delete_options(&options)
}

/// The options of a delete in a query, as a body would have them.
fn in_query(query: &Query) -> Result<Value, Status> {
    let mut options = Map::new();
    if let Some(seconds) = query.integer("gracePeriodSeconds")? {
        options.insert("gracePeriodSeconds".into(), seconds.into());
    }
    if let Some(orphans) = query.switch("orphanDependents") {
        options.insert("orphanDependents".into(), orphans.into());
    }
    if let Some(policy) = query.get("propagationPolicy") {
        options.insert("propagationPolicy".into(), policy.into());
    }
    options.insert("dryRun".into(), query.all("dryRun").collect());
    let mut preconditions = Map::new();
    for key in ["uid", "resourceVersion"] {
        if let Some(value) = query.get(key).filter(|value| !value.is_empty()) {
            preconditions.insert(key.into(), value.into());
        }
    }
    options.insert("preconditions".into(), preconditions.into());
    Ok(options.into())
}

/// The options of a delete, of the right types, as the registry takes them.
pub(crate) fn delete_options(options: &Value) -> Result<DeleteOptions, Status> {
    let text = |key: &str| options.get(key).and_then(Value::as_str);
    let (orphans, policy) =
        (options.get("orphanDependents").and_then(Value::as_bool), text("propagationPolicy"));
    let mut causes = Vec::new();
    if let (Some(_), Some(policy)) = (orphans, policy) {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        causes.push(Cause::invalid("propagationPolicy", &policy.into(), detail));
    }
    let propagation = match (policy, orphans) {
        (Some(policy), _) => {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            let found = Propagation::parse(policy);
            if found.is_none() {
                causes.push(Cause::not_supported("propagationPolicy", &policy.into(), &known));
            }
            found
        }
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) => Some(Propagation::Background),
        (None, None) => None,
    };
    let asked = options.get("dryRun").and_then(Value::as_array);
    let asked: Vec<&str> = asked.into_iter().flatten().filter_map(Value::as_str).collect();
    causes.extend(dry_run_fault(&asked));
    if !causes.is_empty() {
        return Err(Status::invalid_options(DELETE_OPTIONS, causes));
    }
    let precondition = |key: &str| {
        let found = options.pointer(&format!("/preconditions/{key}")).and_then(Value::as_str);
        found.map(str::to_owned)
    };
    Ok(DeleteOptions {
        grace_period_seconds: options.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation,
        preconditions: Preconditions {
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
        },
        dry_run: !asked.is_empty(),
    })
}
