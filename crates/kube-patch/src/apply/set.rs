//! Sets of field paths: what a manager owns.
//!
//! A set is a tree. Being in the tree is not being in the set: an element is a *member* where it is
//! owned itself, and a *child* where something below it is owned; it may be both. In `fieldsV1`,
//! `{"f:a": {}}` owns `a`, `{"f:a": {"f:b": {}}}` owns only `a.b`, and
//! `{"f:a": {".": {}, "f:b": {}}}` owns both.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::PathElement;
use crate::schema::{At, ListType};

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<PathElement>,
    children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    /// A set of paths that are made of field names only, for instance `&[&["status"]]`.
    #[must_use]
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<_> =
                path.iter().map(|name| PathElement::Field((*name).to_owned())).collect();
            set.insert(&path);
        }
        set
    }

    /// Adds one path; its parents do not become members. The empty path is nothing: nobody owns
    /// the whole object.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Adds an element of this level with what is owned below it.
    pub(super) fn insert_element(&mut self, element: PathElement, member: bool, below: FieldSet) {
        if !below.is_empty() {
            self.children.insert(element.clone(), below);
        }
        if member {
            self.members.insert(element);
        }
    }

    /// Whether the path is a member.
    #[must_use]
    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => {
                self.children.get(first).is_some_and(|child| child.contains(rest))
            }
        }
    }

    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    /// What is owned below an element, unless that is nothing.
    pub(super) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.children.get(element).filter(|child| !child.is_empty())
    }

    /// Whether the set has no member at any depth.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Self::is_empty)
    }

    /// All paths of the set, those of a level before those below it.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for member in &self.members {
            let mut path = prefix.clone();
            path.push(member.clone());
            paths.push(path);
        }
        for (element, child) in &self.children {
            prefix.push(element.clone());
            child.collect_paths(prefix, paths);
            prefix.pop();
        }
    }

    /// Paths in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.absorb(other.clone());
        union
    }

    /// Adds the paths of the other set.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.members.append(&mut other.members);
        for (element, child) in other.children {
            self.children.entry(element).or_default().absorb(child);
        }
    }

    /// Adds a path, and below it what is owned there.
    pub(super) fn graft(&mut self, path: &[PathElement], below: Self) {
        match path {
            [] => self.absorb(below),
            [last] => {
                self.members.insert(last.clone());
                if !below.is_empty() {
                    self.children.entry(last.clone()).or_default().absorb(below);
                }
            }
            [first, rest @ ..] => match self.children.get_mut(first) {
                Some(child) => child.graft(rest, below),
                None => self.children.entry(first.clone()).or_default().graft(rest, below),
            },
        }
    }

    /// Paths in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.children.iter().filter_map(|(element, child)| {
            let common = child.intersection(other.children.get(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        });
        Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: both.collect(),
        }
    }

    /// Paths in this set and not in the other. A path goes only when it is itself in the other: a
    /// parent there takes no children here.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other, false);
        rest
    }

    /// As [`FieldSet::difference`], but a member of the other takes everything below it too.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other, true);
        rest
    }

    /// Takes the paths of the other set away, if `recursive` with all that is below its members.
    pub(super) fn subtract(&mut self, other: &Self, recursive: bool) {
        for member in &other.members {
            self.members.remove(member);
            if recursive {
                self.children.remove(member);
            }
        }
        for (element, taken) in &other.children {
            if let Some(child) = self.children.get_mut(element) {
                child.subtract(taken, recursive);
                if child.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// Makes members of all struct fields on the way: who owns `.spec.replicas` also counts as
    /// owner of `.spec`, so that a struct with nothing left in it goes. Keys of free maps and
    /// elements of lists do not become members.
    pub(super) fn with_fields(&self, at: At<'_>) -> Self {
        let mut set = Self { members: self.members.clone(), children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let PathElement::Field(name) = element
                && at.is_field(name)
            {
                set.members.insert(element.clone());
            }
            set.children.insert(element.clone(), child.with_fields(step(at, element)));
        }
        set
    }

    /// Fits a stored set to the schema of today: where an object or list has become atomic, owning
    /// something inside becomes owning the whole.
    pub(super) fn reconcile(&mut self, at: At<'_>) {
        let mut atoms = Vec::new();
        for (element, child) in &mut self.children {
            let here = step(at, element);
            let is_list = child
                .children
                .keys()
                .chain(&child.members)
                .next()
                .is_some_and(|below| !matches!(below, PathElement::Field(_)));
            let atomic = if is_list { *here.list() == ListType::Atomic } else { here.is_atomic() };
            if atomic && !child.is_empty() {
                atoms.push(element.clone());
            } else {
                child.reconcile(here);
            }
        }
        for element in atoms {
            self.children.remove(&element);
            self.members.insert(element);
        }
    }

    /// The `fieldsV1` object.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::Object(self.encode_level(false))
    }

    fn encode_level(&self, own: bool) -> Map<String, Value> {
        let mut level = Map::new();
        if own {
            level.insert(".".to_owned(), Value::Object(Map::new()));
        }
        let elements: BTreeSet<_> = self.members.iter().chain(self.children.keys()).collect();
        for element in elements {
            let member = self.members.contains(element);
            let below = match self.below(element) {
                Some(child) => child.encode_level(member),
                None if member => Map::new(),
                None => continue,
            };
            level.insert(element.encode(), Value::Object(below));
        }
        level
    }

    /// Reads a `fieldsV1` object.
    ///
    /// # Errors
    /// What is no object of path elements, with the offending text.
    pub fn decode(fields: &Value) -> Result<Self, String> {
        let Value::Object(level) = fields else {
            return Err(format!("fieldsV1 is no object but {fields}"));
        };
        let mut set = Self::default();
        for (key, value) in level {
            if key == "." {
                continue;
            }
            let Some(element) = PathElement::decode(key)? else {
                continue;
            };
            let below = Self::decode(value)?;
            // An element with nothing below it is meant itself.
            let member = below.is_empty() || value.get(".").is_some();
            set.insert_element(element, member, below);
        }
        Ok(set)
    }
}

/// The schema place one element further.
pub(super) fn step<'a>(at: At<'a>, element: &PathElement) -> At<'a> {
    match element {
        PathElement::Field(name) => at.field(name),
        PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => at.item(),
    }
}
