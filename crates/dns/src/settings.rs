//! What an operator may choose about names, with the defaults and whence they come.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use portolan_model::{Name, Selector};

use crate::{
    bearing::Bearing,
    forward::Forwarding,
    name::{DnsName, depth, parse},
};

/// TTL of answers about services, in seconds: the default of CoreDNS'
/// kubernetes plugin, short because endpoints move.
pub(crate) const TTL_SECONDS: u32 = 5;

/// How long others may remember that a name does not exist, in seconds. Less
/// than [`TTL_SECONDS`]: a Service that is asked for a moment before it is
/// created should not look absent for long.
pub(crate) const NEGATIVE_TTL_SECONDS: u32 = 2;

/// TTL of `dns-version`, in seconds: the example of the specification.
pub(crate) const DNS_VERSION_TTL_SECONDS: u32 = 28_800;

/// The version of the Kubernetes DNS specification that we answer by.
pub(crate) const DNS_VERSION: &str = "1.1.0";

/// The version of the multi-cluster DNS schema that we answer by.
pub(crate) const CLUSTERSET_VERSION: &str = "1.0.0";

/// The label of an external zone below which its name servers stand (CoreDNS'
/// default).
const EXTERNAL_APEX: &str = "dns";

/// The zone of the cluster.
pub(crate) const CLUSTER_ZONE: &str = "cluster.local.";

/// Which names below `pod.` exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNames {
    /// None.
    Disabled,
    /// `a-b-c-d.NAMESPACE.pod` for every address, whether a Pod has it or not:
    /// the setting of kubeadm's Corefile, and what certificates rely on.
    #[default]
    Insecure,
    /// Those whose address a Pod of that namespace has.
    Verified,
}

/// What kind of names a zone holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneKind {
    /// Services and Pods.
    Cluster,
    /// Services that clusters of a set share.
    ClusterSet,
    /// Services as they are reached from outside.
    External,
    /// Addresses, all of which are ours: an unknown one does not exist.
    Reverse,
    /// Addresses, of which we own those that we know: the rest is not ours to
    /// deny.
    ReverseKnown,
}

/// A part of the name space that we answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its topmost name.
    pub apex: DnsName,
    /// What is in it.
    pub kind: ZoneKind,
}

impl Zone {
    /// A zone by its name; `in-addr.arpa` and `ip6.arpa` names become reverse
    /// zones. `None` when the text is no domain name.
    pub fn new(text: &str) -> Option<Self> {
        let apex = parse(text)?;
        let arpa = ["in-addr.arpa.", "ip6.arpa."]
            .iter()
            .any(|above| parse(above).is_some_and(|above| apex.ends_with(&above)));
        let kind = if arpa { ZoneKind::Reverse } else { ZoneKind::Cluster };
        Some(Self { apex, kind })
    }

    /// A zone of a given kind.
    pub fn of(text: &str, kind: ZoneKind) -> Option<Self> {
        Some(Self { apex: parse(text)?, kind })
    }

    /// The reverse zones that cover a range of addresses. A range whose prefix
    /// ends inside a label is covered by several zones; a shorter prefix than
    /// one label by the zone above (never more than 256 zones).
    pub fn reverse_of(address: IpAddr, prefix_length: u8) -> Vec<Self> {
        let (bits, label_bits): (u128, u8) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 8),
            IpAddr::V6(v6) => (u128::from(v6), 4),
        };
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let length = prefix_length.min(bits_max);
        // What is behind the prefix says nothing.
        let bits = bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let labels = length.div_ceil(label_bits);
        let spare = labels * label_bits - length;
        (0..1_u128 << spare)
            .filter_map(|step| {
                // Labels from the top of the address down, then turned around.
                let labels: Vec<String> = (0..labels)
                    .rev()
                    .map(|place| {
                        let shift = 128 - u32::from((place + 1) * label_bits);
                        let step = if place + 1 == labels { step } else { 0 };
                        let digit = ((bits >> shift) & ((1 << label_bits) - 1)) | step;
                        if label_bits == 8 { format!("{digit}") } else { format!("{digit:x}") }
                    })
                    .collect();
                let arpa = if label_bits == 8 { "in-addr.arpa." } else { "ip6.arpa." };
                let dot = if labels.is_empty() { "" } else { "." };
                Self::new(&format!("{}{dot}{arpa}", labels.join(".")))
            })
            .collect()
    }
}

