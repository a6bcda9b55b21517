//! From a configuration to a chain that runs.
//!
//! Everything that can fail does so here: files that are named are read, servers are
//! resolved. A reload builds anew and swaps; forwarders whose settings have not
//! changed are taken over with their caches and what they know of their servers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use portolan_runtime::Tasks;

use super::{
    Block, Chain, ORDER, Stage,
    acl::Acl,
    any::Any,
    autopath::Autopath,
    forward::Forward,
    header::Header,
    hosts::Hosts,
    hosts::HostsFile,
    kubernetes::{K8S_EXTERNAL, KUBERNETES, Kubernetes},
    limit::Limit,
    local::Local,
    log::Errors,
    log::Log,
    manners::{Bufsize, Loadbalance, Minimal},
    rewrite::Rewrite,
    template::Templates,
};
use crate::{
    config::{
        CacheConfig, CachePart, FaceConfig, ForwardConfig, KubernetesConfig, PORT, PodMode,
        RewriteRule, ServerConfig, Target, ZoneName,
    },
    forward::{
        Bounds, CacheSettings, ForwardMetrics, Forwarder, Forwarding, Group, Server, StandIn,
        TlsServer,
    },
    name::{DnsName, parse},
    settings::{ExternalSettings, PodNames, Settings, TransferTo, Zone, ZoneKind},
    wire::UDP_PAYLOAD_MAX,
};

/// The file that `autopath` takes the host's own search path from (CoreDNS).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What running needs beside the configuration.
pub(crate) struct Parts<'p> {
    pub(crate) metrics: &'p ForwardMetrics,
    pub(crate) tasks: &'p Tasks,
    /// The chain that runs until now.
    pub(crate) earlier: &'p Chain,
    /// Who answers in place of upstream servers.
    pub(crate) stand_in: Option<&'p StandIn>,
}

/// A chain, and what it stands on.
pub(crate) struct Built {
    pub(crate) chain: Chain,
    /// What the names are made by.
    pub(crate) settings: Settings,
    pub(crate) hosts: Vec<HostsFile>,
}

/// Builds a chain. `base` is what the configuration does not say; without one, there is
/// one block for all names, by `base` alone.
pub(crate) fn build(
    face: Option<&FaceConfig>,
    base: &Settings,
    parts: &Parts<'_>,
) -> Result<Built, String> {
    let Some(face) = face else {
        let Parts { metrics, tasks, stand_in, .. } = parts;
        let forwarder = Forwarder::start(&base.forwarding, metrics, tasks, true, *stand_in);
        let settings = base.clone();
        return Ok(Built { chain: Chain::direct(forwarder), settings, hosts: Vec::new() });
    };
    let mut settings = Settings { zones: Vec::new(), raised_ttl_seconds: 0, ..base.clone() };
    let mut hosts = Vec::new();
    let kubernetes = face.servers.iter().filter(|server| server.kubernetes.is_some()).count();
    let mut blocks = Vec::new();
    for server in &face.servers {
        if let Some(config) = &server.kubernetes {
            names_of(server, config, &mut settings)?;
        }
        let forwarder = forwarder(server, parts)?;
        if server.kubernetes.is_some() {
            let forwarding = forwarder.as_ref().map(|forwarder| forwarder.settings().clone());
            settings.forwarding = forwarding.unwrap_or_default();
        }
        for rule in &server.rewrite {
            if let RewriteRule::Ttl { min, .. } = rule.rule {
                settings.raised_ttl_seconds = settings.raised_ttl_seconds.max(min);
            }
        }
        let stages = stages(server, forwarder.as_ref(), &mut hosts)?;
        blocks.push(Block {
            zones: server.zones.clone(),
            // Names of Services are the same whichever block they are asked in, so a
            // block without them must take the general way.
            direct: kubernetes == 1 && is_plain(server, &stages),
            stages,
            forwarder,
            errors: server.errors.then(Errors::default),
            nsid: server.nsid.as_deref().map(Arc::from),
        });
    }
    let chain = Chain { blocks };
    settings.stages = chain.bearing(&settings.zones);
    Ok(Built { chain, settings, hosts })
}

/// Whether a block does no more than the short way does.
fn is_plain(server: &ServerConfig, stages: &[Box<dyn Stage>]) -> bool {
    // The short way denies what it does not know; addresses have a kind of zone of
    // their own for that.
    let arpa = |zone: &ZoneName| zone.to_string().ends_with(".arpa.");
    let denies = |config: &KubernetesConfig| config.fallthrough.zones.iter().all(arpa);
    let names: Vec<&str> = stages.iter().map(|stage| stage.name()).collect();
    matches!(names[..], ["loadbalance", "kubernetes"] | ["loadbalance", "kubernetes", "forward"])
        && server.kubernetes.as_ref().is_some_and(denies)
}

