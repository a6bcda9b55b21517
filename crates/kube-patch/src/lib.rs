//! Kubernetes patches as pure functions over JSON: JSON patch, merge patch, strategic merge patch,
//! server-side apply.
//!
//! ```text
//! document + patch (+ schema of the kind) ──▶ new document, or a PatchError with its HTTP code
//! ```
//!
//! | function | patch content type |
//! |---|---|
//! | [`json_patch()`] | `application/json-patch+json` |
//! | [`merge_patch`] | `application/merge-patch+json` |
//! | [`strategic_merge`] | `application/strategic-merge-patch+json` |
//! | [`apply::apply`] | `application/apply-patch+yaml` |
//! | [`apply::update`] | none: it follows every other write and notes the owner of the fields |
//!
//! No I/O, no clock, no global state but the built-in tables. Documents are `serde_json::Value`,
//! unknown fields stay as they are, and nothing changes when a patch fails. Strategic merge needs to
//! know, field by field, which lists merge and by what key: [`schema_for`] knows the built-in kinds,
//! [`Schema::from_openapi`] reads any other.
//!
//! ```
//! use portolan_kube_patch::{PatchError, schema_for, strategic_merge};
//! use serde_json::json;
//!
//! let service = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
//! let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 9090}, {"port": 443}]}});
//! let patched = strategic_merge(&service, &patch, schema_for("", "v1", "Service"))?;
//! assert_eq!(
//!     patched,
//!     json!({"spec": {"ports": [{"port": 80, "targetPort": 9090}, {"port": 443}]}}),
//! );
//! # Ok::<(), PatchError>(())
//! ```
//!
//! What is not here: computing patches (`kubectl diff` and the like do that), YAML, conversion
//! between API versions, validation of fields. Where a rule differs from upstream, the module that
//! holds it says so.
//!
//! Recursion follows the depth of the documents; parse them with a depth limit (`serde_json` stops
//! at 128 by itself).

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod apply;
mod error;
mod json;
pub mod schema;
mod strategic;

pub use error::{Cause, PatchError, go_print, go_type};
pub use json::{MAX_JSON_PATCH_COPY_BYTES, MAX_JSON_PATCH_OPERATIONS, json_patch, merge_patch};
pub use schema::{Schema, schema_for};
pub use strategic::{spent_patch, strategic_merge};
