//! Lists: which rule applies, merging elements, deleting scalars, `$setElementOrder`.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::directive::{self, Kept, clean, clean_elements, patch_word};
use super::order::{Ranks, arrange, identity};
use super::{Object, merge_object};
use crate::error::{PatchError, go_type};
use crate::schema::{At, PatchStrategy};

/// The Go types of what is expected.
const LIST: &str = "[]interface {}";
const MAP: &str = "map[string]interface {}";

/// How two lists become one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule<'a> {
    /// The patch's list takes the place of the live one.
    Replace,
    /// Union of scalars.
    Scalars,
    /// Objects matched by a key.
    By(&'a str),
}

impl<'a> Rule<'a> {
    pub(super) fn of(at: At<'a>) -> Self {
        match &at.rule().strategy {
            PatchStrategy::ByType | PatchStrategy::Replace => Self::Replace,
            PatchStrategy::MergeScalars => Self::Scalars,
            PatchStrategy::MergeBy(key) => Self::By(key),
        }
    }

    fn key(self) -> Option<&'a str> {
        match self {
            Self::By(key) => Some(key),
            Self::Replace | Self::Scalars => None,
        }
    }
}

/// Merges the patch's list `new` into the live list `old` of the field `field`.
pub(super) fn merge(
    old: Vec<Value>,
    new: Vec<Value>,
    field: &str,
    rule: Rule<'_>,
    item: At<'_>,
) -> Result<Vec<Value>, PatchError> {
    if matches!(rule, Rule::Replace) {
        return Ok(clean_elements(new));
    }
    let Some(objects) = element_kind(&[&old, &new])? else {
        return Ok(old);
    };
    match rule {
        Rule::By(key) if objects => merge_keyed(old, new, key, item),
        Rule::By(_) => Err(PatchError::FieldType {
            expected: MAP,
            found: old.iter().chain(&new).next().map_or(LIST, go_type),
        }),
        _ if objects => Err(PatchError::NoKeyDeclared { field: field.to_owned() }),
        _ => Ok(unite_scalars(old, new)),
    }
}

/// Whether the elements are objects; `None` when there are none. They must all be of one type, and
/// no lists.
fn element_kind(lists: &[&[Value]]) -> Result<Option<bool>, PatchError> {
    let mut elements = lists.iter().flat_map(|list| list.iter());
    let Some(first) = elements.next() else {
        return Ok(None);
    };
    if first.is_array() {
        return Err(PatchError::ListOfLists);
    }
    let kind = std::mem::discriminant(first);
    if first.is_null() || elements.any(|element| std::mem::discriminant(element) != kind) {
        let lists = lists.iter().map(|list| list.to_vec()).collect();
        return Err(PatchError::MixedList { lists });
    }
    Ok(Some(first.is_object()))
}

fn unite_scalars(old: Vec<Value>, new: Vec<Value>) -> Vec<Value> {
    let (live, wanted) = (Ranks::of(&old, None), Ranks::of(&new, None));
    let mut seen = HashSet::new();
    let both = old.into_iter().chain(new);
    let merged = both.filter(|scalar| seen.insert(identity(scalar, None))).collect();
    arrange(merged, &wanted, &live, None)
}

fn merge_keyed(
    old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
    item: At<'_>,
) -> Result<Vec<Value>, PatchError> {
    let (old, new) = obey_directives(old, new, key)?;
    let (live, wanted) = (Ranks::of(&old, Some(key)), Ranks::of(&new, Some(key)));
    let mut places: HashMap<String, usize> = HashMap::with_capacity(old.len());
    for (place, element) in old.iter().enumerate() {
        if element.get(key).is_some() {
            places.entry(identity(element, Some(key))).or_insert(place);
        }
    }
    let mut merged = old;
    for element in new {
        require_key(&element, key)?;
        match places.get(&identity(&element, Some(key))) {
            Some(&place) => merge_element(&mut merged[place], element, item)?,
            None => {
                places.insert(identity(&element, Some(key)), merged.len());
                if let Kept::Yes(element) = clean(element) {
                    merged.push(element);
                }
            }
        }
    }
    for element in &merged {
        require_key(element, key)?;
    }
    Ok(arrange(merged, &wanted, &live, Some(key)))
}

