//! Who is asked for names that are not ours, and what is kept of what they say.

use std::{net::SocketAddr, time::Duration};

use crate::name::DnsName;

/// How long upstreams may take in all. The resolvers of libc give up after 5 s;
/// a SERVFAIL before that lets them go on at once.
const BUDGET: Duration = Duration::from_millis(4500);

/// What the cache holds by default: some 30,000 names.
const CACHE_BYTES: usize = 16 << 20;

/// How long records may be served past their TTL when no upstream answers; as
/// CoreDNS' `serve_stale`.
const STALE: Duration = Duration::from_secs(3600);

/// Forwarding. Without upstreams and stubs, names that are not ours are REFUSED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// Servers for all names that are not ours, any of them.
    pub upstreams: Vec<SocketAddr>,
    /// Servers for single zones.
    pub stubs: Vec<Stub>,
    /// What is kept of their replies.
    pub cache: CacheSettings,
    /// How long upstreams may take in all.
    pub budget: Duration,
}

/// Servers for one zone. The deepest zone counts, ours included: a stub below
/// the cluster's zone takes its names away from the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// The zone.
    pub zone: DnsName,
    /// Who is asked for names in it.
    pub upstreams: Vec<SocketAddr>,
}

/// What is kept of the replies of upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bytes in all; 0 switches the cache off.
    pub bytes_max: usize,
    /// Whether names in use are fetched anew before they expire.
    pub prefetch: bool,
    /// How long records may be served past their TTL when no upstream answers.
    pub stale: Duration,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            stubs: Vec::new(),
            cache: CacheSettings::default(),
            budget: BUDGET,
        }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { bytes_max: CACHE_BYTES, prefetch: true, stale: STALE }
    }
}

impl Forwarding {
    /// Whether anybody is asked for a name.
    pub(crate) fn covers(&self, name: &DnsName) -> bool {
        !self.upstreams.is_empty() || self.stub_of(name).is_some()
    }

    /// The stub that a name lies in: the deepest one.
    pub(crate) fn stub_of(&self, name: &DnsName) -> Option<(usize, &Stub)> {
        let stubs = self.stubs.iter().enumerate();
        stubs
            .filter(|(_, stub)| name.ends_with(&stub.zone))
            .max_by_key(|(_, stub)| crate::name::depth(&stub.zone))
    }

    /// Every address that cannot be asked, with the reason.
    pub(crate) fn unusable(&self) -> Option<(SocketAddr, &'static str)> {
        let all = self.upstreams.iter().chain(self.stubs.iter().flat_map(|stub| &stub.upstreams));
        all.copied().find_map(|address| match address {
            _ if address.port() == 0 => Some((address, "port 0 cannot be asked")),
            _ if address.ip().is_unspecified() => Some((address, "it names no host")),
            _ if address.ip().is_multicast() => Some((address, "a group cannot be asked")),
            _ => None,
        })
    }
}
