//! Objects as rows and as bare metadata: what `kubectl get` and metadata
//! informers ask for instead of whole objects.

use serde_json::{Map, Value, json};

use super::accept::Form;
use crate::{
    Kind, Status, kinds,
    registry::{TEMPLATE_GENERATION, object},
    schema::tables,
};

/// How much of the object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(text: Option<&str>) -> Result<Include, Status> {
        match text {
            None | Some("" | "Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::None),
            Some("Object") => Ok(Include::Object),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: \
                     {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// Shows objects of a kind in a form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) kind: &'static Kind,
    pub(crate) form: Form,
    pub(crate) include: Include,
}

fn metadata_only(kind: &Kind, object: &Value) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if *kind == kinds::DAEMON_SETS
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        // A field of upstream's internal form; the annotation is made with the whole v1 form only.
        annotations.shift_remove(TEMPLATE_GENERATION);
        if annotations.is_empty() {
            object::map_of(&mut metadata).shift_remove("annotations");
        }
    }
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
    })
}

impl Shape {
    /// Whether stored bytes can be shown as they are.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self.form, Form::Table | Form::Metadata)
    }

    /// One object, by itself or in a watch event.
    pub(crate) fn one(&self, object: &Value, with_columns: bool) -> Value {
        match self.form {
            Form::Table => {
                let meta = json!({"resourceVersion": object::meta_str(object, "resourceVersion")});
                let mut table = self.table(meta, [object].into_iter());
                if !with_columns {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
            Form::Metadata => metadata_only(self.kind, object),
            _ => object.clone(),
        }
    }

    /// A list.
    pub(crate) fn many<'a>(&self, meta: Value, objects: impl Iterator<Item = &'a Value>) -> Value {
        match self.form {
            Form::Table => self.table(meta, objects),
            _ => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "items": objects.map(|o| metadata_only(self.kind, o)).collect::<Vec<_>>(),
            }),
        }
    }

    fn table<'a>(&self, meta: Value, objects: impl Iterator<Item = &'a Value>) -> Value {
        let now = object::now_unix_seconds();
        let rows: Vec<Value> = objects
            .map(|object| {
                let mut row = Map::new();
                row.insert("cells".into(), tables::row(self.kind, object, now).into());
                match self.include {
                    Include::None => {
                        row.insert("object".into(), Value::Null);
                    }
                    Include::Metadata => {
                        row.insert("object".into(), metadata_only(self.kind, object));
                    }
                    Include::Object => {
                        row.insert("object".into(), object.clone());
                    }
                }
                Value::Object(row)
            })
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "columnDefinitions": columns(self.kind),
            "rows": rows,
        })
    }
}

fn columns(kind: &Kind) -> Value {
    tables::columns(kind)
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.value_type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect()
}
