//! Which stored objects a request shows: scope and selectors together.

use serde_json::Value;

use super::query::Query;
use crate::{
    Kind, Status, go,
    registry::{FieldSelector, LabelSelector, object},
    schema::fields::selectable,
    store::Record,
};

/// Scope and selectors of a list or a watch.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) kind: &'static Kind,
    /// Empty: all namespaces.
    pub(crate) namespace: String,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Whether a field selector asks for more than the key tells.
    parses: bool,
}

/// Kinds with selectable fields of their own (upstream `AddFieldLabelConversionFunc`).
const OWN_FIELDS: [&str; 6] = ["pods", "nodes", "namespaces", "secrets", "services", "events"];

impl Filter {
    pub(crate) fn new(
        kind: &'static Kind,
        namespace: &str,
        query: &Query,
    ) -> Result<Filter, Status> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
            .map_err(Status::bad_request)?;
        let probe = serde_json::json!({"metadata": {}, "spec": {}, "status": {}});
        for term in fields.terms() {
            if selectable(kind, &probe, &term.field).is_none() {
                // Two texts, as upstream: kinds with fields of their own, and the rest.
                let has_own = OWN_FIELDS.iter().any(|plural| kind.is_core(plural));
                let text = if has_own {
                    format!("field label not supported: {}", term.field)
                } else {
                    format!(
                        "{} is not a known field selector: only \"metadata.name\", \
                         \"metadata.namespace\"",
                        go::quote(&term.field)
                    )
                };
                return Err(Status::bad_request(text));
            }
        }
        let parses = fields
            .terms()
            .iter()
            .any(|t| !matches!(t.field.as_str(), "metadata.name" | "metadata.namespace"));
        Ok(Filter { kind, namespace: namespace.to_owned(), labels, fields, parses })
    }

    /// Narrowed to one object, as a watch on its path is.
    pub(crate) fn named(mut self, name: &str) -> Result<Filter, Status> {
        if self.fields.terms().is_empty() {
            self.fields = FieldSelector::of_name(name);
        } else if self.fields.name() != Some(name) {
            let why = "fieldSelector metadata.name doesn't match requested name";
            return Err(Status::bad_request(why));
        }
        Ok(self)
    }

    /// The scope as the store wants it.
    pub(crate) fn scope(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|n| !n.is_empty())
    }

    /// Whether everything in scope is shown.
    pub(crate) fn is_open(&self) -> bool {
        self.labels.is_empty() && self.fields.terms().is_empty()
    }

    /// Whether a stored object is shown. Parses no more of it than the selectors need.
    pub(crate) fn shows(&self, record: &Record) -> bool {
        if !self.namespace.is_empty() && *record.key.namespace != *self.namespace {
            return false;
        }
        let by_key = self.fields.terms().iter().all(|term| {
            let found = match term.field.as_str() {
                "metadata.name" => &*record.key.name,
                "metadata.namespace" => &*record.key.namespace,
                _ => return true,
            };
            (found == term.value) == term.equal
        });
        if !by_key || !self.labels.matches_bytes(&record.bytes) {
            return false;
        }
        if !self.parses {
            return true;
        }
        let Ok(object) = object::parse(record) else { return false };
        self.shows_fields(&object)
    }

    fn shows_fields(&self, object: &Value) -> bool {
        self.fields.terms().iter().all(|term| {
            let found = selectable(self.kind, object, &term.field).unwrap_or_default();
            (found == term.value) == term.equal
        })
    }
}