/// The stages of a block, in order.
fn stages(
    server: &ServerConfig,
    forwarder: Option<&Forwarder>,
    files: &mut Vec<HostsFile>,
) -> Result<Vec<Box<dyn Stage>>, String> {
    let mut stages: Vec<Box<dyn Stage>> = Vec::new();
    if let Some(size) = server.bufsize.filter(|size| *size < UDP_PAYLOAD_MAX) {
        stages.push(Box::new(Bufsize(size)));
    }
    if let Some(limit) = &server.limit {
        stages.push(Box::new(Limit::new(limit)));
    }
    if !server.log.is_empty() {
        stages.push(Box::new(Log(server.log.iter().cloned().map(Arc::new).collect())));
    }
    if server.local {
        stages.push(Box::new(Local));
    }
    if server.any {
        stages.push(Box::new(Any));
    }
    if server.loadbalance {
        stages.push(Box::new(Loadbalance));
    }
    if !server.rewrite.is_empty() {
        stages.push(Box::new(Rewrite(server.rewrite.clone())));
    }
    if let Some(config) = &server.autopath {
        let host_search = if config.search.is_empty() { host_search() } else { Vec::new() };
        let kubernetes = server.kubernetes.as_ref();
        let cluster = kubernetes.map(|kubernetes| server.zones_of(&kubernetes.zones));
        stages.push(Box::new(Autopath {
            zones: server.zones_of(&config.zones),
            cluster: cluster.unwrap_or_default(),
            search: config.search.iter().map(|zone| zone.0.clone()).collect(),
            host_search,
        }));
    }
    if !server.acl.is_empty() {
        let mut sets = server.acl.clone();
        sets.iter_mut().for_each(|set| set.zones = server.zones_of(&set.zones));
        stages.push(Box::new(Acl(sets)));
    }
    if let Some(config) = &server.header {
        stages.push(Box::new(Header(config.clone())));
    }
    if server.minimal {
        stages.push(Box::new(Minimal));
    }
    if !server.template.is_empty() {
        let mut templates = server.template.clone();
        templates.iter_mut().for_each(|one| one.zones = server.zones_of(&one.zones));
        stages.push(Box::new(Templates::new(&templates)?));
    }
    if let Some(config) = &server.hosts {
        let hosts = Hosts::new(config, server.zones_of(&config.zones));
        if let Some(file) = hosts.file() {
            file.refresh();
            files.push(file.clone());
        }
        stages.push(Box::new(hosts));
    }
    if let Some(config) = &server.k8s_external {
        stages.push(Box::new(Kubernetes {
            name: K8S_EXTERNAL,
            zones: server.zones_of(&config.zones),
            fallthrough: config.fallthrough.clone(),
        }));
    }
    if let Some(config) = &server.kubernetes {
        stages.push(Box::new(Kubernetes {
            name: KUBERNETES,
            zones: server.zones_of(&config.zones),
            fallthrough: config.fallthrough.clone(),
        }));
    }
    if let Some(forwarder) = forwarder {
        stages.push(Box::new(Forward(forwarder.clone())));
    }
    stages.sort_by_key(|stage| ORDER.iter().position(|name| *name == stage.name()));
    Ok(stages)
}

/// Adds the names of one `kubernetes` to the settings.
fn names_of(
    server: &ServerConfig,
    config: &KubernetesConfig,
    settings: &mut Settings,
) -> Result<(), String> {
    for name in server.zones_of(&config.zones) {
        let mut zone = Zone::new(&name.to_string()).ok_or_else(|| format!("{name} is no zone"))?;
        // What falls through of addresses is not ours to deny.
        if zone.kind == ZoneKind::Reverse && config.fallthrough.passes(&name.0) {
            zone.kind = ZoneKind::ReverseKnown;
        }
        if config.multicluster.contains(&name) {
            zone.kind = ZoneKind::ClusterSet;
        }
        if !settings.zones.contains(&zone) {
            settings.zones.push(zone);
        }
    }
    settings.labels = config.labels.as_ref().map(|labels| labels.0.clone());
    settings.namespace_labels = config.namespace_labels.as_ref().map(|labels| labels.0.clone());
    settings.ttl_seconds = config.ttl;
    settings.negative_ttl_seconds = config.negative_ttl;
    settings.pods = match config.pods {
        PodMode::Disabled => PodNames::Disabled,
        PodMode::Insecure => PodNames::Insecure,
        PodMode::Verified => PodNames::Verified,
    };
    settings.namespaces = (!config.namespaces.is_empty())
        .then(|| config.namespaces.iter().map(|name| name.as_str().into()).collect());
    settings.endpoint_pod_names = config.endpoint_pod_names;
    settings.endpoints = config.endpoints;
    settings.empty_services = config.empty_services;
    settings.zonal = config.zonal;
    if let Some(config) = &server.k8s_external {
        for name in server.zones_of(&config.zones) {
            settings.zones.push(Zone { apex: name.0, kind: ZoneKind::External });
        }
        settings.external = ExternalSettings {
            headless: config.headless,
            apex: config.apex.clone(),
            ttl_seconds: config.ttl,
        };
    }
    let peers = server.transfer.iter().flat_map(|transfer| &transfer.to);
    for network in peers {
        let all = network.length == 0;
        settings.transfer_to = match std::mem::take(&mut settings.transfer_to) {
            TransferTo::Everybody => TransferTo::Everybody,
            _ if all => TransferTo::Everybody,
            TransferTo::Nobody => TransferTo::Addresses([network.address].into()),
            TransferTo::Addresses(mut addresses) => {
                addresses.insert(network.address);
                TransferTo::Addresses(addresses)
            }
        };
    }
    Ok(())
}

