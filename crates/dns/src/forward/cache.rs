//! The cache of what upstreams said, bounded by bytes.
//!
//! Eviction is SIEVE (Zhang et al., NSDI 2024): entries stand in the order in
//! which they came, a hit only sets a mark, and a hand that walks from old to new
//! takes the first one without. It resists scans, as the suffixed names of
//! `ndots:5` are, and a hit moves nothing. Shards keep threads apart; the map's
//! hash is keyed at random, so clients cannot make names collide.
//!
//! Our own zones are never in here: the catalog answers for them.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Bounds, CacheSettings,
    reply::{Lifetime, Reply, Told},
};

/// Shards; enough for as many cores to seldom meet.
const SHARDS: usize = 16;

/// What an entry costs beside its bytes: its place in the map, in the ring and
/// its counters, by estimate.
const ENTRY_OVERHEAD: usize = 160;

/// Hits from which an entry is fetched anew before it expires.
const PREFETCH_HITS: u32 = 2;

/// The part of a lifetime in which it is fetched anew, as one in so many (the
/// last tenth, as CoreDNS' prefetch).
const PREFETCH_PART: u64 = 10;

/// The TTL of what is stale (RFC 8767, 4).
const STALE_TTL_SECONDS: u32 = 30;

/// A question as bytes: name in lower case, type, DO and CD.
pub(crate) type Key = Arc<[u8]>;

/// What is found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) reply: Arc<Reply>,
    pub(crate) told: Told,
    pub(crate) state: State,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Fresh,
    /// Fresh, and the caller is the one who should fetch it anew.
    Ending,
    /// Past its lifetime: only when the upstreams fail.
    Stale,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    reply: Arc<Reply>,
    stored_ms: u64,
    expires_ms: u64,
    hits: u32,
    visited: bool,
    newer: Option<usize>,
    older: Option<usize>,
}

impl Entry {
    fn cost(&self) -> usize {
        cost(&self.key, &self.reply)
    }
}

fn cost(key: &Key, reply: &Reply) -> usize {
    key.len() + reply.cost() + ENTRY_OVERHEAD
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    pub(crate) evicted: u64,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Key, usize>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    hand: Option<usize>,
    bytes: usize,
    evicted: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    hash: RandomState,
    shard_bytes_max: usize,
    stale_ms: u64,
    settings: CacheSettings,
}

