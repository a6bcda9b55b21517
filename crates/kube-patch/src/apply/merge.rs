//! Laying an applied configuration over a live object, and taking fields out of an object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::element_of;
use super::path::{PathElement, display_path};
use super::set::FieldSet;
use crate::schema::{At, ListType};

/// Checks what [`merge`] relies on: every element of a list that merges has an identity, and no two
/// have the same. The error names the place.
pub(super) fn check_elements(value: &Value, at: At<'_>) -> Result<(), String> {
    check_at(value, at, &mut Vec::new())
}

fn check_at(value: &Value, at: At<'_>, path: &mut Vec<PathElement>) -> Result<(), String> {
    match value {
        Value::Object(members) if !at.is_atomic() => {
            for (name, member) in members {
                path.push(PathElement::Field(name.clone()));
                check_at(member, at.field(name), path)?;
                path.pop();
            }
        }
        Value::Array(items) if *at.list() != ListType::Atomic => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let element = element_of(at.list(), item)
                    .map_err(|why| format!("{}: element {index}: {why}", display_path(path)))?;
                if !seen.insert(element.clone()) {
                    let place = display_path(path);
                    return Err(format!("{place}: duplicate entries for key {element}"));
                }
                path.push(element);
                check_at(item, at.item(), path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

/// Lays `applied` over `live`: objects merge, lists with identity merge element by element, all
/// else is taken from `applied`. Nothing is removed.
pub(super) fn merge(live: &Value, applied: &Value, at: At<'_>) -> Value {
    match (live, applied) {
        (Value::Object(old), Value::Object(new)) if !at.is_atomic() => {
            let mut merged = old.clone();
            for (name, value) in new {
                let value = match old.get(name) {
                    Some(old) => merge(old, value, at.field(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(new)) if *at.list() != ListType::Atomic => {
            Value::Array(merge_elements(old, new, at))
        }
        // Null over something that merges says nothing about its parts.
        (Value::Object(old), Value::Null) if !at.is_atomic() && !old.is_empty() => live.clone(),
        (Value::Array(old), Value::Null) if *at.list() != ListType::Atomic && !old.is_empty() => {
            live.clone()
        }
        _ => applied.clone(),
    }
}

/// The merged list: applied elements in applied order; elements that only the live list has stay
/// before the shared element that they stood before.
fn merge_elements(old: &[Value], new: &[Value], at: At<'_>) -> Vec<Value> {
    let identity = |item: &Value| element_of(at.list(), item).ok();
    let old: Vec<_> = old.iter().map(|item| (identity(item), item)).collect();
    let new: Vec<_> = new.iter().map(|item| (identity(item), item)).collect();
    let applied: BTreeSet<&PathElement> = new.iter().filter_map(|(e, _)| e.as_ref()).collect();
    let mut live: BTreeMap<&PathElement, Vec<&Value>> = BTreeMap::new();
    for (element, item) in &old {
        if let Some(element) = element {
            live.entry(element).or_default().push(item);
        }
    }
    let combined = |element: &Option<PathElement>, item: &Value| -> Value {
        match element.as_ref().and_then(|element| live.get(element)).map(Vec::as_slice) {
            Some([only]) => merge(only, item, at.item()),
            // Several live elements of one identity give way to the applied one.
            _ => item.clone(),
        }
    };
    let is_shared = |element: &Option<PathElement>| {
        element.as_ref().is_some_and(|element| live.contains_key(element))
    };
    let mut merged = Vec::with_capacity(old.len().max(new.len()));
    let mut shared = new.iter().map(|(element, _)| element).filter(|e| is_shared(e));
    let mut next_shared = shared.next();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let (mut at_old, mut at_new) = (0, 0);
    loop {
        let (left, right) = (old.get(at_old), new.get(at_new));
        let left_is_applied =
            left.and_then(|(e, _)| e.as_ref()).is_some_and(|e| applied.contains(e));
        match (left, right) {
            (None, None) => break,
            (Some((_, item)), _) if !left_is_applied => {
                merged.push(Value::clone(item));
                at_old += 1;
            }
            (Some((left, _)), Some((right, item))) if left == right => {
                merged.push(combined(right, item));
                done.extend(right);
                at_old += 1;
                at_new += 1;
                next_shared = shared.next();
            }
            (Some((left, _)), Some(_)) if next_shared.is_some_and(|next| next != left) => {
                // Shared, but its turn in the applied order is another one.
                at_old += 1;
            }
            (left, Some((right, item))) => {
                if left.and_then(|(e, _)| e.as_ref()).is_some_and(|e| done.contains(e)) {
                    at_old += 1;
                }
                merged.push(combined(right, item));
                done.extend(right);
                at_new += 1;
                if next_shared == Some(right) {
                    next_shared = shared.next();
                }
            }
            (Some(_), None) => at_old += 1,
        }
    }
    merged
}

/// Takes the members of `fields` out of `value`. An object or a list that loses its last part
/// becomes null, which tells it from one that was empty before.
pub(super) fn remove(value: &Value, fields: &FieldSet, at: At<'_>) -> Value {
    match value {
        Value::Object(members) if !at.is_atomic() && !members.is_empty() => {
            let mut kept = Map::new();
            for (name, member) in members {
                let element = PathElement::Field(name.clone());
                if fields.has_member(&element) {
                    continue;
                }
                let member = match fields.below(&element) {
                    Some(below) => remove(member, below, at.field(name)),
                    None => member.clone(),
                };
                kept.insert(name.clone(), member);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Value::Array(items) if *at.list() != ListType::Atomic && !items.is_empty() => {
            let kept = items.iter().filter_map(|item| {
                let Ok(element) = element_of(at.list(), item) else {
                    return Some(item.clone());
                };
                if fields.has_member(&element) {
                    return None;
                }
                let kept = match fields.below(&element) {
                    Some(below) => remove(item, below, at.item()),
                    None => item.clone(),
                };
                Some(kept)
            });
            let kept: Vec<Value> = kept.filter(|item| !item.is_null()).collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        other => other.clone(),
    }
}

/// Drops the null members of objects, as decoding into a typed object would.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
