//! The general path of a query: server blocks, and the stages of each in one order.
//!
//! ```text
//!   query --deepest zone--> block: stage --> stage --> ... --> forward
//!                                    |  answers, refuses, asks others
//!                                    v
//!   reply <-- what the stages that were passed change of it, in turn
//! ```
//!
//! The order is [`ORDER`], whatever order a file has: it is CoreDNS' plugin.cfg, which
//! is what makes a Corefile mean here what it means there. A stage looks at a request
//! and says what comes of it ([`Step`]); it is a pure function of the request and the
//! names. Only the walk waits for others. Since each step says why, `dig +trace` is
//! the same walk with its steps written down.
//!
//! A block that has nothing but Services and upstream servers is *direct*: its
//! queries need no walk, and take the short way in [`crate::responder`]. In all others
//! stages say which answers about our own names they bear on ([`Bearing`]); the rest
//! is answered from compiled bytes before anything here is asked.

mod acl;
mod any;
mod autopath;
mod build;
mod forward;
mod header;
mod hosts;
mod kubernetes;
mod limit;
mod local;
mod log;
mod manners;
mod record_text;
mod request;
mod rewrite;
mod template;
mod template_text;
mod walk;

use std::{fmt, sync::Arc};

pub(crate) use self::{
    build::{Built, Parts, build},
    hosts::HostsFile,
    log::write as write_log,
    request::{Body, Request, Response, sections},
    rewrite::check as check_rewrite,
    template_text::check as check_template,
    walk::{Outcome, Walk},
};
use crate::{
    bearing::Bearing,
    config::ZoneName,
    forward::{Ask, Forwarder},
    message::Question,
    name::{DnsName, Rr},
    names::Names,
    settings::{Zone, ZoneKind},
    trace,
};

/// Stages from first to last. `cache` is part of `forward`, as our own zones are
/// never cached.
const ORDER: [&str; 16] = [
    "bufsize",
    "limit",
    "log",
    "local",
    "any",
    "loadbalance",
    "rewrite",
    "autopath",
    "acl",
    "header",
    "minimal",
    "template",
    "hosts",
    "k8s_external",
    "kubernetes",
    "forward",
];

/// What a stage makes of a request.
pub(crate) enum Step {
    /// It answers.
    Answer(Response),
    /// The next stage is asked, with the request as it is now.
    Next(&'static str),
    /// It refuses: result code, extended error, and why.
    Refuse(Refused),
    /// There is no reply.
    Drop(&'static str),
    /// Others are asked.
    Ask(Forwarder, Ask),
    /// The answer so far leads to another name, whose answer is put behind it.
    Chase(Chase),
    /// The next stages are asked for these names, until one of them exists.
    Search(Vec<DnsName>),
}

/// A refusal.
pub(crate) struct Refused {
    pub(crate) rcode: u16,
    /// Extended error (RFC 8914).
    pub(crate) error: Option<(u16, String)>,
    pub(crate) why: &'static str,
}

/// An alias that leads out of what a stage knows.
pub(crate) struct Chase {
    pub(crate) aliases: Vec<Rr>,
    pub(crate) target: DnsName,
    /// Whether the result code is that of the end of the chain.
    pub(crate) follows_rcode: bool,
}

/// Whether a name can lie in both zones.
pub(crate) fn overlap(one: &DnsName, other: &DnsName) -> bool {
    one.ends_with(other) || other.ends_with(one)
}

/// Everything for zones in which names of a zone of Services can lie, else nothing.
fn bearing_of<'z>(zones: impl IntoIterator<Item = &'z ZoneName>, apex: &DnsName) -> Bearing {
    match zones.into_iter().any(|zone| overlap(&zone.0, apex)) {
        true => Bearing::EVERYTHING,
        false => Bearing::NOTHING,
    }
}

/// A part of the general path.
pub(crate) trait Stage: fmt::Debug + Send + Sync {
    /// As in [`ORDER`].
    fn name(&self) -> &'static str;

    /// Looks at a request on its way in, and may change it.
    fn enter(&self, request: &mut Request, names: &Names) -> Step;

    /// How it would come to what it says of a request, for people.
    fn explain(&self, _request: &Request, _names: &Names) -> Vec<trace::Step> {
        Vec::new()
    }

    /// What of the answers about names in a zone of Services it may change.
    fn bearing(&self, _apex: &DnsName) -> Bearing {
        Bearing::EVERYTHING
    }

    /// Looks at the answer on its way out, and may change it.
    fn leave(&self, _request: &Request, _response: &mut Response) {}
}

/// One server block at work.
#[derive(Debug)]
pub(crate) struct Block {
    zones: Vec<ZoneName>,
    stages: Vec<Box<dyn Stage>>,
    forwarder: Option<Forwarder>,
    direct: bool,
    errors: Option<log::Errors>,
    /// What it calls itself to who wants to know (RFC 5001).
    nsid: Option<Arc<str>>,
}

impl Block {
    /// Whether its queries need no walk.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    /// What of the names in a zone of Services has to go through its stages.
    fn bearing(&self, apex: &DnsName) -> Bearing {
        let nsid = match self.nsid {
            Some(_) => Bearing::OPTIONS,
            None => Bearing::NOTHING,
        };
        if self.direct {
            return nsid;
        }
        let has = |name: &str| self.stages.iter().any(|stage| stage.name() == name);
        if !has("kubernetes") {
            return Bearing::EVERYTHING;
        }
        let order = if has("loadbalance") { Bearing::NOTHING } else { Bearing::ORDER };
        self.stages.iter().fold(order | nsid, |all, stage| all | stage.bearing(apex))
    }

