//! An ordered map that versions share.
//!
//! ```text
//!   v1 root ---> [ a.. | k.. | t.. ]           a change of one value copies the nodes on
//!                   |     |     |              its way, some dozen keys each, whatever
//!   v2 root ---> [ a.. | k'. | t.. ]           the size; all others have two owners now
//! ```
//!
//! A B+ tree whose nodes are counted pointers. Comparing two versions skips every node
//! that both share. A map that is copied whole (a `BTreeMap` behind a pointer) costs a
//! touch of every key with each commit, and again when the version is let go.

use std::{borrow::Borrow, cmp::Ordering, fmt, mem::size_of, sync::Arc};

/// Entries of a node at most. A commit copies one node of each level, and each entry
/// copied is a counter touched, or two; with less there are more levels to look through.
const NODE_MAX: usize = 31;

/// A node with less looks for a neighbour to join.
const NODE_MIN: usize = 8;

/// What two nodes hold that join: the joined one takes more before it is cut again.
const JOINED_MAX: usize = 24;

/// An ordered map; cloning it is cheap.
pub struct SharedMap<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

/// All leaves lie equally deep.
#[derive(Clone)]
enum Node<K, V> {
    /// Keys with their values.
    Leaf(Vec<(K, V)>),
    /// Children, each with a key that none of its keys is below and all keys before it are.
    Branch(Vec<(K, Arc<Node<K, V>>)>),
}

/// The upper part of a node that was cut, and its lowest key.
type Cut<K, V> = Option<(K, Arc<Node<K, V>>)>;

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(children) => children.len(),
        }
    }

    /// Levels below it.
    fn height(&self) -> usize {
        match self {
            Self::Leaf(_) => 0,
            Self::Branch(children) => children.first().map_or(0, |(_, child)| 1 + child.height()),
        }
    }
}

/// Which child may hold a key: the last one that begins at it or before.
fn child_of<K: Borrow<Q>, V, Q: Ord + ?Sized>(children: &[(K, V)], key: &Q) -> usize {
    children.partition_point(|(low, _)| low.borrow() <= key).saturating_sub(1)
}

fn place_of<K: Borrow<Q>, V, Q: Ord + ?Sized>(entries: &[(K, V)], key: &Q) -> Result<usize, usize> {
    entries.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// A node that is ours alone; `copied` counts the bytes that this takes.
fn own<'n, K: Clone, V: Clone>(
    node: &'n mut Arc<Node<K, V>>,
    copied: &mut usize,
) -> &'n mut Node<K, V> {
    if Arc::strong_count(node) > 1 {
        let entry = match **node {
            Node::Leaf(_) => size_of::<(K, V)>(),
            Node::Branch(_) => size_of::<(K, Arc<Node<K, V>>)>(),
        };
        *copied += node.len() * entry;
    }
    Arc::make_mut(node)
}

/// Puts an item into its place. A full list is cut: in the middle, or, where the item is
/// the last (as when a sorted list is read), before it, which leaves full nodes behind.
fn put_in<K, T>(list: &mut Vec<(K, T)>, place: usize, item: (K, T)) -> Option<Vec<(K, T)>> {
    if list.len() < NODE_MAX {
        list.reserve_exact(1);
        list.insert(place, item);
        return None;
    }
    let cut = if place == list.len() { place } else { list.len() / 2 };
    let mut upper = list.split_off(cut);
    match place.checked_sub(cut).filter(|above| *above > 0 || upper.is_empty()) {
        Some(above) => upper.insert(above, item),
        None => list.insert(place, item),
    }
    Some(upper)
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    fn put(&mut self, key: K, value: V, copied: &mut usize) -> (bool, Cut<K, V>) {
        match self {
            Self::Leaf(entries) => match place_of(entries, &key) {
                Ok(place) => {
                    if let Some(entry) = entries.get_mut(place) {
                        entry.1 = value;
                    }
                    (false, None)
                }
                Err(place) => (true, cut(put_in(entries, place, (key, value)), Self::Leaf)),
            },
            Self::Branch(children) => {
                let place = child_of(children, &key);
                let Some((low, child)) = children.get_mut(place) else { return (false, None) };
                if key < *low {
                    *low = key.clone();
                }
                let (new, upper) = own(child, copied).put(key, value, copied);
                let upper = upper.and_then(|upper| put_in(children, place + 1, upper));
                (new, cut(upper, Self::Branch))
            }
        }
    }

    /// Takes a key out that is there.
    fn take<Q: Ord + ?Sized>(&mut self, key: &Q, copied: &mut usize)
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Leaf(entries) => {
                if let Ok(place) = place_of(entries, key) {
                    entries.remove(place);
                }
            }
            Self::Branch(children) => {
                let place = child_of(children, key);
                let Some((_, child)) = children.get_mut(place) else { return };
                own(child, copied).take(key, copied);
                match child.len() {
                    0 => {
                        children.remove(place);
                    }
                    few if few < NODE_MIN => join(children, place, copied),
                    _ => {}
                }
            }
        }
    }
}

