//! Consistent hashing: the ring of Envoy's and gRPC's `ring_hash` (gRFC A42).
//!
//! Each instance has entries on a ring of hashes, the more the more it weighs; a key belongs to
//! the first entry at or after its hash. Entries are hashes of `ADDRESS_NUMBER` by xxHash64, as
//! Envoy and gRPC have them, so that all three agree on who has a key.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::{endpoint::Endpoint, table::Group};

/// Entries that a ring has at least (Envoy's `minimum_ring_size`).
const ENTRIES_MIN: f64 = 1_024.0;
/// And at most (gRPC's cap): 64 KiB of them.
const ENTRIES_MAX: f64 = 4_096.0;

/// Hash and place in the group, by hash.
#[derive(Debug)]
pub(super) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    pub(super) fn new(members: &[Arc<Endpoint>]) -> Self {
        let weight = |member: &Arc<Endpoint>| f64::from(member.instance.weight);
        let all: f64 = members.iter().map(weight).sum();
        let least = members.iter().map(weight).fold(f64::INFINITY, f64::min) / all;
        let scale = ((least * ENTRIES_MIN).ceil() / least).min(ENTRIES_MAX);
        let mut entries = Vec::with_capacity(scale.ceil() as usize);
        let (mut made, mut due) = (0.0, 0.0);
        for (index, member) in (0_u32..).zip(members) {
            due += scale * weight(member) / all;
            let mut number = 0;
            while made < due {
                let name = format!("{}_{number}", member.instance.socket_address());
                entries.push((Self::hash(name.as_bytes()), index));
                number += 1;
                made += 1.0;
            }
        }
        entries.sort_unstable();
        Self(entries.into())
    }

    pub(super) fn hash(key: &[u8]) -> u64 {
        xxh64(key, 0)
    }

    /// Who has a hash; if that one is not usable, the next on the ring who is.
    pub(super) fn choose<'g>(
        &self,
        group: &'g Group,
        hash: u64,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Option<&'g Arc<Endpoint>> {
        let first = self.0.partition_point(|(entry, _)| *entry < hash);
        let (before, after) = self.0.split_at(first);
        let around = after.iter().chain(before);
        let members = around.filter_map(|(_, index)| group.members.get(*index as usize));
        let mut members = members.filter(|member| usable(member));
        members.next()
    }
}