impl Cache {
    pub(crate) fn new(settings: &CacheSettings) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: RandomState::new(),
            shard_bytes_max: settings.bytes_max / SHARDS,
            stale_ms: u64::try_from(settings.stale.as_millis()).unwrap_or(u64::MAX),
            settings: settings.clone(),
        }
    }

    /// How long a reply is kept, in seconds.
    fn seconds(&self, lifetime: Lifetime) -> u32 {
        match lifetime {
            Lifetime::Records(ttl) => self.settings.success.apply(ttl),
            Lifetime::Denial(ttl) => self.settings.denial.apply(ttl),
            Lifetime::Failure => self.settings.failure_seconds,
        }
    }

    /// What clients are told of a reply that is so old.
    pub(crate) fn told(&self, reply: &Reply, age: u32) -> Told {
        let bounds = match reply.lifetime() {
            _ if self.settings.keep_ttl => return Told::AsItCame,
            Some(Lifetime::Records(_)) => self.settings.success,
            Some(Lifetime::Denial(_)) => self.settings.denial,
            Some(Lifetime::Failure) | None => Bounds { min: 0, max: u32::MAX },
        };
        let max = if self.settings.caps_ttl { bounds.max } else { u32::MAX };
        Told::Aged(age, Bounds { max, ..bounds })
    }

    fn shard(&self, key: &[u8]) -> Option<&Mutex<Shard>> {
        let hash = self.hash.hash_one(key);
        self.shards.get(usize::try_from(hash >> 32).unwrap_or_default() % SHARDS)
    }

    /// Looks a question up.
    pub(crate) fn get(&self, key: &[u8], now_ms: u64) -> Option<Found> {
        let mut shard = self.shard(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        let place = *shard.places.get(key)?;
        let entry = shard.entries.get_mut(place)?.as_mut()?;
        let positive = matches!(entry.reply.lifetime(), Some(Lifetime::Records(_)));
        let age_ms = now_ms.saturating_sub(entry.stored_ms);
        let reply = entry.reply.clone();
        if now_ms >= entry.expires_ms {
            if !positive || now_ms - entry.expires_ms >= self.stale_ms {
                shard.remove(place);
                return None;
            }
            let told = Told::Fixed(STALE_TTL_SECONDS);
            return Some(Found { reply, told, state: State::Stale });
        }
        entry.visited = true;
        entry.hits = entry.hits.saturating_add(1);
        let left = entry.expires_ms - now_ms;
        let near = left.saturating_mul(PREFETCH_PART) <= entry.expires_ms - entry.stored_ms;
        let ending = self.settings.prefetch && positive && near && entry.hits >= PREFETCH_HITS;
        if ending {
            // One fetch is enough; the new entry counts anew.
            entry.hits = 0;
        }
        let told = self.told(&reply, u32::try_from(age_ms / 1000).unwrap_or(u32::MAX));
        Some(Found { reply, told, state: if ending { State::Ending } else { State::Fresh } })
    }

    /// Keeps a reply for as long as it allows.
    pub(crate) fn put(&self, key: &Key, reply: &Arc<Reply>, now_ms: u64) {
        let seconds = reply.lifetime().map_or(0, |lifetime| self.seconds(lifetime));
        if seconds == 0 || cost(key, reply) > self.shard_bytes_max {
            return;
        }
        let Some(shard) = self.shard(key) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = shard.places.get(key).copied() {
            shard.remove(place);
        }
        // Room is made first, or what comes in could be what has to go.
        while shard.bytes + cost(key, reply) > self.shard_bytes_max && shard.evict() {}
        shard.insert(Entry {
            key: key.clone(),
            reply: reply.clone(),
            stored_ms: now_ms,
            expires_ms: now_ms.saturating_add(u64::from(seconds) * 1000),
            hits: 0,
            visited: false,
            newer: None,
            older: None,
        });
    }

    pub(crate) fn holding(&self) -> Holding {
        self.shards.iter().fold(Holding::default(), |sum, shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            Holding {
                entries: sum.entries + shard.places.len(),
                bytes: sum.bytes + shard.bytes,
                evicted: sum.evicted + shard.evicted,
            }
        })
    }
}

impl Shard {
    fn entry(&mut self, place: Option<usize>) -> Option<&mut Entry> {
        self.entries.get_mut(place?)?.as_mut()
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        let key = entry.key.clone();
        let entry = Some(Entry { older: self.newest, ..entry });
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.entries.get_mut(place) {
                    *slot = entry;
                }
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        let before = self.newest.replace(place);
        match self.entry(before) {
            Some(before) => before.newer = Some(place),
            None => self.oldest = Some(place),
        }
        self.places.insert(key, place);
    }

    fn remove(&mut self, place: usize) {
        let Some(entry) = self.entries.get_mut(place).and_then(Option::take) else { return };
        self.bytes -= entry.cost();
        self.places.remove(&entry.key);
        self.free.push(place);
        if self.hand == Some(place) {
            self.hand = entry.newer;
        }
        match self.entry(entry.newer) {
            Some(newer) => newer.older = entry.older,
            None => self.newest = entry.older,
        }
        match self.entry(entry.older) {
            Some(older) => older.newer = entry.newer,
            None => self.oldest = entry.newer,
        }
    }

