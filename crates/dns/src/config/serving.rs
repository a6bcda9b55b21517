//! Where answers come from: Services, Pods, lists of hosts, whole zones.

use serde::Deserialize;

use super::values::{Labels, Network, Span, ZoneName};
use crate::settings::{NEGATIVE_TTL_SECONDS, TTL_SECONDS};

/// Which names that a stage does not have go on to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Fallthrough {
    /// Names in these zones.
    pub zones: Vec<ZoneName>,
}

impl Fallthrough {
    /// Whether a name goes on.
    pub(crate) fn passes(&self, name: &crate::name::DnsName) -> bool {
        super::zone_of(&self.zones, name).is_some()
    }
}

/// Which names of Pods exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodMode {
    /// None.
    Disabled,
    /// Any address.
    #[default]
    Insecure,
    /// Those that a Pod of the namespace has.
    Verified,
}

/// Names of Services and Pods.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Zones of Services, and of their addresses; none: those of the block.
    pub zones: Vec<ZoneName>,
    /// Names of Pods.
    pub pods: PodMode,
    /// TTL of records, in seconds.
    pub ttl: u32,
    /// TTL of denials, in seconds; a Corefile's `ttl` sets both.
    pub negative_ttl: u32,
    /// Names that we do not have and others may.
    pub fallthrough: Fallthrough,
    /// Namespaces that have names; none: all.
    pub namespaces: Vec<String>,
    /// A label selector of the namespaces that have names.
    pub namespace_labels: Option<Labels>,
    /// A label selector of the Services that have names.
    pub labels: Option<Labels>,
    /// Whether endpoints have names, and headless Services addresses.
    pub endpoints: bool,
    /// Whether endpoints without a hostname are called by their Pod.
    pub endpoint_pod_names: bool,
    /// Whether a Service with a virtual IP has a name while it has no endpoint.
    pub empty_services: bool,
    /// Whether `ZONE.pin._zone` and `ZONE.prefer._zone` exist below headless Services.
    pub zonal: bool,
    /// Zones that hold imported Services (KEP-1645).
    pub multicluster: Vec<ZoneName>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            pods: PodMode::default(),
            ttl: TTL_SECONDS,
            negative_ttl: NEGATIVE_TTL_SECONDS,
            fallthrough: Fallthrough::default(),
            namespaces: Vec::new(),
            namespace_labels: None,
            labels: None,
            endpoints: true,
            endpoint_pod_names: false,
            empty_services: true,
            zonal: false,
            multicluster: Vec::new(),
        }
    }
}

/// `SERVICE.NAMESPACE.ZONE` for the addresses that load balancers and external IPs
/// have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalConfig {
    /// Zones; none: those of the block.
    pub zones: Vec<ZoneName>,
    /// TTL of records, in seconds.
    pub ttl: u32,
    /// The label under which this server stands in the zone.
    pub apex: String,
    /// Whether headless Services have names there too.
    pub headless: bool,
    /// Names that we do not have and others may.
    pub fallthrough: Fallthrough,
}

impl Default for ExternalConfig {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            ttl: TTL_SECONDS,
            apex: "dns".to_owned(),
            headless: false,
            fallthrough: Fallthrough::default(),
        }
    }
}

/// Names from a list like `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostsConfig {
    /// A file; none: only `entries`. A Corefile's default is `/etc/hosts`.
    pub file: Option<String>,
    /// Zones; none: those of the block.
    pub zones: Vec<ZoneName>,
    /// Lines of `ADDRESS NAME...`.
    pub entries: Vec<String>,
    /// TTL of records, in seconds.
    pub ttl: u32,
    /// Whether the addresses have names in return (PTR).
    pub reverse: bool,
    /// Between two looks at the file; 0: it is read once.
    pub reload: Span,
    /// Names that we do not have and others may.
    pub fallthrough: Fallthrough,
}

/// CoreDNS' defaults.
const HOSTS_TTL: u32 = 3600;
const HOSTS_RELOAD_SECONDS: u64 = 5;

impl Default for HostsConfig {
    fn default() -> Self {
        Self {
            file: None,
            zones: Vec::new(),
            entries: Vec::new(),
            ttl: HOSTS_TTL,
            reverse: true,
            reload: Span(std::time::Duration::from_secs(HOSTS_RELOAD_SECONDS)),
            fallthrough: Fallthrough::default(),
        }
    }
}

/// The search path of clients, walked for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutopathConfig {
    /// Zones; none: those of the block.
    pub zones: Vec<ZoneName>,
    /// A fixed search path; none: that of the client's Pod.
    pub search: Vec<ZoneName>,
}

/// Who may have whole zones (AXFR).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferConfig {
    /// Zones; none: those of the block.
    pub zones: Vec<ZoneName>,
    /// Clients that may have them: addresses, or 0.0.0.0/0 for everybody.
    pub to: Vec<Network>,
}