fn cut<K: Clone, V, T>(
    upper: Option<Vec<(K, T)>>,
    node: impl FnOnce(Vec<(K, T)>) -> Node<K, V>,
) -> Cut<K, V> {
    let upper = upper?;
    let low = upper.first()?.0.clone();
    Some((low, Arc::new(node(upper))))
}

/// Joins a child with a neighbour, where both fit in one.
fn join<K: Clone, V: Clone>(
    children: &mut Vec<(K, Arc<Node<K, V>>)>,
    place: usize,
    copied: &mut usize,
) {
    let length = |at: usize| children.get(at).map_or(usize::MAX, |(_, child)| child.len());
    let lefts = [place.checked_sub(1), Some(place)];
    let fits = |left: &usize| length(*left).saturating_add(length(left + 1)) <= JOINED_MAX;
    let Some(left) = lefts.into_iter().flatten().find(fits) else { return };
    let (_, mut right) = children.remove(left + 1);
    let Some((_, left)) = children.get_mut(left) else { return };
    match (own(left, copied), own(&mut right, copied)) {
        (Node::Leaf(left), Node::Leaf(right)) => left.append(right),
        (Node::Branch(left), Node::Branch(right)) => left.append(right),
        // All leaves lie equally deep, so neighbours are of one kind.
        _ => {}
    }
}

impl<K, V> SharedMap<K, V> {
    /// How many keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(Cursor::of(&self.root))
    }

    /// Entries from a key on, in order.
    pub fn from<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let mut path = Vec::new();
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = place_of(entries, key).unwrap_or_else(|place| place);
                    path.push((node, at));
                    return Iter(Cursor { path });
                }
                Node::Branch(children) => {
                    let at = child_of(children, key);
                    path.push((node, at + 1));
                    let Some((_, child)) = children.get(at) else { return Iter(Cursor { path }) };
                    node = child;
                }
            }
        }
    }

    /// Whether two maps are one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    return entries.get(place_of(entries, key).ok()?).map(|(_, value)| value);
                }
                Node::Branch(children) => node = &children.get(child_of(children, key))?.1,
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Puts a value; maps that share with this one stay as they were. Returns how many
    /// bytes were copied for that.
    pub fn insert(&mut self, key: K, value: V) -> usize {
        let mut copied = 0;
        let (new, upper) = own(&mut self.root, &mut copied).put(key, value, &mut copied);
        self.len += usize::from(new);
        if let Some(upper) = upper {
            let lower = self.root.clone();
            let low = Iter(Cursor::of(&lower)).next().map(|(key, _)| key.clone());
            let children = low.map(|low| (low, lower)).into_iter().chain([upper]);
            self.root = Arc::new(Node::Branch(children.collect()));
        }
        copied
    }

    /// Takes a key out. Returns how many bytes were copied for that.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        if self.get(key).is_none() {
            return 0;
        }
        let mut copied = 0;
        own(&mut self.root, &mut copied).take(key, &mut copied);
        self.len -= 1;
        // A root of one child is none, and one that has lost all is an empty leaf.
        while let Node::Branch(children) = &*self.root {
            match children.as_slice() {
                [] => self.root = Arc::new(Node::Leaf(Vec::new())),
                [(_, only)] => self.root = only.clone(),
                _ => break,
            }
        }
        copied
    }

    /// The value of a key, to be changed; that of a new key is the default one. `copied`
    /// counts the bytes that had to be copied.
    pub(crate) fn slot(&mut self, key: &K, copied: &mut usize) -> Option<&mut V>
    where
        V: Default,
    {
        if self.get(key).is_none() {
            *copied += self.insert(key.clone(), V::default());
        }
        let mut node = own(&mut self.root, copied);
        loop {
            match node {
                Node::Leaf(entries) => {
                    let place = place_of(entries, key).ok()?;
                    return entries.get_mut(place).map(|(_, value)| value);
                }
                Node::Branch(children) => {
                    let place = child_of(children, key);
                    node = own(&mut children.get_mut(place)?.1, copied);
                }
            }
        }
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// Visits, in order, each key at which two maps may differ, with what each has there.
    /// Keys in nodes that both share are not visited.
    pub fn compare<'a>(
        &'a self,
        newer: &'a Self,
        mut visit: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        if self.is_same(newer) {
            return;
        }
        let (mut left, mut right) = (Cursor::of(&self.root), Cursor::of(&newer.root));
        loop {
            match (left.next(), right.next()) {
                (None, None) => return,
                (Some(Unit::Entry(key, value)), None) => {
                    visit(key, Some(value), None);
                    left.pass();
                }
                (None, Some(Unit::Entry(key, value))) => {
                    visit(key, None, Some(value));
                    right.pass();
                }
                (Some(Unit::Node(..)), None) => left.descend(),
                (None, Some(Unit::Node(..))) => right.descend(),
                (Some(Unit::Node(_, one)), Some(Unit::Node(_, other)))
                    if Arc::ptr_eq(one, other) =>
                {
                    left.pass();
                    right.pass();
                }
                (Some(Unit::Node(low, one)), Some(Unit::Node(other_low, other))) => {
                    // The taller one first, so that nodes of one level meet; then the one
                    // that begins earlier, so that what both share comes to meet itself.
                    let order = (other.height(), low).cmp(&(one.height(), other_low));
                    if order.is_le() {
                        left.descend();
                    }
                    if order.is_ge() {
                        right.descend();
                    }
                }
                (Some(Unit::Entry(key, value)), Some(Unit::Node(low, _))) => match key < low {
                    true => {
                        visit(key, Some(value), None);
                        left.pass();
                    }
                    false => right.descend(),
                },
                (Some(Unit::Node(low, _)), Some(Unit::Entry(key, value))) => match key < low {
                    true => {
                        visit(key, None, Some(value));
                        right.pass();
                    }
                    false => left.descend(),
                },
                (Some(Unit::Entry(key, value)), Some(Unit::Entry(other_key, other))) => {
                    match key.cmp(other_key) {
                        Ordering::Less => {
                            visit(key, Some(value), None);
                            left.pass();
                        }
                        Ordering::Greater => {
                            visit(other_key, None, Some(other));
                            right.pass();
                        }
                        Ordering::Equal => {
                            visit(key, Some(value), Some(other));
                            left.pass();
                            right.pass();
                        }
                    }
                }
            }
        }
    }
}

