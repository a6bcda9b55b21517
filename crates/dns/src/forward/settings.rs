//! Who is asked for names that are not ours, and what is kept of what they say.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::secure::TlsServer;
use crate::{
    config::Policy,
    name::{DnsName, depth},
};

/// How long upstreams may take in all. The resolvers of libc give up after 5 s;
/// a SERVFAIL before that lets them go on at once.
const BUDGET: Duration = Duration::from_millis(4500);

/// What the cache holds by default: some 30,000 names.
const CACHE_BYTES: usize = 16 << 20;

/// How long records may be served past their TTL when no upstream answers; as
/// CoreDNS' `serve_stale`.
const STALE: Duration = Duration::from_secs(3600);

/// Least time that anything is kept, in seconds (CoreDNS' cache has the same):
/// names with a TTL of 0 would otherwise all go upstream.
const KEEP_SECONDS_MIN: u32 = 5;

/// Longest time that records are kept, in seconds (CoreDNS).
const KEEP_SECONDS_MAX: u32 = 3600;

/// Longest time that a denial is kept, in seconds (CoreDNS).
const KEEP_DENIAL_SECONDS_MAX: u32 = 1800;

/// How long a failure of the upstream is kept, in seconds (CoreDNS; RFC 9520
/// asks for at least 1).
const KEEP_FAILURE_SECONDS: u32 = 5;

/// Forwarding. Names that no group is for are REFUSED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// Groups of servers. The deepest zone counts.
    pub groups: Vec<Group>,
    /// What is kept of their replies.
    pub cache: CacheSettings,
    /// How long upstreams may take in all.
    pub budget: Duration,
}

/// Servers for one zone. The deepest zone counts, ours included: a group below
/// the cluster's zone takes its names away from the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The zone; the root: all names.
    pub zone: DnsName,
    /// Zones in it that are not asked for here.
    pub except: Vec<DnsName>,
    /// Who is asked for names in it.
    pub servers: Vec<Server>,
    /// Who of them first.
    pub policy: Policy,
    /// Whether TCP is used at once.
    pub force_tcp: bool,
    /// Questions on their way to this group at once; `None`: as many as there may be
    /// in all.
    pub max_concurrent: Option<usize>,
    /// Address that queries are sent from.
    pub source: Option<IpAddr>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is reached by TLS; `None`: UDP and TCP.
    pub tls: Option<TlsServer>,
}

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

impl Group {
    /// Servers for a zone, with the defaults.
    pub fn new(zone: DnsName, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            zone,
            except: Vec::new(),
            servers: servers.into_iter().map(Server::from).collect(),
            policy: Policy::default(),
            force_tcp: false,
            max_concurrent: None,
            source: None,
        }
    }

    fn takes(&self, name: &DnsName) -> bool {
        name.ends_with(&self.zone) && !self.except.iter().any(|zone| name.ends_with(zone))
    }
}

/// Bounds of a TTL, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
}

impl Bounds {
    pub(crate) fn apply(self, ttl: u32) -> u32 {
        ttl.max(self.min).min(self.max.max(1))
    }
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
    /// Whether they are then served at once, while new ones are fetched.
    pub stale_at_once: bool,
    /// How long records are kept.
    pub success: Bounds,
    /// How long denials are kept.
    pub denial: Bounds,
    /// How long failures are kept, in seconds; 0: not at all.
    pub failure_seconds: u32,
    /// Zones whose names are kept; none: all.
    pub zones: Vec<DnsName>,
    /// Zones of which no records are kept.
    pub success_except: Vec<DnsName>,
    /// Zones of which no denials are kept.
    pub denial_except: Vec<DnsName>,
    /// Whether clients are told no longer TTL than that for which a reply is kept, at
    /// first too. CoreDNS does so where it has a cache.
    pub caps_ttl: bool,
    /// Whether clients are told the TTL as it came.
    pub keep_ttl: bool,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { groups: Vec::new(), cache: CacheSettings::default(), budget: BUDGET }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            bytes_max: CACHE_BYTES,
            prefetch: true,
            stale: STALE,
            stale_at_once: false,
            success: Bounds { min: KEEP_SECONDS_MIN, max: KEEP_SECONDS_MAX },
            denial: Bounds { min: KEEP_SECONDS_MIN, max: KEEP_DENIAL_SECONDS_MAX },
            failure_seconds: KEEP_FAILURE_SECONDS,
            zones: Vec::new(),
            success_except: Vec::new(),
            denial_except: Vec::new(),
            caps_ttl: false,
            keep_ttl: false,
        }
    }
}

impl CacheSettings {
    /// Whether replies about a name may be kept at all.
    pub(crate) fn covers(&self, name: &DnsName) -> bool {
        self.bytes_max > 0
            && (self.zones.is_empty() || self.zones.iter().any(|zone| name.ends_with(zone)))
    }
}

impl Forwarding {
    /// All names that are not ours go to these servers.
    pub fn to(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let group = Group::new(DnsName::root_bytes(), servers);
        let groups = if group.servers.is_empty() { Vec::new() } else { vec![group] };
        Self { groups, ..Self::default() }
    }

    /// Whether anybody is asked for a name.
    pub(crate) fn covers(&self, name: &DnsName) -> bool {
        self.group_of(name).is_some()
    }

    /// The group that a name belongs to: the one with the deepest zone.
    pub(crate) fn group_of(&self, name: &DnsName) -> Option<(usize, &Group)> {
        let groups = self.groups.iter().enumerate().filter(|(_, group)| group.takes(name));
        // Of two groups for one zone the first counts.
        groups.rev().max_by_key(|(_, group)| depth(&group.zone))
    }

    /// Every address that cannot be asked, with the reason.
    pub(crate) fn unusable(&self) -> Option<(SocketAddr, &'static str)> {
        let all = self.groups.iter().flat_map(|group| &group.servers);
        all.map(|server| server.address)
            .find_map(|address| why_unusable(address).map(|why| (address, why)))
    }
}

/// Why nobody can be asked at an address.
pub(crate) fn why_unusable(address: SocketAddr) -> Option<&'static str> {
    match address {
        _ if address.port() == 0 => Some("port 0 cannot be asked"),
        _ if address.ip().is_unspecified() => Some("it names no host"),
        _ if address.ip().is_multicast() => Some("a group cannot be asked"),
        _ => None,
    }
}