/// What an operator may choose about zones of kind [`ZoneKind::External`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalSettings {
    /// Whether headless services have names there.
    pub headless: bool,
    /// The label below which the zone's own name servers stand.
    pub apex: String,
    /// TTL of the records, in seconds.
    pub ttl_seconds: u32,
}

impl Default for ExternalSettings {
    fn default() -> Self {
        Self { headless: false, apex: EXTERNAL_APEX.to_owned(), ttl_seconds: TTL_SECONDS }
    }
}

/// Who may transfer our zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TransferTo {
    /// Nobody.
    #[default]
    Nobody,
    /// Everybody.
    Everybody,
    /// Clients with these addresses.
    Addresses(BTreeSet<IpAddr>),
}

impl TransferTo {
    /// Whether a client may.
    pub(crate) fn allows(&self, client: IpAddr) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::Addresses(addresses) => addresses.contains(&client.to_canonical()),
        }
    }
}

/// What an operator may choose about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What we answer for. The first [`ZoneKind::Cluster`] zone is the one that
    /// PTR records point into.
    pub zones: Vec<Zone>,
    /// TTL of records about services, in seconds.
    pub ttl_seconds: u32,
    /// TTL of denials, in seconds.
    pub negative_ttl_seconds: u32,
    /// To how many seconds a stage may raise the TTL of an answer; 0: none does.
    pub raised_ttl_seconds: u32,
    /// Names of Pods.
    pub pods: PodNames,
    /// Namespaces that have names; `None`: all.
    pub namespaces: Option<BTreeSet<Name>>,
    /// Only namespaces with such labels have names; `None`: all.
    pub namespace_labels: Option<Selector>,
    /// Only Services with such labels have names; `None`: all.
    pub labels: Option<Selector>,
    /// Endpoints without a hostname are named by their Pod instead of their
    /// address.
    pub endpoint_pod_names: bool,
    /// Whether endpoints have names and headless services have answers.
    pub endpoints: bool,
    /// Whether a service with virtual IPs has a name while it has no endpoint.
    pub empty_services: bool,
    /// Whether headless services have names for the endpoints of one zone of
    /// nodes: `ZONE.pin._zone` and `ZONE.prefer._zone` (CoreDNS' `zonal`).
    pub zonal: bool,
    /// Where programs reach this server: by these it finds the Services that
    /// stand before it, and names itself (NS).
    pub own_addresses: Vec<SocketAddr>,
    /// Names in external zones.
    pub external: ExternalSettings,
    /// Who may transfer our zones.
    pub transfer_to: TransferTo,
    /// Who is asked for names that are not ours, where there are no server blocks.
    pub forwarding: Forwarding,
    /// What of the names in zones of Services has to pass other stages: that is not
    /// answered from what was made ready, only through [`crate::chain`].
    pub stages: Bearing,
}

impl Default for Settings {
    fn default() -> Self {
        let known =
            |text: &str| Zone::new(text).map(|zone| Zone { kind: ZoneKind::ReverseKnown, ..zone });
        Self {
            zones: [Zone::new(CLUSTER_ZONE), known("in-addr.arpa."), known("ip6.arpa.")]
                .into_iter()
                .flatten()
                .collect(),
            ttl_seconds: TTL_SECONDS,
            negative_ttl_seconds: NEGATIVE_TTL_SECONDS,
            raised_ttl_seconds: 0,
            pods: PodNames::default(),
            namespaces: None,
            namespace_labels: None,
            labels: None,
            endpoint_pod_names: false,
            endpoints: true,
            empty_services: true,
            zonal: false,
            own_addresses: Vec::new(),
            external: ExternalSettings::default(),
            transfer_to: TransferTo::default(),
            forwarding: Forwarding::default(),
            stages: Bearing::NOTHING,
        }
    }
}

