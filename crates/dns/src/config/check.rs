//! What must hold between the parts of a configuration.

use std::time::Duration;

use rustls_pki_types::ServerName;

use super::{
    ExternalConfig, FaceConfig, ForwardConfig, RewriteRule, ServerConfig, Target, Transport,
    ZoneName,
};
use crate::{
    chain::{check_rewrite, check_template},
    corefile::{Fault, Spot},
    forward::why_unusable,
    settings::{Zone, ZoneKind},
};

/// Upstream servers of one group (CoreDNS: 15).
const TARGETS_MAX: usize = 15;

/// The longest TTL of our own records, in seconds (CoreDNS).
const TTL_MAX: u32 = 3600;

/// The shortest UDP reply that may be asked for, and the longest (RFC 6891, 6.2.3).
const BUFSIZE: std::ops::RangeInclusive<u16> = 512..=4096;

/// Bytes of the longest name that a server may give itself: with the longest question they
/// fit into the shortest reply that a client with EDNS may ask for (512 bytes).
const NSID_BYTES_MAX: usize = 128;

/// The shortest pause between two looks at a file (CoreDNS' for its own).
const RELOAD_MIN: Duration = Duration::from_secs(2);

impl FaceConfig {
    /// Says where the parts contradict each other. `place` knows where each server
    /// block stands.
    pub(crate) fn check(&self, place: impl Fn(usize) -> Spot) -> Result<(), Fault> {
        if let Some(reload) = self.reload.filter(|reload| reload.interval.0 < RELOAD_MIN) {
            return Err(Fault::new(&place(0), often(reload.interval.0)));
        }
        let mut taken: Vec<(&ServerConfig, &ZoneName)> = Vec::new();
        for (number, server) in self.servers.iter().enumerate() {
            let refused = |why: String| Fault::new(&place(number), why);
            server.check().map_err(refused)?;
            for zone in &server.zones {
                let same = taken.iter().find(|(_, other)| *other == zone);
                if let Some((other, _)) = same {
                    let ports = if other.port == server.port {
                        String::new()
                    } else {
                        format!(
                            ", on ports {} and {}; all blocks are served on the same addresses",
                            other.port, server.port
                        )
                    };
                    return Err(refused(format!("the zone {zone} is served by two blocks{ports}")));
                }
                taken.push((server, zone));
            }
            self.check_external(server).map_err(refused)?;
            let first = self.servers.iter().find_map(|server| server.kubernetes.as_ref());
            if let (Some(first), Some(own)) = (first, &server.kubernetes)
                && !first.agrees_with(own)
            {
                let why = "two kubernetes stages differ in more than zones and fallthrough; there \
                           is one catalog, so give them the same options";
                return Err(refused(why.to_owned()));
            }
        }
        Ok(())
    }
}

impl FaceConfig {
    /// A zone holds names of one kind, and there is one set of names.
    fn check_external(&self, server: &ServerConfig) -> Result<(), String> {
        let Some(own) = &server.k8s_external else { return Ok(()) };
        let zones = server.zones_of(&own.zones);
        for other in &self.servers {
            let kubernetes = other.kubernetes.as_ref();
            let others = kubernetes.map(|config| other.zones_of(&config.zones)).unwrap_or_default();
            if let Some(zone) = zones.iter().find(|zone| others.contains(zone)) {
                return Err(format!("the zone {zone} is one of kubernetes and of k8s_external"));
            }
            let rest = |config: &ExternalConfig| ExternalConfig {
                zones: Vec::new(),
                fallthrough: super::Fallthrough::default(),
                ..config.clone()
            };
            if other.k8s_external.as_ref().is_some_and(|other| rest(other) != rest(own)) {
                let why = "two k8s_external stages differ in more than zones and fallthrough";
                return Err(why.to_owned());
            }
        }
        Ok(())
    }
}

