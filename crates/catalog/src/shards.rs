//! A map of maps, all shared: cheap to copy, cheap to compare.
//!
//! Services are asked for by namespace as often as by name, so a namespace is a map of its
//! own. A commit copies some nodes of the one that it changes and of the map of all, and
//! nothing of a map that it leaves alone; comparing two skips what both share.

use std::{collections::BTreeMap, fmt, mem::size_of, sync::Arc};

use crate::{diff::Change, shared_map::SharedMap};

/// One shard, shared between snapshots.
type Shard<I, V> = SharedMap<I, Arc<V>>;

/// A two-level map with structural sharing.
pub struct Shards<O, I, V> {
    shards: SharedMap<O, Shard<I, V>>,
}

impl<O, I, V> Clone for Shards<O, I, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<O, I, V> Default for Shards<O, I, V> {
    fn default() -> Self {
        Self { shards: SharedMap::default() }
    }
}

impl<O: Ord, I: Ord, V: PartialEq> PartialEq for Shards<O, I, V> {
    fn eq(&self, other: &Self) -> bool {
        self.shards == other.shards
    }
}

impl<O: fmt::Debug, I: fmt::Debug, V: fmt::Debug> fmt::Debug for Shards<O, I, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shards.fmt(f)
    }
}

impl<O: Ord + Clone, I: Ord + Clone, V: PartialEq> Shards<O, I, V> {
    /// The value under a key.
    pub fn get(&self, outer: &O, inner: &I) -> Option<&Arc<V>> {
        self.shards.get(outer)?.get(inner)
    }

    /// All values of one shard, in order.
    pub fn shard<'a>(
        &'a self,
        outer: &O,
    ) -> impl Iterator<Item = (&'a I, &'a Arc<V>)> + use<'a, O, I, V> {
        self.shards.get(outer).into_iter().flat_map(|shard| shard.iter())
    }

    /// The keys of the shards, in order. A shard is never empty.
    pub fn keys(&self) -> impl Iterator<Item = &O> {
        self.shards.iter().map(|(outer, _)| outer)
    }

    /// All values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&O, &I, &Arc<V>)> {
        self.shards.iter().flat_map(|(outer, shard)| {
            shard.iter().map(move |(inner, value)| (outer, inner, value))
        })
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|(_, shard)| shard.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Puts a value; the old map, if shared, stays as it was. Returns how many
    /// bytes were copied for that.
    pub fn insert(&mut self, outer: O, inner: I, value: Arc<V>) -> usize {
        let mut copied = 0;
        let shard = self.shards.slot(&outer, &mut copied);
        copied + shard.map_or(0, |shard| shard.insert(inner, value))
    }

    /// Takes a value away. Returns how many bytes were copied for that.
    pub fn remove(&mut self, outer: &O, inner: &I) -> usize {
        if self.get(outer, inner).is_none() {
            return 0;
        }
        let mut copied = 0;
        let Some(shard) = self.shards.slot(outer, &mut copied) else { return copied };
        copied += shard.remove(inner);
        if shard.is_empty() {
            copied += self.shards.remove(outer);
        }
        copied
    }

    /// What turns `self` into `newer`, in order of keys.
    pub fn diff(&self, newer: &Self) -> Vec<Change<(O, I), V>> {
        let mut changes = Vec::new();
        let none = Shard::default();
        self.shards.compare(&newer.shards, |outer, before, after| {
            let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
            before.compare(after, |inner, before, after| {
                if !is_equal(before, after) {
                    let key = (outer.clone(), inner.clone());
                    changes.push(Change { key, before: before.cloned(), after: after.cloned() });
                }
            });
        });
        changes
    }

    /// Does what [`Shards::diff`] said.
    pub fn apply(&mut self, changes: &[Change<(O, I), V>]) {
        for change in changes {
            let (outer, inner) = &change.key;
            match &change.after {
                Some(value) => self.insert(outer.clone(), inner.clone(), value.clone()),
                None => self.remove(outer, inner),
            };
        }
    }
}

/// Whether two values are the same; nearly always that is one pointer.
fn is_equal<V: PartialEq>(before: Option<&Arc<V>>, after: Option<&Arc<V>>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
        (before, after) => before.is_none() && after.is_none(),
    }
}

/// What making a shared map one's own copies; 0 when nobody shares it.
pub(crate) fn copy_bytes<K, V>(map: &Arc<BTreeMap<K, Arc<V>>>) -> usize {
    if Arc::strong_count(map) == 1 { 0 } else { map.len() * (size_of::<K>() + size_of::<Arc<V>>()) }
}

/// Compares two maps value by value, skipping values that both share.
pub(crate) fn diff_map<K: Ord, V: PartialEq, Full>(
    before: &BTreeMap<K, Arc<V>>,
    after: &BTreeMap<K, Arc<V>>,
    key: impl Fn(&K) -> Full,
    changes: &mut Vec<Change<Full, V>>,
) {
    merge_join(before, after, |inner, before, after| {
        if !is_equal(before, after) {
            changes.push(Change {
                key: key(inner),
                before: before.cloned(),
                after: after.cloned(),
            });
        }
    });
}

/// Walks two ordered maps side by side, each key once.
fn merge_join<'a, K: Ord, V>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
    mut visit: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
) {
    let mut left = before.iter().peekable();
    let mut right = after.iter().peekable();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let from_left = if order.is_le() { left.next() } else { None };
        let from_right = if order.is_ge() { right.next() } else { None };
        if let Some((key, _)) = from_left.or(from_right) {
            visit(key, from_left.map(|(_, v)| v), from_right.map(|(_, v)| v));
        }
    }
}
