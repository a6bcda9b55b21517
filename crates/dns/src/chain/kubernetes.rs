//! `kubernetes` and `k8s_external`: what the catalog says.

use super::{Chase, Request, Response, Stage, Step, bearing_of, overlap};
use crate::{
    answer::{Answer, Refusal, answer},
    bearing::Bearing,
    config::{Fallthrough, ZoneName, zone_of},
    name::DnsName,
    names::Names,
    trace::{self, trace},
};

/// The stage for names of Services and Pods.
pub(super) const KUBERNETES: &str = "kubernetes";

/// The stage for names as they are reached from outside.
pub(super) const K8S_EXTERNAL: &str = "k8s_external";

/// The stage of one block.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) name: &'static str,
    pub(crate) zones: Vec<ZoneName>,
    pub(crate) fallthrough: Fallthrough,
}

impl Stage for Kubernetes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn explain(&self, request: &Request, names: &Names) -> Vec<trace::Step> {
        let Request { question, client, .. } = request;
        match names.settings().zone_of(&question.name) {
            Some(_) if self.name == KUBERNETES => trace(names, question, &names.view_of(*client)),
            _ => Vec::new(),
        }
    }

    fn bearing(&self, apex: &DnsName) -> Bearing {
        if self.name == K8S_EXTERNAL {
            return bearing_of(&self.zones, apex);
        }
        // Names that it does not hold are denied by nobody.
        if zone_of(&self.zones, apex).is_none() {
            return Bearing::EVERYTHING;
        }
        match self.fallthrough.zones.iter().any(|zone| overlap(&zone.0, apex)) {
            true => Bearing::DENIALS,
            false => Bearing::NOTHING,
        }
    }

    fn enter(&self, request: &mut Request, names: &Names) -> Step {
        let name = &request.question.name;
        if zone_of(&self.zones, name).is_none() {
            return Step::Next("in no zone of Services");
        }
        match answer(names, &names.view_of(request.client), &request.question) {
            Answer::Refused(Refusal::OutsideZones) => Step::Next("an address that is not ours"),
            Answer::NxDomain { aliases, .. }
                if aliases.is_empty() && self.fallthrough.passes(name) =>
            {
                Step::Next("does not exist here, and falls through")
            }
            Answer::Records { answer, elsewhere: Some(target), .. } => {
                Step::Chase(Chase { aliases: answer, target, follows_rcode: true })
            }
            answer => Step::Answer(Response::of(self.name, answer)),
        }
    }
}