/// What a cursor stands before.
enum Unit<'a, K, V> {
    Entry(&'a K, &'a V),
    /// A node of the next level, with its lowest key or less.
    Node(&'a K, &'a Arc<Node<K, V>>),
}

/// A place in a tree: nodes on the way to it, and how far each has been walked.
struct Cursor<'a, K, V> {
    path: Vec<(&'a Node<K, V>, usize)>,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn of(root: &'a Arc<Node<K, V>>) -> Self {
        Self { path: vec![(root, 0)] }
    }

    /// What comes next.
    fn next(&mut self) -> Option<Unit<'a, K, V>> {
        loop {
            let (node, at) = *self.path.last()?;
            let unit = match node {
                Node::Leaf(entries) => entries.get(at).map(|(key, value)| Unit::Entry(key, value)),
                Node::Branch(children) => children.get(at).map(|(key, node)| Unit::Node(key, node)),
            };
            if unit.is_some() {
                return unit;
            }
            self.path.pop();
        }
    }

    /// Leaves what comes next behind.
    fn pass(&mut self) {
        if let Some((_, at)) = self.path.last_mut() {
            *at += 1;
        }
    }

    /// Goes into the node that comes next.
    fn descend(&mut self) {
        if let Some(Unit::Node(_, node)) = self.next() {
            self.pass();
            self.path.push((node, 0));
        }
    }
}

