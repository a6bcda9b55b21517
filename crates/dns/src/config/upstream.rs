//! Who is asked for names that are not ours, and what is kept of the replies.

use std::net::IpAddr;

use serde::Deserialize;

use super::values::{Span, Target, ZoneName};

/// Which server of a group is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The one that answers fastest and loses least.
    #[default]
    Fastest,
    /// Any.
    Random,
    /// One after the other.
    RoundRobin,
    /// The first, as long as it answers.
    Sequential,
}

/// How servers behind TLS are checked, and who we are to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardTls {
    /// The name in their certificate; by default their address.
    pub servername: Option<String>,
    /// PEM file of the authorities that are believed; by default those of the system.
    pub ca: Option<String>,
    /// PEM file of our certificate.
    pub cert: Option<String>,
    /// PEM file of its key.
    pub key: Option<String>,
}

/// One group of servers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardConfig {
    /// Names in this zone are asked here.
    pub from: ZoneName,
    /// The servers.
    pub to: Vec<Target>,
    /// Zones in it that are not.
    pub except: Vec<ZoneName>,
    /// Which server is asked first.
    pub policy: Policy,
    /// Whether TCP is used at once.
    pub force_tcp: bool,
    /// Whether UDP is tried first whatever the client came over; it always is.
    pub prefer_udp: bool,
    /// Questions on their way at once; 0: as many as there may be in all.
    pub max_concurrent: u32,
    /// How long the servers may take in all.
    pub budget: Option<Span>,
    /// Address that queries are sent from.
    pub source_address: Option<IpAddr>,
    /// For `tls://` servers.
    pub tls: ForwardTls,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            from: ZoneName::root(),
            to: Vec::new(),
            except: Vec::new(),
            policy: Policy::default(),
            force_tcp: false,
            prefer_udp: false,
            max_concurrent: 0,
            budget: None,
            source_address: None,
            tls: ForwardTls::default(),
        }
    }
}

/// How long one kind of reply is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CachePart {
    /// Longest, in seconds.
    pub ttl_max: u32,
    /// Least, in seconds.
    pub ttl_min: u32,
    /// Zones of which nothing is kept.
    pub except: Vec<ZoneName>,
}

/// CoreDNS' bounds, in seconds.
const TTL_MIN: u32 = 5;
const SUCCESS_TTL_MAX: u32 = 3600;
const DENIAL_TTL_MAX: u32 = 1800;

impl Default for CachePart {
    fn default() -> Self {
        Self { ttl_max: SUCCESS_TTL_MAX, ttl_min: TTL_MIN, except: Vec::new() }
    }
}

/// Serving records past their TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaleConfig {
    /// How long past it.
    pub duration: Span,
    /// Whether they are told at once, while new ones are fetched (`immediate`), or
    /// only when the servers do not answer.
    pub immediate: bool,
}

/// CoreDNS' default.
const STALE_SECONDS: u64 = 3600;

impl Default for StaleConfig {
    fn default() -> Self {
        let duration = Span(std::time::Duration::from_secs(STALE_SECONDS));
        Self { duration, immediate: false }
    }
}

/// What is kept of upstream replies. Our own zones are never in it: the catalog is
/// their cache.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Names in these zones; none: all of the block.
    pub zones: Vec<ZoneName>,
    /// Bytes in all.
    pub bytes_max: usize,
    /// Records.
    pub success: CachePart,
    /// Denials.
    pub denial: CachePart,
    /// How long a failure is kept.
    pub servfail: Span,
    /// Whether names in use are fetched anew before they expire.
    pub prefetch: bool,
    /// Whether records are served past their TTL.
    pub serve_stale: Option<StaleConfig>,
    /// Whether clients are told the TTL as it came, however old it is.
    pub keepttl: bool,
}

/// Some 30,000 names.
const CACHE_BYTES: usize = 16 << 20;

/// CoreDNS' default.
const SERVFAIL_SECONDS: u64 = 5;

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            bytes_max: CACHE_BYTES,
            success: CachePart::default(),
            denial: CachePart { ttl_max: DENIAL_TTL_MAX, ..CachePart::default() },
            servfail: Span(std::time::Duration::from_secs(SERVFAIL_SECONDS)),
            prefetch: true,
            serve_stale: Some(StaleConfig::default()),
            keepttl: false,
        }
    }
}
