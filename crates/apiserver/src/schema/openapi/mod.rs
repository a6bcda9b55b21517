//! OpenAPI v3: the documents that kubectl reads before it writes, and for `explain`.
//!
//! ```text
//! kinds (rows) ──▶ paths ───────┐
//! data/openapi.txt ──▶ schemas ─┴─▶ document, one per group version ──▶ index (with hashes)
//! ```
//!
//! Paths come from the table of kinds, schemas from upstream's published documents. A schema is
//! copied as text: nothing is parsed, so a document is made in a millisecond at its first request
//! and then kept. kubectl asks a PATCH operation of the kind for its parameter `fieldValidation`;
//! finding it, it leaves validation to the server. What it asks v2 for, [`v2`] tells.

mod paths;
mod schemas;
pub mod v2;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

pub use super::types::unknown_fields;
use crate::kinds::{self, Kind};

/// The release whose types the schemas describe.
const KUBERNETES_VERSION: &str = "v1.33.4";

static DOCUMENTS: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let mut served: Vec<&'static str> = Vec::new();
    for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
        if !served.contains(&kind.api_version) {
            served.push(kind.api_version);
        }
    }
    served.into_iter().map(Document::build).collect()
});

/// What one group version is.
struct Document {
    /// `api/v1`, `apis/apps/v1`.
    path: String,
    text: Bytes,
    hash: String,
}

/// The answer to `GET /openapi/v3`: where each group version's document is. The hash in the URL
/// changes with the content, so that clients may keep what they fetched.
pub fn index() -> Value {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|document| {
            let Document { path, hash, .. } = document;
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path.clone(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// The answer to `GET /openapi/v3/{path}`, as JSON text: `api/v1`, `apis/apps/v1`. `None` for a
/// group version that is not held.
pub fn document(group_version_path: &str) -> Option<Bytes> {
    find(group_version_path).map(|document| document.text.clone())
}

/// The hash that [`index`] gives for a document: its entity tag.
pub fn hash(group_version_path: &str) -> Option<&'static str> {
    find(group_version_path).map(|document| document.hash.as_str())
}

fn find(group_version_path: &str) -> Option<&'static Document> {
    DOCUMENTS.iter().find(|document| document.path == group_version_path)
}

impl Document {
    fn build(api_version: &'static str) -> Document {
        let held: Vec<&Kind> = kinds::ALL
            .iter()
            .chain(kinds::VIRTUAL)
            .copied()
            .filter(|kind| kind.api_version == api_version)
            .collect();
        let mut all = Map::new();
        for kind in &held {
            paths::add(kind, &mut all);
        }
        let paths = Value::Object(all).to_string();
        let schemas = schemas::closure(&paths);
        let text = format!(
            "{{\"openapi\":\"3.0.0\",\"info\":{{\"title\":\"Kubernetes\",\
             \"version\":\"{KUBERNETES_VERSION}\"}},\"paths\":{paths},\
             \"components\":{{\"schemas\":{schemas}}}}}"
        );
        let prefix = if api_version.contains('/') { "apis" } else { "api" };
        let hash = format!("{:016X}", fnv1a(text.as_bytes()));
        Document { path: format!("{prefix}/{api_version}"), text: text.into(), hash }
    }
}

/// FNV-1a, 64 bits: stable across releases of the compiler, which the standard hasher is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests;