fn merge_element(old: &mut Value, new: Value, item: At<'_>) -> Result<(), PatchError> {
    // Both are objects: `element_kind` saw to it.
    if let (Value::Object(live), Value::Object(patch)) = (&mut *old, new) {
        *old = Value::Object(merge_object(std::mem::take(live), patch, item)?);
    }
    Ok(())
}

/// Carries out the `$patch` words of elements. Returns the live list without the deleted elements
/// and the patch list without directive elements; with `replace` the patch list becomes the live
/// one.
fn obey_directives(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut replace = false;
    let mut doomed = HashSet::new();
    let mut plain = Vec::with_capacity(new.len());
    for element in new {
        match patch_word(&element) {
            None => plain.push(element),
            Some(word) if word == directive::DELETE => {
                require_key(&element, key)?;
                doomed.insert(identity(&element, Some(key)));
            }
            Some(word) if word == directive::REPLACE => replace = true,
            Some(word) => {
                return Err(PatchError::UnknownDirective {
                    map: {
                        let mut map = element.clone();
                        map[directive::PATCH] = word.clone();
                        map
                    },
                });
            }
        }
    }
    if replace {
        return Ok((clean_elements(plain), Vec::new()));
    }
    old.retain(|element| {
        element.get(key).is_none() || !doomed.contains(&identity(element, Some(key)))
    });
    Ok((old, plain))
}

fn require_key(element: &Value, key: &str) -> Result<(), PatchError> {
    match element.get(key) {
        Some(_) => Ok(()),
        None => Err(PatchError::NoMergeKey { key: key.to_owned(), element: element.clone() }),
    }
}

/// `$deleteFromPrimitiveList/FIELD`: takes these scalars out of the list, whatever its rule.
pub(super) fn delete_scalars(
    live: &mut Object,
    field: &str,
    scalars: &Value,
) -> Result<(), PatchError> {
    // Upstream: `null`, like any member that is null, removes the whole list.
    if scalars.is_null() {
        live.shift_remove(field);
        return Ok(());
    }
    // What is no list of the list's type takes nothing out of it.
    let (Some(Value::Array(list)), Value::Array(scalars)) = (live.get_mut(field), scalars) else {
        return Ok(());
    };
    match element_kind(&[list, scalars])? {
        None => return Ok(()),
        Some(true) => {
            return Err(PatchError::FieldType { expected: LIST, found: MAP });
        }
        Some(false) => {}
    }
    let doomed: HashSet<String> = scalars.iter().map(Value::to_string).collect();
    list.retain(|scalar| !doomed.contains(&scalar.to_string()));
    Ok(())
}

/// Merges every list that comes with a `$setElementOrder/FIELD`, and takes both the list and the
/// directive out of the patch. The order counts in this sequence: `$setElementOrder`, the patch's
/// list, the live list.
pub(super) fn merge_ordered(
    live: &mut Object,
    patch: &mut Object,
    at: At<'_>,
) -> Result<(), PatchError> {
    let mut fields = Vec::new();
    for key in patch.keys() {
        if let Some(field) = directive::list_to_order(key)? {
            fields.push((key.clone(), field.to_owned()));
        }
    }
    for (directive, field) in fields {
        let order = list_of(patch.shift_remove(&directive))?.unwrap_or_default();
        let new = match patch.get(&field) {
            // `null` removes the list; there is nothing to order.
            Some(Value::Null) => continue,
            _ => list_of(patch.shift_remove(&field))?,
        };
        let old = list_of(live.get_mut(&field).map(Value::take))?;
        let merged = merge_one_ordered(old, new, order, &field, at.field(&field))?;
        if let Some(merged) = merged {
            live.insert(field, Value::Array(merged));
        }
    }
    Ok(())
}