/// The search path of this machine, without the cluster's names.
fn host_search() -> Vec<DnsName> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let last = text.lines().rev().find_map(|line| line.trim().strip_prefix("search"));
    last.unwrap_or_default().split_whitespace().filter_map(parse).collect()
}

/// Who is asked by a block; the one of before, where nothing has changed.
fn forwarder(server: &ServerConfig, parts: &Parts<'_>) -> Result<Option<Forwarder>, String> {
    if server.forward.is_empty() {
        return Ok(None);
    }
    let groups = server.forward.iter().map(group).collect::<Result<Vec<_>, _>>()?;
    let budgets = server.forward.iter().filter_map(|config| config.budget);
    let budget = budgets.map(|budget| budget.0).min();
    let mut settings = Forwarding { groups, ..Forwarding::default() };
    settings.budget = budget.unwrap_or(settings.budget);
    settings.cache = match &server.cache {
        Some(cache) => kept(cache),
        None => CacheSettings { bytes_max: 0, ..CacheSettings::default() },
    };
    if let Some((address, why)) = settings.unusable() {
        return Err(format!("the upstream server {address} cannot be used: {why}"));
    }
    let mut running = parts.earlier.blocks.iter().filter_map(Block::forwarder);
    let same = running
        .find(|forwarder| *forwarder.settings() == settings && forwarder.probes() == server.r#loop);
    let Parts { metrics, tasks, stand_in, .. } = parts;
    Ok(same
        .cloned()
        .or_else(|| Forwarder::start(&settings, metrics, tasks, server.r#loop, *stand_in)))
}

fn group(config: &ForwardConfig) -> Result<Group, String> {
    let names = |zones: &[ZoneName]| zones.iter().map(|zone| zone.0.clone()).collect();
    let mut group = Group::new(config.from.0.clone(), []);
    group.except = names(&config.except);
    group.policy = config.policy;
    group.force_tcp = config.force_tcp;
    group.source = config.source_address;
    group.max_concurrent = usize::try_from(config.max_concurrent).ok().filter(|max| *max > 0);
    for target in &config.to {
        match target {
            Target::Plain(address) => group.servers.push((*address).into()),
            Target::Tls(address, name) => {
                let tls = TlsServer::new(&config.tls, address.ip(), name.as_deref())?;
                group.servers.push(Server { address: *address, tls: Some(tls) });
            }
            Target::File(path) => {
                let found = name_servers(path)?;
                group.servers.extend(found.into_iter().map(Server::from));
            }
        }
    }
    if group.servers.is_empty() {
        return Err(format!("forward {} names no server", config.from));
    }
    Ok(group)
}

/// The name servers of a file such as `/etc/resolv.conf`.
fn name_servers(path: &str) -> Result<Vec<SocketAddr>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| {
        // A zone index says through which interface; the kernel knows.
        rest.trim().split('%').next()?.parse().ok().map(|address| SocketAddr::new(address, PORT))
    });
    Ok(addresses.collect())
}

fn kept(config: &CacheConfig) -> CacheSettings {
    let names = |zones: &[ZoneName]| zones.iter().map(|zone| zone.0.clone()).collect();
    let bounds = |part: &CachePart| Bounds { min: part.ttl_min, max: part.ttl_max };
    let stale = config.serve_stale;
    CacheSettings {
        bytes_max: config.bytes_max,
        prefetch: config.prefetch,
        stale: stale.map_or(Duration::ZERO, |stale| stale.duration.0),
        stale_at_once: stale.is_some_and(|stale| stale.immediate),
        success: bounds(&config.success),
        denial: bounds(&config.denial),
        failure_seconds: u32::try_from(config.servfail.0.as_secs()).unwrap_or(u32::MAX),
        zones: names(&config.zones),
        success_except: names(&config.success.except),
        denial_except: names(&config.denial.except),
        caps_ttl: true,
        keep_ttl: config.keepttl,
    }
}
