//! Which fields an object has, and which differ between two objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::element::{element_of, same};
use super::path::PathElement;
use super::set::FieldSet;
use crate::schema::{At, ListType};

/// The paths of all leaves of `value`: what a manager owns who sets exactly this.
///
/// Leaves are scalars, nulls, empty objects, and whatever the schema says is atomic; elements of
/// lists and keys of free maps are members besides.
pub(super) fn fields_of(value: &Value, at: At<'_>) -> FieldSet {
    below(value, at).0
}

/// What is owned below this value, and whether the value is a leaf itself.
fn below(value: &Value, at: At<'_>) -> (FieldSet, bool) {
    let mut set = FieldSet::default();
    match value {
        Value::Object(members) if !at.is_atomic() => {
            for (name, member) in members {
                let (inner, leaf) = below(member, at.field(name));
                let empty = member.as_object().is_some_and(serde_json::Map::is_empty);
                let owned = leaf || empty || !at.is_field(name);
                set.insert_element(PathElement::Field(name.clone()), owned, inner);
            }
            (set, false)
        }
        Value::Array(items) if *at.list() != ListType::Atomic => {
            for (element, items) in by_element(items, at.list()) {
                // Of several elements with one identity, only that they are there is owned.
                let inner = match items.as_slice() {
                    [item] => below(item, at.item()).0,
                    _ => FieldSet::default(),
                };
                set.insert_element(element, true, inner);
            }
            (set, false)
        }
        _ => (set, true),
    }
}

/// The elements by identity. Those without one are left out: nobody can own them.
fn by_element<'v>(items: &'v [Value], list: &ListType) -> BTreeMap<PathElement, Vec<&'v Value>> {
    let mut found: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = element_of(list, item) {
            found.entry(element).or_default().push(item);
        }
    }
    found
}

/// The difference between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Only the old object has these.
    pub(super) removed: FieldSet,
    /// Both have these, with other values.
    pub(super) modified: FieldSet,
    /// Only the new object has these.
    pub(super) added: FieldSet,
}

impl Comparison {
    /// `metadata.managedFields` is left out: it tells about fields and is none.
    pub(super) fn between(old: &Value, new: &Value, at: At<'_>) -> Self {
        let mut walk = Walk { path: Vec::new(), found: Self::default() };
        walk.compare(Some(old), Some(new), at);
        walk.found
    }

    pub(super) fn without(mut self, fields: &FieldSet) -> Self {
        for set in [&mut self.removed, &mut self.modified, &mut self.added] {
            set.subtract(fields, true);
        }
        self
    }

    /// Fields that have a value now which they did not have before, and those
    /// that have none any more.
    pub(super) fn split(self) -> (FieldSet, FieldSet) {
        let mut changed = self.modified;
        changed.absorb(self.added);
        (changed, self.removed)
    }
}

/// All that is below a value which is only on one side: every member of every
/// object and list that is walked into.
fn everything(value: &Value, at: At<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    match (value, shape(value, at)) {
        (Value::Object(members), Shape::Object) => {
            for (name, member) in members {
                let below = everything(member, at.field(name));
                set.insert_element(PathElement::Field(name.clone()), true, below);
            }
        }
        (Value::Array(items), Shape::List) => {
            for (element, items) in by_element(items, at.list()) {
                let below = match items.as_slice() {
                    [item] => everything(item, at.item()),
                    _ => FieldSet::default(),
                };
                set.insert_element(element, true, below);
            }
        }
        _ => {}
    }
    set
}

struct Walk {
    path: Vec<PathElement>,
    found: Comparison,
}

/// The parts of a value that are walked into.
enum Shape {
    Object,
    List,
    Leaf,
}

fn shape(value: &Value, at: At<'_>) -> Shape {
    match value {
        Value::Object(_) if !at.is_atomic() => Shape::Object,
        Value::Array(_) if *at.list() != ListType::Atomic => Shape::List,
        _ => Shape::Leaf,
    }
}

fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(members)) => members.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

impl Walk {
    fn compare(&mut self, old: Option<&Value>, new: Option<&Value>, at: At<'_>) {
        match (old, new) {
            // Most of an object stays as it is.
            (Some(old), Some(new)) if same(old, new) => {}
            (Some(_), Some(_)) => self.differ(old, new, at),
            (None, None) => {}
            _ if self.is_in_metadata() => {
                self.descend(old, new, at);
                self.presence(old, new);
            }
            (Some(old), None) => self.found.removed.graft(&self.path, everything(old, at)),
            (None, Some(new)) => self.found.added.graft(&self.path, everything(new, at)),
        }
    }

