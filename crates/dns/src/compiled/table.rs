//! A hash table that versions share.
//!
//! Two levels of 64 places, then a short list: at 10,000 services two or three
//! entries. A change copies the two levels on its way and the list, 130 pointers in
//! all, whatever the size. The hash is keyed anew in each process, so that nobody
//! can choose names that fall together.

use std::{
    array,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::entry::Entry;

/// Places of one level, by six bits of the hash.
const PLACES: usize = 64;

type List = Arc<[(u64, Entry)]>;

type Level = Arc<[Option<List>; PLACES]>;

/// Entries by key.
#[derive(Clone, Debug)]
pub(super) struct Table {
    hasher: RandomState,
    levels: Arc<[Option<Level>; PLACES]>,
}

impl Default for Table {
    fn default() -> Self {
        Self { hasher: RandomState::new(), levels: Arc::new(array::from_fn(|_| None)) }
    }
}

fn places(hash: u64) -> (usize, usize) {
    // Masked to six bits, so the conversions lose nothing.
    (((hash >> 58) & 63) as usize, ((hash >> 52) & 63) as usize)
}

impl Table {
    /// The entry of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let hash = self.hasher.hash_one(key);
        let (first, second) = places(hash);
        let list = self.levels.get(first)?.as_ref()?.get(second)?.as_ref()?;
        let found = list.iter().find(|(other, entry)| *other == hash && entry.key() == key);
        found.map(|(_, entry)| entry)
    }

    /// Puts an entry in the place of that with its key.
    pub(super) fn insert(&mut self, entry: Entry) {
        let hash = self.hasher.hash_one(entry.key());
        self.edit(hash, |list| {
            let others = list.iter().filter(|(_, other)| other.key() != entry.key()).cloned();
            others.chain([(hash, entry.clone())]).collect()
        });
    }

    /// Takes the entry of a key out.
    pub(super) fn remove(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        self.edit(hash, |list| {
            list.iter().filter(|(_, other)| other.key() != key).cloned().collect()
        });
    }

    fn edit(&mut self, hash: u64, edit: impl FnOnce(&[(u64, Entry)]) -> List) {
        let (first, second) = places(hash);
        let Some(level) = Arc::make_mut(&mut self.levels).get_mut(first) else { return };
        let level = level.get_or_insert_with(|| Arc::new(array::from_fn(|_| None)));
        let Some(list) = Arc::make_mut(level).get_mut(second) else { return };
        let next = edit(list.as_deref().unwrap_or_default());
        *list = Some(next).filter(|next| !next.is_empty());
    }
}
