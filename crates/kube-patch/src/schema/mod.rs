//! What a patch must know of an object's shape.
//!
//! ```text
//! tables (declare, kinds) ─┐
//!                          ├─▶ Schema ─▶ root() ─▶ At ─ field(name) / item() ─▶ At ...
//! OpenAPI document ────────┘
//! ```
//!
//! A [`Schema`] is a graph of nodes, made from a static table or from an OpenAPI schema (a custom
//! resource, or the built-in kinds' published document). It is walked with [`At`], a cheap place in
//! it. One schema serves both strategic merge (patch strategy and merge key) and server-side apply
//! (list type, map keys, atomic objects). A place that the schema does not know behaves by JSON
//! type: objects merge, lists are atomic.

pub mod declare;
mod kinds;
mod openapi;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use declare::{Field, List, Merge, Type};

pub use kinds::{known_kinds, schema_for};

/// The node that knows nothing; places outside of the schema point to it.
const UNKNOWN: usize = 0;

static EMPTY: LazyLock<Schema> =
    LazyLock::new(|| Schema { nodes: vec![Node::default()], root: 0, unlisted_are_fields: false });

/// The shape of one kind of object, as far as patches need it.
#[derive(Clone, Debug)]
pub struct Schema {
    nodes: Vec<Node>,
    root: usize,
    /// Whether a member that the schema does not mention is a struct's field (a table lists only
    /// exceptions) or a key of a free map (an OpenAPI schema lists every field).
    unlisted_are_fields: bool,
}

/// A value position: an object, a list, or anything.
#[derive(Clone, Debug, Default)]
struct Node {
    fields: HashMap<Box<str>, Member>,
    /// Members of a map that are not in `fields`.
    values: Option<usize>,
    /// Elements of a list.
    item: Option<usize>,
    list: ListType,
    atomic: bool,
    free: bool,
}

#[derive(Clone, Debug)]
struct Member {
    node: usize,
    rule: PatchRule,
}

/// How server-side apply treats a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ListType {
    /// Owned and replaced as a whole.
    #[default]
    Atomic,
    /// Distinct scalars, each owned by itself.
    Set,
    /// Objects with identity, matched by these keys.
    Map(Vec<MapKey>),
}

impl ListType {
    /// Whether the list is a map by keys.
    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self, Self::Map(_))
    }
}

/// One of the keys that identify an element of a `listType=map` list.
#[derive(Clone, Debug, PartialEq)]
pub struct MapKey {
    /// Field name.
    pub name: String,
    /// The value that a missing field counts as.
    pub default: Option<Value>,
}

/// How strategic merge treats a field (`x-kubernetes-patch-strategy`, `-patch-merge-key`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchRule {
    /// What to do with a list, or an object, that both sides have.
    pub strategy: PatchStrategy,
    /// Whether clients send `$retainKeys` for it.
    pub retain_keys: bool,
}

/// `patchStrategy` with its merge key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PatchStrategy {
    /// No strategy: objects merge, lists are replaced.
    #[default]
    ByType,
    /// The field is replaced.
    Replace,
    /// A list of scalars is united.
    MergeScalars,
    /// A list of objects is merged, elements matched by this key.
    MergeBy(String),
}

static NO_RULE: PatchRule = PatchRule { strategy: PatchStrategy::ByType, retain_keys: false };

impl Schema {
    /// The schema that knows nothing: objects merge, lists are atomic.
    #[must_use]
    pub fn empty() -> &'static Self {
        &EMPTY
    }

    /// Builds the schema of a static table. Types that refer to themselves are fine.
    #[must_use]
    pub fn declared(root: &'static Type) -> Self {
        let mut builder = Builder::default();
        let root = builder.declared(root);
        Self { nodes: builder.nodes, root, unlisted_are_fields: true }
    }

    /// Takes members that the schema does not mention for keys of maps, not for fields of structs:
    /// right for an object of which the schema knows a part only.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.unlisted_are_fields = false;
        self
    }

    /// Builds the schema from an OpenAPI v3 schema, reading the `x-kubernetes-*` marks of list and
    /// map types and of patch strategies. `components` is the document's `components.schemas`,
    /// where `$ref` leads; pass `&Value::Null` for the self-contained schema of a custom resource.
    #[must_use]
    pub fn from_openapi(schema: &Value, components: &Value) -> Self {
        openapi::build(schema, components)
    }

    /// Whether the schema is of a built-in kind, whose objects a server would hold in structs.
    pub(crate) fn is_typed(&self) -> bool {
        self.unlisted_are_fields
    }

    /// The place of the whole object.
    #[must_use]
    pub fn root(&self) -> At<'_> {
        At { schema: self, node: self.root, rule: &NO_RULE }
    }
}