    fn differ(&mut self, old: Option<&Value>, new: Option<&Value>, at: At<'_>) {
        let old_shape = old.filter(|v| !v.is_null()).map(|value| shape(value, at));
        let new_shape = new.filter(|v| !v.is_null()).map(|value| shape(value, at));
        match (&old_shape, &new_shape) {
            _ if is_hollow(old) && is_hollow(new) => self.leaf(old, new),
            (Some(Shape::Object) | None, Some(Shape::Object) | None) => {
                self.members(old, new, at);
                self.presence(old, new);
            }
            (Some(Shape::List) | None, Some(Shape::List) | None) => {
                self.elements(old, new, at);
                self.presence(old, new);
            }
            (Some(Shape::Leaf) | None, Some(Shape::Leaf) | None) => self.leaf(old, new),
            _ => {
                // Another kind of value: all of the old goes, all of the new comes.
                self.descend(old, None, at);
                self.descend(None, new, at);
                self.leaf(old, new);
            }
        }
    }

    fn descend(&mut self, old: Option<&Value>, new: Option<&Value>, at: At<'_>) {
        match old.or(new).map(|value| shape(value, at)) {
            Some(Shape::Object) => self.members(old, new, at),
            Some(Shape::List) => self.elements(old, new, at),
            Some(Shape::Leaf) | None => {}
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (Some(old), Some(new)) => {
                if !same(old, new) {
                    self.found.modified.insert(&self.path);
                }
            }
            _ => self.presence(old, new),
        }
    }

    fn presence(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, Some(_)) => self.found.added.insert(&self.path),
            (Some(_), None) => self.found.removed.insert(&self.path),
            _ => {}
        }
    }

    fn members(&mut self, old: Option<&Value>, new: Option<&Value>, at: At<'_>) {
        let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
        for (name, old) in old.into_iter().flatten() {
            self.member(name, Some(old), new.and_then(|new| new.get(name)), at);
        }
        for (name, new) in new.into_iter().flatten() {
            if old.is_none_or(|old| !old.contains_key(name)) {
                self.member(name, None, Some(new), at);
            }
        }
    }

    fn member(&mut self, name: &str, old: Option<&Value>, new: Option<&Value>, at: At<'_>) {
        if name == "managedFields" && self.is_in_metadata() {
            return;
        }
        let element = PathElement::Field(name.to_owned());
        self.within(element, |walk| walk.compare(old, new, at.field(name)));
    }

    fn is_in_metadata(&self) -> bool {
        matches!(self.path.as_slice(), [PathElement::Field(name)] if name == "metadata")
    }

    fn elements(&mut self, old: Option<&Value>, new: Option<&Value>, at: At<'_>) {
        let old = by_element(items_of(old), at.list());
        let new = by_element(items_of(new), at.list());
        let all: BTreeSet<&PathElement> = old.keys().chain(new.keys()).collect();
        for element in all {
            let old = old.get(element).map(Vec::as_slice).unwrap_or_default();
            let new = new.get(element).map(Vec::as_slice).unwrap_or_default();
            self.within(element.clone(), |walk| walk.element(old, new, at.item()));
        }
    }

    /// Elements of one identity. More than one on a side count as one atomic value.
    fn element(&mut self, old: &[&Value], new: &[&Value], item: At<'_>) {
        match (old.len(), new.len()) {
            (0 | 1, 0 | 1) => self.compare(old.first().copied(), new.first().copied(), item),
            (0 | 1, _) => {
                if let Some(old) = old.first() {
                    self.compare(Some(old), None, item);
                }
                self.found.added.insert(&self.path);
            }
            (_, 0 | 1) => {
                if let Some(new) = new.first() {
                    self.compare(None, Some(new), item);
                }
                self.found.removed.insert(&self.path);
            }
            _ => {
                let equal = old.len() == new.len() && old.iter().zip(new).all(|(a, b)| same(a, b));
                if !equal {
                    self.found.modified.insert(&self.path);
                }
            }
        }
    }

    fn within(&mut self, element: PathElement, visit: impl FnOnce(&mut Self)) {
        self.path.push(element);
        visit(self);
        self.path.pop();
    }
}