    /// Takes one entry out. False: there is none.
    fn evict(&mut self) -> bool {
        let mut at = self.hand.or(self.oldest);
        // Each entry loses its mark at most once, so two rounds end.
        for _ in 0..=2 * self.places.len() {
            let oldest = self.oldest;
            let Some(place) = at.or(oldest) else { return false };
            let Some(entry) = self.entry(Some(place)) else { return false };
            if !entry.visited {
                self.hand = entry.newer;
                self.remove(place);
                self.evicted += 1;
                return true;
            }
            entry.visited = false;
            at = entry.newer;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use domain::base::iana::Rtype;
    use proptest::prelude::*;

    use super::*;
    use crate::forward::Ask;

    fn key(number: usize) -> Key {
        Arc::from(format!("{number:08}").into_bytes())
    }

    fn reply(ttl: u32, rcode: u8) -> Arc<Reply> {
        let ask = Ask {
            name: crate::name::parse("x.example").unwrap(),
            kind: Rtype::A,
            dnssec_ok: false,
            checking_disabled: false,
        };
        let mut packet = vec![0, 0, 0x80, 0x80 | rcode, 0, 1, 0, 1, 0, 0, 0, 0];
        packet[7] = u8::from(rcode == 0);
        ask.question(&mut packet);
        if rcode == 0 {
            packet.extend([0xc0, 12, 0, 1, 0, 1]);
            packet.extend(ttl.to_be_bytes());
            packet.extend([0, 4, 192, 0, 2, 1]);
        }
        Arc::new(Reply::read(&packet, 0, &ask).unwrap())
    }

    fn cache(bytes_max: usize, stale_seconds: u64, prefetch: bool) -> Cache {
        let stale = std::time::Duration::from_secs(stale_seconds);
        Cache::new(&CacheSettings { bytes_max, prefetch, stale, ..CacheSettings::default() })
    }

    fn state(cache: &Cache, now_ms: u64) -> Option<(State, Told)> {
        cache.get(&key(1), now_ms).map(|found| (found.state, found.told))
    }

    #[test]
    fn fresh_then_stale_then_gone() {
        let bounds = Bounds { max: u32::MAX, ..CacheSettings::default().success };
        let cache = cache(1 << 20, 60, false);
        cache.put(&key(1), &reply(100, 0), 1000);
        let fresh = |age| Some((State::Fresh, Told::Aged(age, bounds)));
        for (now, expected) in [
            (1000, fresh(0)),
            (51_500, fresh(50)),
            (100_999, fresh(99)),
            (101_000, Some((State::Stale, Told::Fixed(30)))),
            (160_999, Some((State::Stale, Told::Fixed(30)))),
            (161_000, None),
        ] {
            assert_eq!(state(&cache, now), expected, "{now}");
        }
        assert_eq!(cache.holding(), Holding::default());
    }

    #[test]
    fn failures_are_never_stale() {
        let cache = cache(1 << 20, 60, false);
        cache.put(&key(1), &reply(0, 2), 0);
        assert_eq!(state(&cache, 4999).map(|(state, _)| state), Some(State::Fresh));
        assert_eq!(state(&cache, 5000), None);
    }

    #[test]
    fn what_is_asked_for_is_fetched_once_before_it_ends() {
        let cache = cache(1 << 20, 0, true);
        cache.put(&key(1), &reply(100, 0), 0);
        let states: Vec<State> =
            [0, 91_000, 92_000].map(|now| cache.get(&key(1), now).unwrap().state).into();
        assert_eq!(states, [State::Fresh, State::Ending, State::Fresh]);
    }

    #[test]
    fn names_in_use_outlive_a_scan() {
        // Room for about 16 in each shard.
        let one = cost(&key(0), &reply(100, 0));
        let cache = cache(one * 16 * SHARDS, 0, false);
        for number in 0..20_000 {
            cache.put(&key(number), &reply(100, 0), 0);
            for used in 0..8 {
                cache.get(&key(used), 0);
            }
        }
        assert!((0..8).all(|used| cache.get(&key(used), 0).is_some()));
        assert!(cache.holding().evicted > 19_000);
    }

    proptest! {
        /// The bytes are those of what is held, and never more than allowed; what
        /// is found is what was put last.
        #[test]
        fn bytes_are_counted(steps in prop::collection::vec((0..40_usize, 0..3_u64), 1..400)) {
            let one = cost(&key(0), &reply(100, 0));
            let cache = cache(one * 2 * SHARDS, 0, false);
            let mut now = 0;
            for (number, pause) in steps {
                now += pause * 3000;
                cache.put(&key(number), &reply(5, 0), now);
                prop_assert!(cache.get(&key(number), now).is_some());
                let holding = cache.holding();
                prop_assert!(holding.bytes <= one * 2 * SHARDS);
                prop_assert_eq!(holding.bytes, holding.entries * one);
            }
            for number in 0..40 {
                cache.get(&key(number), now + 5000);
            }
            prop_assert_eq!(cache.holding().bytes, 0);
        }
    }
}