impl ServerConfig {
    fn check(&self) -> Result<(), String> {
        if self.zones.is_empty() {
            return Err("a server block needs a zone".to_owned());
        }
        if let Some(size) = self.bufsize.filter(|size| !BUFSIZE.contains(size)) {
            return Err(format!(
                "bufsize {size} is out of range: {} to {}",
                BUFSIZE.start(),
                BUFSIZE.end()
            ));
        }
        if let Some(kubernetes) = &self.kubernetes {
            if kubernetes.ttl > TTL_MAX || kubernetes.negative_ttl > TTL_MAX {
                return Err(format!("the TTL of kubernetes is at most {TTL_MAX}"));
            }
            let zones = self.zones_of(&kubernetes.zones);
            let is_cluster = |zone: &&ZoneName| kind_of(zone) == ZoneKind::Cluster;
            if !zones.iter().any(|zone| is_cluster(&zone)) {
                return Err("kubernetes needs a zone that is no reverse zone".to_owned());
            }
            if let Some(zone) = kubernetes.multicluster.iter().find(|zone| !zones.contains(zone)) {
                return Err(format!("the multicluster zone {zone} is no zone of kubernetes"));
            }
            if !kubernetes.namespaces.is_empty() && kubernetes.namespace_labels.is_some() {
                return Err("give namespaces or namespace_labels, not both".to_owned());
            }
            if kubernetes.zonal && !kubernetes.endpoints {
                return Err("zonal names need endpoints".to_owned());
            }
        }
        if self.kubernetes.is_none() {
            if self.k8s_external.is_some() {
                return Err("k8s_external needs kubernetes in the same block".to_owned());
            }
            if self.autopath.as_ref().is_some_and(|autopath| autopath.search.is_empty()) {
                return Err("autopath of Pods needs kubernetes in the same block".to_owned());
            }
        }
        self.forward.iter().try_for_each(ForwardConfig::check)?;
        if self.transport == Transport::Tls && self.tls.is_none() {
            return Err("tls:// needs a certificate: tls CERT KEY".to_owned());
        }
        let mut peers = self.transfer.iter().flat_map(|transfer| &transfer.to);
        if peers.any(|network| !network.is_one() && network.length > 0) {
            return Err("zones are transferred to single addresses, or to everybody".to_owned());
        }
        for rewrite in &self.rewrite {
            check_rewrite(rewrite)?;
            if let RewriteRule::Ttl { min, max, .. } = rewrite.rule
                && min > max
            {
                return Err(format!("a TTL cannot be at least {min} and at most {max}"));
            }
        }
        for template in &self.template {
            let records = [&template.answer, &template.additional, &template.authority];
            records.into_iter().flatten().try_for_each(|text| check_template(text))?;
        }
        if let Some(hosts) = &self.hosts
            && hosts.file.is_some()
            && (Duration::from_nanos(1)..RELOAD_MIN).contains(&hosts.reload.0)
        {
            return Err(often(hosts.reload.0));
        }
        if let Some(nsid) = self.nsid.as_ref().filter(|nsid| nsid.len() > NSID_BYTES_MAX) {
            let length = nsid.len();
            return Err(format!("nsid has {length} bytes; there is room for {NSID_BYTES_MAX}"));
        }
        for log in &self.log {
            if !(0.0..=1.0).contains(&log.sample) {
                return Err(format!("the sample {} of the log is no part from 0 to 1", log.sample));
            }
        }
        if self.limit.as_ref().is_some_and(|limit| limit.queries_per_second == 0) {
            return Err("a limit of 0 queries per second answers nobody".to_owned());
        }
        Ok(())
    }

    /// A stage's own zones, or those of the block.
    pub(crate) fn zones_of(&self, own: &[ZoneName]) -> Vec<ZoneName> {
        if own.is_empty() { self.zones.clone() } else { own.to_vec() }
    }
}

impl ForwardConfig {
    fn check(&self) -> Result<(), String> {
        let from = &self.from;
        if self.to.is_empty() {
            return Err(format!("forward {from} names no server"));
        }
        if self.to.len() > TARGETS_MAX {
            return Err(format!("forward {from} has more than {TARGETS_MAX} servers"));
        }
        for target in &self.to {
            if let Target::Plain(address) | Target::Tls(address, _) = target
                && let Some(why) = why_unusable(*address)
            {
                return Err(format!("the upstream server {address} cannot be used: {why}"));
            }
        }
        let names: Vec<&str> = self
            .to
            .iter()
            .filter_map(|target| match target {
                Target::Tls(_, name) => name.as_deref(),
                _ => None,
            })
            .collect();
        if !names.is_empty() && self.tls.servername.is_some() {
            return Err("name TLS servers by tls_servername or by %NAME, not both".to_owned());
        }
        for name in names.into_iter().chain(self.tls.servername.as_deref()) {
            if ServerName::try_from(name).is_err() {
                return Err(format!("{name:?} is no name of a TLS server"));
            }
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(format!(
                "forward {from}: a certificate needs its key, and a key its certificate"
            ));
        }
        Ok(())
    }
}

impl super::KubernetesConfig {
    /// Whether two of them can be served by one set of names.
    fn agrees_with(&self, other: &Self) -> bool {
        let rest = |config: &Self| Self {
            zones: Vec::new(),
            fallthrough: super::Fallthrough::default(),
            multicluster: Vec::new(),
            ..config.clone()
        };
        rest(self) == rest(other)
    }
}

fn often(pause: Duration) -> String {
    format!("a file is looked at every {RELOAD_MIN:?} at most, not every {pause:?}")
}

fn kind_of(zone: &ZoneName) -> ZoneKind {
    Zone::new(&zone.to_string()).map_or(ZoneKind::Cluster, |zone| zone.kind)
}