impl Settings {
    /// The zone that a name lies in: the deepest one.
    pub fn zone_of(&self, name: &DnsName) -> Option<&Zone> {
        self.zones
            .iter()
            .filter(|zone| name.ends_with(&zone.apex))
            .max_by_key(|zone| depth(&zone.apex))
    }

    /// The zone that names of services end in, wherever they are asked from.
    pub(crate) fn primary(&self) -> Option<&DnsName> {
        self.zones.iter().find(|zone| zone.kind == ZoneKind::Cluster).map(|zone| &zone.apex)
    }

    /// The zone of names of services as they are reached from outside.
    pub(crate) fn external_zone(&self) -> Option<&DnsName> {
        self.zones.iter().find(|zone| zone.kind == ZoneKind::External).map(|zone| &zone.apex)
    }

    /// TTL of records about services in a zone, in seconds.
    pub(crate) fn ttl_in(&self, kind: ZoneKind) -> u32 {
        match kind {
            ZoneKind::External => self.external.ttl_seconds,
            _ => self.ttl_seconds,
        }
    }

    /// The longest that a client may keep an answer about a service, in seconds.
    pub(crate) fn ttl_seconds_max(&self) -> u32 {
        let kinds = self.zones.iter().map(|zone| self.ttl_in(zone.kind));
        kinds.fold(self.raised_ttl_seconds, u32::max)
    }

    /// Adds the reverse zones of a range that is ours alone, as Pod and Service
    /// ranges are: an unknown address in it does not exist.
    #[must_use]
    pub fn with_range(mut self, address: IpAddr, prefix_length: u8) -> Self {
        for zone in Zone::reverse_of(address, prefix_length) {
            if !self.zones.contains(&zone) {
                self.zones.push(zone);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::text;

    #[test]
    fn reverse_zones_cover_a_range() {
        for (range, length, expected) in [
            ("127.96.0.0", 16, &["96.127.in-addr.arpa."][..]),
            ("10.0.0.0", 8, &["10.in-addr.arpa."]),
            ("10.96.0.0", 12, &["96.10.in-addr.arpa.", "111.10.in-addr.arpa."]),
            ("10.97.2.3", 12, &["96.10.in-addr.arpa.", "111.10.in-addr.arpa."]),
            ("10.1.2.3", 32, &["3.2.1.10.in-addr.arpa."]),
            ("0.0.0.0", 0, &["in-addr.arpa."]),
            ("fd00:96::", 32, &["6.9.0.0.0.0.d.f.ip6.arpa."]),
        ] {
            let zones = Zone::reverse_of(range.parse().unwrap(), length);
            let names: Vec<String> = zones.iter().map(|zone| text(&zone.apex)).collect();
            assert_eq!(names.first().map(String::as_str), expected.first().copied());
            assert_eq!(names.last().map(String::as_str), expected.last().copied());
            assert!(zones.iter().all(|zone| zone.kind == ZoneKind::Reverse));
        }
        assert_eq!(Zone::reverse_of("10.96.0.0".parse().unwrap(), 12).len(), 16);
    }

    #[test]
    fn the_deepest_zone_counts() {
        let settings = Settings::default().with_range("127.96.0.0".parse().unwrap(), 16);
        for (name, expected) in [
            ("1.0.96.127.in-addr.arpa", Some("96.127.in-addr.arpa.")),
            ("1.0.97.127.in-addr.arpa", Some("in-addr.arpa.")),
            ("a.B.Cluster.Local", Some("cluster.local.")),
            ("example.org", None),
            ("notcluster.local", None),
        ] {
            let zone = settings.zone_of(&parse(name).unwrap());
            assert_eq!(zone.map(|zone| text(&zone.apex)).as_deref(), expected, "{name}");
        }
    }
}
