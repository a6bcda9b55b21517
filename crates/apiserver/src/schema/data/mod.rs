//! The table of types: upstream's struct fields, as facts.
//!
//! ```text
//! generate/main.go ──▶ types.txt ──▶ Types ──▶ types (check, unknown_fields, prune), protobuf
//! ```
//!
//! Every field has its JSON name, its protobuf number and its Go type, so one table serves both
//! encodings and the Go decoder's error texts. It is read at first use (under a millisecond), not
//! at start-up. Where the facts come from: `README.md` beside this file.

use std::collections::HashMap;
use std::sync::LazyLock;

static TEXT: &str = include_str!("types.txt");

// The text is part of the program and a test reads it, so a fault in it is a fault of the build.
static TYPES: LazyLock<Types> = LazyLock::new(|| {
    Types::parse(TEXT).unwrap_or_else(|line| panic!("types.txt does not read at: {line}"))
});

/// The group version of kinds that every group version has, such as `DeleteOptions`.
const ANY_VERSION: &str = "*";
/// What stands for the JSON name of an embedded struct, whose fields are its owner's in JSON.
const INLINE: &str = "*";

/// The table.
pub(super) fn types() -> &'static Types {
    &TYPES
}

/// All structs that the held kinds are made of.
#[derive(Debug)]
pub(super) struct Types {
    structs: Vec<Struct>,
    roots: HashMap<(&'static str, &'static str), StructId>,
}

/// A struct's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StructId(usize);

/// A Go struct.
#[derive(Debug, Default)]
pub(super) struct Struct {
    /// With its package's last name: `v1.PodSpec`.
    pub(super) go: &'static str,
    /// In upstream's order, embedded structs as one field without a name.
    pub(super) fields: Vec<Field>,
    /// By JSON name, those of embedded structs included.
    members: HashMap<&'static str, Field>,
}

/// A field of a [`Struct`].
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Protobuf field number; 0 where protobuf carries it elsewhere (`apiVersion`, `kind`).
    pub(super) number: u32,
    /// JSON name; `None` for an embedded struct.
    pub(super) name: Option<&'static str>,
    pub(super) shape: Shape,
    /// Whether Go leaves a zero value out of JSON.
    pub(super) omit_zero: bool,
    /// Whether Go writes it whatever it holds.
    pub(super) always: bool,
}

/// What a value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// With the name of its Go type: `v1.ServiceType`, or plainly `string`.
    Scalar(Scalar, &'static str),
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON: `RawExtension`, `FieldsV1`.
    Any,
    List(Box<Shape>),
    /// A list that protobuf wraps into a message of its own, with its Go type: `v1.ExtraValue`.
    NamedList(Box<Shape>, &'static str),
    Map(Box<Shape>, &'static str),
    Struct(StructId),
}

/// Plain values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    /// Base64 in JSON.
    Bytes,
}

impl Struct {
    /// A member of the JSON object, by its name.
    pub(super) fn member(&self, name: &str) -> Option<&Field> {
        self.members.get(name)
    }

    /// The members that Go writes whatever they hold.
    pub(super) fn always(&self) -> impl Iterator<Item = (&'static str, &Field)> {
        self.members.iter().filter(|(_, field)| field.always).map(|(name, field)| (*name, field))
    }

    /// The names of all members.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.members.keys().copied()
    }

    /// Without its package: `PodSpec`.
    pub(super) fn short_name(&self) -> &'static str {
        self.go.rsplit_once('.').map_or(self.go, |(_, name)| name)
    }
}

impl Types {
    /// The struct of a kind.
    pub(super) fn root(&self, api_version: &str, kind: &str) -> Option<StructId> {
        let found = self.roots.get(&(api_version, kind));
        found.or_else(|| self.roots.get(&(ANY_VERSION, kind))).copied()
    }

    /// A struct of the table.
    pub(super) fn get(&self, id: StructId) -> &Struct {
        &self.structs[id.0]
    }

    /// Whether this is the Go name of a struct.
    pub(super) fn is_struct(&self, name: &str) -> bool {
        self.structs.iter().any(|s| s.go == name)
    }

    /// The Go type of a shape, as the Go decoder names it.
    pub(super) fn go_type(&self, shape: &Shape) -> String {
        match shape {
            Shape::Scalar(_, go) | Shape::NamedList(_, go) => (*go).to_owned(),
            Shape::Time => "v1.Time".to_owned(),
            Shape::MicroTime => "v1.MicroTime".to_owned(),
            Shape::Quantity => "resource.Quantity".to_owned(),
            Shape::IntOrString => "intstr.IntOrString".to_owned(),
            Shape::Any => "runtime.RawExtension".to_owned(),
            Shape::List(item) => format!("[]{}", self.go_type(item)),
            // The one map of quantities, whatever its keys.
            Shape::Map(value, _) if matches!(**value, Shape::Quantity) => {
                "v1.ResourceList".to_owned()
            }
            Shape::Map(value, key) => format!("map[{key}]{}", self.go_type(value)),
            Shape::Struct(id) => self.get(*id).go.to_owned(),
        }
    }

