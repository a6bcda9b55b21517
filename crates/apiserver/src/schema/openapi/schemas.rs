//! The schemas, as text: which ones a document needs, and their names.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::kinds::Kind;

/// One line per schema: its name, a tab, its JSON.
static TEXT: &str = include_str!("../data/openapi.txt");

static BY_NAME: LazyLock<BTreeMap<&str, &str>> =
    LazyLock::new(|| TEXT.lines().filter_map(|line| line.split_once('\t')).collect());

/// Upstream spells every reference so.
const REFERENCE: &str = "#/components/schemas/";

/// Schema names of the types that every group version has.
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
pub(super) const EVICTION: &str = "io.k8s.api.policy.v1.Eviction";
pub(super) const BINDING: &str = "io.k8s.api.core.v1.Binding";
pub(super) const TOKEN_REQUEST: &str = "io.k8s.api.authentication.v1.TokenRequest";

/// The Go package below `k8s.io/api` is the group's first word (`core` for the core group).
pub(super) fn name_of(kind: &Kind, type_name: &str) -> String {
    let package = match kind.group.split('.').next() {
        None | Some("") => "core",
        Some(word) => word,
    };
    format!("io.k8s.api.{package}.{}.{type_name}", kind.version)
}

/// A JSON reference to a schema.
pub(super) fn reference(name: &str) -> String {
    format!("{REFERENCE}{name}")
}

/// All schemas that a text refers to, and those that they refer to, as one JSON object.
pub(super) fn closure(text: &str) -> String {
    let mut held: BTreeMap<&str, &str> = BTreeMap::new();
    let mut pending: Vec<&str> = references(text).collect();
    while let Some(name) = pending.pop() {
        if let Some((name, schema)) = BY_NAME.get_key_value(name)
            && held.insert(name, schema).is_none()
        {
            pending.extend(references(schema));
        }
    }
    let members: Vec<String> =
        held.iter().map(|(name, schema)| format!("\"{name}\":{schema}")).collect();
    format!("{{{}}}", members.join(","))
}

fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split(REFERENCE).skip(1).filter_map(|rest| rest.split('"').next())
}