/// A place in a [`Schema`]. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    schema: &'a Schema,
    node: usize,
    rule: &'a PatchRule,
}

impl<'a> At<'a> {
    fn node(&self) -> &'a Node {
        // Node ids are made by the builder only, and node 0 always exists.
        &self.schema.nodes[self.node]
    }

    /// The place of the member `name` of the object here.
    #[must_use]
    pub fn field(&self, name: &str) -> At<'a> {
        let node = self.node();
        match node.fields.get(name) {
            Some(member) => At { schema: self.schema, node: member.node, rule: &member.rule },
            None => {
                let node = node.values.unwrap_or(UNKNOWN);
                At { schema: self.schema, node, rule: &NO_RULE }
            }
        }
    }

    /// The place of the elements of the list here.
    #[must_use]
    pub fn item(&self) -> At<'a> {
        let node = self.node().item.unwrap_or(UNKNOWN);
        At { schema: self.schema, node, rule: &NO_RULE }
    }

    /// Whether `name` is a field of a struct here, not a key of a free map.
    #[must_use]
    pub fn is_field(&self, name: &str) -> bool {
        let node = self.node();
        node.fields.contains_key(name) || (self.schema.unlisted_are_fields && !node.free)
    }

    /// How server-side apply treats the list here.
    #[must_use]
    pub fn list(&self) -> &'a ListType {
        &self.node().list
    }

    /// Whether the object here is owned as a whole.
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.node().atomic
    }

    /// How strategic merge treats the field here.
    #[must_use]
    pub fn rule(&self) -> &'a PatchRule {
        self.rule
    }
}

/// Collects nodes; a type met again (by address, or by `$ref`) is built once.
struct Builder {
    nodes: Vec<Node>,
    by_address: HashMap<*const Type, usize>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], by_address: HashMap::new() }
    }
}

impl Builder {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn declared(&mut self, declared: &'static Type) -> usize {
        let address = std::ptr::from_ref(declared);
        if let Some(&id) = self.by_address.get(&address) {
            return id;
        }
        let Type { atomic, free, .. } = *declared;
        let id = self.add(Node { atomic, free, ..Node::default() });
        // Registered before its fields are built: a type may contain itself.
        self.by_address.insert(address, id);
        let fields: HashMap<_, _> =
            declared.fields.iter().map(|field| (field.name.into(), self.member(field))).collect();
        self.nodes[id].fields = fields;
        self.nodes[id].values = free.then_some(id);
        id
    }

    fn member(&mut self, field: &Field) -> Member {
        let value = self.declared(field.value);
        let node = match field.list {
            None => value,
            Some(list) => {
                self.add(Node { list: list.into(), item: Some(value), ..Node::default() })
            }
        };
        let strategy = match field.merge {
            Merge::ByType => PatchStrategy::ByType,
            Merge::Replace => PatchStrategy::Replace,
            Merge::Scalars => PatchStrategy::MergeScalars,
            Merge::By(key) => PatchStrategy::MergeBy(key.to_owned()),
        };
        Member { node, rule: PatchRule { strategy, retain_keys: field.retain_keys } }
    }
}

impl From<List> for ListType {
    fn from(list: List) -> Self {
        match list {
            List::Atomic => Self::Atomic,
            List::Set => Self::Set,
            List::Map { keys, default, number, optional } => {
                let default_of = |name: &str| match default {
                    Some((key, value)) if key == name => Some(Value::from(value)),
                    _ if optional => None,
                    _ if number == Some(name) => Some(Value::from(0)),
                    _ => Some(Value::from("")),
                };
                let key =
                    |&name: &&str| MapKey { name: name.to_owned(), default: default_of(name) };
                Self::Map(keys.iter().map(key).collect())
            }
        }
    }
}