fn merge_one_ordered(
    old: Option<Vec<Value>>,
    new: Option<Vec<Value>>,
    order: Vec<Value>,
    field: &str,
    at: At<'_>,
) -> Result<Option<Vec<Value>>, PatchError> {
    let inferred = inferred_key(&order);
    let rule = match (Rule::of(at), inferred.as_deref()) {
        // Only lists that merge come with an order. So a client that sends one for a list unknown
        // here knows its merge key, and the order shows it: elements with that single member.
        (Rule::Replace, Some(key)) => Rule::By(key),
        (rule, _) => rule,
    };
    let key = rule.key();
    check_order(new.as_deref().unwrap_or_default(), &order, field, key)?;
    let live = match (&old, &new, key) {
        (Some(old), Some(new), Some(key)) => Ranks::of(refilled(old, new, key), Some(key)),
        _ => Ranks::of(old.as_deref().unwrap_or_default(), key),
    };
    let merged = match (old, new) {
        (None, None) => return Ok(None),
        (Some(old), None) => old,
        (None, Some(new)) => clean_elements(new),
        (Some(old), Some(new)) => merge(old, new, field, rule, at.item())?,
    };
    if element_kind(&[&merged, &order])? == Some(true) {
        let Some(key) = key else {
            return Err(PatchError::NoKeyDeclared { field: field.to_owned() });
        };
        for element in merged.iter().chain(&order) {
            require_key(element, key)?;
        }
    }
    Ok(Some(arrange(merged, &Ranks::of(&order, key), &live, key)))
}

/// The live list as a reference for order, where new elements take the places that deleted ones
/// leave: with `[1, 2, 4]` live, deleting 1 and adding 3 orders by `[2, 4, 3]`, and adding 3 alone
/// by `[1, 2, 4]`. (Upstream this follows from deleting and appending in place; its tests fix it.)
fn refilled<'a>(old: &'a [Value], new: &'a [Value], key: &str) -> Vec<&'a Value> {
    if new.iter().any(|element| patch_word(element).is_some_and(|w| w == directive::REPLACE)) {
        return old.iter().collect();
    }
    let (deletions, additions): (Vec<&Value>, Vec<&Value>) =
        new.iter().partition(|element| patch_word(element).is_some());
    let doomed: HashSet<String> = deletions.iter().map(|e| identity(e, Some(key))).collect();
    let kept = old.iter().filter(|element| !doomed.contains(&identity(element, Some(key))));
    let mut order: Vec<&Value> = kept.collect();
    let mut seen: HashSet<String> = order.iter().map(|e| identity(e, Some(key))).collect();
    order.extend(additions.into_iter().filter(|e| seen.insert(identity(e, Some(key)))));
    order.truncate(old.len());
    order
}

fn inferred_key(order: &[Value]) -> Option<String> {
    let only_key = |element: &Value| match element.as_object() {
        Some(members) if members.len() == 1 => members.keys().next().cloned(),
        _ => None,
    };
    let key = only_key(order.first()?)?;
    order.iter().all(|element| only_key(element).as_ref() == Some(&key)).then_some(key)
}

fn list_of(value: Option<Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => Err(PatchError::FieldType { expected: LIST, found: go_type(&other) }),
    }
}

/// Every element that the patch sets must be in the order list, in the same relative order.
fn check_order(
    new: &[Value],
    order: &[Value],
    field: &str,
    key: Option<&str>,
) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for element in new.iter().filter(|element| key.is_none() || patch_word(element).is_none()) {
        if let Some(key) = key {
            require_key(element, key)?;
        }
        let wanted = identity(element, key);
        if !rest.any(|candidate| identity(candidate, key) == wanted) {
            return Err(PatchError::OrderMismatch { field: field.to_owned() });
        }
    }
    Ok(())
}
