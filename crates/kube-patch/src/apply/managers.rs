//! `metadata.managedFields`: who owns what, decoded and encoded.
//!
//! Two entries are of one manager when name, operation and subresource agree, and for updates the
//! API version too (k8s.io/apimachinery `pkg/util/managedfields`). Entries are stored sorted by
//! operation, time, name, version and subresource, as upstream stores them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::FieldSet;
use crate::schema::At;

/// Most entries for updates that one object keeps; the oldest are joined beyond that.
/// `DefaultMaxUpdateManagers` of k8s.io/apimachinery.
pub const MAX_UPDATE_MANAGERS: usize = 10;

/// The name under which joined entries live.
const ANCIENT_CHANGES: &str = "ancient-changes";

const FIELDS_TYPE: &str = "FieldsV1";

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workflow {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Workflow {
    fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns fields. The order is that of upstream's identifiers, which are JSON texts: one with a
/// subresource comes before the same without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The `fieldManager` of the request.
    pub name: String,
    /// How.
    pub workflow: Workflow,
    /// The API version of the writes, for updates; empty for applies, whose owner stays the same
    /// across versions.
    pub api_version: String,
    /// The subresource written through, or empty.
    pub subresource: String,
}

impl Manager {
    pub(super) fn new(
        name: &str,
        workflow: Workflow,
        api_version: &str,
        subresource: &str,
    ) -> Self {
        let name = if name.is_empty() { "unknown" } else { name };
        let api_version = if workflow == Workflow::Apply { "" } else { api_version };
        Self {
            name: name.to_owned(),
            workflow,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

impl Ord for Manager {
    fn cmp(&self, other: &Self) -> Ordering {
        fn key(manager: &Manager) -> (&str, Workflow, &str, bool, &str) {
            let Manager { name, workflow, api_version, subresource } = manager;
            (name, *workflow, api_version, subresource.is_empty(), subresource)
        }
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Manager {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Manager {
    /// As the server names a manager in a conflict.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Value::from(self.name.as_str()))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", Value::from(self.subresource.as_str()))?;
        }
        match self.workflow {
            Workflow::Apply => Ok(()),
            Workflow::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The fields.
    pub fields: FieldSet,
    /// The API version in which the fields are meant.
    pub api_version: String,
    /// When the manager last changed something; RFC 3339 in UTC.
    pub time: Option<String>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(BTreeMap<Manager, Owned>);

impl Managers {
    /// Reads the entries of `metadata.managedFields` of an object.
    ///
    /// # Errors
    /// The first entry that is malformed, in the words of the API server.
    pub fn of(object: &Value) -> Result<Self, String> {
        let entries = object.get("metadata").and_then(|m| m.get("managedFields"));
        let entries = match entries {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(other) => return Err(format!("managedFields is no list but {other}")),
        };
        let mut managers = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let (manager, owned) = decode_entry(index, entry)?;
            managers.0.insert(manager, owned);
        }
        Ok(managers)
    }

    /// Writes the entries into the object, or removes the field when there are none.
    pub fn store(&self, object: &mut Value) {
        strip(object);
        if self.0.is_empty() {
            return;
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("managedFields".to_owned(), self.encode());
        }
    }

    /// The list of entries.
    #[must_use]
    pub fn encode(&self) -> Value {
        let entries = self.0.iter();
        let mut entries: Vec<_> = entries.map(|(m, owned)| encode_entry(m, owned)).collect();
        sort(&mut entries);
        Value::Array(entries)
    }

    /// The managers and what they own.
    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &Owned)> {
        self.0.iter()
    }

    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, manager: &Manager) -> Option<&Owned> {
        self.0.get(manager)
    }

    pub(super) fn take(&mut self, manager: &Manager) -> Option<Owned> {
        self.0.remove(manager)
    }

    /// Sets what a manager owns; a manager that owns nothing goes.
    pub(super) fn set(&mut self, manager: Manager, owned: Owned) {
        if owned.fields.is_empty() {
            self.0.remove(&manager);
        } else {
            self.0.insert(manager, owned);
        }
    }

    pub(super) fn set_time(&mut self, manager: &Manager, now: &str) {
        if let Some(owned) = self.0.get_mut(manager) {
            owned.time = Some(now.to_owned());
        }
    }

    /// Everything that anyone owns.
    pub(super) fn all_fields(&self) -> FieldSet {
        self.0.values().fold(FieldSet::default(), |all, owned| all.union(&owned.fields))
    }

    /// Takes fields from every manager but one.
    pub(super) fn take_from_others(&mut self, keep: Option<&Manager>, fields: &FieldSet) {
        for (manager, owned) in &mut self.0 {
            if Some(manager) != keep {
                owned.fields.subtract(fields, false);
            }
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    pub(super) fn reconcile(&mut self, at: At<'_>) {
        for owned in self.0.values_mut() {
            owned.fields.reconcile(at);
        }
    }

    /// Joins the oldest update entries, per API version, until no more than
    /// [`MAX_UPDATE_MANAGERS`] are left (or none can be joined).
    pub(super) fn cap(&mut self) {
        let updates = self.0.iter().filter(|(m, _)| m.workflow == Workflow::Update);
        let mut oldest: Vec<(Option<String>, Manager)> =
            updates.map(|(manager, owned)| (owned.time.clone(), manager.clone())).collect();
        let mut count = oldest.len();
        oldest.sort();
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for (time, manager) in oldest {
            if count <= MAX_UPDATE_MANAGERS {
                break;
            }
            let version = manager.api_version.clone();
            let bucket = Manager::new(ANCIENT_CHANGES, Workflow::Update, &version, "");
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, manager);
                continue;
            };
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if let Some(joined) = self.0.remove(&manager)
                && let Some(owned) = self.0.get_mut(&bucket)
            {
                owned.fields = owned.fields.union(&joined.fields);
                owned.time = time;
                count -= 1;
            }
        }
    }
}

/// Brings entries into the order in which upstream stores them.
pub(super) fn sort(entries: &mut [Value]) {
    fn key(entry: &Value) -> [&str; 5] {
        // The operations sort as their words, times in UTC as theirs (RFC 3339).
        ["operation", "time", "manager", "apiVersion", "subresource"]
            .map(|name| entry.get(name).and_then(Value::as_str).unwrap_or_default())
    }
    entries.sort_by(|a, b| key(a).cmp(&key(b)));
}

/// Removes `metadata.managedFields`.
pub fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
}

/// Whether the object asks that its managed fields be forgotten: an empty list, or a list of one
/// empty entry. (A JSON client that sends `[]` and one that sends nothing differ here.)
pub(super) fn asks_for_reset(object: &Value) -> bool {
    let entries = object.get("metadata").and_then(|m| m.get("managedFields"));
    match entries.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => {
            entry.values().all(|value| value.is_null() || value.as_str() == Some(""))
        }
        _ => false,
    }
}

fn decode_entry(index: usize, entry: &Value) -> Result<(Manager, Owned), String> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let workflow = match text("operation") {
        "Apply" => Workflow::Apply,
        "Update" => Workflow::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match text("fieldsType") {
        FIELDS_TYPE => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
        other => {
            return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}"));
        }
    }
    let fields = match entry.get("fieldsV1") {
        None | Some(Value::Null) => FieldSet::default(),
        Some(fields) => FieldSet::decode(fields)
            .map_err(|why| format!("error decoding managed fields entry {index}: {why}"))?,
    };
    // Not through `Manager::new`: a stored entry keeps its name even if that is empty.
    let manager = Manager {
        name: text("manager").to_owned(),
        workflow,
        api_version: if workflow == Workflow::Apply { String::new() } else { api_version.into() },
        subresource: text("subresource").to_owned(),
    };
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok((manager, Owned { fields, api_version: api_version.to_owned(), time }))
}

fn encode_entry(manager: &Manager, owned: &Owned) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, value: Value| drop(entry.insert(name.to_owned(), value));
    put("manager", json!(manager.name));
    put("operation", json!(manager.workflow.word()));
    put("apiVersion", json!(owned.api_version));
    if let Some(time) = &owned.time {
        put("time", json!(time));
    }
    put("fieldsType", json!(FIELDS_TYPE));
    put("fieldsV1", owned.fields.encode());
    if !manager.subresource.is_empty() {
        put("subresource", json!(manager.subresource));
    }
    Value::Object(entry)
}