    /// The deepest of its zones that holds a name.
    pub(crate) fn zone_of(&self, name: &DnsName) -> Option<&ZoneName> {
        crate::config::zone_of(&self.zones, name)
    }

    /// Who is asked for names that are not ours.
    pub(crate) fn forwarder(&self) -> Option<&Forwarder> {
        self.forwarder.as_ref()
    }

    /// What it calls itself.
    pub(crate) fn nsid(&self) -> Option<Arc<str>> {
        self.nsid.clone()
    }

    /// Takes note of a failure.
    pub(crate) fn failed(&self, question: &Question, why: &str) {
        if let Some(errors) = &self.errors {
            errors.note(question, why);
        }
    }
}

/// All server blocks.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    blocks: Vec<Block>,
}

impl Chain {
    /// One block for all names, that has nothing but Services and these servers.
    pub(crate) fn direct(forwarder: Option<Forwarder>) -> Self {
        let zones = vec![ZoneName::root()];
        Self {
            blocks: vec![Block {
                zones,
                stages: Vec::new(),
                forwarder,
                direct: true,
                errors: Some(log::Errors::default()),
                nsid: None,
            }],
        }
    }

    /// The block of a name: the one with the deepest zone. The parent answers for DS
    /// (RFC 4035, 3.1.4.1), so its block is asked where there is one.
    pub(crate) fn block_of(&self, question: &Question) -> Option<&Block> {
        use domain::base::iana::Rtype;
        let depth = |block: &Block, strictly: bool| {
            let name = &question.name;
            let holds =
                |zone: &&ZoneName| name.ends_with(&zone.0) && !(strictly && *name == zone.0);
            let zones = block.zones.iter().filter(holds);
            zones.map(|zone| zone.0.label_count()).max()
        };
        let deepest = |strictly: bool| {
            let holding =
                self.blocks.iter().filter_map(|block| Some((depth(block, strictly)?, block)));
            holding.max_by_key(|(depth, _)| *depth).map(|(_, block)| block)
        };
        match question.kind {
            Rtype::DS => deepest(true).or_else(|| deepest(false)),
            _ => deepest(false),
        }
    }

    /// What of the names in these zones of Services has to take the general way.
    pub(crate) fn bearing(&self, zones: &[Zone]) -> Bearing {
        let cluster = zones.iter().filter(|zone| zone.kind == ZoneKind::Cluster);
        cluster.fold(Bearing::NOTHING, |all, zone| all | self.bearing_on(&zone.apex))
    }

    fn bearing_on(&self, apex: &DnsName) -> Bearing {
        let depth = |own: &ZoneName| own.0.label_count();
        let holding =
            self.blocks.iter().filter_map(|block| Some((block.zone_of(apex).map(depth)?, block)));
        let Some((_, holder)) = holding.max_by_key(|(depth, _)| *depth) else {
            return Bearing::EVERYTHING;
        };
        // Names below may be another block's.
        let mut others = self.blocks.iter().filter(|block| !std::ptr::eq(*block, holder));
        if others.any(|block| block.zones.iter().any(|own| own.0.ends_with(apex))) {
            return Bearing::EVERYTHING;
        }
        holder.bearing(apex)
    }

    /// Which plugins of CoreDNS are used for which zone.
    pub(crate) fn plugins(&self) -> Vec<(String, &'static str)> {
        let of = |block: &Block| {
            let stages: Vec<&str> = match &block.stages[..] {
                [] => ["loadbalance", "kubernetes"].to_vec(),
                stages => stages.iter().map(|stage| stage.name()).collect(),
            };
            let forwarder = block.forwarder();
            let others = [
                (block.errors.is_some(), "errors"),
                (block.nsid.is_some(), "nsid"),
                (forwarder.is_some_and(|f| f.settings().cache.bytes_max > 0), "cache"),
                (forwarder.is_some_and(Forwarder::probes), "loop"),
                (forwarder.is_some() && !stages.contains(&"forward"), "forward"),
            ];
            let others = others.into_iter().filter(|(on, _)| *on).map(|(_, name)| name);
            stages.into_iter().chain(others).collect::<Vec<_>>()
        };
        let zones = self.blocks.iter().flat_map(|block| {
            let names = of(block);
            block.zones.iter().map(move |zone| (zone.to_string(), names.clone()))
        });
        zones
            .flat_map(|(zone, names)| names.into_iter().map(move |name| (zone.clone(), name)))
            .collect()
    }

    /// Whether a query of ours to find loops has come back.
    pub(crate) fn came_back(&self, name: &DnsName) -> bool {
        let mut forwarders = self.blocks.iter().filter_map(Block::forwarder);
        forwarders.any(|forwarder| forwarder.came_back(name))
    }
}