    /// Reads the table: `= VERSION KIND STRUCT` per kind, then structs with a line per field:
    /// ` NUMBER NAME TYPE [omitempty|always|value]`. An error is the line at fault.
    fn parse(text: &'static str) -> Result<Types, &'static str> {
        let mut types = Types { structs: Vec::new(), roots: HashMap::new() };
        let lines = || text.lines().filter(|line| !line.starts_with('#'));
        let mut ids = HashMap::new();
        for name in lines().filter(|line| !line.starts_with(['=', ' '])) {
            ids.insert(name, StructId(types.structs.len()));
            let go = name.split_once('/').ok_or(name)?.1;
            types.structs.push(Struct { go, ..Struct::default() });
        }
        let mut current = None;
        for line in lines() {
            let words: Vec<&'static str> = line.split_whitespace().collect();
            match (words.as_slice(), current) {
                (["=", version, kind, name], _) => {
                    types.roots.insert((version, kind), *ids.get(name).ok_or(line)?);
                }
                ([name], _) => current = ids.get(name).copied(),
                ([number, name, shape, rest @ ..], Some(StructId(index))) => {
                    let field = Field {
                        number: number.parse().map_err(|_| line)?,
                        name: (*name != INLINE).then_some(*name),
                        shape: parse_shape(shape, &ids).ok_or(line)?,
                        omit_zero: *rest == ["omitempty"],
                        always: matches!(*rest, ["always" | "value"]),
                    };
                    types.structs.get_mut(index).ok_or(line)?.fields.push(field);
                }
                _ => return Err(line),
            }
        }
        for index in 0..types.structs.len() {
            let mut members = HashMap::new();
            types.flatten(StructId(index), &mut members);
            types.structs[index].members = members;
        }
        Ok(types)
    }

    fn flatten(&self, id: StructId, into: &mut HashMap<&'static str, Field>) {
        for field in &self.get(id).fields {
            match (field.name, &field.shape) {
                (Some(name), _) => {
                    into.insert(name, field.clone());
                }
                (None, Shape::Struct(embedded)) => self.flatten(*embedded, into),
                (None, _) => {}
            }
        }
    }
}

/// Reads `string`, `v1.Protocol=string`, `[]T`, `map[K]T`, `@core/v1.PodSpec` and the special names.
fn parse_shape(text: &'static str, ids: &HashMap<&str, StructId>) -> Option<Shape> {
    if let Some(item) = text.strip_prefix("[]") {
        return Some(Shape::List(Box::new(parse_shape(item, ids)?)));
    }
    if let Some((key, value)) = text.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return Some(Shape::Map(Box::new(parse_shape(value, ids)?), key));
    }
    if let Some(name) = text.strip_prefix('@') {
        return ids.get(name).copied().map(Shape::Struct);
    }
    let (go, basis) = text.split_once('=').unwrap_or((text, text));
    if let Some(item) = basis.strip_prefix("items:") {
        return Some(Shape::NamedList(Box::new(parse_shape(item, ids)?), go));
    }
    Some(match basis {
        "string" => Shape::Scalar(Scalar::String, go),
        "bool" => Shape::Scalar(Scalar::Bool, go),
        "int32" => Shape::Scalar(Scalar::Int32, go),
        "int64" => Shape::Scalar(Scalar::Int64, go),
        "bytes" => Shape::Scalar(Scalar::Bytes, "[]uint8"),
        "Time" => Shape::Time,
        "MicroTime" => Shape::MicroTime,
        "Quantity" => Shape::Quantity,
        "IntOrString" => Shape::IntOrString,
        "RawExtension" => Shape::Any,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn every_kind_has_its_struct() {
        let types = types();
        for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
            let root = types.root(kind.api_version, kind.kind);
            let root = root.unwrap_or_else(|| panic!("{kind:?} is not in types.txt: generate it"));
            assert_eq!(types.get(root).short_name(), kind.kind);
            assert!(types.get(root).member("metadata").is_some(), "{kind:?}");
            assert!(types.get(root).member("apiVersion").is_some(), "{kind:?}");
        }
        assert!(types.root("apps/v1", "DeleteOptions").is_some());
        assert_eq!(types.root("apps/v1", "Pod"), None);
    }

    #[test]
    fn embedded_fields_are_members() {
        let types = types();
        let volume = types.structs.iter().find(|s| s.go == "v1.Volume").expect("v1.Volume");
        assert!(volume.member("configMap").is_some());
        assert!(volume.fields.iter().all(|f| f.name != Some("configMap")));
    }

    #[test]
    fn faults_are_told() {
        for text in ["v1.Pod", "= v1 Pod nowhere", "a/v1.A\n x name string", "a/v1.A\n 1 b float"] {
            assert!(Types::parse(text).is_err(), "{text}");
        }
    }
}
