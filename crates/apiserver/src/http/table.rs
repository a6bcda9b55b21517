//! Objects as rows and as bare metadata: what `kubectl get` and metadata
//! informers ask for instead of whole objects.

use serde_json::{Map, Value, json};

use super::{
    accept::Form,
    respond::{self, Answer},
};
use crate::{
    Kind, Status, go, kinds,
    registry::{TEMPLATE_GENERATION, Written, object},
    schema::tables,
    store::Record,
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
                     {}: must be 'Metadata', 'Object', 'None', or empty",
                go::quote(other)
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
        matches!(self.form, Form::Object | Form::Aggregated)
    }

    /// Refuses a list where there is one object.
    pub(crate) fn expect_one(&self) -> Result<(), Status> {
        match self.form {
            Form::MetadataList => {
                Err(self.unsuitable("PartialObjectMetadataList", "not a list", ""))
            }
            _ => Ok(()),
        }
    }

    /// Refuses one object where there is a list.
    pub(crate) fn expect_list(&self) -> Result<(), Status> {
        match self.form {
            Form::Metadata => Err(self.unsuitable("PartialObjectMetadata", "a list", "List")),
            _ => Ok(()),
        }
    }

    /// The answer that shows a stored object: its bytes, where they will do.
    pub(crate) fn record(&self, record: &Record) -> Result<Answer, Status> {
        if self.is_plain() {
            return Ok(respond::bytes(200, record.bytes.clone()));
        }
        self.object(&object::parse(record)?, 200)
    }

    /// The answer that shows one object.
    pub(crate) fn object(&self, object: &Value, code: u16) -> Result<Answer, Status> {
        self.expect_one()?;
        Ok(respond::json(code, &self.one(object, true)))
    }

    /// The answer to a write.
    pub(crate) fn written(&self, written: &Written, code: u16) -> Result<Answer, Status> {
        let code = if written.created { 201 } else { code };
        let answer = match &written.record {
            Some(record) if self.is_plain() => respond::bytes(code, record.bytes.clone()),
            _ => self.object(&written.object, code)?,
        };
        Ok(respond::warn(answer, &written.warnings))
    }

    fn unsuitable(&self, asked: &str, found: &str, suffix: &str) -> Status {
        let group = self.kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        let kind = self.kind.kind;
        let message = format!(
            "you requested {asked}, but the requested object is {found} (*{group}.{kind}{suffix})"
        );
        Status { details: None, ..Status::not_acceptable(message) }
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
            Form::Metadata | Form::MetadataList => metadata_only(self.kind, object),
            Form::Object | Form::Aggregated => object.clone(),
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