/// Entries in order.
pub struct Iter<'a, K, V>(Cursor<'a, K, V>);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()? {
                Unit::Entry(key, value) => {
                    self.0.pass();
                    return Some((key, value));
                }
                Unit::Node(..) => self.0.descend(),
            }
        }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Map = SharedMap<u16, Arc<u32>>;

    /// The rules that the tree keeps.
    fn check<K: Ord, V>(node: &Node<K, V>, low: Option<&K>, high: Option<&K>) -> usize {
        match node {
            Node::Leaf(entries) => {
                assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b));
                let inside =
                    |key: &K| low.is_none_or(|low| key >= low) && high.is_none_or(|h| key < h);
                assert!(entries.iter().all(|(key, _)| inside(key)));
                0
            }
            Node::Branch(children) => {
                assert!(!children.is_empty() && children.len() <= NODE_MAX);
                let highs = children.iter().skip(1).map(|(low, _)| Some(low)).chain([high]);
                let heights: Vec<usize> = children
                    .iter()
                    .zip(highs)
                    .map(|((low, child), high)| {
                        assert!(child.len() > 0 && child.len() <= NODE_MAX);
                        check(child, Some(low), high)
                    })
                    .collect();
                assert!(heights.iter().all(|height| *height == heights[0]));
                heights[0] + 1
            }
        }
    }

    fn same(map: &Map, model: &BTreeMap<u16, Arc<u32>>) {
        check(&map.root, None, None);
        assert!(map.iter().eq(model.iter()));
        assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
    }

    fn differences(before: &Map, after: &Map) -> Vec<(u16, Option<u32>, Option<u32>)> {
        let mut found = Vec::new();
        before.compare(after, |key, before, after| {
            if before != after {
                found.push((*key, before.map(|v| **v), after.map(|v| **v)));
            }
        });
        found
    }

    /// Puts (a value) and removals of keys.
    fn edits(keys: u16) -> impl Strategy<Value = Vec<(u16, Option<u32>)>> {
        let value = prop_oneof![3 => (0..9_u32).prop_map(Some), 2 => Just(None)];
        prop::collection::vec((0..keys, value), 0..600)
    }

    fn edit(map: &mut Map, model: &mut BTreeMap<u16, Arc<u32>>, edits: &[(u16, Option<u32>)]) {
        for (key, value) in edits {
            match value {
                Some(value) => {
                    map.insert(*key, Arc::new(*value));
                    model.insert(*key, Arc::new(*value));
                }
                None => {
                    map.remove(key);
                    model.remove(key);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn it_is_a_map_and_versions_stay_as_they_were(
            first in edits(400),
            second in edits(400),
            sorted in 0..2_000_u16,
        ) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            for key in 0..sorted {
                map.insert(key, Arc::new(7));
                model.insert(key, Arc::new(7));
            }
            edit(&mut map, &mut model, &first);
            same(&map, &model);
            let (kept, kept_model) = (map.clone(), model.clone());
            edit(&mut map, &mut model, &second);
            same(&map, &model);
            same(&kept, &kept_model);
            for key in 0..500 {
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert!(map.from(&key).take(40).eq(model.range(key..).take(40)));
            }
            // The difference is that of the models, in order, each way.
            for (before, after, models) in
                [(&kept, &map, [&kept_model, &model]), (&map, &kept, [&model, &kept_model])]
            {
                let keys: std::collections::BTreeSet<_> =
                    models.iter().flat_map(|model| model.keys().copied()).collect();
                let expected: Vec<_> = keys
                    .into_iter()
                    .map(|key| (key, models[0].get(&key).map(|v| **v), models[1].get(&key).map(|v| **v)))
                    .filter(|(_, before, after)| before != after)
                    .collect();
                prop_assert_eq!(differences(before, after), expected);
            }
        }
    }

    #[test]
    fn a_change_copies_little_and_is_found_by_looking_at_little() {
        let mut map = Map::default();
        for key in 0..10_000 {
            map.insert(key, Arc::new(0));
        }
        for (key, value) in [(5_000, Some(1)), (20_000, Some(1)), (0, None), (9_999, None)] {
            let before = map.clone();
            let copied = match value {
                Some(value) => map.insert(key, Arc::new(value)),
                None => map.remove(&key),
            };
            assert!(copied > 0 && copied < 3 * 32 * 16, "{key}: {copied} bytes");
            let mut visited = 0;
            before.compare(&map, |_, _, _| visited += 1);
            assert!((1..=2 * NODE_MAX).contains(&visited), "{key}: {visited} keys");
        }
        // What nobody shares is changed where it is.
        assert_eq!(map.insert(1, Arc::new(3)), 0);
        let mut copied = 0;
        **map.slot(&1, &mut copied).map(Arc::make_mut).as_mut().unwrap() = 4;
        assert_eq!((copied, map.get(&1).map(|value| **value)), (0, Some(4)));
    }

    #[test]
    fn a_sorted_list_makes_full_nodes() {
        let mut map = Map::default();
        for key in 0..31 * 31 {
            map.insert(key, Arc::new(0));
        }
        let Node::Branch(children) = &*map.root else { panic!("one leaf") };
        assert!(children.iter().all(|(_, child)| child.len() == NODE_MAX));
        for key in 0..31 * 31 {
            map.remove(&key);
        }
        assert_eq!((map.root.height(), map.root.len()), (0, 0));
    }
}
