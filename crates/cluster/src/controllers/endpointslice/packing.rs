//! Which endpoint goes into which slice.
//!
//! The rule keeps writes few rather than slices full
//! (kubernetes/endpointslice `reconciler.go`): an endpoint stays where it is;
//! new ones go into slices that are written anyway, then into the one slice
//! that takes all of the rest and is then fullest, then into new slices.
//! Slices are never merged.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{informer::Object, object};

/// What identifies an endpoint from one look to the next: its address, and the Pod behind it.
pub(crate) type EndpointId = (String, String, String);

/// The identity of an endpoint.
pub(crate) fn id(endpoint: &Value) -> EndpointId {
    let mut addresses: Vec<&str> =
        object::list(endpoint, "/addresses").iter().filter_map(Value::as_str).collect();
    addresses.sort_unstable();
    (
        addresses.join(","),
        object::text(endpoint, "/targetRef/namespace").to_owned(),
        object::text(endpoint, "/targetRef/name").to_owned(),
    )
}

/// One slice as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packed {
    /// The slice that is there already.
    pub(crate) existing: Option<Object>,
    /// What should be in it.
    pub(crate) endpoints: Vec<Value>,
    /// Whether the endpoints differ from what is there.
    pub(crate) changed: bool,
}

/// Spreads endpoints over the existing slices of one port list and new ones.
/// Slices that end up empty are dropped. `is_written` tells of a slice that
/// will be written for another reason.
pub(crate) fn pack(
    existing: &[Object],
    wanted: Vec<Value>,
    endpoints_max: usize,
    is_written: impl Fn(&Value) -> bool,
) -> Vec<Packed> {
    let mut wanted: BTreeMap<EndpointId, (usize, Value)> = wanted
        .into_iter()
        .enumerate()
        .map(|(i, endpoint)| (id(&endpoint), (i, endpoint)))
        .collect();
    let mut packed: Vec<Packed> = existing.iter().map(|slice| keep(slice, &mut wanted)).collect();
    packed.retain(|slice| !slice.endpoints.is_empty());

    // Back into the order in which the Pods came, so that the outcome is stable.
    let mut rest: Vec<(usize, Value)> = wanted.into_values().collect();
    rest.sort_by_key(|(index, _)| *index);
    let mut rest: Vec<Value> = rest.into_iter().map(|(_, endpoint)| endpoint).rev().collect();

    let mut written: Vec<usize> = (0..packed.len())
        .filter(|i| {
            let slice = &packed[*i];
            slice.changed || slice.existing.as_ref().is_some_and(|s| is_written(s))
        })
        .collect();
    written.sort_by_key(|i| std::cmp::Reverse(packed[*i].endpoints.len()));
    for index in &written {
        fill(&mut packed[*index], &mut rest, endpoints_max);
    }
    let mut untouched: BTreeSet<usize> =
        (0..packed.len()).filter(|i| !written.contains(i)).collect();
    while !rest.is_empty() {
        let fullest = untouched
            .iter()
            .copied()
            .filter(|i| packed[*i].endpoints.len() + rest.len() <= endpoints_max)
            .max_by_key(|i| packed[*i].endpoints.len());
        match fullest.filter(|_| rest.len() < endpoints_max) {
            Some(index) => {
                untouched.remove(&index);
                fill(&mut packed[index], &mut rest, endpoints_max);
            }
            None => {
                let mut fresh = Packed { existing: None, endpoints: Vec::new(), changed: true };
                fill(&mut fresh, &mut rest, endpoints_max);
                packed.push(fresh);
            }
        }
    }
    packed
}

/// A slice without the endpoints that are no longer wanted, and with what is new about the others.
fn keep(slice: &Object, wanted: &mut BTreeMap<EndpointId, (usize, Value)>) -> Packed {
    let before = object::list(slice, "/endpoints");
    let mut changed = false;
    let mut endpoints = Vec::with_capacity(before.len());
    for old in before {
        match wanted.remove(&id(old)) {
            Some((_, new)) => {
                changed |= !object::same(old, &new);
                endpoints.push(new);
            }
            None => changed = true,
        }
    }
    Packed { existing: Some(slice.clone()), endpoints, changed }
}

fn fill(slice: &mut Packed, rest: &mut Vec<Value>, endpoints_max: usize) {
    while slice.endpoints.len() < endpoints_max
        && let Some(endpoint) = rest.pop()
    {
        slice.endpoints.push(endpoint);
        slice.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn endpoint(number: usize) -> Value {
        json!({"addresses": [format!("10.0.{}.{}", number / 256, number % 256)]})
    }

    fn slice(numbers: std::ops::Range<usize>) -> Object {
        Arc::new(json!({"endpoints": numbers.map(endpoint).collect::<Vec<_>>()}))
    }

    fn check(
        existing: &[std::ops::Range<usize>],
        wanted: std::ops::Range<usize>,
        expected: &[(usize, bool)],
    ) {
        let slices: Vec<Object> = existing.iter().cloned().map(slice).collect();
        let packed = pack(&slices, wanted.clone().map(endpoint).collect(), 10, |_| false);
        let found: Vec<(usize, bool)> =
            packed.iter().map(|p| (p.endpoints.len(), p.changed)).collect();
        assert_eq!(found, expected, "{existing:?} {wanted:?}");
        let mut ids: Vec<_> = packed.iter().flat_map(|p| p.endpoints.iter().map(id)).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), wanted.len(), "each endpoint is in one slice");
    }

    #[test]
    fn keeps_writes_few() {
        // Nothing changes, nothing is written.
        check(&[0..10, 10..15], 0..15, &[(10, false), (5, false)]);
        // Slices shrink in place and are not merged; an emptied one goes.
        check(&[0..10, 10..20], 5..12, &[(5, true), (2, true)]);
        check(&[0..10, 10..20], 10..20, &[(10, false)]);
        // A slice that is written anyway takes new ones first.
        check(&[1..9, 10..13], 2..14, &[(9, true), (3, false)]);
        // Else the fullest one that takes them all.
        check(&[0..7, 8..16], 0..18, &[(10, true), (8, false)]);
        check(&[0..7, 10..18], 0..20, &[(7, false), (8, false), (5, true)]);
        check(&[0..5, 10..18], 0..5, &[(5, false)]);
        // Else new ones.
        check(&[0..9, 9..18], 0..21, &[(9, false), (9, false), (3, true)]);
        check(&[], 0..25, &[(10, true), (10, true), (5, true)]);
    }
}
