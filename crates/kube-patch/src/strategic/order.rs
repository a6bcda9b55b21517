//! The order of a merged list.
//!
//! A client wants its elements in its own order; elements that only the server knows keep theirs;
//! and where both orders allow it, the two are interleaved as they stood in the live list. That is
//! `normalizeElementOrder` upstream, described in the design proposal "preserve order in strategic
//! merge patch".

use std::collections::HashMap;

use serde_json::Value;

/// What makes an element itself: the scalar, or the value of its merge key.
pub(super) fn identity(element: &Value, key: Option<&str>) -> String {
    match key {
        None => element.to_string(),
        Some(key) => element.get(key).unwrap_or(&Value::Null).to_string(),
    }
}

/// Places of elements in a list, by identity; the first of equal ones counts.
pub(super) struct Ranks(HashMap<String, usize>);

impl Ranks {
    pub(super) fn of<'a>(list: impl IntoIterator<Item = &'a Value>, key: Option<&str>) -> Self {
        let mut ranks = HashMap::new();
        for (rank, element) in list.into_iter().enumerate() {
            ranks.entry(identity(element, key)).or_insert(rank);
        }
        Self(ranks)
    }

    fn rank(&self, element: &Value, key: Option<&str>) -> Option<usize> {
        self.0.get(&identity(element, key)).copied()
    }
}

/// Orders `merged`: elements that `wanted` knows in its order, the others in `live` order, the two
/// interleaved as far as `live` tells how.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &Ranks,
    live: &Ranks,
    key: Option<&str>,
) -> Vec<Value> {
    let (asked, server_only): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|element| wanted.rank(element, key).is_some());
    interleave(sorted(server_only, live, key), sorted(asked, wanted, key), live, key)
}

/// Stable sort by rank. Elements without a rank come last; upstream's comparison contradicts
/// itself there, and no list that a client computes has such elements.
fn sorted(list: Vec<Value>, ranks: &Ranks, key: Option<&str>) -> Vec<Value> {
    let mut ranked: Vec<(usize, Value)> = list
        .into_iter()
        .map(|element| (ranks.rank(&element, key).unwrap_or(usize::MAX), element))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, element)| element).collect()
}

/// Puts each server-only element before the first asked one that stands after it in `live`; an
/// asked element that `live` does not know goes ahead of the server-only ones.
fn interleave(
    server_only: Vec<Value>,
    asked: Vec<Value>,
    live: &Ranks,
    key: Option<&str>,
) -> Vec<Value> {
    let mut all = Vec::with_capacity(server_only.len() + asked.len());
    let mut left = server_only.into_iter().peekable();
    for element in asked {
        let place = live.rank(&element, key);
        while let Some(candidate) = left.peek() {
            match (live.rank(candidate, key), place) {
                (Some(candidate), Some(place)) if candidate < place => all.extend(left.next()),
                _ => break,
            }
        }
        all.push(element);
    }
    all.extend(left);
    all
}
